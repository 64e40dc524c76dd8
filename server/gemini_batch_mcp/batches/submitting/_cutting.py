"""From a reserved order to jobs that can be sent: its checked lines taken over, and cut where one job is too few."""

from dataclasses import replace
from datetime import UTC, datetime

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.jobs.stored_lines import request_path, shard_of
from gemini_batch_mcp.batches.jobs.tracking import changed_meanwhile, move
from gemini_batch_mcp.batches.ledger.entries import BatchEntry, JobEntry, NewJob, Stage
from gemini_batch_mcp.batches.orders.appraising import (
    appraise,
    discard_staged_lines,
    stage_lines,
    take_identities,
    take_staged_lines,
)
from gemini_batch_mcp.batches.orders.identity import IdentifiedOrder
from gemini_batch_mcp.batches.orders.pricing import JobLimits, job_limits, read_prices, refuse_over_cap
from gemini_batch_mcp.batches.orders.rendering import write_lines
from gemini_batch_mcp.batches.submitting._attached_files import expiry_warnings, upload_attachments
from gemini_batch_mcp.batches.submitting.quota import enqueued_tokens
from gemini_batch_mcp.domain import JobState
from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.intake.files.in_lines import references_in, staged_uri, uri_of, with_references
from gemini_batch_mcp.intake.files.planning import AttachmentPlan
from gemini_batch_mcp.intake.prices.estimate import Estimate
from gemini_batch_mcp.intake.request_files import RequestFile
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
    # The figure that was agreed to. One that is not in the ledger is made now, in the pass that checks the lines.
    priced = batch.estimate or (await appraise(app, identified, None)).estimate
    staged = await in_thread(stage_lines, app, identified)
    _refuse_other_rows(batch, staged)
    if staged.count:
        refuse_over_cap(app, priced)
    attachments = identified.attachments
    if attachments is None or not attachments.uploads or not staged.count:
        request_file = await in_thread(take_staged_lines, app, identified, app.files(batch.id))
    elif staged.spared is None:
        request_file = await _write_with_files(app, batch, identified, attachments)
    else:
        request_file = await _name_files(app, batch, identified, attachments)
    parts: tuple[NewJob, ...] = (one_job(request_file, priced),)
    if batch.delivery == "file" and request_file.count:
        parts = await in_thread(cut_jobs, request_file, priced.input_tokens, limits)
    await _record(app, batch, job, request_file, priced, parts)
    if request_file.spared is not None:
        await in_thread(discard_staged_lines, app, identified)


def _refuse_other_rows(batch: BatchEntry, staged: RequestFile) -> None:
    """Refuse to send other rows than those that were agreed to, where some are not sent.

    Raises:
        UsageError: what was not to be sent is not what it was, since lines that were staged are gone.
    """
    if batch.request_sha256 and staged.sha256 != batch.request_sha256:
        raise UsageError(
            f"The answers that {batch.id} was to take from earlier batches have changed; nothing was submitted.",
            "Submit the same order again for its present price.",
        )


async def _write_with_files(
    app: App, batch: BatchEntry, identified: IdentifiedOrder, attachments: AttachmentPlan
) -> RequestFile:
    """Bring the attached files to Gemini, then write the lines that name them."""
    uploaded = await upload_attachments(app, batch.id, attachments)
    files = app.files(batch.id)
    await in_thread(take_identities, app, identified, files)
    request_file = await in_thread(
        write_lines, identified, files.requests(), files.keys(), files.source_columns, uploaded=uploaded
    )
    warnings = (*request_file.warnings, *expiry_warnings(uploaded, datetime.now(UTC)))
    return replace(request_file, warnings=warnings)


async def _name_files(
    app: App, batch: BatchEntry, identified: IdentifiedOrder, attachments: AttachmentPlan
) -> RequestFile:
    """Bring the files to Gemini that the lines to be sent name, and put their names into the lines."""
    request_file = await in_thread(take_staged_lines, app, identified, app.files(batch.id))
    named = await in_thread(references_in, request_file.path)
    wanted = {content.sha256: uri for content in attachments.uploads if (uri := staged_uri(content)) in named}
    contents = tuple(content for content in attachments.contents if content.sha256 in wanted)
    uploaded = await upload_attachments(app, batch.id, replace(attachments, contents=contents))
    uris = {uri: uri_of(uploaded[sha256]) for sha256, uri in wanted.items()}
    request_file = await in_thread(with_references, request_file, uris)
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
        max_rows=limits.max_rows,
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
        or batch.delivery != "file"
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
    is_kept, spared = request_file.path == app.files(batch.id).requests(), request_file.spared
    await in_thread(
        app.ledger.update_batch,
        batch.id,
        request_count=request_file.count,
        size_bytes=request_file.size_bytes,
        request_sha256=request_file.sha256,
        request_path="" if is_kept else str(request_file.path),
        skipped_count=request_file.skipped_count,
        reused_count=spared.reused_count if spared is not None else 0,
        identical_count=spared.identical_count if spared is not None else 0,
        donors=spared.donors if spared is not None else (),
        warnings=request_file.warnings,
        estimate=priced,
    )
    if not request_file.count:
        await _end_unsent(app, batch, job)
    elif not await in_thread(app.ledger.plan, batch.id, job.attempt, parts):
        raise changed_meanwhile(batch.id)


async def _end_unsent(app: App, batch: BatchEntry, job: JobEntry) -> None:
    """End the job of an order of which nothing has to be sent: Gemini never hears of it."""
    now = datetime.now(UTC)
    await move(
        app, job, Stage.COLLECTED, state=JobState.SUCCEEDED, answer_count=0, created_at=now, ended_at=now, moved_at=now
    )
    await in_thread(app.keep_card, batch.id)
