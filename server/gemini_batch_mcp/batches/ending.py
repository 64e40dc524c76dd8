"""Ending a batch early, and removing one: at Gemini as far as Gemini allows, then here."""

import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import anyio

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.calls.calling import settle_cancelled
from gemini_batch_mcp.batches.jobs.accounts import refuse_anothers
from gemini_batch_mcp.batches.jobs.advice import life_of
from gemini_batch_mcp.batches.jobs.finding import find_batch, find_sent
from gemini_batch_mcp.batches.jobs.lock import LOCK_WAIT_SECONDS, BatchLocked, batch_lock
from gemini_batch_mcp.batches.jobs.removing import remove_batch
from gemini_batch_mcp.batches.jobs.tracking import (
    BatchStatus,
    describe,
    lag_seconds_left,
    load,
    record,
    refresh,
    reread,
)
from gemini_batch_mcp.batches.ledger.entries import UNSUBMITTED, BatchEntry, JobEntry, Stage
from gemini_batch_mcp.batches.losses import Loss, kept_by_others, loss_of_cancel, loss_of_delete, refuse_unagreed
from gemini_batch_mcp.batches.remote.places import is_remote
from gemini_batch_mcp.batches.remote.removing_tables import drop_tables
from gemini_batch_mcp.domain import JobState
from gemini_batch_mcp.errors import BatchError, GeminiError, NotFound, NotReady, Rejected
from gemini_batch_mcp.threads import in_thread

#: How long delete_batch waits for a job that it has just cancelled.
_CANCEL_WAIT_SECONDS = 15.0
#: How long a cancel looks for jobs whose create got no reply: with the wait above, less than a call may take.
_SEARCH_SECONDS = 20.0
#: How long delete_batch waits for whoever submits or collects the batch.
_LOCK_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class NotDeleted:
    """Something that is still there, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Deletion:
    """What became of a batch that was to be deleted. `local`: its ledger entry and stored answers are gone."""

    batch_id: str
    jobs: tuple[str, ...]
    files: tuple[str, ...]
    local: bool
    not_deleted: tuple[NotDeleted, ...]


async def cancel_loss(app: App, reference: str) -> Loss:
    """Return what the user has to be asked before a batch is cancelled.

    Raises:
        NotReady: the batch has ended already.
        GeminiError: Gemini could not be asked.
    """
    return await in_thread(loss_of_cancel, app, await _to_cancel(app, reference))


async def delete_loss(app: App, reference: str) -> Loss:
    """Return what the user has to be asked before a batch is deleted.

    Raises:
        AnothersBatch: it was made with another key.
        GeminiError: Gemini could not be asked.
    """
    return await in_thread(loss_of_delete, app, await _to_delete(app, reference))


async def cancel_batch(
    app: App, reference: str, *, agreed_to: Loss | None = None, confirm: bool = False
) -> BatchStatus:
    """Stop a batch: what Gemini works on is cancelled there, what is still on its way never leaves.

    Every job is tried, whatever becomes of the others. Where the rows could not be sent again, only if the user agreed:
    `agreed_to` is what they were asked and said yes to, `confirm` somebody's word that they agreed.

    Raises:
        NotConfirmed: nobody agreed, and what Gemini has not finished would be lost.
        NotReady: the batch has ended already, or whether one of its jobs exists is not known.
        GeminiError: Gemini could not be asked or refused.
    """
    batch = await _to_cancel(app, reference)
    loss = await in_thread(loss_of_cancel, app, batch)
    await refuse_unagreed(app, loss, agreed_to=agreed_to, confirm=confirm)
    await app.work.cancel(f"submit {batch.id}")
    async with contextlib.AsyncExitStack() as stack:
        # A cancel stops what costs also while somebody else submits or collects: each of its steps is a change that no
        # other can be lost in. Only for a job that is looked for it must hold the lock, and only then it waits for it.
        is_held = True
        is_searching = any(job.is_unproved and job.stage in UNSUBMITTED for job in batch.jobs)
        try:
            await stack.enter_async_context(batch_lock(app, batch.id, wait_seconds=LOCK_WAIT_SECONDS * is_searching))
        except BatchLocked:
            is_held = False
        failures = await _cancel_jobs(app, await load(app, batch.id), is_held=is_held)
    # Gemini cancels in its own time; what it says now is the truth, and a failed look changes nothing of the cancel.
    try:
        batch = await refresh(app, await load(app, batch.id))
    except GeminiError:
        batch = await load(app, batch.id)
    # A job that has just ended refuses a cancel, which then is no failure any more.
    if failures and not describe(batch).done:
        raise next(iter(failures.values()))
    return describe(batch)


async def _to_cancel(app: App, reference: str) -> BatchEntry:
    batch = await refresh(app, await find_batch(app, reference))
    refuse_anothers(app, batch)
    if describe(batch).done:
        raise NotReady(f"{batch.id} has already ended: its state is {describe(batch).state}.", describe(batch).advice)
    return batch


async def _to_delete(app: App, reference: str) -> BatchEntry:
    batch = await refresh(app, await find_batch(app, reference))
    refuse_anothers(app, batch)
    return batch


async def _cancel_jobs(app: App, batch: BatchEntry, *, is_held: bool) -> dict[int, BatchError]:
    """Cancel every job that can be, whatever becomes of the others; returns why some could not be, by their ids."""
    failures: dict[int, BatchError] = {}
    search_seconds = min(app.settings.reconcile_seconds, _SEARCH_SECONDS) / max(
        1, sum(job.is_unproved for job in batch.jobs)
    )
    for job in batch.jobs:
        try:
            await _cancel_job(app, batch, job, search_seconds if is_held else None)
        except (NotReady, GeminiError) as error:
            failures[job.id] = error
    return failures


async def _cancel_job(app: App, batch: BatchEntry, job: JobEntry, search_seconds: float | None) -> None:
    if job.stage in (Stage.RESERVED, Stage.UPLOADED) and not job.is_unproved:
        was_moved = await in_thread(
            app.ledger.move_job, job.id, expected=job.stage, stage=Stage.CANCELLED, state=JobState.CANCELLED
        )
        if was_moved:
            return
        job = await reread(app, job)
    if job.is_unproved and job.stage in UNSUBMITTED and search_seconds is not None:
        job = await _resolve_unknown(app, batch, job, search_seconds)
    if job.stage is Stage.CALLING:
        # Whoever calls its rows sees that, and calls no other; replies to those that have left are waited for.
        await _set(app, job, expected=Stage.CALLING, state=JobState.CANCELLING)
        if search_seconds is not None:
            await settle_cancelled(app, batch, job)
    elif job.stage is Stage.SUBMITTED:
        await app.gateway.cancel_job(job.name)
        await _set(app, job, expected=Stage.SUBMITTED, state=JobState.CANCELLING)
    elif job.stage in UNSUBMITTED:
        raise NotReady(
            f"A job of {job.batch_id} was not cancelled: its create call was sent, and it is not known yet "
            "whether it exists.",
            "Call cancel_batch again in a minute.",
        )


async def _resolve_unknown(app: App, batch: BatchEntry, job: JobEntry, search_seconds: float) -> JobEntry:
    """Look for a job whose create has left; one that Gemini's whole list was found not to have counts as cancelled.

    That is the proof with which the create might be repeated, too. A job whose absence is not proved is returned as it
    is. Only for whoever holds the batch's lock: somebody else may be sending the create.
    """
    search = await find_sent(app, batch, job, for_seconds=min(search_seconds, lag_seconds_left(app, job)))
    if search.found is not None:
        await record(app, job, search.found)
    elif search.is_conclusive:
        ends = {"stage": Stage.CANCELLED, "state": JobState.CANCELLED, "wait_reason": ""}
        await _set(app, job, expected=job.stage, sent_at=None, **(ends if job.stage in UNSUBMITTED else {}))
    return await reread(app, job)


async def delete_batch(app: App, reference: str, *, agreed_to: Loss | None = None, confirm: bool = False) -> Deletion:
    """Delete a batch's jobs and uploaded files at Gemini, then its ledger entry and stored answers here.

    Files that the user saved elsewhere stay. A job that is still running is cancelled first, since a delete alone is
    not documented to stop it; until it has ended, the batch stays known here. Only if the user agreed, as for a cancel.

    Raises:
        NotConfirmed: nobody agreed; says what would be deleted.
        AnothersBatch: it was made with another key.
        BatchLocked: somebody else submits or collects it, and does not come to an end.
    """
    batch = await _to_delete(app, reference)
    await refuse_unagreed(app, await in_thread(loss_of_delete, app, batch), agreed_to=agreed_to, confirm=confirm)
    for doing in ("submit", "call", "collect"):
        await app.work.cancel(f"{doing} {batch.id}")
    async with batch_lock(app, batch.id, wait_seconds=_LOCK_SECONDS):
        # From now on the same order is another batch, and this one is not what it is answered with.
        await in_thread(app.ledger.update_batch, batch.id, is_deleting=True)
        is_removed = False
        try:
            deletion = await _delete_locked(app, await load(app, batch.id))
            is_removed = deletion.local
            return deletion
        finally:
            if not is_removed:
                with anyio.CancelScope(shield=True):
                    await in_thread(app.ledger.update_batch, batch.id, is_deleting=False)


async def _delete_locked(app: App, batch: BatchEntry) -> Deletion:
    batch = await _cancel_and_wait(app, batch)
    jobs: list[str] = []
    files: list[str] = []
    kept: list[NotDeleted] = []
    for job in batch.jobs:
        if job.name and not job.state.is_terminal:
            kept.append(NotDeleted(job.name, f"It is still {job.state}; call delete_batch again once it has ended."))
            continue
        if job.is_unproved:
            why = "Whether its job exists at Gemini is unknown, and Gemini's list cannot be read: try again later."
            kept.append(NotDeleted(batch.id, why))
            continue
        if job.name and (reason := await _delete_at_gemini(app.gateway.delete_job, job.name)) is not None:
            kept.append(NotDeleted(job.name, reason))
            continue
        jobs += [job.name] if job.name else []
        if job.uploaded_file and job.uploaded_file == batch.source:
            kept.append(NotDeleted(job.uploaded_file, "It was uploaded elsewhere and may be in use there."))
        elif job.uploaded_file and not is_remote(batch):
            reason = await _delete_at_gemini(app.gateway.delete_file, job.uploaded_file)
            files += [job.uploaded_file] if reason is None else []
            kept += [NotDeleted(job.uploaded_file, reason)] if reason is not None else []
        if job.responses_file and not is_remote(batch):
            reason = (
                "The answers are yours, in your bucket, and stay there; delete them where you no longer need them."
                if job.responses_file.startswith(("gs://", "bq://"))
                else "Result files can't be deleted; Gemini removes them itself after a while."
            )
            kept.append(NotDeleted(job.responses_file, reason))
    for attached in (await in_thread(app.ledger.attachments, batch.id)).values():
        reason = await _delete_at_gemini(app.gateway.delete_file, attached.name)
        files += [attached.name] if reason is None else []
        kept += [NotDeleted(attached.name, reason)] if reason is not None else []
    if is_remote(batch) and not kept:
        gone, left = await drop_tables(app, batch)
        files += gone
        kept += [NotDeleted(name, reason) for name, reason in left]
    # Each has copies of its own.
    kept += [NotDeleted(other, f"It {keeps}") for other, keeps in await in_thread(kept_by_others, app, batch.id)]
    job_names = {job.name or batch.id for job in batch.jobs}
    local = not any(entry.name in job_names for entry in kept)
    if local:
        await in_thread(remove_batch, app, batch.id)
    return Deletion(batch.id, tuple(jobs), tuple(files), local, tuple(kept))


async def _cancel_and_wait(app: App, batch: BatchEntry) -> BatchEntry:
    """Cancel what still runs and wait a little for it to end; a job that Gemini has forgotten counts as ended.

    A job whose cancel failed is not waited for: it would end by itself only.
    """
    for job in batch.jobs:
        if job.stage is Stage.SUBMITTED and _is_proof(app, job) and await _is_forgotten(app, job):
            await _set(app, job, expected=Stage.SUBMITTED, stage=Stage.CANCELLED, state=JobState.CANCELLED)
        if job.is_unproved and job.stage is Stage.FAILED:
            await _resolve_unknown(app, batch, job, _SEARCH_SECONDS)
    batch = await load(app, batch.id)
    if not describe(batch).done:
        failures = await _cancel_jobs(app, batch, is_held=True)
        deadline = time.monotonic() + _CANCEL_WAIT_SECONDS
        pause_seconds = min(app.settings.poll_seconds, _LOOK_SECONDS)
        batch = await refresh(app, await load(app, batch.id))
        while any(_is_ending(job, failures) for job in batch.jobs) and time.monotonic() < deadline:
            await anyio.sleep(pause_seconds)
            batch = await refresh(app, batch)
        if not describe(batch).done:
            # What cannot be cancelled now, or is not known, is named as not deleted; anything else has to be told.
            for failure in failures.values():
                if not isinstance(failure, NotReady):
                    raise failure
    return await load(app, batch.id)


def _is_ending(job: JobEntry, failures: Mapping[int, BatchError]) -> bool:
    return job.stage is Stage.SUBMITTED and job.id not in failures


def _is_proof(app: App, job: JobEntry) -> bool:
    """True when a job that Gemini does not show to this key is none: the key made it, or it cannot run any more."""
    age = datetime.now(UTC) - job.created_at if job.created_at is not None else timedelta(0)
    return app.is_own(job.account) or age > life_of((job,))


async def _is_forgotten(app: App, job: JobEntry) -> bool:
    try:
        await app.gateway.get_job(job.name)
    except NotFound:
        return True
    return False


async def _delete_at_gemini(delete: Callable[[str], Awaitable[None]], name: str) -> str | None:
    """Delete something at Gemini; what is gone already counts as deleted. Returns the reason when it stays."""
    try:
        await delete(name)
    except NotFound:
        return None
    except Rejected as error:
        return error.message
    return None


async def _set(app: App, job: JobEntry, **values: Any) -> None:
    await in_thread(app.ledger.update_job, job.id, **values)
