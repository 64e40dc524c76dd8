"""Runs a sandbox on a port, under uvicorn: for other processes, other languages and the command line."""

import asyncio
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from gemini_batch_mcp.sandbox.transport import CUT, AsgiApp, Receive, Send

_START_SECONDS: Final = 10.0
#: How long a stopping service waits for requests that are being answered.
_STOP_SECONDS: Final = 2
#: How long a connection that nothing comes over is kept: longer than clients keep theirs (Google's SDK for Python 5 s),
#: so that no request meets a connection that is just being closed.
_IDLE_SECONDS: Final = 120


def run(app: AsgiApp, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve until the process is interrupted. Port 0 picks a free one; `on_ready` is called with the base URL."""
    with _bound(host, port) as listener:
        _Server(app, on_ready).run([listener])


@contextmanager
def listening(app: AsgiApp, host: str = "127.0.0.1", port: int = 0) -> Generator[str]:
    """Serve from a thread while the block runs; gives the base URL."""
    ready = threading.Event()
    urls: list[str] = []

    def on_ready(url: str) -> None:
        urls.append(url)
        ready.set()

    with _bound(host, port) as listener:
        server = _Server(app, on_ready)
        thread = threading.Thread(target=server.run, args=([listener],), name="sandbox", daemon=True)
        thread.start()
        try:
            if not ready.wait(_START_SECONDS):
                raise TimeoutError("The sandbox did not start.")
            yield urls[0]
        finally:
            server.should_exit = True
            thread.join()


class _Server(uvicorn.Server):
    """A server that says when it is ready. It logs warnings only: upload URLs never reach a log."""

    def __init__(self, app: AsgiApp, on_ready: Callable[[str], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=_CuttableProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                date_header=False,
                timeout_graceful_shutdown=_STOP_SECONDS,
                timeout_keep_alive=_IDLE_SECONDS,
            )
        )
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host, port = (sockets or [])[0].getsockname()[:2]
        self._on_ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")


class _CuttableProtocol(H11Protocol):
    """An HTTP connection that the application can close in the middle of whatever it does."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn declares it
        super().connection_made(transport)
        # asyncio does this only for sockets that name their protocol; without it every reply waits 40 ms (measured).
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        application: AsgiApp = self.app

        async def with_cut(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            # Closing sends what has been written; aborting would drop the bytes that are to arrive before a cut.
            scope.setdefault("extensions", {})[CUT] = transport.close
            await application(scope, receive, send)

        self.app = with_cut


@contextmanager
def _bound(host: str, port: int) -> Generator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=128) as listener:
        yield listener
