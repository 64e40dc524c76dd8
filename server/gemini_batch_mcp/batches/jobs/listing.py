"""All jobs a person may want to see: the batches of this ledger, then the jobs made elsewhere with the same key."""

import contextlib
import difflib
import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

import anyio

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.jobs.finding import plain_display_name
from gemini_batch_mcp.batches.jobs.lock import BatchGone
from gemini_batch_mcp.batches.jobs.tracking import describe, load, refresh
from gemini_batch_mcp.batches.ledger.entries import BatchEntry, DamagedEntry
from gemini_batch_mcp.domain import Job, JobFilter, JobState, RowCounts
from gemini_batch_mcp.errors import NotFound, QuotaExhausted, Rejected, Unavailable, UsageError
from gemini_batch_mcp.threads import in_thread

#: Ledger batches looked up at once (each may be one read at Gemini), and remote jobs asked for per page.
_LOCAL_PAGE = 10
_REMOTE_PAGE = 50
#: Beside the names of states: what Gemini may still change, and what it will not.
_ACTIVE = "active"
_ENDED = "ended"
#: Remote pages read for one answer at most: a filter that matches nothing must still come to an end.
_MAX_REMOTE_PAGES = 20
#: Remote pages that the cursors of one list lead through: 100,000 jobs.
_MAX_PAGES_IN_ALL = 2_000
#: Of a digest, enough to tell one page from two thousand others.
_MARK_CHARS = 12


@dataclass(frozen=True, slots=True)
class Trail:
    """How far Gemini's list has been followed: pages after the first one, and the mark of the token of one of them.

    A list that hands out a token for the second time would go on for ever. Brent's way finds that with one of them in
    mind, however long the circle is, so that it fits into a cursor and holds over many calls.
    """

    pages: int = 0
    mark: str = ""

    def after(self, token: str) -> "Trail | None":
        """Return the trail that goes on to the page of `token`; None when that has been read, or too many have."""
        mark = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()[:_MARK_CHARS]
        pages = self.pages + 1
        if mark == self.mark or pages == _MAX_PAGES_IN_ALL:
            return None
        is_power_of_two = pages & (pages - 1) == 0
        return Trail(pages, mark if is_power_of_two else self.mark)


@dataclass(frozen=True, slots=True)
class ListedJob:
    """One line of the list. `batch_id` is empty for a job made elsewhere, `name` for one not at Gemini yet."""

    batch_id: str
    name: str
    display_name: str
    state: JobState
    model: str
    created_at: datetime | None
    counts: RowCounts
    made_elsewhere: bool
    #: What its answers have cost so far; None while that is not known.
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Spent:
    """What `batches` batches of this ledger have cost since the day `since`, deleted ones included."""

    batches: int
    cost_usd: float
    since: str


@dataclass(frozen=True, slots=True)
class JobList:
    """Some jobs, newest first within each half; `note` says what could not be asked, and what was spent.

    `spent` is None while nothing is known to have cost anything.
    """

    jobs: tuple[ListedJob, ...]
    next_cursor: str = ""
    note: str = ""
    spent: Spent | None = None


async def list_jobs(app: App, wanted: JobFilter, *, limit: int, cursor: str = "") -> JobList:
    """Return up to `limit` jobs that match, and the cursor of the next ones.

    Raises:
        UsageError: the cursor is not one of ours.
        GeminiError: the key was refused.
    """
    wanted = replace(wanted, state=_known_state(wanted.state))
    half, position, trail, token = _read_cursor(cursor)
    found: list[ListedJob] = []
    notes: list[str] = []

    def page_to(next_cursor: str = "") -> JobList:
        if not (found or notes or cursor or next_cursor) and wanted == JobFilter():
            notes.append("There are none yet: create_batch submits the first.")
        return JobList(tuple(found), next_cursor, " ".join(notes))

    if half == "ledger":
        async for batch in _ledger_batches(app, position):
            if len(found) == limit:
                return page_to(f"ledger:{position}")
            position += 1
            if isinstance(batch, DamagedEntry):
                # The first says what to do.
                notes.append(batch.message if notes else str(batch))
            elif _matches(wanted, listed := _listed(batch)):
                found.append(listed)
        position = 0
    for _ in range(_MAX_REMOTE_PAGES):
        try:
            page = await app.gateway.list_jobs(page_size=_REMOTE_PAGE, page_token=token)
        except (Unavailable, QuotaExhausted) as error:
            notes.append(f"Jobs made elsewhere are not shown: {error.message}")
            return page_to()
        names = [job.name for job in page.jobs]
        ours = await in_thread(app.ledger.known_jobs, names)
        for index, job in enumerate(page.jobs):
            if index < position or job.name in ours:
                continue
            if len(found) == limit:
                return page_to(_cursor(index, trail, token))
            if _matches(wanted, listed := _listed_remote(job)):
                found.append(listed)
        token, position = page.next_page_token, 0
        if not token:
            return page_to()
        further = trail.after(token)
        if further is None:
            notes.append("Gemini's list of jobs made elsewhere does not end; the rest was not read.")
            return page_to()
        trail = further
    return page_to(_cursor(0, trail, token))


async def _ledger_batches(app: App, offset: int) -> AsyncIterator[BatchEntry | DamagedEntry]:
    """Yield batches newest first, each as Gemini sees it now where Gemini can be asked, or why it cannot be read."""
    while ids := await in_thread(app.ledger.batch_ids, offset=offset, limit=_LOCAL_PAGE):
        current: dict[str, BatchEntry | DamagedEntry] = {}
        async with anyio.create_task_group() as task_group:
            for batch_id in ids:
                task_group.start_soon(_refresh_into, app, batch_id, current)
        for batch_id in ids:
            if batch_id in current:
                yield current[batch_id]
        offset += len(ids)


async def _refresh_into(app: App, batch_id: str, current: dict[str, BatchEntry | DamagedEntry]) -> None:
    try:
        current[batch_id] = batch = await load(app, batch_id)
        # Where Gemini cannot be asked, the list is still worth having with the state as last seen.
        with contextlib.suppress(Unavailable, NotFound, Rejected, QuotaExhausted):
            current[batch_id] = await refresh(app, batch)
    except BatchGone:
        current.pop(batch_id, None)
    except DamagedEntry as error:
        current[batch_id] = error


def _known_state(text: str) -> str:
    """Return a state by its name, in any letter case, with or without `JOB_STATE_`; empty stays empty.

    Raises:
        UsageError: there is no such state.
    """
    name = text.strip().lower()
    states = (_ACTIVE, _ENDED, *JobState)
    for state in ("", *states):
        if name in (state.lower(), state.lower().removeprefix("job_state_")):
            return str(state)
    spelled = {state.lower().removeprefix("job_state_"): str(state) for state in states}
    near = difflib.get_close_matches(name.removeprefix("job_state_"), spelled, n=1)
    meant = f"Did you mean {spelled[near[0]]}? " if near else ""
    raise UsageError(f"{text[:80]!r} isn't a state.", f"{meant}Give one of {', '.join(states)}.")


def _matches(wanted: JobFilter, job: ListedJob) -> bool:
    needle = wanted.search.lower()
    return (
        (not wanted.state or wanted.state in (job.state, _ENDED if job.state.is_terminal else _ACTIVE))
        and (not wanted.model or job.model == wanted.model.removeprefix("models/"))
        and (not needle or any(needle in text.lower() for text in (job.batch_id, job.name, job.display_name)))
    )


def _listed(batch: BatchEntry) -> ListedJob:
    status = describe(batch)
    return ListedJob(
        batch_id=batch.id,
        name=", ".join(job.name for job in batch.jobs if job.name),
        display_name=batch.display_name,
        state=status.state,
        model=batch.model,
        created_at=status.created_at,
        counts=status.counts,
        made_elsewhere=status.made_elsewhere,
    )


def _listed_remote(job: Job) -> ListedJob:
    return ListedJob(
        batch_id="",
        name=job.name,
        display_name=plain_display_name(job),
        state=job.state,
        model=job.model.removeprefix("models/"),
        created_at=job.created_at,
        counts=job.counts,
        made_elsewhere=True,
    )


def _cursor(position: int, trail: Trail, token: str) -> str:
    """Return the cursor of a place in a page of the remote list."""
    return f"gemini:{position}:{trail.pages}:{trail.mark}:{token}"


def _read_cursor(cursor: str) -> tuple[Literal["ledger", "gemini"], int, Trail, str]:
    """Split a cursor into its half, the position in it, how far Gemini's list was followed, and its page token."""
    if not cursor:
        return "ledger", 0, Trail(), ""
    if match := re.fullmatch(r"ledger:(\d{1,9})", cursor, re.ASCII):
        return "ledger", int(match[1]), Trail(), ""
    if match := re.fullmatch(r"gemini:(\d{1,9}):(\d{1,9}):([0-9a-f]*):(.*)", cursor, re.ASCII | re.DOTALL):
        return "gemini", int(match[1]), Trail(int(match[2]), match[3]), match[4]
    raise UsageError(f"{cursor[:80]!r} is not a cursor of list_jobs.", "Leave cursor out to start from the newest.")
