"""A call's progress as its client is told it: numbers that only rise, with a message, at least one every ten seconds.

Notifications go to clients that sent a progress token, in both protocol eras; the SDK drops those for others. Hosts
that end a silent call after a minute wait as long as there are some, while a person reads a question, say.
"""

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

import anyio

from gemini_batch_mcp.batches.gauge import Doing, Gauge, Progress

T = TypeVar("T")

#: The gauge is looked at this often.
_LOOK_SECONDS: Final = 0.25
#: Something is told this often, whatever happens: ten seconds are promised.
_SILENT_SECONDS: Final = 5.0
#: A client that does not read what it is told does not keep its call from ending.
_LAST_WORDS_SECONDS: Final = 1.0

_NOTHING_YET: Final = Progress(Doing.STARTING)


async def while_telling(session: Any, gauge: Gauge, work: Callable[[], Awaitable[T]]) -> T:
    """Do the work, and tell the client of this call, through the SDK's `session`, what the gauge shows meanwhile.

    Raises:
        whatever the work raises, as it is.
    """
    told = _Told(session, gauge)
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(told.go_on)
        try:
            result = await work()
        except Exception as error:
            # Kept out of the group, which would wrap it.
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    with anyio.move_on_after(_LAST_WORDS_SECONDS):
        await told.tell_news()
    return result


class Rising:
    """Makes numbers that only rise, as the protocol wants them, of stages that each begin at 0."""

    def __init__(self) -> None:
        self._last = -1.0
        self._base = 0
        self._place: object = None
        self._beats = 0

    def next(self, reading: Progress) -> tuple[float, float | None]:
        """Return progress and total for a reading; one without an advance adds less than 1, and each time less."""
        place = (reading.doing, reading.part)
        if place != self._place:
            self._place, self._base = place, math.ceil(max(self._last, 0.0))
        value = float(self._base + reading.done)
        if value > self._last:
            self._beats = 0
        while value <= self._last:
            self._beats += 1
            value = math.floor(self._last) + self._beats / (self._beats + 1)
        self._last = value
        total = None if reading.total is None else float(self._base + reading.total)
        return value, total if total is None or total >= value else None


class _Told:
    """What one client has been told."""

    def __init__(self, session: Any, gauge: Gauge) -> None:
        self._session = session
        self._gauge = gauge
        self._numbers = Rising()
        self._told: dict[object, Progress] = {}

    async def go_on(self) -> None:
        """Tell what is new, and what is not after some silence, until cancelled."""
        told_at = anyio.current_time()
        while True:
            await anyio.sleep(_LOOK_SECONDS)
            if await self.tell_news():
                told_at = anyio.current_time()
            elif anyio.current_time() - told_at >= _SILENT_SECONDS:
                readings = self._gauge.readings()
                await self._tell(readings[-1] if readings else _NOTHING_YET)
                told_at = anyio.current_time()

    async def tell_news(self) -> bool:
        """Tell how far each stage is that has moved; returns whether one has."""
        news = [reading for reading in self._gauge.readings() if self._told.get(_place(reading)) != reading]
        for reading in news:
            self._told[_place(reading)] = reading
            await self._tell(reading)
        return bool(news)

    async def _tell(self, reading: Progress) -> None:
        progress, total = self._numbers.next(reading)
        # A client that cannot be told any more does not end the work.
        with suppress(Exception):
            await self._session.report_progress(progress, total, str(reading))


def _place(reading: Progress) -> object:
    return reading.doing, reading.part
