"""Where the request lines of a job are kept on this machine."""

from pathlib import Path

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.ledger.entries import BatchEntry, JobEntry
from gemini_batch_mcp.errors import StorageError
from gemini_batch_mcp.intake.requests.shards import Shard


def request_path(app: App, batch: BatchEntry, job: JobEntry) -> Path:
    """Return the file that holds the lines of a job.

    Raises:
        StorageError: it is gone.
    """
    kept = app.files(batch.id).requests(job.attempt)
    path = Path(batch.request_path) if batch.request_path and job.attempt == 1 else kept
    if not path.is_file():
        raise StorageError(
            f"{path}, which holds the requests of {batch.id}, is gone.", "Restore the file, or submit a new order."
        )
    return path


def shard_of(job: JobEntry) -> Shard:
    """Return which lines of its file a job takes."""
    return Shard(
        number=job.shard,
        first_row=job.first_row,
        count=job.request_count,
        first_byte=job.first_byte,
        size_bytes=job.size_bytes,
        sha256=job.sha256,
        input_tokens=job.input_tokens,
    )
