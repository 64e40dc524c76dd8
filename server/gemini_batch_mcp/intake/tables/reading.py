"""Tables of any kind as one: columns of text, rows in the order of the source, read in a stream by DuckDB.

`open_table` finds out what a source is; `Table.write_lines` renders a JSON line for each row inside the engine,
which is several times as fast as a loop over rows. The engine keeps to one thread, a memory limit and a directory;
`Table.beside` opens a second one, for what is written at the same time.
"""

# ruff: noqa: S608 - statements consist of our own names, of numbers, and of literals made by `sql.py`

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from copy import copy
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final

from gemini_batch_mcp.errors import BatchError, PathError, StorageError, UsageError, storage_errors
from gemini_batch_mcp.intake.rows.choosing import Choose, effect, number_column
from gemini_batch_mcp.intake.rows.given import GivenRows
from gemini_batch_mcp.intake.rows.spreading import DIGEST_CHARS, Spread, chosen, placed, told
from gemini_batch_mcp.intake.tables._copies import read_through, readable, unpacked
from gemini_batch_mcp.intake.tables._csv import (
    CsvTable,
    SurveyOnce,
    check_columns,
    open_csv,
)
from gemini_batch_mcp.intake.tables._rejects import check_count, check_size, emptied, unreadable_rows
from gemini_batch_mcp.intake.tables._rendering import Renderer, columns_of, constant_chars, uses_of
from gemini_batch_mcp.intake.tables._spool import (
    spool_given,
    spool_json_lines,
    spool_json_list,
    spool_sheet,
    spool_text_lines,
)
from gemini_batch_mcp.intake.tables.earlier import ROW_COLUMN, EarlierRows, linked_parts, relation_of
from gemini_batch_mcp.intake.tables.file_rows import spool_folder
from gemini_batch_mcp.intake.tables.folders import Folder
from gemini_batch_mcp.intake.tables.kinds import AS_IT_SAYS, FILES, FileOptions, Layout, file_kind
from gemini_batch_mcp.intake.tables.memory import EFFORTS, Effort, MoreEffort, connected, with_effort, workspace_in
from gemini_batch_mcp.intake.tables.sql import (
    AS_IT_IS,
    BUFFERS,
    LineForm,
    as_text,
    buffers,
    cell_query,
    chosen_rows,
    column_name,
    column_query,
    digest_query,
    distinct_names,
    file_literal,
    line_query,
    longest_query,
    numbered_rows,
    quoted,
    value_query,
)
from gemini_batch_mcp.intake.tables.text_files import BLOCK_BYTES
from gemini_batch_mcp.intake.template import column_named
from gemini_batch_mcp.intake.unpacked import OnRead, is_packed
from gemini_batch_mcp.settings import MAX_LINE_BYTES

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: Above, lines are made one after the other, outside of the engine.
_MAX_CONSTANT_CHARS: Final = 16_000
_MAX_USES: Final = 4
_MAX_CELL_BYTES: Final = 16_000
#: Lines are written although they are too large, and told with their numbers by who reads them; larger ones end it.
_MAX_WRITTEN_BYTES: Final = 4 * MAX_LINE_BYTES


#: What a table is read from.
Place = Path | Folder | GivenRows | EarlierRows


class _Refused(Exception):
    """The engine cannot read some row."""


@contextmanager
def open_table(
    source: Place,
    scratch: Path,
    *,
    with_text: bool = True,
    needs_text: str = "",
    read_once: bool = False,
    on_read: OnRead | None = None,
    where: str = "",
    choose: Choose | None = None,
    options: FileOptions = AS_IT_SAYS,
    spread: Spread | None = None,
    without: Collection[int] = (),
) -> Iterator["Table"]:
    """Yield the table that a source is. Copies that reading needs go to a directory in `scratch`, removed at the end.

    Without `with_text` the files of a folder are not opened, and there is no column `text`; with `needs_text` each of
    them has to be text, and it says what to do about others. With `read_once` the table is always such a copy:
    whatever becomes of the source, all that is written from it has the same rows. `on_read` is told how far the
    unpacking of a packed file is, in bytes, or the reading of a folder's texts, in files. With `where` it has only the
    rows that meet this condition, by what `choose` says; with `spread` only that part of them. `without` are rows that
    an `UnreadableRows` has told of: they are empty; it goes neither with `where` nor with `spread`.

    Raises:
        UsageError: the source is no table, has no rows, or has columns that cannot be told apart; or no row is chosen.
        RequestProblems: rows cannot be read; names their lines where the source has lines.
        PathError: a file cannot be read.
        StorageError: scratch files cannot be written.
    """
    with workspace_in(scratch) as workspace, connected(workspace) as connection:
        if isinstance(source, EarlierRows):
            table = _earlier_table(connection, source, workspace, where, choose)
            yield table.spread(spread, workspace)
        elif where and choose is not None:
            with open_table(source, workspace, with_text=with_text, on_read=on_read, options=options) as table:
                yield _chosen_table(connection, table, workspace, where, choose).spread(spread, workspace)
        elif isinstance(source, Folder):
            # By the names: so as not to open files that nobody asks for.
            source = source.spread(spread) if spread is not None else source
            spool = spool_folder(
                source,
                workspace,
                with_text=with_text,
                needs_text=needs_text,
                encoding=options.encoding,
                on_files=on_read,
            )
            yield _csv_table(connection, spool, "The folder")
        elif isinstance(source, GivenRows):
            yield _csv_table(connection, spool_given(source.rows, workspace), source.name).spread(spread, workspace)
        else:
            with _file_table(
                connection, source, workspace, options, read_once=read_once, on_read=on_read, without=without
            ) as table:
                yield table.spread(spread, workspace)


@contextmanager
def _file_table(
    connection: "DuckDBPyConnection",
    source: Path,
    workspace: Path,
    options: FileOptions,
    *,
    read_once: bool,
    on_read: OnRead | None,
    without: Collection[int],
) -> Iterator["Table"]:
    """Yield the table in a file. Raises as `open_table`."""
    if not source.is_file():
        raise PathError(f"{source.name} does not exist or is not a file.", "Correct the source path.")
    if (kind := file_kind(source)) is None:
        raise UsageError(
            f"{source.name} does not have a table's file name.", f"Give a file that ends in {', '.join(FILES)}."
        )
    name = source.name
    if is_packed(source):
        source, read_once = unpacked(source, workspace, on_read), False
    match kind.layout:
        case Layout.PARQUET:
            with readable(source, workspace, read_once=read_once) as (path, read):
                yield _parquet_table(connection, path, read)
        case Layout.DELIMITED:
            with readable(source, workspace, read_once=read_once) as (path, read):
                csv = open_csv(path, workspace, first_delimiter=kind.delimiter, encoding=options.encoding)
                csv = emptied(csv, without, workspace) if without else csv
                yield _csv_table(connection, csv, name, read if csv.path == source else None)
        case Layout.WORKBOOK:
            yield _csv_table(connection, spool_sheet(source, workspace, options.sheet), name)
        case Layout.JSON_LIST:
            yield _csv_table(connection, spool_json_list(source, workspace, options.encoding, without=without), name)
        case Layout.JSON_LINES:
            yield _csv_table(connection, spool_json_lines(source, workspace, options.encoding, without=without), name)
        case Layout.TEXT_LINES:
            yield _csv_table(connection, spool_text_lines(source, workspace, options.encoding), name)


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
        path: Path | None = None,
        read: Path | None = None,
        csv: CsvTable | None = None,
        warnings: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.columns = columns
        self.warnings = csv.warnings if csv else warnings
        self._connection = connection
        self._relation = relation
        self._cells = dict(zip(columns, expressions, strict=True))
        self._csv = csv
        self._survey = SurveyOnce(csv) if csv else None
        #: The file that the engine reads, and by which path it does.
        self._path = path
        self._read = read or path
        #: Held while more than little memory is taken: by one of the engines of a table at a time.
        self._turn = Lock()
        self._is_stopped = False
        self._is_part = False

    @contextmanager
    def beside(self, scratch: Path) -> Iterator["Table"]:
        """Yield the same table on an engine of its own, for another thread. Raises StorageError as `open_table`."""
        with workspace_in(scratch) as workspace, connected(workspace) as connection:
            table = copy(self)
            table._connection = connection
            yield table

    def spread(self, spread: Spread | None, workspace: Path) -> "Table":
        """Return the table with the rows of a spread only, and a warning that says so; itself where that is None.

        The rows' digests go to a file first: the engine reads in a stream. Raises as `write_lines`.
        """
        if spread is None:
            return self
        columns, path = self.columns, workspace / "digests"
        if spread.key_column:
            columns = (column_named(spread.key_column, columns, "key_column"),)
        query = digest_query(columns, self._relation, self._cells, DIGEST_CHARS)
        with_effort(lambda tried: self._rows(partial(self._copy, query, path, AS_IT_IS, tried), 0, tried))
        with storage_errors("The rows could not be spread"), path.open(encoding="ascii") as lines:
            rows = chosen(placed(lines), spread.rows)
        part, number = copy(self), number_column((*self.columns, ROW_COLUMN), "chosen")
        part._relation = chosen_rows(numbered_rows(self._relation, number), number, rows)
        part.warnings, part._is_part = (*self.warnings, told(rows, self.name)), True
        return part

    def stop(self) -> None:
        """Have what another thread is writing end with an error: nobody wants it any more."""
        self._is_stopped = True
        self._connection.interrupt()

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

        def write() -> int:
            if effort is not EFFORTS[0] or not self._is_light(form, limit_rows):
                return self._render(form, destination, limit_rows, effort)
            query = line_query(form, self._relation, self._cells, limit_rows)
            return self._copy(query, destination, AS_IT_IS, effort)

        count = self._rows(write, limit_rows, effort)
        if not count:
            raise UsageError(f"{self.name} has no rows.", "Give a table with at least one row below its header.")
        return count

    def write_values(self, column: str, destination: Path, *, limit_rows: int = 0, effort: Effort = EFFORTS[0]) -> None:
        """Write a line of JSON for each value of a column: `[value, rows that have it, first of them]`, in order.

        Rows count from 1. Raises as `write_lines`, but for a table without rows.
        """
        query = value_query(column, self._relation, self._cells, limit_rows)
        self._rows(partial(self._copy, query, destination, AS_IT_IS, effort), limit_rows, effort, counts_rows=False)

    def write_parquet(
        self,
        names: Mapping[str, str],
        destination: Path,
        *,
        limit_rows: int = 0,
        number: str = "row",
        effort: Effort = EFFORTS[0],
    ) -> int:
        """Write columns under other names to a Parquet file, all as text, after `number`, which counts from 1.

        `names` leads from columns of the table to theirs in the file. Raises as `write_lines`, but for a table without
        rows; returns how many there are.
        """
        query = column_query(names, self._relation, self._cells, limit_rows, number)
        options = f"FORMAT parquet, COMPRESSION snappy, USE_TMP_FILE false, ROW_GROUP_SIZE {effort.row_group_rows}"
        return self._rows(partial(self._copy, query, destination, options, effort), limit_rows, effort)

    def _is_light(self, form: LineForm, limit_rows: int) -> bool:
        """True when the engine can make lines of that form in little memory, whatever the cells hold.

        It makes 2,048 of them at a time, each several times. Of CSV it reads four megabytes at a time at the most.
        """
        uses = uses_of(form)
        if constant_chars(form) > _MAX_CONSTANT_CHARS or uses > _MAX_USES:
            return False
        columns = columns_of(form)
        if self._csv is not None or not columns:
            return True
        query = longest_query(columns, self._relation, self._cells, limit_rows)
        with self._engine_errors(EFFORTS[0], writes=None):
            (longest_bytes,) = self._connection.execute(query).fetchall()[0]
        return int(longest_bytes) * max(uses, 1) <= _MAX_CELL_BYTES

    def _rows(self, write: Callable[[], int], limit_rows: int, effort: Effort, *, counts_rows: bool = True) -> int:
        """Write rows with an independent look at the source beside it; return how many there are."""
        # The engine leaves one core and the interpreter free, so that look costs little time.
        with ThreadPoolExecutor(1) as pool:
            surveying = pool.submit(self._survey.look) if self._survey else None
            try:
                count = write()
            except _Refused:
                if surveying is not None:
                    check_size(self.name, surveying.result(), effort)
                raise self._unreadable() from None
        if surveying is not None and self._csv is not None:
            check_size(self.name, surveying.result(), effort)
            if counts_rows and not limit_rows and not self._is_part:
                check_count(self.name, count, surveying.result().record_count, self._csv, effort)
        return count

    def _copy(self, query: str, destination: Path, options: str, effort: Effort) -> int:
        """Write a query's rows and return their number."""
        statement = f"COPY ({query}) TO {quoted(str(destination))} ({options})"
        with self._engine_errors(effort, writes=destination):
            row = self._connection.execute(statement.replace(BUFFERS, buffers(effort.record_bytes))).fetchone()
        assert row is not None
        return int(row[0])

    def _render(self, form: LineForm, destination: Path, limit_rows: int, effort: Effort) -> int:
        """Write the lines of all rows, made one after the other, and return their number."""
        renderer = Renderer(form)
        query = cell_query(renderer.columns, self._relation, self._cells, limit_rows)
        number = 0
        with self._engine_errors(effort, writes=None), destination.open("wb", buffering=BLOCK_BYTES) as file:
            found = self._connection.execute(query.replace(BUFFERS, buffers(effort.record_bytes)))
            # One row at a time: some have twenty megabytes.
            while cells := found.fetchone():
                number += 1
                if (size_bytes := renderer.size_bytes(cells)) > _MAX_WRITTEN_BYTES:
                    raise UsageError(
                        f"Row {number:,} of {self.name} makes a request of about {size_bytes:,} bytes, "
                        f"more than {MAX_LINE_BYTES:,}.",
                        "Shorten its cells, or use the column fewer times in the prompt.",
                    )
                renderer.write(number, cells, file)
        return number

    @contextmanager
    def _engine_errors(self, effort: Effort, *, writes: Path | None) -> Iterator[None]:
        """Let the engine have the memory of an effort, and turn its failures into ours; `writes` is what it writes."""
        import duckdb

        stopped = StorageError(f"Reading {self.name} was stopped.", "Submit the order again.")
        try:
            with nullcontext() if effort is EFFORTS[0] else self._turn:
                if self._is_stopped:
                    raise stopped
                self._connection.execute(f"SET memory_limit = '{effort.memory_megabytes}MB'")
                yield
        except duckdb.InterruptException:
            raise stopped from None
        except duckdb.OutOfMemoryException as error:
            if effort is not EFFORTS[-1]:
                raise MoreEffort from error
            raise StorageError(
                f"{self.name} needs more memory than is allowed ({effort.memory_megabytes} MB).",
                "Split it, or shorten its largest rows.",
            ) from None
        except duckdb.Error as error:
            # What follows the message is the statement, which names every file.
            message = str(error).partition("\n")[0]
            if isinstance(error, duckdb.IOException) and self._path is not None and str(self._read) in message:
                read_through(self._path)
                if self._csv is not None:
                    raise PathError(f"{self.name} could temporarily not be read.", "Submit the order again.") from None
            is_ours = self._csv is not None or "write" in message.lower() or (writes and str(writes) in message)
            if isinstance(error, duckdb.IOException) and is_ours:
                raise StorageError(
                    "The request lines could not be written.", "Check the free space of the state directory."
                ) from error
            # Damaged Parquet fails in many ways.
            raise _Refused from error

    def _unreadable(self) -> BatchError:
        """Return the error that names the rows which the engine refused."""
        if self._csv is None:
            return UsageError(f"{self.name} cannot be read: it is damaged.", "Export the Parquet file again.")
        return unreadable_rows(self.name, self._csv, len(self.columns), EFFORTS[-1].record_bytes)


def _csv_table(connection: "DuckDBPyConnection", csv: CsvTable, name: str, read: Path | None = None) -> Table:
    """Open what `open_csv` has found out, or a spool. `read` is the path by which the engine reads the user's rows."""
    aliases = [f"c{number}" for number in range(len(csv.columns))]
    types = "{" + ", ".join(f"'{alias}': 'VARCHAR'" for alias in aliases) + "}"
    # Left to guess, the engine takes a carriage return in the first row of a spool for a line end.
    own = "header=false, new_line='\\n', null_padding=true, parallel=false"
    spool = own if csv.is_spool else f"header=true, skip={csv.skip_lines}"
    relation = (
        f"read_csv({file_literal(read or csv.path)}, auto_detect=false, {BUFFERS}, columns={types}, "
        f"delim={quoted(csv.delimiter)}, quote='\"', escape={quoted(csv.escape)}, {spool})"
    )
    if len(aliases) == 1 and not csv.is_spool:
        # A blank line of a table with one column is no row.
        relation += " WHERE c0 IS NOT NULL"
    return Table(
        connection,
        name,
        csv.columns,
        relation=relation,
        expressions=aliases,
        path=csv.path if read else None,
        read=read,
        csv=csv,
    )


def _parquet_table(connection: "DuckDBPyConnection", path: Path, read: Path) -> Table:
    """Open a Parquet file; nested values become JSON, all others the text that the engine writes for them.

    Raises:
        UsageError: it is damaged, or has no columns that can be told apart.
    """
    import duckdb

    relation = f"read_parquet({file_literal(read)})"
    try:
        described = connection.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
    except duckdb.Error:
        read_through(path)
        raise UsageError(f"{path.name} is damaged or not a Parquet file.", "Export it again.") from None
    columns = tuple(str(name) for name, *_ in described)
    check_columns(columns, path.name)
    expressions = [as_text(name, str(kind)) for name, kind, *_ in described]
    return Table(
        connection,
        path.name,
        columns,
        relation=relation,
        expressions=expressions,
        path=path if path != read else None,
        read=read,
    )


def _earlier_table(
    connection: "DuckDBPyConnection", source: EarlierRows, workspace: Path, where: str, choose: Choose | None
) -> Table:
    """Open the table of an earlier batch, of which a condition sees all columns, as a query does."""
    parts, warnings = linked_parts(source, workspace), source.warnings
    relation, cells = relation_of(connection, source, parts)
    if where and choose is not None:
        chosen = choose(parts[0].parent, where, number=ROW_COLUMN, is_text=False)
        relation, warnings = chosen_rows(relation, ROW_COLUMN, chosen), (effect(chosen, source.name),)
    return Table(connection, source.name, source.columns, relation=relation, expressions=cells, warnings=warnings)


def _chosen_table(connection: "DuckDBPyConnection", table: Table, workspace: Path, where: str, choose: Choose) -> Table:
    """Open the rows of a table that meet a condition, as a copy: who judges the condition sees nothing but that."""
    copied, number = workspace / "all-rows.parquet", number_column(table.columns)
    names = distinct_names(table.columns, number)
    renamed = dict(zip(table.columns, names, strict=True))
    with_effort(lambda effort: table.write_parquet(renamed, copied, number=number, effort=effort))
    chosen = choose(copied, where, number=number, is_text=True)
    return Table(
        connection,
        table.name,
        table.columns,
        relation=chosen_rows(f"read_parquet({file_literal(copied)})", number, chosen),
        expressions=list(map(column_name, names)),
        warnings=(*table.warnings, effect(chosen, table.name)),
    )
