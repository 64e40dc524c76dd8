"""How a job moves: pure functions from a job, the configuration and the time to what a reader sees next."""

import dataclasses
import re
from dataclasses import dataclass
from typing import Final, Literal

from gemini_batch_mcp.sandbox.config import (
    NANOSECONDS,
    ByReads,
    ByTime,
    OnCommand,
    RowFault,
    SandboxConfig,
)
from gemini_batch_mcp.sandbox.state import JobRecord

PENDING: Final = "BATCH_STATE_PENDING"
RUNNING: Final = "BATCH_STATE_RUNNING"
SUCCEEDED: Final = "BATCH_STATE_SUCCEEDED"
FAILED: Final = "BATCH_STATE_FAILED"
CANCELLED: Final = "BATCH_STATE_CANCELLED"
EXPIRED: Final = "BATCH_STATE_EXPIRED"
TERMINAL: Final = frozenset({SUCCEEDED, FAILED, CANCELLED, EXPIRED, "BATCH_STATE_PARTIALLY_SUCCEEDED"})

#: Words in a job's display name that decide how it ends, for users who reach the sandbox on a port only.
_ENDINGS: Final = {
    "[[sandbox:job-failed]]": FAILED,
    "[[sandbox:job-expired]]": EXPIRED,
}
_STUCK: Final = "[[sandbox:job-stuck]]"
#: The same for how long after its end a job shows no output, and its result file is not there.
_LAG: Final = re.compile(r"\[\[sandbox:(output|file)-lag:(\d+(?:\.\d+)?)\]\]")
#: The part of a timed job's life that it waits before its first row.
_PENDING_SHARE: Final = 0.1

Ending = Literal["BATCH_STATE_SUCCEEDED", "BATCH_STATE_FAILED", "BATCH_STATE_CANCELLED", "BATCH_STATE_EXPIRED"]


@dataclass(frozen=True, slots=True)
class Look:
    """What a read finds: the job as it is, or that it ended (`ending`, at `end_ns`) and has yet to be wound up."""

    job: JobRecord
    ending: str = ""
    end_ns: int = 0


def look(job: JobRecord, config: SandboxConfig, now_ns: int) -> Look:
    """Return the job as a read at `now_ns` finds it; `job.reads` already counts this read."""
    if job.is_done or job.held:
        return Look(job)
    timed_end_ns = _timed_end_ns(job, config)
    if job.cancel_ns and not isinstance(config.pace, OnCommand):
        cancelled_ns = job.cancel_ns + round(config.cancel_seconds * NANOSECONDS)
        if cancelled_ns <= now_ns and not (timed_end_ns and timed_end_ns < cancelled_ns):
            return Look(job, CANCELLED, cancelled_ns)
    expired_ns = job.create_ns + round(config.lifetime_seconds * NANOSECONDS)
    if expired_ns <= now_ns and not (timed_end_ns and timed_end_ns < expired_ns):
        return Look(job, EXPIRED, expired_ns)
    fraction = _fraction(job, config, now_ns)
    if fraction >= 1:
        return Look(job, planned_ending(job), timed_end_ns or now_ns)
    return Look(at_fraction(job, fraction, config, now_ns))


def shows_output(job: JobRecord, config: SandboxConfig, now_ns: int) -> bool:
    """True when a read at `now_ns` finds where the answers of a finished job are."""
    return job.is_done and now_ns >= job.end_ns + _lag_ns(job, "output", config.output_lag_seconds)


def has_file(job: JobRecord, config: SandboxConfig, now_ns: int) -> bool:
    """True when the result file of a finished job can be downloaded at `now_ns`."""
    return job.is_done and now_ns >= job.end_ns + _lag_ns(job, "file", config.file_lag_seconds)


def _lag_ns(job: JobRecord, kind: str, seconds: float) -> int:
    marked = (float(text) for found, text in _LAG.findall(job.display_name) if found == kind)
    return round(next(marked, seconds) * NANOSECONDS)


def planned_ending(job: JobRecord) -> str:
    """Return the state in which the job ends when nothing else happens to it."""
    return next((state for word, state in _ENDINGS.items() if word in job.display_name), SUCCEEDED)


def at_fraction(job: JobRecord, fraction: float, config: SandboxConfig, now_ns: int) -> JobRecord:
    """Return the job with that part of its rows done; a job that has started stays started."""
    if fraction <= 0 and job.state == PENDING:
        return job
    done = int(job.row_count * max(fraction, 0.0))
    failed = int(done * _failing_share(config))
    return dataclasses.replace(job, state=RUNNING, succeeded=done - failed, failed=failed, update_ns=now_ns)


def _timed_end_ns(job: JobRecord, config: SandboxConfig) -> int:
    if isinstance(config.pace, ByTime) and _STUCK not in job.display_name:
        return job.create_ns + round(config.pace.seconds_per_job * NANOSECONDS)
    return 0


def _fraction(job: JobRecord, config: SandboxConfig, now_ns: int) -> float:
    """Return the part of the rows that is done; 0 or less means that none has started."""
    if _STUCK in job.display_name:
        return 0.0
    match config.pace:
        case ByTime(seconds_per_job=seconds):
            age = (now_ns - job.create_ns) / NANOSECONDS
            elapsed = age / seconds if seconds > 0 else 1.0
            return (elapsed - _PENDING_SHARE) / (1 - _PENDING_SHARE)
        case ByReads(reads_per_job=reads):
            return job.reads / reads if reads > 0 else 1.0
        case OnCommand():
            return 0.0


def _failing_share(config: SandboxConfig) -> float:
    if callable(config.row_faults):
        return 0.0
    return sum(config.row_faults.get(fault, 0.0) for fault in (RowFault.ERROR, RowFault.STATUS))
