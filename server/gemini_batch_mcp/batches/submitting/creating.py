"""Submitting a batch: cut into jobs, upload, create each once, and find the jobs whose reply was lost."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import anyio
import anyio.lowlevel

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.jobs.accounts import is_anothers
from gemini_batch_mcp.batches.jobs.finding import find_sent
from gemini_batch_mcp.batches.jobs.lock import BatchLocked, batch_lock
from gemini_batch_mcp.batches.jobs.tracking import (
    ChangedMeanwhile,
    Unproved,
    load,
    move,
    prove_absent,
    record,
    refuse_unproved,
    reread,
)
from gemini_batch_mcp.batches.ledger.entries import UNSUBMITTED, BatchEntry, JobEntry, Stage
from gemini_batch_mcp.batches.objects import check_object, keep_keys
from gemini_batch_mcp.batches.orders.identity import IdentifiedOrder
from gemini_batch_mcp.batches.orders.preparing import identify_for
from gemini_batch_mcp.batches.orders.pricing import read_prices
from gemini_batch_mcp.batches.remote.places import is_remote
from gemini_batch_mcp.batches.remote.sending import plan_table, write_requests
from gemini_batch_mcp.batches.submitting._cutting import plan_jobs, split_in_smaller
from gemini_batch_mcp.batches.submitting._early_upload import EarlyUpload
from gemini_batch_mcp.batches.submitting._uploading import inline_lines, upload_lines
from gemini_batch_mcp.batches.submitting.quota import hold_back, is_due, wait_for_quota
from gemini_batch_mcp.domain import JobError, JobState, JsonObject
from gemini_batch_mcp.errors import (
    AccessDenied,
    BatchError,
    ConfigurationError,
    GeminiError,
    NotFound,
    OutcomeUnknown,
    QuotaExhausted,
    Rejected,
    StorageError,
    Unavailable,
)
from gemini_batch_mcp.paths import sweep
from gemini_batch_mcp.threads import in_thread
from gemini_batch_mcp.tracing import span

#: How long this process waits for the batch's lock; whoever submits holds it for much longer. Some time all the same:
#: somebody may just be looking whether it is held.
_LOCK_WAIT_SECONDS = 0.5


@dataclass(slots=True)
class Submission:
    """One process's try at submitting a batch.

    `identified` is None when nobody has just given the order: it is read from the ledger then. `may_repeat_unknown`
    says that the user gave the order again: only then may a job be created that Gemini's list was found not to have.
    """

    app: App
    batch_id: str
    identified: IdentifiedOrder | None = None
    may_repeat_unknown: bool = False
    #: An upload that was begun before; it is given up when this ends.
    early: EarlyUpload | None = None
    #: It got the lock: it submits, nobody else.
    has_begun: bool = False

    async def run(self) -> None:
        """Take the batch from wherever its submission stopped to its end, unless another process is at it.

        Raises:
            BatchError: the order or its files cannot be used any more, or Gemini refused a job.
        """
        if self.early is not None:
            self.early.is_handed_over = True
        try:
            with contextlib.suppress(BatchLocked):
                async with batch_lock(self.app, self.batch_id, wait_seconds=_LOCK_WAIT_SECONDS):
                    await self._submit_locked()
        finally:
            if self.early is not None:
                self.early.give_up()

    async def _submit_locked(self) -> None:
        # What a killed process has left: nobody else is at it now.
        directory = self.app.files(self.batch_id).directory
        await in_thread(sweep, directory, "table-*", "*.jsonl.part", "*.parquet.part")
        # Read only now: another process may have finished the submission just before this one got the lock.
        batch = await load(self.app, self.batch_id)
        if is_anothers(self.app, batch):
            # What another key's project waits for is not paid with this one, unless the user orders it anew.
            may_take_over = self.may_repeat_unknown
            if not may_take_over or not await in_thread(self.app.ledger.take_over, batch.id, self.app.account):
                return
            batch = await load(self.app, self.batch_id)
        self.has_begun = not batch.is_submitted
        first = batch.jobs[0]
        if first.stage is Stage.RESERVED and not first.size_bytes:
            batch = await self._plan(batch, first)
        if batch.is_sent_in_place and not self.app.files(batch.id).keys().is_file():
            batch = await self._note_object(batch, first)
        await self._submit_jobs(batch)

    async def _plan(self, batch: BatchEntry, job: JobEntry) -> BatchEntry:
        try:
            identified = await self._identify(batch)
            await (plan_table if is_remote(batch) else plan_jobs)(self.app, batch, job, identified)
        except ChangedMeanwhile:
            raise
        except BatchError as error:
            if await self._may_pass(batch, job, error):
                raise
            await _record_failure(self.app, batch, (job,), error)
            raise
        return await load(self.app, batch.id)

    async def _note_object(self, batch: BatchEntry, job: JobEntry) -> BatchEntry:
        """Write down what a pass over an object found, before a job is made of it: its rows and their keys."""
        try:
            assert batch.order is not None
            found = await check_object(self.app, batch.order, await read_prices(self.app))
            await in_thread(self.app.ledger.update_job, job.id, request_count=found.count)
            counts = {"request_count": found.count, "size_bytes": found.size_bytes}
            await in_thread(self.app.ledger.update_batch, batch.id, **counts)
            await in_thread(keep_keys, self.app, batch.id, found)
        except BatchError as error:
            if not await self._may_pass(batch, job, error):
                await _record_failure(self.app, batch, (job,), error)
            raise
        return await load(self.app, batch.id)

    async def _identify(self, batch: BatchEntry) -> IdentifiedOrder:
        """Return the order as it was given.

        Raises:
            StorageError: its source has changed since.
        """
        if self.identified is None:
            if batch.order is None:
                raise StorageError(f"The order of {batch.id} is not in the ledger.", "Submit the same order again.")
            identified = await in_thread(identify_for, self.app, batch.order)
            self.identified = replace(identified, is_anew=batch.is_anew)
        if batch.content_sha256 and self.identified.content_sha256 != batch.content_sha256:
            raise StorageError(f"{batch.source} has changed since it was ordered.", "Submit it again.")
        return self.identified

    async def _submit_jobs(self, batch: BatchEntry) -> None:
        """Submit every job that can be; one that is refused does not keep the others back once some are at Gemini.

        Raises:
            BatchError: Gemini refused the first job of an attempt, or could not be reached.
        """
        for job in batch.jobs:
            if job.stage not in UNSUBMITTED or not is_due(job):
                continue
            try:
                await self._submit_job(batch, job)
            except QuotaExhausted as error:
                await wait_for_quota(self.app, await reread(self.app, job), error)
            except ChangedMeanwhile:
                raise
            except BatchError as error:
                if await self._may_pass(batch, job, error):
                    raise
                if not await _may_be_at_gemini(self.app, job):
                    same_attempt = [other for other in batch.jobs if other.attempt == job.attempt]
                    await _record_failure(self.app, batch, same_attempt, error)
                    raise
                await _record_failure(self.app, batch, (job,), error)

    async def _may_pass(self, batch: BatchEntry, job: JobEntry, error: BatchError) -> bool:
        """True for a failure after which everything stays as it is: the next try may fare better.

        An order that has just been given and came to nothing is not kept: whoever gave it is told so.
        """
        if isinstance(error, Unproved):
            return True
        if not isinstance(error, AccessDenied | Unavailable | StorageError):
            return False
        if not self.may_repeat_unknown or await _may_be_at_gemini(self.app, job):
            return True
        return isinstance(error, Unavailable) and (await reread(self.app, job)).stage is not Stage.RESERVED

    async def _submit_job(self, batch: BatchEntry, job: JobEntry) -> None:
        app = self.app
        if job.tier:
            # Its rows are called once this has ended, see `calls`.
            now = datetime.now(UTC)
            await move(app, job, Stage.CALLING, state=JobState.RUNNING, created_at=now, moved_at=now)
            return
        if job.stage is Stage.UNKNOWN:
            found = await self._find_unknown(batch, job)
            if found is None:
                return
            job = found
        if await hold_back(app, batch, job):
            return
        if job.is_unproved:
            absent = await prove_absent(app, batch, job)
            if absent is None or await split_in_smaller(app, batch, absent):
                return
            job = absent
        if job.stage is Stage.UPLOADED and not await self._is_still_there(batch, job):
            job = await move(app, job, Stage.RESERVED, uploaded_file="")
        inline: Sequence[JsonObject] = ()
        if job.stage is Stage.RESERVED and batch.delivery == "inline" and job.attempt == 1:
            inline = await in_thread(inline_lines, app, batch, job)
        elif job.stage is Stage.RESERVED:
            early = await self.early.finish(job) if self.early is not None else ""
            uploaded = early or await (write_requests if is_remote(batch) else upload_lines)(app, batch, job)
            job = await move(app, job, Stage.UPLOADED, uploaded_file=uploaded)
        if job.stage in (Stage.RESERVED, Stage.UPLOADED):
            await self._create(batch, job, inline)

    async def _is_still_there(self, batch: BatchEntry, job: JobEntry) -> bool:
        """Uploads vanish after 48 hours: a submission that is continued later may have to send the file again."""
        if job.uploaded_file == batch.source:
            return True
        try:
            await self.app.gateway.get_file(job.uploaded_file)
        except (NotFound, Rejected):
            return False
        return True

    async def _find_unknown(self, batch: BatchEntry, job: JobEntry) -> JobEntry | None:
        """Find the job whose create got no reply; return it as to be created when that is proved and wanted.

        Raises:
            Unproved: Gemini's list proves nothing, and the user wants to know.
        """
        app = self.app
        seconds = app.settings.reconcile_seconds if self.may_repeat_unknown else 0.0
        search = await find_sent(app, batch, job, for_seconds=seconds)
        if search.found is not None:
            await record(app, job, search.found)
            return None
        if not self.may_repeat_unknown:
            return None
        refuse_unproved(batch, search)
        # The list was read whole and does not have it, and the user gave the order again: it may be created now.
        return await move(app, job, Stage.UPLOADED if job.uploaded_file else Stage.RESERVED, sent_at=None)

    async def _create(self, batch: BatchEntry, job: JobEntry, inline: Sequence[JsonObject]) -> None:
        """Send a job's one create. Its stage is `unknown` from before it leaves until the reply is recorded.

        No reply but the job itself says that there is none: `sent_at` stays until Gemini's list was searched.
        """
        app, ready = self.app, job.stage
        job = await move(
            app,
            job,
            Stage.UNKNOWN,
            wait_reason="",
            wait_until=None,
            sent_at=datetime.now(UTC),
            account=app.account.fingerprint,
            key_origin=app.account.key_origin,
        )
        model, display_name = job.model or batch.model, f"{batch.display_name} {job.tag}"
        try:
            await in_thread(app.keep_card, batch.id)
            # The last moment at which it can be stopped.
            await anyio.lowlevel.checkpoint_if_cancelled()
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await move(app, job, ready, sent_at=None)
            raise
        try:
            # A cancel waits for the reply: a create cannot be taken back, and one whose reply is dropped would be lost.
            with (
                anyio.CancelScope(shield=True),
                span("create", batch=batch.id, model=model, requests=job.request_count),
            ):
                if inline:
                    created = await app.gateway.create_inline(
                        model=model, requests=inline, display_name=display_name, task=batch.task
                    )
                else:
                    created = await app.gateway.create_from_file(
                        model=model, file_name=job.uploaded_file, display_name=display_name, task=batch.task
                    )
                await record(app, job, created)
                await in_thread(app.keep_card, batch.id)
        except OutcomeUnknown:
            # Whatever keeps the list from being read, the job stays unknown, and that is what the user is told.
            with contextlib.suppress(AccessDenied):
                search = await find_sent(app, batch, job, for_seconds=app.settings.reconcile_seconds)
                if search.found is not None:
                    await record(app, job, search.found)
        except QuotaExhausted as error:
            # What was uploaded stays until there is room; whether this create took effect is asked before another.
            await wait_for_quota(app, await move(app, job, ready), error)
        except (Unavailable, ConfigurationError):
            await move(app, job, ready, sent_at=None)
            raise
        except GeminiError as error:
            refused = await self._look_after_refusal(batch, job, error)
            if refused is not None:
                await move(app, refused, ready)
                raise

    async def _look_after_refusal(self, batch: BatchEntry, job: JobEntry, refusal: GeminiError) -> JobEntry | None:
        """Look once for a job whose create was refused; None when it is there all the same, and recorded."""
        try:
            search = await find_sent(self.app, batch, job, for_seconds=0.0)
        except AccessDenied:
            # A key that may neither create nor list has made nothing.
            is_proof = isinstance(refusal, AccessDenied)
            return await move(self.app, job, job.stage, sent_at=None) if is_proof else job
        if search.found is None:
            return job
        await record(self.app, job, search.found)
        return None


async def _record_failure(app: App, batch: BatchEntry, failed: Sequence[JobEntry], error: BatchError) -> None:
    # The reason first: whoever sees the failure must find it.
    await in_thread(app.ledger.update_batch, batch.id, failure=str(error))
    for job in failed:
        now = await reread(app, job)
        # A job that may exist at Gemini is never said to have failed: the same order would be created again.
        if now.stage not in (Stage.RESERVED, Stage.UPLOADED):
            continue
        uploaded = now.uploaded_file
        reason = JobError(error.status_code if isinstance(error, GeminiError) else 0, str(error))
        await in_thread(
            app.ledger.update_job,
            job.id,
            expected=now.stage,
            error=reason,
            stage=Stage.FAILED,
            state=JobState.FAILED,
            wait_reason="",
        )
        if uploaded and uploaded != batch.source and not now.is_unproved and not isinstance(error, NotFound):
            # A file that stays costs nothing and vanishes by itself after 48 hours.
            with contextlib.suppress(BatchError):
                await app.gateway.delete_file(uploaded)


async def _may_be_at_gemini(app: App, job: JobEntry) -> bool:
    """True when a job of the same attempt is at Gemini, or may be."""
    batch = await load(app, job.batch_id)
    return any(
        other.name or other.is_unknown or other.stage is Stage.CALLING
        for other in batch.jobs
        if other.attempt == job.attempt
    )
