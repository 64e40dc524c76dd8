"""The command that tries prompts and models on the same rows, and says which of them is better, if the figures do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb
from typing import TYPE_CHECKING, Any, Final

import click

from gemini_batch_mcp.cli.orders import JSON, ask
from gemini_batch_mcp.cli.session import Session
from gemini_batch_mcp.domain import Delivery, Order, ResultQuery, RowStatus
from gemini_batch_mcp.text import dollars

if TYPE_CHECKING:
    from gemini_batch_mcp.batches.answers.comparing import Comparison
    from gemini_batch_mcp.batches.desk import Desk


#: Rows of a trial at most: all that one page shows.
_MOST_ROWS: Final = 200
#: How often one of several that are equally good may be called better (all comparisons together).
_FALSE_ALARMS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Tried:
    """One candidate, called `name`, with what came of its rows: those that are `right`, by key, the cost, the time."""

    name: str
    comparison: "Comparison"
    right: frozenset[str]
    rows: int
    cost_usd: float | None
    seconds: int

    @property
    def per_thousand_usd(self) -> float | None:
        """What a thousand rows cost, None where that is not known."""
        return self.cost_usd / self.rows * 1000 if self.cost_usd is not None and self.rows else None


async def read_tried(desk: "Desk", batch_id: str, name: str, expected: str, *, field: str = "") -> Tried:
    """Return what came of a candidate whose batch has ended. Raises as `Desk.compare`."""
    results = await desk.results(batch_id, ResultQuery(view="rows", limit=_MOST_ROWS))
    found = await desk.compare(batch_id, expected, field=field, limit=_MOST_ROWS, cursor="")
    wrong = {row.key for row in found.rows}
    rows = results.page.rows if results.page is not None else ()
    return Tried(
        name=name,
        comparison=found,
        right=frozenset(row.key for row in rows if row.status is RowStatus.OK and row.key not in wrong),
        rows=results.summary.expected,
        cost_usd=(await desk.cost(results.status.batch, results.summary)).usd,
        seconds=results.status.age_seconds,
    )


def verdict(tried: Sequence[Tried]) -> str:
    """Return the recommendation that the figures allow, in sentences: one candidate, or none.

    Candidates answer the same rows, so that two are told apart by the rows that only one of them has right.
    """
    ranked = sorted(tried, key=lambda one: (-len(one.right), one.per_thousand_usd or 0.0))
    best, others = ranked[0], ranked[1:]
    if not others:
        return "One candidate alone: there is nothing to choose."
    alike = [
        one
        for one in others
        if wins_alike(len(best.right - one.right), len(one.right - best.right)) * len(others) >= _FALSE_ALARMS
    ]
    if not alike:
        return f"Take {best.name}: it has more rows right than every other, by more than chance."
    names = ", ".join(one.name for one in alike)
    said = f"{best.name} has most rows right, but by no more than chance against {names}."
    priced = [one for one in (best, *alike) if one.per_thousand_usd is not None]
    if len(priced) > len(alike):
        cheapest = min(priced, key=lambda one: one.per_thousand_usd or 0.0)
        said += f" Of these {cheapest.name} costs least ({dollars(cheapest.per_thousand_usd or 0.0)} for 1,000 rows)."
    more = best.comparison.more_rows
    return f"{said} About {more:,} rows more would narrow an interval to ±2 points." if more else said


def wins_alike(one: int, other: int) -> float:
    """Return the chance that of the rows which only one of two has right so many fall to either (McNemar, exact)."""
    rows = one + other
    return min(1.0, 2 * sum(comb(rows, count) for count in range(min(one, other) + 1)) / float(1 << rows))


def _options(command: Callable[..., None]) -> Callable[..., None]:
    options = (
        click.argument("source"),
        click.option("--prompt", "prompts", multiple=True, required=True, help="A prompt; give it once for each."),
        click.option("-m", "--model", "models", multiple=True, help="A model; give it once for each."),
        click.option("--expected", required=True, help="The column of SOURCE with right answers."),
        click.option("--rows", default=50, show_default=True, type=click.IntRange(1, 200), help="Rows of the trial."),
        click.option("--field", default="", help="A field of the answers; by default the first."),
        click.option("--system", "system_instruction", default="", help="The system instruction."),
        click.option("--schema", "response_schema", type=JSON, default="{}", help="JSON Schema."),
        click.option("--config", "generation_config", type=JSON, default="{}", help="generationConfig."),
        click.option("--attach", default="", help="Column of file paths to attach."),
        click.option("--key-column", default="", help="The column of unique keys."),
        click.option("--where", default="", help="Only rows that meet this SQL condition."),
        click.option(
            "--delivery",
            type=click.Choice(["now", "file"]),
            default="now",
            show_default=True,
            help="Answered in minutes, or as batches.",
        ),
        click.option("--yes", "confirm", is_flag=True, help="Agree to the cost."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command("try")
@_options
@click.pass_obj
def try_candidates(
    session: Session,
    /,
    prompts: tuple[str, ...],
    models: tuple[str, ...],
    expected: str,
    rows: int,
    field: str,
    delivery: Delivery,
    confirm: bool,
    **order: Any,
) -> None:
    """Try each prompt with each model on the same rows of SOURCE, and lay the answers against the right ones.

    The same command again goes on where it was: what is ordered already is not ordered again.
    """
    from gemini_batch_mcp.cli import console

    async def compare(desk: "Desk") -> None:
        batches: list[tuple[str, str]] = []
        for number, prompt in enumerate(prompts, 1):
            for model in models or ("",):
                wanted = Order(prompt=prompt, model=model, sample_rows=rows, delivery=delivery, **order)
                with console.working(f"Checking prompt {number}") as gauge:
                    quote = await desk.watched_by(gauge).quote(wanted)
                if not confirm:
                    await ask(desk, quote)
                with console.working(f"Sending prompt {number}") as gauge:
                    placement = await desk.watched_by(gauge).place_order(wanted, agreed_to=quote)
                batch = placement.status.batch
                batches.append((batch.id, f"prompt {number} with {batch.model}"))
        tried = []
        for batch_id, name in batches:
            await console.follow(desk, batch_id)
            tried.append(await read_tried(desk, batch_id, name, expected, field=field))
        console.show_tried(tried, verdict(tried))

    session.run(compare)
