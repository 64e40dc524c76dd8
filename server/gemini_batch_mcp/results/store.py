"""Answers as a table: built once from what Gemini sent, then read by page, by key, or whole.

`build_table` and `TableBuild` write it; `ResultTable` reads it. The table is a folder of Parquet files, which are read
as one (see `table.summary`), with one row for each key that was sent and whose job has ended:

    the columns of the user's own table, where there is one; see `table.layout` for names that clash
    key, status, text
    json            the answer's JSON, where a response schema was ordered and the answer fits it; then its fields
    finish_reason, error_code, error_message, model_version
    input_tokens, output_tokens, thoughts_tokens, cost_usd
    attempt         which attempt the answer came from; NULL for missing rows
    files           paths, relative to the table's directory, of files that the answer carried; else NULL
    calls           as JSON: function calls, code and its output, files by address, further candidates; else NULL
    grounding       the sources of a grounded answer, each by title and address, one a line, and what was searched for
    citations       what the answer quotes, by title, address and license, one a line
    safety_ratings  how the answer, or else its prompt, was rated: `HARASSMENT LOW, HATE_SPEECH HIGH blocked`
    cleaned         where a response schema was ordered: true for a good answer whose JSON had something around it
    answered_by     the batch that an answer was taken from instead of sending the row; empty for the batch's own
    embedding       for embedding batches: the vector; NULL where there is none
    history         for batches with retries: how each attempt at the row ended, where there is more than one
    row             place in request order, from 1; readers go by it, not by the place in the file
    file, line      which raw answer line the row came from; NULL for missing rows

The raw answer files stay beside it, so that whatever is no column is still there.
"""

# ruff: noqa: S608 - queries consist of our own names, of numbers, and of literals made by `quoted`

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar

from gemini_batch_mcp.domain import Column, ResultPage, ResultRow, ResultSummary, RowAttempt, RowStatus, SavedFile
from gemini_batch_mcp.errors import StorageError, UsageError
from gemini_batch_mcp.results.cursor import Position, cursor_at, position_of
from gemini_batch_mcp.results.engine import TableReader, identifier, rows_of, table_errors
from gemini_batch_mcp.results.export.formats import Format, export_table
from gemini_batch_mcp.results.sql_names import sql_columns
from gemini_batch_mcp.results.table.build import TableBuild, build_planned, build_table
from gemini_batch_mcp.results.table.inputs import AnswerFile, Rates, TablePlan
from gemini_batch_mcp.results.table.layout import SELDOM
from gemini_batch_mcp.results.table.summary import RowRange, TableFacts, folder_of, read_facts
from gemini_batch_mcp.results.visible import shown_error, visible_cell

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = [
    "AnswerFile",
    "Rates",
    "ResultTable",
    "TableBuild",
    "TablePlan",
    "TableReader",
    "build_planned",
    "build_table",
]

T = TypeVar("T")

MAX_PAGE_ROWS: Final = 1000
_MAX_KEY_CHARS: Final = 500
_MAX_ERROR_CHARS: Final = 300
_MAX_REASON_CHARS: Final = 60
_NOTE_CHARS: Final = 400
_RATINGS: Final = "safety_ratings"
#: Some models rate every answer.
_NEGLIGIBLE: Final = " NEGLIGIBLE"
#: Of a sample of answers: fields, and characters of each; kinds of columns that are no texts.
_SAMPLED_FIELDS: Final = 20
_SAMPLED_CHARS: Final = 2_000
#: What an answer has written, in tokens.
_WRITTEN: Final = "coalesce(output_tokens, 0) + coalesce(thoughts_tokens, 0)"
_PLAIN_KINDS: Final = frozenset({"BIGINT", "INTEGER", "DOUBLE", "BOOLEAN"})


@dataclass(frozen=True, slots=True)
class TokenSample:
    """What answers took: `rows` of them have counts of tokens, the longest `longest` tokens of output.

    `each` has some of them, as tokens of input and of output, thinking included.
    """

    rows: int
    longest: int
    each: tuple[tuple[int, int], ...]


#: A cell of an answer's field as it is compared: numbers as they are, all else as text.
Cell = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class AnswerSample:
    """What some good answers took, in tokens of output with thinking, and what they say in each of their fields."""

    written: tuple[int, ...]
    fields: Mapping[str, tuple[Cell, ...]]


@dataclass(frozen=True, slots=True)
class ResultTable:
    """A result table on disk, as one build made it. It holds no file open, and may be used from several threads.

    Another build may take its place at any time. Every method answers from this one as long as it is there, and from
    the newer one afterwards.
    """

    path: Path
    _facts: TableFacts
    _reader: TableReader

    @classmethod
    def open(cls, path: Path, reader: TableReader | None = None) -> Self:
        """Return the table at `path`, as it is now, to be read with `reader`; without one it has its own.

        Raises:
            StorageError: there is none, or it is damaged.
        """
        return cls(path, read_facts(path), reader or TableReader())

    @property
    def folder(self) -> Path:
        """The folder of its parts, for those who read them with an engine of their own; see `while_there`."""
        return folder_of(self.path, self._facts.build)

    def while_there(self, work: Callable[[Self], T]) -> T:
        """Do work with this table, and once more with the one that took its place if its parts went away meanwhile.

        Raises:
            StorageError: the table cannot be read, or what `work` raises.
        """
        table = self
        while True:
            try:
                return work(table)
            except StorageError:
                latest = type(self).open(self.path, self._reader)
                if latest.folder == table.folder:
                    raise
                table = latest

    def summary(self) -> ResultSummary:
        """Return what was counted when the table was built."""
        return self._facts.summary

    @property
    def columns(self) -> tuple[Column, ...]:
        """All columns in their order, with DuckDB's types: what a query may use, by the names that it uses."""
        return sql_columns(self._facts.columns)

    @property
    def step_columns(self) -> tuple[str, ...]:
        """The columns that a next step reads: the source's own, `key`, `status`, and the answer's fields, or its text.

        Files that answers carried come last, where there are any.
        """
        names = [column.name for column in self._facts.columns]
        source, fields = names[: names.index("key")], names[names.index("json") + 1 : names.index("finish_reason")]
        files = ["files"] if self._facts.summary.media_files else []
        return (*source, "key", "status", *(fields or ["text"]), *files)

    @property
    def version(self) -> str:
        """A text that changes whenever the rows may have: what the table was built from, answers included."""
        answers = [[file.path, file.size_bytes, file.line_count, file.attempt] for file in self._facts.files]
        return hashlib.sha256(json.dumps([self._facts.plan, self._facts.rows, answers]).encode()).hexdigest()

    @property
    def row_count(self) -> int:
        """How many rows the table has."""
        return self._facts.rows

    @property
    def vector_size(self) -> int:
        """How many numbers each embedding has, 0 when there are none, or of several lengths."""
        return self._facts.vector_size

    @property
    def plan_digest(self) -> str:
        """What the table was built from; see `TablePlan.digest`."""
        return self._facts.plan

    def changed_answers(self) -> tuple[Path, ...]:
        """Return the raw answer files that are not what they were when the table was built, by size and time."""
        changed = []
        for raw_file in self._facts.files:
            if raw_file.path:
                path = self.path.parent / raw_file.path
                seen = path.stat() if path.is_file() else None
                if seen is None or (seen.st_size, seen.st_mtime_ns) != (raw_file.size_bytes, raw_file.modified_ns):
                    changed.append(path)
        return tuple(changed)

    def page(
        self,
        *,
        view: Literal["rows", "failures"],
        limit: int,
        cursor: str = "",
        keys: Sequence[str] = (),
        max_cell_chars: int = 2000,
    ) -> ResultPage:
        """Return up to `limit` rows in request order, missing ones included; `failures` are all that are not ok.

        `keys` leaves only rows with these keys. Text is made fit to show: hidden characters are written out, and a cell
        is cut at `max_cell_chars` with the cut marked. Cursors survive restarts and further builds of the table; rows
        that a later build brings come after those that were there when the reading began.

        Raises:
            UsageError: `limit` is out of range, or the cursor does not belong to this query.
            StorageError: the table cannot be read.
        """
        if not 1 <= limit <= MAX_PAGE_ROWS:
            raise UsageError(f"limit is {limit}.", f"Give a number from 1 to {MAX_PAGE_ROWS}.")
        stored = _stored(keys)
        return self.while_there(lambda table: table._page(view, limit, cursor, stored, max_cell_chars))

    def _page(self, view: str, limit: int, cursor: str, keys: Sequence[str], max_cell_chars: int) -> ResultPage:
        latest = self._facts.generation
        identity = self._facts.identity
        position = position_of(cursor, identity=identity, view=view, keys=keys) or Position(until=latest)
        with self._reading() as connection:
            find = partial(self._numbers, connection, view, limit, keys)
            while not (numbers := find(position)) and position.until < latest:
                position = Position(since=position.until, until=latest)
            rows = self._rows(connection, numbers[:limit], max_cell_chars)
        after: Position | None = None
        if len(numbers) > limit:
            after = replace(position, row=numbers[limit - 1])
        elif position.until < latest:
            after = Position(since=position.until, until=latest)
        next_cursor = cursor_at(after, identity=identity, view=view, keys=keys) if after is not None else ""
        return ResultPage(tuple(rows), next_cursor)

    def history(self, keys: Sequence[str]) -> Mapping[str, tuple[RowAttempt, ...]]:
        """Return how every attempt at the rows with these keys ended, first attempt first; unknown keys are left out.

        Raises:
            StorageError: the table cannot be read.
        """
        stored = _stored(keys)
        return self.while_there(lambda table: table._history(stored))

    def _history(self, keys: Sequence[str]) -> Mapping[str, tuple[RowAttempt, ...]]:
        history = "history" if any(column.name == "history" for column in self.columns) else "NULL"
        with self._reading() as connection:
            found = connection.execute(
                f"""SELECT key, coalesce(attempt, 1), status, error_code, error_message, finish_reason, {history}
                    FROM {rows_of(self.folder)} WHERE key IN (SELECT unnest(?)) ORDER BY row""",
                [keys],
            ).fetchall()
        return {
            key: tuple(_attempt(**entry) for entry in entries) if entries else (_attempt(*own),)
            for key, *own, entries in found
        }

    def tokens(self, limit: int) -> TokenSample:
        """Return what answers took, of `limit` rows at most, which are the same ones each time.

        Raises:
            StorageError: the table cannot be read.
        """
        return self.while_there(lambda table: table._tokens(limit))

    def _tokens(self, limit: int) -> TokenSample:
        metered = f"""SELECT key, coalesce(input_tokens, 0) AS taken,
                             coalesce(output_tokens, 0) + coalesce(thoughts_tokens, 0) AS written
                      FROM {rows_of(self.folder)} WHERE coalesce(input_tokens, output_tokens, 0) > 0"""
        with self._reading() as connection:
            (rows, longest) = connection.execute(f"SELECT count(*), max(written) FROM ({metered})").fetchall()[0]
            found = connection.execute(f"SELECT taken, written FROM ({metered}) ORDER BY hash(key), key LIMIT {limit}")
            return TokenSample(rows, longest or 0, tuple(found.fetchall()))

    def answers(self, limit: int) -> AnswerSample:
        """Return what good answers say and took, of about `limit` rows, which are the same ones each time.

        Raises:
            StorageError: the table cannot be read.
        """
        return self.while_there(lambda table: table._answers(limit))

    def _answers(self, limit: int) -> AnswerSample:
        names = [column.name for column in self._facts.columns]
        fields = names[names.index("json") + 1 : names.index("finish_reason")][:_SAMPLED_FIELDS] or ["text"]
        kinds = {column.name: column.type for column in self._facts.columns}
        cells = ", ".join(
            identifier(name) if kinds[name] in _PLAIN_KINDS else f"left({identifier(name)}::VARCHAR, {_SAMPLED_CHARS})"
            for name in fields
        )
        every = max(1, self.row_count // limit)
        with self._reading() as connection:
            found = connection.execute(
                f"""SELECT CASE WHEN answered_by = '' THEN {_WRITTEN} END, {cells}
                    FROM {rows_of(self.folder)} WHERE status = 'ok' AND hash(key) % {every} = 0"""
            ).fetchall()
        # What was taken from another batch has taken nothing here.
        written = tuple(int(row[0]) for row in found if row[0] is not None)
        return AnswerSample(written, {name: tuple(row[place] for row in found) for place, name in enumerate(fields, 1)})

    def media_files(self, limit: int) -> tuple[Path, ...]:
        """Return the first `limit` files that answers carried, in request order.

        Raises:
            StorageError: the table cannot be read.
        """
        return self.while_there(lambda table: table._media_files(limit))

    def _media_files(self, limit: int) -> tuple[Path, ...]:
        with self._reading() as connection:
            found = connection.execute(
                f"""SELECT unnest(files) FROM (SELECT files FROM {rows_of(self.folder)} WHERE files IS NOT NULL
                                               ORDER BY row LIMIT {limit}) LIMIT {limit}"""
            ).fetchall()
        return tuple(self.path.parent / name for (name,) in found)

    def export(self, destination: Path, format: Format, *, keys: Sequence[str] = (), name: str = "") -> SavedFile:
        """Write all rows, or those with these keys, to `destination` in request order; see `export_table`.

        Raises:
            UsageError: the table has nothing for this format.
            StorageError: the table or its raw answers cannot be read, or the file cannot be written.
        """
        stored = _stored(keys)
        return self.while_there(
            lambda table: export_table(table.folder, table._facts, destination, format, keys=stored, name=name)
        )

    @contextmanager
    def _reading(self) -> Iterator["DuckDBPyConnection"]:
        with table_errors(f"The result table {self.path} could not be read"), self._reader.reading() as connection:
            yield connection

    def _numbers(
        self, connection: "DuckDBPyConnection", view: str, limit: int, keys: Sequence[str], position: Position
    ) -> Sequence[int]:
        """Return the numbers of the next rows of a view, one more than `limit` if there are that many.

        Finding them first keeps the texts of all other rows on the disk.
        """
        parts = [part for part in self._facts.ranges if position.since < part.since <= position.until]
        parts = [part._replace(first=max(part.first, position.row + 1)) for part in parts if part.last > position.row]
        if view == "rows" and not keys:
            return list(islice((number for part in parts for number in range(part.first, part.last + 1)), limit + 1))
        if not parts:
            return []
        conditions = [f"({_within(parts)})"]
        values: list[object] = []
        if view == "failures":
            conditions.append("status <> 'ok'")
        if keys:
            conditions.append("key IN (SELECT unnest(?))")
            values.append(list(keys))
        found = connection.execute(
            f"SELECT row FROM {rows_of(self.folder)} WHERE {' AND '.join(conditions)} ORDER BY row LIMIT {limit + 1}",
            values,
        ).fetchall()
        return [number for (number,) in found]

    def _rows(self, connection: "DuckDBPyConnection", numbers: Sequence[int], max_cell_chars: int) -> list[ResultRow]:
        if not numbers:
            return []
        # The bounds let the reader skip row groups; a list alone does not.
        chosen = f"row BETWEEN {numbers[0]} AND {numbers[-1]}"
        if len(numbers) <= numbers[-1] - numbers[0]:
            chosen += f" AND row IN ({', '.join(map(str, numbers))})"
        seldom = [column.name for column in self._facts.columns if column.name in SELDOM]
        beside = "".join(f", left({name}, {_NOTE_CHARS + 1}), length({name})" for name in seldom)
        found = connection.execute(
            f"""SELECT key, status, left(text, ?), length(text), error_code, left(error_message, ?),
                       finish_reason, files, left(calls::VARCHAR, ?), length(calls::VARCHAR){beside}
                FROM {rows_of(self.folder)} WHERE {chosen} ORDER BY row""",
            [max_cell_chars + 1, 8 * _MAX_ERROR_CHARS, max_cell_chars + 1],
        ).fetchall()
        return [self._shown(row[:10], _notes_of(seldom, row[10:]), max_cell_chars) for row in found]

    def _shown(self, row: tuple[Any, ...], notes: str, max_cell_chars: int) -> ResultRow:
        key, status, text, text_length, error_code, error_message, finish_reason, files, calls, calls_length = row
        return ResultRow(
            key=visible_cell(key, _MAX_KEY_CHARS),
            status=RowStatus(status),
            text=visible_cell(text, max_cell_chars, full_length=text_length),
            error=shown_error(error_code, error_message, _MAX_ERROR_CHARS),
            finish_reason=visible_cell(finish_reason, _MAX_REASON_CHARS),
            files=tuple(str(self.path.parent / name) for name in files or ()),
            calls=visible_cell(calls, max_cell_chars, full_length=calls_length) if calls else "",
            notes=notes,
        )


def _notes_of(columns: Sequence[str], cells: Sequence[Any]) -> str:
    """Return in few words what stands in columns that answers seldom fill; `cells` are their beginnings and lengths."""
    notes = []
    for name, cell, length in zip(columns, cells[::2], cells[1::2], strict=True):
        if name == _RATINGS and cell:
            cell = ", ".join(rating for rating in cell.split(", ") if not rating.endswith(_NEGLIGIBLE))
            length = len(cell)
        if cell:
            notes.append(f"{name}: {visible_cell(cell, _NOTE_CHARS, full_length=length)}")
    return "\n".join(notes)


def _within(parts: Sequence[RowRange]) -> str:
    return " OR ".join(f"row BETWEEN {part.first} AND {part.last}" for part in parts)


def _stored(keys: Sequence[str]) -> list[str]:
    """Return keys as a table has them, mended: what is no character would not pass into a query."""
    return [key.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for key in keys]


def _attempt(attempt: int, status: str, error_code: int | None, error_message: str, finish_reason: str) -> RowAttempt:
    return RowAttempt(
        attempt=attempt,
        status=RowStatus(status),
        error=shown_error(error_code, error_message, _MAX_ERROR_CHARS),
        finish_reason=visible_cell(finish_reason, _MAX_REASON_CHARS),
    )
