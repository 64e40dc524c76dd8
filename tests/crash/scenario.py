"""What a user does with one order, from giving it to the saved file. Each process starts at the beginning."""

import dataclasses
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import anyio
import msgspec

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.desk import Desk
from gemini_batch_mcp.batches.submitting.ordering import Placement
from gemini_batch_mcp.domain import Delivery, Order, ResultQuery, ResultSummary, Reuse
from gemini_batch_mcp.errors import BatchError, UsageError

T = TypeVar("T")

#: A user who is told of a failure does the same thing again after this pause.
_PAUSE_SECONDS: Final = 0.03
_MOST_LOOKS: Final = 400
_LOOK_SECONDS: Final = 0.3
_MOST_RETRIES: Final = 3
#: When nothing has happened for so long, nothing will without the user.
_QUIET_SECONDS: Final = 0.4


class Wish(msgspec.Struct, frozen=True):
    """The order, and where its results go. `requests` is a JSON file that holds a list, in place of a source."""

    save_to: str
    source: str = ""
    requests: str = ""
    prompt: str = ""
    key_column: str = ""
    delivery: Delivery = "file"
    skip_invalid: bool = False
    reuse: Reuse = "auto"
    #: A file that is ordered and answered before, of which the order may take answers; empty for none.
    earlier: str = ""

    def before(self) -> Order:
        """Return the order that is given first."""
        return Order(source=self.earlier)

    def order(self) -> Order:
        """Return the order as it is given, the same each time."""
        requests = msgspec.json.decode(Path(self.requests).read_bytes()) if self.requests else ()
        return Order(
            source=self.source,
            requests=tuple(requests),
            prompt=self.prompt,
            key_column=self.key_column,
            delivery=self.delivery,
            skip_invalid=self.skip_invalid,
            reuse=self.reuse,
        )


class Outcome(msgspec.Struct):
    """How it ended: where the results are, what their summary says, and every failure that the user was told of."""

    batch: str = ""
    saved: str = ""
    jobs: int = 0
    summary: dict[str, int] = {}
    failures: list[str] = []


class User:
    """One user with one wish."""

    def __init__(self, app: App, wish: Wish, tries: int) -> None:
        self._app = app
        self._desk = Desk(app)
        self._wish = wish
        self._tries = tries
        self.outcome = Outcome()

    async def get_it_done(self) -> Outcome:
        """Order, wait, read, send again what failed for the time being, read again, and save."""
        if self._wish.earlier:
            await self._have_answered(self._wish.before())
        batch = await self.place()
        await self._wait_for_end(batch)
        summary = await self._read(batch)
        for _ in range(_MOST_RETRIES):
            if not summary.failed + summary.missing:
                break
            await self._patiently(partial(self._send_again, batch))
            await self._wait_for_end(batch)
            summary = await self._read(batch)
        await self._save(batch)
        return self.outcome

    async def place(self) -> str:
        """Give the order; returns the batch that stands for it."""
        placement = await self._patiently(self._give_order)
        self.outcome.batch = placement.status.batch.id
        return self.outcome.batch

    async def _have_answered(self, order: Order) -> None:
        placement = await self._patiently(lambda: self._desk.place_order(order, confirm=True))
        await self._wait_for_end(placement.status.batch.id, partial(self._desk.place_order, order, confirm=True))
        await self._read(placement.status.batch.id)

    async def look_on(self) -> None:
        """Wait while the server goes on by itself, until nothing is left to be done or nothing happens any more."""
        await self._until_quiet(lambda: anyio.sleep(_PAUSE_SECONDS))

    async def collect(self) -> None:
        """Do what `gemini-batch-mcp collect` does, as often as it helps."""
        await self._until_quiet(self._desk.collect)

    async def _until_quiet(self, step: Callable[[], Awaitable[object]]) -> None:
        seen, since = None, time.monotonic()
        while time.monotonic() - since < _QUIET_SECONDS:
            await step()
            batches = [self._app.ledger.batch(batch_id) for batch_id in self._app.ledger.unsettled_ids()]
            if not batches:
                return
            jobs = [(job.id, job.stage, job.state, job.counts) for batch in batches if batch for job in batch.jobs]
            if jobs != seen:
                seen, since = jobs, time.monotonic()

    async def _give_order(self) -> Placement:
        return await self._desk.place_order(self._wish.order(), confirm=True)

    async def _send_again(self, batch: str) -> None:
        # Strict on purpose: whoever asks with what they read before somebody else's retry must not pay twice.
        try:
            await self._desk.retry(batch, ("failed", "missing"))
        except UsageError as error:
            # Somebody else has sent them again since they were read here, and they came back.
            if "has no rows that are" not in str(error):
                raise

    async def _wait_for_end(self, batch: str, again: Callable[[], Awaitable[Placement]] | None = None) -> None:
        for _ in range(_MOST_LOOKS):
            status = await self._patiently(lambda: self._desk.status(batch, wait_seconds=_LOOK_SECONDS))
            self.outcome.jobs = len(status.batch.jobs)
            if status.done:
                return
            if any(job.is_unknown for job in status.batch.jobs):
                # What check_status advises when a create was lost for good.
                await self._patiently(again or self._give_order)
        raise TimeoutError(f"{batch} did not end; it is {status.state}.")

    async def _read(self, batch: str) -> ResultSummary:
        results = await self._patiently(lambda: self._desk.results(batch, ResultQuery()))
        counts = dataclasses.asdict(results.summary)
        self.outcome.summary = {name: value for name, value in counts.items() if isinstance(value, int)}
        return results.summary

    async def _save(self, batch: str) -> None:
        query = ResultQuery(save_to=self._wish.save_to)
        results = await self._patiently(lambda: self._desk.results(batch, query))
        assert results.saved is not None
        self.outcome.saved = str(results.saved.path)

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask, and ask again after a failure that the product foresaw; any other one is a defect and comes out."""
        for _ in range(self._tries):
            try:
                return await ask()
            except BatchError as error:
                self.outcome.failures.append(f"{type(error).__name__}: {error}")
                await anyio.sleep(_PAUSE_SECONDS)
        raise TimeoutError(f"Refused {self._tries} times, at last with: {self.outcome.failures[-1]}")
