"""Delivered, not ended: when the answers of an ended job are all here, when to look again, and how to say it.

Gemini shows a job as succeeded before its output is there, and a body that ends early in good form looks whole. The
only truth about the number of answers is the job's own counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from gemini_batch_mcp.batches.jobs.pauses import GROWTH, MAX_PAUSE_SECONDS
from gemini_batch_mcp.batches.ledger.entries import BatchEntry, JobEntry, Lack, Stage
from gemini_batch_mcp.domain import JobState
from gemini_batch_mcp.text import count

#: A result file that is not there is taken for late in this time after the end, later on for gone (our choice).
LATE_FILE: Final = timedelta(hours=1)
#: Answers are expected for so long after the end (our choice; users report seconds to minutes).
LATE_ANSWERS: Final = timedelta(hours=24)
_ALL_TRIED: Final = frozenset({JobState.SUCCEEDED, JobState.PARTIALLY_SUCCEEDED})
#: Enough for any pause to reach its ceiling.
_MOST_GROWTHS: Final = 40


@dataclass(frozen=True, slots=True)
class Body:
    """What came as the answers of one job: how many can be read, whether the last line is whole, and the digest."""

    answer_count: int
    is_whole: bool
    digest: str


def has_rows(job: JobEntry) -> bool:
    """True when a finished job is worth collecting: one that expired without output has no answers, and gets none."""
    return job.state is not JobState.EXPIRED or job.lack is not Lack.OUTPUT


def left_nothing(job: JobEntry) -> bool:
    """True for a job that ended early and gives out no answers, however many rows Gemini had finished by then."""
    return job.stage is Stage.CANCELLED or not has_rows(job)


def is_undelivered(job: JobEntry) -> bool:
    """True while answers that Gemini counts are not here, although they have been looked for."""
    return job.stage is Stage.FINISHED and bool(job.lack) and has_rows(job)


def undelivered(batch: BatchEntry) -> tuple[JobEntry, ...]:
    """Return the ended jobs of a batch whose answers were looked for and are not here."""
    return tuple(job for job in batch.jobs if is_undelivered(job))


def can_fetch(job: JobEntry, now: datetime) -> bool:
    """True when the answers of a job may be there to fetch, and it is time to try."""
    if job.stage is not Stage.FINISHED or not has_rows(job) or job.lack is Lack.OUTPUT:
        return False
    return not job.lack or is_due(job, now)


def is_due(job: JobEntry, now: datetime) -> bool:
    """True when it is time to look for a job's answers again; also when the clock was set back meanwhile."""
    again = job.look_again_at
    return again is None or not timedelta(0) < again - now <= timedelta(seconds=2 * MAX_PAUSE_SECONDS)


def next_look(job: JobEntry, now: datetime, poll_seconds: float) -> datetime:
    """Return when a job is looked at again after a look at `now` that found something missing."""
    pause_seconds = min(poll_seconds * GROWTH ** min(job.looks, _MOST_GROWTHS), MAX_PAUSE_SECONDS)
    return now + timedelta(seconds=pause_seconds)


def since_end(job: JobEntry, now: datetime) -> timedelta:
    """Return for how long a job has been ended."""
    ended = job.ended_at or job.moved_at or now
    return max(now - ended, timedelta(0))


def is_overdue(job: JobEntry, now: datetime) -> bool:
    """True when answers that are still not here are not expected any more."""
    return since_end(job, now) >= LATE_ANSWERS


def counted(job: JobEntry) -> int:
    """Return how many answers there have to be: as many as Gemini counts; where it does not, as many as were sent.

    0 when nobody knows, and for a job that was stopped before any row.
    """
    done = job.counts.succeeded + job.counts.failed
    if done or job.state not in _ALL_TRIED:
        return done
    return job.request_count or job.counts.total


def lack_of(job: JobEntry, body: Body, now: datetime) -> Lack:
    """Return what is missing in a body that came as the answers of a job.

    Fewer answers than are counted are taken for all that Gemini has when they are the same bytes as at the look before,
    or when no more are expected.
    """
    wanted = counted(job) or (1 if job.state in _ALL_TRIED else 0)
    if wanted and not body.answer_count:
        return Lack.ANSWERS
    if is_overdue(job, now):
        return Lack.NOTHING
    if not body.is_whole:
        return Lack.END
    if body.answer_count >= wanted or body.digest == job.seen_digest:
        return Lack.NOTHING
    return Lack.LINES


def lost_answers(batch: BatchEntry) -> int:
    """Return how many answers Gemini counts and has not delivered, over the jobs whose answers are here."""
    return sum(
        max(0, counted(job) - job.answer_count)
        for job in batch.jobs
        if job.stage is Stage.COLLECTED and job.answer_count is not None
    )


def not_there_yet(jobs: Sequence[JobEntry], now: datetime) -> str:
    """Say which answers are not here, why, and when they are looked for again; `jobs` are undelivered ones."""
    rows = sum(counted(job) or job.request_count for job in jobs)
    answers = f"The answers of {rows:,} rows" if rows != 1 else "The answer of 1 row"
    are = "are" if rows != 1 else "is"
    job = jobs[0]
    if all(is_overdue(job, now) for job in jobs):
        hours = int(min(since_end(job, now) for job in jobs).total_seconds() // 3600)
        return (
            f"{answers} {are} still not there, {hours} hours after Gemini ended {job.name}: {_WHY[job.lack](job)}. "
            "They may be lost at Gemini."
        )
    again = min((job.look_again_at for job in jobs if job.look_again_at), default=now)
    return (
        f"{answers} {are} not there yet: {_WHY[job.lack](job)}. Nothing is lost and nothing needs resending; "
        f"the next look is at {max(again, now):%H:%M:%S} UTC."
    )


_WHY: Final = {
    Lack.NOTHING: lambda job: f"those of {job.name} have not been fetched",
    Lack.OUTPUT: lambda job: f"Gemini shows {job.name} as {job.state} and no output so far",
    Lack.FILE: lambda job: f"the result file that Gemini names for {job.name} cannot be downloaded so far (404)",
    Lack.ANSWERS: lambda job: (
        f"Gemini counts {count(counted(job), 'row')} of {job.name} as done, and what was downloaded holds no answers "
        "(an empty file, or the page of a network that asks for a sign-in)"
    ),
    Lack.END: lambda job: (
        f"Gemini counts {count(counted(job), 'row')} of {job.name} as done, and the download ended in the middle of a "
        f"line after {count(job.answer_count or 0, 'answer')}"
    ),
    Lack.LINES: lambda job: (
        f"Gemini counts {count(counted(job), 'row')} of {job.name} as done, and "
        f"{count(job.answer_count or 0, 'answer')} came"
    ),
}


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)
