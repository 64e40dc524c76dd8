"""An earlier batch as what an order is made of: its merged table, as it is now, as rows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.jobs.finding import known_batch
from gemini_batch_mcp.batches.ledger.entries import BatchEntry
from gemini_batch_mcp.errors import BatchError, NotReady, StorageError, UnknownBatch, UsageError
from gemini_batch_mcp.intake.tables.earlier import EarlierRows
from gemini_batch_mcp.intake.validator.corrections import shown
from gemini_batch_mcp.results.engine import parts_of
from gemini_batch_mcp.results.store import ResultTable
from gemini_batch_mcp.warehouse.statements import is_table

_ANOTHER: Final = "Order from another source: a file, or the batch to go on from."


def earlier_rows(app: App, reference: str) -> EarlierRows | None:
    """Return the rows of the batch that goes by that id or name; None where none does.

    Raises:
        UnknownBatch: several batches go by that name, or one that was deleted.
        UsageError: its answers stay in BigQuery.
        NotReady: its answers are not here.
    """
    batch = known_batch(app, reference)
    if batch is None and (deleted := app.ledger.bills.of_deleted(reference.strip())):
        raise UnknownBatch(f"{deleted} was deleted, and its answers with it: it can't be a source.", _ANOTHER)
    if batch is None or batch.is_deleting:
        return None
    files = app.files(batch.id)
    if batch.order is not None and is_table(batch.order.source):
        raise UsageError(
            f"The answers of {batch.id} stay in BigQuery, and are no source as a batch.",
            "get_results names their table; order from it as bq://project.dataset.table.",
        )
    try:
        table = ResultTable.open(files.table)
    except StorageError:
        raise NotReady(
            f"{batch.id} cannot be a source yet: its answers are not collected.",
            f"Call check_status with batch='{batch.id}' until its results are ready, then get_results.",
        ) from None
    return EarlierRows(
        batch_id=batch.id,
        display_name=batch.display_name,
        version=table.version,
        parts=tuple(parts_of(table.folder)),
        columns=table.step_columns,
        directory=files.directory,
        media=files.media,
        beside=_beside(app, batch),
        warnings=tuple(_warnings(batch, table)),
    )


def source_names(table: ResultTable) -> dict[str, str]:
    """Return what columns of a batch's own source are called in its table, where an answer has taken their names."""
    own = table.columns[: table.step_columns.index("key")]
    return {column.origin: column.name for column in own if column.origin}


def _warnings(batch: BatchEntry, table: ResultTable) -> list[str]:
    rows = table.summary().outcomes
    found = []
    if rows.not_ok:
        what = "1 row has" if rows.not_ok == 1 else f"{rows.not_ok:,} rows have"
        found.append(f"{what} no usable answer in {batch.id}; where=\"status = 'ok'\" leaves such rows out.")
    if rows.pending:
        plural = " is" if rows.pending == 1 else "s are"
        found.append(f"{rows.pending:,} row{plural} still out in {batch.id}, and not part of this order.")
    return [*found, *_renamed(batch, table)]


def _renamed(batch: BatchEntry, table: ResultTable) -> Iterator[str]:
    """Say what the columns of a batch's own source are called where an answer has taken their names."""
    known = table.step_columns
    for origin, name in source_names(table).items():
        answer = f", and {{{{{origin}}}}} the answer" if origin in known else ""
        column_of = f'the column "{shown(origin)}" of what {batch.id} was made of'
        yield f"{{{{{name}}}}} is {column_of}{answer}."


def _beside(app: App, batch: BatchEntry) -> Path | None:
    """Return the directory that paths in the columns of a batch's source are relative to."""
    if batch.order is None or not batch.order.source:
        return None
    try:
        place, pattern = app.guard.readable_place(batch.order.source)
    except BatchError:
        return None
    return place if pattern or place.is_dir() else place.parent
