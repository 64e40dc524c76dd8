"""What all batches of this ledger have cost: those that were deleted, and rows that were sent again, included."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.jobs.listing import JobList, Spent
from gemini_batch_mcp.batches.ledger.entries import BillEntry, Charge
from gemini_batch_mcp.batches.orders.pricing import cost_of, read_prices
from gemini_batch_mcp.intake.prices.price_list import PriceTable
from gemini_batch_mcp.text import count, dollars
from gemini_batch_mcp.threads import in_thread

Grouping = Literal["month", "model", "batch"]
GROUPINGS: Final = get_args(Grouping)


@dataclass(frozen=True, slots=True)
class SpentOn:
    """What one month, model or batch has cost in USD. `wasted_usd` went into rows that got no good answer.

    `retries_usd` is what rows cost that were sent again. `wasted_share` is None where nothing was spent.
    """

    name: str
    batches: int
    cost_usd: float
    wasted_usd: float
    retries_usd: float

    @property
    def wasted_share(self) -> float | None:
        """The part of the money, from 0 to 1, that went into rows without a good answer."""
        return self.wasted_usd / self.cost_usd if self.cost_usd else None


@dataclass(frozen=True, slots=True)
class Spending:
    """What was spent, in groups, and what is not in the figures: a sentence each in `notes`."""

    groups: tuple[SpentOn, ...]
    total: SpentOn
    since: str
    priced_on: str
    notes: tuple[str, ...]


async def with_costs(app: App, listed: JobList) -> JobList:
    """Return a list of jobs with what each batch has cost, and what all batches of this ledger have."""
    prices, bills = await read_prices(app), await in_thread(app.ledger.bills.all)
    costs = {bill.batch_id: cost_of(prices, bill.charges).usd for bill in bills if bill.charges and not _is_open(bill)}
    jobs = tuple(replace(job, cost_usd=costs.get(job.batch_id)) for job in listed.jobs)
    seen = _spending(prices, bills, "batch")
    notes, spent = [listed.note], None
    if seen.since:
        spent = Spent(seen.total.batches, seen.total.cost_usd, seen.since)
        batches = count(spent.batches, "batch", "batches")
        said = f"Spent in all, deleted batches included: {dollars(spent.cost_usd)} on {batches} since {spent.since}."
        notes += [said, *seen.notes]
    return replace(listed, jobs=jobs, spent=spent, note=" ".join(note for note in notes if note))


async def read_spending(app: App, by: Grouping) -> Spending:
    """Return what was spent by month, by model or by batch.

    Raises:
        ConfigurationError: the user's price list cannot be used.
        StorageError: the ledger cannot be read.
    """
    return _spending(await read_prices(app), await in_thread(app.ledger.bills.all), by)


def _is_open(bill: BillEntry) -> bool:
    """True where all that is known of the tokens is that there were some: nothing is no figure for that."""
    counted = [charge.usage for charge in bill.charges or ()]
    tokens = sum(usage.input_tokens + usage.output_tokens + usage.thoughts_tokens for usage in counted)
    return bool(bill.unknown_rows) and not tokens


def _spending(prices: PriceTable, bills: Sequence[BillEntry], by: Grouping) -> Spending:
    charged = [(bill, charge) for bill in bills for charge in bill.charges or ()]
    known = [(bill, charge) for bill, charge in charged if cost_of(prices, [charge]).usd is not None]
    name_of: dict[Grouping, Callable[[BillEntry, Charge], str]] = {
        "month": lambda _, charge: f"{charge.sent_on:%Y-%m}",
        "model": lambda _, charge: charge.model,
        "batch": lambda bill, _: f"{bill.batch_id}{' (deleted)' if bill.is_deleted else ''}",
    }
    names = [name_of[by](bill, charge) for bill, charge in known]
    # Batches come newest first already; models and months have an order of their own.
    order = dict.fromkeys(names) if by == "batch" else sorted(set(names), reverse=by == "month")
    groups = tuple(
        _spent_on(prices, name, [part for part, named in zip(known, names, strict=True) if named == name])
        for name in order
    )
    since = min((bill.created_at for bill, _ in known), default=None)
    return Spending(
        groups=groups,
        total=_spent_on(prices, "in all", known),
        since=f"{since:%Y-%m-%d}" if since is not None else "",
        priced_on=prices.priced_on.isoformat(),
        notes=tuple(_notes(bills, [part for part in charged if part not in known])),
    )


def _spent_on(prices: PriceTable, name: str, parts: Sequence[tuple[BillEntry, Charge]]) -> SpentOn:
    each = [(charge.attempt, cost_of(prices, [charge])) for _, charge in parts]
    return SpentOn(
        name=name,
        batches=len({bill.batch_id for bill, _ in parts}),
        cost_usd=round(sum(cost.usd or 0.0 for _, cost in each), 6),
        wasted_usd=round(sum(cost.wasted_usd or 0.0 for _, cost in each), 6),
        retries_usd=round(sum(cost.usd or 0.0 for attempt, cost in each if attempt > 1), 6),
    )


def _notes(bills: Sequence[BillEntry], unpriced: Sequence[tuple[BillEntry, Charge]]) -> list[str]:
    """Say what is in no figure, a sentence each."""
    notes: list[str] = []
    if earlier := [bill.batch_id for bill in bills if bill.charges is None and bill.answered_jobs]:
        notes.append(
            f"Not counted: {_some(earlier)}, of which no token counts are noted; get_results notes them where the "
            "batch is still here."
        )
    if unknown := [bill for bill in bills if bill.unknown_rows]:
        rows = sum(bill.unknown_rows for bill in unknown)
        notes.append(
            f"Not counted: {count(rows, 'row')} of {_some([bill.batch_id for bill in unknown])}, whose tokens are not "
            "known: not fetched yet, or never given out."
        )
    metered = [(bill, charge) for bill in bills for charge in bill.charges or () if charge.usage.unmetered]
    if metered:
        answers = sum(charge.usage.unmetered for _, charge in metered)
        batches = list(dict.fromkeys(bill.batch_id for bill, _ in metered))
        notes.append(
            f"Not counted: {count(answers, 'answer')} of {_some(batches)} that came without a count of tokens."
        )
    if models := sorted({charge.model for _, charge in unpriced if not charge.usage.unmetered}):
        notes.append(f"Not counted: answers of {_some(models)}, which have no price; GEMINI_BATCH_PRICES can name one.")
    return notes


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
