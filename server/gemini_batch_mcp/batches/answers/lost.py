"""Answers that Gemini had and has no more, or never delivered: noted as lost, so that rows can be sent again."""

from collections.abc import Sequence

import anyio

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.jobs.delivery import LATE_FILE, since_end, utc_now
from gemini_batch_mcp.batches.ledger.entries import BatchEntry, JobEntry, Stage
from gemini_batch_mcp.domain import JobError, JobState
from gemini_batch_mcp.errors import NotFound
from gemini_batch_mcp.threads import in_thread

#: google.rpc NOT_FOUND.
_NOT_FOUND = 5
_UNDELIVERED = JobError(_NOT_FOUND, "Gemini ended it but had not delivered its answers a day later.")
_LOST = JobError(_NOT_FOUND, "Its answers were not fetched before Gemini deleted them.")


async def note_lost_answers(app: App, batch: BatchEntry) -> bool:
    """Mark the ended jobs as failed whose result file is gone from Gemini; returns whether there is one.

    Gemini still has to know the job itself: to a key of another project everything looks gone.

    Raises:
        GeminiError: Gemini could not be asked.
        StorageError: what is still there could not be stored.
    """
    lost = [job for job in batch.jobs if job.stage is Stage.FINISHED and await _is_lost(app, job)]
    for job in lost:
        await _fail(app, job, _LOST)
    return bool(lost)


async def note_undelivered(app: App, jobs: Sequence[JobEntry]) -> None:
    """Mark ended jobs as failed whose answers are not expected any more; see `delivery.is_overdue`."""
    for job in jobs:
        await _fail(app, job, _UNDELIVERED)


async def _fail(app: App, job: JobEntry, why: JobError) -> None:
    await in_thread(
        app.ledger.update_job,
        job.id,
        expected=Stage.FINISHED,
        error=why,
        stage=Stage.FAILED,
        state=JobState.FAILED,
    )


async def _is_lost(app: App, job: JobEntry) -> bool:
    answers = app.files(job.batch_id).answers(job.id)
    if job.tier:
        return not await anyio.Path(app.files(job.batch_id).calls(job.id)).is_file()
    is_here = not job.lack and await anyio.Path(answers).is_file()
    if since_end(job, utc_now()) < LATE_FILE or not job.responses_file or is_here:
        return False
    try:
        await app.gateway.get_job(job.name)
    except NotFound:
        return False
    # No call tells whether a result file is there; a part of this name is swept like any other.
    probe = answers.with_name(f"{answers.name}.part-probe")
    try:
        await app.gateway.download(job.responses_file, probe)
    except NotFound:
        return True
    finally:
        await anyio.Path(probe).unlink(missing_ok=True)
    return False
