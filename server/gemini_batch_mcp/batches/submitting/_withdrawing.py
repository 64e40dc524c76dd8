"""A call that its client cancels: what it has not sent by then is never sent, what it has is finished and found."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.jobs.lock import BatchGone, BatchLocked, batch_lock
from gemini_batch_mcp.batches.jobs.removing import remove_batch
from gemini_batch_mcp.batches.ledger.entries import BatchEntry, JobEntry
from gemini_batch_mcp.batches.submitting.creating import Submission
from gemini_batch_mcp.errors import BatchError
from gemini_batch_mcp.text import share
from gemini_batch_mcp.threads import in_thread

#: How long files that were uploaded for nothing are tried to be deleted; they cost nothing and vanish after 48 hours.
_DELETE_SECONDS = 5.0


@asynccontextmanager
async def withdrawn_on_cancel(
    app: App, batch_id: str, attempt: int, wish: str, limit: anyio.CancelScope
) -> AsyncIterator[None]:
    """Take an attempt of a batch back when the call is cancelled in here, unless other calls want it, too.

    `wish` is the fingerprint of what was wanted. A call that has come to the end of its own time (`limit`) is not
    cancelled: it has been, or is going to be, answered, and what it wanted goes on.
    """
    try:
        yield
    except anyio.get_cancelled_exc_class():
        if not limit.cancel_called:
            with anyio.CancelScope(shield=True):
                await _withdraw(app, batch_id, attempt, wish)
        raise


async def _withdraw(app: App, batch_id: str, attempt: int, wish: str) -> None:
    name = f"submit {batch_id}"
    # First of all, so that no create leaves while the ledger is asked. One that is on its way is waited for.
    is_stopping = app.work.stop(name)
    batch = await in_thread(app.ledger.batch, batch_id)
    if batch is None or not await in_thread(app.ledger.withdraw, batch_id):
        if is_stopping and batch is not None:
            # Another process was given the same, and leaves it to this one.
            await app.run(name, Submission(app, batch_id).run, wait_seconds=0)
        return
    await app.work.cancel(name)
    forgotten: tuple[JobEntry, ...] = ()
    # Whoever has the lock, or has deleted the batch, sees to what is left of it.
    with contextlib.suppress(BatchLocked, BatchGone):
        async with batch_lock(app, batch_id):
            forgotten = await in_thread(app.ledger.take_back, batch_id, attempt, wish)
            if forgotten and attempt == 1:
                await in_thread(remove_batch, app, batch_id)
    with anyio.move_on_after(_DELETE_SECONDS), contextlib.suppress(BatchError):
        for job in forgotten:
            if job.uploaded_file and job.uploaded_file != batch.source:
                await app.gateway.delete_file(job.uploaded_file)


async def join(app: App, batch: BatchEntry) -> BatchEntry:
    """Want what is on its way of a batch, too: another call that is cancelled does not take it back any more.

    Raises:
        BatchGone: it was just taken back by the client of the call that had wanted it.
    """
    joined = await in_thread(app.ledger.join, batch.id)
    if joined is None or joined.attempts != batch.attempts:
        raise BatchGone(batch.id)
    return joined


async def notes_about(app: App, wish: str, standing: BatchEntry | None) -> tuple[str, ...]:
    """Say what became of an earlier call for the same that its client cancelled, nothing when there was none."""
    if standing is not None:
        unsent = sum(job.withdrawn_at is not None for job in standing.jobs)
        if not unsent:
            return ()
        sent = len(standing.jobs) - unsent
        return (
            f"An earlier call for this was cancelled by its client when {share(sent, len(standing.jobs), 'job')} had "
            "been sent; this call sends the others.",
        )
    withdrawn_at = await in_thread(app.ledger.end_withdrawal, wish)
    if withdrawn_at is None:
        return ()
    moment = withdrawn_at.astimezone()
    return (
        f"An earlier call for this was cancelled by its client at {moment:%H:%M} before anything was sent; "
        "this call sends it.",
    )
