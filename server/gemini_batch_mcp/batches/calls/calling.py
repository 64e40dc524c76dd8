"""Calling the rows of a job, a few at a time: each at most once without being known not to have been answered."""

import json
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import anyio

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.calls._lines import CheckedLines
from gemini_batch_mcp.batches.calls.journal import Journal, Standing
from gemini_batch_mcp.batches.gauge import Doing, Progress
from gemini_batch_mcp.batches.jobs.accounts import is_anothers
from gemini_batch_mcp.batches.jobs.lock import BatchLocked, batch_lock
from gemini_batch_mcp.batches.jobs.pauses import jittered
from gemini_batch_mcp.batches.jobs.stored_lines import request_path, shard_of
from gemini_batch_mcp.batches.jobs.tracking import load, reread
from gemini_batch_mcp.batches.ledger.entries import BatchEntry, JobEntry, Stage
from gemini_batch_mcp.domain import JobError, JobState, RowCounts
from gemini_batch_mcp.errors import (
    AccessDenied,
    BatchError,
    ConfigurationError,
    GeminiError,
    NotFound,
    OutcomeUnknown,
    PathError,
    QuotaExhausted,
    Rejected,
    StorageError,
    Unavailable,
    UsageError,
    storage_errors,
)
from gemini_batch_mcp.threads import in_thread
from gemini_batch_mcp.tracing import span

#: Calls under way at a time (our choice: what the smallest quotas of requests per minute bear).
CALLS_AT_ONCE: Final = 4
#: How long somebody who looks whether the lock is held may hold it.
_LOCK_WAIT_SECONDS: Final = 0.5
#: The first pause after calls were turned away without advice, how it grows, and the longest one (our choice).
_FIRST_PAUSE_SECONDS: Final = 1.0
_GROWTH: Final = 2.0
_LONGEST_PAUSE_SECONDS: Final = 60.0
_MOST_GROWTHS: Final = 10
#: Advice is followed for so long at most: being turned away costs nothing (our choice).
_LONGEST_WAIT_SECONDS: Final = 3600.0
#: How soon a cancel is noticed while nothing else happens.
_LOOK_SECONDS: Final = 0.5
#: google.rpc codes of what a row was refused for, by HTTP status; another client error is an invalid argument.
_CODES: Final = {401: 16, 403: 7, 404: 5, 409: 10, 501: 12}
_INVALID_ARGUMENT: Final = 3


def is_calling(batch: BatchEntry) -> bool:
    """True while rows of a batch are to be called, or their answers are awaited."""
    return any(job.stage is Stage.CALLING for job in batch.jobs)


async def go_on_calling(app: App, batch_id: str, *, wait_seconds: float | None) -> bool:
    """Have the rows of a batch called in the background, and wait so long (None: to the end); True when that ended.

    Raises:
        BatchError: as `call_rows`.
    """
    return await app.run(f"call {batch_id}", partial(call_rows, app, batch_id), wait_seconds=wait_seconds)


async def call_rows(app: App, batch_id: str) -> None:
    """Call the rows of a batch that were not called yet, unless another process is at it; ends with the last reply.

    Raises:
        AccessDenied, NotFound: Gemini refuses every row for its key, or for the model; nothing was answered.
        UsageError, StorageError: its lines have changed or cannot be read, or replies cannot be written down.
    """
    with suppress(BatchLocked):
        async with batch_lock(app, batch_id, wait_seconds=_LOCK_WAIT_SECONDS):
            batch = await load(app, batch_id)
            if is_anothers(app, batch):
                return
            for job in batch.jobs:
                if job.stage is Stage.CALLING:
                    with span("call", batch=batch.id, requests=job.request_count):
                        await _call_job(app, batch, job)


async def settle_cancelled(app: App, batch: BatchEntry, job: JobEntry) -> None:
    """End a job that is cancelled while nobody calls its rows. Only for whoever holds the batch's lock.

    Raises:
        StorageError: its journal cannot be read or written.
    """
    journal = await in_thread(Journal.open, app.files(batch.id).calls(job.id))
    journal.close()
    await _end(app, job, journal.standing, JobState.CANCELLED)


async def _call_job(app: App, batch: BatchEntry, job: JobEntry) -> None:
    journal = await in_thread(Journal.open, app.files(batch.id).calls(job.id))
    try:
        try:
            source = await in_thread(request_path, app, batch, job)
            lines = await in_thread(CheckedLines.of, source, shard_of(job))
        except PathError:
            # The disk; the next try may fare better.
            raise
        except (UsageError, StorageError) as error:
            await _give_up(app, job, journal.standing, error)
            raise
        keys = await in_thread(_keys, app, batch, job)
        await _Calls(app, batch, job, journal, lines, keys).run()
    finally:
        journal.close()


def _keys(app: App, batch: BatchEntry, job: JobEntry) -> list[str]:
    path = app.files(batch.id).keys(job.attempt)
    with storage_errors(f"The keys of {batch.id} could not be read"), path.open("rb") as lines:
        return [json.loads(line) for line in lines]


async def _give_up(app: App, job: JobEntry, standing: Standing, error: BatchError) -> None:
    """End a job whose other rows cannot be called any more; what is answered stays."""
    await in_thread(app.ledger.update_batch, job.batch_id, failure=str(error))
    reason = JobError(error.status_code if isinstance(error, GeminiError) else 0, str(error))
    if standing.answered or standing.lost:
        await _end(app, job, standing, JobState.PARTIALLY_SUCCEEDED, error=reason)
        return
    await in_thread(
        app.ledger.update_job,
        job.id,
        expected=Stage.CALLING,
        stage=Stage.FAILED,
        state=JobState.FAILED,
        error=reason,
        wait_reason="",
        wait_until=None,
    )


async def _end(app: App, job: JobEntry, standing: Standing, state: JobState, *, error: JobError | None = None) -> None:
    stage = Stage.FINISHED if standing.ended else Stage.CANCELLED
    now = datetime.now(UTC)
    await in_thread(
        app.ledger.update_job,
        job.id,
        expected=Stage.CALLING,
        stage=stage,
        state=state,
        error=error,
        counts=_counts(job, standing),
        lost_rows=len(standing.lost),
        ended_at=now,
        moved_at=now,
        wait_reason="",
        wait_until=None,
    )


def _counts(job: JobEntry, standing: Standing) -> RowCounts:
    done = len(standing.ended)
    return RowCounts(job.request_count, standing.answered, done - standing.answered, job.request_count - done)


@dataclass(slots=True)
class _Calls:
    """The calls of one job by this process, which holds the batch's lock."""

    app: App
    batch: BatchEntry
    job: JobEntry
    journal: Journal
    lines: CheckedLines
    keys: list[str]
    _pending: deque[int] = field(default_factory=deque)
    _under_way: int = 0
    #: Not to be called before, by the process's clock; how often in a row calls were turned away.
    _open_at: float = 0.0
    _turns: int = 0
    #: Something has changed since it was last looked.
    _changed: anyio.Event = field(default_factory=anyio.Event)
    #: Why no further call leaves.
    _failure: BatchError | None = None
    #: The refusals that may concern all rows, and what else came back, as they come: several are written at a time.
    _refusals: int = 0
    _others: int = 0
    _recording: anyio.Lock = field(default_factory=anyio.Lock)

    async def run(self) -> None:
        """Call what is to be called, to the last reply.

        Raises:
            as `call_rows`.
        """
        self._others = len(self.journal.standing.ended)
        self._pending.extend(row for row in range(len(self.lines)) if row not in self.journal.standing.ended)
        if self.job.wait_until is not None:
            left = (self.job.wait_until - datetime.now(UTC)).total_seconds()
            # A time out of reach was set by a wrong clock.
            self._open_at = time.monotonic() + (left if 0 < left <= _LONGEST_WAIT_SECONDS else 0.0)
        is_cancelled = False
        async with anyio.create_task_group() as calls:
            while self._failure is None:
                if not (self._pending or self._under_way):
                    break
                if not self._pending or self._under_way == CALLS_AT_ONCE:
                    await self._next_change()
                elif await self._is_stopped():
                    is_cancelled = True
                    break
                elif (left := self._open_at - time.monotonic()) > 0:
                    await self._next_change(min(left, _LOOK_SECONDS))
                else:
                    self._under_way += 1
                    calls.start_soon(self._call, self._pending.popleft())
        if self._failure is not None:
            if isinstance(self._failure, AccessDenied | NotFound | UsageError) and not isinstance(
                self._failure, PathError
            ):
                await _give_up(self.app, self.job, self.journal.standing, self._failure)
            raise self._failure
        # A cancel that came after the last call had left has stopped nothing.
        await _end(
            self.app, self.job, self.journal.standing, JobState.CANCELLED if is_cancelled else JobState.SUCCEEDED
        )

    async def _next_change(self, seconds: float | None = None) -> None:
        with anyio.move_on_after(seconds):
            await self._changed.wait()
        self._changed = anyio.Event()

    async def _is_stopped(self) -> bool:
        now = await reread(self.app, self.job)
        return now.stage is not Stage.CALLING or now.state is JobState.CANCELLING

    async def _call(self, row: int) -> None:
        """Make one call; whatever it comes to is written down, and wakes whoever waits for a change."""
        try:
            request = await in_thread(self.lines.request, row)
            await in_thread(self.journal.begin, row)
            await self._answer(row, request)
        except BatchError as error:
            self._failure = self._failure or error
        finally:
            self._under_way -= 1
            self._changed.set()

    async def _answer(self, row: int, request: Any) -> None:
        write: Callable[[], None]
        refusal: AccessDenied | NotFound | None = None
        key = self.keys[row]
        try:
            reply = await self.app.gateway.call(
                model=self.job.model or self.batch.model,
                request=request,
                task=self.batch.task,
                tier="standard" if self.job.tier == "standard" else "flex",
            )
        except (QuotaExhausted, Unavailable) as error:
            await in_thread(self.journal.turn_away, row, error.message)
            self._pending.appendleft(row)
            await self._hold_back(error)
            return
        except ConfigurationError as error:
            await in_thread(self.journal.turn_away, row, error.message)
            raise
        except OutcomeUnknown as error:
            write = partial(self.journal.lose, row, error.message)
        except (Rejected, AccessDenied, NotFound) as error:
            refusal = error if isinstance(error, AccessDenied | NotFound) else None
            status = {"code": _CODES.get(error.status_code, _INVALID_ARGUMENT), "message": error.message}
            write = partial(self.journal.answer, row, {"key": key, "error": status})
        else:
            write = partial(self.journal.answer, row, {"key": key, "response": reply})
        if refusal is None:
            self._others += 1
        else:
            self._refusals += 1
            if not self._others and self._refusals >= min(CALLS_AT_ONCE, len(self.lines)):
                # Every row so far was refused for what all have in common.
                self._failure = self._failure or refusal
        with anyio.CancelScope(shield=True):
            # What is here is paid for.
            await in_thread(write)
        await self._record()

    async def _record(self) -> None:
        """Bring the counts up to date."""
        async with self._recording:
            self._turns = 0
            done = len(self.journal.standing.ended)
            self.app.gauge.show(Progress(Doing.WAITING, done, len(self.lines)))
            await self._note(
                counts=_counts(self.job, self.journal.standing),
                moved_at=datetime.now(UTC),
                wait_reason="",
                wait_until=None,
            )

    async def _hold_back(self, turned_away: QuotaExhausted | Unavailable) -> None:
        """Let no call leave for as long as Gemini says, or longer each time."""
        now = time.monotonic()
        if now >= self._open_at:
            # Calls that were turned away together count once.
            self._turns += 1
        seconds = turned_away.retry_after_seconds
        if seconds is None:
            first = min(_FIRST_PAUSE_SECONDS, self.app.settings.poll_seconds)
            seconds = min(first * _GROWTH ** min(self._turns - 1, _MOST_GROWTHS), _LONGEST_PAUSE_SECONDS)
        seconds = min(jittered(seconds, low=1.0), _LONGEST_WAIT_SECONDS)
        self._open_at = max(self._open_at, now + seconds)
        until = datetime.now(UTC) + timedelta(seconds=self._open_at - now)
        async with self._recording:
            reason = f"Gemini turned calls away ({turned_away.status_code or 'no connection'})"
            await self._note(wait_reason=reason, wait_until=until)

    async def _note(self, **values: Any) -> None:
        await in_thread(self.app.ledger.update_job, self.job.id, expected=Stage.CALLING, **values)
