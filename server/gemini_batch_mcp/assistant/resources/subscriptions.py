"""Who subscribed to a batch is told when its state or a count has changed, whoever looked."""

from typing import TYPE_CHECKING

from mcp.server.subscriptions import ResourceUpdated, SubscriptionBus

from gemini_batch_mcp.assistant.resources.batches import BATCH_URI

if TYPE_CHECKING:
    from gemini_batch_mcp.batches.jobs.tracking import BatchStatus


class BatchNews:
    """Compares each look at a batch with the one before, and publishes what differs.

    Events reach clients of `subscriptions/listen`; older protocols have no stream that is open between calls.
    """

    def __init__(self, bus: SubscriptionBus) -> None:
        self._bus = bus
        self._seen: dict[str, tuple[object, ...]] = {}

    async def note(self, status: "BatchStatus") -> None:
        """Take a look at a batch into account. The first one counts as a change: what was shown before is not known."""
        batch = status.batch
        stands = (status.state, status.counts, status.rows, status.done, status.results_ready)
        if self._seen.get(batch.id) == stands:
            return
        self._seen[batch.id] = stands
        references = (batch.id, batch.display_name, *(job.name for job in batch.jobs))
        for reference in dict.fromkeys(filter(None, references)):
            await self._bus.publish(ResourceUpdated(uri=BATCH_URI.replace("{+batch}", reference)))
