"""What every command says, kept whole: its help and its usual errors, one file a command, compared word by word.

`make snapshots` writes the files again after a text was changed on purpose; read the difference before it is committed.
"""

import shlex
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner

from gemini_batch_mcp.cli.main import commands
from support.conversation import Run
from support.texts.snapshots import compare, masked

_SNAPSHOTS: Final = Path(__file__).parent
#: The command line as a whole.
_ALL: Final = "gemini-batch-mcp"
_TOKEN: Final = "GEMINI_BATCH_HTTP_TOKEN"
_PROMPT: Final = "--prompt 'Classify: {{review}}' --key-column id"
_ORDERED: Final = f"create-batch reviews.csv {_PROMPT}"

#: Command lines that are refused before anything is opened, for each command.
_MISTYPED: Final[dict[str, tuple[str, ...]]] = {
    _ALL: ("previw", "list-jobs --stat ended"),
    "preview": (f"preview reviews.csv {_PROMPT} --schema nowhere.json", "preview reviews.csv --task guess"),
    "create-batch": (f"{_ORDERED} --limit-rows many",),
    "check-status": ("check-status",),
    "get-results": ("get-results moods --view row", "get-results moods --limit 1000"),
    "query": ("query moods",),
    "compare": ("compare moods",),
    "report": ("report",),
    "try": ("try reviews.csv --expected mood", f"try reviews.csv {_PROMPT} --expected mood --rows 500"),
    "list-jobs": ("list-jobs --limit 0",),
    "spend": ("spend --by week",),
    "retry-failed": ("retry-failed moods --include ok",),
    "collect": ("collect moods",),
    "cancel": ("cancel",),
    "delete": ("delete",),
    "doctor": ("doctor --jsn",),
    "install": ("install emacs",),
    "serve": ("serve --transport http --host 0.0.0.0", "serve --transport web"),
    "sandbox": ("sandbox",),
    "demo": ("demo --rows 1",),
}
#: Command lines that are run one after the other in one state directory. One that begins with `-` runs without the
#: sandbox, so without a key; one with `NAME=value` in front has that setting.
_RUN: Final[dict[str, tuple[str, ...]]] = {
    _ALL: ("- list-jobs", "GEMINI_BATCH_POLL_SECONDS=soon - list-jobs"),
    "preview": ("preview reviews.csv --prompt 'Classify: {{reviw}}'", "preview"),
    "create-batch": (f"GEMINI_BATCH_CONFIRM_ABOVE_USD=0 {_ORDERED}",),
    "check-status": ("check-status nobody",),
    "list-jobs": ("list-jobs --state runing",),
    "collect": ("collect",),
    "spend": ("spend", "spend --json"),
    "delete": ("delete nobody --yes",),
}


def _answer(line: str) -> str:
    """Return what is said without a process: help, and what is wrong with a command line."""
    shown = CliRunner().invoke(commands, shlex.split(line), prog_name=_ALL, env={"COLUMNS": "80", _TOKEN: None})
    return shown.output


@pytest.mark.parametrize("command", _MISTYPED)
def test_a_command_says_what_its_snapshot_holds(command: str, run: Run, data: Path) -> None:
    (data / "reviews.csv").write_text("id,review\nr1,Boils fast\nr2,As expected\n", encoding="utf-8")
    said = [_answer("--help" if command == _ALL else f"{command} --help")]
    said += [f"$ {line}\n{_answer(line)}" for line in _MISTYPED[command]]
    for line in _RUN.get(command, ()):
        words, env = shlex.split(line), {"COLUMNS": "120"}
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            env[name] = value
        is_bare = words[0] == "-"
        done = run(*words[is_bare:], env=env, sandbox=not is_bare)
        said.append(f"$ {line} (exit code {done.returncode})\n{done.stdout}{done.stderr}")
    compare(_SNAPSHOTS / f"{command}.txt", masked("\n".join(said), data))


def test_every_command_has_a_snapshot_and_every_snapshot_a_command() -> None:
    assert {path.stem for path in _SNAPSHOTS.glob("*.txt")} == set(_MISTYPED) == {_ALL, *commands.commands}
