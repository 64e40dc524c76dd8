"""What sets Google's two APIs for batches apart for those who use them: limits, and what there is to look at."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Service:
    """What one of Google's two APIs for batches takes and keeps, where they differ.

    `job_rows` is the most rows of one job, 0 for no limit. `has_quota` says that input tokens that wait are limited by
    model, `is_cloud` that requests and answers lie in a bucket of the user's.
    """

    name: str
    file_bytes: int
    job_rows: int
    job_life: timedelta
    has_quota: bool
    is_cloud: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at before anything is ordered, and what was found."""

    name: str
    is_good: bool
    text: str
