"""Asking how a batch is getting on, once or until it ends."""

import time

import anyio

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.calls.calling import go_on_calling, is_calling
from gemini_batch_mcp.batches.gauge import Doing, Progress
from gemini_batch_mcp.batches.jobs.accounts import is_anothers
from gemini_batch_mcp.batches.jobs.finding import find_batch
from gemini_batch_mcp.batches.jobs.pauses import jittered, next_pause
from gemini_batch_mcp.batches.jobs.tracking import BatchStatus, current, describe, refresh
from gemini_batch_mcp.batches.ledger.entries import BatchEntry
from gemini_batch_mcp.batches.submitting.creating import Submission
from gemini_batch_mcp.batches.submitting.quota import can_submit
from gemini_batch_mcp.errors import BatchError


async def batch_status(app: App, reference: str, *, wait_seconds: float = 0.0) -> BatchStatus:
    """Ask Gemini how a batch is getting on; wait for its end and its output, at most `wait_seconds`.

    Jobs that waited here and may go are submitted: in the background, or before this returns in a process that ends
    with its command and waits for the batch.

    Raises:
        UnknownBatch: nothing goes by that name.
        GeminiError: Gemini could not be asked.
    """
    deadline = time.monotonic() + wait_seconds
    may_submit = not app.settings.read_only and (app.lives_on or wait_seconds > 0)
    batch = await _look(app, await find_batch(app, reference), may_submit=may_submit)
    pause_seconds = app.settings.poll_seconds
    while (
        (not (status := describe(batch)).done or status.awaits_output)
        # For another key nothing will change.
        and not is_anothers(app, batch)
        and (left := deadline - time.monotonic()) > 0
    ):
        _show(app, status)
        pause = min(left, jittered(pause_seconds))
        if may_submit and is_calling(batch):
            # It may end sooner, and Gemini need not be asked.
            await _call(app, batch.id, pause)
        else:
            await anyio.sleep(pause)
        pause_seconds = next_pause(pause_seconds)
        batch = await _look(app, batch, may_submit=may_submit)
    if wait_seconds > 0:
        _show(app, status)
    return status


def _show(app: App, status: BatchStatus) -> None:
    rows = status.progress
    doing = Doing.ENDED if status.done else Doing.WAITING
    app.gauge.show(Progress(doing, rows.succeeded + rows.failed, rows.total or None, note=status.state))


async def _look(app: App, batch: BatchEntry, *, may_submit: bool) -> BatchEntry:
    """Bring the ledger up to date, and let go on what can: a job that waited may have its turn now."""
    batch = await refresh(app, batch)
    if may_submit and not is_anothers(app, batch) and any(can_submit(job) for job in batch.jobs):
        wait_seconds = 0 if app.lives_on else None
        try:
            await app.run(f"submit {batch.id}", Submission(app, batch.id).run, wait_seconds=wait_seconds)
        except BatchError:
            # A refusal has become the batch's state, which is what was asked for; anything else has to be told.
            if not describe(await current(app, batch.id)).done:
                raise
        batch = await current(app, batch.id)
    if may_submit and not is_anothers(app, batch) and is_calling(batch):
        await _call(app, batch.id, 0)
        batch = await current(app, batch.id)
    return batch


async def _call(app: App, batch_id: str, wait_seconds: float) -> None:
    """Have rows called that are answered now, and wait so long for the end of it.

    In a process that ends with its command, calls that have left are waited for.

    Raises:
        BatchError: they cannot be called.
    """
    try:
        await go_on_calling(app, batch_id, wait_seconds=wait_seconds if app.lives_on else None)
    except BatchError:
        # A refusal has become the batch's state, which is what was asked for; anything else has to be told.
        if not describe(await current(app, batch_id)).done:
            raise
