"""DuckDB as this room uses it: imported on first use, one thread, bounded memory, no network, our own errors."""

import importlib
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Final, TypeVar

from gemini_batch_mcp.errors import StorageError, is_disk_full, system_reason
from gemini_batch_mcp.processes import load_in_background
from gemini_batch_mcp.settings import ENGINE_MEMORY_BYTES

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

T = TypeVar("T")
#: In the folder of a table, beside its parts.
_LEFT_OUT: Final = "unfilled"
#: A bound, not a need: a page of ordinary rows takes a few megabytes, one cell of 100 MB some hundred.
READING_LIMIT_BYTES: Final = 1 << 30


def connect(memory_limit_bytes: int, temp_directory: Path) -> "DuckDBPyConnection":
    """Return a connection to an empty database in memory, which spills to `temp_directory`.

    One thread: it passes lines on in the order of the file without holding them back, which costs least memory, and
    leaves the other cores to the download. It also reads a file from its start to its end, which the build of a table
    needs: several threads would ask for places that may not have arrived.
    """
    # Imported here because loading the engine takes 0.2 s and 40 MB, which a server start should not pay for.
    import duckdb

    connection = duckdb.connect(
        config={
            "threads": 1,
            "memory_limit": f"{memory_limit_bytes}B",
            "temp_directory": str(temp_directory),
            "preserve_insertion_order": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "python_enable_replacements": "false",
        }
    )
    # It would go to stdout, which belongs to the protocol.
    connection.execute("SET enable_progress_bar = false")
    return connection


class TableReader:
    """One database for many short reads, opened when it is first needed: opening one takes 15 ms, a page 20.

    It may be used from several threads; each read has a connection of its own. Nothing of a table is kept in it.
    """

    def __init__(self, memory_limit_bytes: int = READING_LIMIT_BYTES) -> None:
        self._memory_limit_bytes = memory_limit_bytes
        self._lock = threading.Lock()
        self._database: DuckDBPyConnection | None = None

    @contextmanager
    def reading(self) -> Iterator["DuckDBPyConnection"]:
        """Provide a connection for some queries."""
        with self._lock:
            if self._database is None:
                self._database = connect(self._memory_limit_bytes, Path(gettempdir()))
                # A table that is built again has the same path, and may come within the same second.
                self._database.execute("SET enable_external_file_cache = false")
            connection = self._database.cursor()
        try:
            yield connection
        finally:
            connection.close()

    def warm_up(self) -> None:
        """Load the engine in a daemon thread; call it once, after the start."""
        load_in_background("duckdb import", lambda: importlib.import_module("duckdb"))

    def close(self) -> None:
        """Close the database; it is opened again when somebody reads."""
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None


def execute_widening(connection: "DuckDBPyConnection", statement: str, memory_limit_bytes: int) -> None:
    """Execute `statement`; see `widening`."""
    widening(connection, memory_limit_bytes, lambda: connection.execute(statement))


def widening(connection: "DuckDBPyConnection", memory_limit_bytes: int, step: Callable[[], T]) -> T:
    """Take a step within `memory_limit_bytes`, or within 1.5 or 8 times as much when that is not enough.

    Never within more than `ENGINE_MEMORY_BYTES`. What an engine needs depends on the widest rows and on their order,
    which only running it shows. The step may be taken several times. The limit stays as wide as it was needed.
    """
    import duckdb

    first, second, last = (most_memory(half * memory_limit_bytes // 2) for half in (2, 3, 16))
    for limit in (first, second):
        if limit < last:
            connection.execute(f"SET memory_limit = '{limit}B'")
            with suppress(duckdb.OutOfMemoryException):
                return step()
    connection.execute(f"SET memory_limit = '{last}B'")
    return step()


def most_memory(wanted_bytes: int) -> int:
    """Return what of the memory that is wanted an engine may have."""
    return min(wanted_bytes, ENGINE_MEMORY_BYTES)


def quoted(text: str | Path) -> str:
    """Return `text` as a SQL string literal."""
    return "'" + str(text).replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Return a name as SQL takes it, whatever it is."""
    return '"' + name.replace('"', '""') + '"'


def listed(values: Iterable[object]) -> str:
    """Return numbers, or literals made by `quoted`, as a SQL list."""
    return "[" + ", ".join(str(value) for value in values) + "]"


def parts_of(table: Path) -> list[Path]:
    """Return the Parquet files that make up a table, in the order of its rows: a folder's by name, or the one given."""
    return (sorted(table.glob("*.parquet")) if table.is_dir() else []) or [table]


def leave_out(table: Path, columns: Iterable[str]) -> None:
    """Write down beside the parts of a table which of their columns nobody needs to see."""
    (table / _LEFT_OUT).write_text("\n".join(columns), encoding="ascii")


def left_out(table: Path) -> frozenset[str]:
    """Return the columns of a table that nobody needs to see, since nothing stands in them."""
    try:
        return frozenset((table / _LEFT_OUT).read_text(encoding="ascii").split())
    except OSError:
        return frozenset()


def rows_of(*tables: Path) -> str:
    """Return the table function that reads all parts of a table as one, or of several, one behind the other."""
    parts = listed(quoted(part) for table in tables for part in parts_of(table))
    return f"read_parquet({parts}, hive_partitioning = false)"


@contextmanager
def table_errors(what: str, directory: Path | None = None) -> Iterator[None]:
    """Turn every failure of the engine or of a file inside the block into a StorageError about `what`.

    When the disk of `directory` is as good as full, the error says that.
    """
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise StorageError(
                f"{what}: the disk is full.", "Free some space, then make the same call again."
            ) from error
        _refuse_full_disk(what, directory, error)
        raise StorageError(f"{what}: {system_reason(error)}.", _NEXT_STEP) from error
    except Exception as error:
        # Not loaded for this: where the engine has not been used, it has not failed either.
        duckdb = sys.modules.get("duckdb")
        if duckdb is None or not isinstance(error, duckdb.Error):
            raise
        if isinstance(error, duckdb.BinderException | duckdb.ParserException | duckdb.CatalogException):
            raise  # our own SQL is wrong, which is no failure of storage
        _refuse_full_disk(what, directory, error)
        if isinstance(error, duckdb.OutOfMemoryException):
            raise StorageError(f"{what}: it needs more memory than is allowed.", "Use smaller batches.") from error
        if is_of_content(error):
            raise StorageError(
                f"{what}: the table engine failed ({type(error).__name__}).",
                "The answers are kept as they came. Please report this as a bug in gemini-batch-mcp.",
            ) from error
        raise StorageError(f"{what}: a file could not be read or written.", _NEXT_STEP) from error


def is_of_content(error: Exception) -> bool:
    """True for an error of the engine that may come from what it reads; false where a file or a disk fails."""
    import duckdb

    return isinstance(error, duckdb.Error) and not isinstance(error, duckdb.IOException | duckdb.PermissionException)


def _refuse_full_disk(what: str, directory: Path | None, cause: Exception) -> None:
    """Name the cause that the engine's error does not: it says only that it could not write."""
    with suppress(OSError):
        free_bytes = shutil.disk_usage(directory).free if directory is not None else _FULL_BYTES
        if free_bytes < _FULL_BYTES:
            raise StorageError(
                f"{what}: the disk of {directory} is full ({free_bytes:,} bytes are free).",
                "Free some space, then make the same call again.",
            ) from cause


_NEXT_STEP: Final = "Check the permissions and free space of the state directory, then make the same call again."
#: Less free space than this, when a write failed, is why it failed.
_FULL_BYTES: Final = 16 << 20
