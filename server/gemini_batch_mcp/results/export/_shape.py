"""What is written: rows with their columns, as people read them or as they are stored."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gemini_batch_mcp.domain import NOT_SENT, Column
from gemini_batch_mcp.results.engine import identifier, quoted
from gemini_batch_mcp.results.table.layout import PLACE_COLUMNS, SELDOM
from gemini_batch_mcp.results.table.summary import TableFacts

_PLACES: Final = frozenset(column.name for column in PLACE_COLUMNS)
#: A row's error in one cell: what Gemini or we said about it, else why its answer ended.
_ERROR: Final = f"""CASE WHEN error_code IS NOT NULL AND NOT starts_with(error_message, {quoted(NOT_SENT)})
         THEN 'code ' || error_code || ': ' || error_message
    WHEN error_message <> '' THEN error_message
    WHEN status <> 'ok' AND finish_reason NOT IN ('', 'STOP') THEN finish_reason END"""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows to be written: a folder of Parquet parts, or one file.

    `facts` are those of the result table, None for what a statement has selected. `home` is where files of answers are.
    """

    parts: Path
    columns: tuple[Column, ...]
    home: Path
    facts: TableFacts | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """A column of a file: its name, the SQL for its value, and DuckDB's type of that."""

    name: str
    sql: str
    type: str


def stored(rows: Rows) -> tuple[Cell, ...]:
    """Return every column in which something can stand, as it is stored; paths of files are absolute."""
    return tuple(_cell(column, rows.home) for column in rows.columns if _may_hold(column, rows.facts))


def for_people(rows: Rows, *, has_misfits: bool, has_ratings: bool) -> tuple[Cell, ...]:
    """Return the columns that people read: the source's own, the answer's fields or its text, `status` and `error`.

    Without columns of a source, `key` says what a row is. Where some answers do not fit their schema (`has_misfits`),
    their text stands beside the fields. Safety ratings are shown where one is worth it (`has_ratings`). Vectors make no
    cell: `vector_row` says where in the matrix a row's is, from 0. What a statement has selected is written as it was
    selected, but for vectors.
    """
    facts = rows.facts
    if facts is None:
        return tuple(_cell(column, rows.home) for column in rows.columns if not is_vector(column))
    names = [column.name for column in rows.columns]
    source = rows.columns[: names.index("key")]
    shown = {name for name in SELDOM if name != "safety_ratings" or has_ratings}
    fields = rows.columns[names.index("json") + 1 : names.index("finish_reason")]
    cells = [_cell(column, rows.home) for column in source or rows.columns[names.index("key") :][:1]]
    cells += [_cell(column, rows.home) for column in fields]
    if "embedding" in names:
        if facts.vector_size:
            place = "count(embedding) OVER (ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) - 1"
            name = _free("vector_row", names)
            cells.append(Cell(name, f"CAST(CASE WHEN embedding IS NOT NULL THEN {place} END AS INTEGER)", "INTEGER"))
    elif not fields:
        cells.append(Cell("text", "text", "VARCHAR"))
    elif has_misfits:
        cells.append(Cell("text", "CASE WHEN json IS NULL THEN text END", "VARCHAR"))
    if facts.summary.calls:
        cells.append(_cell(rows.columns[names.index("calls")], rows.home))
    cells += [_cell(column, rows.home) for column in rows.columns if column.name in shown]
    if facts.summary.media_files:
        cells.append(_cell(rows.columns[names.index("files")], rows.home))
    return (*cells, Cell("status", "status", "VARCHAR"), Cell("error", _ERROR, "VARCHAR"))


def is_vector(column: Column) -> bool:
    """True for a list of numbers as embeddings are."""
    return column.type.startswith(("FLOAT[", "DOUBLE["))


def _may_hold(column: Column, facts: TableFacts | None) -> bool:
    if facts is None:
        return True
    if column.name == "json":
        return facts.has_schema
    if column.name == "files":
        return facts.summary.media_files > 0
    if column.name == "calls":
        return facts.summary.calls > 0
    if column.name == "cleaned":
        return facts.summary.cleaned > 0
    if column.name == "answered_by":
        return facts.summary.reused > 0
    return column.name not in _PLACES


def _cell(column: Column, home: Path) -> Cell:
    name = identifier(column.name)
    if column.name == "files" and column.type == "VARCHAR[]":
        name = f"list_transform({name}, lambda name: {quoted(home)} || '/' || name)"
    return Cell(column.name, name, column.type)


def _free(name: str, taken: Collection[str]) -> str:
    used = {other.casefold() for other in taken}
    free, number = name, 1
    while free.casefold() in used:
        number += 1
        free = f"{name}_{number}"
    return free
