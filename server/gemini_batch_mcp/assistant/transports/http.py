"""MCP over HTTP: a port of this machine, or of a network for those who know the token; every request is answered."""

import errno
import json
import logging
import socket
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import anyio
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import JSONRPCError, JSONRPCResponse

from gemini_batch_mcp.assistant.transports._incoming import Refused, read_message
from gemini_batch_mcp.assistant.transports.visitors import Visitors
from gemini_batch_mcp.batches.opening import LazyDesk
from gemini_batch_mcp.errors import ConfigurationError
from gemini_batch_mcp.threads import in_thread

#: Where clients send their requests, and where a supervisor asks whether the server is there.
MCP_PATH: Final = "/mcp"
HEALTH_PATH: Final = "/health"
#: What the SDK takes over HTTP; what is longer it refuses itself, without having read it.
_MAX_BODY_BYTES: Final = 4 << 20
#: How long a connection that nothing comes over is kept: longer than clients and proxies keep theirs (Go 90 s, nginx
#: 60 s, httpx 5 s). If both gave it up at the same time, a request could meet a connection that is just being closed.
_IDLE_SECONDS: Final = 120
_JSON: Final = [(b"content-type", b"application/json")]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Message, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Listening:
    """A port that has been taken. `url` is what a client is configured with."""

    sockets: tuple[socket.socket, ...]
    url: str


def listen(host: str, port: int) -> Listening:
    """Take a port; 0 takes a free one.

    Raises:
        ConfigurationError: it is taken, may not be taken, or the host is no address of this machine.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, address = found[0][0], found[0][4]
        taken = socket.create_server(address[:2], family=family)
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(*_why_not(host, port, error)) from None
    shown = f"[{host}]" if ":" in host else host
    return Listening((taken,), f"http://{shown}:{taken.getsockname()[1]}{MCP_PATH}")


def _why_not(host: str, port: int, error: Exception) -> tuple[str, str]:
    code = getattr(error, "errno", None)
    if code == errno.EADDRINUSE:
        return f"Port {port} of {host} is in use.", "Choose another port with --port, or 0 for any free one."
    if code in (errno.EACCES, errno.EPERM):
        return f"Port {port} of {host} needs more rights than this account has.", "Choose one from 1024 on with --port."
    return f"{host} is not an address of this machine.", "Give 127.0.0.1, or one of its addresses, with --host."


async def over_http(server: MCPServer[LazyDesk], listening: Listening, visitors: Visitors) -> None:
    """Serve on a port until cancelled. The port is given back at the end."""
    # The SDK's own check takes `localhost:1.evil.example` for localhost; ours stands in front of all paths.
    own_check = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    application = server.streamable_http_app(streamable_http_path=MCP_PATH, transport_security=own_check)
    await serve_on(listening.sockets, visitors.let_in(_healthy(_answering(application))))


async def serve_on(
    sockets: Sequence[socket.socket], application: Asgi, *, most_at_once: int | None = None, patience_seconds: int = 0
) -> None:
    """Serve an application on ports that have been taken until cancelled. They are given back at the end.

    More than `most_at_once` connections are answered with 503; None sets no limit. Answers under way have
    `patience_seconds` to finish; 0 suits streams that never end.
    """
    import uvicorn

    class Server(uvicorn.Server):
        """Leaves signals to whoever cancels it: it would wait for clients to go away, and for a second signal."""

        def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]  # a generator there
            return nullcontext()

    # Without an access log: addresses say what is asked for.
    config = uvicorn.Config(
        application, log_config=None, log_level="warning", access_log=False, ws="none", limit_concurrency=most_at_once,
        timeout_graceful_shutdown=patience_seconds, timeout_keep_alive=_IDLE_SECONDS,
    )  # fmt: skip
    serving = Server(config)
    try:
        await serving.serve(sockets=list(sockets))
    except anyio.get_cancelled_exc_class():
        if not patience_seconds:
            # It would complain of every stream that it ends.
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        with anyio.CancelScope(shield=True):
            if serving.started:
                await serving.shutdown(sockets=list(sockets))
        raise
    finally:
        for taken in sockets:
            taken.close()


def client_configuration(url: str, *, with_token: bool) -> str:
    """Return what most clients take into their file of servers, as JSON."""
    entry: dict[str, Any] = {"type": "http", "url": url}
    if with_token:
        entry["headers"] = {"Authorization": "Bearer ${GEMINI_BATCH_HTTP_TOKEN}"}
    return json.dumps({"mcpServers": {"gemini-batch": entry}})


def _healthy(application: Asgi) -> Asgi:
    """Answer a supervisor without opening anything: the process is there, and its loop turns."""

    async def healthy(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == HEALTH_PATH and scope["method"] in ("GET", "HEAD"):
            await send({"type": "http.response.start", "status": 200, "headers": _JSON})
            await send({"type": "http.response.body", "body": b'{"status":"ok"}'})
            return
        await application(scope, receive, send)

    return healthy


def _answering(application: Asgi) -> Asgi:
    """Answer the requests that the SDK cannot read, and so would refuse without saying which call it was."""

    async def answering(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await application(scope, receive, send)
            return
        seen, body = await _body(receive)
        read = await in_thread(read_message, body) if len(body) <= _MAX_BODY_BYTES else None
        if isinstance(read, Refused) and not read.is_json:
            if read.answer is not None:
                await _send(read.answer, send)
                return
            if read.instead is not None:
                text = read.instead.model_dump_json(by_alias=True).encode()
                seen = [{"type": "http.request", "body": text, "more_body": False}]

        async def again() -> Message:
            return seen.pop(0) if seen else await receive()

        await application(scope, again, send)

    return answering


async def _body(receive: Receive) -> tuple[list[Message], bytes]:
    """Return what came of a request, and its body; of one that is too long only more than what may come."""
    seen: list[Message] = []
    body = bytearray()
    while len(body) <= _MAX_BODY_BYTES:
        seen.append(part := await receive())
        body += part.get("body", b"")
        if part["type"] != "http.request" or not part.get("more_body"):
            break
    return seen, bytes(body)


async def _send(answer: JSONRPCResponse | JSONRPCError, send: Send) -> None:
    status = 400 if isinstance(answer, JSONRPCError) else 200
    await send({"type": "http.response.start", "status": status, "headers": _JSON})
    text = answer.model_dump_json(by_alias=True, exclude_unset=True).encode()
    await send({"type": "http.response.body", "body": text})
