"""The front door of the batches room: what tools and commands can ask for, one method each."""

from dataclasses import dataclass, replace

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.collect import Results, batch_results
from gemini_batch_mcp.batches.listing import JobList, list_jobs
from gemini_batch_mcp.batches.prepare import Preview, preview_order
from gemini_batch_mcp.batches.removal import Deletion, cancel_batch, delete_batch
from gemini_batch_mcp.batches.submit import Placement, place_order
from gemini_batch_mcp.batches.track import BatchStatus, batch_status
from gemini_batch_mcp.domain import JobFilter, Order, ResultQuery


@dataclass(frozen=True, slots=True)
class Desk:
    """Everything one can do with batches. Every method raises the errors of `errors.py`, and no others on purpose."""

    app: App

    async def place_order(
        self, order: Order, *, confirm: bool = False, resubmit: bool = False, wait_seconds: float | None = None
    ) -> Placement:
        """Submit an order, or return the batch that stands for it; see `submit.place_order`."""
        order = replace(order, model=order.model or self.app.settings.model)
        return await place_order(self.app, order, confirm=confirm, resubmit=resubmit, wait_seconds=wait_seconds)

    async def preview(self, order: Order) -> Preview:
        """Check, render and price an order without sending it; see `prepare.preview_order`."""
        return await preview_order(self.app, replace(order, model=order.model or self.app.settings.model))

    async def status(self, reference: str, *, wait_seconds: float = 0.0) -> BatchStatus:
        """Ask how a batch is getting on; see `track.batch_status`."""
        return await batch_status(self.app, reference, wait_seconds=wait_seconds)

    async def results(self, reference: str, query: ResultQuery, *, wait_seconds: float | None = None) -> Results:
        """Read results; see `collect.batch_results`."""
        return await batch_results(self.app, reference, query, wait_seconds=wait_seconds)

    async def list_jobs(self, wanted: JobFilter, *, limit: int, cursor: str = "") -> JobList:
        """List jobs; see `listing.list_jobs`."""
        return await list_jobs(self.app, wanted, limit=limit, cursor=cursor)

    async def cancel(self, reference: str) -> BatchStatus:
        """Cancel a batch; see `removal.cancel_batch`."""
        return await cancel_batch(self.app, reference)

    async def delete(self, reference: str, *, confirm: bool) -> Deletion:
        """Delete a batch; see `removal.delete_batch`."""
        return await delete_batch(self.app, reference, confirm=confirm)
