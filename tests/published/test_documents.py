"""What people read: links lead somewhere, settings and paths that are named exist, examples are what is read."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest
from hatchling.builders.wheel import WheelBuilder

from gemini_batch_mcp.cli.main import commands
from gemini_batch_mcp.cli.session import Session
from gemini_batch_mcp.settings import SETTINGS

ROOT = Path(__file__).parents[2]
SKILL = ROOT / "manifests" / "plugin" / "skills" / "gemini-batch" / "SKILL.md"
DOCUMENTS = (
    *(ROOT / name for name in ("README.md", "PRIVACY.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *(ROOT / "docs" / name for name in ("guide.md", "cookbook.md", "google-cloud.md")),
    ROOT / "manifests" / "plugin" / "README.md",
    SKILL,
)
#: What a document says for any value.
STANDS_FOR = {"HOST": "claude-code", "N": "8099"}
#: All commands by their names.
CONTEXT = click.Context(commands, **commands.context_settings)
COMMANDS = {name: commands.get_command(CONTEXT, name) for name in commands.list_commands(CONTEXT)}


def text_of(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def commands_in(document: Path) -> list[str]:
    """Our command lines, of blocks and of sentences; what stands for any command is none."""
    text = text_of(document)
    blocks = re.findall(r"^```(?:sh)?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += [" ".join(found.split()) for found in re.findall(r"`(gemini-batch-mcp [^`]+)`", text)]
    return [line for line in lines if line.startswith("gemini-batch-mcp") and not re.search(r"…| \[-", line)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere_and_settings_exist(document: Path) -> None:
    text = text_of(document)
    for name, place in re.findall(r"\[([^\]]+)\]\((?![a-z]+:)([^)\s]+)\)", text):
        file, _, anchor = place.partition("#")
        target = document.parent / file if file else document
        assert target.is_file(), name
        headings = {
            re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
            for heading in re.findall(r"^#+ (.*)$", text_of(target) if anchor else "", re.MULTILINE)
        }
        assert not anchor or anchor in headings, place
    named = set(re.findall(r"\b(?:GEMINI_BATCH|GOOGLE_GEMINI|GOOGLE_CLOUD)_[A-Z_]+\b|\bG\w+_API_KEY\b", text))
    assert named <= {setting.name for setting in SETTINGS}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_block_is_what_it_says_and_every_command_is_understood(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cookbook's are run, besides; here each is read as the command line reads it."""
    for form, block in re.findall(r"^```(\w+)\n(.*?)^```$", text_of(document), re.MULTILINE | re.DOTALL):
        if form == "json":
            for part in [block] if block.startswith("{\n") else block.splitlines():
                assert isinstance(json.loads(part), dict)
        elif form == "toml":
            assert tomllib.loads(block)
        else:
            assert form in {"sh", "crontab", "ini"}, f"{form} is read by nobody"
    monkeypatch.chdir(tmp_path)
    for name in ("mood.json", "bill.json"):
        Path(name).write_text("{}", encoding="utf-8")
    for line in commands_in(document):
        name, *given = [word for word in shlex.split(re.sub(r"\s+#.*$", "", line))[1:] if word != "--sandbox"] or [
            "doctor"
        ]
        command = COMMANDS.get(name)
        assert command is not None, line
        # One that stands in a sentence by its name alone may need more.
        if given:
            words = [STANDS_FOR.get(word, word) for word in given]
            with command.make_context(name, words, parent=CONTEXT, obj=Session({}, {})) as context:
                assert context.command is command, line


def test_what_the_package_index_shows_leads_somewhere_from_there() -> None:
    shown = WheelBuilder(str(ROOT)).metadata.core.readme
    assert "](docs/" not in shown
    assert "/raw/main/docs/dashboard.png)" in shown
    assert "/blob/main/docs/guide.md#limits)" in shown
    assert (shown.count("](http"), "mcp-name: io.github." in shown) > (5, False)
