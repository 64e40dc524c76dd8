"""The processes for queries, seen from outside: started, asked, killed when late; one kept ready, none for ever.

Why a process: some functions of the engine neither look for an interrupt nor count their memory. Measured in this
process with a limit of 512 MiB and an interrupt after 1 s: `regexp_extract_all(repeat('ab', 50000000), 'a')` took
31 s and 7.2 GB. In a process of its own, the same ends after 2 s at 0.6 GB.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import Enum
from typing import Any, BinaryIO, Final

from gemini_batch_mcp import processes
from gemini_batch_mcp.errors import NotReady, StorageError
from gemini_batch_mcp.results.query._limits import TOO_LARGE

#: Starting takes 0.2 s; a machine that is busy with other things may need a while.
_START_SECONDS: Final = 30.0
#: How often a query that waits for its turn looks whether it is still wanted.
_LOOK_SECONDS: Final = 0.1
#: Above any answer: pages are bounded to a small part of it.
_MAX_REPLY_BYTES: Final = 16 << 20
_PIECE_BYTES: Final = 1 << 20
_WORKER: Final = "gemini_batch_mcp.results.query._worker"


class Cause(Enum):
    """Why a process ended."""

    STOPPED = "it was killed because its caller had gone"
    LATE = "it was killed because its time was up"
    TOO_LARGE = "it ended itself because it had grown too large"
    UNKNOWN = "it crashed, was ended from outside, or was closed"


class ProcessEnded(Exception):
    """The process ended without an answer."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.value)
        self.cause = cause


class Stop:
    """What ends one query from outside, at any moment and in any thread; nobody wants its answer any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kill: Callable[[], None] | None = None
        self.is_set = False

    def set(self) -> None:
        """End the query, or prevent it."""
        with self._lock:
            self.is_set = True
            if self._kill is not None:
                self._kill()

    @contextmanager
    def ending(self, kill: Callable[[], None]) -> Iterator[None]:
        """Let `set` call `kill` while the block runs.

        Raises:
            ProcessEnded: it was set before.
        """
        with self._lock:
            if self.is_set:
                raise ProcessEnded(Cause.STOPPED)
            self._kill = kill
        try:
            yield
        finally:
            with self._lock:
                self._kill = None


class QueryProcess:
    """A process that answers queries. One thread at a time may ask; any may close, while it is starting as well."""

    def __init__(self) -> None:
        """Start it; see `await_start`.

        Raises:
            StorageError: it cannot be started.
        """
        try:
            self._process = processes.start(_WORKER)
        except OSError as error:
            raise _not_started() from error
        self._was_late = False
        self._has_started = False

    def await_start(self) -> None:
        """Wait until it can be asked.

        Raises:
            StorageError: it ended before.
        """
        if self._has_started:
            return
        try:
            self._reply(_START_SECONDS)
        except ProcessEnded as ended:
            self.close()
            raise _not_started() from ended
        self._has_started = True

    def ask(
        self,
        query: Mapping[str, Any],
        time_limit_seconds: float,
        stop: Stop | None = None,
        into: BinaryIO | None = None,
    ) -> dict[str, Any]:
        """Return the answer to one query; `stop` ends the process. Rows to be saved are written to `into`.

        Raises:
            OSError: `into` takes no more.
            StorageError: it does not start.
            ProcessEnded: it did not answer.
        """
        stop = stop or Stop()
        try:
            with stop.ending(self._process.kill):
                self.await_start()
                return self._ask(query, time_limit_seconds, into)
        except ProcessEnded:
            if stop.is_set:
                raise ProcessEnded(Cause.STOPPED) from None
            raise

    def _ask(self, query: Mapping[str, Any], time_limit_seconds: float, into: BinaryIO | None) -> dict[str, Any]:
        assert self._process.stdin is not None, "it was opened as a pipe"
        try:
            self._process.stdin.write(json.dumps(query).encode() + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError) as error:
            raise self._ended() from error
        return self._reply(time_limit_seconds, into)

    @property
    def pid(self) -> int:
        """Its number in the system."""
        return self._process.pid

    def close(self) -> None:
        """End it, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            # A query that was not read to its end cannot be flushed any more.
            with suppress(OSError):
                assert pipe is not None, "both were opened as pipes"
                pipe.close()

    def _reply(self, time_limit_seconds: float, into: BinaryIO | None = None) -> dict[str, Any]:
        timer = threading.Timer(time_limit_seconds, self._kill_late)
        timer.daemon = True
        timer.start()
        try:
            while "frame" in (reply := self._line()):
                self._copy(reply["frame"], into)
        finally:
            timer.cancel()
        if self._was_late:
            raise self._ended()
        return reply

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None, "it was opened as a pipe"
        try:
            line = self._process.stdout.readline(_MAX_REPLY_BYTES)
        except ValueError as error:  # closed by another thread
            raise self._ended() from error
        if not line.endswith(b"\n"):
            raise self._ended()
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _copy(self, size_bytes: int, into: BinaryIO | None) -> None:
        assert self._process.stdout is not None, "it was opened as a pipe"
        while size_bytes:
            try:
                piece = self._process.stdout.read(min(size_bytes, _PIECE_BYTES))
            except ValueError as error:  # closed by another thread
                raise self._ended() from error
            if not piece or into is None:
                raise self._ended()
            into.write(piece)
            size_bytes -= len(piece)

    def _ended(self) -> ProcessEnded:
        self._process.kill()
        status = self._process.wait()
        if self._was_late:
            return ProcessEnded(Cause.LATE)
        return ProcessEnded(Cause.TOO_LARGE if status == TOO_LARGE else Cause.UNKNOWN)

    def _kill_late(self) -> None:
        self._was_late = True
        self._process.kill()


class ProcessPool:
    """Lends processes, each to one thread at a time. Those not used for `idle_seconds` are ended."""

    def __init__(self, *, max_processes: int, idle_seconds: float) -> None:
        self._slots = threading.BoundedSemaphore(max_processes)
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._idle: list[QueryProcess] = []
        self._lent: set[QueryProcess] = set()
        self._is_closed = False
        self._timer: threading.Timer | None = None

    @contextmanager
    def slot(self, wait_seconds: float, stop: Stop) -> Iterator[None]:
        """Hold one of the places for processes.

        Raises:
            NotReady: none became free in time.
            ProcessEnded: the query was stopped before it had one.
        """
        deadline = time.monotonic() + wait_seconds
        while not self._slots.acquire(timeout=min(_LOOK_SECONDS, wait_seconds)):
            if stop.is_set:
                raise ProcessEnded(Cause.STOPPED)
            if time.monotonic() > deadline:
                raise NotReady("Other queries are still running.", "Try again in a few seconds.")
        try:
            yield
        finally:
            self._slots.release()

    @property
    def idle(self) -> tuple[QueryProcess, ...]:
        """The processes that wait for a query."""
        with self._lock:
            return tuple(self._idle)

    def prepare(self) -> None:
        """Have a process waiting.

        Raises:
            StorageError: it cannot be started, or the pool is closed.
        """
        process, _ = self._take()
        self._give_back(process, is_usable=True)

    def ask(
        self,
        query: Mapping[str, Any],
        time_limit_seconds: float,
        stop: Stop | None = None,
        into: BinaryIO | None = None,
    ) -> dict[str, Any]:
        """Have a process answer a query. Rows to be saved are written to `into`, from its beginning on.

        Raises:
            OSError: `into` takes no more.
            ProcessEnded: it did not answer.
            StorageError: it cannot be started, or the pool is closed.
        """
        while True:
            process, has_waited = self._take()
            is_usable = False
            try:
                if into is not None:
                    into.seek(0)
                    into.truncate()
                reply = process.ask(query, time_limit_seconds, stop, into)
                is_usable = not reply["is_last"]
                return reply
            except ProcessEnded as ended:
                # One that has waited may have ended long ago, and a closed pool ends all: asking anew tells.
                if ended.cause is not Cause.UNKNOWN or not (has_waited or self._is_closed):
                    raise
            finally:
                self._give_back(process, is_usable=is_usable)

    def close(self) -> None:
        """End all processes, those at work and those that are starting as well."""
        with self._lock:
            self._is_closed = True
            processes = [*self._idle, *self._lent]
            self._idle.clear()
            if self._timer is not None:
                self._timer.cancel()
        for process in processes:
            process.close()

    def _take(self) -> tuple[QueryProcess, bool]:
        """Return a process, and whether it has been waiting."""
        with self._lock:
            if self._idle:
                process = self._idle.pop()
                self._lent.add(process)
                return process, True
            self._refuse_closed()
            process = QueryProcess()
            self._lent.add(process)
        try:
            process.await_start()
        except StorageError:
            with self._lock:
                self._lent.discard(process)
                self._refuse_closed()
            raise
        return process, False

    def _refuse_closed(self) -> None:
        if self._is_closed:
            raise StorageError("The query engine is closed.", "Restart the server.")

    def _give_back(self, process: QueryProcess, *, is_usable: bool) -> None:
        with self._lock:
            self._lent.discard(process)
            is_kept = is_usable and not self._is_closed
            if is_kept:
                self._idle.append(process)
                self._restart_timer()
        if not is_kept:
            process.close()

    def _restart_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(self._idle_seconds, self._retire)
        self._timer.daemon = True
        self._timer.start()

    def _retire(self) -> None:
        with self._lock:
            processes = list(self._idle)
            self._idle.clear()
        for process in processes:
            process.close()


def _not_started() -> StorageError:
    return StorageError("The process for queries could not be started.", "Try again; if it keeps happening, reinstall.")
