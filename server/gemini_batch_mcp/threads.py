"""Calling what blocks (the disk, a database, a lock) from the event loop."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import ParamSpec, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread

from gemini_batch_mcp.processes import yield_thread_to_others

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `function` in a worker thread and return what it returns, or raise what it raises.

    A cancel waits for its end: nothing goes on behind the back of whoever was cancelled.
    """
    return await anyio.to_thread.run_sync(partial(function, *args, **kwargs))


def end_if_cancelled() -> None:
    """End what runs in a worker thread once nobody wants it any more: to be called now and then by what takes long.

    Raises:
        the cancel of whoever waits for the thread; nothing in a thread that nobody waits for.
    """
    with suppress(RuntimeError):
        anyio.from_thread.check_cancelled()


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


def yielding(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `function`, which reads or hashes much, and wait: in a thread that yields to those that answer calls.

    For worker threads, which cannot do so themselves: the next work of theirs may be a call's.
    """
    with ThreadPoolExecutor(1, "yielding", yield_thread_to_others) as pool:
        return pool.submit(function, *args, **kwargs).result()
