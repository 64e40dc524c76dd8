"""Whether Gemini has room for one more job: the enqueued tokens counted here, and what its refusals say."""

from datetime import UTC, datetime, timedelta

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.jobs.advice import EXPIRES_AFTER
from gemini_batch_mcp.batches.jobs.pauses import GROWTH, MAX_PAUSE_SECONDS, jittered
from gemini_batch_mcp.batches.ledger.entries import BatchEntry, JobEntry, Stage
from gemini_batch_mcp.batches.orders.pricing import job_limits, read_prices
from gemini_batch_mcp.errors import QuotaExhausted
from gemini_batch_mcp.threads import in_thread

_MOST_GROWTHS = 100
#: A job is tried again after so long, whatever the advice was: a refusal costs nothing (our choice).
_LONGEST_WAIT = timedelta(hours=1)


def is_due(job: JobEntry) -> bool:
    """True unless the job was withdrawn, or told to wait for a time that has not come.

    A time out of reach was set by a wrong clock.
    """
    if job.withdrawn_at is not None:
        return False
    return job.wait_until is None or not timedelta() < job.wait_until - datetime.now(UTC) <= _LONGEST_WAIT


async def enqueued_tokens(app: App, model: str) -> int:
    """Return the input tokens that wait at Gemini for a model, by the estimates of this ledger.

    A job that Gemini has forgotten is never seen to end; from its expiry on it takes up no room.
    """
    since = datetime.now(UTC) - EXPIRES_AFTER
    return await in_thread(app.ledger.enqueued_tokens, model, app.account, since=since)


async def hold_back(app: App, batch: BatchEntry, job: JobEntry) -> bool:
    """Let a job wait here while others of its model fill the limit; a job that stands alone always goes."""
    model = job.model or batch.model
    limit = job_limits(app, await read_prices(app), model).max_tokens
    enqueued = await enqueued_tokens(app, model)
    if not enqueued or enqueued + job.input_tokens <= limit:
        return False
    reason = (
        f"{enqueued:,} input tokens of {model} are enqueued, and {job.input_tokens:,} more would exceed the limit of "
        f"{limit:,}; it is submitted when others end"
    )
    await _wait(app, job, reason, None)
    return True


async def wait_for_quota(app: App, job: JobEntry, refusal: QuotaExhausted) -> None:
    """Let a job wait that Gemini has refused for a quota: for as long as Gemini says, or longer each time."""
    seconds = refusal.retry_after_seconds
    if seconds is None:
        # The exponent has a bound because a float does: waits are counted for as long as it takes.
        seconds = min(app.settings.poll_seconds * GROWTH ** min(job.waits, _MOST_GROWTHS), MAX_PAUSE_SECONDS)
    # Never shorter: Gemini's own advice is the least that helps, and before its list can lag no more, a look at it
    # would have to be repeated.
    seconds = max(seconds, app.settings.reconcile_seconds) if job.is_unproved else seconds
    seconds = min(jittered(seconds, low=1.0), _LONGEST_WAIT.total_seconds())
    quota = f" ({refusal.quota_id})" if refusal.quota_id else ""
    reason = f"Gemini has no quota left for it{quota}"
    await _wait(app, job, reason, datetime.now(UTC) + timedelta(seconds=seconds), waits=job.waits + 1)


async def _wait(app: App, job: JobEntry, reason: str, until: datetime | None, waits: int | None = None) -> None:
    values = {"waits": waits} if waits is not None else {}
    await in_thread(
        app.ledger.move_job,
        job.id,
        expected=job.stage,
        stage=job.stage,
        wait_reason=reason,
        wait_until=until,
        **values,
    )


def can_submit(job: JobEntry) -> bool:
    """True for a job that somebody who looks may try to submit now, without the user giving the order again."""
    return job.stage in (Stage.RESERVED, Stage.UPLOADED) and is_due(job)
