"""The command line: reads the environment, puts the parts together, and prints. What is done is done elsewhere.

Without a command it serves MCP on stdio. Results go to stdout, everything else to stderr; exit codes are 0 for done,
1 for failed, 2 for a command that cannot be understood. Parts are imported inside the commands, because a server on
stdio must answer before a person's client loses patience, and needs few of them.
"""

import json
import logging
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from gemini_batch_mcp import __version__
from gemini_batch_mcp.batches.opening import TransportFactory, lazy_desk
from gemini_batch_mcp.domain import JobFilter, JobState, Order, ResultQuery
from gemini_batch_mcp.errors import BatchError, RequestProblems, UsageError
from gemini_batch_mcp.settings import Settings

if TYPE_CHECKING:
    from gemini_batch_mcp.batches.desk import Desk

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

#: How long a job of the in-process sandbox takes: short enough to watch, long enough to see it move.
_SANDBOX_SECONDS_PER_JOB = 4.0


def main() -> None:
    """Run the command line; the errors we foresee become one sentence on stderr and exit code 1, wrong usage 2."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    try:
        _run_commands()
    except* BatchError as group:
        # Task groups wrap what happens inside them, however deep; the first failure is the one to tell.
        error = _first(group)
        _complain(str(error))
        sys.exit(2 if isinstance(error, UsageError) and not isinstance(error, RequestProblems) else 1)
    except* SystemExit as group:
        # rich ends a command like this when whoever reads its output has seen enough.
        sys.exit(_first(group).code)


def _run_commands() -> None:
    try:
        commands(standalone_mode=False)
    except click.exceptions.Abort:
        _complain("Interrupted.")
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)


def _first(group: BaseExceptionGroup[E]) -> E:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gemini-batch-mcp")
@click.option("--sandbox", is_flag=True, help="Use the embedded Gemini service: no key, no cost.")
@click.pass_context
def commands(context: click.Context, sandbox: bool) -> None:
    """Gemini Batch API for MCP assistants. Without a command: serve MCP on stdio."""
    context.obj = {"GEMINI_BATCH_SANDBOX": "1"} if sandbox else {}
    if context.invoked_subcommand is None:
        _serve_stdio(_settings(context.obj))


@commands.command()
@click.option("--transport", type=click.Choice(["stdio", "http"]), default="stdio", show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8765, show_default=True, type=click.IntRange(0, 65535))
@click.option("--sandbox", is_flag=True, help="Use the embedded Gemini service: no key, no cost.")
@click.option("--read-only", is_flag=True, help="List only the tools that change nothing.")
@click.pass_obj
def serve(flags: dict[str, str], transport: str, host: str, port: int, sandbox: bool, read_only: bool) -> None:
    """Serve MCP on stdio or HTTP."""
    overrides = flags | ({"GEMINI_BATCH_SANDBOX": "1"} if sandbox else {})
    settings = _settings(overrides | ({"GEMINI_BATCH_READ_ONLY": "1"} if read_only else {}))
    if transport == "stdio":
        _serve_stdio(settings)
        return
    if host not in ("127.0.0.1", "localhost", "::1"):
        raise click.UsageError(
            f"--host {host}: this server has no authentication, so it listens on this machine only. "
            "Put a proxy that authenticates in front of 127.0.0.1."
        )
    from gemini_batch_mcp.assistant.server import build_server

    server = build_server(settings, transport=_transport(settings), warm_up=True)
    server.run("streamable-http", host=host, port=port)


@commands.command()
@click.option("--port", required=True, type=click.IntRange(0, 65535), help="0 picks a free one.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--seconds-per-job", default=10.0, show_default=True, type=click.FloatRange(min=0))
@click.option("--directory", type=click.Path(file_okay=False, path_type=Path), help="Where it keeps files and jobs.")
@click.pass_obj
def sandbox(flags: dict[str, str], port: int, host: str, seconds_per_job: float, directory: Path | None) -> None:
    """Run the embedded Gemini Batch service on a port, for any SDK."""
    from gemini_batch_mcp.sandbox.app import Sandbox, serve
    from gemini_batch_mcp.sandbox.config import ByTime, SandboxConfig

    place = directory or _settings(flags | {"GEMINI_BATCH_SANDBOX": "1"}).home / "service"
    service = Sandbox(place, SandboxConfig(pace=ByTime(seconds_per_job)))
    serve(service, host=host, port=port, on_ready=lambda url: click.echo(f"Sandbox at {url}", err=True))


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
            self.fail(f"{text[:80]!r} is neither a JSON object nor a file that holds one ({error}).", param, ctx)
        if not isinstance(parsed, dict):
            self.fail(f"{text[:80]!r} holds JSON, but no object.", param, ctx)
        return parsed


_JSON = _JsonObject()


def _order_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say what is ordered, for every command that takes an order."""
    options = (
        click.argument("source"),
        click.option("-m", "--model", default="", help="Gemini model; the configured one by default."),
        click.option("-n", "--name", "display_name", default="", help="Display name."),
        click.option("--prompt", default="", help="For a table: the prompt of each row, with {{column}} filled in."),
        click.option("--system", "system_instruction", default="", help="For a table: the system instruction."),
        click.option("--schema", "response_schema", type=_JSON, default="{}", help="For a table: JSON Schema."),
        click.option("--config", "generation_config", type=_JSON, default="{}", help="For a table: generationConfig."),
        click.option("--key-column", default="", help="For a table: the column with the keys."),
        click.option("--limit-rows", default=0, type=click.IntRange(min=0), help="For a table: only the first rows."),
        click.option("--task", type=click.Choice(["generate", "embed"]), default="generate", show_default=True),
    )
    for option in reversed(options):
        command = option(command)
    return command


@commands.command()
@_order_options
@click.pass_obj
def preview(flags: dict[str, str], /, **order: Any) -> None:
    """Check SOURCE, show the first requests and the cost range, and send nothing. Exit code 1 with problems."""
    from gemini_batch_mcp import console

    async def show(desk: "Desk") -> None:
        with console.working(f"Checking {order['source']}"):
            seen = await desk.preview(Order(**order))
        console.show_preview(seen)
        if seen.problem_count:
            found = f"{seen.problem_count} problem{'' if seen.problem_count == 1 else 's'}"
            raise BatchError(f"{found}; this cannot be sent.", "Correct what is listed and preview again.")

    _run(_settings(flags), show)


@commands.command("create-batch")
@_order_options
@click.option("--delivery", type=click.Choice(["file", "inline"]), default="file", show_default=True)
@click.option("--yes", "confirm", is_flag=True, help="Agree to order what cannot be checked.")
@click.option("--resubmit", is_flag=True, help="Order again what was ordered before; it is paid again.")
@click.pass_obj
def create_batch(flags: dict[str, str], /, confirm: bool, resubmit: bool, **order: Any) -> None:
    """Check SOURCE (ready JSONL, or a table with --prompt) and submit it as one batch. Prints the batch id."""
    from gemini_batch_mcp import console

    async def place(desk: "Desk") -> None:
        with console.working(f"Checking and sending {order['source']}"):
            placement = await desk.place_order(Order(**order), confirm=confirm, resubmit=resubmit)
        console.show_placement(placement)

    _run(_settings(flags), place)


@commands.command("check-status")
@click.argument("batch")
@click.option("-w", "--wait", is_flag=True, help="Wait until the batch has ended.")
@click.pass_obj
def check_status(flags: dict[str, str], batch: str, wait: bool) -> None:
    """Show how far BATCH is. Fails when it failed."""
    from gemini_batch_mcp import console

    async def check(desk: "Desk") -> None:
        status = await console.follow(desk, batch) if wait else await desk.status(batch)
        console.show_status(status)
        if status.state in (JobState.FAILED, JobState.EXPIRED):
            raise BatchError(f"{status.batch.id} ended as {status.state}.", status.advice)

    _run(_settings(flags), check)


@commands.command("get-results")
@click.argument("batch")
@click.option("-o", "--output", default="", help="Write all rows to this JSONL file.")
@click.option("--view", type=click.Choice(["summary", "rows", "failures"]), default="summary", show_default=True)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 200))
@click.option("--cursor", default="", help="Where the previous page ended.")
@click.pass_obj
def get_results(
    flags: dict[str, str],
    batch: str,
    output: str,
    view: Literal["summary", "rows", "failures"],
    limit: int,
    cursor: str,
) -> None:
    """Collect the answers of BATCH and show them, or write them to a file."""
    from gemini_batch_mcp import console

    query = ResultQuery(view=view, limit=limit, cursor=cursor, save_to=output)

    async def read(desk: "Desk") -> None:
        with console.working("Fetching answers"):
            results = await desk.results(batch, query)
        console.show_results(results)

    _run(_settings(flags), read)


@commands.command("list-jobs")
@click.option("--state", default="", help="Only jobs in this JOB_STATE_*.")
@click.option("--search", default="", help="Part of an id or a name.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 100))
@click.option("--cursor", default="", help="Where the previous page ended.")
@click.pass_obj
def list_jobs(flags: dict[str, str], state: str, search: str, limit: int, cursor: str) -> None:
    """List batches ordered here and jobs made elsewhere with the same key."""
    from gemini_batch_mcp import console

    async def show(desk: "Desk") -> None:
        console.show_jobs(await desk.list_jobs(JobFilter(state=state, search=search), limit=limit, cursor=cursor))

    _run(_settings(flags), show)


@commands.command()
@click.argument("batch")
@click.pass_obj
def cancel(flags: dict[str, str], batch: str) -> None:
    """Stop BATCH."""
    from gemini_batch_mcp import console

    async def stop(desk: "Desk") -> None:
        console.show_status(await desk.cancel(batch))

    _run(_settings(flags), stop)


@commands.command()
@click.argument("batch")
@click.option("--yes", "confirm", is_flag=True, help="Really delete; without it, only says what would go.")
@click.pass_obj
def delete(flags: dict[str, str], batch: str, confirm: bool) -> None:
    """Delete BATCH at Gemini and its answers stored here."""
    from gemini_batch_mcp import console

    async def remove(desk: "Desk") -> None:
        console.show_deletion(await desk.delete(batch, confirm=confirm))

    _run(_settings(flags), remove)


@commands.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def doctor(flags: dict[str, str], as_json: bool) -> None:
    """Check the key, the directories, that Gemini answers, and the versions. Exit code 1 when something is wrong."""
    import anyio

    from gemini_batch_mcp import console
    from gemini_batch_mcp.doctor import examine

    settings = _settings(flags)
    report = anyio.run(examine, settings, _transport(settings))
    console.show_report(report, as_json=as_json)
    if not report.ok:
        sys.exit(1)


@commands.command()
@click.option("--live", is_flag=True, help="Use Gemini itself, with your key; costs a fraction of a cent.")
@click.option("--rows", default=40, show_default=True, type=click.IntRange(5, 10_000))
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("gemini-batch-demo"),
    show_default=True,
    help="Where the demo puts its input and its results.",
)
def demo(live: bool, rows: int, directory: Path) -> None:
    """Watch a whole batch conversation over a real stdio MCP server, in the sandbox unless --live."""
    import anyio

    from gemini_batch_mcp.demo import run_demo

    anyio.run(run_demo, directory.resolve(), rows, live, dict(os.environ))


def _settings(overrides: dict[str, str]) -> Settings:
    return Settings.from_env({**os.environ, **overrides}, working_directory=Path.cwd(), user_home=Path.home())


def _transport(settings: Settings) -> TransportFactory | None:
    if not settings.sandbox:
        return None

    def in_process() -> Any:
        from gemini_batch_mcp.sandbox.app import Sandbox
        from gemini_batch_mcp.sandbox.config import ByTime, SandboxConfig

        config = SandboxConfig(pace=ByTime(_SANDBOX_SECONDS_PER_JOB))
        return Sandbox(settings.home / "service", config).transport()

    return in_process


def _serve_stdio(settings: Settings) -> None:
    from gemini_batch_mcp.assistant.server import build_server

    build_server(settings, transport=_transport(settings), warm_up=True).run("stdio")


def _run(settings: Settings, work: Callable[["Desk"], Coroutine[Any, Any, T]]) -> T:
    """Open the desk, do the work, close it."""
    import anyio

    async def run() -> T:
        async with lazy_desk(settings, _transport(settings)) as desk:
            return await work(await desk.get())

    return anyio.run(run)


def _complain(sentence: str) -> None:
    click.echo(sentence, err=True)
