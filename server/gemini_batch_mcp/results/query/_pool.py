"""The processes for queries: at most so many at a time, one kept ready, none kept for ever."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from gemini_batch_mcp.errors import NotReady, StorageError
from gemini_batch_mcp.results.query._process import Cause, ProcessEnded, QueryProcess


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
    def slot(self, wait_seconds: float) -> Iterator[None]:
        """Hold one of the places for processes.

        Raises:
            NotReady: none became free in time.
        """
        if not self._slots.acquire(timeout=wait_seconds):
            raise NotReady("Other queries are still running.", "Ask again in some seconds.")
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

    def ask(self, query: Mapping[str, Any], time_limit_seconds: float) -> dict[str, Any]:
        """Have a process answer a query.

        Raises:
            ProcessEnded: it did not answer.
            StorageError: it cannot be started, or the pool is closed.
        """
        while True:
            process, has_waited = self._take()
            is_usable = False
            try:
                reply = process.ask(query, time_limit_seconds)
                is_usable = not reply["is_last"]
                return reply
            except ProcessEnded as ended:
                # One that has waited may have ended long ago, and a closed pool ends all: asking anew tells.
                if ended.cause is not Cause.UNKNOWN or not (has_waited or self._is_closed):
                    raise
            finally:
                self._give_back(process, is_usable=is_usable)

    def close(self) -> None:
        """End all processes, those at work as well."""
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
        process = QueryProcess()
        with self._lock:
            is_closed = self._is_closed
            if not is_closed:
                self._lent.add(process)
        if is_closed:
            process.close()
            raise StorageError("The query engine is closed.", "Start the server again.")
        return process, False

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
