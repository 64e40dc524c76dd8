"""Drives an ASGI application in process, as an httpx2 transport that behaves like a socket.

`httpx2.ASGITransport` collects a whole response before it hands it over, so that a download would sit in memory and a
cut could only come before or after a body. Here the body is handed over piece by piece, the application waits until
each piece has been taken, read time-outs hold, and a cut surfaces as the error that a socket gives.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any, Final

import httpx2

#: The scope extension by which an application cuts the connection: a function without arguments.
CUT: Final = "gemini_batch_mcp.cut"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class InProcessTransport(httpx2.AsyncBaseTransport):
    """Sends every request to `app`, in the running asyncio loop."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app
        self._exchanges: set[asyncio.Task[None]] = set()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Return the response as soon as the application has started it."""
        exchange = _Exchange(request)
        task = asyncio.create_task(exchange.run(self._app))
        self._exchanges.add(task)
        task.add_done_callback(self._exchanges.discard)
        exchange.task = task
        return await exchange.response()

    async def aclose(self) -> None:
        """Stop whatever is still being worked on."""
        tasks = list(self._exchanges)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Exchange(httpx2.AsyncByteStream):
    """One request and its response. The application runs in a task of its own and meets the client in a queue."""

    task: asyncio.Task[None]

    def __init__(self, request: httpx2.Request) -> None:
        self._request = request
        self._messages: asyncio.Queue[Message | BaseException | None] = asyncio.Queue(maxsize=1)
        self._gone = asyncio.Event()
        self._was_cut = False
        self._expected_bytes: int | None = None
        self._received_bytes = 0
        self._read_seconds: float | None = request.extensions.get("timeout", {}).get("read")

    async def run(self, app: AsgiApp) -> None:
        """Run the application, then tell the client how it ended."""
        ending: BaseException | None = None
        try:
            await app(self._scope(), self._receiver(), self._send)
        except Exception as error:  # whatever it is, the client's side raises it: a fault of ours is to be loud
            ending = error
        if not self._gone.is_set() or self._was_cut:
            await self._messages.put(ending)

    async def response(self) -> httpx2.Response:
        """Wait for the start of the response."""
        try:
            start = await self._next()
        except BaseException:
            self._gone.set()  # the application goes on: on a socket, too, a client that left stops no effect
            raise
        if start is None:
            raise httpx2.RemoteProtocolError("Server disconnected without sending a response.", request=self._request)
        headers = httpx2.Headers(start["headers"])
        length = headers.get("content-length")
        self._expected_bytes = int(length) if length else None
        return httpx2.Response(start["status"], headers=headers, stream=self)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while message := await self._next():
            body = message.get("body", b"")
            self._received_bytes += len(body)
            if body:
                yield body
            if not message.get("more_body", False):
                break
        if message is None or (self._expected_bytes is not None and self._received_bytes < self._expected_bytes):
            raise httpx2.RemoteProtocolError(
                "peer closed connection without sending complete message body"
                f" (received {self._received_bytes} bytes, expected {self._expected_bytes})",
                request=self._request,
            )

    async def aclose(self) -> None:
        """Leave; a body that is still being sent stops."""
        self._gone.set()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def _next(self) -> Message | None:
        try:
            async with asyncio.timeout(self._read_seconds):
                message = await self._messages.get()
        except TimeoutError:
            raise httpx2.ReadTimeout("The read operation timed out", request=self._request) from None
        if isinstance(message, BaseException):
            raise message
        return message

    def _cut(self) -> None:
        self._was_cut = True
        self._gone.set()

    async def _send(self, message: Message) -> None:
        if not self._gone.is_set():
            await self._messages.put(message)

    def _receiver(self) -> Receive:
        pieces = self._pieces()

        async def receive() -> Message:
            if not self._gone.is_set() and (piece := await anext(pieces, None)) is not None:
                return piece
            await self._gone.wait()
            return {"type": "http.disconnect"}

        return receive

    async def _pieces(self) -> AsyncIterator[Message]:
        assert isinstance(self._request.stream, httpx2.AsyncByteStream)
        async for body in self._request.stream:
            yield {"type": "http.request", "body": body, "more_body": True}
        yield {"type": "http.request", "body": b"", "more_body": False}

    def _scope(self) -> dict[str, Any]:
        url = self._request.url
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": self._request.method,
            "headers": [(name.lower(), value) for name, value in self._request.headers.raw],
            "scheme": url.scheme,
            "path": url.path,
            "raw_path": url.raw_path.split(b"?")[0],
            "query_string": url.query,
            "server": (url.host, url.port),
            "client": ("127.0.0.1", 0),
            "root_path": "",
            "extensions": {CUT: self._cut},
        }
