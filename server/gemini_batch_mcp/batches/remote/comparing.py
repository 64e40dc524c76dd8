"""Answers that stay in BigQuery, compared there: with a column of their source, or with those of another such batch."""

from collections.abc import Sequence
from typing import Any, Final

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.ledger.entries import BatchEntry
from gemini_batch_mcp.batches.remote.reading import facts_of, run_within
from gemini_batch_mcp.domain import Column
from gemini_batch_mcp.warehouse import statements

_NUMBERS: Final = frozenset({"INT64", "FLOAT64", "NUMERIC", "BIGNUMERIC"})


async def ask_compared(
    app: App,
    batch: BatchEntry,
    actual: Column,
    expected: Column,
    *,
    other: BatchEntry | None,
    tolerance: float,
    after: str,
    limit: int,
    max_pairs: int,
    max_labels: int,
    cell_chars: int,
) -> Sequence[tuple[Any, ...]]:
    """Return what `statements.compared` says of two columns; `expected` is of `other`, or of the batch's own source.

    Raises:
        NotReady: a batch has no results.
        UsageError: it would read more than may be read unasked, or takes too long.
        GeminiError: BigQuery refused, or could not be asked.
    """
    facts = await facts_of(app, batch)
    beside = await facts_of(app, other) if other is not None else None
    in_json = _json_fields(batch, facts.columns)
    others_json = _json_fields(other, beside.columns) if other is not None and beside is not None else frozenset[str]()
    holds_lists = actual.name in in_json or expected.name in others_json or expected.type.startswith(("ARRAY", "JSON"))
    is_number = actual.type in _NUMBERS or (other is not None and expected.type in _NUMBERS)
    sides = statements.Compared(
        results=statements.table_named(facts.table),
        actual=statements.SourceColumn(actual.name, actual.type),
        expected=statements.SourceColumn(expected.name, expected.type),
        kind="list" if holds_lists else "number" if is_number else "text",
        other=statements.table_named(beside.table) if beside is not None else None,
        is_json=actual.name in in_json,
        other_is_json=expected.name in others_json,
    )
    sql = statements.compared(
        sides,
        tolerance=tolerance,
        after=after,
        limit=limit,
        max_pairs=max_pairs,
        max_labels=max_labels,
        cell_chars=cell_chars,
    )
    # Counts of all, labels, equal and other rows, beside pairs and rows.
    found = await run_within(app, batch, facts, sql, max_pairs + limit + 5)
    return found.rows


async def version_of(app: App, batch: BatchEntry) -> str:
    """Return a text that changes whenever the results of a batch may have. Raises NotReady."""
    return (await facts_of(app, batch)).stands_for


def _json_fields(batch: BatchEntry, columns: Sequence[Column]) -> frozenset[str]:
    """Return the fields of answers that hold JSON as text."""
    names = [column.name for column in columns]
    fields = names[names.index("json") + 1 : names.index("finish_reason")]
    types = statements.field_types(batch.order.response_schema if batch.order is not None else {})
    return frozenset(name for name, type in zip(fields, types, strict=True) if type == "JSON")
