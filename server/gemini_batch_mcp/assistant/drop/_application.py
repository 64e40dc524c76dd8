"""The page as a web application: who is let in, what is taken, and what is given out.

It is asked under one address only, with its token. A page of another site can make a browser send anything here but
does not know the token; and neither its Origin nor a Host of its own (a name that leads to this machine) gets in.
"""

import hmac
import math
import os
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import anyio
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from gemini_batch_mcp.assistant.drop._html import Offer, handed_over, offering, policy, refused
from gemini_batch_mcp.assistant.drop._receiving import Received, Receiving
from gemini_batch_mcp.errors import BatchError, UsageError, is_disk_full, system_reason
from gemini_batch_mcp.handles import open_file
from gemini_batch_mcp.threads import in_thread

_BLOCK_BYTES: Final = 1 << 20
#: What is refused is read all the same: from who knows the token until nothing has come for so long, however much it
#: is, and from who does not for so long in all.
_PAUSE_SECONDS: Final = 2.0
_STRANGERS_SECONDS: Final = 0.5
#: Saved files that a page lists.
_LISTED_FILES: Final = 50
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With no-referrer a browser sends `Origin: null` with the form.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class _TooLarge(UsageError):
    """There is not enough room for what arrives."""


@dataclass(slots=True, eq=False)
class Page:
    """One page: its address, what it is for, and how it ends.

    `files` is where what is handed over goes, resolved; None where nothing is taken. `saved` are resolved paths.
    """

    host: str
    token: str
    closes_at: str
    files: Path | None
    keep_free_bytes: int
    idle_seconds: float
    #: Told what was handed over, before the sender is.
    on_received: Callable[[tuple[Received, ...]], None]
    wanted: list[str] = field(default_factory=list)
    saved: list[Path] = field(default_factory=list)
    #: Set when the page has done what it was for.
    is_done: anyio.Event = field(default_factory=anyio.Event)
    receiving: anyio.CancelScope | None = None
    is_spent: bool = False

    @property
    def path(self) -> str:
        """The path of its address, which is the secret."""
        return f"/{self.token}"

    @property
    def url(self) -> str:
        """Its whole address."""
        return f"http://{self.host}{self.path}"

    def stop(self) -> None:
        """Take nothing any more; what is on its way is given up."""
        self.is_spent = True
        if self.receiving is not None:
            self.receiving.cancel()


def application_of(page: Page) -> Any:
    """Return the application that serves a page."""
    routes = Starlette(
        routes=[
            Route("/{token}", _Shown(page).answer, methods=["GET", "HEAD", "POST"]),
            Route("/{token}/{number:int}/{name:path}", _Shown(page).give_out, methods=["GET", "HEAD"]),
        ]
    )

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await routes(scope, receive, send)
            return
        sender = _Sender(receive)
        refusal = _refusal(Request(scope), page)

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                is_known = refusal is None and not page.is_spent
                await sender.let_finish(math.inf if is_known else _STRANGERS_SECONDS)
            await send(message)

        await (refusal or routes)(scope, sender.receive, answer)

    return guarded


def _refusal(request: Request, page: Page) -> Response | None:
    """Return the answer to who may not come in. It says nothing that a stranger does not know."""
    path: str = request.scope["path"]
    if request.headers.getlist("host") != [page.host]:
        return _plain(421, "This page does not answer to that host name.")
    origins = request.headers.getlist("origin")
    if any(origin != f"http://{page.host}" for origin in origins) or (request.method == "POST" and len(origins) != 1):
        return _plain(403, "Requests from other sites' pages are refused.")
    # A link in a chat that is a web page leads here, and comes from another site: it may look, and no more.
    is_foreign = request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
    if is_foreign and (request.method == "POST" or request.headers.get("sec-fetch-mode") != "navigate"):
        return _plain(403, "Requests from other sites' pages are refused.")
    if path == "/favicon.ico":
        return Response(status_code=204, headers=_HEADERS)
    if not hmac.compare_digest(path.split("/")[1].encode(), page.token.encode()):
        return _plain(404, "There is no such page, or it has already been used.")
    return None


class _Sender:
    """Who sends a request. Browsers show no answer that comes before they have finished, so what is refused is read."""

    def __init__(self, receive: Any) -> None:
        self._receive = receive
        self._has_finished = False

    async def receive(self) -> Any:
        """Return the next message of the request."""
        message = await self._receive()
        self._has_finished = message["type"] != "http.request" or not message.get("more_body")
        return message

    async def let_finish(self, longest_seconds: float) -> None:
        """Read what is left of the request, and forget it; no longer than it keeps coming."""
        with anyio.move_on_after(longest_seconds):
            while not self._has_finished:
                with anyio.move_on_after(_PAUSE_SECONDS) as pause:
                    await self.receive()
                if pause.cancelled_caught:
                    return


class _Shown:
    """Answers to those who know the token."""

    def __init__(self, page: Page) -> None:
        self._page = page

    async def answer(self, request: Request) -> Response:
        """Show the page, or take what is handed over."""
        page = self._page
        if request.method == "POST":
            return await self._take(request)
        room = await in_thread(_room_bytes, page.files, page.keep_free_bytes) if page.files is not None else 0
        saved = await in_thread(_still_there, page.saved[-_LISTED_FILES:], max(len(page.saved) - _LISTED_FILES, 0))
        directory = str(page.files) if page.files is not None else ""
        return _html(200, offering(Offer(page.path, page.closes_at, directory, room, page.wanted, saved)))

    async def give_out(self, request: Request) -> Response:
        """Send a saved file as it is; it is kept, never shown."""
        number = request.path_params["number"]
        if number >= len(self._page.saved):
            return _plain(404, "There is no such file.")
        path = self._page.saved[number]
        try:
            file = os.fdopen(await in_thread(open_file, path), "rb", buffering=0)
        except OSError as error:
            return _plain(404, f"{path.name} cannot be read any more: {system_reason(error)}.")
        size_bytes = os.fstat(file.fileno()).st_size
        headers = {
            "Content-Length": str(size_bytes),
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(path.name, safe='')}",
            "Content-Security-Policy": "default-src 'none'; sandbox",
        }
        if request.method == "HEAD":
            file.close()
            return Response(headers=_HEADERS | headers)
        return StreamingResponse(_blocks(file, size_bytes), 200, _HEADERS | headers, "application/octet-stream")

    async def _take(self, request: Request) -> Response:
        page = self._page
        if page.files is None:
            return _html(405, refused("This page takes no files.", page.path))
        if page.is_spent:
            return _html(410, refused("This page has already been used. Ask your assistant for another one.", ""))
        if page.receiving is not None:
            return _html(
                409, refused("Files are being handed over in another window. Wait until it is done.", page.path)
            )
        with anyio.CancelScope() as page.receiving:
            try:
                received = await self._received(request, page.files)
                # From here on the token is worth nothing, whether the answer arrives or not.
                page.is_spent = True
                page.on_received(received)
                return _html(200, handed_over(received), BackgroundTask(self._finish))
            except _TooLarge as error:
                return _html(413, refused(str(error), page.path))
            except BatchError as error:
                return _html(400, refused(str(error), page.path))
            except TimeoutError:
                return _html(408, refused("The files stopped arriving. Choose them once more.", page.path))
            except ClientDisconnect:
                return _html(400, refused("The files did not arrive whole.", page.path))
            except OSError as error:
                full = is_disk_full(error)
                return _html(
                    507 if full else 500, refused(f"The files could not be saved: {system_reason(error)}.", page.path)
                )
            finally:
                page.receiving = None
        return _html(410, refused("This page has closed. Ask your assistant for another one.", ""))

    async def _finish(self) -> None:
        self._page.is_done.set()

    async def _received(self, request: Request, files: Path) -> tuple[Received, ...]:
        """Read the form to its end, and give its files their names.

        Raises:
            UsageError: it is not one, or there is no room for it.
            TimeoutError, ClientDisconnect: its sender went away.
            OSError: the disk refuses.
        """
        room = await in_thread(_room_bytes, files, self._page.keep_free_bytes)
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > room:
            raise _TooLarge(
                f"These are {int(length):,} bytes, and there is room for {room:,}.", "Free some space first."
            )
        kind = request.headers.get("content-type", "")
        with Receiving(files, kind) as receiving:
            waiting, total_bytes = bytearray(), 0
            async for piece in self._pieces(request):
                total_bytes += len(piece)
                if total_bytes > room:
                    raise _TooLarge(
                        f"These are more than the {room:,} bytes there is room for.", "Free some space first."
                    )
                waiting += piece
                if len(waiting) >= _BLOCK_BYTES:
                    await in_thread(receiving.feed, bytes(waiting))
                    waiting.clear()
            await in_thread(receiving.feed, bytes(waiting))
            with anyio.CancelScope(shield=True):
                # What has a name is told: nobody stops between the two.
                received = await in_thread(receiving.publish)
            return received

    async def _pieces(self, request: Request) -> AsyncIterator[bytes]:
        pieces = request.stream()
        while True:
            with anyio.fail_after(self._page.idle_seconds):
                piece = await anext(pieces, None)
            if piece is None:
                return
            yield piece


def _room_bytes(directory: Path, keep_free_bytes: int) -> int:
    """Return how much may be written to a directory so that `keep_free_bytes` of its disk stay free."""
    return max(shutil.disk_usage(directory).free - keep_free_bytes, 0)


def _still_there(paths: Sequence[Path], first: int) -> list[tuple[int, str, int]]:
    """Return what links need, the newest first: the number, name and size in bytes of each file."""
    found = [(number, path) for number, path in enumerate(paths, first) if path.is_file()]
    return [(number, path.name, path.stat().st_size) for number, path in reversed(found)]


async def _blocks(file: FileIO, size_bytes: int) -> AsyncIterator[bytes]:
    """Yield a file as long as it was when it was opened."""
    with file:
        while size_bytes and (block := await in_thread(file.read, min(_BLOCK_BYTES, size_bytes))):
            size_bytes -= len(block)
            yield block


def _html(status: int, text: str, background: BackgroundTask | None = None) -> Response:
    headers = _HEADERS | {"Content-Security-Policy": policy()}
    if status >= 400:
        # What else its sender has to say is not read.
        headers["Connection"] = "close"
    return HTMLResponse(text, status, headers, background=background)


def _plain(status: int, sentence: str) -> Response:
    return Response(f"{sentence}\n", status, _HEADERS | {"Connection": "close"}, media_type="text/plain; charset=utf-8")
