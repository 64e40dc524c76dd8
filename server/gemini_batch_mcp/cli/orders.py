"""The commands that order, and that take an order back: each asks the desk for one thing and prints it."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

import click

from gemini_batch_mcp.cli.session import Session
from gemini_batch_mcp.domain import ALL_ROWS, Delivery, Order, Retryable, Reuse
from gemini_batch_mcp.errors import BatchError
from gemini_batch_mcp.threads import in_thread_left_behind

if TYPE_CHECKING:
    from gemini_batch_mcp.batches.desk import Desk
    from gemini_batch_mcp.batches.losses import Loss
    from gemini_batch_mcp.batches.orders.consent import Quote

#: As plain words: of an enumeration click would take the members' names, in capitals.
_STATUSES: Final = get_args(Retryable)


class _JsonObject(click.ParamType[dict[str, Any]]):
    """A JSON object, given as it is or as the path of a file that holds it."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        text = str(value)
        try:
            parsed = json.loads(text if text.lstrip().startswith("{") else Path(text).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or error
            self.fail(f"{text[:80]!r} is neither a JSON object nor a file that contains one ({reason}).", param, ctx)
        if not isinstance(parsed, dict):
            self.fail(f"{text[:80]!r} contains JSON, but not an object.", param, ctx)
        return parsed


#: The type of options that take one.
JSON: Final = _JsonObject()
#: What a person is told who interrupts a command that orders.
TO_CONTINUE: Final = "Run the same command again to continue; nothing is charged twice."


def _all_rows(context: click.Context, parameter: click.Parameter, value: int) -> int:
    """Tell 0 rows that are asked for, which are all, from those of a limit that is not given."""
    is_said = context.get_parameter_source(parameter.name or "") is click.core.ParameterSource.COMMANDLINE
    return ALL_ROWS if is_said and not value else value


def _order_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say what is ordered, for every command that takes an order."""
    options = (
        click.argument("source", required=False, default=""),
        click.option("--like", default="", help="Batch whose order to repeat; what is given here replaces it."),
        click.option("-m", "--model", default="", help="Gemini model; the configured one by default."),
        click.option("-n", "--name", "display_name", default="", help="Display name."),
        click.option("--prompt", default="", help="For a table: the prompt of each row, with {{column}} filled in."),
        click.option("--system", "system_instruction", default="", help="For a table: the system instruction."),
        click.option("--schema", "response_schema", type=JSON, default="{}", help="For a table: JSON Schema."),
        click.option("--config", "generation_config", type=JSON, default="{}", help="For a table: generationConfig."),
        click.option("--attach", default="", help="Column of file paths to attach; use path for a directory."),
        click.option("--key-column", default="", help="For a table: the column of unique keys."),
        click.option(
            "--limit-rows",
            default=0,
            type=click.IntRange(min=0),
            callback=_all_rows,
            help="Pilot: only the first rows; 0 with --like: all of them.",
        ),
        click.option(
            "--sample-rows", default=0, type=click.IntRange(min=0), help="Pilot: rows spread over the source."
        ),
        click.option("--where", default="", help="For a table: only rows that meet this SQL condition."),
        click.option("--encoding", default="", help="Encoding of a text file, where it can't be detected."),
        click.option(
            "--skip-invalid", is_flag=True, help="Leave invalid lines or rows out; they are listed as failed."
        ),
        click.option(
            "--reuse",
            type=click.Choice(get_args(Reuse)),
            default="auto",
            show_default=True,
            help="Don't resend rows already answered, or duplicates; auto: only with a schema, and embeddings.",
        ),
        click.option(
            "--task",
            type=click.Choice(["generate", "embed"]),
            default="generate",
            show_default=True,
            help="Answers, or embeddings.",
        ),
        click.option(
            "--delivery",
            type=click.Choice(get_args(Delivery)),
            default="file",
            show_default=True,
            help="Upload the requests as a file, send them in the call, or have up to 200 rows answered now.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@_order_options
@click.pass_obj
def preview(session: Session, /, **order: Any) -> None:
    """Check SOURCE, show the first requests and the cost range, and send nothing. Exit code 1 with problems."""
    from gemini_batch_mcp.cli import console

    async def show(desk: "Desk") -> None:
        with console.working(f"Checking {order['source'] or order['like']}") as gauge:
            seen = await desk.watched_by(gauge).preview(Order(**order))
        console.show_preview(seen)
        if seen.estimate is None:
            found = f"{seen.problem_count} problem{'' if seen.problem_count == 1 else 's'}"
            raise BatchError(
                f"{found}; this order cannot be submitted.", "Correct the problems above, then preview again."
            )

    session.run(show)


@click.command("create-batch")
@_order_options
@click.option("--yes", "confirm", is_flag=True, help="Agree to the cost, or to a file that cannot be checked.")
@click.option("--resubmit", is_flag=True, help="Submit an order again; you are charged again.")
@click.pass_obj
def create_batch(session: Session, /, confirm: bool, resubmit: bool, **order: Any) -> None:
    """Check SOURCE (ready JSONL, or a table with --prompt) and submit it as one batch. Prints the batch id."""
    from gemini_batch_mcp.cli import console

    async def place(desk: "Desk") -> None:
        wanted = Order(**order)
        with console.working(f"Checking {wanted.source or wanted.like}") as gauge:
            # Whoever says --yes agrees to what it costs now.
            quote = await desk.watched_by(gauge).quote(wanted, resubmit=resubmit)
        if not confirm:
            await ask(desk, quote)
        with console.working(f"Sending {wanted.source or wanted.like}") as gauge:
            placement = await desk.watched_by(gauge).place_order(wanted, agreed_to=quote, resubmit=resubmit)
        console.show_placement(placement)

    # The same command with --resubmit orders once more.
    session.run(place, to_continue="" if resubmit else TO_CONTINUE)


@click.command("retry-failed")
@click.argument("batch")
@click.option(
    "--include", multiple=True, type=click.Choice(_STATUSES), help="By default: missing rows and retryable failures."
)
@click.option("-m", "--model", default="", help="Another model; the same by default.")
@click.option("--yes", "confirm", is_flag=True, help="Agree to the cost.")
@click.pass_obj
def retry_failed(session: Session, batch: str, include: tuple[str, ...], model: str, confirm: bool) -> None:
    """Resend the rows of BATCH without a usable answer. Prints the batch id."""
    from gemini_batch_mcp.cli import console

    async def retry(desk: "Desk") -> None:
        with console.working("Choosing rows") as gauge:
            quote = await desk.watched_by(gauge).quote_retry(batch, include, model=model)
        if not confirm:
            await ask(desk, quote)
        with console.working("Resending rows") as gauge:
            console.show_placement(await desk.watched_by(gauge).retry(batch, include, model=model, agreed_to=quote))

    session.run(retry, to_continue=TO_CONTINUE)


@click.command()
@click.argument("batch")
@click.option("--yes", "confirm", is_flag=True, help="Agree to lose rows that cannot be resent.")
@click.pass_obj
def cancel(session: Session, batch: str, confirm: bool) -> None:
    """Stop BATCH."""
    from gemini_batch_mcp.cli import console

    async def stop(desk: "Desk") -> None:
        loss = await desk.cancel_loss(batch)
        if not confirm:
            await ask(desk, loss, "Nothing was cancelled.")
        console.show_status(await desk.cancel(batch, agreed_to=loss))

    session.run(stop)


@click.command()
@click.argument("batch")
@click.option("--yes", "confirm", is_flag=True, help="Agree to the deletion.")
@click.pass_obj
def delete(session: Session, batch: str, confirm: bool) -> None:
    """Delete BATCH at Gemini and its answers stored here."""
    from gemini_batch_mcp.cli import console

    async def remove(desk: "Desk") -> None:
        loss = await desk.delete_loss(batch)
        if not confirm:
            await ask(desk, loss, "Nothing was deleted.")
        console.show_deletion(await desk.delete(batch, agreed_to=loss))

    session.run(remove)


async def ask(desk: "Desk", about: "Quote | Loss | None", otherwise: str = "Nothing was submitted.") -> None:
    """Ask the person at the terminal what they have to be asked; without one, a question is an error.

    `otherwise` says what did not happen where they do not agree.

    Raises:
        BatchError: there is nobody to ask, or the answer is no.
    """
    if about is None or not about.question:
        return
    if not sys.stdin.isatty():
        raise BatchError(about.question, f"{otherwise} Add --yes to agree.")
    if not await in_thread_left_behind(_agrees, about.question):
        await desk.take_no(about, has_declined=True)
        raise BatchError(otherwise)


def _agrees(question: str) -> bool:
    """Ask on the terminal: in a thread, so that Ctrl-C reaches the event loop. Ctrl-D is a no."""
    try:
        return click.confirm(question, err=True)
    except click.Abort:
        click.echo(err=True)
        return False


ORDER_COMMANDS: Final = (preview, create_batch, retry_failed, cancel, delete)
