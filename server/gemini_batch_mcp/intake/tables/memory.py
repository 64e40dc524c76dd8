"""The engine that reads tables, and how much memory it may take: little at first, more for rows that need it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, TypeVar

from gemini_batch_mcp.errors import storage_errors
from gemini_batch_mcp.settings import ENGINE_MEMORY_BYTES, MAX_LINE_BYTES

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Effort:
    """What reading may cost: the engine's memory, and the largest record, for which it keeps buffers.

    Rows of a Parquet file are held in memory until their group is complete.
    """

    memory_megabytes: int
    record_bytes: int
    row_group_rows: int


#: To be tried in turn: the first is enough for rows of ordinary size. A cell that consists of quotes needs two bytes
#: for each one of the line that it becomes.
EFFORTS: Final = (
    Effort(96, 1 << 21, 1 << 14),
    Effort(ENGINE_MEMORY_BYTES >> 21, 2 * MAX_LINE_BYTES, 1 << 12),
    Effort(ENGINE_MEMORY_BYTES >> 20, 2 * MAX_LINE_BYTES, 1 << 11),
)


class MoreEffort(Exception):
    """The rows are too large for the effort that was allowed."""


def with_effort(work: Callable[[Effort], T]) -> T:
    """Do what reads a table, with as little effort as is enough."""
    for effort in EFFORTS[:-1]:
        with suppress(MoreEffort):
            return work(effort)
    return work(EFFORTS[-1])


@contextmanager
def workspace_in(scratch: Path) -> Iterator[Path]:
    """Yield a directory in `scratch` for what reading needs, removed at the end. Raises StorageError."""
    with storage_errors("The table cannot be read", "Check the permissions and free space of the state directory."):
        directory = TemporaryDirectory(prefix="table-", dir=scratch, ignore_cleanup_errors=True)
    with directory as name:
        # What is written there is read as the user's files are: by a path without links.
        yield Path(name).resolve()


@contextmanager
def connected(workspace: Path) -> Iterator["DuckDBPyConnection"]:
    """Yield an engine with one thread and little memory, which spills into `workspace`."""
    # Imported on first use: loading the engine takes 0.2 s and 40 MB, which a server start should not pay for.
    import duckdb

    connection = duckdb.connect(
        config={
            # One thread keeps rows in order without holding them back, and needs the least memory (measured: as fast
            # as two for a million rows, with 60 MB less).
            "threads": 1,
            "memory_limit": f"{EFFORTS[0].memory_megabytes}MB",
            "temp_directory": str(workspace / "spill"),
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "python_enable_replacements": "false",
        }
    )
    # Where Python was started without a file, the engine draws one on stdout, which belongs to the protocol.
    connection.execute("SET enable_progress_bar = false")
    # A time with a zone is written in that of the session, which otherwise is the machine's.
    connection.execute("SET TimeZone = 'UTC'")
    with connection:
        yield connection
