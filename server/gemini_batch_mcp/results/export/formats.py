"""A result table as a file for the user: JSON lines, CSV, Parquet, or vectors for numpy; whole or not at all."""

import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, Literal

from gemini_batch_mcp.domain import Column, FileFormat, SavedFile
from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.handles import open_file
from gemini_batch_mcp.paths import DRAFT_PREFIX
from gemini_batch_mcp.results.engine import connect, table_errors
from gemini_batch_mcp.results.export._jsonl import write_jsonl
from gemini_batch_mcp.results.export._sql import write_csv, write_parquet
from gemini_batch_mcp.results.export._vectors import write_keys, write_vectors
from gemini_batch_mcp.results.table.layout import PLACE_COLUMNS
from gemini_batch_mcp.results.table.summary import TableFacts

#: `npy` is a float32 matrix of the embeddings, `keys` the keys of its rows as one JSON string a line.
Format = FileFormat | Literal["npy", "keys"]
#: How a file of each format begins; one that begins otherwise is CSV.
_BEGINNINGS: Final[Mapping[bytes, Format]] = {b"{": "jsonl", b"PAR1": "parquet", b"\x93NUMPY": "npy"}

#: Enough for columns of a few kilobytes; wider ones get more.
_MEMORY_LIMIT_BYTES: Final = 208 << 20
_PLACES: Final = frozenset(column.name for column in PLACE_COLUMNS)


def export_table(table: Path, facts: TableFacts, destination: Path, format: Format) -> SavedFile:
    """Write all rows of a table to `destination` in request order, with the user's own columns first.

    The file appears in one step. Columns in which nothing can stand are left out: `json` without a response schema,
    `files` when no answer carried any. JSON lines add the whole response, CSV leaves vectors out.

    Raises:
        UsageError: the table has nothing for this format.
        StorageError: the table or its raw answers cannot be read, or the file cannot be written.
    """
    columns = tuple(column for column in facts.columns if _is_shown(column, facts))
    rows = facts.rows
    with (
        table_errors(f"{destination} could not be written", destination.parent),
        _replacing(destination) as partial,
        tempfile.TemporaryDirectory(prefix=DRAFT_PREFIX, dir=destination.parent) as scratch,
        closing(connect(_MEMORY_LIMIT_BYTES, Path(scratch))) as connection,
    ):
        connection.execute("SET preserve_insertion_order = true")
        if format == "csv":
            write_csv(connection, table, columns, partial, _MEMORY_LIMIT_BYTES)
        elif format == "parquet":
            write_parquet(connection, table, columns, partial, _MEMORY_LIMIT_BYTES)
        else:
            with partial.open("xb") as file:
                if format == "jsonl":
                    write_jsonl(connection, table, facts, columns, file)
                elif format == "npy":
                    rows = write_vectors(connection, table, _with_vectors(facts), file)
                else:
                    rows = write_keys(connection, table, _with_vectors(facts), file)
    return SavedFile(destination, format, rows, destination.stat().st_size)


def is_written_as(path: Path, format: Format) -> bool:
    """True when a file that we wrote has this format. Keys, and a table without rows, may be either.

    Raises:
        OSError: it cannot be read, or a link stands in its path.
    """
    with os.fdopen(open_file(path), "rb", buffering=0) as file:
        beginning = file.read(max(map(len, _BEGINNINGS)))
    if format == "keys" or not beginning:
        return True
    return next((found for start, found in _BEGINNINGS.items() if beginning.startswith(start)), "csv") == format


def _is_shown(column: Column, facts: TableFacts) -> bool:
    if column.name == "json":
        return facts.has_schema
    if column.name == "files":
        return facts.summary.media_files > 0
    return column.name not in _PLACES


def _with_vectors(facts: TableFacts) -> TableFacts:
    if not facts.vector_size:
        raise UsageError(
            "The batch has no embeddings, or embeddings of different lengths, so they don't form a matrix.",
            "Save it as parquet or jsonl.",
        )
    return facts


@contextmanager
def _replacing(destination: Path) -> Iterator[Path]:
    """Give a path that becomes `destination` when the block ends well, and goes away when it does not."""
    partial = destination.with_name(f"{DRAFT_PREFIX}{uuid.uuid4().hex}.part")
    try:
        yield partial
        partial.replace(destination)
    finally:
        partial.unlink(missing_ok=True)
