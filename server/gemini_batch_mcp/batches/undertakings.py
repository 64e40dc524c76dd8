"""Undertakings: what one call has started, under a handle that only those know who were given it; and how it stands.

A handle holds all that is needed to find its batch, under a mark made with this ledger's secret: nothing is written for
it, any process on the same ledger reads it, and nobody makes one up.
"""

import hashlib
import hmac
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.jobs.tracking import BatchStatus, current, describe
from gemini_batch_mcp.batches.ledger.entries import BatchEntry
from gemini_batch_mcp.batches.submitting.ordering import Placement
from gemini_batch_mcp.batches.waiting import batch_status
from gemini_batch_mcp.domain import JobState
from gemini_batch_mcp.errors import BatchError, UnknownBatch
from gemini_batch_mcp.threads import in_thread

#: What the mark is made over begins with this, so that no other use of the secret makes the same one.
_PURPOSE: Final = "handle-1"
#: Hexadecimal digits of the mark: 128 bits.
_MARK_DIGITS: Final = 32
_LONGEST: Final = 200


@dataclass(frozen=True, slots=True)
class Handle:
    """One attempt of a batch, as one call began it. `reused`: the call found it under way."""

    batch_id: str
    attempt: int
    began_at: datetime
    reused: bool

    def sealed(self, secret: str) -> str:
        """Return the handle as it is given out: letters, digits, dots and hyphens."""
        began_ms = round(self.began_at.timestamp() * 1000)
        content = f"{self.batch_id}.{self.attempt}.{began_ms}.{int(self.reused)}"
        return f"{content}.{_mark(content, secret)}"

    @classmethod
    def opened(cls, sealed: str, secret: str) -> "Handle | None":
        """Return what was given out as `sealed`, None for what never was."""
        content, _, mark = sealed.rpartition(".")
        if len(sealed) > _LONGEST or not hmac.compare_digest(
            _mark(content, secret).encode(), mark.encode("utf-8", "replace")
        ):
            return None
        batch_id, attempt, began_ms, reused = content.split(".")
        return cls(batch_id, int(attempt), datetime.fromtimestamp(int(began_ms) / 1000, UTC), reused == "1")


def _mark(content: str, secret: str) -> str:
    made_over = f"{_PURPOSE} {content}".encode("utf-8", "replace")
    return hmac.new(secret.encode(), made_over, hashlib.sha256).hexdigest()[:_MARK_DIGITS]


@dataclass(frozen=True, slots=True)
class Undertaking:
    """What a call has started, as it stands.

    `placement` is what the call would be answered with now; `state` is that of its own attempt, which stays as it
    ended when rows are sent again; `is_open` while that has not ended, or Gemini has yet to show its answers. `trouble`
    says why Gemini could not be asked just now, empty when it could.
    """

    handle: Handle
    placement: Placement
    state: JobState
    is_open: bool
    changed_at: datetime
    trouble: str = ""

    @property
    def status(self) -> BatchStatus:
        """How the batch as a whole stands."""
        return self.placement.status

    @property
    def is_newest(self) -> bool:
        """True until rows are sent again after it."""
        return self.handle.attempt == self.status.batch.attempts


async def issue(app: App, batch_id: str, *, reused: bool) -> str:
    """Return a handle for the newest attempt of a batch, begun now."""
    attempts = (await current(app, batch_id)).attempts
    return Handle(batch_id, attempts, datetime.now(UTC), reused).sealed(await in_thread(app.ledger.salt))


async def follow(app: App, sealed: str, *, look: bool = True) -> Undertaking | None:
    """Return how the work of a handle stands, None where there is none: made up, deleted, or taken back.

    Asks Gemini, unless `look` is False. When Gemini does not answer, what was last seen counts, with that said.
    """
    handle = Handle.opened(sealed, await in_thread(app.ledger.salt))
    batch = await in_thread(app.ledger.batch, handle.batch_id) if handle is not None else None
    if handle is None or batch is None or not any(job.attempt == handle.attempt for job in batch.jobs):
        return None
    trouble = ""
    try:
        seen = await batch_status(app, handle.batch_id) if look else describe(await current(app, handle.batch_id))
    except UnknownBatch:
        return None
    except BatchError as error:
        seen, trouble = describe(await current(app, handle.batch_id)), str(error)
    own = describe(_as_of(seen.batch, handle.attempt))
    moments = (job.moved_at for job in own.batch.jobs)
    return Undertaking(
        handle,
        Placement(seen, reused=handle.reused, rows_again=_rows_again(seen.batch, handle.attempt)),
        own.state,
        is_open=not own.done or own.awaits_output,
        changed_at=max([handle.began_at, *filter(None, moments), *filter(None, (own.ended_at,))]),
        trouble=trouble,
    )


def _as_of(batch: BatchEntry, attempt: int) -> BatchEntry:
    """Return a batch as if nothing had come after an attempt."""
    if attempt == batch.attempts:
        return batch
    # The table has the answers of later attempts, too.
    return replace(batch, jobs=tuple(job for job in batch.jobs if job.attempt <= attempt), rows=None)


def _rows_again(batch: BatchEntry, attempt: int) -> int:
    return sum(job.request_count for job in batch.jobs if job.attempt == attempt) if attempt > 1 else 0
