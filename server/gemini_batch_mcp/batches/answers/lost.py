"""Answers that Gemini had and has no more: noted as lost, so that their rows can be sent again."""

import anyio

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.ledger.entries import BatchEntry, JobEntry, Stage
from gemini_batch_mcp.domain import JobError, JobState
from gemini_batch_mcp.errors import NotFound
from gemini_batch_mcp.threads import in_thread

#: google.rpc NOT_FOUND.
_NOT_FOUND = 5
_LOST = JobError(_NOT_FOUND, "Its answers were not fetched while Gemini kept them.")


async def note_lost_answers(app: App, batch: BatchEntry) -> bool:
    """Mark the ended jobs as failed whose result file is gone from Gemini; returns whether there is one.

    Gemini still has to know the job itself: to a key of another project everything looks gone.

    Raises:
        GeminiError: Gemini could not be asked.
        StorageError: what is still there could not be stored.
    """
    lost = [job for job in batch.jobs if job.stage is Stage.FINISHED and await _is_lost(app, job)]
    for job in lost:
        await in_thread(
            app.ledger.update_job,
            job.id,
            expected=Stage.FINISHED,
            error=_LOST,
            stage=Stage.FAILED,
            state=JobState.FAILED,
        )
    return bool(lost)


async def _is_lost(app: App, job: JobEntry) -> bool:
    answers = app.files(job.batch_id).answers(job.id)
    if not job.responses_file or await anyio.Path(answers).is_file():
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
