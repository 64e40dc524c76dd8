"""The command line: reads the environment, puts the parts together, and prints. What is done is done elsewhere.

Without a command it serves MCP on stdio. Results go to stdout, everything else to stderr; exit codes are 0 for done,
1 for failed, 2 for a command that cannot be understood. Parts are imported inside the commands, because a server on
stdio must answer before a person's client loses patience, and needs few of them.
"""

import logging
import os
import sys
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gemini_batch_mcp import __version__
from gemini_batch_mcp.batches.opening import TransportFactory, lazy_desk
from gemini_batch_mcp.cli.batches import BATCH_COMMANDS
from gemini_batch_mcp.errors import BatchError, RequestProblems, StorageError, UsageError
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
    except* Exception as group:
        # Its text and its traceback may hold anything, a key included; its place in our code cannot.
        unforeseen = _first(group)
        frames = traceback.extract_tb(unforeseen.__traceback__)
        place = f" in {frames[-1].name}, line {frames[-1].lineno}" if frames else ""
        _complain(
            f"This met an error that was not foreseen ({type(unforeseen).__name__}{place}). It is a fault of "
            "gemini-batch-mcp; check-status and list-jobs show what was submitted."
        )
        sys.exit(1)


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


class _Session:
    """What a command runs in: the environment with the flags laid over it, and the desk."""

    def __init__(self, flags: dict[str, str]) -> None:
        self._flags = flags

    def settings(self, **more: str) -> Settings:
        """Read the settings; `more` wins over flags, flags over the environment."""
        env = {**os.environ, **self._flags, **more}
        return Settings.from_env(env, working_directory=Path.cwd(), user_home=Path.home())

    def run(self, work: Callable[["Desk"], Coroutine[Any, Any, T]]) -> T:
        """Open the desk, do the work, close it."""
        import anyio

        settings = self.settings()

        async def run() -> T:
            async with lazy_desk(settings, _transport(settings)) as desk:
                return await work(await desk.get())

        return anyio.run(run)


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gemini-batch-mcp")
@click.option("--sandbox", is_flag=True, help="Use the embedded Gemini service: no key, no cost.")
@click.pass_context
def commands(context: click.Context, sandbox: bool) -> None:
    """Gemini Batch API for MCP assistants. Without a command: serve MCP on stdio."""
    context.obj = _Session({"GEMINI_BATCH_SANDBOX": "1"} if sandbox else {})
    if context.invoked_subcommand is None:
        _serve_stdio(context.obj.settings())


for _command in BATCH_COMMANDS:
    commands.add_command(_command)


@commands.command()
@click.option("--transport", type=click.Choice(["stdio", "http"]), default="stdio", show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8765, show_default=True, type=click.IntRange(0, 65535))
@click.option("--sandbox", is_flag=True, help="Use the embedded Gemini service: no key, no cost.")
@click.option("--read-only", is_flag=True, help="List only the tools that change nothing.")
@click.pass_obj
def serve(session: _Session, transport: str, host: str, port: int, sandbox: bool, read_only: bool) -> None:
    """Serve MCP on stdio or HTTP."""
    chosen = {"GEMINI_BATCH_SANDBOX": sandbox, "GEMINI_BATCH_READ_ONLY": read_only}
    settings = session.settings(**{name: "1" for name, is_set in chosen.items() if is_set})
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
def sandbox(session: _Session, port: int, host: str, seconds_per_job: float, directory: Path | None) -> None:
    """Run the embedded Gemini Batch service on a port, for any SDK."""
    from gemini_batch_mcp.sandbox.app import Sandbox, serve
    from gemini_batch_mcp.sandbox.config import ByTime, SandboxConfig

    place = directory or session.settings(GEMINI_BATCH_SANDBOX="1").home / "service"
    service = Sandbox(place, SandboxConfig(pace=ByTime(seconds_per_job)))
    serve(service, host=host, port=port, on_ready=lambda url: click.echo(f"Sandbox at {url}", err=True))


@commands.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def doctor(session: _Session, as_json: bool) -> None:
    """Check the key, the directories, that Gemini answers, and the versions. Exit code 1 when something is wrong."""
    import anyio

    from gemini_batch_mcp.cli import console
    from gemini_batch_mcp.cli.doctor import examine

    settings = session.settings()
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

    from gemini_batch_mcp.cli.demo import run_demo

    anyio.run(run_demo, directory.resolve(), rows, live, dict(os.environ))


def _transport(settings: Settings) -> TransportFactory | None:
    if not settings.sandbox:
        return None

    def in_process() -> Any:
        from gemini_batch_mcp.sandbox.app import Sandbox
        from gemini_batch_mcp.sandbox.config import ByTime, SandboxConfig

        config = SandboxConfig(pace=ByTime(_SANDBOX_SECONDS_PER_JOB))
        try:
            return Sandbox(settings.home / "service", config).transport()
        except OSError as error:
            raise StorageError(
                f"The state directory {settings.home} cannot be used ({error.strerror}).",
                "Set GEMINI_BATCH_HOME to a directory that can be written.",
            ) from None

    return in_process


def _serve_stdio(settings: Settings) -> None:
    from gemini_batch_mcp.assistant.server import build_server

    build_server(settings, transport=_transport(settings), warm_up=True).run("stdio")


def _complain(sentence: str) -> None:
    click.echo(sentence, err=True)
