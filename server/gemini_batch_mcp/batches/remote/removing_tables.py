"""The tables that were made for a batch, removed with it: those and no others."""

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.ledger.entries import BatchEntry
from gemini_batch_mcp.batches.remote.places import (
    answers_table,
    labels_of,
    requests_table,
    results_table,
    rows_table,
    warehouse_of,
)
from gemini_batch_mcp.errors import BatchError, NotFound


async def drop_tables(app: App, batch: BatchEntry) -> tuple[list[str], list[tuple[str, str]]]:
    """Delete what was made in BigQuery for a batch; returns what is gone, and what stays with the reason.

    A table of ours bears our label; one under the same name without it is somebody else's, and stays. Answers that
    Vertex AI wrote bear none: they are ours by their name, which no create but that of this job was given.
    """
    warehouse, labels = warehouse_of(app), dict(labels_of(batch.id))
    made = [rows_table(batch), results_table(batch), *(requests_table(batch, job) for job in batch.jobs)]
    answers = [answers_table(batch, job).uri for job in batch.jobs if job.has_left]
    gone: list[str] = []
    kept: list[tuple[str, str]] = []
    for uri in (*(name.uri for name in made), *answers):
        try:
            found = await warehouse.describe(uri)
            if found is None:
                continue
            if dict(found.labels) != labels and uri not in answers:
                kept.append((uri, "It does not bear this batch's label, so it was not made for it."))
                continue
            await warehouse.delete(uri)
            gone.append(uri)
        except NotFound:
            continue
        except BatchError as error:
            kept.append((uri, error.message))
    return gone, kept
