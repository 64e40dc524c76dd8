"""What surrounds every route: the record of requests, the key, queued faults, and refusals in google.rpc form."""

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Final
from urllib.parse import parse_qsl, urlencode

import anyio
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from gemini_batch_mcp.sandbox.api.faults import Fault, FaultQueue
from gemini_batch_mcp.sandbox.api.projects import Projects
from gemini_batch_mcp.sandbox.config import NANOSECONDS, SandboxConfig
from gemini_batch_mcp.sandbox.transport import CUT
from gemini_batch_mcp.sandbox.wire import ApiError, json_response, status_name

Handler = Callable[[Request], Awaitable[Response]]

_MASK: Final = "***"
_KEY_HEADERS: Final = frozenset({"x-goog-api-key", "authorization"})
#: Requests that are remembered; a long-running service forgets the oldest ones.
_MAX_RECORDED: Final = 100_000


@dataclass(slots=True)
class RecordedRequest:
    """One request as it came; the key is masked. `status` is 0 until it was answered, and stays 0 when it was cut."""

    method: str
    path: str
    query: str
    route: str
    version: str
    headers: Mapping[str, str]
    at_seconds: float = field(default_factory=time.time)
    status: int = 0
    request_bytes: int = 0
    response_bytes: int = 0


class RequestLog:
    """Every request, in order of arrival; those that met no route a second time."""

    def __init__(self) -> None:
        self.requests: list[RecordedRequest] = []
        self.unknown: list[RecordedRequest] = []

    def add(self, scope: Scope, route: str) -> RecordedRequest:
        """Record a request that has just arrived."""
        query = urlencode(
            [(name, _MASK if name == "key" else value) for name, value in _query(scope).items()], safe="*,/"
        )
        headers = {name: _MASK if name in _KEY_HEADERS else value for name, value in Headers(scope=scope).items()}
        version = scope.get("path_params", {}).get("version", "")
        recorded = RecordedRequest(scope["method"], scope["path"], query, route, version, headers)
        self.requests.append(recorded)
        del self.requests[:-_MAX_RECORDED]
        if not route:
            self.unknown.append(recorded)
            del self.unknown[:-_MAX_RECORDED]
        return recorded


class Guard:
    """An ASGI application around one handler. `route` is its name, or tells it from the request."""

    def __init__(
        self,
        route: str | Callable[[Scope], str],
        handler: Handler,
        log: RequestLog,
        faults: FaultQueue,
        config: SandboxConfig,
        projects: Projects | None = None,
        *,
        needs_key: Callable[[Scope], bool] = lambda _: True,
    ) -> None:
        self._route = route
        self._handler = handler
        self._log = log
        self._faults = faults
        self._config = config
        self._projects = projects
        self._needs_key = needs_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or fail as a queued fault says."""
        route = self._route if isinstance(self._route, str) else self._route(scope)
        exchange = _Exchange(scope, receive, send, self._log.add(scope, route), self._config)
        fault = self._faults.take(route)
        if fault and fault.delay_seconds:
            await exchange.hold_back(fault.delay_seconds)
        if fault and fault.when == "before" and (fault.cut or fault.status):
            await exchange.read_body(fault.at_byte if fault.cut else None)
            if fault.cut:
                await exchange.cut()
            else:
                await exchange.answer(_refusal(fault))
            return
        response = await self._respond(Request(scope, exchange.receive), route)
        if response is None:
            return
        if fault and fault.status:
            response = _refusal(fault)
        elif fault and fault.page:
            response = Response(fault.page, media_type="text/html")
        elif fault and fault.without:
            response = _without(response, fault.without)
        await exchange.answer(response, fault)

    async def _respond(self, request: Request, route: str) -> Response | None:
        """Return the handler's answer, None when the client has gone."""
        try:
            if self._needs_key(request.scope):
                check_key(request, self._config)
            if self._projects is None:
                return await self._handler(request)
            self._projects.refuse_others(request, route)
            return self._projects.noted(request, route, await self._handler(request))
        except ApiError as error:
            return error.to_response()
        except ClientDisconnect:
            return None


class _Exchange:
    """One request and its response: counts their bytes and can cut them off."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, recorded: RecordedRequest, config: SandboxConfig
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._recorded = recorded
        self._clock_ns = config.clock_ns
        self._held_back: list[Message] = []

    async def hold_back(self, seconds: float) -> None:
        """Wait with the whole request in hand: a client that gives up meanwhile has asked all the same."""
        while not self._held_back or self._held_back[-1].get("more_body", False):
            self._held_back.append(await self._receive())
        await anyio.sleep(seconds)

    async def receive(self) -> Message:
        message = self._held_back.pop(0) if self._held_back else await self._receive()
        self._recorded.request_bytes += len(message.get("body", b""))
        return message

    async def read_body(self, up_to_bytes: int | None) -> None:
        """Read the request's body, or the first bytes of it."""
        while up_to_bytes is None or self._recorded.request_bytes < up_to_bytes:
            message = await self.receive()
            if not message.get("more_body", False):
                return

    async def answer(self, response: Response, fault: Fault | None = None) -> None:
        """Send the response, as whole as the fault leaves it."""
        if fault is None or not (fault.cut or fault.short_body):
            await response(self._scope, self._receive, self._count_and_send)
            return
        at_byte = fault.at_byte
        if fault.short_body and fault.at_line is not None:
            await response(
                self._scope, self._receive, _ShortenedByLine(self._count_and_send, fault.at_line, at_byte or 0)
            )
        elif fault.short_body:
            await response(self._scope, self._receive, _Shortened(self._count_and_send, at_byte or 0))
        elif at_byte is None:
            await self.cut()
        else:
            await response(self._scope, self._receive, _CutOff(self._count_and_send, at_byte))
            self._recorded.status = 0
            await self.cut()

    async def cut(self) -> None:
        """Close the connection as it is, and wait until the server has noticed."""
        close = self._scope.get("extensions", {}).get(CUT)
        if close is None:
            raise ConnectionAbortedError("This server offers no way to cut a connection.")
        close()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _count_and_send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._recorded.status = message["status"]
            # By the service's own clock, as Google says it; the server beneath is told to say none.
            date = formatdate(self._clock_ns() / NANOSECONDS, usegmt=True).encode()
            message = {**message, "headers": [*message["headers"], (b"date", date)]}
        self._recorded.response_bytes += len(message.get("body", b""))
        await self._send(message)


class _CutOff:
    """A `send` that lets the first bytes of a body pass, never its end."""

    def __init__(self, send: Send, byte_count: int) -> None:
        self._send = send
        self._left = byte_count

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            body = message.get("body", b"")[: self._left]
            self._left -= len(body)
            message = {"type": "http.response.body", "body": body, "more_body": True}
        await self._send(message)


class _Shortened(_CutOff):
    """The same, but with a Content-Length and an end that agree with the short body."""

    def __init__(self, send: Send, byte_count: int) -> None:
        super().__init__(send, byte_count)
        self._ended = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = []
            for name, value in message["headers"]:
                if name == b"content-length":
                    self._left = min(self._left, int(value))
                    value = str(self._left).encode()
                headers.append((name, value))
            await self._send({**message, "headers": headers})
        elif not self._ended:
            body = message.get("body", b"")[: self._left]
            self._left -= len(body)
            self._ended = self._left == 0 or not message.get("more_body", False)
            await self._send({"type": "http.response.body", "body": body, "more_body": not self._ended})


class _ShortenedByLine:
    """A `send` that ends a body some bytes behind a number of lines, with a Content-Length that agrees.

    What is sent is held until its length is known.
    """

    def __init__(self, send: Send, line_count: int, byte_count: int) -> None:
        self._send = send
        self._lines_left = line_count
        self._bytes_left = byte_count
        self._start: Message = {}
        self._body = bytearray()
        self._ended = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
        elif not self._ended:
            self._take(message.get("body", b""))
            self._ended = not (self._lines_left or self._bytes_left) or not message.get("more_body", False)
            if self._ended:
                length = str(len(self._body)).encode()
                headers = [(name, length if name == b"content-length" else v) for name, v in self._start["headers"]]
                await self._send({**self._start, "headers": headers})
                await self._send({"type": "http.response.body", "body": bytes(self._body), "more_body": False})

    def _take(self, body: bytes) -> None:
        place = 0
        while self._lines_left and (end := body.find(b"\n", place)) >= 0:
            self._lines_left -= 1
            place = end + 1
        behind = len(body) - place if self._lines_left else min(self._bytes_left, len(body) - place)
        self._bytes_left -= 0 if self._lines_left else behind
        self._body += body[: place + behind]


def check_key(request: Request, config: SandboxConfig) -> None:
    """Refuse a request without a usable key.

    Raises:
        ApiError: 403 without a key or with one that begins with `forbidden`, 401 for `unauthorized`, 400 for
            `invalid` and for keys that are not among the accepted ones.
    """
    key = request.headers.get("x-goog-api-key") or request.query_params.get("key", "")
    if not key or key.startswith("forbidden"):
        raise ApiError(403, "[sandbox] The caller does not have permission: use an API key.")
    if key.startswith("unauthorized"):
        raise ApiError(401, "[sandbox] Request had invalid authentication credentials.")
    if key.startswith("invalid") or (config.accepted_keys is not None and key not in config.accepted_keys):
        info = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "API_KEY_INVALID",
            "domain": "googleapis.com",
        }
        raise ApiError(400, "[sandbox] API key not valid. Please pass a valid API key.", [info])


def _refusal(fault: Fault) -> Response:
    body = fault.body
    if body is None:
        message = f"[sandbox] This {fault.status} was queued as a fault."
        body = {"error": {"code": fault.status, "message": message, "status": status_name(fault.status)}}
    return json_response(body, fault.status, fault.headers)


def _without(response: Response, names: tuple[str, ...]) -> Response:
    """Return a JSON reply without the members of these names, at any depth."""

    def pruned(value: object) -> object:
        if isinstance(value, dict):
            return {name: pruned(member) for name, member in value.items() if name not in names}
        return [pruned(item) for item in value] if isinstance(value, list) else value

    return json_response(pruned(json.loads(bytes(response.body))), response.status_code)


def _query(scope: Scope) -> dict[str, str]:
    return dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
