"""What a report tells of a batch beyond its table: filled by whoever knows the batch, drawn by `report`."""

from dataclasses import dataclass, field
from datetime import datetime

from gemini_batch_mcp.domain import Job, JobState, ResultSummary, RowCounts, Task


@dataclass(frozen=True, slots=True)
class ReportCost:
    """What the batch cost, or is going to, in USD; None is not known.

    `actual_usd` is the price of the tokens that Gemini reported, `low_usd` and `high_usd` are the estimate before,
    `likely_usd` what answers to the same prompt let expect, with the range that holds with 95 %.
    `priced_on` is the date of the price list, `note` one sentence about it.
    """

    actual_usd: float | None = None
    low_usd: float | None = None
    high_usd: float | None = None
    priced_on: str = ""
    note: str = ""
    likely_usd: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class ReportFacts:
    """One batch as its report shows it. Text may be anything: it is shown as text, hidden characters written out.

    `counts` are those of the batch as a whole. `summary` is None while nothing has been collected; `is_partial` says
    that more rows may come. Times without a zone are taken as UTC.
    """

    batch_id: str
    state: JobState
    display_name: str = ""
    model: str = ""
    task: Task = "generate"
    created_at: datetime | None = None
    ended_at: datetime | None = None
    written_at: datetime | None = None
    jobs: tuple[Job, ...] = ()
    counts: RowCounts = field(default_factory=RowCounts)
    summary: ResultSummary | None = None
    is_partial: bool = False
    cost: ReportCost = ReportCost()
