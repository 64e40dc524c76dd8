"""Whose a batch is: made with the key and the endpoint of this process, or with others that alone may change it."""

from dataclasses import replace

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.jobs.finding import find_sent
from gemini_batch_mcp.batches.ledger.entries import BatchEntry, JobEntry
from gemini_batch_mcp.domain import Job
from gemini_batch_mcp.errors import AccessDenied, NotFound, NotReady, Rejected
from gemini_batch_mcp.threads import in_thread


class AnothersBatch(NotReady):
    """The batch was made with another key or endpoint, and was not changed."""


def is_anothers(app: App, batch: BatchEntry) -> bool:
    """True when a batch was made with another key or endpoint, as far as is known."""
    return bool(app.account.fingerprint) and any(job.account and not app.is_own(job.account) for job in batch.jobs)


def was_sent(batch: BatchEntry) -> bool:
    """True when a job of a batch is at Gemini, was there, or may be."""
    return any(job.has_left for job in batch.jobs)


def refuse_anothers(app: App, batch: BatchEntry) -> None:
    """Refuse to change a batch that another key has brought to Gemini.

    Raises:
        AnothersBatch: it is one.
    """
    if is_anothers(app, batch) and was_sent(batch):
        raise AnothersBatch(_whose(app, batch), _REMEDY)


async def claim(app: App, batch: BatchEntry) -> BatchEntry:
    """Return a batch with what is known about whose it is.

    A batch of another key stays that key's, and `forgotten` says so, unless Gemini shows one of its jobs to this key:
    then both are keys of one project, and all that was made with the other one is taken to be this one's, too.

    Raises:
        GeminiError: Gemini could not be asked.
    """
    if not is_anothers(app, batch):
        return batch
    if not await _is_shown(app, batch):
        return replace(batch, forgotten=f"{_whose(app, batch)} {_REMEDY if was_sent(batch) else _UNSENT_REMEDY}")
    for before in {job.account for job in batch.jobs if job.account and not app.is_own(job.account)}:
        await in_thread(app.ledger.claim, app.account, before=before)
    return await in_thread(app.ledger.batch, batch.id) or batch


async def claim_shown(app: App, batch: BatchEntry, job: JobEntry) -> None:
    """Write down that Gemini shows a job to this key, where nothing is known about the key that made its batch."""
    if not job.account and app.account.fingerprint:
        await in_thread(app.ledger.claim, app.account, batch_id=batch.id)


async def _is_shown(app: App, batch: BatchEntry) -> bool:
    """True when Gemini shows one of the jobs: one that was named, or else one whose create has left."""
    for job in batch.jobs:
        try:
            if job.name:
                return _is_this(await app.gateway.get_job(job.name), batch, job)
            if job.is_unproved and (await find_sent(app, batch, job, for_seconds=0.0)).found is not None:
                return True
        except (NotFound, AccessDenied, Rejected):
            if job.name:
                return False
    return False


def _is_this(seen: Job, batch: BatchEntry, job: JobEntry) -> bool:
    return seen.name == job.name and (not batch.is_ours or seen.display_name.endswith(job.tag))


_REMEDY = (
    "Use the server with the key that made it, or submit the order again with resubmit=true, which is charged to this "
    "key."
)
_UNSENT_REMEDY = "None of it was sent yet: submitting the same order again sends it with this key."


def _whose(app: App, batch: BatchEntry) -> str:
    made = next(job.key_origin for job in batch.jobs if job.account and not app.is_own(job.account))
    now = app.account.key_origin
    origins = f"{made} was in use then, {now} is now" if made != now else f"{now} had another value then"
    return (
        f"{batch.id} was made with another key, project or endpoint ({origins}), and Gemini does not show it to this "
        "one: this is what was last seen, and nothing was changed."
    )
