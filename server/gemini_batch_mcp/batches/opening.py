"""Opens the desk when it is first needed, so that a server answers `tools/list` before it has loaded a database.

Importing SQLAlchemy, DuckDB, msgspec's schemas and google.genai takes longer than starting the protocol (measured);
this module imports none of them. After a short pause they are loaded in the background.
"""

import importlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from gemini_batch_mcp.batches.gauge import Gauge
from gemini_batch_mcp.batches.work import Work
from gemini_batch_mcp.errors import BatchError
from gemini_batch_mcp.settings import Settings
from gemini_batch_mcp.threads import in_thread

if TYPE_CHECKING:
    import httpx2

    from gemini_batch_mcp.batches.desk import Desk
    from gemini_batch_mcp.batches.jobs.tracking import BatchStatus

logger = logging.getLogger(__name__)

#: Makes the transport of an in-process service when the desk is opened; None stands for the network.
TransportFactory = Callable[[], "httpx2.AsyncBaseTransport"]

#: Told of every look at a batch, whoever looked.
OnSeen = Callable[["BatchStatus"], Awaitable[None]]

#: Long enough for a client to have shaken hands and listed the tools, short against a person's first sentence.
_WARM_UP_AFTER_SECONDS = 1.0


class LazyDesk:
    """A desk that opens at the first `get`, once, and is the same for every caller."""

    def __init__(
        self,
        settings: Settings,
        work: Work,
        transport: TransportFactory | None,
        *,
        warm_up_first: Callable[[], object] | None = None,
        lives_on: bool = False,
        on_seen: OnSeen | None = None,
    ) -> None:
        self._settings = settings
        self._work = work
        self._transport = transport
        self._warm_up_first = warm_up_first
        self._lives_on = lives_on
        self._on_seen = on_seen
        self._lock = anyio.Lock()
        self._desk: Desk | None = None

    async def get(self) -> "Desk":
        """Return the desk.

        Raises:
            StorageError: the state directory cannot be used; the next call tries again.
        """
        async with self._lock:
            if self._desk is None:
                self._desk = await in_thread(self._open)
            return self._desk

    async def warm_up(self) -> None:
        """Open the desk, load the Gemini client and the engine before they are asked for.

        A failure is left to the first call.
        """
        await anyio.sleep(_WARM_UP_AFTER_SECONDS)
        if self._warm_up_first is not None:
            await in_thread(self._warm_up_first)
        try:
            desk = await self.get()
        except BatchError as error:
            logger.warning("%s", error)
        else:
            desk.app.gateway.warm_up()
            desk.app.tables.warm_up()

    async def look_after(self) -> None:
        """Warm up, then go on with what an earlier process left unfinished, until cancelled."""
        await self.warm_up()
        if self._desk is not None and self._may_submit():
            await self._desk.watch()

    async def aclose(self) -> None:
        """Close what was opened."""
        if self._desk is not None:
            await self._desk.app.aclose()

    def _may_submit(self) -> bool:
        settings = self._settings
        can_reach_gemini = settings.api_key is not None or settings.cloud is not None or self._transport is not None
        return can_reach_gemini and not settings.read_only

    def _open(self) -> "Desk":
        app_module = importlib.import_module("gemini_batch_mcp.batches.app")
        desk_module = importlib.import_module("gemini_batch_mcp.batches.desk")
        transport = self._transport() if self._transport is not None else None
        app = app_module.open_app(self._settings, self._work, transport, lives_on=self._lives_on)
        desk: Desk = desk_module.Desk(app, self._on_seen) if self._on_seen is not None else desk_module.Desk(app)
        return desk


@dataclass(frozen=True, slots=True)
class WatchedDesk:
    """A lazy desk as one call has it."""

    desk: LazyDesk
    gauge: Gauge

    async def get(self) -> "Desk":
        """Return the desk, which moves this call's gauge. Raises as `LazyDesk.get`."""
        return (await self.desk.get()).watched_by(self.gauge)


@asynccontextmanager
async def lazy_desk(
    settings: Settings,
    transport: TransportFactory | None = None,
    *,
    warm_up: bool = False,
    warm_up_first: Callable[[], object] | None = None,
    lives_on: bool = False,
    on_seen: OnSeen | None = None,
) -> AsyncIterator[LazyDesk]:
    """Yield a desk that opens when needed; on the way out, background work is stopped and everything closed.

    `lives_on` says that the process stays after a call, so that calls may leave work behind; `warm_up` opens the desk
    before it is asked for, and lets it go on with what an earlier process left unfinished; `warm_up_first` is called
    before that, in a thread, and loads what its caller needs; `on_seen` is told of every look at a batch.
    """
    desk: LazyDesk | None = None
    try:
        async with anyio.create_task_group() as task_group:
            desk = LazyDesk(
                settings, Work(task_group), transport, warm_up_first=warm_up_first, lives_on=lives_on, on_seen=on_seen
            )
            if warm_up:
                task_group.start_soon(desk.look_after)
            try:
                yield desk
            finally:
                task_group.cancel_scope.cancel()
    finally:
        # Also where whoever has it fails or is cancelled: what is open there is not left to the garbage collector.
        if desk is not None:
            with anyio.CancelScope(shield=True):
                await desk.aclose()
