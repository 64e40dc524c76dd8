"""Where an order over a table in BigQuery has what: its source as it is now, and the tables that are made for it."""

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC
from typing import Final

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.ledger.entries import BatchEntry, JobEntry
from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.errors import ConfigurationError, NotFound, UsageError
from gemini_batch_mcp.gemini.warehouse import Statement, StoredTable, TableColumn, Warehouse
from gemini_batch_mcp.text import plain_text
from gemini_batch_mcp.warehouse.statements import SourceColumn, TableName, is_table, table_named

#: The label of every table that is made for a batch, with the batch's id.
LABEL: Final = "gemini_batch"
#: What BigQuery bills at least for each table that a statement reads, and a statement reads four at most.
_LEAST_BYTES: Final = 4 * 10 * 1024**2
#: How much more a statement may bill than it was measured at: tables grow, and bytes billed are rounded up.
_MARGIN: Final = 1.1
#: Kinds of tables whose time of change says that their rows are the same.
_WHOLE: Final = "TABLE"


def is_remote(batch: BatchEntry) -> bool:
    """True for a batch that was ordered here from a table in BigQuery: its answers stay there."""
    return batch.order is not None and is_table(batch.order.source)


def warehouse_of(app: App) -> Warehouse:
    """Return the calls to BigQuery.

    Raises:
        ConfigurationError: this server does not run on Google Cloud.
    """
    if app.gateway.warehouse is None:
        raise ConfigurationError(
            "Tables in BigQuery are read on Google Cloud only.",
            "Set GOOGLE_GENAI_USE_ENTERPRISE=1 and GOOGLE_CLOUD_PROJECT, and restart the server.",
        )
    return app.gateway.warehouse


def source_table(source: str) -> TableName:
    """Return the table that a source names, with or without the time of its last change behind it."""
    return table_named(source.partition("#")[0])


async def pinned_table(app: App, order: Order) -> Order:
    """Return an order whose source is a table as it is now: `bq://project.dataset.table#time`, in milliseconds.

    Raises:
        UsageError: the table lies outside of what may be read, or is none whose rows stand still.
        GeminiError: it is not there, or cannot be looked at.
    """
    if not is_table(order.source) or app.gateway.warehouse is None:
        return order
    name = source_table(order.source)
    cloud = app.settings.cloud
    listed = [prefix for prefix in app.settings.addresses if is_table(prefix)]
    prefixes = (f"bq://{cloud.project}.", *listed) if cloud is not None else ()
    if not f"{name.uri}.".startswith(prefixes):
        raise UsageError(
            f"{plain_text(name.uri, 200)} lies outside of what may be read: {', '.join(prefixes)}.",
            "Add its beginning (bq://project.dataset) to GEMINI_BATCH_ROOTS.",
        )
    # An order that is taken over was pinned to what the table was then.
    if "#" in order.source and not order.like:
        return order
    return replace(order, source=f"{name.uri}#{_time_of(await look_at(app, name))}")


async def look_at(app: App, name: TableName) -> StoredTable:
    """Return what a source is.

    Raises:
        NotFound: it is not there.
        UsageError: it is no table.
    """
    found = await warehouse_of(app).describe(name.uri)
    if found is None:
        raise NotFound(f"There is no {name.uri}.", "Check its name.", status_code=404)
    if found.kind != _WHOLE:
        raise UsageError(
            f"{name.uri} is a {found.kind.lower().replace('_', ' ')}, and what it holds may change without notice.",
            f"Make a table of what `{name}` shows now (CREATE TABLE … AS SELECT), and order from that.",
        )
    if not found.rows:
        raise UsageError(f"{name.uri} holds no rows.", "Name a table that does.")
    return found


async def unchanged_source(app: App, order: Order) -> StoredTable:
    """Return an order's source, as it was when the order was pinned to it.

    Raises:
        UsageError: it has changed since.
    """
    found = await look_at(app, source_table(order.source))
    if str(_time_of(found)) != order.source.partition("#")[2]:
        raise UsageError(
            f"{found.name} has changed since it was looked at. Nothing was submitted.", "Preview the order again."
        )
    return found


def columns_of(columns: tuple[TableColumn, ...]) -> tuple[SourceColumn, ...]:
    """Return columns as statements want them."""
    return tuple(
        SourceColumn(column.name, column.type, column.mode == "REPEATED", columns_of(column.fields))
        for column in columns
    )


def rows_table(batch: BatchEntry) -> TableName:
    """Return the table that keeps the rows that were ordered, as they were then."""
    return _made(batch, "rows")


def requests_table(batch: BatchEntry, job: JobEntry) -> TableName:
    """Return the table with the requests of a job; those of a retry are named by what it chose, too."""
    return _made(batch, f"{_job(job)}_requests")


def answers_table(batch: BatchEntry, job: JobEntry) -> TableName:
    """Return the table that Vertex AI is asked to write the answers of a job into."""
    return _made(batch, f"{_job(job)}_answers")


def results_table(batch: BatchEntry) -> TableName:
    """Return the table with the results: a row for each that was ordered."""
    return _made(batch, "results")


def labels_of(batch_id: str) -> Mapping[str, str]:
    """Return the labels of what is made for a batch."""
    return {LABEL: re.sub(r"[^a-z0-9_-]", "_", batch_id.lower())[:63]}


async def statement(
    app: App, sql: str, location: str, *, batch_id: str = "", once: str = "", most_bytes: int | None = None
) -> Statement:
    """Return a statement that may bill what it was measured at, and a little more; `most_bytes` where that is less."""
    labels = labels_of(batch_id) if batch_id else {}
    unmeasured = Statement(sql, location, 0, labels=labels)
    measured = allowed(await warehouse_of(app).measure(unmeasured))
    return replace(unmeasured, most_bytes=min(measured, most_bytes) if most_bytes is not None else measured, once=once)


def allowed(measured_bytes: int) -> int:
    """Return what a statement may bill that was measured at so many bytes."""
    return max(_LEAST_BYTES, round(measured_bytes * _MARGIN) + _LEAST_BYTES)


def _job(job: JobEntry) -> str:
    return f"{job.shard}_{job.attempt}{f'_{job.sha256[:12]}' if job.sha256 else ''}"


def _made(batch: BatchEntry, what: str) -> TableName:
    source = source_table(batch.source)
    return replace(source, table=f"gemini_batch_{re.sub(r'[^A-Za-z0-9_]', '_', batch.id)}_{what}")


def _time_of(table: StoredTable) -> int:
    return round(table.modified_at.astimezone(UTC).timestamp() * 1000)
