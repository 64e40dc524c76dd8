"""MCP on standard input and output: every line is answered, and the end of the input ends the server."""

import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import anyio
import anyio.from_thread
import anyio.lowlevel
from anyio.streams.memory import MemoryObjectReceiveStream
from mcp.server.mcpserver import MCPServer
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCMessage

from gemini_batch_mcp.assistant.transports._incoming import MAX_MESSAGE_BYTES, Refused, read_message
from gemini_batch_mcp.batches.opening import LazyDesk

_PIECE_BYTES: Final = 1 << 16


async def over_stdio(server: MCPServer[LazyDesk], on_end: Callable[[], None]) -> None:
    """Serve until the input ends, or nobody reads the answers; `on_end` is called then, to hurry what is under way."""
    low = server._lowlevel_server  # what its own run_stdio_async runs, which takes no streams
    try:
        # The SDK's own reader gets nothing to read: it drops a line that it cannot read.
        async with stdio_server(stdin=_nothing()) as (nothing, outgoing), _incoming(outgoing, on_end) as incoming:
            await nothing.aclose()
            await low.run(incoming, outgoing, low.create_initialization_options())
    except* BrokenPipeError:
        # Whoever reads the answers is gone, which ends a conversation as well.
        on_end()


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
