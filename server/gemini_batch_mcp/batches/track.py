"""Where a batch stands: asked of Gemini, written to the ledger, and put into words."""

import random
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial

import anyio
import filelock

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.entries import BatchEntry, JobEntry, Stage
from gemini_batch_mcp.batches.find import find_batch, find_by_tag
from gemini_batch_mcp.domain import Job, JobState, RowCounts
from gemini_batch_mcp.errors import BatchError

#: Pending or running for longer than this, a job expires without results (batch guide and SDK enum, 2026-09).
EXPIRES_AFTER = timedelta(hours=48)
#: The target that Google states for a batch; most finish far sooner (batch guide, 2026-09).
TARGET = timedelta(hours=24)
_INTERRUPTED = (
    "The submission was interrupted before a job was created; nothing is charged. "
    "Give the same order again: it continues from here."
)
#: Growth of the pause between two looks, and its ceiling.
_POLL_GROWTH = 1.5
_MAX_POLL_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """A batch as of now. `state` sums up its jobs; `results_ready`: get_results will answer with rows."""

    batch: BatchEntry
    state: JobState
    counts: RowCounts
    done: bool
    results_ready: bool
    age_seconds: int
    expires_at: datetime | None
    advice: str


async def batch_status(app: App, reference: str, *, wait_seconds: float = 0.0) -> BatchStatus:
    """Ask Gemini how a batch is getting on; wait for its end, at most `wait_seconds`.

    Raises:
        UnknownBatch: nothing goes by that name.
        GeminiError: Gemini could not be asked.
    """
    deadline = time.monotonic() + wait_seconds
    batch = await refresh(app, await find_batch(app, reference))
    pause_seconds = app.settings.poll_seconds
    while not (status := describe(batch)).done and (left := deadline - time.monotonic()) > 0:
        # Jitter keeps several servers that started together from asking together.
        await anyio.sleep(min(left, pause_seconds * random.uniform(0.9, 1.1)))  # noqa: S311 - no secret depends on it
        pause_seconds = min(pause_seconds * _POLL_GROWTH, _MAX_POLL_SECONDS)
        batch = await refresh(app, batch)
    return status


async def refresh(app: App, batch: BatchEntry) -> BatchEntry:
    """Bring the ledger's view of a batch up to date: one read per job that Gemini may still change."""
    if await anyio.to_thread.run_sync(_is_being_submitted, app, batch):
        return await current(app, batch.id)
    for job in batch.jobs:
        if job.stage is Stage.UNKNOWN:
            if (found := (await find_by_tag(app, job.tag, for_seconds=0.0)).found) is not None:
                await record(app, job, found)
        elif job.stage is Stage.SUBMITTED:
            await record(app, job, await app.gateway.get_job(job.name))
    batch = await load(app, batch.id)
    return batch if batch.is_submitted else replace(batch, failure=_INTERRUPTED)


async def record(app: App, job: JobEntry, seen: Job) -> None:
    """Write what Gemini said about a job into the ledger."""
    stage = Stage.SUBMITTED
    if seen.state is JobState.FAILED:
        stage = Stage.FAILED
    elif seen.state.is_terminal:
        has_answers = bool(seen.responses_file) or seen.inlined_responses is not None
        stage = Stage.CANCELLED if seen.state is JobState.CANCELLED and not has_answers else Stage.FINISHED
    # Gemini goes on saying RUNNING for a while after it has taken a cancel.
    is_cancelling = job.state is JobState.CANCELLING and not seen.state.is_terminal
    await anyio.to_thread.run_sync(
        partial(
            app.ledger.update_job,
            job.id,
            stage=stage,
            name=seen.name,
            state=JobState.CANCELLING if is_cancelling else seen.state,
            wire_state=seen.wire_state,
            counts=seen.counts,
            error=seen.error,
            responses_file=seen.responses_file,
            created_at=seen.created_at,
            ended_at=seen.ended_at,
        )
    )


async def load(app: App, batch_id: str) -> BatchEntry:
    """Return a batch that is known to be in the ledger."""
    batch = await anyio.to_thread.run_sync(app.ledger.batch, batch_id)
    if batch is None:
        raise BatchError(f"The batch {batch_id} was deleted meanwhile.", "Call list_jobs to see which there are.")
    return batch


async def current(app: App, batch_id: str) -> BatchEntry:
    """Return a batch as it is to be shown: while its create is being sent, nothing about it is lost yet."""
    batch = await load(app, batch_id)
    if not await anyio.to_thread.run_sync(_is_being_submitted, app, batch):
        return batch
    jobs = (replace(job, stage=Stage.UPLOADED) if job.is_unknown else job for job in batch.jobs)
    return replace(batch, jobs=tuple(jobs))


def _is_being_submitted(app: App, batch: BatchEntry) -> bool:
    """True while this process or another one is at it."""
    lock_path = app.files(batch.id).submit_lock
    if batch.is_submitted or not lock_path.exists():
        return False
    if app.work.is_running(f"submit {batch.id}"):
        return True
    try:
        with filelock.FileLock(lock_path, blocking=False, thread_local=False):
            return False
    except filelock.Timeout:
        return True


def describe(batch: BatchEntry) -> BatchStatus:
    """Sum up a batch from what the ledger holds."""
    now = datetime.now(UTC)
    state = batch_state(batch)
    started = min((job.created_at for job in batch.jobs if job.created_at), default=batch.created_at)
    ended = max((job.ended_at for job in batch.jobs if job.ended_at), default=None)
    counts = _sum_counts(batch)
    is_open = state not in (JobState.QUEUED, JobState.UNSPECIFIED) and not state.is_terminal
    age = (ended if ended and state.is_terminal else now) - started
    return BatchStatus(
        batch=batch,
        state=state,
        counts=counts,
        done=state.is_terminal,
        results_ready=any(job.stage in (Stage.FINISHED, Stage.COLLECTED) and has_rows(job) for job in batch.jobs),
        age_seconds=max(0, int(age.total_seconds())),
        expires_at=started + EXPIRES_AFTER if is_open else None,
        advice=_advice(batch, state, counts, age),
    )


def batch_state(batch: BatchEntry) -> JobState:
    """Return the one state that sums up a batch's jobs."""
    states = {job.shown_state for job in batch.jobs}
    if len(states) == 1:
        return states.pop()
    if all(state.is_terminal for state in states):
        useful = states & {JobState.SUCCEEDED, JobState.PARTIALLY_SUCCEEDED}
        return JobState.PARTIALLY_SUCCEEDED if useful else JobState.FAILED
    for state in (JobState.UNSPECIFIED, JobState.CANCELLING, JobState.RUNNING):
        if state in states:
            return state
    return JobState.RUNNING if any(state.is_terminal for state in states) else JobState.PENDING


def has_rows(job: JobEntry) -> bool:
    """True when a finished job is worth collecting: Gemini kept its answers."""
    return job.state is not JobState.EXPIRED or bool(job.responses_file)


def _sum_counts(batch: BatchEntry) -> RowCounts:
    total = sum(job.counts.total or job.request_count for job in batch.jobs)
    succeeded = sum(job.counts.succeeded for job in batch.jobs)
    failed = sum(job.counts.failed for job in batch.jobs)
    return RowCounts(total, succeeded, failed, max(0, total - succeeded - failed))


def _advice(batch: BatchEntry, state: JobState, counts: RowCounts, age: timedelta) -> str:
    """Say what to do next, in at most three sentences."""
    unspecified = (job.wire_state for job in batch.jobs if job.state is JobState.UNSPECIFIED)
    if unknown := next(filter(None, unspecified), ""):
        return (
            f"Gemini reports the state {unknown!r}, which this version does not know; it is not taken as finished. "
            "Call check_status again later."
        )
    match state:
        case JobState.UNSPECIFIED:
            return (
                "The reply to the create was lost, and no such job is in Gemini's list so far. check_status looks "
                "again each time. If it stays absent, give the same order again: it looks once more before it creates."
            )
        case JobState.QUEUED:
            return batch.failure or "The requests are on their way to Gemini. Call check_status with wait_seconds=30."
        case JobState.SUCCEEDED | JobState.PARTIALLY_SUCCEEDED if counts.failed:
            return f"{counts.failed} of {counts.total} rows failed. Call get_results with view='failures' to see them."
        case JobState.SUCCEEDED | JobState.PARTIALLY_SUCCEEDED:
            return "Call get_results."
        case JobState.FAILED:
            return batch.failure or f"The job failed as a whole{_cause(batch)}. Correct the cause and order again."
        case JobState.EXPIRED:
            return (
                "Gemini did not finish the job within 48 hours and keeps no results of it. "
                "Order again, in smaller parts or with another model."
            )
        case JobState.CANCELLED if any(job.stage in (Stage.FINISHED, Stage.COLLECTED) for job in batch.jobs):
            return "The job was cancelled; get_results has the rows that had finished."
        case JobState.CANCELLED:
            return "The job was cancelled, and no rows of it were kept."
        case JobState.CANCELLING:
            return "Gemini is cancelling the job; rows in flight still finish. Call check_status again."
        case _:
            return _progress_advice(state, counts, age)


def _progress_advice(state: JobState, counts: RowCounts, age: timedelta) -> str:
    done = counts.succeeded + counts.failed
    doing = "waits for its turn" if state is JobState.PENDING else f"has done {done} of {counts.total} rows"
    if age < TARGET:
        return f"The job {doing}; batches may take up to 24 hours, most take far less. Call check_status again later."
    hours_left = max(0, int((EXPIRES_AFTER - age).total_seconds() // 3600))
    return (
        f"The job {doing} and is past the 24-hour target; in about {hours_left} hours it expires without results. "
        "Consider cancel_batch and an order in smaller parts or with another model."
    )


def _cause(batch: BatchEntry) -> str:
    error = next((job.error for job in batch.jobs if job.error), None)
    return f" (code {error.code}: {error.message})" if error else ""
