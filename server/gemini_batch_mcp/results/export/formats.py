"""Rows as a file for the user: JSON lines, CSV, a workbook, Parquet, or vectors for numpy; whole or not at all."""

# ruff: noqa: S608 - queries consist of our own names, of numbers, and of literals made by `quoted`

import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from gemini_batch_mcp.domain import Column, FileFormat, SavedFile
from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.handles import open_file
from gemini_batch_mcp.paths import DRAFT_PREFIX
from gemini_batch_mcp.results.engine import connect, execute_widening, quoted, rows_of, table_errors
from gemini_batch_mcp.results.export._jsonl import write_jsonl, write_selected_jsonl
from gemini_batch_mcp.results.export._shape import Rows, for_people, is_vector, stored
from gemini_batch_mcp.results.export._sql import PARQUET_OPTIONS, write_csv, write_parquet
from gemini_batch_mcp.results.export._vectors import vector_size, write_keys, write_vectors
from gemini_batch_mcp.results.export._xlsx import write_xlsx
from gemini_batch_mcp.results.table.merge import count
from gemini_batch_mcp.results.table.summary import TableFacts

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: `npy` is a float32 matrix of the embeddings, `keys` the keys of its rows as one JSON string a line.
Format = FileFormat | Literal["keys"]
#: How a file of each format begins; one that begins otherwise is CSV.
_BEGINNINGS: Final[Mapping[bytes, Format]] = {
    b"{": "jsonl",
    b"PAR1": "parquet",
    b"\x93NUMPY": "npy",
    b"PK\x03\x04": "xlsx",
}

#: Enough for columns of a few kilobytes; wider ones get more.
_MEMORY_LIMIT_BYTES: Final = 208 << 20


def export_table(
    table: Path, facts: TableFacts, destination: Path, format: Format, *, keys: Sequence[str] = (), name: str = ""
) -> SavedFile:
    """Write the rows of a table to `destination` in request order: all of them, or those with these keys.

    The file appears in one step. CSV and workbooks are for people, see `for_people`; Parquet holds every column, JSON
    lines the whole responses as well. `name` is what a sheet is called.

    Raises:
        UsageError: the table has nothing for this format.
        StorageError: the table or its raw answers cannot be read, or the file cannot be written.
    """
    rows = Rows(table, facts.columns, table.parent, facts)
    with _writing(destination) as (connection, partial, scratch):
        if keys:
            chosen = scratch / "chosen.parquet"
            connection.execute("CREATE TEMP TABLE wanted AS SELECT unnest($1::VARCHAR[]) AS key", [list(keys)])
            selection = f"SELECT * FROM {rows_of(table)} WHERE key IN (FROM wanted)"
            copy = f"COPY ({selection}) TO {quoted(chosen)} {PARQUET_OPTIONS}"
            execute_widening(connection, copy, _MEMORY_LIMIT_BYTES)
            rows = replace(rows, parts=chosen)
        return _written(connection, rows, partial, scratch, destination, format, name)


def export_selected(parts: Path, destination: Path, format: Format, *, home: Path, name: str = "") -> SavedFile:
    """Write what a statement has selected, which is the Parquet file at `parts`, to `destination`.

    The file appears in one step. Vectors are left out where they make no cell; as `npy` they are those of the column
    `embedding`. `home` is where files of answers are.

    Raises:
        UsageError: the selection has nothing for this format.
        StorageError: the file cannot be written.
    """
    with _writing(destination) as (connection, partial, scratch):
        described = connection.execute(f"DESCRIBE FROM {rows_of(parts)}").fetchall()
        columns = tuple(Column(str(column), str(kind)) for column, kind, *_ in described)
        return _written(connection, Rows(parts, columns, home), partial, scratch, destination, format, name)


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


def _written(
    connection: "DuckDBPyConnection",
    rows: Rows,
    partial: Path,
    scratch: Path,
    destination: Path,
    format: Format,
    name: str,
) -> SavedFile:
    notes: tuple[str, ...] = ()
    facts = rows.facts
    if format in ("npy", "keys"):
        write = write_vectors if format == "npy" else write_keys
        size = _size_of_vectors(connection, rows, format)
        with partial.open("xb") as file:
            row_count = write(connection, rows.parts, size, file)
        partial.replace(destination)
        return SavedFile(destination, format, row_count, destination.stat().st_size)
    if format in ("csv", "xlsx"):
        cells = for_people(rows, has_misfits=_has_misfits(connection, rows), has_ratings=_has_ratings(connection, rows))
        notes = _of_vectors(rows)
        if not cells:
            raise UsageError("Nothing of it makes a cell of a table.", "Save it as parquet, jsonl or npy.")
        if format == "csv":
            write_csv(connection, rows.parts, cells, partial, _MEMORY_LIMIT_BYTES)
        else:
            notes += write_xlsx(connection, rows.parts, cells, partial, name=name, scratch=scratch)
    elif format == "parquet":
        write_parquet(connection, rows.parts, stored(rows), partial, _MEMORY_LIMIT_BYTES)
    else:
        with partial.open("xb") as file:
            if facts is None:
                write_selected_jsonl(connection, rows, file)
            else:
                shown = {cell.name for cell in stored(rows)}
                columns = tuple(column for column in rows.columns if column.name in shown)
                write_jsonl(connection, rows, facts, columns, file)
    row_count = facts.rows if facts is not None and rows.parts.is_dir() else count(connection, rows_of(rows.parts))
    partial.replace(destination)
    return SavedFile(destination, format, row_count, destination.stat().st_size, notes=notes)


def _has_misfits(connection: "DuckDBPyConnection", rows: Rows) -> bool:
    """True when some answers have no fields, because they do not fit their schema."""
    if rows.facts is None or not rows.facts.has_schema:
        return False
    return count(connection, f"(SELECT 1 FROM {rows_of(rows.parts)} WHERE json IS NULL AND text <> '' LIMIT 1)") > 0


def _has_ratings(connection: "DuckDBPyConnection", rows: Rows) -> bool:
    """True when something was rated as more than negligible: some models rate every answer."""
    if rows.facts is None or all(column.name != "safety_ratings" for column in rows.columns):
        return False
    notable = "regexp_replace(safety_ratings, '\\w+ NEGLIGIBLE(, |$)', '', 'g') <> ''"
    return count(connection, f"(SELECT 1 FROM {rows_of(rows.parts)} WHERE {notable} LIMIT 1)") > 0


def _of_vectors(rows: Rows) -> tuple[str, ...]:
    """Say where vectors are, which make no cells."""
    vectors = [column.name for column in rows.columns if is_vector(column)]
    if not vectors:
        return ()
    if rows.facts is None:
        return (f"Vectors make no cells: {vectors[0]} is left out. Save it as parquet, jsonl or npy.",)
    if rows.facts.vector_size:
        return ("The vectors are in the .vectors.npy beside it: vector_row is the row there, counted from 0.",)
    return ("The vectors have several lengths and make no matrix: save them as parquet or jsonl.",)


def _size_of_vectors(connection: "DuckDBPyConnection", rows: Rows, format: Format) -> int:
    if size := vector_size(connection, rows):
        if format == "keys" and all(column.name != "key" for column in rows.columns):
            raise UsageError("The statement selects no key beside the embedding.", "Select key as well.")
        return size
    if rows.facts is None:
        raise UsageError(
            "The statement selects no column embedding, or embeddings of different lengths.",
            "Select key and embedding, or save it as parquet or jsonl.",
        )
    raise UsageError(
        "The batch has no embeddings, or embeddings of different lengths, so they don't form a matrix.",
        "Save it as parquet or jsonl.",
    )


@contextmanager
def _writing(destination: Path) -> Iterator[tuple["DuckDBPyConnection", Path, Path]]:
    """Give an engine, a path for the file until it is whole, and a directory for what it takes to write it.

    What is not brought to `destination` goes away at the end.
    """
    partial = destination.with_name(f"{DRAFT_PREFIX}{uuid.uuid4().hex}.part")
    try:
        with (
            table_errors(f"{destination} could not be written", destination.parent),
            tempfile.TemporaryDirectory(prefix=DRAFT_PREFIX, dir=destination.parent) as scratch,
            closing(connect(_MEMORY_LIMIT_BYTES, Path(scratch))) as connection,
        ):
            connection.execute("SET preserve_insertion_order = true")
            yield connection, partial, Path(scratch)
    finally:
        partial.unlink(missing_ok=True)
