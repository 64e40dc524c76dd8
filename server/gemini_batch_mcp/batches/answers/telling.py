"""The rows that tell most about a prompt: where its answers differ from right ones, some of each confusion."""

# ruff: noqa: S608 - statements consist of our own names, and of names and literals made by `identifier` and `quoted`

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, zip_longest
from typing import Any, Final

from gemini_batch_mcp.batches.answers.asking import ask_results
from gemini_batch_mcp.batches.answers.comparing import Comparison, Difference, compare_results, first_field
from gemini_batch_mcp.batches.answers.reading import read_results
from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.remote.reading import read_source
from gemini_batch_mcp.domain import Column, ResultQuery
from gemini_batch_mcp.results.engine import identifier, quoted
from gemini_batch_mcp.results.store import ResultTable

#: Rows that are shown, and those that they are chosen from.
_SHOWN: Final = 10
_LOOKED_AT: Final = 200
#: Source columns that are looked at and shown, and what of a cell is shown.
_COLUMNS: Final = 20
_CELL_CHARS: Final = 400
#: A field of more different answers is no label; a column of right answers has answers in so much of its cells.
_MOST_LABELS: Final = 50
_LEAST_SHARE: Final = 0.8


@dataclass(frozen=True, slots=True)
class Telling:
    """A batch against `comparison.other`, and of the rows that differ some with what the source says of them."""

    comparison: Comparison
    rows: tuple[Mapping[str, Any], ...]


async def telling_rows(
    app: App, reference: str, *, expected: str = "", wait_seconds: float | None = None
) -> Telling | None:
    """Return how a batch stands against right answers, None where there are none.

    `expected` is as `other` of `compare_results`; where it is empty, a column of the source counts whose cells are
    answers.

    Raises:
        as `compare_results`.
    """
    results = await read_results(app, reference, ResultQuery(), wait_seconds=wait_seconds)
    if not expected and results.remote is None:
        expected = await _right_answers(app, reference, results.table)
    if not expected:
        # Of rows in BigQuery it is not looked for a column of right answers: every look is billed.
        return None
    found = await compare_results(app, reference, expected, limit=_LOOKED_AT, wait_seconds=wait_seconds)
    rows = list(islice(_of_each_confusion(found.rows), _SHOWN))
    keys = [row.key for row in rows]
    source: Mapping[str, Mapping[str, Any]]
    if results.remote is not None:
        source = await read_source(app, results.status.batch, keys) if keys else {}
    else:
        source = await _source_of(app, reference, results.table, keys)
    told = tuple(
        {"key": row.key, "expected": row.expected, "actual": row.actual, "source": source.get(row.key, {})}
        for row in rows
    )
    return Telling(replace(found, rows=(), next_cursor=""), told)


def _of_each_confusion(rows: Sequence[Difference]) -> Sequence[Difference]:
    """Return rows in turn from each pair of expected and actual, those of the most frequent pair first."""
    pairs = defaultdict[tuple[str, str], list[Difference]](list)
    for row in rows:
        pairs[row.expected, row.actual].append(row)
    by_frequency = sorted(pairs.values(), key=len, reverse=True)
    return [row for row in chain.from_iterable(zip_longest(*by_frequency)) if row is not None]


async def _right_answers(app: App, reference: str, table: ResultTable) -> str:
    """Return the column of the source whose cells are answers, empty where there is none."""
    field, columns = first_field(table), [column.name for column in _source_columns(table)]
    if field == "embedding" or not columns:
        return ""
    answers = f"(SELECT list(DISTINCT {_label(field)}) FROM results WHERE status = 'ok')"
    figures = ", ".join(
        f"count(*) FILTER (list_contains({answers}, {_label(name)})) / greatest(count({identifier(name)}), 1)"
        for name in columns
    )
    asked = f"SELECT len({answers}), {figures} FROM results"
    ((labels, *shares),) = (await ask_results(app, reference, asked, limit=1)).rows
    best, name = max(zip((float(share or 0) for share in shares), columns, strict=True), key=lambda found: found[0])
    return name if 1 < int(labels or 0) <= _MOST_LABELS and best >= _LEAST_SHARE else ""


async def _source_of(
    app: App, reference: str, table: ResultTable, keys: Sequence[str]
) -> Mapping[str, Mapping[str, Any]]:
    """Return what the source says of rows, by their keys."""
    columns = _source_columns(table)
    if not columns or not keys:
        return {}
    # By the names that a prompt has for them.
    names = [column.origin or column.name for column in columns]
    shown = ", ".join(f"left({identifier(column.name)}::VARCHAR, {_CELL_CHARS})" for column in columns)
    wanted = ", ".join(map(quoted, keys))
    asked = f"SELECT key, {shown} FROM results WHERE key IN ({wanted})"
    found = (await ask_results(app, reference, asked, limit=len(keys))).rows
    return {str(key): dict(zip(names, cells, strict=True)) for key, *cells in found}


def _source_columns(table: ResultTable) -> Sequence[Column]:
    names = [column.name for column in table.columns]
    return table.columns[: min(names.index("key"), _COLUMNS)]


def _label(name: str) -> str:
    return f"lower(trim({identifier(name)}::VARCHAR))"
