"""The database in which a query runs: empty but for a view of each table, with all else shut and locked."""

# ruff: noqa: S608 - statements consist of our own names, of numbers, and of literals made by `quoted`

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gemini_batch_mcp.results.engine import identifier, left_out, listed, parts_of, quoted
from gemini_batch_mcp.results.query._outlet import OUTLET
from gemini_batch_mcp.results.query._problems import storage_problem
from gemini_batch_mcp.results.sql_names import select_list

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from gemini_batch_mcp.results.query._outlet import Outlet


@contextmanager
def locked_database(
    tables: Mapping[str, Path], memory_limit_bytes: int, outlet: "Outlet | None" = None
) -> Iterator["DuckDBPyConnection"]:
    """Open a database that can read the parts of `tables`, each as a view of its name, and nothing else.

    With an `outlet` it can write that, and nothing else either.

    A view reads the files while a query runs: only the columns and rows that the query needs are loaded.

    Raises:
        StorageError: a table is missing or damaged.
    """
    import duckdb

    connection = duckdb.connect(
        config={
            # One thread keeps rows in the order of the table, and leaves the other cores to the rest.
            "threads": 1,
            "async_threads": 1,
            "memory_limit": f"{memory_limit_bytes}B",
            "temp_directory": "",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "allow_community_extensions": "false",
            "allow_persistent_secrets": "false",
            "python_enable_replacements": "false",
            "errors_as_json": "true",
        }
    )
    try:
        try:
            if outlet is not None:
                connection.register_filesystem(outlet)
            parts = {name: [quoted(part) for part in parts_of(table)] for name, table in tables.items()}
            empty = {name: left_out(table) for name, table in tables.items()}
            _shut(connection, parts, empty, [quoted(OUTLET)] if outlet is not None else [])
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error as error:
            raise storage_problem() from error
        yield connection
    finally:
        connection.close()


def _shut(
    connection: "DuckDBPyConnection",
    parts: Mapping[str, list[str]],
    empty: Mapping[str, frozenset[str]],
    outlets: list[str],
) -> None:
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(
        f"SET allowed_paths = {listed([*(part for table in parts.values() for part in table), *outlets])}"
    )
    connection.execute("SET enable_external_access = false")
    for name, table in parts.items():
        rows = f"read_parquet({listed(table)}, hive_partitioning = false, filename = false)"
        described = connection.execute(f"DESCRIBE SELECT * FROM {rows}").fetchall()
        stored = [(column, kind) for column, kind, *_ in described if column not in empty[name]]
        connection.execute(f"CREATE VIEW {identifier(name)} AS SELECT {select_list(stored, empty[name])} FROM {rows}")
    connection.execute("SET lock_configuration = true")


def engine_names(connection: "DuckDBPyConnection") -> frozenset[str]:
    """Return the relations that every database has, in lower case."""
    found = connection.execute("SELECT lower(view_name) FROM duckdb_views() WHERE internal").fetchall()
    return frozenset(name for (name,) in found)
