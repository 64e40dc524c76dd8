"""Waiting for answers that Gemini counts and has not delivered yet, as long as a call can wait for them."""

from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.jobs.delivery import is_overdue, undelivered, utc_now
from gemini_batch_mcp.batches.jobs.tracking import refresh
from gemini_batch_mcp.batches.ledger.entries import BatchEntry

#: Two looks more, if that is not too long, and if the call has so much time left.
_PATIENCE_POLLS: Final = 2.5
_PATIENCE_SECONDS: Final = 25.0
_LEFT_SECONDS: Final = 5.0
_SHORTEST_PAUSE_SECONDS: Final = 0.01


async def await_delivery(
    app: App,
    batch: BatchEntry,
    collect: Callable[[BatchEntry], Awaitable[BatchEntry]],
    deadline: float | None = None,
) -> BatchEntry:
    """Collect a batch with `collect`, again while answers are late and there is time; return it as it is then.

    `deadline` is a time of the event loop, None for none.
    """
    patience_seconds = min(_PATIENCE_POLLS * app.settings.poll_seconds, _PATIENCE_SECONDS)
    while True:
        batch = await collect(batch)
        missing, now = undelivered(batch), utc_now()
        if not missing or all(is_overdue(job, now) for job in missing):
            return batch
        again = min((job.look_again_at for job in missing if job.look_again_at), default=now)
        pause_seconds = max((again - now).total_seconds(), _SHORTEST_PAUSE_SECONDS)
        patience_seconds -= pause_seconds
        is_late = deadline is not None and anyio.current_time() + pause_seconds + _LEFT_SECONDS > deadline
        if is_late or patience_seconds < 0:
            return batch
        await anyio.sleep(pause_seconds)
        batch = await refresh(app, batch)
