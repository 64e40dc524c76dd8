"""Advancing batches that are unfinished: at a server's start, while it runs, and for `gemini-batch-mcp collect`.

Jobs that wait are submitted when they may be, and answers are fetched before Gemini forgets them. What the user has
not ordered is never created here: a create whose outcome is unknown is looked for, and waits for the user otherwise.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import anyio

from gemini_batch_mcp.batches.answers.collecting import collect_batch
from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.calls.calling import go_on_calling, is_calling
from gemini_batch_mcp.batches.gauge import Gauge
from gemini_batch_mcp.batches.jobs.accounts import is_anothers
from gemini_batch_mcp.batches.jobs.delivery import can_fetch, utc_now
from gemini_batch_mcp.batches.jobs.pauses import MAX_PAUSE_SECONDS, jittered, next_pause
from gemini_batch_mcp.batches.jobs.tracking import BatchStatus, current, describe, load, refresh
from gemini_batch_mcp.batches.submitting.creating import Submission
from gemini_batch_mcp.batches.submitting.quota import can_submit
from gemini_batch_mcp.errors import BatchError
from gemini_batch_mcp.threads import in_thread

logger = logging.getLogger(__name__)

_OVERDUE_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Advanced:
    """What one step came to for one batch. `failure` says why it could not be advanced, empty when it could."""

    batch_id: str
    status: BatchStatus | None
    failure: str = ""


async def advance_all(app: App) -> tuple[Advanced, ...]:
    """Advance every unfinished batch by one step, one after the other; one that fails does not keep others back.

    Raises:
        StorageError: the ledger cannot be read.
    """
    return tuple([await _advance_or_note(app, batch_id) for batch_id in await in_thread(app.ledger.unsettled_ids)])


async def watch_batches(app: App, on_seen: Callable[[BatchStatus], Awaitable[None]]) -> None:
    """Advance unfinished batches until cancelled, looking at each less often the longer nothing happens to it.

    `on_seen` is told how each stands then.
    """
    looks: dict[str, _Look] = {}
    while True:
        try:
            unsettled = await in_thread(app.ledger.unsettled_ids)
        except BatchError as error:
            logger.warning("%s", error)
            unsettled = ()
        looks = {batch_id: looks.get(batch_id) or _Look(app.settings.poll_seconds) for batch_id in unsettled}
        for batch_id, look in looks.items():
            if look.at <= time.monotonic():
                advanced = await _advance_or_note(app.watched_by(Gauge()), batch_id)
                look.note(advanced, app.settings.poll_seconds)
                if advanced.status is not None:
                    await on_seen(advanced.status)
        await anyio.sleep(app.settings.poll_seconds)


async def advance_batch(app: App, batch_id: str) -> BatchStatus:
    """Advance one batch as far as it goes now: ask Gemini, submit what may go, fetch what has ended.

    Raises:
        BatchError: one of these failed.
    """
    batch = await refresh(app, await load(app, batch_id))
    if is_anothers(app, batch):
        return describe(batch)
    if any(can_submit(job) for job in batch.jobs):
        await app.run(f"submit {batch_id}", Submission(app, batch_id).run, wait_seconds=None)
        batch = await current(app, batch_id)
    if is_calling(batch):
        # Beside the others while a server runs; a command that ends waits for it.
        await go_on_calling(app, batch_id, wait_seconds=0 if app.lives_on else None)
        batch = await load(app, batch_id)
    if any(can_fetch(job, utc_now()) for job in batch.jobs):
        await app.run(f"collect {batch_id}", partial(collect_batch, app, batch_id), wait_seconds=None)
        batch = await load(app, batch_id)
    return describe(batch)


@dataclass(slots=True)
class _Look:
    """When a batch is looked at next, by the process's clock, and how it stood."""

    pause_seconds: float
    at: float = 0.0
    seen: object = None

    def note(self, advanced: Advanced, first_pause_seconds: float) -> None:
        """Look again soon after a change, and later and later without one; at answers that are late, when it is time.

        Answers that are not expected any more are looked for once an hour.
        """
        status = advanced.status
        seen = (status.state, status.counts, status.progress) if status is not None else advanced.failure
        self.pause_seconds = next_pause(self.pause_seconds) if seen == self.seen else first_pause_seconds
        self.seen = seen
        self.at = time.monotonic() + jittered(self.pause_seconds)
        if status is not None and status.is_overdue:
            self.at = time.monotonic() + _OVERDUE_SECONDS
        elif status is not None and status.done and status.look_again_at is not None:
            pause_seconds = (status.look_again_at - utc_now()).total_seconds()
            self.at = time.monotonic() + jittered(min(max(pause_seconds, 0.0), MAX_PAUSE_SECONDS), 1.0, 1.1)


async def _advance_or_note(app: App, batch_id: str) -> Advanced:
    try:
        return Advanced(batch_id, await advance_batch(app, batch_id))
    except BatchError as error:
        logger.warning("%s: %s", batch_id, error)
        return Advanced(batch_id, None, str(error))
    except Exception as error:
        # Its text may hold anything; and one batch must not keep all others from being advanced.
        logger.error("%s: unforeseen %s", batch_id, type(error).__name__)
        return Advanced(batch_id, None, f"This failed with an unexpected error ({type(error).__name__}).")
