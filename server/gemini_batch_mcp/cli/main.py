"""The command line as a whole: reads the environment, knows every command, and turns failures into exit codes.

Without a command it serves MCP on stdio. Results go to stdout, everything else to stderr; exit codes are 0 for done,
1 for failed, 2 for a command that cannot be understood. Parts are imported inside the commands, and most commands only
when one is named, because a server on stdio must answer before a person's client loses patience, and needs few of them.
"""

import os
import sys
import traceback
from typing import TypeVar

import click

from gemini_batch_mcp import __version__
from gemini_batch_mcp.cli.serving import SERVING_COMMANDS, serve_stdio
from gemini_batch_mcp.cli.session import Session
from gemini_batch_mcp.cli.streams import clean_streams
from gemini_batch_mcp.cli.wording import as_commands
from gemini_batch_mcp.errors import BatchError, RequestProblems, UsageError
from gemini_batch_mcp.settings import secrets_of

E = TypeVar("E", bound=BaseException)


def main() -> None:
    """Run the command line; the errors we foresee become one sentence on stderr and exit code 1, wrong usage 2."""
    clean_streams(secrets_of(os.environ))
    code: str | int | None = 0
    try:
        _run_commands()
    except* BatchError as group:
        # Task groups wrap what happens inside them, however deep; the first failure is the one to tell.
        error = _first(group)
        _complain(as_commands(str(error)))
        code = 2 if isinstance(error, UsageError) and not isinstance(error, RequestProblems) else 1
    except* SystemExit as group:
        # rich ends a command like this when whoever reads its output has seen enough.
        code = _first(group).code
    except* Exception as group:
        # Its text and its traceback may hold anything, a key included; its place in our code cannot.
        unforeseen = _first(group)
        frames = traceback.extract_tb(unforeseen.__traceback__)
        place = f" in {frames[-1].name}, line {frames[-1].lineno}" if frames else ""
        _complain(
            f"This failed with an unexpected error ({type(unforeseen).__name__}{place}). This is a bug in "
            "gemini-batch-mcp; check-status and list-jobs show what was submitted."
        )
        code = 1
    # Not in there: before 3.11.4 Python wraps an exit that is raised while groups are handled, and shows everything.
    if code:
        sys.exit(code)


def _run_commands() -> None:
    try:
        commands(standalone_mode=False, prog_name="gemini-batch-mcp")
    except click.exceptions.Abort:
        _complain("Interrupted.")
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)


def _first(group: BaseExceptionGroup[E]) -> E:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


class _Commands(click.Group):
    """The commands that serve, and the others once it is known that one is wanted, or all are to be listed."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by its name."""
        self._load()
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        self._load()
        return super().list_commands(ctx)

    def _load(self) -> None:
        from gemini_batch_mcp.cli.answers import ANSWER_COMMANDS
        from gemini_batch_mcp.cli.doctor import doctor
        from gemini_batch_mcp.cli.install import install
        from gemini_batch_mcp.cli.orders import ORDER_COMMANDS
        from gemini_batch_mcp.cli.trying import try_candidates

        for command in (*SERVING_COMMANDS, *ORDER_COMMANDS, *ANSWER_COMMANDS, try_candidates, doctor, install):
            self.add_command(command)


@click.group(cls=_Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gemini-batch-mcp")
@click.option("--sandbox", is_flag=True, help="Use the embedded Gemini service: no key, no cost.")
@click.pass_context
def commands(context: click.Context, sandbox: bool) -> None:
    """Gemini Batch API for MCP assistants. Without a command: serve MCP on stdio."""
    context.obj = Session(os.environ, {"GEMINI_BATCH_SANDBOX": "1"} if sandbox else {})
    if context.invoked_subcommand is None:
        serve_stdio(context.obj.settings())


def _complain(sentence: str) -> None:
    click.echo(sentence, err=True)
