"""The HTTP client that the SDK is given: our time-outs, the key kept at home, transfers that survive cuts.

Given to the SDK explicitly, it also keeps it from using aiohttp, with which the SDK repeats a create by itself.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx2

from gemini_batch_mcp.gemini.bodies import ACCEPTED, OF_THE_BODY, PACKED, check_values, send_in_slices, unpack
from gemini_batch_mcp.gemini.resume import Send, Sink, WholeBody, send_chunk
from gemini_batch_mcp.gemini.retry import RetryPolicy, Timeouts
from gemini_batch_mcp.redaction import Secrets

Hook = Callable[[str], None]

_KEY_HEADER: Final = "x-goog-api-key"
_COMMAND: Final = "x-goog-upload-command"
#: The loggers that write request addresses, upload ids included, at INFO and below, with the least they may say.
#: The SDK warns of nothing but a second key in the environment, which it does not even use when it is given one.
_TALKATIVE_LOGGERS: Final = {"httpx2": logging.WARNING, "httpcore2": logging.WARNING, "google_genai": logging.ERROR}


@dataclass(slots=True)
class Exchange:
    """What one gateway call tells the HTTP client, and what the client saw. It lives as long as the call."""

    reply_seconds: float
    #: The body of the reply that says that the effect happened (200, and "final" for an upload); None before.
    reply: bytes | None = None
    #: Where the chunks go; never stored elsewhere and never logged.
    upload_url: str = ""
    #: The stated length of a download; None when it is not stated.
    total_bytes: int | None = None
    #: Is awaited before the finalize of an upload leaves; what it waits for may take long, or never come.
    before_finalize: Callable[[], Awaitable[None]] | None = None
    #: Is awaited before the SDK reads the next chunk of an upload.
    before_chunk: Callable[[], Awaitable[None]] | None = None
    #: One request may leave and no other: what the SDK would send beyond it (an answer to be continued, a repeat).
    is_single: bool = False
    has_left: bool = False
    #: Takes the body of a download past the SDK, which copies every byte three times to put pieces of its own size
    #: together: a quarter of the time that a download takes (measured at 1 GB).
    sink: Sink | None = None


class SecondRequest(Exception):
    """The SDK wanted to send a second request where one was meant."""


_EXCHANGE: ContextVar[Exchange | None] = ContextVar("exchange", default=None)


@contextmanager
def exchange(reply_seconds: float) -> Iterator[Exchange]:
    """Let the HTTP client of this task know that a gateway call is going on."""
    current = Exchange(reply_seconds)
    token = _EXCHANGE.set(current)
    try:
        yield current
    finally:
        _EXCHANGE.reset(token)


def quiet_transport_logs() -> None:
    """Keep request addresses out of every log: the HTTP loggers write warnings and worse only, the SDK's errors.

    This is a change to the whole process, wanted there: an upload address is a bearer secret, and the HTTP client
    logs it at INFO. A stricter level that somebody has set stays.
    """
    for name, level in _TALKATIVE_LOGGERS.items():
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, level))


class GeminiHttpClient(httpx2.AsyncClient):
    """An `AsyncClient` for one Gemini endpoint, `home`. Proxies and certificates come from the environment.

    Sets the time-outs (the SDK sends every request with none), sends the key to no other host after a redirect,
    follows redirects of reads only, continues cut uploads and downloads, and notes what the gateway has to know.

    What the service says comes in without `secrets`: an error that repeats the key never reaches anybody. Of a
    download that is left to `transfers.Incoming`.
    """

    def __init__(
        self,
        home: httpx2.URL,
        *,
        transport: httpx2.AsyncBaseTransport | None,
        policy: RetryPolicy,
        timeouts: Timeouts,
        hook: Hook,
        secrets: Secrets,
    ) -> None:
        super().__init__(
            transport=transport,
            limits=httpx2.Limits(max_connections=20, max_keepalive_connections=10),
            headers={"accept-encoding": ACCEPTED},
            event_hooks={"request": [self._keep_key_home], "response": [unpack]},
        )
        self._home = _origin(home)
        self._policy = policy
        self._timeouts = timeouts
        self._hook = hook
        self._secrets = secrets
        #: How far this machine's clock is ahead of the service's, by the newest reply that says its time.
        self.clock_ahead_seconds: float | None = None

    async def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        """Send a request of the SDK."""
        current = _EXCHANGE.get() or Exchange(self._timeouts.reply_seconds)
        options["follow_redirects"] = request.method == "GET"
        if current.is_single and current.has_left:
            raise SecondRequest
        current.has_left = True

        async def send(request: httpx2.Request) -> httpx2.Response:
            send_in_slices(request)
            response = await super(GeminiHttpClient, self).send(request, stream=stream, **options)
            self._compare_clocks(response.headers.get("date", ""))
            if stream and response.status_code in (200, 206):
                return response
            content = await response.aread()
            check_values(content)
            return self._cut(response, content)

        command = request.headers.get(_COMMAND, "")
        if command in _UPLOAD_STEPS:
            return await self._upload(request, command, current, send)
        if request.url.path.endswith(":download"):
            return await self._download(request, current, send)
        self._limit_time(request, current.reply_seconds)
        response = await send(request)
        if response.status_code == 200 and not stream:
            current.reply = response.content
        return response

    def _compare_clocks(self, date: str) -> None:
        try:
            said = parsedate_to_datetime(date)
        except ValueError:
            return
        self.clock_ahead_seconds = time.time() - said.timestamp()

    def _cut(self, response: httpx2.Response, content: bytes) -> httpx2.Response:
        """Return a response whose body is free of secrets."""
        cut = self._secrets.cut_bytes(content)
        kind, _, token = response.request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and token.encode() in cut:
            # A token of Google Cloud's: no setting holds it, and it is another one every hour.
            cut = Secrets.of([token]).cut_bytes(cut)
        if cut == content:
            return response
        headers = [(name, value) for name, value in response.headers.multi_items() if name not in OF_THE_BODY]
        return httpx2.Response(
            response.status_code,
            headers=headers,
            content=cut,
            request=response.request,
            extensions=response.extensions,
            history=response.history,
        )

    async def _upload(self, request: httpx2.Request, command: str, current: Exchange, send: Send) -> httpx2.Response:
        """Send the start of an upload, or one chunk of it."""
        step = _UPLOAD_STEPS[command]
        if "finalize" in command and current.before_finalize is not None:
            await current.before_finalize()
        self._limit_time(request, self._timeouts.create_seconds if "finalize" in command else current.reply_seconds)
        self._hook(f"{step}:before")
        if command == "start":
            response = await send(request)
            current.upload_url = response.headers.get("x-goog-upload-url", "")
        else:
            response = await send_chunk(request, send, self._policy)
        if response.status_code == 200:
            self._hook(f"{step}:after")
            if response.headers.get("x-goog-upload-status") == "final":
                current.reply = response.content
            elif current.before_chunk is not None:
                await current.before_chunk()
        return response

    async def _download(self, request: httpx2.Request, current: Exchange, send: Send) -> httpx2.Response:
        """Send a download whose body goes on after a cut. Uncompressed, so that its length can be checked."""
        request.headers["accept-encoding"] = "identity"
        self._limit_time(request, self._timeouts.transfer_seconds)
        response = await send(request)
        if response.status_code == 200 and PACKED not in response.extensions:
            body = WholeBody(request, response, send, self._policy, self._timeouts.stall_seconds, current.sink)
            current.total_bytes = body.total_bytes
            response.stream = body
        return response

    def _limit_time(self, request: httpx2.Request, reply_seconds: float) -> None:
        timeout = httpx2.Timeout(
            connect=self._timeouts.connect_seconds,
            pool=self._timeouts.connect_seconds,
            write=self._timeouts.transfer_seconds,
            read=reply_seconds,
        )
        request.extensions = {**request.extensions, "timeout": timeout.as_dict()}

    async def _keep_key_home(self, request: httpx2.Request) -> None:
        """Take the key out of a request that a redirect sends elsewhere."""
        if _origin(request.url) != self._home:
            request.headers.pop(_KEY_HEADER, None)


_UPLOAD_STEPS: Final = {
    "start": "upload_start",
    "upload": "upload_chunk",
    "upload, finalize": "upload_finalize",
}


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
