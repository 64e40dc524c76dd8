"""What is gone for good once a batch is cancelled or deleted: what the user is asked, and whether they agreed."""

import hashlib
from dataclasses import dataclass
from typing import Final, Literal

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.jobs.kept import why_not_kept
from gemini_batch_mcp.batches.jobs.rows import is_collected
from gemini_batch_mcp.batches.jobs.tracking import describe
from gemini_batch_mcp.batches.ledger.entries import BatchEntry, JobEntry, Stage
from gemini_batch_mcp.batches.orders.consent import declined
from gemini_batch_mcp.domain import JobState
from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.threads import in_thread

#: Jobs that a question names; of more it says how many there are.
_NAMED_JOBS: Final = 3
#: The same of batches that came of the one that is deleted.
_NAMED_OTHERS: Final = 3
_CHARGED: Final = "Rows in progress still finish and may be charged, like those already finished."
_DONE: Final = {"cancel": "cancelled", "delete": "deleted"}


class NotConfirmed(UsageError):
    """Nothing was cancelled or deleted, because nobody has agreed to what would be lost."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What the user is told before a batch is cancelled or deleted.

    `question` is what they have to be asked: empty where nothing is lost, and the same words as long as the same is
    lost. `jobs` are the tags of those that are stopped or deleted.
    """

    doing: Literal["cancel", "delete"]
    batch_id: str
    jobs: frozenset[str]
    question: str

    @property
    def wish(self) -> str:
        """Under what the ledger remembers that the user was asked about this."""
        return f"{self.doing} {self.batch_id}"

    def covers(self, other: "Loss") -> bool:
        """True when whoever agreed to this has agreed to the other: the same, or less of it."""
        return self.wish == other.wish and self.jobs >= other.jobs


def loss_of_cancel(app: App, batch: BatchEntry) -> Loss:
    """Say what a cancel loses: nothing where the rows could be sent again. Reads the whole request file."""
    at_gemini = [job for job in batch.jobs if job.stage in (Stage.SUBMITTED, Stage.UNKNOWN)]
    question = ""
    if any(job.state is not JobState.CANCELLING for job in at_gemini) and (why := why_not_kept(app, batch)):
        total = describe(batch).counts.total
        rows = f"Those of its {total:,} rows" if total > 1 else "Any rows"
        question = (
            f"gemini-batch-mcp asks: cancel {batch.id}? This stops {_named(at_gemini)} at Gemini. {rows} that Gemini "
            f"has not finished would be lost: {why}, so they could not be resent from here. {_CHARGED}"
        )
    return Loss("cancel", batch.id, _tags(at_gemini), question)


def loss_of_delete(app: App, batch: BatchEntry) -> Loss:
    """Say what a delete loses: always something. What other batches have of it stays with them."""
    at_gemini = [job for job in batch.jobs if job.name or job.is_unproved]
    running = [job for job in batch.jobs if job.stage in (Stage.SUBMITTED, Stage.UNKNOWN, Stage.CALLING)]
    gone = f"{_named(at_gemini)} at Gemini with what was uploaded there, and " if at_gemini else ""
    answers = "its answers"
    if batch.rows is not None:
        total = batch.rows.counts().total
        answers = f"its answers to {total:,} row{'' if total == 1 else 's'}"
    sentences = [
        f"gemini-batch-mcp asks: delete {batch.id}? This deletes {gone}everything stored here about it, including "
        f"{answers}."
    ]
    if running:
        what = "The job has" if len(running) == 1 else f"{len(running)} jobs have"
        sentences.append(f"{what} not ended and would be cancelled first. {_CHARGED}")
    elif any(job.stage is Stage.FINISHED for job in batch.jobs) and not is_collected(batch):
        sentences.append("Answers not fetched yet are lost with it, but still charged.")
    if batch.order is not None and batch.order.source.startswith("bq://"):
        sentences.append("The tables that were made for it in BigQuery, its results among them, are deleted, too.")
    others = kept_by_others(app, batch.id)
    sentences += [f"{other} {keeps}" for other, keeps in others[:_NAMED_OTHERS]]
    if (more := len(others) - _NAMED_OTHERS) > 0:
        sentences.append(f"{more:,} more that came of it keep{'s' if more == 1 else ''} what was taken over.")
    sentences.append("This cannot be undone. Files that results were saved to are kept.")
    return Loss("delete", batch.id, _tags(at_gemini), " ".join(sentences))


def kept_by_others(app: App, batch_id: str) -> list[tuple[str, str]]:
    """Return the batches that came of a batch, and what each keeps or loses when that is deleted, in words."""
    donors = app.ledger.donors
    found = [
        (taker, f"keeps the answers to {rows:,} row{'' if rows == 1 else 's'} that it took from {batch_id}.")
        for taker, rows in donors.takers(batch_id)
    ]
    found += [
        (step, f"has {batch_id} as its source: it keeps its rows and answers, but can't be ordered again.")
        for step in donors.steps_from(batch_id)
    ]
    known = {name for name, _ in found}
    likes = [like for like in donors.orders_like(batch_id) if like not in known]
    return found + [(like, f"keeps the order that it took over from {batch_id}.") for like in likes]


def _named(jobs: list[JobEntry]) -> str:
    """Name jobs as a question does."""
    if len(jobs) > _NAMED_JOBS:
        return f"{len(jobs):,} jobs"
    names = ", ".join(job.name or f"one whose name is not known yet ({job.tag})" for job in jobs)
    return f"the job{'s' if len(jobs) > 1 else ''} {names}"


def _tags(jobs: list[JobEntry]) -> frozenset[str]:
    return frozenset(job.tag for job in jobs)


async def refuse_unagreed(app: App, loss: Loss, *, agreed_to: Loss | None, confirm: bool) -> None:
    """Refuse what the user has to be asked about, unless they agreed to it.

    `agreed_to` is what they were asked and said yes to. `confirm` is somebody's word that they agreed: it never counts
    against a no.

    Raises:
        NotConfirmed: says what would be lost.
    """
    quotes, done = app.ledger.quotes, _DONE[loss.doing]
    if not loss.question:
        return
    if agreed_to is not None:
        if not agreed_to.covers(loss):
            raise NotConfirmed(
                f"More would be lost than the user agreed to, so their yes does not count. Nothing was {done}.",
                "Make the same call again: the user is asked about the current state.",
            )
        await in_thread(quotes.void, loss.wish)
        return
    no = declined(await in_thread(quotes.told, loss.wish))
    if not confirm:
        await in_thread(quotes.record, loss.wish, loss.wish, "")
        raise NotConfirmed(
            f"{no} {loss.question}".strip(),
            f"Nothing was {done}. Show the user this, and once they agree make the same call again with confirm=true.",
        )
    if no:
        raise NotConfirmed(
            f"{no} Nothing was {done}: confirm=true does not override that.",
            "If they have since changed their mind, make the same call without confirm, show them what it says, and "
            "call again with confirm=true once they agree.",
        )


async def record_kept(app: App, loss: Loss, *, has_declined: bool) -> None:
    """Remember that the user was asked and said no: nobody can say afterwards that they agreed.

    Whoever closed a question without an answer has said nothing.
    """
    if has_declined:
        await in_thread(app.ledger.quotes.decline, loss.wish, loss.wish, "")


async def put_off(app: App, loss: Loss) -> None:
    """Note that the user is to be asked about this when their client next comes by."""
    await in_thread(app.ledger.quotes.record, _put_off(loss), _put_off(loss), "")


async def is_put_off(app: App, loss: Loss) -> str:
    """Return the name under which the user is to be asked about this, empty when they are not.

    The same as long as the question is the same, and another one when they are to be asked once more.
    """
    noted = await in_thread(app.ledger.quotes.told, _put_off(loss))
    if noted is None or not loss.question:
        return ""
    asked = f"{noted.quoted_at.isoformat()} {sorted(loss.jobs)} {loss.question}"
    return f"{loss.doing}-{hashlib.sha256(asked.encode('utf-8', 'replace')).hexdigest()[:16]}"


async def settle(app: App, loss: Loss) -> None:
    """Note that the user has been asked."""
    await in_thread(app.ledger.quotes.void, _put_off(loss))


def _put_off(loss: Loss) -> str:
    return f"ask whether to {loss.wish}"
