"""Results that stay in BigQuery as a file on this machine: read page by page, and written as those of other batches."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TextIO

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.ledger.entries import BatchEntry
from gemini_batch_mcp.batches.remote._values import plain
from gemini_batch_mcp.batches.remote.places import columns_of, statement, warehouse_of
from gemini_batch_mcp.batches.remote.reading import MOST_QUERY_BYTES, facts_of
from gemini_batch_mcp.domain import Column, FileFormat, ResultSummary, SavedFile
from gemini_batch_mcp.errors import NotFound, UsageError
from gemini_batch_mcp.gemini.warehouse import Statement, TableColumn
from gemini_batch_mcp.results.engine import identifier
from gemini_batch_mcp.results.export.arriving import ArrivingRows
from gemini_batch_mcp.results.export.formats import Format
from gemini_batch_mcp.results.query.queries import RELATION
from gemini_batch_mcp.results.table.layout import ANSWER_COLUMNS, HISTORY
from gemini_batch_mcp.threads import in_thread
from gemini_batch_mcp.warehouse import statements

#: DuckDB's types by BigQuery's, as the API names them; what is not here is text.
_TYPES: Final = MappingProxyType(
    {
        "INTEGER": "BIGINT",
        "INT64": "BIGINT",
        "FLOAT": "DOUBLE",
        "FLOAT64": "DOUBLE",
        "BOOLEAN": "BOOLEAN",
        "BOOL": "BOOLEAN",
        "DATE": "DATE",
        "TIME": "TIME",
        "DATETIME": "TIMESTAMP",
        "TIMESTAMP": "TIMESTAMP WITH TIME ZONE",
        # All of its digits; a BIGNUMERIC has more than any number here, and is text.
        "NUMERIC": "DECIMAL(38,9)",
        "BYTES": "BLOB",
        "JSON": "JSON",
    }
)
_NESTED: Final = ("RECORD", "STRUCT")
#: How our own columns are stored here, by what they are called in BigQuery.
_OURS: Final = MappingProxyType({column.name: column for column in ANSWER_COLUMNS}) | {
    "error": Column("error_message", "VARCHAR"),
    HISTORY.name: HISTORY,
}


@dataclass(frozen=True, slots=True)
class FetchedRows:
    """Rows that have been read, on their way into files. `summary` is None for what a statement has selected."""

    rows: ArrivingRows
    summary: ResultSummary | None
    has_schema: bool
    name: str

    def write(self, destination: Path, format: Format) -> SavedFile:
        """Write them to `destination`.

        Raises:
            UsageError: they have nothing for this format.
            StorageError: the file cannot be written.
        """
        return self.rows.export(destination, format, summary=self.summary, has_schema=self.has_schema, name=self.name)


async def save_lines(app: App, batch: BatchEntry, destination: Path, *, keys: Sequence[str], sql: str) -> int:
    """Write results as JSON lines while they come: every column as BigQuery has it; returns how many rows.

    Raises:
        UsageError: the statement may not run.
        GeminiError: BigQuery refused, or could not be asked.
    """
    prepared = await _wanted(app, batch, keys, sql, as_here=False)
    with destination.open("x", encoding="utf-8", newline="") as file:
        return await warehouse_of(app).read(prepared, _LineWriter(file))


async def fetch_rows(
    app: App, batch: BatchEntry, folder: Path, format: FileFormat, *, keys: Sequence[str], sql: str
) -> FetchedRows:
    """Read results into `folder`, from which files of any format are written.

    Raises:
        UsageError: the statement may not run, or the results have nothing for this format.
        GeminiError: BigQuery refused, or could not be asked.
        StorageError: the rows cannot be kept.
    """
    if format == "npy" and not sql:
        raise UsageError(
            f"The answers of {batch.id} are no embeddings, so they don't form a matrix.",
            "Save them as parquet or jsonl; or select a column of vectors with sql, as embedding, beside key.",
        )
    prepared = await _wanted(app, batch, keys, sql, as_here=True)
    facts, order = await facts_of(app, batch), batch.order
    assert order is not None, "it was ordered here"
    of_answers = [] if sql else _of_answers([column.name for column in facts.columns], order.response_schema)
    taker = _Taker(folder, dict(of_answers))
    await warehouse_of(app).read(prepared, taker)
    summary = None if sql else facts.summary
    return FetchedRows(taker.rows, summary, bool(order.response_schema), batch.display_name)


async def _wanted(app: App, batch: BatchEntry, keys: Sequence[str], sql: str, *, as_here: bool) -> Statement:
    """Return the statement for the rows that are wanted.

    `as_here` has the source's columns as tables on this machine have them: what a statement selects stays as it is.
    """
    facts = await facts_of(app, batch)
    table = statements.table_named(facts.table)
    if sql:
        wanted = await in_thread(statements.judged_query, sql, {RELATION: table})
    else:
        there = await warehouse_of(app).describe(facts.table) if as_here else None
        if as_here and there is None:
            raise NotFound(
                f"{facts.table} is gone.", "Restore it from BigQuery's time travel, or submit the rows again."
            )
        columns = columns_of(there.columns) if there is not None else ()
        names = [column.name for column in columns]
        wanted = statements.rows(table, columns=columns[: names.index("key") if names else 0], keys=keys)
    return await statement(app, wanted, facts.location, batch_id=batch.id, most_bytes=MOST_QUERY_BYTES)


def _of_answers(names: Sequence[str], schema: Mapping[str, Any]) -> list[tuple[str, Column]]:
    """Return how the answers' columns are stored here, by what they are called in BigQuery: ours, and the fields.

    Columns of the source, which come first, have no names of ours.
    """
    first, last = names.index("json") + 1, names.index("finish_reason")
    fields = zip(names[first:last], statements.field_types(schema), strict=True)
    ours = [(name, _OURS[name]) for name in (*names[names.index("key") : first], *names[last:])]
    return [*ours, *((name, Column(name, type)) for name, type in fields)]


class _Taker:
    """Takes rows of BigQuery as rows of a table here; `of_answers` are columns whose type here is known."""

    def __init__(self, folder: Path, of_answers: Mapping[str, Column]) -> None:
        self._folder = folder
        self._of_answers = of_answers
        self._forms: list[Callable[[Any], Any]] = []
        self._rows: ArrivingRows | None = None

    @property
    def rows(self) -> ArrivingRows:
        """What has been taken."""
        assert self._rows is not None, "columns come before rows, and without any as well"
        return self._rows

    def begin(self, columns: Sequence[TableColumn]) -> None:
        """Expect rows of these columns."""
        here = [self._of_answers.get(column.name, Column(column.name, _type(column))) for column in columns]
        self._forms = [_form(there, column) for there, column in zip(columns, here, strict=True)]
        self._rows = ArrivingRows(self._folder, here)

    def take(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Keep the next rows."""
        forms = self._forms
        self.rows.take([form(cell) for form, cell in zip(forms, row, strict=True)] for row in rows)


class _LineWriter:
    """Writes rows as JSON lines, a row at a time."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._names: list[str] = []

    def begin(self, columns: Sequence[TableColumn]) -> None:
        """Expect rows of these columns."""
        self._names = [column.name for column in columns]

    def take(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Write the next rows."""
        for row in rows:
            named = {name: plain(value) for name, value in zip(self._names, row, strict=True)}
            self._file.write(json.dumps(named, ensure_ascii=False) + "\n")


def _type(column: TableColumn, *, is_inner: bool = False) -> str:
    """Return the type that a column of BigQuery has here; bytes inside of other values stay base64."""
    if column.type in _NESTED:
        members = (f"{identifier(field.name)} {_type(field, is_inner=True)}" for field in column.fields)
        found = f"STRUCT({', '.join(members)})"
    else:
        found = _TYPES.get(column.type, "VARCHAR")
        is_inner = is_inner or column.mode == "REPEATED"
        found = "VARCHAR" if is_inner and found == "BLOB" else found
    return f"{found}[]" if column.mode == "REPEATED" else found


def _form(there: TableColumn, here: Column) -> Callable[[Any], Any]:
    """Return what makes a cell of a column one that `ArrivingRows` takes."""
    if here == HISTORY:
        return _history
    if here.type == "JSON" and there.type == "JSON":
        return _json
    return _text if here.type == "VARCHAR" else plain


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(plain(value))


def _text(value: Any) -> str | None:
    found = plain(value)
    return found if found is None or isinstance(found, str) else json.dumps(found, ensure_ascii=False)


def _history(value: Any) -> list[dict[str, Any]] | None:
    """Return how each attempt at a row ended, where there is more than one."""
    entries = [{**entry, "error_message": entry.get("error")} for entry in value or ()]
    members = ("attempt", "status", "error_code", "error_message", "finish_reason")
    return [{name: entry.get(name) for name in members} for entry in entries] if len(entries) > 1 else None
