"""What a retry of rows in BigQuery chooses: written down before it is reserved, so that any process writes the same."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.ledger.entries import BatchEntry, JobEntry
from gemini_batch_mcp.batches.remote.places import requests_table, results_table
from gemini_batch_mcp.errors import StorageError, storage_errors
from gemini_batch_mcp.warehouse import statements


class Choice(msgspec.Struct, frozen=True):
    """The rows of a retry: with these statuses; `skips_permanent` leaves those out that would fail again."""

    statuses: tuple[str, ...]
    skips_permanent: bool


def keep_choice(app: App, batch: BatchEntry, attempt: int, choice: Choice) -> None:
    """Write down what an attempt chooses.

    Raises:
        StorageError: it cannot be written.
    """
    path = _path(app, batch, attempt)
    with storage_errors("The choice of rows could not be written down"):
        draft = path.with_name(f"{path.name}.part")
        draft.write_bytes(msgspec.json.encode(choice))
        draft.replace(path)


def sql_of_retry(app: App, batch: BatchEntry, job: JobEntry) -> str:
    """Return the statement that writes the requests of a retry.

    Raises:
        StorageError: what it was to choose is not known any more.
    """
    try:
        choice = msgspec.json.decode(_path(app, batch, job.attempt).read_bytes(), type=Choice)
    except (OSError, msgspec.MsgspecError):
        raise StorageError(
            f"What the retry of {batch.id} was to send is not known any more.",
            "Call cancel_batch, then retry_failed again.",
        ) from None
    return statements.retry(
        results_table(batch),
        sent_tables(batch),
        choice.statuses,
        requests_table(batch, job),
        skip_permanent=choice.skips_permanent,
    )


def sent_tables(batch: BatchEntry) -> Sequence[statements.TableName]:
    """Return the tables of requests that hold every row: those of the first attempt."""
    return [requests_table(batch, job) for job in batch.jobs if job.attempt == 1]


def _path(app: App, batch: BatchEntry, attempt: int) -> Path:
    return app.files(batch.id).appraisal(attempt)
