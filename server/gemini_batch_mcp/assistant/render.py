"""From values of the batches room to views: which facts an assistant gets, field by field."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gemini_batch_mcp.assistant.views import (
    AttemptView,
    CancelView,
    Counts,
    CreateView,
    Deleted,
    DeleteView,
    ErrorGroupView,
    EstimateView,
    JobListView,
    JobView,
    ListedView,
    NotDeletedView,
    PreviewView,
    ProblemView,
    QueryView,
    ResultsView,
    RowView,
    SavedView,
    StatusView,
    Summary,
    UsageView,
)
from gemini_batch_mcp.domain import ResultRow, ResultSummary, RowAttempt, RowCounts
from gemini_batch_mcp.text import plain_text

if TYPE_CHECKING:
    from gemini_batch_mcp.batches.answers.reading import Results
    from gemini_batch_mcp.batches.ending import Deletion
    from gemini_batch_mcp.batches.jobs.listing import JobList
    from gemini_batch_mcp.batches.jobs.tracking import BatchStatus
    from gemini_batch_mcp.batches.ledger.entries import BatchEntry, JobEntry
    from gemini_batch_mcp.batches.orders.preparing import Preview
    from gemini_batch_mcp.batches.orders.pricing import Cost
    from gemini_batch_mcp.batches.submitting.ordering import Placement
    from gemini_batch_mcp.intake.prices.estimate import Estimate
    from gemini_batch_mcp.results.query.queries import QueryAnswer

#: Of a sample request: characters of each text, and members of each list.
_SHOWN_TEXT_CHARS = 1_000
_SHOWN_MEMBERS = 20
#: Columns of a result table that are listed, and characters of their names.
_SHOWN_COLUMNS = 60
_SHOWN_NAME_CHARS = 60
#: Longest key that is shown among keys that do not add up.
_SHOWN_KEY_CHARS = 80
#: Keys without a row that are named.
_SHOWN_KEYS = 10


def previewed(preview: "Preview") -> PreviewView:
    """Answer of preview_batch."""
    return PreviewView(
        ok=preview.estimate is not None,
        request_count=preview.request_count,
        bytes=preview.size_bytes,
        shard_count=preview.job_count,
        model=preview.model,
        problems=[ProblemView.model_validate(problem, from_attributes=True) for problem in preview.problems],
        problem_count=preview.problem_count,
        warnings=list(preview.warnings),
        sample=[_shortened(request) for request in preview.sample],
        estimate=_estimate(preview.estimate),
    )


def created(placement: "Placement") -> CreateView:
    """Answer of create_batch and retry_failed."""
    status = placement.status
    return CreateView(
        batch_id=status.batch.id,
        state=status.state,
        request_count=placement.request_count,
        jobs=_jobs(status.batch),
        estimate=_estimate(placement.estimate),
        reused=placement.reused,
        warnings=list(status.batch.warnings),
        advice=status.advice,
    )


def status(seen: "BatchStatus") -> StatusView:
    """Answer of check_status."""
    return StatusView(
        batch_id=seen.batch.id,
        display_name=seen.batch.display_name,
        model=seen.batch.model,
        state=seen.state,
        done=seen.done,
        results_ready=seen.results_ready,
        counts=_counts(seen.counts),
        jobs=_jobs(seen.batch),
        age_seconds=seen.age_seconds,
        expires_at=seen.expires_at,
        advice=seen.advice,
    )


def results(
    read: "Results", cost: "Cost", history: Mapping[str, tuple[RowAttempt, ...]], keys: Sequence[str]
) -> ResultsView:
    """Answer of get_results. `history` has the attempts at the rows that were asked for by their `keys`."""
    summary = read.summary
    usage = summary.usage
    return ResultsView(
        batch_id=read.status.batch.id,
        state=read.status.state,
        summary=Summary.model_validate(summary, from_attributes=True),
        partial=summary.is_partial,
        integrity_ok=summary.integrity_ok,
        suspect_keys=_suspect_keys(summary),
        usage=UsageView(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            thoughts_tokens=usage.thoughts_tokens,
            cost_usd=cost.usd,
            priced_on=cost.priced_on,
        ),
        model_versions=dict(summary.model_versions),
        error_groups=[ErrorGroupView.model_validate(group, from_attributes=True) for group in summary.error_groups],
        columns=_columns(read),
        rows=[_row(row, history.get(row.key, ())) for row in read.page.rows] if read.page else [],
        next_cursor=read.page.next_cursor if read.page else "",
        saved=SavedView(
            path=str(read.saved.path), format=read.saved.format, rows=read.saved.rows, bytes=read.saved.size_bytes
        )
        if read.saved
        else None,
        warnings=[*read.warnings, *_absent(keys, history)],
    )


def _absent(keys: Sequence[str], history: Mapping[str, tuple[RowAttempt, ...]]) -> list[str]:
    """Say which keys no row has: an assistant that mistypes one must not take silence for an answer."""
    absent = [repr(key[:_SHOWN_KEY_CHARS]) for key in keys if key not in history]
    return [f"No row has the key {', '.join(absent[:_SHOWN_KEYS])}."] if absent else []


def _row(row: ResultRow, attempts: Sequence[RowAttempt]) -> RowView:
    return RowView(
        key=row.key,
        status=row.status,
        text=row.text,
        error=row.error,
        finish_reason=row.finish_reason,
        files=list(row.files),
        history=[AttemptView.model_validate(one, from_attributes=True) for one in attempts] if attempts[1:] else [],
    )


def _columns(read: "Results") -> list[str]:
    """Return names and types of the table's columns, cut where there are very many."""
    columns = [f"{plain_text(column.name, _SHOWN_NAME_CHARS)} {column.type}" for column in read.columns]
    more = len(columns) - _SHOWN_COLUMNS
    return [*columns[:_SHOWN_COLUMNS], f"and {more:,} more"] if more > 0 else columns


def job_list(listed: "JobList") -> JobListView:
    """Answer of list_jobs."""
    jobs = [
        ListedView(
            batch_id=job.batch_id,
            name=job.name,
            display_name=job.display_name,
            state=job.state,
            model=job.model,
            created_at=job.created_at,
            counts=_counts(job.counts),
        )
        for job in listed.jobs
    ]
    return JobListView(jobs=jobs, next_cursor=listed.next_cursor, note=listed.note)


def cancelled(seen: "BatchStatus") -> CancelView:
    """Answer of cancel_batch."""
    return CancelView(batch_id=seen.batch.id, state=seen.state, jobs=_jobs(seen.batch), advice=seen.advice)


def deleted(deletion: "Deletion") -> DeleteView:
    """Answer of delete_batch."""
    return DeleteView(
        batch_id=deletion.batch_id,
        deleted=Deleted(jobs=list(deletion.jobs), files=list(deletion.files), local=deletion.local),
        not_deleted=[NotDeletedView(name=entry.name, reason=entry.reason) for entry in deletion.not_deleted],
    )


def queried(answer: "QueryAnswer") -> QueryView:
    """Answer of query_results."""
    return QueryView(
        columns=list(answer.columns),
        rows=[list(row) for row in answer.rows],
        row_count=answer.row_count,
        truncated=answer.truncated,
    )


def _estimate(estimated: "Estimate | None") -> EstimateView | None:
    return EstimateView.model_validate(estimated, from_attributes=True) if estimated is not None else None


def _shortened(value: Any) -> Any:
    """Return a request with its long texts cut: a document or an image in it is not for reading."""
    if isinstance(value, dict):
        return {name: _shortened(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_shortened(member) for member in value[:_SHOWN_MEMBERS]]
    if isinstance(value, str) and len(value) > _SHOWN_TEXT_CHARS:
        return f"{value[:_SHOWN_TEXT_CHARS]}… [{len(value):,} characters in all]"
    return value


def _jobs(batch: "BatchEntry") -> list[JobView]:
    return [
        JobView(
            name=job.name,
            state=job.shown_state,
            request_count=job.request_count or job.counts.total,
            error=_job_error(job),
        )
        for job in batch.jobs
    ]


def _job_error(job: "JobEntry") -> str:
    if job.error is not None:
        return f"code {job.error.code}: {job.error.message}" if job.error.code else job.error.message
    return "stage unknown: the reply to its create was lost" if job.is_unknown else ""


def _counts(counts: RowCounts) -> Counts:
    return Counts.model_validate(counts, from_attributes=True)


def _suspect_keys(summary: ResultSummary) -> list[str]:
    groups = (
        ("missing", summary.missing_keys),
        ("duplicate", summary.duplicate_keys),
        ("unexpected", summary.unexpected_keys),
    )
    return [f"{kind} {key[:_SHOWN_KEY_CHARS]!r}" for kind, keys in groups for key in keys]
