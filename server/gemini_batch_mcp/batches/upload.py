"""Request lines on their way to Gemini: checked while they travel, and never finalized when one of them is wrong."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import anyio
import msgspec

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.entries import BatchEntry, JobEntry
from gemini_batch_mcp.batches.identity import IdentifiedOrder
from gemini_batch_mcp.batches.prepare import refuse_over_cap, write_request_file
from gemini_batch_mcp.domain import JsonObject, RequestFile
from gemini_batch_mcp.errors import Unavailable, UsageError
from gemini_batch_mcp.intake.reader import CheckedReader, CopyNeeded, LinesRefused
from gemini_batch_mcp.settings import MAX_INLINE_BYTES

#: Tries of one upload, each from the start: the SDK cannot resume one, and a repeated upload costs nothing.
_UPLOAD_ATTEMPTS = 3
#: Room that the wrapping of an inline create takes beside each request line (our estimate).
_INLINE_WRAPPING_BYTES = 64


async def send_requests(
    app: App, batch: BatchEntry, job: JobEntry, identified: IdentifiedOrder
) -> tuple[Sequence[JsonObject], str]:
    """Check the order's lines and bring them to Gemini.

    Returns the lines themselves for inline delivery, else nothing and the name of the uploaded file.

    Raises:
        RequestProblems: lines are wrong; nothing was finalized at Google.
        GeminiError: the upload failed, after several tries where a repeat could help.
    """
    if batch.delivery == "inline":
        request_file = await _write(app, batch, identified)
        await _record_checked(app, batch, job, request_file)
        return await anyio.to_thread.run_sync(_inline_lines, request_file), ""
    if identified.path is not None and not identified.is_table:
        await refuse_over_cap(app, identified.order, identified.path)
        for attempt in range(1, _UPLOAD_ATTEMPTS + 1):
            try:
                return (), await _upload_checked(app, batch, job, identified, identified.path)
            except CopyNeeded:
                break
            except Unavailable:
                if attempt == _UPLOAD_ATTEMPTS:
                    raise
                await anyio.sleep(min(app.settings.poll_seconds, 2.0**attempt))
    request_file = await _write(app, batch, identified)
    await _record_checked(app, batch, job, request_file)
    uploaded = await app.gateway.upload(
        request_file.path,
        size_bytes=request_file.size_bytes,
        display_name=_remote_name(batch),
        sha256=request_file.sha256,
    )
    return (), uploaded.name


async def _upload_checked(app: App, batch: BatchEntry, job: JobEntry, identified: IdentifiedOrder, path: Path) -> str:
    """Upload the user's own file, each chunk checked before it leaves and everything before the last one does."""
    reader = await anyio.to_thread.run_sync(
        partial(
            CheckedReader,
            path,
            task=batch.task,
            keys_path=app.files(batch.id).keys,
            max_file_bytes=app.settings.max_file_bytes,
            known_sha256=identified.content_sha256,
        )
    )
    try:
        await anyio.to_thread.run_sync(reader.prime)
        uploaded = await app.gateway.upload(
            reader,
            size_bytes=reader.size_bytes,
            display_name=_remote_name(batch),
            sha256=identified.content_sha256,
        )
        await _record_checked(app, batch, job, await anyio.to_thread.run_sync(reader.finish))
        return uploaded.name
    except LinesRefused:
        raise await anyio.to_thread.run_sync(reader.survey) from None
    finally:
        reader.close()


async def _write(app: App, batch: BatchEntry, identified: IdentifiedOrder) -> RequestFile:
    """Write the request lines into the batch's own directory, and refuse what they may cost above the cap."""
    files = app.files(batch.id)
    request_file = await anyio.to_thread.run_sync(write_request_file, app, identified, files.requests, files.keys)
    await refuse_over_cap(app, identified.order, request_file.path, rows=request_file.count)
    return request_file


async def _record_checked(app: App, batch: BatchEntry, job: JobEntry, request_file: RequestFile) -> None:
    await anyio.to_thread.run_sync(
        partial(
            app.ledger.update_batch,
            batch.id,
            request_count=request_file.count,
            size_bytes=request_file.size_bytes,
            request_sha256=request_file.sha256,
            warnings=request_file.warnings,
        )
    )
    await anyio.to_thread.run_sync(partial(app.ledger.update_job, job.id, request_count=request_file.count))


def _inline_lines(request_file: RequestFile) -> Sequence[JsonObject]:
    size_bytes = request_file.size_bytes + request_file.count * _INLINE_WRAPPING_BYTES
    if size_bytes >= MAX_INLINE_BYTES:
        raise UsageError(
            f"These requests take {size_bytes:,} bytes; one inline create takes less than {MAX_INLINE_BYTES:,}.",
            "Use delivery='file', which takes up to 2 GB.",
        )
    return [msgspec.json.decode(line) for line in request_file.path.read_bytes().split(b"\n") if line]


def _remote_name(batch: BatchEntry) -> str:
    return f"{batch.id}.jsonl"
