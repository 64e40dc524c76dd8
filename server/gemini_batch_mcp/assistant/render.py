"""From values of the batches room to views: what a view does not find under the same name is said here."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gemini_batch_mcp.assistant.comparison import CandidateView, CompareView
from gemini_batch_mcp.assistant.views import (
    CancelView,
    CreateView,
    DeleteView,
    JobListView,
    JobView,
    PreviewView,
    QueryView,
    ResultsView,
    RowView,
    SavedView,
    StatusView,
    UsageView,
    fact_lines,
)
from gemini_batch_mcp.domain import Order, ResultRow, ResultSummary, RowAttempt, SavedFile
from gemini_batch_mcp.text import absent_keys, plain_text

if TYPE_CHECKING:
    from gemini_batch_mcp.batches.answers.asked import Asked
    from gemini_batch_mcp.batches.answers.comparing import Comparison
    from gemini_batch_mcp.batches.answers.reading import Results
    from gemini_batch_mcp.batches.ending import Deletion
    from gemini_batch_mcp.batches.jobs.listing import JobList
    from gemini_batch_mcp.batches.jobs.tracking import BatchStatus
    from gemini_batch_mcp.batches.ledger.entries import BatchEntry, JobEntry
    from gemini_batch_mcp.batches.orders.preparing import Preview
    from gemini_batch_mcp.batches.orders.pricing import Cost
    from gemini_batch_mcp.batches.submitting.ordering import Placement
    from gemini_batch_mcp.batches.trials.candidates import Trials
    from gemini_batch_mcp.results.query.queries import QueryAnswer

#: Of a sample request: characters of each text, and members of each list.
_SHOWN_TEXT_CHARS = 1_000
#: Characters of each text of an order, as of each cell of a row.
_SHOWN_FACT_CHARS = 2_000
_SHOWN_MEMBERS = 20
#: Columns of a result table that are listed, and characters of their names.
_SHOWN_COLUMNS = 60
_SHOWN_NAME_CHARS = 60
#: Longest key that is shown among keys that do not add up.
_SHOWN_KEY_CHARS = 80
#: Of a prompt, where candidates are told apart.
_SHOWN_PROMPT_CHARS = 200


def previewed(preview: "Preview") -> PreviewView:
    """Answer of preview_batch."""
    return PreviewView.of(
        preview,
        ok=preview.estimate is not None,
        bytes=preview.size_bytes,
        shard_count=preview.job_count,
        sample=[_shortened(request) for request in preview.sample],
    )


def created(placement: "Placement") -> CreateView:
    """Answer of create_batch and retry_failed."""
    status = placement.status
    return CreateView.of(
        placement,
        batch_id=status.batch.id,
        state=status.state,
        jobs=_jobs(status.batch),
        advice=status.advice,
    )


def status(seen: "BatchStatus") -> StatusView:
    """Answer of check_status."""
    batch = seen.batch
    return StatusView.of(
        seen,
        batch_id=batch.id,
        display_name=batch.display_name,
        model=batch.model,
        jobs=_jobs(batch),
        estimate=batch.estimate,
    )


def results(
    read: "Results",
    cost: "Cost",
    history: Mapping[str, tuple[RowAttempt, ...]],
    keys: Sequence[str],
    way_out: str = "",
    first_key: str = "",
) -> ResultsView:
    """Answer of get_results. `history` has the attempts at the rows that were asked for by their `keys`.

    `first_key` shows what keys look like here, where one of these is none.

    `way_out` says where the user finds what was saved.
    """
    summary, page, saved = read.summary, read.page, read.saved
    return ResultsView.of(
        summary,
        batch_id=read.status.batch.id,
        state=read.status.state,
        summary=summary,
        partial=summary.is_partial,
        suspect_keys=_suspect_keys(summary),
        usage=UsageView.of(summary.usage, cost_usd=cost.usd, priced_on=cost.priced_on),
        # Beside rows and files the list would be told again with every page.
        columns=[] if page or saved else _columns(read),
        rows=[_row(row, history.get(row.key, ())) for row in page.rows] if page else [],
        next_cursor=page.next_cursor if page else "",
        saved=_saved(saved, way_out) if saved else None,
        order={},
        after_pilot=_after_pilot(read.status.batch.id) if read.status.batch.is_pilot else "",
        warnings=[*read.warnings, *_absent(keys, history, first_key)],
    )


def _saved(saved: SavedFile, way_out: str) -> SavedView:
    beside = [companion.path.name for companion in saved.companions]
    return SavedView.of(saved, path=saved.place, bytes=saved.size_bytes, beside=beside, download=way_out)


def _absent(keys: Sequence[str], history: Mapping[str, tuple[RowAttempt, ...]], first_key: str) -> list[str]:
    absent = [key for key in keys if key not in history]
    return [absent_keys(absent, first_key)] if absent else []


def _row(row: ResultRow, attempts: Sequence[RowAttempt]) -> RowView:
    return RowView.of(row, history=attempts if attempts[1:] else ())


def _columns(read: "Results") -> list[str]:
    """Return names and types of the table's columns, cut where there are very many."""
    columns, place = [], "source"
    for column in read.columns:
        place = "answer" if column.name == "key" else place
        origin = f" ({plain_text(column.origin, _SHOWN_NAME_CHARS)} in the {place})" if column.origin else ""
        columns.append(f"{plain_text(column.name, _SHOWN_NAME_CHARS)} {column.type}{origin}")
    more = len(columns) - _SHOWN_COLUMNS
    return [*columns[:_SHOWN_COLUMNS], f"and {more:,} more"] if more > 0 else columns


def job_list(listed: "JobList") -> JobListView:
    """Answer of list_jobs."""
    return JobListView.of(listed)


def cancelled(seen: "BatchStatus") -> CancelView:
    """Answer of cancel_batch."""
    return CancelView.of(seen, batch_id=seen.batch.id, jobs=_jobs(seen.batch))


def deleted(deletion: "Deletion") -> DeleteView:
    """Answer of delete_batch."""
    return DeleteView.of(deletion, deleted=deletion)


def compared(found: "Comparison", trials: "Trials | None" = None) -> CompareView:
    """Answer of compare_results; `trials` are other batches of the same rows."""
    if trials is None:
        return CompareView.of(found, candidates=[], verdict="", step="", running=[])
    verdict = trials.verdict
    step = ""
    if trials.are_pilots and not trials.candidates:
        step = (
            f"create_batch with like={found.batch_id!r}, delivery='now' and another prompt or model has the same rows "
            "answered again; compare_results then lays the two side by side."
        )
    elif trials.are_pilots and verdict.pick is not None:
        step = whole_order(verdict.pick.batch_id)
    return CompareView.of(
        found,
        candidates=[
            CandidateView.of(candidate, prompt=_shortened(candidate.prompt, _SHOWN_PROMPT_CHARS))
            for candidate in trials.candidates
        ],
        verdict=verdict.said if trials.candidates else "",
        step=step,
        running=list(trials.running),
    )


def _after_pilot(batch_id: str) -> str:
    return f"This is a pilot: compare_results measures it against a column of right answers. {whole_order(batch_id)}"


def whole_order(batch_id: str) -> str:
    """Say how all rows are ordered as a pilot was."""
    return (
        f"preview_batch with like={batch_id!r} and limit_rows=0 shows what all "
        "rows will likely cost; create_batch with the same orders them."
    )


def queried(answer: "QueryAnswer") -> QueryView:
    """Answer of query_results."""
    return QueryView.of(answer)


def asked(asked: "Asked") -> ResultsView:
    """Answer of get_results with the order as its view: no rows, and what is known of the counts."""
    summary = asked.summary or ResultSummary(expected=asked.order["rows"])
    return ResultsView.of(
        summary,
        batch_id=asked.status.batch.id,
        state=asked.status.state,
        summary=summary,
        partial=asked.summary is None or summary.is_partial,
        suspect_keys=[],
        usage=UsageView.of(
            summary.usage,
            cost_usd=asked.cost.usd if asked.cost else None,
            priced_on=asked.cost.priced_on if asked.cost else "",
        ),
        columns=[],
        rows=[],
        next_cursor="",
        saved=None,
        warnings=[],
        after_pilot="",
        order=_shortened(asked.order, _SHOWN_FACT_CHARS),
    )


def order_lines(order: Order) -> str:
    """What a batch was asked, a fact a line; what was left to its default is left out."""
    # Imported on first use: a server answers before it has loaded what orders need.
    from gemini_batch_mcp.batches.orders.facts import order_facts

    return "\n".join(fact_lines(_shortened(order_facts(order))))


def _shortened(value: Any, max_chars: int = _SHOWN_TEXT_CHARS) -> Any:
    """Return a request with its long texts cut: a document or an image in it is not for reading."""
    if isinstance(value, dict):
        return {name: _shortened(member, max_chars) for name, member in value.items()}
    if isinstance(value, list):
        return [_shortened(member, max_chars) for member in value[:_SHOWN_MEMBERS]]
    if isinstance(value, str) and len(value) > max_chars:
        return f"{value[:max_chars]}… [{len(value):,} characters in all]"
    return value


def _jobs(batch: "BatchEntry") -> list[JobView]:
    return [
        JobView.of(
            job,
            state=job.shown_state,
            request_count=job.request_count or job.counts.total,
            error=_job_error(job),
            unnamed="called row by row, without a job" if batch.is_now else "not at Gemini yet",
        )
        for job in batch.jobs
        if not job.is_of_nothing
    ]


def _job_error(job: "JobEntry") -> str:
    if job.error is not None:
        return f"code {job.error.code}: {job.error.message}" if job.error.code else job.error.message
    return "stage unknown: the reply to its create call was lost" if job.is_unknown else ""


def _suspect_keys(summary: ResultSummary) -> list[str]:
    groups = (
        ("missing", summary.missing_keys),
        ("duplicate", summary.duplicate_keys),
        ("unexpected", summary.unexpected_keys),
    )
    return [f"{kind} {key[:_SHOWN_KEY_CHARS]!r}" for kind, keys in groups for key in keys]
