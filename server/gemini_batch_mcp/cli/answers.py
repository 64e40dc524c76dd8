"""The commands that follow a batch and read its answers: each asks the desk for one thing and prints it."""

from typing import TYPE_CHECKING, Final, Literal, get_args

import click

from gemini_batch_mcp.cli.session import Session
from gemini_batch_mcp.domain import FileFormat, JobFilter, JobState, ResultQuery, View
from gemini_batch_mcp.errors import BatchError
from gemini_batch_mcp.text import share
from gemini_batch_mcp.threads import in_thread

if TYPE_CHECKING:
    from gemini_batch_mcp.batches.desk import Desk


@click.command("check-status")
@click.argument("batch")
@click.option("-w", "--wait", is_flag=True, help="Wait until the batch has ended.")
@click.pass_obj
def check_status(session: Session, batch: str, wait: bool) -> None:
    """Show the progress of BATCH. Exit code 1 when it failed or expired."""
    from gemini_batch_mcp.cli import console

    async def check(desk: "Desk") -> None:
        status = await console.follow(desk, batch) if wait else await desk.status(batch)
        console.show_status(status)
        if status.state in (JobState.FAILED, JobState.EXPIRED):
            raise BatchError(f"{status.batch.id} ended as {status.state}.", status.advice)

    session.run(check)


@click.command("get-results")
@click.argument("batch")
@click.option("-o", "--output", default="", help="Write all rows, or those of --key or --sql, to this file.")
@click.option("--format", type=click.Choice(get_args(FileFormat)), help="By the file's extension, otherwise jsonl.")
@click.option("--key", "keys", multiple=True, help="Only the row with this key; may be given several times.")
@click.option("--sql", default="", help="One SELECT over the table results: its rows are written.")
@click.option("--also", multiple=True, metavar="BATCH", help="Another batch that --sql may read.")
@click.option(
    "--view",
    type=click.Choice(get_args(View)),
    default="summary",
    show_default=True,
    help="What to show; order is what was asked.",
)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 200), help="Rows per page.")
@click.option("--cursor", default="", help="next_cursor of the previous page.")
@click.pass_obj
def get_results(
    session: Session,
    batch: str,
    output: str,
    format: FileFormat | None,
    keys: tuple[str, ...],
    sql: str,
    also: tuple[str, ...],
    view: View,
    limit: int,
    cursor: str,
) -> None:
    """Collect the answers of BATCH and show them, or write them to a file."""
    from gemini_batch_mcp.cli import console

    query = ResultQuery(
        view=view, limit=limit, cursor=cursor, keys=keys, save_to=output, format=format, sql=sql, also=also
    )

    async def read(desk: "Desk") -> None:
        if view == "order":
            console.show_order((await desk.asked(batch)).order)
            return
        with console.working("Fetching answers") as gauge:
            results = await desk.watched_by(gauge).results(batch, query)
        console.show_results(results, await desk.cost(results.status.batch, results.summary))
        # Of rows in BigQuery only those of this page are at hand.
        if keys and (results.remote is None or not (output or cursor or len(keys) > limit)):
            known = await in_thread(results.history, keys)
            if absent := [key for key in keys if key not in known]:
                console.show_absent(absent, await in_thread(results.first_key))

    session.run(read)


@click.command()
@click.argument("batch")
@click.argument("sql")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 200), help="Most rows to show.")
@click.option("--also", multiple=True, metavar="BATCH", help="Another batch to join: a table named by its id, _ for -.")
@click.pass_obj
def query(session: Session, batch: str, sql: str, limit: int, also: tuple[str, ...]) -> None:
    """Query the answers of BATCH with SQL; they are the table results."""
    from gemini_batch_mcp.cli import console

    async def ask(desk: "Desk") -> None:
        with console.working("Querying") as gauge:
            answer = await desk.watched_by(gauge).query(batch, sql, limit=limit, also=also)
        console.show_answer(answer)

    session.run(ask)


@click.command()
@click.argument("batch")
@click.option("-o", "--output", default="report.html", show_default=True, help="The HTML file to write.")
@click.pass_obj
def report(session: Session, batch: str, output: str) -> None:
    """Write a page about BATCH that opens in any browser: outcomes, errors, tokens, cost, and its rows."""
    from gemini_batch_mcp.cli import console

    async def write(desk: "Desk") -> None:
        with console.working("Drawing") as gauge:
            written = await desk.watched_by(gauge).report(batch, output)
        console.show_saved(written)

    session.run(write)


@click.command("list-jobs")
@click.option("--state", default="", help="Only active or ended jobs, or those in this JOB_STATE_*.")
@click.option("--search", default="", help="Part of an id or a name.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 100), help="Jobs per page.")
@click.option("--cursor", default="", help="next_cursor of the previous page.")
@click.pass_obj
def list_jobs(session: Session, state: str, search: str, limit: int, cursor: str) -> None:
    """List batches ordered here and jobs made elsewhere with the same key."""
    from gemini_batch_mcp.cli import console

    async def show(desk: "Desk") -> None:
        console.show_jobs(await desk.list_jobs(JobFilter(state=state, search=search), limit=limit, cursor=cursor))

    session.run(show)


@click.command()
@click.pass_obj
def collect(session: Session) -> None:
    """Resume all unfinished batches: submit what waits, fetch what has ended. For cron."""
    from gemini_batch_mcp.cli import console

    async def go_on(desk: "Desk") -> None:
        with console.working("Resuming unfinished batches") as gauge:
            advanced = await desk.watched_by(gauge).collect()
        console.show_advanced(advanced)
        if failed := [entry for entry in advanced if entry.failure]:
            raise BatchError(
                f"{share(len(failed), len(advanced), 'batch', plural='batches')} could not be resumed.",
                failed[0].failure,
            )

    session.run(go_on)


@click.command()
@click.argument("batch")
@click.argument("other")
@click.option("--field", default="", help="A field of the answers; by default the first.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 200), help="Differing rows shown.")
@click.option("--cursor", default="", help="next_cursor of the previous page.")
@click.option("-o", "--output", default="", help="Write a page about it, with a heat map, to this HTML file.")
@click.pass_obj
def compare(session: Session, batch: str, other: str, field: str, limit: int, cursor: str, output: str) -> None:
    """Compare the answers of BATCH with OTHER: another batch, or a column of its source with right answers."""
    from gemini_batch_mcp.assistant import render
    from gemini_batch_mcp.cli import console

    async def show(desk: "Desk") -> None:
        with console.working("Comparing") as gauge:
            found = await desk.watched_by(gauge).compare(batch, other, field=field, limit=limit, cursor=cursor)
            trials = await desk.trials(batch, other, field=field) if not cursor else None
            written = await desk.comparison_report(batch, other, output, field=field) if output else None
        console.show_lines(render.compared(found, trials).text().splitlines())
        if written is not None:
            console.show_saved(written)

    session.run(show)


@click.command()
@click.option("--by", type=click.Choice(("month", "model", "batch")), default="month", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.pass_obj
def spend(session: Session, by: Literal["month", "model", "batch"], as_json: bool) -> None:
    """Show what was spent, retries and deleted batches included, and what of it went into rows that failed."""
    from gemini_batch_mcp.cli import console

    async def show(desk: "Desk") -> None:
        console.show_spending(await desk.spending(by), as_json=as_json)

    session.run(show)


ANSWER_COMMANDS: Final = (check_status, get_results, query, compare, report, list_jobs, spend, collect)
