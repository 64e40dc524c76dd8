"""What to do next with a batch, in a few sentences for an assistant: never a guess about what is not known."""

from datetime import UTC, datetime, timedelta

from gemini_batch_mcp.batches.jobs.delivery import is_overdue, not_there_yet, undelivered
from gemini_batch_mcp.batches.ledger.entries import BatchEntry, Stage
from gemini_batch_mcp.domain import JobState, RowCounts

#: Pending or running for longer than this, a job expires without results (batch guide and SDK enum, 2026-09).
EXPIRES_AFTER = timedelta(hours=48)
#: The target that Google states for a batch; most finish far sooner (batch guide, 2026-09).
TARGET = timedelta(hours=24)
#: Without a change for so long, a job is said not to move (our choice: users report jobs that sat still for hours).
STILL_AFTER = timedelta(hours=3)
_INTERRUPTED = (
    "The submission was interrupted before a job was created; nothing is charged for what was not submitted. "
    "It continues by itself while a server runs, with gemini-batch-mcp collect, or when the same order is given again."
)


#: What a job's google.rpc code usually means, and what helps (words of ours).
_CAUSES = {
    3: "Gemini could not use the request file: correct the lines and order again.",
    5: "A model, file or cache that the requests name is not there: correct that and order again.",
    7: "The key may not do this: check the key's project, then order again.",
    8: "A quota was used up: call retry_failed later, or order fewer rows.",
    13: "An error inside Gemini: call retry_failed, it sends only what is missing.",
    14: "Gemini was not available: call retry_failed, it sends only what is missing.",
}


def advice(batch: BatchEntry, state: JobState, counts: RowCounts, age: timedelta) -> str:
    """Say what to do next, in at most four sentences."""
    if batch.forgotten:
        return batch.forgotten
    unspecified = (job.wire_state for job in batch.jobs if job.state is JobState.UNSPECIFIED)
    if unknown := next(filter(None, unspecified), ""):
        return (
            f"Gemini reports the state {unknown!r}, which this version does not know; it is not taken as finished. "
            "Call check_status again later."
        )
    if state.is_terminal and (missing := undelivered(batch)):
        now = datetime.now(UTC)
        return f"{not_there_yet(missing, now)} {next_step(batch, now)}"
    match state:
        case JobState.UNSPECIFIED:
            return (
                "The reply to the create was lost, and no such job is in Gemini's list so far. check_status looks "
                "again each time. If it stays absent, give the same order again: it looks once more before it creates."
            )
        case JobState.QUEUED:
            return (
                _waiting(batch)
                or batch.failure
                or ("The requests are on their way to Gemini. Call check_status with wait_seconds=30.")
            )
        case JobState.SUCCEEDED | JobState.PARTIALLY_SUCCEEDED if counts.failed:
            return (
                f"{counts.failed} of {counts.total} rows failed. Call get_results with view='failures' to see them; "
                "retry_failed sends just those again."
            )
        case JobState.SUCCEEDED:
            return "Call get_results."
        case JobState.PARTIALLY_SUCCEEDED:
            return "Call get_results; retry_failed sends again what is missing."
        case JobState.FAILED:
            return batch.failure or f"The job failed as a whole{_cause(batch)}"
        case JobState.EXPIRED:
            return (
                "Gemini did not finish the job within 48 hours and keeps no results of it. "
                "retry_failed orders what is missing, also with another model."
            )
        case JobState.CANCELLED if any(job.stage in (Stage.FINISHED, Stage.COLLECTED) for job in batch.jobs):
            return "The job was cancelled; get_results has the rows that had finished, retry_failed orders the others."
        case JobState.CANCELLED:
            return "The job was cancelled, and no rows of it were kept."
        case JobState.CANCELLING:
            return "Gemini is cancelling the job; rows in flight still finish. Call check_status again."
        case JobState.PAUSED:
            return "Gemini holds the job back and gives no reason. Call check_status again later, or cancel_batch."
        case _:
            said = (_progress(batch, state, counts, age), _waiting(batch))
            return " ".join(sentence for sentence in said if sentence)


def next_step(batch: BatchEntry, now: datetime) -> str:
    """Say what to do about answers of a batch that are not delivered."""
    if not all(is_overdue(job, now) for job in undelivered(batch)):
        return "Call get_results again in a minute."
    if not batch.is_ours or not batch.order_sha256:
        return (
            "get_results looks once more; the requests are not kept here, so order these rows again from their source."
        )
    return "get_results looks once more; retry_failed sends these rows again, and they are charged again."


def _progress(batch: BatchEntry, state: JobState, counts: RowCounts, age: timedelta) -> str:
    done = counts.succeeded + counts.failed
    doing = "waits for its turn" if state is JobState.PENDING else f"has done {done} of {counts.total} rows"
    still = _still(batch, state, age)
    if age < TARGET:
        pace = still or "batches may take up to 24 hours, most take far less"
        return f"The job {doing}; {pace}. Call check_status again later."
    hours_left = max(0, int((EXPIRES_AFTER - age).total_seconds() // 3600))
    return (
        f"The job {doing} and is past the 24-hour target{f'; {still}' if still else ''}; in about {hours_left} hours "
        "it expires without results. Consider cancel_batch and then retry_failed with another model, or smaller orders."
    )


def _still(batch: BatchEntry, state: JobState, age: timedelta) -> str:
    """Say that nothing has moved for long, empty when something has."""
    moved = max((job.moved_at for job in batch.jobs if job.moved_at), default=None)
    still = datetime.now(UTC) - moved if moved is not None else age
    if still < STILL_AFTER:
        return ""
    hours = int(still.total_seconds() // 3600)
    if state is JobState.PENDING:
        return f"it has been pending for {hours} hours, as others see at busy times; another model may be faster"
    return f"nothing has moved for {hours} hours; Gemini's counts may lag behind"


def _waiting(batch: BatchEntry) -> str:
    """Say why jobs wait here and when they are tried again, empty when none does."""
    waiting = [job for job in batch.jobs if job.is_waiting]
    if not waiting:
        return ""
    until = min((job.wait_until for job in waiting if job.wait_until), default=None)
    then = f", next try at {until:%H:%M:%S} UTC" if until is not None else ""
    return (
        f"{len(waiting)} of {len(batch.jobs)} jobs wait here: {waiting[0].wait_reason}{then}. "
        "Nothing needs to be done: a running server submits them, or check_status, or gemini-batch-mcp collect."
    )


def _cause(batch: BatchEntry) -> str:
    error = next((job.error for job in batch.jobs if job.error), None)
    if error is None:
        return ". Correct the cause and order again."
    return f" (code {error.code}: {error.message}). {_CAUSES.get(error.code, 'Correct the cause and order again.')}"


def interrupted(batch: BatchEntry) -> str:
    """Say that a submission stopped in the middle, empty when it did not, or only waits."""
    stopped = any(job.stage in (Stage.RESERVED, Stage.UPLOADED) and not job.is_waiting for job in batch.jobs)
    return _INTERRUPTED if stopped else ""
