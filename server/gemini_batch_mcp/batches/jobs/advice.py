"""What to do next with a batch, in a few sentences for an assistant: never a guess about what is not known."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from gemini_batch_mcp.batches.jobs.delivery import has_rows, is_overdue, not_there_yet, undelivered
from gemini_batch_mcp.batches.jobs.rows import is_collected
from gemini_batch_mcp.batches.ledger.entries import BatchEntry, JobEntry, Stage
from gemini_batch_mcp.domain import JobState, RowCounts
from gemini_batch_mcp.text import count, share

#: Pending or running for longer than this, a job expires without results (batch guide and SDK enum, 2026-09).
EXPIRES_AFTER = timedelta(hours=48)
#: A job on Google Cloud waits for up to 72 hours, and then has 24.
EXPIRES_IN_CLOUD = timedelta(hours=96)
#: The target that Google states for a batch; most finish far sooner (batch guide, 2026-09).
TARGET = timedelta(hours=24)
#: Without a change for so long, a job is said not to move (our choice: users report jobs that sat still for hours).
STILL_AFTER = timedelta(hours=3)
_ANEW = "The requests are not stored here: submit these rows again from their source."
_INTERRUPTED = (
    "The submission was interrupted before a job was created; nothing is charged for what was not submitted. "
    "It continues by itself while a server runs, with gemini-batch-mcp collect, or when the same order is resubmitted."
)

#: What a job's google.rpc code usually means, and what helps (words of ours).
_CAUSES = {
    3: "Gemini could not use the request file: correct the lines and submit again.",
    5: "A model, file or cache that the requests name does not exist: correct that and submit again.",
    7: "The key lacks permission: check its project, then submit again.",
    8: "A quota was exhausted: {again}, later or with fewer rows.",
    13: "Gemini had an internal error: {again}.",
    14: "Gemini was unavailable: {again}.",
}
#: How rows may have ended that are not ok, as `RowOutcomes` and the table call it.
_TROUBLES = ("failed", "blocked", "truncated", "empty", "missing")


def advice(batch: BatchEntry, state: JobState, counts: RowCounts, progress: RowCounts, age: timedelta) -> str:
    """Say what to do next, in a few sentences; only what can be done with what is kept here.

    `counts` are those of the batch, `progress` those of the rows that were sent last.
    """
    if batch.forgotten:
        return batch.forgotten
    unspecified = (job.wire_state for job in batch.jobs if job.state is JobState.UNSPECIFIED)
    if unknown := next(filter(None, unspecified), ""):
        return (
            f"Gemini reports the state {unknown!r}, which this version does not know; the batch is not treated as "
            "finished. Call check_status again later."
        )
    if state.is_terminal and (missing := undelivered(batch)):
        now = datetime.now(UTC)
        return f"{not_there_yet(missing, now)} {next_step(batch, now)}"
    if state.is_terminal:
        return _after_the_end(batch, state, counts)
    match state:
        case JobState.UNSPECIFIED:
            return (
                "The reply to the create call was lost, and no such job is in Gemini's list so far. check_status looks "
                "again each time. If it stays absent, submit the same order again: it looks once more before creating."
            )
        case JobState.QUEUED:
            return (
                _withdrawn(batch)
                or _waiting(batch)
                or batch.failure
                or ("The requests are being sent to Gemini. Call check_status with wait_seconds=30.")
            )
        case JobState.CANCELLING if batch.is_now:
            return "No further row is called. Calls already sent still finish; call check_status again."
        case JobState.CANCELLING:
            return "Gemini is cancelling the job; rows in flight still finish. Call check_status again."
        case JobState.PAUSED:
            otherwise = ", or cancel_batch" if batch.can_be_sent_again else ""
            return f"Gemini has paused the job without giving a reason. Call check_status again later{otherwise}."
        case _:
            said = (_progress(batch, state, progress, age), _withdrawn(batch) or _waiting(batch))
            return " ".join(sentence for sentence in said if sentence)


def _after_the_end(batch: BatchEntry, state: JobState, counts: RowCounts) -> str:
    has_answers = any(job.stage in (Stage.FINISHED, Stage.COLLECTED) and has_rows(job) for job in batch.jobs)
    again = "retry_failed resubmits what is missing, with another model if you like."
    again = again if batch.can_be_sent_again else _ANEW
    match state:
        case JobState.FAILED:
            return batch.failure or f"The whole job failed{_cause(batch)}"
        case JobState.EXPIRED if not has_answers:
            hours = _hours(life_of(batch.jobs))
            return f"Gemini did not finish the job within {hours} hours and keeps no results of it. {again}"
        case JobState.CANCELLED if not has_answers:
            finished = sum(job.counts.succeeded + job.counts.failed for job in batch.jobs)
            paid = f" Gemini had finished {count(finished, 'row')} by then, and charges them; their cost is not known."
            return f"The job was cancelled and left no answers.{paid if finished else ''} {again}"
    stopped = {JobState.CANCELLED: "The job was cancelled. ", JobState.EXPIRED: "The job expired. "}.get(state, "")
    if batch.rows is not None and is_collected(batch):
        return stopped + (after_retry(batch) or what_helps(batch) or "Call get_results.")
    if batch.attempts > 1:
        return f"{stopped}The resent rows are done. Call get_results to fetch their answers."
    # Of what was left out, Gemini knows nothing.
    failed_there = counts.failed - batch.skipped_count
    sent = counts.total - batch.skipped_count - batch.reused_count - batch.identical_count
    if not failed_there and state is JobState.SUCCEEDED:
        ended = "All rows were called" if batch.is_now else "It has ended at Gemini"
        return f"{ended}; the answers are not read yet. Call get_results."
    failed = f"Gemini counts {share(failed_there, sent, 'row')} as failed. " if failed_there else ""
    retry = "; retry_failed then resends the rows without a usable answer" if batch.can_be_sent_again else ""
    return f"{stopped}{failed}Call get_results to fetch the answers and see how each row ended{retry}."


def after_retry(batch: BatchEntry) -> str:
    """Say that the last retry was in vain, and what would help; empty when it was not, or there was none."""
    if not (sent := _sent_in_vain(batch)):
        return ""
    again = f"The last retry sent {sent:,} row{'' if sent == 1 else 's'} and improved none of them."
    return f"{again} {what_helps(batch)}"


def _sent_in_vain(batch: BatchEntry) -> int:
    """Return how many rows the last retry sent, when none of them has a good answer from it; else 0."""
    rows = batch.rows
    if rows is None or rows.attempt == 1 or rows.attempt != batch.attempts or rows.gained != 0 or not rows.not_ok:
        return 0
    # One that Gemini refused as a whole has sent nothing.
    return sum(job.request_count for job in batch.jobs if job.attempt == batch.attempts and job.has_left)


def what_helps(batch: BatchEntry) -> str:
    """Say how many rows have no good answer, by their table, and what can be done about each kind; empty for none."""
    rows = batch.rows
    if rows is None or not rows.not_ok:
        return ""
    by_kind = ", ".join(f"{getattr(rows, name):,} {name}" for name in _TROUBLES if getattr(rows, name))
    said = f"{share(rows.not_ok, rows.counts().total, 'row', 'has', 'have')} no usable answer: {by_kind}."
    if not batch.can_be_sent_again:
        return f"{said} get_results with view='failures' shows them. {_ANEW}"
    passing = [name for name, count in (("failed", rows.failed - rows.permanent), ("missing", rows.missing)) if count]
    later = ", later or with another model" if _sent_in_vain(batch) else ""
    ways = (
        (
            bool(passing),
            f"{' and '.join(passing)} rows: retry_failed{later}",
        ),
        (
            rows.permanent,
            f"{rows.permanent:,} failed for a reason that resending does not change: correct them and submit them "
            "as a new order",
        ),
        (rows.blocked, "blocked rows: reword them, or call retry_failed with include=['blocked'] and another model"),
        (rows.truncated, f"truncated rows: {longer(batch)}"),
        (rows.empty, "empty rows: retry_failed with include=['empty'] and another model"),
    )
    helps = "; ".join(way for count, way in ways if count)
    if lost := sum(job.lost_rows for job in batch.jobs if job.attempt == batch.attempts):
        rows_are = "1 missing row is one" if lost == 1 else f"{lost:,} missing rows are ones"
        helps += f". {rows_are} whose reply was lost: perhaps answered and charged, and charged again by retry_failed"
    return f"{said} get_results with view='failures' shows them. What helps: {helps}."


def longer(batch: BatchEntry) -> str:
    """Say how to order rows whose answers reached the limit: a retry sends them as they are, with the same limit."""
    if batch.order is None or not batch.order.prompt:
        return "submit them again with a larger maxOutputTokens"
    settings = ", beside its other settings" if batch.order.generation_config else ""
    wish = f'generation_config={{"maxOutputTokens":…}} larger than before{settings}'
    if batch.is_sent_in_place or batch.order.attach:
        # Their rows, or the files beside them, are no source here.
        return f"create_batch with like='{batch.id}' and {wish} orders all rows again"
    truncated = f"source='{batch.id}', where=\"status = 'truncated'\""
    return f"create_batch with like='{batch.id}', {truncated} and {wish} orders these alone"


def next_step(batch: BatchEntry, now: datetime) -> str:
    """Say what to do about answers of a batch that are not delivered."""
    if not all(is_overdue(job, now) for job in undelivered(batch)):
        return "Call get_results again in a minute."
    if not batch.can_be_sent_again:
        return f"get_results looks once more. {_ANEW}"
    return "get_results looks once more; retry_failed resends these rows, and you are charged for them again."


def _progress(batch: BatchEntry, state: JobState, counts: RowCounts, age: timedelta) -> str:
    done = counts.succeeded + counts.failed
    if batch.is_now:
        tier = batch.jobs[-1].tier
        return (
            f"{share(done, counts.total, 'row', 'is', 'are')} back. They are called one by one at the {tier} tier "
            "while a server runs. Call check_status with wait_seconds=45; cancel_batch keeps the rest uncalled."
        )
    what = "retry" if batch.attempts > 1 else "job"
    doing = (
        "is waiting in Gemini's queue"
        if state is JobState.PENDING
        else f"has finished {share(done, counts.total, 'row')}"
    )
    still = _still(batch, state, age)
    if age < TARGET:
        pace = still or "batches can take up to 24 hours but usually take far less"
        return f"The {what} {doing}; {pace}. Call check_status again later."
    hours_left = max(0, _hours(life_of(batch.jobs) - age))
    otherwise = (
        "Consider cancel_batch and then retry_failed with another model, or smaller orders."
        if batch.can_be_sent_again
        else "Its requests are not stored here, so its rows could not be resent after a cancel: wait, or submit them "
        "again from their source as well."
    )
    target = f"past the 24-hour target{f'; {still}' if still else ''}"
    return f"The {what} {doing} and is {target}; in about {hours_left} hours it expires without results. {otherwise}"


def life_of(jobs: Sequence[JobEntry]) -> timedelta:
    """Return how long jobs may take, from their create on: names of Google Cloud begin with their project."""
    return EXPIRES_IN_CLOUD if any(job.name.startswith("projects/") for job in jobs) else EXPIRES_AFTER


def _hours(time: timedelta) -> int:
    return int(time.total_seconds() // 3600)


def _still(batch: BatchEntry, state: JobState, age: timedelta) -> str:
    """Say that nothing has moved for long, empty when something has."""
    moved = max((job.moved_at for job in batch.jobs if job.moved_at), default=None)
    still = datetime.now(UTC) - moved if moved is not None else age
    if still < STILL_AFTER:
        return ""
    hours = int(still.total_seconds() // 3600)
    if state is JobState.PENDING:
        return f"it has been pending for {hours} hours, which happens at busy times; another model may be faster"
    return f"nothing has changed for {hours} hours; Gemini's counts may lag"


def _waiting(batch: BatchEntry) -> str:
    """Say why jobs wait here and when they are tried again, empty when none does."""
    waiting = [job for job in batch.jobs if job.is_waiting]
    if not waiting:
        return ""
    until = min((job.wait_until for job in waiting if job.wait_until), default=None)
    then = f", next try at {until:%H:%M:%S} UTC" if until is not None else ""
    if batch.is_now:
        return f"{waiting[0].wait_reason}{then}. Nothing is charged for that, and nothing needs to be done."
    return (
        f"{share(len(waiting), len(batch.jobs), 'job', 'waits', 'wait')} here: {waiting[0].wait_reason}{then}. "
        "Nothing needs to be done: a running server submits them, or check_status, or gemini-batch-mcp collect."
    )


def _withdrawn(batch: BatchEntry) -> str:
    """Say which jobs are not sent because the client of their call took it back, empty when none is."""
    withdrawn = [job for job in batch.jobs if job.withdrawn_at is not None]
    if not withdrawn:
        return ""
    return (
        f"{share(len(withdrawn), len(batch.jobs), 'job', 'was', 'were')} not sent: the call "
        "was cancelled by its client. The same call, made again, sends them; cancel_batch drops them."
    )


def _cause(batch: BatchEntry) -> str:
    error = next((job.error for job in batch.jobs if job.error), None)
    if error is None:
        return ". Correct the cause and submit again."
    again = (
        "call retry_failed, which resends only what is missing" if batch.can_be_sent_again else "submit the rows again"
    )
    helps = _CAUSES.get(error.code, "Correct the cause and submit again.").format(again=again)
    return f" (code {error.code}: {error.message}). {helps}"


def interrupted(batch: BatchEntry) -> str:
    """Say that a submission stopped in the middle, empty when it did not, or only waits."""
    stopped = any(
        job.stage in (Stage.RESERVED, Stage.UPLOADED) and not job.is_waiting and job.withdrawn_at is None
        for job in batch.jobs
    )
    return _INTERRUPTED if stopped else ""
