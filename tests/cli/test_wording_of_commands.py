"""A person at a terminal is told commands and flags, where an assistant is told tools and arguments."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from gemini_batch_mcp.assistant.tools import TOOLS
from gemini_batch_mcp.cli.main import commands
from gemini_batch_mcp.cli.wording import _COMMANDS, _FLAGS, _OPTIONS, as_commands
from support.conversation import Run


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Call list_jobs to see the batches.", "Run list-jobs to see the batches."),
        ("get_results with view='failures' shows them.", "get-results --view failures shows them."),
        (
            "then call retry_failed again with include=['blocked','empty'].",
            "then run retry-failed again with --include blocked --include empty.",
        ),
        ("Call check_status with wait_seconds=30.", "Run check-status --wait."),
        ("make the same call again with confirm=true.", "run the same command again with --yes."),
        ("Call check_status with batch='moods-abc234' until", "Run check-status moods-abc234 until"),
        ('Give encoding="windows-1251" or encoding="cp866".', "Use --encoding windows-1251 or --encoding cp866."),
        ('Give prompt="Sum of {{text}}".', 'Use --prompt "Sum of {{text}}".'),
        ("order 20 rows with sample_rows=20 first", "order 20 rows with --sample-rows 20 first"),
        (
            "Give sample_rows alone for a pilot; a larger limit_rows takes more.",
            "Use --sample-rows alone for a pilot; a larger --limit-rows takes more.",
        ),
        ("The source is a table, which needs a `prompt`.", "The source is a table, which needs --prompt."),
        ("`response_schema.properties.word` is new.", "`properties.word` in --schema is new."),
        ("Leave cursor out to start at the first row.", "Leave --cursor out to start at the first row."),
        ("Leave reuse out, or leave out where.", "Leave --reuse out, or leave out --where."),
        ("Leave the model out of it.", "Leave the model out of it."),
        (
            "Neither source nor requests was given; an order takes exactly one of them. "
            "Give a path, or a list of requests.",
            "There is no SOURCE. Give one: a file, a directory, a glob, or an earlier batch.",
        ),
        ("Write `contents`, with the role `model`.", "Write `contents`, with the role `model`."),
        ('The table has no column "key_column" and no {{limit_rows}}.',) * 2,
        ("The column call_status has no such value.", "The column call_status has no such value."),
    ],
)
def test_a_sentence_names_what_a_person_can_type(said: str, shown: str) -> None:
    assert as_commands(said) == shown


def test_every_tool_has_a_command_and_every_flag_is_one() -> None:
    assert _COMMANDS.keys() == {spec.function.__name__ for spec in TOOLS}
    helps = [CliRunner().invoke(commands, [command, "--help"]).output for command in _COMMANDS.values()]
    assert all(text.startswith("Usage") for text in helps)
    every = "\n".join(helps)
    for flag in (*_FLAGS.values(), *_OPTIONS.values()):
        assert flag in every, flag


def test_no_command_advises_a_tool(run: Run, data: Path) -> None:
    """A conversation in which advice, a warning, a problem and errors are said, none in words of tools."""
    (data / "rows.csv").write_text("id,text\n1,a\n2,b\n", encoding="utf-8")
    order = ("rows.csv", "--prompt", "Mood of {{text}}?", "--key-column", "id")
    said = [
        run("create-batch", *order, "-n", "moods"),
        run("check-status", "moods"),
        run("check-status", "moods", "--wait"),
        run("get-results", "moods"),
        run("create-batch", *order),
        run("retry-failed", "moods"),
        run("check-status", "nobody"),
        run("preview", "rows.csv"),
        run("compare", "moods", "nothing"),
        run("get-results", "moods", "--cursor", "x", "--view", "rows"),
    ]
    for done in said:
        for tool in _COMMANDS:
            assert tool not in done.stdout + done.stderr
