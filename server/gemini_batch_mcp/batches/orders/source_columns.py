"""The columns of the user's table, kept beside a batch so that its answers can stand next to them."""

import logging

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.ledger.entries import BatchEntry
from gemini_batch_mcp.batches.orders.identity import IdentifiedOrder
from gemini_batch_mcp.batches.orders.preparing import identify_for
from gemini_batch_mcp.errors import BatchError
from gemini_batch_mcp.intake.tables.kept_columns import write_columns
from gemini_batch_mcp.intake.tables.kinds import SourceKind
from gemini_batch_mcp.threads import in_thread

logger = logging.getLogger(__name__)


async def keep_columns(app: App, batch: BatchEntry, identified: IdentifiedOrder | None = None) -> None:
    """Write down the source's columns, unless that has been done, or the source is no table.

    Answers are whole without them: a source that has changed or gone, or cannot be read, costs the columns only.
    """
    destination = app.files(batch.id).source_columns
    if batch.order is None or not batch.order.prompt or destination.exists():
        return
    try:
        if identified is None:
            identified = await in_thread(identify_for, app, batch.order)
        if identified.kind is not SourceKind.TABLE or identified.content_sha256 != batch.content_sha256:
            return
        assert identified.place is not None
        await in_thread(
            write_columns,
            identified.place,
            destination,
            scratch=destination.parent,
            limit_rows=batch.order.limit_rows,
        )
    except BatchError as error:
        logger.warning("%s: its source's columns are not kept: %s", batch.id, error)
