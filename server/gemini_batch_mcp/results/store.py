"""Answers as a table: built once from what Gemini sent, then read by page, by key, or whole.

`build_table` writes it; `ResultTable` reads it. The table is a Parquet file with one row for each key that was sent:

    row             place in request order, from 1; readers go by it, not by the place in the file
    key, status, text, finish_reason, error_code, error_message, model_version
    input_tokens, output_tokens, thoughts_tokens
    attempt, file, line     which raw answer line the row came from; NULL for missing rows

The raw answer files stay beside it, so that whatever is no column is still there.
"""

# ruff: noqa: S608 - queries consist of our own names, of numbers, and of literals made by `quoted`

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from gemini_batch_mcp.domain import ResultPage, ResultRow, ResultSummary, RowStatus, SavedFile
from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.results.build import build_table
from gemini_batch_mcp.results.cursor import cursor_after, row_before
from gemini_batch_mcp.results.database import connect, storage_errors
from gemini_batch_mcp.results.export import write_jsonl
from gemini_batch_mcp.results.lines import AnswerFile
from gemini_batch_mcp.results.merge import rows_of
from gemini_batch_mcp.results.summary import TableFacts, read_facts
from gemini_batch_mcp.results.visible import visible, visible_cell
from gemini_batch_mcp.text import safe_text

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["AnswerFile", "ResultTable", "build_table"]

MAX_PAGE_ROWS: Final = 1000
_MAX_KEY_CHARS: Final = 500
_MAX_ERROR_CHARS: Final = 300
_MAX_REASON_CHARS: Final = 60
#: A bound, not a need: a page of ordinary rows takes a few megabytes, one cell of 100 MB some hundred.
_MEMORY_LIMIT_BYTES: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class ResultTable:
    """A result table on disk. It holds no file open, and may be used from several threads."""

    path: Path
    _facts: TableFacts

    @classmethod
    def open(cls, path: Path) -> Self:
        """Return the table at `path`, as it is now.

        Raises:
            StorageError: there is none, or it is damaged.
        """
        return cls(path, read_facts(path))

    def summary(self) -> ResultSummary:
        """Return what was counted when the table was built."""
        return self._facts.summary

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
        is cut at `max_cell_chars` with the cut marked. Cursors survive restarts and further builds of the table.

        Raises:
            UsageError: `limit` is out of range, or the cursor does not belong to this query.
            StorageError: the table cannot be read.
        """
        if not 1 <= limit <= MAX_PAGE_ROWS:
            raise UsageError(f"limit is {limit}.", f"Give a number from 1 to {MAX_PAGE_ROWS}.")
        # As keys in a table are mended: what is no character would not pass into a query.
        keys = [key.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for key in keys]
        place = partial(cursor_after, identity=self._facts.identity, view=view, keys=keys)
        after = row_before(cursor, identity=self._facts.identity, view=view, keys=keys)
        with storage_errors(f"The result table {self.path} could not be read"):
            connection = connect(_MEMORY_LIMIT_BYTES, Path(gettempdir()))
            try:
                numbers = self._numbers(connection, view, after, limit, keys)
                rows = self._rows(connection, numbers[:limit], max_cell_chars)
            finally:
                connection.close()
        return ResultPage(tuple(rows), place(numbers[limit - 1]) if len(numbers) > limit else "")

    @property
    def row_count(self) -> int:
        """How many rows the table has."""
        return self._facts.rows

    def export_jsonl(self, destination: Path) -> SavedFile:
        """Write all rows to `destination`, one JSON object a line, in request order; see `export.write_jsonl`.

        Raises:
            StorageError: the table or its raw answers cannot be read, or the file cannot be written.
        """
        return write_jsonl(self.path, self._facts, destination)

    def _numbers(
        self, connection: "DuckDBPyConnection", view: str, after: int, limit: int, keys: Sequence[str]
    ) -> Sequence[int]:
        """Return the numbers of the next rows of a view, one more than `limit` if there are that many.

        Finding them first keeps the texts of all other rows on the disk.
        """
        if view == "rows" and not keys:
            return range(after + 1, min(after + limit + 1, self._facts.rows) + 1)
        conditions = ["row > ?"]
        values: list[object] = [after]
        if view == "failures":
            conditions.append("status <> 'ok'")
        if keys:
            conditions.append("key IN (SELECT unnest(?))")
            values.append(list(keys))
        found = connection.execute(
            f"SELECT row FROM {rows_of(self.path)} WHERE {' AND '.join(conditions)} ORDER BY row LIMIT {limit + 1}",
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
        found = connection.execute(
            f"""SELECT key, status, left(text, ?), length(text), error_code, left(error_message, ?), finish_reason
                FROM {rows_of(self.path)} WHERE {chosen} ORDER BY row""",
            [max_cell_chars + 1, 8 * _MAX_ERROR_CHARS],
        ).fetchall()
        return [_shown(row, max_cell_chars) for row in found]


def _shown(row: tuple[Any, ...], max_cell_chars: int) -> ResultRow:
    key, status, text, text_length, error_code, error_message, finish_reason = row
    error = error_message if error_code is None else f"code {error_code}: {error_message}"
    return ResultRow(
        key=visible_cell(key, _MAX_KEY_CHARS),
        status=RowStatus(status),
        text=visible_cell(text, max_cell_chars, full_length=text_length),
        error=safe_text(visible(error), _MAX_ERROR_CHARS),
        finish_reason=visible_cell(finish_reason, _MAX_REASON_CHARS),
    )
