"""The command that tries prompts and models on the same rows, and says which of them is better, if the figures do."""

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from gemini_batch_mcp.cli.orders import JSON, TO_CONTINUE, ask
from gemini_batch_mcp.cli.session import Session
from gemini_batch_mcp.domain import Delivery, Order
from gemini_batch_mcp.errors import UnknownBatch, UsageError

if TYPE_CHECKING:
    from gemini_batch_mcp.batches.desk import Desk
    from gemini_batch_mcp.batches.trials.candidates import Trials


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
        click.option("-o", "--output", default="", help="Write a page about it, with a heat map, to this HTML file."),
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
    output: str,
    confirm: bool,
    **order: Any,
) -> None:
    """Try each prompt with each model on the same rows of SOURCE, and compare the answers with the right ones.

    Run the same command again to resume it: nothing is ordered twice.
    """
    from gemini_batch_mcp.cli import console

    async def compare(desk: "Desk") -> None:
        if output:
            # Before anything is ordered for it.
            desk.check_page(output)
        batches: list[str] = []
        for number, prompt in enumerate(prompts, 1):
            for model in models or ("",):
                wanted = Order(prompt=prompt, model=model, sample_rows=rows, delivery=delivery, **order)
                with console.working(f"Checking prompt {number}") as gauge:
                    quote = await desk.watched_by(gauge).quote(wanted)
                if not confirm:
                    await ask(desk, quote)
                with console.working(f"Sending prompt {number}") as gauge:
                    placement = await desk.watched_by(gauge).place_order(wanted, agreed_to=quote)
                batches.append(placement.status.batch.id)
        batches = list(dict.fromkeys(batches))
        for batch_id in batches:
            await console.follow(desk, batch_id)
        tried: Trials | None = None
        with console.working("Comparing") as gauge:
            watched = desk.watched_by(gauge)
            with suppress(UnknownBatch):
                tried = await watched.trials(batches[0], expected, field=field, batches=batches)
            if tried is None:
                raise UsageError(
                    f"{order['source']} has no column {expected[:60]!r}, so nothing says which answers are right.",
                    "Run the same command with another --expected: what is answered is not ordered again.",
                )
            written = await watched.trials_report(tried, output) if output else None
        console.show_trials(tried)
        if written is not None:
            console.show_saved(written)

    session.run(compare, to_continue=TO_CONTINUE)
