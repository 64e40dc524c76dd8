"""Pages about one batch, and about a comparison with it, written where the user wants them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from gemini_batch_mcp.batches.answers._pairs import Crossed, Found, compared_rows, crossed_labels
from gemini_batch_mcp.batches.answers._saving import draft_of, publish_saved, sweep_drafts, with_tables
from gemini_batch_mcp.batches.answers.comparing import asked_for, comparison_of
from gemini_batch_mcp.batches.answers.reading import read_results
from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.jobs.finding import find_batch
from gemini_batch_mcp.batches.jobs.lock import saving_lock
from gemini_batch_mcp.batches.jobs.tracking import BatchStatus, describe, refresh
from gemini_batch_mcp.batches.ledger.entries import BatchEntry
from gemini_batch_mcp.batches.orders.pricing import actual_cost, read_prices
from gemini_batch_mcp.domain import Job, ResultQuery, ResultSummary, SavedFile
from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.results.query.queries import Stop
from gemini_batch_mcp.results.report.comparing import ComparedFacts, write_comparison
from gemini_batch_mcp.results.report.trials import TrialFacts
from gemini_batch_mcp.results.report.writing import ReportCost, ReportFacts, write_report
from gemini_batch_mcp.results.store import ResultTable
from gemini_batch_mcp.threads import in_stoppable_thread, in_thread

#: Of a page about a comparison: rows that differ, labels in its heat map, and labels from which on there is none.
_DIFFERING_ROWS: Final = 500
_SHOWN_LABELS: Final = 12
_MOST_LABELS: Final = 200
#: Of a name; one without any is a page as well.
_ENDINGS: Final = (".html", ".htm", "")


def page_place(app: App, save_to: str, default_name: str) -> Path:
    """Return where a page is to be written, as `save_to` has it: in a directory under `default_name`.

    Raises:
        PathError: the place is outside the roots.
        UsageError: its name says that it is something else.
    """
    destination = app.guard.writable_file(save_to, default_name=default_name)
    if destination.suffix.lower() not in _ENDINGS:
        raise UsageError(
            f"A report is an HTML page, and {destination.name[:100]!r} says that it is something else.",
            "End the name in .html; get_results saves the rows in other formats.",
        )
    return destination


async def write_batch_report(app: App, reference: str, save_to: str, *, wait_seconds: float | None = None) -> SavedFile:
    """Collect what there is of a batch, and write a page about it; a batch without answers has one, too.

    A page that was written here before and has not been changed since is replaced; any other file is left alone.

    Raises:
        PathError, UsageError: as `page_place`.
        ConfigurationError: the extra that draws the charts is not installed.
        BatchError: the answers could not be fetched, or the page not written.
    """
    batch = await refresh(app, await find_batch(app, reference))
    destination = page_place(app, save_to, f"{batch.id}.html")
    status, summary, table = describe(batch), None, None
    if status.results_ready:
        results = await read_results(app, batch.id, ResultQuery(), wait_seconds=wait_seconds)
        status, summary, table = results.status, results.summary, results.table
    cost = await _cost(app, status.batch, summary)
    facts = _facts(status, summary, cost)
    return await in_thread(_write, app, facts, table, destination)


async def write_comparison_report(
    app: App,
    reference: str,
    other: str,
    save_to: str,
    *,
    field: str = "",
    trials: TrialFacts | None = None,
    wait_seconds: float | None = None,
) -> SavedFile:
    """Compare a batch as `compare_results` does, and write a page about it; what may be replaced is as for reports.

    `trials` are candidates beside it that answer the same rows, which the page shows as well.

    Raises:
        as `compare_results`, and as `page_place`.
    """
    asked = await asked_for(app, reference, other, field=field, wait_seconds=wait_seconds)
    batch_id = asked.status.batch.id
    destination = page_place(app, save_to, f"{batch_id}-compared.html")
    stop = Stop()

    def read(folders: Mapping[str, Path]) -> tuple[Found, Crossed]:
        found = compared_rows(app.queries, asked.sides, folders, limit=_DIFFERING_ROWS, max_pairs=1, stop=stop)
        if not 0 < found.counted.labels <= _MOST_LABELS:
            return found, Crossed((), {})
        return found, crossed_labels(app.queries, asked.sides, folders, max_labels=_SHOWN_LABELS, stop=stop)

    found, crossed = await in_stoppable_thread(stop.set, with_tables, asked.tables, read)
    comparison = comparison_of(asked, found)
    facts = ComparedFacts(
        batch_id=batch_id,
        other=comparison.other,
        field=comparison.field,
        other_is_batch=asked.sides.is_batch,
        compared=comparison.compared,
        equal=comparison.equal,
        left_out=comparison.left_out,
        share=comparison.share,
        share_low=comparison.share_low,
        share_high=comparison.share_high,
        kappa=comparison.kappa,
        kappa_low=comparison.kappa_low,
        kappa_high=comparison.kappa_high,
        label_count=found.counted.labels,
        labels=crossed.labels,
        counts=crossed.counts,
        differing=tuple((row.key, row.expected, row.actual) for row in comparison.rows),
        written_at=datetime.now(UTC),
        trials=trials,
    )
    return await in_thread(publish_page, app, batch_id, destination, lambda draft: write_comparison(facts, draft))


def _write(app: App, facts: ReportFacts, table: ResultTable | None, destination: Path) -> SavedFile:
    def write(draft: Path) -> SavedFile:
        if table is None:
            return write_report(facts, None, draft)
        return table.while_there(lambda table: write_report(facts, table.folder, draft))

    return publish_page(app, facts.batch_id, destination, write)


def publish_page(app: App, batch_id: str, destination: Path, write: Callable[[Path], SavedFile]) -> SavedFile:
    """Have a page about a batch written, and bring it to where it is to be, or beside what is not ours. Blocking."""
    sweep_drafts(app, destination.parent)
    with saving_lock(app, batch_id), draft_of(app, destination) as draft:
        written = write(draft)
        return replace(written, path=publish_saved(app, batch_id, draft, destination))


def _facts(status: BatchStatus, summary: ResultSummary | None, cost: ReportCost) -> ReportFacts:
    batch = status.batch
    return ReportFacts(
        batch_id=batch.id,
        state=status.state,
        display_name=batch.display_name,
        model=batch.model,
        task=batch.task,
        created_at=status.created_at,
        ended_at=status.ended_at,
        written_at=datetime.now(UTC),
        jobs=tuple(
            Job(
                name=job.name or f"job {job.shard}, not at Gemini yet",
                state=job.shown_state,
                model=job.model,
                counts=job.counts,
                error=job.error,
                created_at=job.created_at,
                ended_at=job.ended_at,
            )
            for job in batch.jobs
        ),
        counts=status.counts,
        summary=summary,
        is_partial=not status.done or (summary is not None and summary.is_partial),
        cost=cost,
    )


async def _cost(app: App, batch: BatchEntry, summary: ResultSummary | None) -> ReportCost:
    prices = await read_prices(app)
    estimated = batch.estimate
    likely = estimated.likely if estimated is not None else None
    return ReportCost(
        actual_usd=actual_cost(prices, batch, summary).usd if summary is not None else None,
        low_usd=estimated.cost_usd_low if estimated is not None else None,
        high_usd=estimated.cost_usd_high if estimated is not None else None,
        likely_usd=(likely.low_usd, likely.usd, likely.high_usd) if likely is not None else None,
        priced_on=prices.priced_on.isoformat(),
        note="From the tokens that Gemini reported, at list prices for batches.",
    )
