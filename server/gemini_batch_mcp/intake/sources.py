"""Tables of any kind as one: columns of text, rows in the order of the source, read in a stream by DuckDB.

`open_table` finds out what a source is; `Table.write_lines` renders a JSON line for each row inside the engine,
which is several times as fast as a loop over rows. The engine keeps to one thread, a memory limit and a directory.
"""

# ruff: noqa: S608 - statements consist of our own names, of numbers, and of literals made by `_quoted`

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from gemini_batch_mcp.errors import BatchError, PathError, StorageError, UsageError
from gemini_batch_mcp.intake.advice import shown
from gemini_batch_mcp.intake.source_csv import (
    CsvTable,
    Survey,
    check_columns,
    count_records,
    open_csv,
    ragged,
    survey,
)
from gemini_batch_mcp.intake.source_folder import Folder, list_folder, spool_folder
from gemini_batch_mcp.intake.source_kind import SourceKind, recognise
from gemini_batch_mcp.intake.source_spool import spool_json_lines, spool_json_list, spool_text_lines
from gemini_batch_mcp.intake.source_text import BLOCK_BYTES, line_at
from gemini_batch_mcp.intake.template import Column, Template
from gemini_batch_mcp.settings import MAX_LINE_BYTES

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["TABLE_SUFFIXES", "Folder", "RowKey", "SourceKind", "Table", "list_folder", "open_table", "recognise"]

#: File name endings of tables.
TABLE_SUFFIXES: Final = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".txt")

_MAX_REPORTED: Final = 20
_MAX_REJECTS: Final = 1000
#: The form of a file whose lines are written without a change: no character that would be quoted occurs in JSON.
_AS_IT_IS: Final = (
    "FORMAT csv, HEADER false, USE_TMP_FILE false, "
    "QUOTE e'\\x02', ESCAPE e'\\x02', DELIMITER e'\\x01', COMMENT e'\\x03'"
)
#: Stands in a table's definition for the options that `_buffers` returns.
_BUFFERS: Final = "$buffers"
_NESTED: Final = ("STRUCT", "MAP", "UNION", "JSON", "VARIANT")


@dataclass(frozen=True, slots=True)
class Effort:
    """What reading may cost: the engine's memory, and the largest record, for which it keeps buffers."""

    memory_megabytes: int
    record_bytes: int


#: To be tried in turn: the first is enough for rows of ordinary size. A cell that consists of quotes needs two bytes
#: for each one of the line that it becomes.
EFFORTS: Final = (Effort(96, 1 << 21), Effort(512, 2 * MAX_LINE_BYTES), Effort(1536, 2 * MAX_LINE_BYTES))


class MoreEffort(Exception):
    """The rows are too large for the effort that was allowed."""


class _Refused(Exception):
    """The engine cannot read some row."""


@dataclass(frozen=True, slots=True)
class RowKey:
    """The key of a row without one: `row-000001-3f2a9c1d`, from its place and the content of these columns."""

    columns: tuple[str, ...]


#: A line to be rendered for each row: JSON as it stands, texts to be escaped, keys to be made.
LineForm = Sequence[str | Template | RowKey]


@contextmanager
def open_table(source: Path | Folder, scratch: Path) -> Iterator["Table"]:
    """Yield the table that a source is. Copies that reading needs go to a directory in `scratch`, removed at the end.

    Raises:
        UsageError: the source is no table, has no rows, or has columns that cannot be told apart.
        RequestProblems: rows cannot be read; names their lines where the source has lines.
        PathError: a file cannot be read.
        StorageError: scratch files cannot be written.
    """
    with _directory(scratch) as workspace, _connected(workspace) as connection:
        if isinstance(source, Folder):
            yield _csv_table(connection, spool_folder(source, workspace), "The folder")
            return
        if not source.is_file():
            raise PathError(f"{source.name} is not there, or is no file.", "Correct the path of the source.")
        match source.suffix.lower():
            case ".parquet":
                yield _parquet_table(connection, source)
            case ".csv" | ".tsv":
                yield _csv_table(connection, open_csv(source, workspace), source.name)
            case ".json":
                yield _csv_table(connection, spool_json_list(source, workspace), source.name)
            case ".jsonl" | ".ndjson":
                yield _csv_table(connection, spool_json_lines(source, workspace), source.name)
            case ".txt":
                yield _csv_table(connection, spool_text_lines(source, workspace), source.name)
            case _:
                kinds = ", ".join(TABLE_SUFFIXES)
                raise UsageError(f"{source.name} is no table by its name.", f"Give a file that ends in {kinds}.")


class Table:
    """A source that is open for reading. `columns` are its own names, in order."""

    def __init__(
        self,
        connection: "DuckDBPyConnection",
        name: str,
        columns: tuple[str, ...],
        *,
        relation: str,
        expressions: Sequence[str],
        csv: CsvTable | None = None,
    ) -> None:
        self.name = name
        self.columns = columns
        self.warnings = csv.warnings if csv else ()
        self._connection = connection
        self._relation = relation
        self._expressions = dict(zip(columns, expressions, strict=True))
        self._csv = csv

    def write_lines(
        self, form: LineForm, destination: Path, *, limit_rows: int = 0, effort: Effort = EFFORTS[0]
    ) -> int:
        """Write a line for each row, in order; return how many. `limit_rows` 0 writes all of them.

        Raises:
            MoreEffort: the rows are too large for this effort; what was written is worth nothing.
            UsageError: the table has no rows, or cannot be read.
            RequestProblems: rows cannot be read; names their lines.
            StorageError: the lines cannot be written.
        """
        copy = f"COPY ({self._statement(form, limit_rows)}) TO {_quoted(str(destination))} ({_AS_IT_IS})"
        # The engine leaves one core and the interpreter free, so the independent look at the file costs little time.
        with ThreadPoolExecutor(1) as pool:
            surveying = pool.submit(survey, self._csv) if self._csv else None
            try:
                count = self._copy(copy, effort)
            except _Refused:
                if surveying is not None:
                    self._check_size(surveying.result(), effort)
                raise self._unreadable() from None
        if surveying is not None and self._csv is not None:
            self._check_size(surveying.result(), effort)
            if not limit_rows:
                self._check_count(count, surveying.result().record_count, self._csv, effort)
        if not count:
            raise UsageError(f"{self.name} has no rows.", "Give a table with at least one row below its header.")
        return count

    def _statement(self, form: LineForm, limit_rows: int) -> str:
        """Return the query whose rows are the lines."""
        used: dict[str, str] = {}
        for piece in form:
            for column in piece.columns if isinstance(piece, Template | RowKey) else ():
                used.setdefault(column, f"v{len(used)}")
        values = "".join(f", coalesce({self._expressions[name]}, '') AS {alias}" for name, alias in used.items())
        limit = f" LIMIT {limit_rows}" if limit_rows else ""
        line = ", ".join(_expression(piece, used) for piece in form)
        rows = f"SELECT row_number() OVER () AS n{values} FROM {self._relation}{limit}"
        return f"SELECT concat({line}) FROM ({rows})"

    def _copy(self, statement: str, effort: Effort) -> int:
        """Execute a COPY and return the number of rows."""
        import duckdb

        self._connection.execute(f"SET memory_limit = '{effort.memory_megabytes}MB'")
        try:
            row = self._connection.execute(statement.replace(_BUFFERS, _buffers(effort.record_bytes))).fetchone()
        except duckdb.OutOfMemoryException as error:
            if effort is not EFFORTS[-1]:
                raise MoreEffort from error
            raise StorageError(
                f"{self.name} needs more memory than is allowed.", "Split it, or shorten its largest rows."
            ) from None
        except duckdb.Error as error:
            if isinstance(error, duckdb.IOException) and (self._csv is not None or "write" in str(error).lower()):
                raise StorageError(
                    "The request lines could not be written.", "Check the free space of the state directory."
                ) from error
            # Damaged Parquet fails in many ways.
            raise _Refused from error
        assert row is not None
        return int(row[0])

    def _check_size(self, seen: Survey, effort: Effort) -> None:
        """Compare the largest record with what the engine's buffers hold: one that is larger may be left out silently.

        Raises:
            MoreEffort: larger buffers are needed.
            UsageError: there are none that are large enough.
        """
        if seen.most_record_bytes <= effort.record_bytes:
            return
        if effort is EFFORTS[0]:
            raise MoreEffort
        # It is known to within two blocks.
        if seen.most_record_bytes - 2 * BLOCK_BYTES > effort.record_bytes:
            raise UsageError(
                f"{self.name} has a row of more than {effort.record_bytes:,} bytes, or a quote that is not closed.",
                f"Shorten it: a request has at most {MAX_LINE_BYTES:,} bytes.",
            )

    def _check_count(self, count: int, expected: int, csv: CsvTable, effort: Effort) -> None:
        """Compare the engine's number of rows with an independent one.

        Raises:
            MoreEffort: they differ, which may come from a large record.
            UsageError: they differ.
        """
        if count == expected or (len(csv.columns) == 1 and not csv.is_spool):
            return
        # Quotes inside of cells without quotes mislead the quick count; walking every cell does not.
        expected = expected if csv.is_spool else count_records(csv)
        if count == expected:
            return
        if effort is EFFORTS[0]:
            raise MoreEffort
        raise UsageError(
            f"{self.name} cannot be read with certainty: {count:,} rows were read, {expected:,} counted.",
            "Put cells with quotes or line ends in double quotes, or convert the table to Parquet.",
        )

    def _unreadable(self) -> BatchError:
        """Return the error that names the rows which the engine refused."""
        import duckdb

        if self._csv is None:
            return UsageError(f"{self.name} cannot be read: it is damaged.", "Write the Parquet file again.")
        rejects = "store_rejects=true, rejects_table='rejected', rejects_scan='scans'"
        options = f"{_buffers(EFFORTS[-1].record_bytes)}, {rejects}, rejects_limit={_MAX_REJECTS}"
        relation = self._relation.replace(_BUFFERS, options)
        try:
            self._connection.execute(f"SELECT count(*) FROM {relation}").fetchall()
            rows = self._connection.execute(
                "SELECT line_byte_position, first(error_type ORDER BY rowid), first(error_message ORDER BY rowid) "
                "FROM rejected GROUP BY ALL ORDER BY 1"
            ).fetchall()
        except duckdb.Error:
            rows = []
        if not rows:
            return UsageError(f"{self.name} cannot be read as CSV.", "Save it as CSV in UTF-8, or as Parquet.")
        first_rows = list({position: (kind, message) for position, kind, message in reversed(rows)}.items())[::-1]
        described = [
            (line_at(self._csv.path, position), *_reject(kind, message))
            for position, (kind, message) in first_rows[:_MAX_REPORTED]
        ]
        return ragged(self.name, described, len(first_rows))


def _csv_table(connection: "DuckDBPyConnection", csv: CsvTable, name: str) -> Table:
    """Open what `source_csv` or `source_spool` has found out."""
    aliases = [f"c{number}" for number in range(len(csv.columns))]
    types = "{" + ", ".join(f"'{alias}': 'VARCHAR'" for alias in aliases) + "}"
    spool = "header=false, null_padding=true, parallel=false" if csv.is_spool else f"header=true, skip={csv.skip_lines}"
    relation = (
        f"read_csv({_file(csv.path)}, auto_detect=false, {_BUFFERS}, columns={types}, "
        f"delim={_quoted(csv.delimiter)}, quote='\"', escape={_quoted(csv.escape)}, {spool})"
    )
    if len(aliases) == 1 and not csv.is_spool:
        # A blank line of a table with one column is no row.
        relation += " WHERE c0 IS NOT NULL"
    return Table(connection, name, csv.columns, relation=relation, expressions=aliases, csv=csv)


def _parquet_table(connection: "DuckDBPyConnection", path: Path) -> Table:
    """Open a Parquet file; nested values become JSON, all others the text that the engine writes for them.

    Raises:
        UsageError: it is damaged, or has no columns that can be told apart.
    """
    import duckdb

    relation = f"read_parquet({_file(path)})"
    try:
        described = connection.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
    except duckdb.Error:
        raise UsageError(f"{path.name} is damaged or no Parquet file.", "Write it again.") from None
    columns = tuple(str(name) for name, *_ in described)
    check_columns(columns, path.name)
    expressions = [_as_text(name, str(kind)) for name, kind, *_ in described]
    return Table(connection, path.name, columns, relation=relation, expressions=expressions)


def _as_text(column: str, kind: str) -> str:
    name = '"' + column.replace('"', '""') + '"'
    if kind == "VARCHAR":
        return name
    if kind.startswith(_NESTED) or kind.endswith("]"):
        return f"CAST(to_json({name}) AS VARCHAR)"
    return f"base64({name})" if kind == "BLOB" else f"CAST({name} AS VARCHAR)"


def _expression(piece: str | Template | RowKey, used: dict[str, str]) -> str:
    if isinstance(piece, str):
        return _quoted(piece)
    if isinstance(piece, RowKey):
        content = " || chr(31) || ".join(used[column] for column in piece.columns) or "''"
        return f"'\"' || printf('row-%06d-', n) || left(md5({content}), 8) || '\"'"
    texts = [used[part.name] if isinstance(part, Column) else _quoted(part) for part in piece.pieces]
    return f"CAST(to_json({' || '.join(texts) or _quoted('')}) AS VARCHAR)"


def _buffers(record_bytes: int) -> str:
    """Return the options for reading records of that size; the engine's own choice is several times as large."""
    return f"max_line_size={record_bytes}, buffer_size={2 * record_bytes}"


def _reject(kind: str, message: str) -> tuple[str, str]:
    """Return what is wrong with a row that the engine refused, and how to put it right when that is special."""
    numbers = [word for word in message.split() if word.isdigit()]
    match kind:
        case "MISSING COLUMNS" | "TOO MANY COLUMNS" if len(numbers) == 2:
            plural = "" if numbers[1] == "1" else "s"
            return f"The row has {numbers[1]} cell{plural}; the header has {numbers[0]}.", ""
        case "UNQUOTED VALUE":
            return "A quote is not closed, or text follows the closing quote.", 'Write quotes inside a cell twice: "".'
        case "LINE SIZE OVER MAXIMUM":
            most = f"{EFFORTS[-1].record_bytes:,}"
            return f"The row has more than {most} bytes.", "A quote may be open; or shorten the row."
        case _:
            return f"The row cannot be read ({shown(str(kind).lower())}).", ""


def _quoted(text: str) -> str:
    """Return text as a SQL literal."""
    literal = "'" + text.replace("'", "''") + "'"
    return "(" + literal.replace("\0", "' || chr(0) || '") + ")" if "\0" in text else literal


def _file(path: Path) -> str:
    """Return a file's path as a SQL literal in which no character is a wildcard."""
    return _quoted(re.sub(r"[*?\[]", r"[\g<0>]", str(path)))


@contextmanager
def _directory(scratch: Path) -> Iterator[Path]:
    try:
        directory = TemporaryDirectory(prefix="table-", dir=scratch, ignore_cleanup_errors=True)
    except OSError as error:
        raise StorageError(
            f"The table cannot be read: {error.strerror}.",
            "Check the rights and the free space of the state directory.",
        ) from None
    with directory as name:
        yield Path(name)


@contextmanager
def _connected(workspace: Path) -> Iterator["DuckDBPyConnection"]:
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
    with connection:
        yield connection
