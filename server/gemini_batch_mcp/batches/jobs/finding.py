"""Finding a batch: by any name a person may give it, or by the tag that its create carried."""

import difflib
import re
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

import anyio

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.ledger.entries import BatchEntry, DamagedEntry, JobEntry, NewBatch
from gemini_batch_mcp.domain import Job, Task
from gemini_batch_mcp.errors import NotFound, QuotaExhausted, Rejected, Unavailable, UnknownBatch
from gemini_batch_mcp.gemini.wire import JobPage
from gemini_batch_mcp.text import plain_text
from gemini_batch_mcp.threads import in_thread

#: Jobs asked for per page of the remote list. Pages carry inlined answers whole, so large pages can be tens of MB.
_PAGE_SIZE = 50
#: Pages read when looking for a display name: the newest 1,000 jobs.
_MAX_NAME_PAGES = 20
#: Batches among which the nearest to a wrong name is looked for: the newest ones.
_NAMES_LOOKED_AT = 50
#: Pages read when looking for a lost job: 20,000 jobs. A longer list proves nothing.
_MAX_TAG_PAGES = 400
#: How much of a display name is kept (our choice; no limit is documented).
MAX_DISPLAY_NAME_CHARS = 100
#: Where our own tag starts inside a display name. A run of spaces is tried from its first one only.
_TAG = re.compile(r"(?<!\s)\s*\[[^\[\]]+/\d+\.\d+\]$")


async def find_batch(app: App, reference: str) -> BatchEntry:
    """Return the batch that `reference` names: a batch id, a Gemini job name or bare id, or a unique display name.

    A job made elsewhere enters the ledger here, as a batch with no known source.

    Raises:
        UnknownBatch: nothing, or more than one thing, goes by that name.
        GeminiError: Gemini had to be asked and could not be.
    """
    reference = reference.strip()
    if not reference:
        raise UnknownBatch("No batch was given.", "Call list_jobs to see the batches.")
    if (batch := await in_thread(known_batch, app, reference)) is not None:
        return batch
    if (name := app.gateway.job_name(reference)) is not None:
        try:
            return await adopt(app, await app.gateway.get_job(name))
        except NotFound:
            pass
    pages = [page async for page in _remote_pages(app, _MAX_NAME_PAGES)]
    found = [job for page in pages for job in page.jobs if plain_display_name(job) == reference]
    if len(found) == 1:
        return await adopt(app, found[0])
    if found:
        names = ", ".join(job.name for job in found[:5])
        raise UnknownBatch(f"{len(found)} jobs are named {reference[:80]!r}: {names}.", "Give one of these names.")
    raise UnknownBatch(
        f"There is no batch or job {reference[:80]!r}, neither here nor at Gemini.",
        f"{await in_thread(meant, app, reference)}Call list_jobs to see the batches.",
    )


def meant(app: App, reference: str) -> str:
    """Say that a batch was deleted, or ask whether the nearest one by id or name was meant; empty for neither."""
    if deleted := app.ledger.bills.of_deleted(reference.strip()):
        return f"{deleted} was deleted here. "
    spelled: dict[str, str] = {}
    for batch_id in app.ledger.batch_ids(limit=_NAMES_LOOKED_AT):
        with suppress(DamagedEntry):
            if (batch := app.ledger.batch(batch_id)) is not None:
                spelled |= {batch.display_name.lower(): batch.display_name, batch_id: batch_id}
    near = difflib.get_close_matches(reference.strip().lower()[:MAX_DISPLAY_NAME_CHARS], spelled, n=1)
    return f"Did you mean {spelled[near[0]]!r}? " if near else ""


def known_batch(app: App, reference: str) -> BatchEntry | None:
    """Return the batch of the ledger that `reference` names, as `find_batch` reads it; None where there is none.

    Raises:
        UnknownBatch: several batches go by that name.
    """
    reference = reference.strip()
    if (batch := app.ledger.batch(reference)) is not None:
        return batch
    named = app.ledger.batches_named(reference)
    if len(named) > 1:
        ids = ", ".join(batch.id for batch in named[:5])
        raise UnknownBatch(f"{len(named)} batches are named {reference[:80]!r}: {ids}.", "Give one of these ids.")
    if named:
        return named[0]
    # A name that this API does not know may be one of the other's.
    return app.ledger.batch_of_job(app.gateway.job_name(reference) or reference)


async def adopt(app: App, job: Job) -> BatchEntry:
    """Return the ledger's batch for a job, entering one that was made elsewhere."""
    task: Task = "embed" if "embed" in job.model else "generate"
    new = NewBatch(
        order_sha256="",
        display_name=plain_display_name(job) or job.name,
        model=job.model.removeprefix("models/"),
        task=task,
        delivery="file" if job.input_file else "inline",
        source=job.input_file,
        is_ours=False,
        account=app.account,
        created_at=job.created_at,
    )
    return await in_thread(app.ledger.adopt, new, job.name)


@dataclass(frozen=True, slots=True)
class Search:
    """What a search for a lost job came to. Only a search whose last look read the whole list proves an absence.

    `other` carries the job's tag and cannot be that job: another model, another kind or number of requests.
    """

    found: Job | None
    is_conclusive: bool
    other: Job | None = None


async def find_sent(app: App, batch: BatchEntry, job: JobEntry, *, for_seconds: float) -> Search:
    """Look through the remote list for a job whose create has left, again and again for so long.

    The list may lag behind a create, so that one empty look proves nothing. The newest jobs come first (assumed: the
    order of the list is not documented); an absence counts only when the list was read to its end.

    Raises:
        AccessDenied: the key was refused.
    """
    deadline = time.monotonic() + for_seconds
    pause_seconds = min(app.settings.poll_seconds, 1.0)
    while True:
        other: Job | None = None
        try:
            saw_everything = False
            async for page in _remote_pages(app, _MAX_TAG_PAGES, job.tag):
                for seen in page.jobs:
                    if not seen.display_name.endswith(job.tag):
                        continue
                    if _fits(seen, batch, job):
                        return Search(seen, is_conclusive=True)
                    other = other or seen
                saw_everything = not page.next_page_token
        except (Unavailable, QuotaExhausted, Rejected, NotFound):
            saw_everything = False
        if time.monotonic() + pause_seconds > deadline:
            return Search(None, is_conclusive=saw_everything, other=other)
        await anyio.sleep(pause_seconds)
        pause_seconds *= 1.5


def _fits(seen: Job, batch: BatchEntry, job: JobEntry) -> bool:
    """True when a job at Gemini can be the one that was sent; what either side does not state says nothing."""
    wanted = (job.model or batch.model).removeprefix("models/")
    # What stands behind an alias is shown under its own name.
    is_model = seen.model.removeprefix("models/") in ("", wanted) or wanted.endswith("-latest")
    is_kind = seen.task in (None, batch.task)
    return is_model and is_kind and (not job.request_count or seen.counts.total in (0, job.request_count))


def plain_display_name(job: Job) -> str:
    """Return a job's display name without our tag, on one line and without hidden characters."""
    return plain_text(_TAG.sub("", job.display_name), MAX_DISPLAY_NAME_CHARS)


async def _remote_pages(app: App, max_pages: int, tag: str = "") -> AsyncIterator[JobPage]:
    """Yield pages until the list ends, which the last one says, or goes on where it was before, or is too long."""
    token, read = "", set[str]()
    # The last page names none, which is the token of the first.
    while token not in read and len(read) < max_pages:
        read.add(token)
        page = await app.gateway.list_jobs(page_size=_PAGE_SIZE, page_token=token, tag=tag)
        yield page
        token = page.next_page_token
