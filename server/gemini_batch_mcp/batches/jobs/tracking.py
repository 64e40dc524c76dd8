"""Where a batch stands: asked of Gemini, and written to the ledger."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.jobs.accounts import claim, claim_shown, is_anothers
from gemini_batch_mcp.batches.jobs.advice import advice, interrupted, life_of
from gemini_batch_mcp.batches.jobs.delivery import (
    LATE_FILE,
    has_rows,
    is_due,
    is_overdue,
    next_look,
    since_end,
    undelivered,
)
from gemini_batch_mcp.batches.jobs.finding import Search, find_sent
from gemini_batch_mcp.batches.jobs.kept import is_kept
from gemini_batch_mcp.batches.jobs.lock import BatchGone, is_locked
from gemini_batch_mcp.batches.jobs.rows import batch_counts, batch_state, newest_counts, with_rows
from gemini_batch_mcp.batches.ledger.entries import UNSUBMITTED, BatchEntry, JobEntry, Lack, Stage
from gemini_batch_mcp.domain import Job, JobError, JobState, RowCounts, RowOutcomes
from gemini_batch_mcp.errors import BatchError, NotFound, NotReady
from gemini_batch_mcp.text import count
from gemini_batch_mcp.threads import in_thread
from gemini_batch_mcp.tracing import span

_FORGOTTEN = (
    "Gemini no longer knows {name}: it was deleted there. This is what was last seen. delete_batch "
    "removes the batch here, too{again}."
)
_NOT_SHOWN = (
    "Gemini does not know {name} with this key: it belongs to another project, or was deleted there. "
    "This is what was last seen. If it was deleted, delete_batch removes the batch here, too{again}."
)


#: A job in one of these stages may be at Gemini although it has no name here: each look at its batch looks for it.
_LOOKED_FOR = frozenset({Stage.UNKNOWN, Stage.FAILED})


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """A batch as of now. `state` sums up its jobs; `results_ready`: get_results will answer with rows.

    `counts` are those of the result table once there is one, and Gemini's before; see `rows`. `progress` is how far
    Gemini is with the rows that were sent last. `age_seconds` of one that has ended is how long Gemini worked on it.

    `look_again_at` says when answers that Gemini has not delivered yet are looked for again, None when there are none.
    """

    batch: BatchEntry
    state: JobState
    counts: RowCounts
    progress: RowCounts
    done: bool
    results_ready: bool
    age_seconds: int
    created_at: datetime
    ended_at: datetime | None
    expires_at: datetime | None
    advice: str
    look_again_at: datetime | None = None

    @property
    def rows(self) -> RowOutcomes | None:
        """How its rows ended, None before its answers are here."""
        return self.batch.rows

    @property
    def made_elsewhere(self) -> bool:
        """True for a job that was not ordered here: its requests are not kept."""
        return not self.batch.is_ours

    @property
    def awaits_output(self) -> bool:
        """True while Gemini shows an ended job without its output, and may still show it."""
        now = datetime.now(UTC)
        return any(job.lack is Lack.OUTPUT and not is_overdue(job, now) for job in undelivered(self.batch))

    @property
    def is_overdue(self) -> bool:
        """True when nothing is left to wait for but answers that are not expected any more."""
        now, missing = datetime.now(UTC), undelivered(self.batch)
        return bool(missing) and self.done and all(is_overdue(job, now) for job in missing)


async def refresh(app: App, batch: BatchEntry) -> BatchEntry:
    """Bring the ledger's view of a batch up to date: one read per job that Gemini may still change, or still deliver.

    A job that Gemini does not know any more, or of another key, keeps the state in which it was last seen; `forgotten`
    says so.
    """
    batch = await claim(app, batch)
    if is_anothers(app, batch):
        return batch
    with span("poll", batch=batch.id, jobs=len(batch.jobs)):
        return await _refresh(app, batch)


async def _refresh(app: App, batch: BatchEntry) -> BatchEntry:
    # While a create is on its way its job is in nobody's list, and not lost either.
    is_being_submitted = not batch.is_submitted and await in_thread(_is_being_submitted, app, batch)
    forgotten = ""
    for job in batch.jobs:
        if job.is_unproved and job.stage in _LOOKED_FOR and not is_being_submitted:
            await _look_once(app, batch, job)
        elif job.stage is Stage.SUBMITTED or _may_show_output(job):
            try:
                seen = await app.gateway.get_job(job.name)
            except NotFound:
                again = ", and the same order can be submitted again" if batch.is_ours else ""
                forgotten = (_FORGOTTEN if job.account else _NOT_SHOWN).format(name=job.name, again=again)
            else:
                await claim_shown(app, batch, job)
                await record(app, job, seen)
    if is_being_submitted:
        return replace(await current(app, batch.id), forgotten=forgotten)
    batch = await load(app, batch.id)
    return replace(batch, forgotten=forgotten, failure=interrupted(batch) or batch.failure)


async def record(app: App, job: JobEntry, seen: Job) -> None:
    """Write what Gemini said about a job into the ledger, unless somebody has taken the job further meanwhile.

    Where it said the same at the last look, as it mostly does, nobody waits for the disk.
    """
    stage, now = Stage.SUBMITTED, datetime.now(UTC)
    look: dict[str, Any] = {}
    if seen.state is JobState.FAILED:
        stage = Stage.FAILED
    elif seen.state.is_terminal:
        has_answers = bool(seen.responses_file) or seen.inlined_responses is not None
        stage = Stage.CANCELLED if seen.state is JobState.CANCELLED and not has_answers else Stage.FINISHED
        if has_answers and job.lack is Lack.OUTPUT:
            look = {"lack": Lack.NOTHING, "looks": 0, "look_again_at": None}
        elif not has_answers and (job.lack is Lack.NOTHING or is_due(job, now)):
            again = next_look(job, now, app.settings.poll_seconds)
            look = {"lack": Lack.OUTPUT, "looks": job.looks + 1, "look_again_at": again}
    has_moved = job.stage in UNSUBMITTED or seen.state != job.state or seen.counts != job.counts
    # Gemini goes on saying RUNNING for a while after it has taken a cancel.
    is_cancelling = job.state is JobState.CANCELLING and not seen.state.is_terminal
    # What a create that was refused has left is not the job's.
    if (error := seen.error or (JobError(0, "") if job.stage is Stage.FAILED else None)) is not None:
        look["error"] = error
    values: dict[str, Any] = {
        "stage": stage,
        "name": seen.name,
        "wait_reason": "",
        "wait_until": None,
        "state": JobState.CANCELLING if is_cancelling else seen.state,
        "wire_state": seen.wire_state,
        "counts": seen.counts,
        "responses_file": seen.responses_file,
        "created_at": seen.created_at,
        "ended_at": seen.ended_at,
        "moved_at": now if has_moved else job.moved_at,
        **look,
    }
    if any(getattr(job, name) != value for name, value in values.items()):
        await in_thread(app.ledger.update_job, job.id, expected=job.stage, **values)


class Unproved(NotReady):
    """Whether a create that has left took effect is not known, so that there must not be another one."""


async def prove_absent(app: App, batch: BatchEntry, job: JobEntry) -> JobEntry | None:
    """Look for a job whose create has left, whatever its answer was: None when Gemini has it, and it is recorded.

    Otherwise the job is returned as one of which nothing has left. The list is read again and again until the create
    is as old as lists are expected to lag; after a wait, that is one look.

    Raises:
        Unproved: the list cannot be read to its end, or has a job under this one's tag that is not this one.
        AccessDenied: the key was refused.
    """
    search = await find_sent(app, batch, job, for_seconds=lag_seconds_left(app, job))
    if search.found is not None:
        await record(app, job, search.found)
        return None
    refuse_unproved(batch, search)
    return await move(app, job, job.stage, sent_at=None)


def refuse_unproved(batch: BatchEntry, search: Search) -> None:
    """Refuse to create a job again after a search that has not proved that there is none.

    Raises:
        Unproved: the list could not be read to its end, or has a job under the tag that is not the one.
    """
    if (other := search.other) is not None:
        what = f"{count(other.counts.total, 'request')} to {other.model.removeprefix('models/') or 'an unnamed model'}"
        raise Unproved(
            f"{other.name} at Gemini carries the mark of a job of {batch.id} but is a different one: {what}. It was "
            "left alone, and nothing was created.",
            "Find out who made it; after cancel_batch the same order can be submitted again.",
        )
    if not search.is_conclusive:
        raise Unproved(
            f"Whether a job of {batch.id} exists at Gemini is unknown, and Gemini's list cannot be read: it was not "
            "created.",
            "Submit the same order again later.",
        )


async def _look_once(app: App, batch: BatchEntry, job: JobEntry) -> None:
    """Look for a job whose create has left; that one was refused is certain once the list can lag no more."""
    search = await find_sent(app, batch, job, for_seconds=0.0)
    if search.found is not None:
        await record(app, job, search.found)
    elif job.stage is Stage.FAILED and search.is_conclusive and not search.other and not lag_seconds_left(app, job):
        await in_thread(app.ledger.move_job, job.id, expected=job.stage, stage=job.stage, sent_at=None)


def lag_seconds_left(app: App, job: JobEntry) -> float:
    """Return for how long Gemini's list may still be without a job that was created; all of it by a wrong clock."""
    most = timedelta(seconds=app.settings.reconcile_seconds)
    passed = datetime.now(UTC) - job.sent_at if job.sent_at is not None else timedelta(0)
    return (most - passed if passed >= timedelta(0) else most).total_seconds() if passed < most else 0.0


def _may_show_output(job: JobEntry) -> bool:
    """True for an ended job without output that Gemini may still show one of: SUCCEEDED comes before it."""
    if job.stage is Stage.FINISHED and job.lack is Lack.OUTPUT and has_rows(job):
        return True
    # Whether a stopped job keeps the rows that it had done is documented nowhere, so that nobody waits for them.
    is_stopped = job.stage is Stage.CANCELLED or (job.stage is Stage.FINISHED and job.state is JobState.EXPIRED)
    was_begun = bool(job.name and job.counts.succeeded + job.counts.failed) and not job.responses_file
    return is_stopped and was_begun and since_end(job, datetime.now(UTC)) < LATE_FILE


class ChangedMeanwhile(BatchError):
    """A job has left the stage in which it was read, by a cancel in another process say: nothing more is sent."""


async def move(app: App, job: JobEntry, stage: Stage, **values: Any) -> JobEntry:
    """Move a job to another stage and return it as it is then.

    Raises:
        ChangedMeanwhile: it is not in the stage any more in which it was read.
    """
    moved = await in_thread(app.ledger.move_job, job.id, expected=job.stage, stage=stage, **values)
    if not moved:
        raise changed_meanwhile(job.batch_id)
    return replace(job, stage=stage, **values)


def changed_meanwhile(batch_id: str) -> ChangedMeanwhile:
    """Return the error for a batch that somebody else has changed."""
    return ChangedMeanwhile(
        f"{batch_id} was changed while it was being submitted.", "Call check_status to see its state."
    )


async def load(app: App, batch_id: str) -> BatchEntry:
    """Return a batch that was in the ledger.

    Raises:
        BatchGone: it was deleted in the meantime.
    """
    batch = await in_thread(_read, app, batch_id)
    if batch is None:
        raise BatchGone(batch_id)
    return batch


def _read(app: App, batch_id: str) -> BatchEntry | None:
    """Return a batch with how its rows ended and whether its requests are kept, None when there is no such id."""
    batch = app.ledger.batch(batch_id)
    if batch is None:
        return None
    return replace(with_rows(app, batch), lacks_requests=batch.is_submitted and not is_kept(app, batch))


async def reread(app: App, job: JobEntry) -> JobEntry:
    """Return a job as the ledger has it now."""
    return next(now for now in (await load(app, job.batch_id)).jobs if now.id == job.id)


async def current(app: App, batch_id: str) -> BatchEntry:
    """Return a batch as it is to be shown: while its create is being sent, nothing about it is lost yet."""
    batch = await load(app, batch_id)
    if not await in_thread(_is_being_submitted, app, batch):
        return batch
    jobs = (replace(job, stage=Stage.UPLOADED) if job.is_unknown else job for job in batch.jobs)
    return replace(batch, jobs=tuple(jobs))


def _is_being_submitted(app: App, batch: BatchEntry) -> bool:
    """True while this process or another one is at it."""
    if batch.is_submitted:
        return False
    return app.work.is_running(f"submit {batch.id}") or is_locked(app, batch.id)


def describe(batch: BatchEntry) -> BatchStatus:
    """Sum up a batch from what the ledger holds."""
    now = datetime.now(UTC)
    state = batch_state(batch)
    started = min((job.created_at for job in batch.jobs if job.created_at), default=batch.created_at)
    ended = max((job.ended_at for job in batch.jobs if job.ended_at), default=None)
    counts = batch_counts(batch)
    is_open = state not in (JobState.QUEUED, JobState.UNSPECIFIED) and not state.is_terminal
    age = _run_time(batch) if ended and state.is_terminal else now - started
    missing = undelivered(batch)
    return BatchStatus(
        batch=batch,
        state=state,
        counts=counts,
        progress=newest_counts(batch),
        done=state.is_terminal,
        results_ready=any(
            job.stage in (Stage.FINISHED, Stage.COLLECTED) and has_rows(job) for job in batch.jobs if job not in missing
        ),
        age_seconds=max(0, int(age.total_seconds())),
        created_at=batch.created_at if batch.is_ours else started,
        ended_at=ended if state.is_terminal else None,
        expires_at=started + life_of(batch.jobs) if is_open and not batch.is_now else None,
        advice=advice(batch, state, counts, newest_counts(batch), age),
        look_again_at=min((job.look_again_at for job in missing if job.look_again_at), default=None),
    )


def _run_time(batch: BatchEntry) -> timedelta:
    """Return how long Gemini worked on a batch, without the pauses between its attempts."""
    time = timedelta(0)
    for attempt in {job.attempt for job in batch.jobs}:
        timed = [job for job in batch.jobs if job.attempt == attempt and job.created_at and job.ended_at]
        began = min((job.created_at for job in timed if job.created_at), default=None)
        ended = max((job.ended_at for job in timed if job.ended_at), default=None)
        time += ended - began if began and ended else timedelta(0)
    return time
