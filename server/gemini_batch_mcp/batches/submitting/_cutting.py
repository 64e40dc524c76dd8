"""From a reserved order to jobs that can be sent: its checked lines taken over, and cut where one job is too few."""

from dataclasses import replace
from datetime import UTC, datetime

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.jobs.tracking import changed_meanwhile
from gemini_batch_mcp.batches.ledger.entries import BatchEntry, JobEntry, NewJob, Stage
from gemini_batch_mcp.batches.orders.appraising import appraise, take_staged_lines
from gemini_batch_mcp.batches.orders.identity import IdentifiedOrder
from gemini_batch_mcp.batches.orders.pricing import JobLimits, job_limits, read_prices, refuse_over_cap
from gemini_batch_mcp.batches.orders.rendering import write_lines
from gemini_batch_mcp.batches.orders.stored_lines import request_path, shard_of
from gemini_batch_mcp.batches.submitting._attached_files import expiry_warnings, upload_attachments
from gemini_batch_mcp.batches.submitting.quota import enqueued_tokens
from gemini_batch_mcp.domain import RequestFile
from gemini_batch_mcp.intake.files.planning import AttachmentPlan
from gemini_batch_mcp.intake.prices.estimate import Estimate
from gemini_batch_mcp.intake.requests.shards import Shard, cut, split
from gemini_batch_mcp.threads import in_thread

#: Refusals of one job before it is taken for too large: the first ones may come from jobs that have just ended.
_WAITS_BEFORE_CUT = 2


async def plan_jobs(app: App, batch: BatchEntry, job: JobEntry, identified: IdentifiedOrder) -> None:
    """Take the order's lines, which are checked and priced, and write down which jobs they become.

    Raises:
        RequestProblems: lines are wrong; nothing was sent.
        UsageError: the order costs more than the cap.
        GeminiError: an attached file could not be uploaded.
    """
    limits = job_limits(app, await read_prices(app), batch.model)
    files = app.files(batch.id)
    # The figure that was agreed to. One that is not in the ledger is made now, in the pass that checks the lines.
    priced = batch.estimate or (await appraise(app, identified, None)).estimate
    refuse_over_cap(app, priced)
    if identified.attachments is not None and identified.attachments.uploads:
        request_file = await _write_with_files(app, batch, identified, identified.attachments)
    else:
        request_file = await in_thread(
            take_staged_lines, app, identified, files.requests(), files.keys(), files.source_columns
        )
    parts: tuple[NewJob, ...] = (one_job(request_file, priced),)
    if batch.delivery == "file":
        parts = await in_thread(cut_jobs, request_file, priced.input_tokens, limits)
    await _record(app, batch, job, request_file, priced, parts)


async def _write_with_files(
    app: App, batch: BatchEntry, identified: IdentifiedOrder, attachments: AttachmentPlan
) -> RequestFile:
    """Bring the attached files to Gemini, then write the lines that name them."""
    uploaded = await upload_attachments(app, batch.id, attachments)
    files = app.files(batch.id)
    request_file = await in_thread(
        write_lines, identified, files.requests(), files.keys(), files.source_columns, uploaded=uploaded
    )
    warnings = (*request_file.warnings, *expiry_warnings(uploaded, datetime.now(UTC)))
    return replace(request_file, warnings=warnings)


def cut_jobs(request_file: RequestFile, input_tokens: int, limits: JobLimits) -> tuple[NewJob, ...]:
    """Cut checked lines into as few jobs as their limits allow.

    Raises:
        StorageError: the lines cannot be read any more.
    """
    shards = cut(
        request_file.path,
        size_bytes=request_file.size_bytes,
        count=request_file.count,
        sha256=request_file.sha256,
        max_bytes=limits.max_bytes,
        max_tokens=limits.max_tokens,
        tokens_per_byte=input_tokens / max(1, request_file.size_bytes),
    )
    return tuple(_new_job(shard) for shard in shards)


def one_job(request_file: RequestFile, priced: Estimate) -> NewJob:
    """Return the one job that takes all lines."""
    return NewJob(
        first_row=0,
        request_count=request_file.count,
        first_byte=0,
        size_bytes=request_file.size_bytes,
        sha256=request_file.sha256,
        input_tokens=priced.input_tokens,
    )


async def split_in_smaller(app: App, batch: BatchEntry, job: JobEntry) -> bool:
    """Cut a job that Gemini keeps refusing for its quota, when it is larger than some projects may enqueue at all.

    It was looked for at Gemini just before.

    Returns whether it was cut. A refusal with other jobs of ours under way, or one of the first, may pass by itself.
    """
    model = job.model or batch.model
    limits = job_limits(app, await read_prices(app), model)
    smaller = next((limit for limit in limits.lower if limit < job.input_tokens), None)
    if (
        limits.is_known
        or smaller is None
        or job.waits < _WAITS_BEFORE_CUT
        or job.request_count < 2
        or batch.delivery == "inline"
    ):
        return False
    if await enqueued_tokens(app, model):
        return False
    parts = await in_thread(_split, app, batch, job, smaller)
    if job.stage is Stage.UPLOADED:
        was_moved = await in_thread(
            app.ledger.move_job, job.id, expected=Stage.UPLOADED, stage=Stage.RESERVED, uploaded_file=""
        )
        if not was_moved:
            return False
    return await in_thread(app.ledger.split_job, job, parts)


def _split(app: App, batch: BatchEntry, job: JobEntry, max_tokens: int) -> tuple[NewJob, ...]:
    shards = split(
        request_path(app, batch, job),
        shard_of(job),
        max_tokens=max_tokens,
        tokens_per_byte=job.input_tokens / max(1, job.size_bytes),
    )
    return tuple(_new_job(shard) for shard in shards)


def _new_job(shard: Shard) -> NewJob:
    return NewJob(
        first_row=shard.first_row,
        request_count=shard.count,
        first_byte=shard.first_byte,
        size_bytes=shard.size_bytes,
        sha256=shard.sha256,
        input_tokens=shard.input_tokens,
    )


async def _record(
    app: App,
    batch: BatchEntry,
    job: JobEntry,
    request_file: RequestFile,
    priced: Estimate,
    parts: tuple[NewJob, ...],
) -> None:
    is_kept = request_file.path == app.files(batch.id).requests()
    await in_thread(
        app.ledger.update_batch,
        batch.id,
        request_count=request_file.count,
        size_bytes=request_file.size_bytes,
        request_sha256=request_file.sha256,
        request_path="" if is_kept else str(request_file.path),
        skipped_count=request_file.skipped_count,
        warnings=request_file.warnings,
        estimate=priced,
    )
    if not await in_thread(app.ledger.plan, batch.id, job.attempt, parts):
        raise changed_meanwhile(batch.id)
