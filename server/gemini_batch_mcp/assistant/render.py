"""From values of the batches room to views: which facts an assistant gets, field by field."""

from typing import TYPE_CHECKING

from gemini_batch_mcp.assistant.views import (
    CancelView,
    Counts,
    CreateView,
    Deleted,
    DeleteView,
    JobListView,
    JobView,
    ListedView,
    NotDeletedView,
    ResultsView,
    RowView,
    SavedView,
    StatusView,
    Summary,
    UsageView,
)
from gemini_batch_mcp.domain import ResultSummary, RowCounts

if TYPE_CHECKING:
    from gemini_batch_mcp.batches.collect import Results
    from gemini_batch_mcp.batches.entries import BatchEntry, JobEntry
    from gemini_batch_mcp.batches.listing import JobList
    from gemini_batch_mcp.batches.removal import Deletion
    from gemini_batch_mcp.batches.submit import Placement
    from gemini_batch_mcp.batches.track import BatchStatus

#: Longest key that is shown among keys that do not add up.
_SHOWN_KEY_CHARS = 80


def created(placement: "Placement") -> CreateView:
    """Answer of create_batch."""
    status = placement.status
    return CreateView(
        batch_id=status.batch.id,
        state=status.state,
        request_count=status.batch.request_count,
        jobs=_jobs(status.batch),
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


def results(read: "Results") -> ResultsView:
    """Answer of get_results."""
    summary = read.summary
    return ResultsView(
        batch_id=read.status.batch.id,
        state=read.status.state,
        summary=Summary.model_validate(summary, from_attributes=True),
        integrity_ok=summary.integrity_ok,
        suspect_keys=_suspect_keys(summary),
        usage=UsageView.model_validate(summary.usage, from_attributes=True),
        model_versions=dict(summary.model_versions),
        rows=[RowView.model_validate(row, from_attributes=True) for row in read.page.rows] if read.page else [],
        next_cursor=read.page.next_cursor if read.page else "",
        saved=SavedView(
            path=str(read.saved.path), format=read.saved.format, rows=read.saved.rows, bytes=read.saved.size_bytes
        )
        if read.saved
        else None,
    )


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
        return f"code {job.error.code}: {job.error.message}"
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
