"""The two ways to a client, standard input and output, and HTTP: every message is answered, and both end when told."""

import logging
import os
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from typing import Any, Final

import anyio
import anyio.from_thread
import anyio.lowlevel
from anyio.streams.memory import MemoryObjectReceiveStream
from mcp.server.mcpserver import MCPServer
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCMessage, JSONRPCResponse

from gemini_batch_mcp.assistant.incoming import MAX_MESSAGE_BYTES, Refused, read_message
from gemini_batch_mcp.batches.opening import LazyDesk
from gemini_batch_mcp.threads import in_thread

_PIECE_BYTES: Final = 1 << 16
#: What the SDK takes over HTTP; what is longer it refuses itself, without having read it.
_MAX_BODY_BYTES: Final = 4 << 20
_JSON: Final = [(b"content-type", b"application/json")]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Message, Receive, Send], Awaitable[None]]


async def over_stdio(server: MCPServer[LazyDesk], on_end: Callable[[], None]) -> None:
    """Serve until the input ends; `on_end` is called then, in a thread, before what is under way is stopped."""
    low = server._lowlevel_server  # what its own run_stdio_async runs, which takes no streams
    # The SDK's own reader gets nothing to read: it drops a line that it cannot read.
    async with stdio_server(stdin=_nothing()) as (nothing, outgoing), _incoming(outgoing, on_end) as incoming:
        await nothing.aclose()
        await low.run(incoming, outgoing, low.create_initialization_options())


def _nothing() -> Any:
    async def lines() -> AsyncIterator[str]:
        no_lines: tuple[str, ...] = ()
        for line in no_lines:
            yield line

    return lines()


@asynccontextmanager
async def _incoming(
    outgoing: Any, on_end: Callable[[], None]
) -> AsyncIterator[MemoryObjectReceiveStream[SessionMessage | Exception]]:
    """Provide the messages of the standard input; those that cannot be read are answered on `outgoing`.

    They are read and parsed in a thread of their own: a long one keeps nobody else waiting, and as a daemon it does
    not keep the process from ending.
    """
    sender, receiver = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    answers = outgoing.clone()
    token = anyio.lowlevel.current_token()

    async def deliver(message: JSONRPCMessage | Refused) -> None:
        handed_on = message.instead if isinstance(message, Refused) else message
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            if isinstance(message, Refused) and message.answer is not None:
                await answers.send(SessionMessage(message.answer))
            if handed_on is not None:
                await sender.send(SessionMessage(handed_on))

    def read() -> None:
        # The loop may have ended, on a signal say.
        with suppress(RuntimeError, CancelledError):
            for line in _lines(sys.stdin.fileno()):
                anyio.from_thread.run(deliver, read_message(line), token=token)
            on_end()
            anyio.from_thread.run_sync(sender.close, token=token)

    threading.Thread(target=read, name="stdin", daemon=True).start()
    async with receiver, answers:
        yield receiver


def _lines(descriptor: int) -> Iterator[bytes]:
    """Yield lines until the input ends; of one that is too long its beginning, which tells whose it is.

    Not by way of `sys.stdin`: a process that ends while a thread reads that ends with a complaint.
    """
    line = bytearray()
    # A terminal that is gone ends in an error, a pipe in nothing.
    with suppress(OSError):
        while piece := os.read(descriptor, _PIECE_BYTES):
            *ends, rest = piece.split(b"\n")
            for end in ends:
                yield bytes(line + end)
                line.clear()
            if len(line) <= MAX_MESSAGE_BYTES:
                line += rest
    if line:
        yield bytes(line)


async def over_http(server: MCPServer[LazyDesk], host: str, port: int) -> None:
    """Serve on a port until cancelled."""
    import uvicorn

    class Server(uvicorn.Server):
        """Leaves signals to whoever cancels it: it would wait for clients to go away, and for a second signal."""

        def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]  # a generator there
            return nullcontext()

    application = _answering(server.streamable_http_app(host=host))
    # Without an access log: addresses say what is asked for. With 0 seconds for streams that never end.
    config = uvicorn.Config(
        application, host, port, log_config=None, log_level="warning", access_log=False, ws="none",
        timeout_graceful_shutdown=0,
    )  # fmt: skip
    serving = Server(config)
    try:
        await serving.serve()
    except anyio.get_cancelled_exc_class():
        # It would complain of every stream that it ends.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        with anyio.CancelScope(shield=True):
            await serving.shutdown()
        raise


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
