"""A page about one batch, written where the user wants it."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from gemini_batch_mcp.batches.answers._saving import draft_of, publish_saved, sweep_drafts
from gemini_batch_mcp.batches.answers.reading import read_results
from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.jobs.finding import find_batch
from gemini_batch_mcp.batches.jobs.lock import saving_lock
from gemini_batch_mcp.batches.jobs.tracking import BatchStatus, describe, refresh
from gemini_batch_mcp.batches.ledger.entries import BatchEntry
from gemini_batch_mcp.batches.orders.pricing import actual_cost, read_prices
from gemini_batch_mcp.domain import Job, ResultQuery, ResultSummary, SavedFile
from gemini_batch_mcp.results.report.writing import ReportCost, ReportFacts, write_report
from gemini_batch_mcp.results.store import ResultTable
from gemini_batch_mcp.threads import in_thread


async def write_batch_report(app: App, reference: str, save_to: str, *, wait_seconds: float | None = None) -> SavedFile:
    """Collect what there is of a batch, and write a page about it; a batch without answers has one, too.

    A page that was written here before and has not been changed since is replaced; any other file is left alone.

    Raises:
        PathError: the place is outside the roots.
        ConfigurationError: the extra that draws the charts is not installed.
        BatchError: the answers could not be fetched, or the page not written.
    """
    batch = await refresh(app, await find_batch(app, reference))
    destination = app.guard.writable_file(save_to, default_name=f"{batch.id}.html")
    status, summary, table = describe(batch), None, None
    if status.results_ready:
        results = await read_results(app, batch.id, ResultQuery(), wait_seconds=wait_seconds)
        status, summary, table = results.status, results.summary, results.table
    cost = await _cost(app, status.batch, summary)
    facts = _facts(status, summary, cost)
    return await in_thread(_write, app, facts, table, destination)


def _write(app: App, facts: ReportFacts, table: ResultTable | None, destination: Path) -> SavedFile:
    sweep_drafts(app, destination.parent)
    with saving_lock(app, facts.batch_id), draft_of(app, destination) as draft:
        if table is None:
            written = write_report(facts, None, draft)
        else:
            written = table.while_there(lambda table: write_report(facts, table.folder, draft))
        return replace(written, path=publish_saved(app, facts.batch_id, draft, destination))


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
    return ReportCost(
        actual_usd=actual_cost(prices, batch, summary).usd if summary is not None else None,
        low_usd=estimated.cost_usd_low if estimated is not None else None,
        high_usd=estimated.cost_usd_high if estimated is not None else None,
        priced_on=prices.priced_on.isoformat(),
        note="From the tokens that Gemini reported, at list prices for batches.",
    )
