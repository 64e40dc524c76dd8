"""One truth about rows: how they ended by the result table, kept in the ledger so that whoever counts says the same.

Until answers are here a batch's counts are Gemini's; from then on they are the table's, with all attempts merged.
"""

from dataclasses import replace
from datetime import date

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.jobs.delivery import has_rows, left_nothing
from gemini_batch_mcp.batches.ledger.entries import BatchEntry, Charge, JobEntry, Stage
from gemini_batch_mcp.domain import JobState, ResultSummary, RowCounts, Usage
from gemini_batch_mcp.errors import StorageError
from gemini_batch_mcp.intake.prices.price_list import CallTier
from gemini_batch_mcp.results.store import ResultTable

_USEFUL = frozenset({JobState.SUCCEEDED, JobState.PARTIALLY_SUCCEEDED})


def table_summary(app: App, batch_id: str) -> ResultSummary | None:
    """Return what is counted in the result table of a batch, None when there is none that can be read."""
    try:
        return ResultTable.open(app.files(batch_id).table).summary()
    except StorageError:
        return None


def with_rows(app: App, batch: BatchEntry) -> BatchEntry:
    """Return a batch with how its rows ended, also when its table was made by a version that did not note it."""
    is_noted = batch.rows is not None and batch.charges is not None
    if is_noted or not any(job.stage is Stage.COLLECTED for job in batch.jobs):
        return batch
    summary = table_summary(app, batch.id)
    return batch if summary is None else note_rows(app, batch, summary)


def note_rows(app: App, batch: BatchEntry, summary: ResultSummary) -> BatchEntry:
    """Return a batch with how its rows ended and what is billed, and note it where the ledger has it otherwise."""
    rows, charges = summary.outcomes, charges_of(batch, summary)
    if (batch.rows, batch.charges) == (rows, charges):
        return batch
    app.ledger.record_collected(batch.id, rows, charges, {})
    return replace(batch, rows=rows, charges=charges)


def charges_of(batch: BatchEntry, summary: ResultSummary) -> tuple[Charge, ...]:
    """Return what is billed for the answers in a batch's table, each attempt by the model that it asked."""
    charges: list[Charge] = []
    none = (Usage(),) * len(summary.attempt_usage)
    wasted = summary.attempt_wasted or none
    for attempt, (usage, lost) in enumerate(zip(summary.attempt_usage, wasted, strict=True), 1):
        model, sent_on, tier = asked_of(batch, attempt)
        charges.append(Charge(attempt, model, sent_on, usage, lost, tier))
    return tuple(charges)


def asked_of(batch: BatchEntry, attempt: int) -> tuple[str, date, CallTier]:
    """Return the model that an attempt asked, the day on which it was sent, and at which tier its rows were called."""
    job = next((job for job in batch.jobs if job.attempt == attempt), None)
    model = job.model if job is not None and job.model else batch.model
    sent_at = job.created_at if job is not None and job.created_at else batch.created_at
    return model, sent_at.date(), job.tier if job is not None else ""


def batch_counts(batch: BatchEntry) -> RowCounts:
    """Return the counts of a batch: those of its table, and before there is one those of Gemini.

    Rows that were left out of the order as wrong have failed from the beginning; those that were answered before have
    their answers. Which of the others ask the same as one that failed, Gemini does not know: they are open until then.

    Rows that are being sent again count as they stand in the table, until there are new answers.
    """
    if batch.rows is not None:
        return batch.rows.counts()
    counts = _gemini_counts(batch)
    skipped, reused, identical = batch.skipped_count, batch.reused_count, batch.identical_count
    are_good = counts.succeeded == counts.total and bool(counts.total)
    return RowCounts(
        total=counts.total + skipped + reused + identical,
        succeeded=counts.succeeded + reused + (identical if are_good else 0),
        failed=counts.failed + skipped,
        pending=counts.pending + (0 if are_good else identical),
    )


def newest_counts(batch: BatchEntry) -> RowCounts:
    """Return how far Gemini is, by its own count, with the rows that were sent last: of the newest attempt."""
    return _sum_counts([job for job in batch.jobs if job.attempt == batch.attempts])


def batch_state(batch: BatchEntry) -> JobState:
    """Return the one state that sums up a batch: of its jobs, and of its rows once their answers are here."""
    state = _jobs_state(batch)
    if not state.is_terminal or batch.rows is None or not is_collected(batch):
        return state
    if batch.rows.are_all_ok:
        return JobState.SUCCEEDED
    return JobState.PARTIALLY_SUCCEEDED if state in _USEFUL else state


def is_collected(batch: BatchEntry) -> bool:
    """True when no answers that Gemini has are missing here."""
    return not any(job.stage is Stage.FINISHED and has_rows(job) for job in batch.jobs)


def _jobs_state(batch: BatchEntry) -> JobState:
    states = {job.shown_state for job in _counting_jobs(batch)}
    if len(states) == 1:
        return states.pop()
    if all(state.is_terminal for state in states):
        return JobState.PARTIALLY_SUCCEEDED if states & _USEFUL else JobState.FAILED
    for state in (JobState.UNSPECIFIED, JobState.CANCELLING, JobState.RUNNING):
        if state in states:
            return state
    return JobState.RUNNING if any(state.is_terminal for state in states) else JobState.PENDING


def _counting_jobs(batch: BatchEntry) -> tuple[JobEntry, ...]:
    """Return the jobs that say how a batch stands: one that came to nothing does not, once its rows were sent again.

    Nor does a retry that Gemini refused as a whole.
    """
    came_to_be = {1} | {job.attempt for job in batch.jobs if job.has_left or job.stage is not Stage.FAILED}
    batch = replace(batch, jobs=tuple(job for job in batch.jobs if job.attempt in came_to_be))
    retried = any(job.attempt > 1 and job.state is not JobState.FAILED for job in batch.jobs)
    if not retried:
        return batch.jobs
    came_to_something = tuple(
        job for job in batch.jobs if job.attempt == batch.attempts or (has_rows(job) and job.stage is not Stage.FAILED)
    )
    return came_to_something or batch.jobs


def _gemini_counts(batch: BatchEntry) -> RowCounts:
    """Sum up rows as Gemini counts them; a row that was sent again counts once, with the better of its outcomes."""
    jobs = [_as_delivered(job) for job in batch.jobs]
    first = _sum_counts([job for job in jobs if job.attempt == 1])
    if batch.attempts == 1:
        return first
    succeeded = min(first.total, sum(job.counts.succeeded for job in jobs))
    open_rows = sum(job.request_count for job in batch.jobs if not job.state.is_terminal)
    pending = min(first.total - succeeded, open_rows)
    return RowCounts(first.total, succeeded, first.total - succeeded - pending, pending)


def _as_delivered(job: JobEntry) -> JobEntry:
    """Return a job with no good rows where it gives out no answers: what Gemini had finished, nobody gets to see."""
    if not left_nothing(job):
        return job
    total = job.counts.total or job.request_count
    return replace(job, counts=RowCounts(total, succeeded=0, failed=total, pending=0))


def _sum_counts(jobs: list[JobEntry]) -> RowCounts:
    total = sum(job.counts.total or job.request_count for job in jobs)
    succeeded = sum(job.counts.succeeded for job in jobs)
    failed = sum(job.counts.failed for job in jobs)
    return RowCounts(total, succeeded, failed, max(0, total - succeeded - failed))
