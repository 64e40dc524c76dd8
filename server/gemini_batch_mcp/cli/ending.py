"""How a process ends when it is told to: at the first signal, within a moment, whatever its threads are doing.

What is under way is cancelled and given a moment to let go in good order; then the process is gone. Nothing is lost
with it: whatever has an effect is written down before, and the next start goes on from there (see `tests/crash`).
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn, TypeVar

import anyio

T = TypeVar("T")

#: A thread that reads a large file, or writes a table, does not look whether it should stop.
_MOMENT_SECONDS: Final = 0.6
#: What is sent to end a process: by a person, by a system, by a terminal that closes.
_SIGNALS: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Run `work` in an event loop and return what it returns; a signal ends the process, with 128 and its number."""
    told: list[int] = []
    results: list[T] = []
    try:
        anyio.run(_until_told, work, told, results)
    finally:
        if told:
            leave(128 + told[0])
    return results[0]


def leave_soon(code: int = 0) -> None:
    """Be gone in a moment, unless the process has ended by itself until then."""
    timer = threading.Timer(_MOMENT_SECONDS, leave, (code,))
    timer.daemon = True
    timer.start()


async def _until_told(work: Callable[[], Awaitable[T]], told: list[int], results: list[T]) -> None:
    """Put what `work` returns into `results`, or the number of the signal that came into `told`."""
    # Signals come to the main thread only, in which a command of a test need not run.
    is_told = threading.current_thread() is threading.main_thread()
    async with anyio.create_task_group() as tasks:

        async def listen() -> None:
            # Windows has none of this: there Ctrl-C reaches the loop as an exception.
            with contextlib.suppress(NotImplementedError), anyio.open_signal_receiver(*_SIGNALS) as signals:
                async for number in signals:
                    told.append(number)
                    leave_soon(128 + number)
                    tasks.cancel_scope.cancel()
                    return

        if is_told:
            tasks.start_soon(listen)
        results.append(await work())
        tasks.cancel_scope.cancel()


def leave(code: int) -> NoReturn:
    """Be gone now: to take a whole interpreter down may last longer than all that was to be done before."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)
