"""Ready lines checked in another process, seen from here: asked, followed, stopped.

Why a process: the decoders hold the interpreter's lock, so that every step of another call waits for it. Measured on
two cores beside the check and the upload of 300 MB, one in a hundred calls of check_status took 10 to 13 times as long
as when nothing else ran.
"""

import pickle
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from gemini_batch_mcp import processes
from gemini_batch_mcp.errors import RequestProblems
from gemini_batch_mcp.intake.apart.surveyed import Surveyed, Wanted

#: A process takes 0.2 s to start, in which a thread checks a fifth of this.
LEAST_BYTES: Final = 256 << 20
_WORKER: Final = "gemini_batch_mcp.intake.apart._worker"


class Stopped(Exception):
    """Nobody wants the lines any more."""


class Apart:
    """One check, to be run once, by one thread; any other may stop it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_stopped = False

    def stop(self) -> None:
        """End the check, or prevent it."""
        with self._lock:
            self._is_stopped = True
            if self._process is not None:
                self._process.kill()

    def run(self, wanted: Wanted, on_rows: Callable[[int], None]) -> Surveyed | None:
        """Have the lines checked; None where that is to be done here: the bytes cannot be sent as they are, something
        in them has to be looked up in what only this process has loaded, or the other one came to nothing.

        `on_rows` is told how many lines were checked so far.

        Raises:
            RequestProblems: lines are wrong.
            Stopped: it was stopped.
        """
        try:
            with self._lock:
                if self._is_stopped:
                    raise Stopped
                self._process = process = processes.start(_WORKER)
        except OSError:
            return None
        try:
            return _answer(process, wanted, on_rows)
        finally:
            process.kill()
            process.wait()
            _close(process)
            if self._is_stopped:
                raise Stopped


def _answer(process: subprocess.Popen[bytes], wanted: Wanted, on_rows: Callable[[int], None]) -> Surveyed | None:
    assert process.stdin is not None and process.stdout is not None, "both were opened as pipes"
    try:
        pickle.dump(wanted, process.stdin)
        process.stdin.flush()
        while isinstance(said := pickle.load(process.stdout), int):  # noqa: S301 - both ends of the pipe are ours
            on_rows(said)
    except (OSError, EOFError, pickle.UnpicklingError):
        return None
    if isinstance(said, tuple):
        *parts, warnings = said
        raise RequestProblems(*parts, warnings=warnings)
    return said if isinstance(said, Surveyed) else None


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        # What was not read to its end cannot be flushed any more.
        with suppress(OSError):
            assert pipe is not None, "both were opened as pipes"
            pipe.close()
