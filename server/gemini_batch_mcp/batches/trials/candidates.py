"""Prompts and models that answer the same rows: each with its figures, and the recommendation that these allow."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import comb
from typing import Final

from gemini_batch_mcp.batches.answers.comparing import Asked, asked_for, judge_together, rows_needed, wilson
from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.jobs.rows import charges_of
from gemini_batch_mcp.batches.jobs.tracking import BatchStatus, current, describe
from gemini_batch_mcp.batches.ledger.entries import BatchEntry
from gemini_batch_mcp.batches.orders.pricing import cost_of, read_prices
from gemini_batch_mcp.batches.work import deadline_after, seconds_left
from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.errors import BatchError, StillCollecting
from gemini_batch_mcp.intake.prices.price_list import PriceTable
from gemini_batch_mcp.results.query.queries import RELATION
from gemini_batch_mcp.results.store import ResultTable
from gemini_batch_mcp.text import dollars
from gemini_batch_mcp.threads import in_thread

#: Candidates that are laid side by side, the newest ones (our choice), and rows up to which that is done unasked.
MOST_CANDIDATES: Final = 8
_MOST_ROWS: Final = 10_000
#: Batches of the same source that are looked at for such (our choice).
_MOST_LOOKED_AT: Final = 50
#: How often one of several that are equally good may be called better (all comparisons together).
_FALSE_ALARMS: Final = 0.05
#: What decides, beside the content of the source, on which rows are answered and what their keys are.
_OF_ROWS: Final = ("limit_rows", "sample_rows", "where", "encoding", "key_column", "task")
#: What makes another prompt of an order, as people call it.
_ASKED: Final = ("prompt", "system_instruction", "response_schema", "generation_config")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One prompt with one model, and what came of its rows; shares are of the rows that have a good answer.

    `number` counts the different prompts; `per_thousand_usd` is what a thousand rows cost as a batch, None where that
    is not known.
    """

    batch_id: str
    number: int
    prompt: str
    model: str
    rows: int
    compared: int
    equal: int
    share: float | None
    share_low: float | None
    share_high: float | None
    per_thousand_usd: float | None
    seconds: int

    @property
    def name(self) -> str:
        """What it is called beside the others."""
        return f"prompt {self.number} with {self.model}"


@dataclass(frozen=True, slots=True)
class Trials:
    """Candidates in the order in which they were tried, and what their figures allow.

    `wins` counts, for each two by their places, the rows that only the first has right; `running` are batches of the
    same rows that have no answers yet.
    """

    other: str
    field: str
    candidates: tuple[Candidate, ...]
    wins: tuple[tuple[int, ...], ...]
    running: tuple[str, ...] = ()
    #: True where their source may have more rows.
    are_pilots: bool = False

    @property
    def verdict(self) -> "Verdict":
        """The recommendation that the figures allow."""
        return verdict(self.candidates, self.wins)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What figures allow, in sentences, and the candidate that they recommend; None where they allow none."""

    said: str
    pick: Candidate | None = None


async def read_trials(
    app: App,
    reference: str,
    other: str,
    *,
    field: str = "",
    batches: Sequence[str] = (),
    wait_seconds: float | None = None,
) -> Trials | None:
    """Lay a batch beside others that answer the same rows, by a column of right answers; None without such a column.

    There are no candidates where there are no others. Without `batches`, those of this ledger count that were ordered
    from the same rows of the same source: of the same prompt and model the newest.

    Raises:
        as `compare_results`.
    """
    deadline = deadline_after(wait_seconds)
    asked = await asked_for(app, reference, other, field=field, wait_seconds=wait_seconds)
    if asked.sides.is_batch:
        return None
    own = asked.status.batch
    field = asked.sides.actual.origin or asked.sides.actual.name
    names = list(batches) or [entry.id for entry in await in_thread(_of_same_rows, app, own)]
    sides, running = [], []
    for name in names:
        if name == own.id:
            sides.append(asked)
            continue
        status = describe(await current(app, name))
        if not status.done:
            running.append(name)
            continue
        try:
            sides.append(await asked_for(app, name, other, field=field, wait_seconds=seconds_left(deadline)))
        except StillCollecting:
            running.append(name)
        except BatchError:
            # One that came to nothing, or was asked for something else, is no candidate, unless it was named.
            if batches:
                raise
    if len(sides) < 2 and not (batches or running):
        return Trials(asked.other, field, (), (), are_pilots=own.is_pilot)
    judged = await judge_together(app, sides)
    prices = await read_prices(app)
    numbers = _numbers([one.status.batch for one in sides])
    candidates = tuple(
        _candidate(number, one, judged.rows, judged.compared(place), judged.equal(place), prices)
        for place, (number, one) in enumerate(zip(numbers, sides, strict=True))
    )
    places = range(len(sides))
    wins = tuple(tuple(judged.only(one, beside) for beside in places) for one in places)
    return Trials(asked.other, field, candidates, wins, tuple(running), own.is_pilot)


def _of_same_rows(app: App, own: BatchEntry) -> list[BatchEntry]:
    """Return the batch and the newest others that were asked about its rows, the oldest first."""
    if own.order is None or not own.content_sha256 or own.row_count > _MOST_ROWS:
        return [own]
    found: dict[str, BatchEntry] = {_asked(own): own}
    for batch_id in app.ledger.donors.with_content(own.content_sha256, limit=_MOST_LOOKED_AT):
        batch = app.ledger.batch(batch_id)
        if batch is None or batch.order is None or batch.row_count != own.row_count or len(found) == MOST_CANDIDATES:
            continue
        if all(getattr(batch.order, name) == getattr(own.order, name) for name in _OF_ROWS):
            found.setdefault(_asked(batch), batch)
    return sorted(found.values(), key=lambda batch: batch.created_at)


def _asked(batch: BatchEntry) -> str:
    return f"{batch.model} {_parts(batch.order or Order())}"


def _parts(order: Order) -> str:
    return json.dumps([getattr(order, name) for name in _ASKED])


def _numbers(batches: Sequence[BatchEntry]) -> list[int]:
    """Number the different prompts, in their order."""
    parts = [_parts(batch.order or Order()) for batch in batches]
    different = list(dict.fromkeys(parts))
    return [different.index(part) + 1 for part in parts]


def _candidate(number: int, asked: Asked, rows: int, compared: int, equal: int, prices: PriceTable) -> Candidate:
    status, table = asked.status, asked.tables[RELATION]
    low, high = wilson(equal, compared)
    batch = status.batch
    return Candidate(
        batch_id=batch.id,
        number=number,
        prompt=batch.order.prompt if batch.order is not None else "",
        model=batch.model,
        rows=rows,
        compared=compared,
        equal=equal,
        share=equal / compared if compared else None,
        share_low=low,
        share_high=high,
        per_thousand_usd=_per_thousand_usd(prices, status, table),
        seconds=status.age_seconds,
    )


def _per_thousand_usd(prices: PriceTable, status: BatchStatus, table: ResultTable) -> float | None:
    """Return what a thousand rows cost as a batch; what was taken over from earlier batches says nothing of that."""
    batch = status.batch
    if not batch.request_count:
        return None
    charges = [replace(charge, tier="") for charge in charges_of(batch, table.summary())]
    usd = cost_of(prices, charges).usd
    return None if usd is None else usd / batch.request_count * 1000


def verdict(candidates: Sequence[Candidate], wins: Sequence[Sequence[int]]) -> Verdict:
    """Return the recommendation that the figures allow: one candidate, or none.

    Candidates answer the same rows, so that two are told apart by the rows that only one of them has right.
    """
    if len(candidates) < 2:
        return Verdict("One candidate alone: there is nothing to choose.")
    if not any(candidate.equal for candidate in candidates):
        return Verdict("None of them got a row right: check whether both sides use the same words for the same thing.")
    ranked = sorted(range(len(candidates)), key=lambda one: (-candidates[one].equal, _price(candidates[one])))
    best, others = ranked[0], ranked[1:]
    alike = [
        other for other in others if wins_alike(wins[best][other], wins[other][best]) * len(others) >= _FALSE_ALARMS
    ]
    first = candidates[best]
    if not alike:
        return Verdict(f"Take {first.name}: it has more rows right than every other, by more than chance.", first)
    names = ", ".join(candidates[other].name for other in alike)
    tied = [candidates[other].equal for other in alike if candidates[other].equal == candidates[best].equal]
    has = "as many rows right as" if len(tied) == len(alike) else "most rows right, but by no more than chance against"
    said = f"Prompt {first.number} with {first.model} has {has} {names}."
    among = [candidates[one] for one in (best, *alike)]
    pick: Candidate | None = None
    if all(one.per_thousand_usd is not None for one in among):
        cheapest = min(among, key=_price)
        if any(_price(one) > _price(cheapest) for one in among):
            price = f"{dollars(cheapest.per_thousand_usd or 0.0)} for 1,000 rows"
            said += f" Of these {cheapest.name} costs least ({price})."
            # Fewer right may be chance, and may not: how much that is worth is not for us to say.
            pick = cheapest if cheapest.equal == first.equal else None
            said += " Take it." if pick is not None else ""
    more = rows_needed(candidates[best].equal, candidates[best].compared)
    said += f" About {more:,} rows more would narrow an interval to ±2 points." if more else ""
    return Verdict(said, pick)


def _price(candidate: Candidate) -> float:
    return candidate.per_thousand_usd if candidate.per_thousand_usd is not None else float("inf")


def wins_alike(one: int, other: int) -> float:
    """Return the chance that of the rows which only one of two has right so many fall to either (McNemar, exact)."""
    rows = one + other
    return min(1.0, 2 * sum(comb(rows, count) for count in range(min(one, other) + 1)) / (1 << rows))
