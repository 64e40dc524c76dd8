"""From an order to a submitted job: reserve, upload while checking, create once, and find what a lost reply hid."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import anyio
import filelock

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.entries import BatchEntry, JobEntry, NewBatch, Stage
from gemini_batch_mcp.batches.find import MAX_DISPLAY_NAME_CHARS, find_by_tag
from gemini_batch_mcp.batches.identity import IdentifiedOrder, identify
from gemini_batch_mcp.batches.models import check_model
from gemini_batch_mcp.batches.track import BatchStatus, current, describe, load, record
from gemini_batch_mcp.batches.upload import send_requests
from gemini_batch_mcp.domain import JobState, JsonObject, Order
from gemini_batch_mcp.errors import (
    BatchError,
    NotFound,
    OutcomeUnknown,
    QuotaExhausted,
    Rejected,
    Unavailable,
    UsageError,
)
from gemini_batch_mcp.text import plain_text

#: How long this process waits for its turn at a batch; whoever submits holds the lock for much longer.
_TURN_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Placement:
    """What became of an order. `reused`: the same order already stood and nothing new was started."""

    status: BatchStatus
    reused: bool


async def place_order(
    app: App, order: Order, *, confirm: bool = False, resubmit: bool = False, wait_seconds: float | None = None
) -> Placement:
    """Submit an order, or return the batch that already stands for it.

    Waits at most `wait_seconds` (None: to the end) and then answers with the batch as it stands; the rest goes on in
    the background.

    Raises:
        BatchError: the order is wrong, or Gemini refused it; nothing was submitted.
        OutcomeUnknown: is never raised; the batch is left in stage `unknown` and says so.
    """
    deadline = anyio.current_time() + wait_seconds if wait_seconds is not None else None
    identified = await anyio.to_thread.run_sync(identify, order, app.guard)
    if identified.uploaded_file:
        await _check_uploaded(app, identified.uploaded_file, confirm=confirm)
    await check_model(app, order.model, order.task)
    new = NewBatch(
        order_sha256=identified.sha256,
        display_name=_display_name(identified),
        model=order.model,
        task=order.task,
        delivery=order.delivery,
        source=identified.source_name,
        uploaded_file=identified.uploaded_file,
    )
    batch, is_new = await anyio.to_thread.run_sync(partial(app.ledger.reserve, new, always=resubmit))
    if batch.is_submitted:
        return Placement(describe(batch), reused=True)
    submission = _Submission(app, batch.id, identified)
    left = max(0.0, deadline - anyio.current_time()) if deadline is not None else None
    try:
        await app.work.run(f"submit {batch.id}", submission.run, wait_seconds=left)
    except BatchError:
        await anyio.to_thread.run_sync(_forget_if_never_sent, app, batch.id)
        raise
    return Placement(describe(await current(app, batch.id)), reused=not (is_new or submission.has_begun))


@dataclass(slots=True)
class _Submission:
    """One process's turn at submitting a batch."""

    app: App
    batch_id: str
    identified: IdentifiedOrder
    #: This turn got the lock: it submits, nobody else.
    has_begun: bool = False

    async def run(self) -> None:
        """Take the batch from wherever its submission stopped to `submitted`, unless another process is at it."""
        files = self.app.files(self.batch_id)
        await anyio.to_thread.run_sync(files.make_directory)
        lock = filelock.FileLock(files.submit_lock, thread_local=False)
        try:
            # Not at once: somebody may just be looking whether the lock is held.
            await anyio.to_thread.run_sync(partial(lock.acquire, timeout=_TURN_SECONDS, poll_interval=0.05))
        except filelock.Timeout:
            return
        try:
            # Read only now: another process may have finished the submission just before this one got the lock.
            batch = await load(self.app, self.batch_id)
            self.has_begun = not batch.is_submitted
            for job in batch.jobs:
                await _submit_job(self.app, batch, job, self.identified)
        finally:
            lock.release()


async def _submit_job(app: App, batch: BatchEntry, job: JobEntry, identified: IdentifiedOrder) -> None:
    if job.stage is Stage.UNKNOWN:
        search = await find_by_tag(app, job.tag, for_seconds=app.settings.reconcile_seconds)
        if search.found is not None:
            await record(app, job, search.found)
            return
        if not search.is_conclusive:
            raise Unavailable(
                f"Whether {batch.id} exists at Gemini is unknown, and Gemini's list cannot be read: it is not created.",
                "Give the same order again later.",
            )
        # The list was read whole and does not have it, and the user gave the order again: it may be created now.
        job = await _move(app, job, Stage.UPLOADED if job.uploaded_file else Stage.RESERVED)
    if job.stage is Stage.UPLOADED and not identified.uploaded_file and not await _is_still_there(app, job):
        job = await _move(app, job, Stage.RESERVED, uploaded_file="")
    inline: Sequence[JsonObject] = ()
    if job.stage is Stage.RESERVED:
        try:
            inline, uploaded = await send_requests(app, batch, job, identified)
        except BatchError as error:
            await _record_failure(app, batch, job, error)
            raise
        if uploaded:
            job = await _move(app, job, Stage.UPLOADED, uploaded_file=uploaded)
    if job.stage in (Stage.RESERVED, Stage.UPLOADED):
        await _create(app, batch, job, inline)


async def _create(app: App, batch: BatchEntry, job: JobEntry, inline: Sequence[JsonObject]) -> None:
    """Send a job's one create. Its stage is `unknown` from before the request leaves until the reply is recorded."""
    ready = job.stage
    job = await _move(app, job, Stage.UNKNOWN)
    display_name = f"{batch.display_name} {job.tag}"
    try:
        # A cancel waits for the reply: a create cannot be taken back, and one whose reply is dropped would be lost.
        with anyio.CancelScope(shield=True):
            if inline:
                created = await app.gateway.create_inline(
                    model=batch.model, requests=inline, display_name=display_name, task=batch.task
                )
            else:
                created = await app.gateway.create_from_file(
                    model=batch.model, file_name=job.uploaded_file, display_name=display_name, task=batch.task
                )
            await record(app, job, created)
            return
    except OutcomeUnknown:
        search = await find_by_tag(app, job.tag, for_seconds=app.settings.reconcile_seconds)
        if search.found is None:
            return
        created = search.found
    except (QuotaExhausted, Unavailable):
        # Refused before any effect: what was uploaded stays, and the same order continues from it.
        await _move(app, job, ready)
        raise
    except BatchError as error:
        await _record_failure(app, batch, job, error)
        raise
    await record(app, job, created)


async def _move(app: App, job: JobEntry, stage: Stage, **values: Any) -> JobEntry:
    """Move a job to another stage and return it as it is then.

    Raises:
        BatchError: somebody else, a cancel in another process, has moved it meanwhile; nothing further is sent.
    """
    moved = await anyio.to_thread.run_sync(
        partial(app.ledger.move_job, job.id, expected=job.stage, stage=stage, **values)
    )
    if not moved:
        raise BatchError(f"{job.batch_id} was changed while it was being submitted.", "Call check_status to see how.")
    return replace(job, stage=stage, **values)


async def _record_failure(app: App, batch: BatchEntry, job: JobEntry, error: BatchError) -> None:
    # The reason first: whoever sees the failure must find it.
    await anyio.to_thread.run_sync(partial(app.ledger.update_batch, batch.id, failure=str(error)))
    await anyio.to_thread.run_sync(partial(app.ledger.update_job, job.id, stage=Stage.FAILED, state=JobState.FAILED))
    if job.uploaded_file and job.uploaded_file != batch.source and not isinstance(error, NotFound):
        # A file that stays costs nothing and vanishes by itself after 48 hours.
        with contextlib.suppress(BatchError):
            await app.gateway.delete_file(job.uploaded_file)


async def _is_still_there(app: App, job: JobEntry) -> bool:
    """Uploads vanish after 48 hours: a submission that is continued later may have to send the file again."""
    try:
        await app.gateway.get_file(job.uploaded_file)
    except (NotFound, Rejected):
        return False
    return True


async def _check_uploaded(app: App, uploaded_file: str, *, confirm: bool) -> None:
    if app.settings.max_cost_usd is not None:
        raise UsageError(
            f"GEMINI_BATCH_MAX_COST_USD is set, and {uploaded_file} cannot be priced: it cannot be read back.",
            "Give the local file.",
        )
    await app.gateway.get_file(uploaded_file)
    if not confirm:
        raise UsageError(
            f"{uploaded_file} is at the Files API already and cannot be read back: "
            "its lines can neither be checked nor counted before Gemini charges for them.",
            "Tell the user, then call create_batch again with confirm=true; or give the local file.",
        )


def _forget_if_never_sent(app: App, batch_id: str) -> None:
    """Drop the traces of an order that was refused before anything could cost: the caller has just been told why."""
    batch = app.ledger.batch(batch_id)
    if batch is None or any(job.stage is not Stage.FAILED or job.uploaded_file for job in batch.jobs):
        return
    app.ledger.forget(batch_id)
    directory = app.files(batch_id).directory
    for path in directory.glob("*"):
        path.unlink(missing_ok=True)
    directory.rmdir()


def _display_name(identified: IdentifiedOrder) -> str:
    stem = identified.path.stem if identified.path is not None else "batch"
    return plain_text(identified.order.display_name or stem, MAX_DISPLAY_NAME_CHARS) or "batch"
