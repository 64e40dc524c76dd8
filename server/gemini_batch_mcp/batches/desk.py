"""The front door of the batches room: what tools and commands can ask for, one method each."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gemini_batch_mcp.batches.advancing import Advanced, advance_all, watch_batches
from gemini_batch_mcp.batches.answers.asked import Asked, read_asked
from gemini_batch_mcp.batches.answers.asking import ask_results
from gemini_batch_mcp.batches.answers.comparing import Comparison, compare_results
from gemini_batch_mcp.batches.answers.reading import Results, read_results
from gemini_batch_mcp.batches.answers.telling import Telling, telling_rows
from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.ending import Deletion, cancel_batch, cancel_loss, delete_batch, delete_loss
from gemini_batch_mcp.batches.gauge import Gauge
from gemini_batch_mcp.batches.jobs.listing import JobList, list_jobs
from gemini_batch_mcp.batches.jobs.tracking import BatchStatus, current
from gemini_batch_mcp.batches.ledger.entries import BatchEntry
from gemini_batch_mcp.batches.losses import Loss, is_put_off, loss_of_cancel, put_off, record_kept, settle
from gemini_batch_mcp.batches.objects import is_sent_in_place, pinned, preview_object
from gemini_batch_mcp.batches.orders.consent import Quote, record_no, spend_notes
from gemini_batch_mcp.batches.orders.likeness import take_over
from gemini_batch_mcp.batches.orders.models import ModelList, list_models
from gemini_batch_mcp.batches.orders.preparing import Preview, preview_order
from gemini_batch_mcp.batches.orders.pricing import Cost, actual_cost, read_prices
from gemini_batch_mcp.batches.remote.places import pinned_table
from gemini_batch_mcp.batches.remote.previewing import preview_table
from gemini_batch_mcp.batches.spending import Grouping, Spending, read_spending, with_costs
from gemini_batch_mcp.batches.submitting.ordering import Placement, place_order, quote_order
from gemini_batch_mcp.batches.submitting.retrying import quote_retry, retry_rows
from gemini_batch_mcp.batches.trials.candidates import Trials, read_trials
from gemini_batch_mcp.batches.trials.drifting import drift_notes
from gemini_batch_mcp.batches.undertakings import Undertaking, follow, issue
from gemini_batch_mcp.batches.waiting import batch_status
from gemini_batch_mcp.domain import ALL_ROWS, JobFilter, Order, ResultQuery, ResultSummary, SavedFile
from gemini_batch_mcp.results.query.queries import QueryAnswer
from gemini_batch_mcp.threads import in_thread
from gemini_batch_mcp.warehouse.statements import is_table


async def _nobody(_: BatchStatus) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, slots=True)
class Desk:
    """Everything one can do with batches. Every method raises the errors of `errors.py`, and no others on purpose.

    `on_seen` is told of every look at a batch, whoever looked.
    """

    app: App
    on_seen: Callable[[BatchStatus], Awaitable[None]] = _nobody

    def watched_by(self, gauge: Gauge) -> "Desk":
        """Return the same desk for one caller, who reads on that gauge how far the work is."""
        return Desk(self.app.watched_by(gauge), self.on_seen)

    async def quote(self, order: Order, *, resubmit: bool = False, wait_seconds: float | None = None) -> Quote:
        """Return what the user has to be asked before an order is placed; see `ordering.quote_order`."""
        return await quote_order(self.app, await self._complete(order), resubmit=resubmit, wait_seconds=wait_seconds)

    async def place_order(
        self,
        order: Order,
        *,
        agreed_to: Quote | None = None,
        confirm: bool = False,
        resubmit: bool = False,
        wait_seconds: float | None = None,
    ) -> Placement:
        """Submit an order, or return the batch that stands for it; see `ordering.place_order`."""
        placement = await place_order(
            self.app,
            await self._complete(order),
            agreed_to=agreed_to,
            confirm=confirm,
            resubmit=resubmit,
            wait_seconds=wait_seconds,
        )
        await self.on_seen(placement.status)
        return placement

    async def take_no(self, asked: Quote | Loss, *, has_declined: bool) -> None:
        """Remember that the user did not agree to what they were asked; see `record_no` and `record_kept`."""
        if isinstance(asked, Loss):
            await record_kept(self.app, asked, has_declined=has_declined)
        else:
            await record_no(self.app, asked, has_declined=has_declined)

    async def preview(self, order: Order, *, wait_seconds: float | None = None) -> Preview:
        """Check, render and price an order without sending it; see `preparing.preview_order`."""
        order = await self._complete(order)
        if is_sent_in_place(self.app, order) and self.app.gateway.service.is_cloud:
            seen = await preview_object(self.app, order)
        elif is_table(order.source) and self.app.gateway.service.is_cloud:
            seen = await preview_table(self.app, order, wait_seconds=wait_seconds)
        else:
            seen = await preview_order(self.app, order, wait_seconds=wait_seconds)
        notes: tuple[str, ...] = ()
        if seen.estimate is not None and not seen.standing:
            notes = spend_notes(self.app, seen.estimate)
        return replace(seen, warnings=(*seen.warnings, *notes))

    async def status(self, reference: str, *, wait_seconds: float = 0.0) -> BatchStatus:
        """Ask how a batch is getting on; see `waiting.batch_status`."""
        status = await batch_status(self.app, reference, wait_seconds=wait_seconds)
        await self.on_seen(status)
        return status

    async def results(self, reference: str, query: ResultQuery, *, wait_seconds: float | None = None) -> Results:
        """Read results; see `reading.read_results`. Where questions may follow, they are prepared for."""
        results = await read_results(self.app, reference, query, wait_seconds=wait_seconds)
        await self.on_seen(results.status)
        if query.view == "summary" and not query.save_to and results.remote is None:
            cost = await self.cost(results.status.batch, results.summary)
            results = replace(results, warnings=(*results.warnings, *await drift_notes(self.app, results, cost.usd)))
        if results.remote is None:
            await self.app.prepare_queries()
        return results

    async def asked(self, reference: str) -> Asked:
        """Return what a batch was asked; see `asked.read_asked`."""
        return await read_asked(self.app, reference)

    async def cost(self, batch: BatchEntry, summary: ResultSummary) -> Cost:
        """Price the answers of a batch; see `pricing.actual_cost`."""
        return actual_cost(await read_prices(self.app), batch, summary)

    async def written_reports(self, batch_id: str) -> tuple[Path, ...]:
        """Return the reports that were written about a batch and are still there."""
        written = await in_thread(self.app.ledger.saves.paths, batch_id)
        return tuple(path for path in written if path.suffix == ".html" and path.is_file())

    async def query(
        self,
        reference: str,
        sql: str,
        *,
        limit: int,
        also: Sequence[str] = (),
        wait_seconds: float | None = None,
    ) -> QueryAnswer:
        """Ask a batch's answers a question in SQL; see `asking.ask_results`."""
        return await ask_results(self.app, reference, sql, limit=limit, also=also, wait_seconds=wait_seconds)

    async def compare(
        self,
        reference: str,
        other: str,
        *,
        field: str = "",
        limit: int = 20,
        cursor: str = "",
        wait_seconds: float | None = None,
    ) -> Comparison:
        """Lay a batch's answers against another's, or against a column; see `comparing.compare_results`."""
        return await compare_results(
            self.app, reference, other, field=field, limit=limit, cursor=cursor, wait_seconds=wait_seconds
        )

    async def trials(
        self,
        reference: str,
        other: str,
        *,
        field: str = "",
        batches: Sequence[str] = (),
        wait_seconds: float | None = None,
    ) -> Trials | None:
        """Lay a batch beside others that answer the same rows; see `candidates.read_trials`."""
        return await read_trials(self.app, reference, other, field=field, batches=batches, wait_seconds=wait_seconds)

    async def report(self, reference: str, save_to: str) -> SavedFile:
        """Write a page about a batch; see `reporting.write_batch_report`."""
        # Imported on first use: most servers never draw.
        from gemini_batch_mcp.batches.answers.reporting import write_batch_report

        return await write_batch_report(self.app, reference, save_to)

    def check_page(self, save_to: str) -> None:
        """Refuse a place where no page can be written; see `reporting.page_place`."""
        from gemini_batch_mcp.batches.answers.reporting import page_place

        page_place(self.app, save_to, "report.html")

    async def telling_rows(self, reference: str, expected: str, *, wait_seconds: float | None = None) -> Telling | None:
        """Return how a batch stands against right answers, with rows that tell why; see `telling.telling_rows`."""
        return await telling_rows(self.app, reference, expected=expected, wait_seconds=wait_seconds)

    async def comparison_report(self, reference: str, other: str, save_to: str, *, field: str = "") -> SavedFile:
        """Write a page about a comparison, and others of the same rows; see `reporting.write_comparison_report`."""
        from gemini_batch_mcp.batches.answers.reporting import write_comparison_report
        from gemini_batch_mcp.batches.trials.reporting import trial_facts

        trials = await self.trials(reference, other, field=field)
        return await write_comparison_report(
            self.app,
            reference,
            other,
            save_to,
            field=field,
            trials=trial_facts(trials) if trials is not None and len(trials.candidates) > 1 else None,
        )

    async def trials_report(self, trials: Trials, save_to: str) -> SavedFile:
        """Write a page about candidates; see `trials.reporting.write_trials_report`."""
        from gemini_batch_mcp.batches.trials.reporting import write_trials_report

        return await write_trials_report(self.app, trials, save_to)

    async def quote_retry(
        self, reference: str, include: Sequence[str], *, model: str = "", wait_seconds: float | None = None
    ) -> Quote | None:
        """Return what the user has to be asked before rows are sent again; see `retrying.quote_retry`."""
        return await quote_retry(self.app, reference, include, model=model, wait_seconds=wait_seconds)

    async def retry(
        self,
        reference: str,
        include: Sequence[str],
        *,
        model: str = "",
        agreed_to: Quote | None = None,
        confirm: bool = False,
        wait_seconds: float | None = None,
    ) -> Placement:
        """Send rows again that came to nothing; see `retrying.retry_rows`."""
        placement = await retry_rows(
            self.app,
            reference,
            include,
            model=model,
            agreed_to=agreed_to,
            confirm=confirm,
            wait_seconds=wait_seconds,
        )
        await self.on_seen(placement.status)
        return placement

    async def collect(self) -> tuple[Advanced, ...]:
        """Advance every unfinished batch by one step; see `advancing.advance_all`."""
        return await advance_all(self.app)

    async def watch(self) -> None:
        """Advance unfinished batches until cancelled; see `advancing.watch_batches`."""
        await watch_batches(self.app, self.on_seen)

    async def list_jobs(self, wanted: JobFilter, *, limit: int, cursor: str = "") -> JobList:
        """List jobs and what they have cost; see `listing.list_jobs` and `spending.with_costs`."""
        return await with_costs(self.app, await list_jobs(self.app, wanted, limit=limit, cursor=cursor))

    async def spending(self, by: Grouping) -> Spending:
        """Return what was spent; see `spending.read_spending`."""
        return await read_spending(self.app, by)

    async def cancel_loss(self, reference: str) -> Loss:
        """Return what the user has to be asked before a batch is cancelled; see `ending.cancel_loss`."""
        return await cancel_loss(self.app, reference)

    async def cancel(self, reference: str, *, agreed_to: Loss | None = None, confirm: bool = False) -> BatchStatus:
        """Cancel a batch; see `ending.cancel_batch`."""
        status = await cancel_batch(self.app, reference, agreed_to=agreed_to, confirm=confirm)
        await self.on_seen(status)
        return status

    async def delete_loss(self, reference: str) -> Loss:
        """Return what the user has to be asked before a batch is deleted; see `ending.delete_loss`."""
        return await delete_loss(self.app, reference)

    async def delete(self, reference: str, *, agreed_to: Loss | None = None, confirm: bool = False) -> Deletion:
        """Delete a batch; see `ending.delete_batch`."""
        return await delete_batch(self.app, reference, agreed_to=agreed_to, confirm=confirm)

    async def ask_cancel_later(self, loss: Loss) -> None:
        """Have the user asked about a cancel when their client next comes by; see `losses.put_off`."""
        await put_off(self.app, loss)

    async def cancel_question(self, batch_id: str) -> tuple[str, Loss] | None:
        """Return what the user is still to be asked about a cancel, and its name; see `losses.is_put_off`."""
        loss = await in_thread(loss_of_cancel, self.app, await current(self.app, batch_id))
        name = await is_put_off(self.app, loss)
        return (name, loss) if name else None

    async def settle_cancel(self, loss: Loss) -> None:
        """Note that the user has been asked about a cancel; see `losses.settle`."""
        await settle(self.app, loss)

    async def handle(self, batch_id: str, *, reused: bool) -> str:
        """Return a name that nobody can guess for what a call has begun; see `handles.issue`."""
        return await issue(self.app, batch_id, reused=reused)

    async def follow(self, handle: str, *, look: bool = True) -> Undertaking | None:
        """Return how that stands, None where there is nothing of that name; see `handles.follow`."""
        found = await follow(self.app, handle, look=look)
        if found is not None and look:
            await self.on_seen(found.status)
        return found

    async def batch_ids(self) -> tuple[str, ...]:
        """Return the ids of the batches that were ordered here, newest first."""
        return await in_thread(self.app.ledger.batch_ids)

    async def models(self) -> ModelList:
        """Return the models that take batches; see `models.list_models`."""
        return await list_models(self.app)

    async def _complete(self, order: Order) -> Order:
        if order.like:
            order = await in_thread(take_over, self.app, order)
        order = await pinned_table(self.app, await pinned(self.app, order))
        model = order.model or self.app.settings.model
        # All rows are what an order asks for that says nothing of them.
        limit_rows = 0 if order.limit_rows >= ALL_ROWS else order.limit_rows
        return replace(order, model=model.removeprefix("models/"), limit_rows=limit_rows)
