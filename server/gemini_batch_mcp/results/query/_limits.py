"""What holds a query within its time and its memory, from inside the process that runs it."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: Status of a process that ended because it grew too large.
TOO_LARGE: Final = 86

_LIMITS_ADDRESS_SPACE: Final = sys.platform == "linux"
_LOOK_SECONDS: Final = 0.05
#: A query that has used next to no processor time for so long, and wanted none, waits for itself. DuckDB 2.0 does that
#: for a LIMIT over a join of one subquery with itself (measured: for ever, until it is interrupted, at 0.02 s in 3 s).
_STUCK_SECONDS: Final = 3.0
_STUCK_CPU_SECONDS: Final = 0.1
#: How often a thread of it may be found waiting for a processor or a disk: if more often, others hold it up.
_STUCK_WANTING_SHARE: Final = 0.2
#: What a process needs besides the memory that the engine accounts for: values under construction, and address space
#: that is reserved and never used. Measured: 365 MiB at the limit of 512 MiB.
_UNACCOUNTED_BYTES: Final = 384 << 20
#: Ordinary queries leave 80 to 130 MiB of reserved address space behind, one that met its limit leaves all of it.
_LEFT_BEHIND_BYTES: Final = 256 << 20


class Watch:
    """Says, once a query was interrupted, why: it had got stuck, or else its time was up."""

    def __init__(self) -> None:
        self.is_stuck = False


@contextmanager
def watched(
    connection: "DuckDBPyConnection", time_limit_seconds: float, *, stuck_seconds: float = _STUCK_SECONDS
) -> Iterator[Watch]:
    """Interrupt whatever runs on `connection` when the time is up, or when it makes no progress."""
    watch = Watch()
    done = threading.Event()
    deadline = time.monotonic() + time_limit_seconds

    def look() -> None:
        seen_at, seen_cpu, looks, wanting = time.monotonic(), time.process_time(), 0, 0
        while not done.wait(_LOOK_SECONDS):
            now, cpu = time.monotonic(), time.process_time()
            looks += 1
            wanting += _wants_to_go_on()
            is_quiet = now - seen_at > stuck_seconds
            if cpu - seen_cpu > _STUCK_CPU_SECONDS or (is_quiet and wanting > looks * _STUCK_WANTING_SHARE):
                seen_at, seen_cpu, looks, wanting, is_quiet = now, cpu, 0, 0, False
            watch.is_stuck = watch.is_stuck or (now < deadline and is_quiet)
            if watch.is_stuck or now >= deadline:
                # Again at every look, because an interrupt between two statements is forgotten.
                connection.interrupt()

    thread = threading.Thread(target=look, name="query-watch", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        done.set()
        thread.join()


def _wants_to_go_on() -> bool:
    """True while another thread of this process waits for a processor or a disk. Only Linux tells."""
    own = threading.get_native_id()
    for task in Path("/proc/self/task").glob("*/stat"):
        with suppress(OSError):
            # The name stands in brackets and may hold any character; the state is the first word behind it.
            state = task.read_bytes().rpartition(b") ")[2][:1]
            if state in b"RD" and int(task.parent.name) != own:
                return True
    return False


class MemoryFence:
    """Keeps this process from growing much beyond a query's memory limit.

    Where address space can be limited (Linux), a request for too much fails and the engine says so. Elsewhere the
    process ends itself. Windows offers neither: there the engine's own limit, and that of time, have to do.
    """

    def __init__(self) -> None:
        self._base_bytes = used_bytes()
        self._allowed_bytes = sys.maxsize
        if not _LIMITS_ADDRESS_SPACE and self._base_bytes:
            threading.Thread(target=self._look, name="memory-fence", daemon=True).start()

    def set(self, memory_limit_bytes: int) -> None:
        """Let the process grow by the limit of one query."""
        self._allowed_bytes = self._base_bytes + memory_limit_bytes + _UNACCOUNTED_BYTES
        if _LIMITS_ADDRESS_SPACE and sys.platform != "win32":
            import resource

            _, hard = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (self._allowed_bytes, hard))

    def has_grown(self) -> bool:
        """True when a query has left so much behind that the next one had better start in a new process."""
        return used_bytes() > self._base_bytes + _LEFT_BEHIND_BYTES

    def _look(self) -> None:
        while used_bytes() <= self._allowed_bytes:
            time.sleep(_LOOK_SECONDS)
        os._exit(TOO_LARGE)


def used_bytes() -> int:
    """Return the address space of this process on Linux, its largest resident size so far on macOS, 0 on Windows."""
    if sys.platform == "win32":
        return 0
    import resource

    if _LIMITS_ADDRESS_SPACE:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    # Bytes on macOS, kilobytes elsewhere.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def forbid_writing() -> None:
    """Let no file of this process grow, and leave no core dump. Pipes are no files."""
    if sys.platform != "win32":
        import resource

        for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
            resource.setrlimit(kind, (0, resource.getrlimit(kind)[1]))
