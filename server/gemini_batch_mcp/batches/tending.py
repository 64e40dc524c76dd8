"""Going on with what is unfinished: at a server's start, while it runs, and for `gemini-batch-mcp collect`.

Jobs that wait are submitted when they may be, and answers are fetched before Gemini forgets them. What the user has
not ordered is never created here: a create whose outcome is unknown is looked for, and waits for the user otherwise.
"""

import logging
import time
from dataclasses import dataclass
from functools import partial

import anyio

from gemini_batch_mcp.batches.answers.reading import collect_batch
from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.jobs.pauses import jittered, next_pause
from gemini_batch_mcp.batches.jobs.tracking import BatchStatus, current, describe, has_rows, load, refresh
from gemini_batch_mcp.batches.ledger.entries import Stage
from gemini_batch_mcp.batches.submitting.creating import Submission
from gemini_batch_mcp.batches.submitting.quota import may_go
from gemini_batch_mcp.errors import BatchError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tended:
    """What became of one batch. `failure` says why it could not be taken further, empty when it could."""

    batch_id: str
    status: BatchStatus | None
    failure: str = ""


async def tend_all(app: App) -> tuple[Tended, ...]:
    """Take every unfinished batch one step further, one after the other; one that fails does not keep others back.

    Raises:
        StorageError: the ledger cannot be read.
    """
    return tuple([await _tried(app, batch_id) for batch_id in await anyio.to_thread.run_sync(app.ledger.unsettled_ids)])


async def tend_forever(app: App) -> None:
    """Look after unfinished batches until cancelled, each less often the longer nothing happens to it."""
    looks: dict[str, _Look] = {}
    while True:
        try:
            unsettled = await anyio.to_thread.run_sync(app.ledger.unsettled_ids)
        except BatchError as error:
            logger.warning("%s", error)
            unsettled = ()
        looks = {batch_id: looks.get(batch_id) or _Look(app.settings.poll_seconds) for batch_id in unsettled}
        for batch_id, look in looks.items():
            if look.at <= time.monotonic():
                look.note(await _tried(app, batch_id), app.settings.poll_seconds)
        await anyio.sleep(app.settings.poll_seconds)


async def tend_batch(app: App, batch_id: str) -> BatchStatus:
    """Take one batch as far as it goes now: ask Gemini, submit what may go, fetch what has ended.

    Raises:
        BatchError: one of these failed.
    """
    batch = await refresh(app, await load(app, batch_id))
    if any(may_go(job) for job in batch.jobs):
        await app.work.run(f"submit {batch_id}", Submission(app, batch_id).run, wait_seconds=None)
        batch = await current(app, batch_id)
    if any(job.stage is Stage.FINISHED and has_rows(job) for job in batch.jobs):
        await app.work.run(f"collect {batch_id}", partial(collect_batch, app, batch_id), wait_seconds=None)
        batch = await load(app, batch_id)
    return describe(batch)


@dataclass(slots=True)
class _Look:
    """When a batch is looked at next, by the process's clock, and how it stood."""

    pause_seconds: float
    at: float = 0.0
    seen: object = None

    def note(self, tended: Tended, first_pause_seconds: float) -> None:
        """Look again soon after a change, and later and later without one."""
        status = tended.status
        seen = (status.state, status.counts) if status is not None else tended.failure
        self.pause_seconds = next_pause(self.pause_seconds) if seen == self.seen else first_pause_seconds
        self.seen = seen
        self.at = time.monotonic() + jittered(self.pause_seconds)


async def _tried(app: App, batch_id: str) -> Tended:
    try:
        return Tended(batch_id, await tend_batch(app, batch_id))
    except BatchError as error:
        logger.warning("%s: %s", batch_id, error)
        return Tended(batch_id, None, str(error))
    except Exception as error:
        # Its text may hold anything; and one batch must not end the care for all others.
        logger.error("%s: unforeseen %s", batch_id, type(error).__name__)
        return Tended(batch_id, None, f"This met an error that was not foreseen ({type(error).__name__}).")
