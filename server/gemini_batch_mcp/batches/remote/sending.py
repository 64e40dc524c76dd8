"""From an order over a table to a table of requests, written by BigQuery once, which a job is made of."""

from datetime import UTC, datetime, timedelta
from typing import Final

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.gauge import Doing, Progress
from gemini_batch_mcp.batches.jobs.tracking import changed_meanwhile
from gemini_batch_mcp.batches.ledger.entries import BatchEntry, JobEntry, NewJob
from gemini_batch_mcp.batches.orders.identity import IdentifiedOrder
from gemini_batch_mcp.batches.orders.pricing import evidence_for, read_prices, refuse_over_cap
from gemini_batch_mcp.batches.remote._again import sql_of_retry
from gemini_batch_mcp.batches.remote.places import (
    allowed,
    columns_of,
    labels_of,
    requests_table,
    rows_table,
    source_table,
    statement,
    unchanged_source,
    warehouse_of,
)
from gemini_batch_mcp.batches.remote.previewing import check_table
from gemini_batch_mcp.digests import text_digest
from gemini_batch_mcp.errors import NotFound, UsageError
from gemini_batch_mcp.gemini.warehouse import Statement
from gemini_batch_mcp.threads import in_thread
from gemini_batch_mcp.tracing import span
from gemini_batch_mcp.warehouse import statements

#: For how long BigQuery keeps rows and requests: four days are a job's longest life, and retries choose from them (our
#: choice). Those of an order that came to nothing go by themselves; results stay.
TABLES_LIFE: Final = timedelta(days=60)

#: How often a statement runs whose table is gone afterwards: deleted with a job that was refused, or by somebody.
_MOST_RUNS: Final = 3


async def plan_table(app: App, batch: BatchEntry, job: JobEntry, identified: IdentifiedOrder) -> None:
    """Write down what an order's table becomes: one job, of so many rows.

    Raises:
        RequestProblems, UsageError, GeminiError: as `check_table`; or it costs more than the cap.
    """
    prices = await read_prices(app)
    found = await check_table(app, identified, prices)
    priced = batch.estimate
    if priced is None:
        priced = found.estimate(prices, identified.order, await in_thread(evidence_for, app, identified))
    refuse_over_cap(app, priced)
    await in_thread(
        app.ledger.update_batch,
        batch.id,
        request_count=found.count,
        size_bytes=found.size_bytes,
        warnings=found.warnings,
        estimate=priced,
    )
    part = NewJob(0, found.count, 0, max(1, found.size_bytes), "", priced.input_tokens)
    if not await in_thread(app.ledger.plan, batch.id, job.attempt, (part,)):
        raise changed_meanwhile(batch.id)


async def write_requests(app: App, batch: BatchEntry, job: JobEntry) -> str:
    """Have BigQuery write the requests of a job into a table; returns its name.

    Every statement runs once under a name that follows from the batch, whoever goes on after a kill or a lost reply.

    Raises:
        UsageError: the source has changed since it was previewed, or the keys are not those that were proved.
        GeminiError: BigQuery refused, or could not be asked.
    """
    to = requests_table(batch, job)
    with span("write requests", batch=batch.id, requests=job.request_count):
        app.gauge.show(Progress(Doing.UPLOADING, 0, None, "requests are written in BigQuery"))
        if job.attempt == 1:
            written = await _write_first(app, batch, job)
        else:
            sql = await in_thread(sql_of_retry, app, batch, job)
            written = await _write(app, batch, sql, to.uri, await _location(app, batch))
    if written != job.request_count:
        raise UsageError(
            f"{to.uri} has {written:,} requests; {job.request_count:,} were agreed to. Nothing was submitted.",
            "Preview the order again.",
        )
    return to.uri


async def _write_first(app: App, batch: BatchEntry, job: JobEntry) -> int:
    assert batch.order is not None
    warehouse, kept, to = warehouse_of(app), rows_table(batch), requests_table(batch, job)
    there = await warehouse.describe(kept.uri)
    if there is None:
        source = await unchanged_source(app, batch.order)
        columns, location = columns_of(source.columns), source.location
    else:
        # What was kept is what is sent, whatever has become of the source since.
        (inner,) = (column.fields for column in there.columns if column.name == "source")
        columns, location = columns_of(inner), there.location
    plan = await in_thread(
        statements.plan_rows, batch.order, source_table(batch.order.source), columns, app.world(batch.model)
    )
    await _write(app, batch, statements.keep_rows(plan, kept), kept.uri, location)
    proof = statements.prove_keys(kept)
    proved = await warehouse.ask(await statement(app, proof, location, batch_id=batch.id), most_rows=1)
    figures = dict(zip((column.name for column in proved.columns), proved.rows[0], strict=True))
    if (problem := statements.row_problem(plan, figures)) is not None:
        raise problem
    return await _write(app, batch, statements.write_requests(plan, kept, to), to.uri, location)


async def _write(app: App, batch: BatchEntry, sql: str, to: str, location: str) -> int:
    warehouse = warehouse_of(app)
    labels = labels_of(batch.id)
    there = await warehouse.describe(to)
    if there is not None and dict(there.labels) == dict(labels):
        return there.rows
    measured = await warehouse.measure(Statement(sql, location, 0))
    expires_at = datetime.now(UTC) + TABLES_LIFE
    for run in range(1, _MOST_RUNS + 1):
        once = f"{batch.id} {to} {text_digest(sql)} {run}"
        try:
            return await warehouse.write(
                Statement(sql, location, allowed(measured), once, labels), to, expires_at=expires_at
            )
        except NotFound:
            # It has run before, and its table was deleted since: under that name it never runs again.
            if run == _MOST_RUNS:
                raise
    raise AssertionError("the last run returns or raises")


async def _location(app: App, batch: BatchEntry) -> str:
    kept = await warehouse_of(app).describe(rows_table(batch).uri)
    return kept.location if kept is not None else ""
