"""The drop page of a server: opened when a call shows that it is needed, one at a time, and closed soon.

It listens on the loopback interface only. Nothing is opened where a server answers others than its own machine: they
would be sent to a page of theirs. A server that may only read opens it, too: a person hands a file over in their own
browser, which costs nothing and changes no batch, and without it a preview could not be had from a chat.
"""

import secrets
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

import anyio
from anyio.abc import TaskGroup

from gemini_batch_mcp.assistant.drop._names import clean_name
from gemini_batch_mcp.handles import Directory
from gemini_batch_mcp.paths import DRAFT_SECONDS, PathGuard
from gemini_batch_mcp.settings import LEAST_FREE_BYTES, Settings
from gemini_batch_mcp.text import plain_text
from gemini_batch_mcp.threads import in_thread

if TYPE_CHECKING:
    from gemini_batch_mcp.assistant.drop._application import Page
    from gemini_batch_mcp.assistant.drop._receiving import Received

_LOOPBACK: Final = "127.0.0.1"
#: How long a page that nobody uses stays open.
LIFETIME_SECONDS: Final = 15 * 60.0
#: A sender that says nothing for so long has gone.
IDLE_SECONDS: Final = 30.0
#: Connections at once: a browser opens six.
_MOST_AT_ONCE: Final = 32
#: What an answer under way has, once the page closes.
_PATIENCE_SECONDS: Final = 2
#: Files that a reply names.
_NAMED_FILES: Final = 5


class DropPages:
    """The pages of one server, of which at most one is open. `may_open` is false where others use the server."""

    def __init__(
        self,
        settings: Settings,
        *,
        may_open: bool,
        lifetime_seconds: float = LIFETIME_SECONDS,
        idle_seconds: float = IDLE_SECONDS,
        keep_free_bytes: int = LEAST_FREE_BYTES,
    ) -> None:
        self._settings = settings
        self._guard = PathGuard(settings.roots, settings.working_directory)
        self._may_open = may_open
        self._lifetime_seconds = lifetime_seconds
        self._idle_seconds = idle_seconds
        self._keep_free_bytes = keep_free_bytes
        self._tasks: list[TaskGroup] = []
        self._lock = anyio.Lock()
        self._page: Page | None = None
        #: What was handed over, and no assistant has heard of yet; and what that page was asked for.
        self._received: tuple[Received, ...] = ()
        self._asked: frozenset[str] = frozenset()
        #: A chat that has paths of its own does not see ours.
        self._is_chat = False
        #: Files to take away, the oldest first: a link goes by the place in here.
        self._saved: list[Path] = []

    @asynccontextmanager
    async def ready(self) -> AsyncIterator[None]:
        """Let pages be opened for as long as the context lasts."""
        async with anyio.create_task_group() as tasks:
            self._tasks.append(tasks)
            try:
                yield
            finally:
                self._tasks.remove(tasks)
                tasks.cancel_scope.cancel()

    async def way_in(self, elsewhere: Sequence[str]) -> str:
        """Return how files of a chat come here, as sentences; empty where no page can be opened for them."""
        from gemini_batch_mcp.assistant.drop._receiving import promised

        self._is_chat = True
        files = await in_thread(self._directory)
        if files is None:
            return ""
        names = list(dict.fromkeys(_name_of(path) for path in elsewhere))
        async with self._lock:
            if self._received and self._asked.intersection(names):
                return self._told(names)
            page = await self._opened()
        if page is None:
            return ""
        page.files = files
        page.wanted += [name for name in names if name not in page.wanted]
        paths = await in_thread(promised, files, names[:_NAMED_FILES])
        then = " and ".join(f'"{plain_text(str(path), 400)}"' for path in paths)
        more = " and so on" if len(names) > len(paths) else ""
        return (
            f"Ask the user to open {page.url} on the computer that this server runs on and to hand the "
            f"{'file' if len(names) == 1 else 'files'} over there (until {page.closes_at}, once); then give "
            f"{then}{more}. "
            "The same call again tells whether they have. A few rows can be given in `requests` instead."
        )

    async def way_out(self, written: Sequence[Path]) -> str:
        """Return where the user can download saved files, in brackets; empty where they have them at hand."""
        self._saved += [path for path in written if path not in self._saved]
        directory = await in_thread(self._settings.files.resolve)
        if not self._is_chat and not any(path.is_relative_to(directory) for path in written):
            return ""
        async with self._lock:
            page = await self._opened()
        if page is None:
            return ""
        return f"(download: {page.url} on the computer that this server runs on, until {page.closes_at})"

    def way_back(self) -> str:
        """Return how results come into a chat, as a sentence; empty where no page can be opened for them."""
        self._is_chat = True
        return "The reply says where the user can download it." if self._may_open else ""

    def _told(self, names: Sequence[str]) -> str:
        """Return where the files are that were handed over last; said once, so that the same name can come again."""
        received, self._received = self._received, ()
        wanted = [one for one in received if one.given in names]
        paths = [f'"{plain_text(str(one.path), 400)}"' for one in (wanted or received)]
        shown = ", ".join(paths[:_NAMED_FILES]) + (
            f" and {len(paths) - _NAMED_FILES:,} more" if paths[_NAMED_FILES:] else ""
        )
        missing = [name for name in names if name not in {one.given for one in received}]
        if not missing:
            return f"The user has handed it over: give {shown} instead."
        return (
            f"The user has handed over {shown}, but nothing called {plain_text(', '.join(missing), 200)}. Give "
            "that path if it is the right file; the same call again opens another page."
        )

    def _directory(self) -> Path | None:
        """Return where what is handed over goes, made if it is missing; None where this server may not read there."""
        files = self._settings.files
        if not self._may_open or self._guard.target(files) is None:
            return None
        try:
            files.mkdir(parents=True, exist_ok=True)
            directory = files.resolve(strict=True)
            with Directory(directory) as opened:
                opened.sweep(DRAFT_SECONDS)
        except OSError:
            return None
        return directory

    async def _opened(self) -> "Page | None":
        """Return the page that is open, or open one; None where none may or can be. Under the lock."""
        if self._page is not None and not self._page.is_spent:
            return self._page
        if not self._may_open or not self._tasks:
            return None
        # Loaded with the first page: most servers never open one.
        from gemini_batch_mcp.assistant.drop._application import Page

        try:
            taken = socket.create_server((_LOOPBACK, 0))
        except OSError:
            return None
        closes_at = datetime.now().astimezone() + timedelta(seconds=self._lifetime_seconds)
        self._page = page = Page(
            host=f"{_LOOPBACK}:{taken.getsockname()[1]}",
            token=secrets.token_urlsafe(24),
            closes_at=f"{closes_at:%H:%M}",
            files=None,
            keep_free_bytes=self._keep_free_bytes,
            idle_seconds=self._idle_seconds,
            on_received=self._take,
            saved=self._saved,
        )
        self._tasks[-1].start_soon(self._serve, page, taken)
        return page

    async def _serve(self, page: "Page", taken: socket.socket) -> None:
        """Serve a page until it is used, or its time is over."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._listen, page, taken)
            with anyio.move_on_after(self._lifetime_seconds):
                await page.is_done.wait()
            page.stop()
            tasks.cancel_scope.cancel()

    async def _listen(self, page: "Page", taken: socket.socket) -> None:
        from gemini_batch_mcp.assistant.drop._application import application_of
        from gemini_batch_mcp.assistant.transports.http import serve_on

        try:
            await serve_on(
                (taken,), application_of(page), most_at_once=_MOST_AT_ONCE, patience_seconds=_PATIENCE_SECONDS
            )
        finally:
            page.stop()

    def _take(self, received: "tuple[Received, ...]") -> None:
        assert self._page is not None
        self._received, self._asked = received, frozenset(self._page.wanted)


def _name_of(path: str) -> str:
    """Return what the file of a path is called, be it written with either slash."""
    return clean_name(PurePosixPath(path.strip().strip("\"'`").replace("\\", "/")).name)
