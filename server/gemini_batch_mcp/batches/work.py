"""Work that may outlive the call that started it: uploads, downloads, the search for a lost job."""

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

import anyio
from anyio.abc import TaskGroup

from gemini_batch_mcp.batches.gauge import Gauge
from gemini_batch_mcp.errors import BatchError

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: How long it is kept what nobody was waiting for: the call is made again soon, or not at all.
_KEPT_SECONDS: Final = 120.0
#: What a call may take beyond the time that it plans with.
_GRACE_SECONDS: Final = 3.0


@dataclass(slots=True)
class _Task:
    gauge: Gauge
    done: anyio.Event = field(default_factory=anyio.Event)
    waiting: int = 0
    failure: BaseException | None = None
    result: Any = None
    #: Its result is wanted, and kept where nobody waits for it.
    is_kept: bool = False
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)


class Work:
    """Runs at most one task per name. A caller waits for it as long as it likes; the task goes on without it."""

    def __init__(self, task_group: TaskGroup) -> None:
        self._task_group = task_group
        self._running: dict[str, _Task] = {}
        #: When the last work ended that nobody was waiting for, and what it returned.
        self._kept: dict[str, tuple[float, Any]] = {}

    async def run(
        self,
        name: str,
        work: Callable[[], Awaitable[Any]],
        *,
        wait_seconds: float | None,
        gauge: Gauge | None = None,
    ) -> bool:
        """Start `work`, or join the task of that name, and wait at most `wait_seconds` (None: to the end).

        `gauge` is the caller's: the one that `work` moves, or one that follows it while the task is waited for.
        Returns True when it ended in that time, False when it goes on in the background.

        Raises:
            BatchError: the task ended with this failure. A failure that nobody waited for is logged.
        """
        return (await self._waited(name, work, wait_seconds, gauge)).done.is_set()

    async def result(
        self,
        name: str,
        work: Callable[[], Awaitable[T]],
        *,
        wait_seconds: float | None,
        gauge: Gauge | None = None,
    ) -> T | None:
        """Do the same, but return what the work returned; None when it goes on in the background.

        What nobody was waiting for when it ended is kept for whoever asks next, once and for a short time only.

        Raises:
            as `run`.
        """
        kept_at, kept = self._kept.pop(name, (0.0, None))
        if kept is not None and anyio.current_time() - kept_at < _KEPT_SECONDS:
            return cast("T", kept)
        task = await self._waited(name, work, wait_seconds, gauge, is_kept=True)
        return cast("T", task.result) if task.done.is_set() else None

    async def _waited(
        self,
        name: str,
        work: Callable[[], Awaitable[Any]],
        wait_seconds: float | None,
        gauge: Gauge | None,
        *,
        is_kept: bool = False,
    ) -> _Task:
        while (task := self._running.get(name)) is not None and task.scope.cancel_called:
            # Whoever comes while it is being stopped wants it done all the same.
            await task.done.wait()
        if task is None:
            task = self._running[name] = _Task(gauge or Gauge(), is_kept=is_kept)
            self._task_group.start_soon(self._carry_out, name, work, task)
        task.waiting += 1
        try:
            with anyio.move_on_after(wait_seconds), (gauge or task.gauge).following(task.gauge):
                await task.done.wait()
        finally:
            task.waiting -= 1
        if task.done.is_set() and task.failure is not None:
            raise task.failure
        return task

    def is_running(self, name: str) -> bool:
        """True while a task of that name is under way in this process."""
        return name in self._running

    def stop(self, name: str) -> bool:
        """Begin to stop the task of that name, unless somebody waits for it; returns whether it is stopping."""
        task = self._running.get(name)
        if task is None or task.waiting:
            return False
        task.scope.cancel()
        return True

    async def cancel(self, name: str) -> None:
        """Stop the task of that name, if there is one, and wait until it has let go of everything."""
        if (task := self._running.get(name)) is not None:
            task.scope.cancel()
            await task.done.wait()

    async def _carry_out(self, name: str, work: Callable[[], Awaitable[Any]], task: _Task) -> None:
        try:
            with task.scope:
                task.result = await work()
            if task.is_kept and not task.waiting:
                self._kept = {name: (anyio.current_time(), task.result)}
        except BatchError as error:
            task.failure = error
            if not task.waiting:
                logger.warning("%s: %s", name, error)
        except Exception as error:
            task.failure = error
            if not task.waiting:
                logger.error("%s ended with an unexpected %s", name, type(error).__name__)
        finally:
            del self._running[name]
            task.done.set()


@contextmanager
def within(wait_seconds: float | None, gauge: Gauge) -> Iterator[anyio.CancelScope]:
    """End a call that takes longer than its caller waits, and a little more; None never ends.

    What it was at by then is read on its `gauge`.

    Who catches a cancel in between asks the scope whose it is: `cancel_called` is True of our own end only.

    Raises:
        NotReady: it took longer.
    """
    seconds = wait_seconds + _GRACE_SECONDS if wait_seconds is not None else None
    with anyio.move_on_after(seconds) as scope:
        yield scope
    if scope.cancelled_caught and seconds is not None:
        raise gauge.stopped("This", seconds)


def deadline_after(wait_seconds: float | None) -> float | None:
    """Return when so long a wait ends, by the event loop's clock; None for one without an end."""
    return anyio.current_time() + wait_seconds if wait_seconds is not None else None


def seconds_left(deadline: float | None) -> float | None:
    """Return how long is left until a deadline, at least 0; None where there is none."""
    return max(0.0, deadline - anyio.current_time()) if deadline is not None else None
