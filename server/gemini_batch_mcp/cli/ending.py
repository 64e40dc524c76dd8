"""How a process ends when it is told to: at the first signal, within a moment, whatever its threads are doing.

What is under way is cancelled and given a moment to let go in good order; then the process is gone. Nothing is lost
with it: whatever has an effect is written down before, and the next start goes on from there (see `tests/crash`).
"""

import contextlib
import os
import select
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
#: Held until the process is gone: what ends it comes from the event loop and from a timer, and is told once.
_LEAVING: Final = threading.Lock()
#: A progress bar that is not taken down hides the cursor of the shell that comes after it.
_SHOW_CURSOR: Final = "\x1b[?25h"


def run(work: Callable[[], Awaitable[T]], *, to_continue: str = "") -> T:
    """Run `work` in an event loop and return what it returns; a signal ends the process, with 128 and its number.

    `to_continue` tells a person who interrupts it how it goes on.
    """
    told: list[int] = []
    results: list[T] = []
    try:
        anyio.run(_until_told, work, told, results, to_continue)
    except KeyboardInterrupt:
        # On Windows, where Ctrl-C is an exception. A thread that waits for an answer would keep the process.
        told.append(signal.SIGINT)
    finally:
        if told:
            _leave_told(told[0], to_continue)
    return results[0]


def leave_soon(code: int = 0) -> None:
    """Be gone in a moment, unless the process has ended by itself until then."""
    _in_a_moment(leave, code)


def _in_a_moment(end: Callable[..., NoReturn], *details: object) -> None:
    timer = threading.Timer(_MOMENT_SECONDS, end, details)
    timer.daemon = True
    timer.start()


async def _until_told(work: Callable[[], Awaitable[T]], told: list[int], results: list[T], to_continue: str) -> None:
    """Put what `work` returns into `results`, or the number of the signal that came into `told`."""
    # Signals come to the main thread only, in which a command of a test need not run.
    is_told = threading.current_thread() is threading.main_thread()
    async with anyio.create_task_group() as tasks:

        async def listen() -> None:
            # Windows has none of this: there Ctrl-C reaches the loop as an exception.
            with contextlib.suppress(NotImplementedError), anyio.open_signal_receiver(*_SIGNALS) as signals:
                async for number in signals:
                    told.append(number)
                    _in_a_moment(_leave_told, number, to_continue)
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


def _leave_told(number: int, to_continue: str) -> NoReturn:
    """Be gone for a signal; a person who interrupted the work is told so."""
    with _LEAVING:
        if number == signal.SIGINT:
            with contextlib.suppress(Exception):
                _say_interrupted(to_continue)
        leave(128 + number)


def _say_interrupted(to_continue: str) -> None:
    """Say it past all that wraps standard error, as a bar may still be drawn; not to a pipe that nobody empties."""
    if os.name == "posix" and not select.select([], [2], [], 0)[1]:
        return
    # On a terminal, ^C stands in the last line.
    begin = f"{_SHOW_CURSOR}\n" if os.isatty(2) else ""
    os.write(2, f"{begin}Interrupted. {to_continue}".rstrip().encode() + b"\n")
