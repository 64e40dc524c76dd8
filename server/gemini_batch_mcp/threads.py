"""Calling what blocks (the disk, a database, a lock) from the event loop."""

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

import anyio
import anyio.to_thread

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `function` in a worker thread and return what it returns, or raise what it raises.

    A cancel waits for its end: nothing goes on behind the back of whoever was cancelled.
    """
    return await anyio.to_thread.run_sync(partial(function, *args, **kwargs))


async def in_thread_left_behind(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Do the same, but a cancel does not wait: only for what whoever cancels then ends in another way."""
    return await anyio.to_thread.run_sync(partial(function, *args, **kwargs), abandon_on_cancel=True)


async def in_stoppable_thread(
    stop: Callable[[], None], function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
) -> T:
    """Run `function` in a worker thread. A cancel does not wait for it: `stop` is called, and must end it at once.

    It may wait for its turn in there, as a query does, so that its thread is none of the forty that all else shares.
    """
    limiter = anyio.CapacityLimiter(1)
    try:
        return await anyio.to_thread.run_sync(
            partial(function, *args, **kwargs), abandon_on_cancel=True, limiter=limiter
        )
    except anyio.get_cancelled_exc_class():
        stop()
        raise
