"""Checked request lines on the way to Gemini, in a file or inside a create; never finalized once they have changed."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

import anyio
import msgspec

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.gauge import Doing, Progress
from gemini_batch_mcp.batches.jobs.stored_lines import request_path, shard_of
from gemini_batch_mcp.batches.ledger.entries import BatchEntry, JobEntry
from gemini_batch_mcp.domain import JsonObject
from gemini_batch_mcp.errors import Unavailable, UsageError
from gemini_batch_mcp.intake.opened import SourceFile
from gemini_batch_mcp.intake.requests.shards import ShardReader
from gemini_batch_mcp.settings import MAX_INLINE_CREATE_BYTES
from gemini_batch_mcp.threads import in_thread
from gemini_batch_mcp.tracing import span

T = TypeVar("T")

#: Tries of one upload, each from the start: the SDK cannot resume one, and a repeated upload costs nothing.
_UPLOAD_ATTEMPTS = 3
#: Room that the wrapping of an inline create takes beside each request line (our estimate).
_INLINE_WRAPPING_BYTES = 64


async def upload_lines(app: App, batch: BatchEntry, job: JobEntry) -> str:
    """Upload the checked lines of one job; return the file's name.

    Raises:
        UsageError: the lines have changed since they were checked; nothing was finalized.
        StorageError: the lines are gone.
        GeminiError: the upload failed, after several tries where a repeat could help.
    """
    with span("upload", batch=batch.id, shard=job.shard, bytes=job.size_bytes, requests=job.request_count):
        return await _repeated(app, partial(_upload_shard, app, batch, job))


def inline_lines(app: App, batch: BatchEntry, job: JobEntry) -> Sequence[JsonObject]:
    """Return the lines of a job that carries them in its create.

    Raises:
        UsageError: they are too large for that.
        StorageError: they are gone.
    """
    size_bytes = job.size_bytes + job.request_count * _INLINE_WRAPPING_BYTES
    if size_bytes >= MAX_INLINE_CREATE_BYTES:
        raise UsageError(
            f"These requests take {size_bytes:,} bytes; an inline create takes fewer than {MAX_INLINE_CREATE_BYTES:,}.",
            "Use delivery='file', which takes up to 2 GB.",
        )
    with SourceFile(request_path(app, batch, job)) as file:
        lines = file.read().split(b"\n")
    return [msgspec.json.decode(line) for line in lines if line]


async def _repeated(app: App, upload: Callable[[], Awaitable[T]]) -> T:
    for attempt in range(1, _UPLOAD_ATTEMPTS):
        try:
            return await upload()
        except Unavailable:
            await anyio.sleep(min(app.settings.poll_seconds, 2.0**attempt))
    return await upload()


async def _upload_shard(app: App, batch: BatchEntry, job: JobEntry) -> str:
    path = await in_thread(request_path, app, batch, job)
    reader = await in_thread(ShardReader, path, shard_of(job))
    jobs = [other for other in batch.jobs if other.attempt == job.attempt]
    before_bytes = sum(other.size_bytes for other in jobs if other.shard < job.shard)
    total_bytes = sum(other.size_bytes for other in jobs)
    note = f"job {job.shard} of {len(jobs)}" if len(jobs) > 1 else ""

    def show(done_bytes: int, _: int | None) -> None:
        app.gauge.show(Progress(Doing.UPLOADING, before_bytes + done_bytes, total_bytes, note))

    try:
        uploaded = await app.gateway.upload(
            reader,
            size_bytes=job.size_bytes,
            display_name=f"{batch.id}-{job.shard}.{job.attempt}.jsonl",
            owner=batch.id,
            sha256=job.sha256,
            on_progress=show,
        )
        return uploaded.name
    finally:
        reader.close()
