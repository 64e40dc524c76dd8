"""What people read: links lead somewhere, settings and paths that are named exist, examples are what is read."""

import json
import re
import shutil
import subprocess
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

import click
import pytest
from hatchling.builders.wheel import WheelBuilder

from gemini_batch_mcp.assistant.definitions import made_definitions
from gemini_batch_mcp.cli.main import commands
from gemini_batch_mcp.cli.session import Session
from gemini_batch_mcp.settings import SETTINGS
from published.documents import README, ROOT, SKILL, blocks, our_commands, quoted, shell_lines, text_of

DOCUMENTS = (
    README,
    *(ROOT / name for name in ("PRIVACY.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *(ROOT / "docs" / name for name in ("guide.md", "cookbook.md", "google-cloud.md")),
    ROOT / "manifests" / "plugin" / "README.md",
    SKILL,
)
#: What a document says for any value.
STANDS_FOR = {"HOST": "claude-code", "N": "8099"}
#: All commands by their names.
CONTEXT = click.Context(commands, **commands.context_settings)
COMMANDS = {name: commands.get_command(CONTEXT, name) for name in commands.list_commands(CONTEXT)}


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
    """Those of README, skill and cookbook are run, besides; here each is read as the command line reads it."""
    for block in blocks(text_of(document)):
        if block.form == "json":
            for part in [block.text] if block.text.startswith("{\n") else block.text.splitlines():
                assert isinstance(json.loads(part), dict)
        elif block.form == "toml":
            assert tomllib.loads(block.text)
        else:
            assert block.form in {"", "sh", "crontab", "ini"}, f"{block.form} is read by nobody"
    for part in quoted(text_of(document)):
        if re.match(r'\[?\{"|"\w+": ', part):
            assert json.loads(part if part[0] in "[{" else f"{{{part}}}")
    monkeypatch.chdir(tmp_path)
    for name in ("mood.json", "bill.json"):
        Path(name).write_text("{}", encoding="utf-8")
    for words in our_commands(text_of(document)):
        name, *given = [word for word in words if word != "--sandbox"] or ["doctor"]
        command = COMMANDS.get(name)
        assert command is not None, words
        # One that stands in a sentence by its name alone may need more.
        if given:
            given = [STANDS_FOR.get(word, word) for word in given]
            with command.make_context(name, given, parent=CONTEXT, obj=Session({}, {})) as context:
                assert context.command is command, words


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_other_commands_and_calls_of_tools_name_is_there(document: Path) -> None:
    """Targets of make, extras, folders and settings; and arguments of tools, with their values."""
    text = text_of(document)
    parts = quoted(text)
    lines = shell_lines(text) + parts
    targets = set(re.findall(r"^([a-z][\w-]*)(?= .*:|:)", text_of(ROOT / "Makefile"), re.MULTILINE))
    assert {name for line in lines for name in re.findall(r"^make ([a-z-]+)", line)} <= targets
    extras = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]["optional-dependencies"]
    assert {name for line in lines for name in re.findall(r"gemini-batch-mcp\[(\w+)\]", line)} <= extras.keys()
    for path in (path for line in lines for path in re.findall(r" (\./\S+)", line)):
        assert (ROOT / path).is_dir(), path
    exported = {name for line in lines for name in re.findall(r"^export (\w+)=", line)}
    assert exported <= {setting.name for setting in SETTINGS}
    known = arguments()
    for name, value in (pair for part in parts for pair in re.findall(r'(?:^|, )([a-z_]+)=("[^"]*"|\d+|true)', part)):
        assert name in known, name
        assert not known[name] or json.loads(value) in known[name], f"{name}={value}"


def arguments() -> dict[str, list[Any]]:
    """Every argument that some tool takes, with the values that it may have; none where any will do."""
    found: dict[str, list[Any]] = defaultdict(list)
    for tool in made_definitions():
        for name, schema in tool.input_schema["properties"].items():
            found[name] += schema.get("enum", [])
    return dict(found)


def test_what_the_package_index_shows_leads_somewhere_from_there() -> None:
    shown = WheelBuilder(str(ROOT)).metadata.core.readme
    assert "](docs/" not in shown
    assert "/raw/main/docs/dashboard.png)" in shown
    assert "/blob/main/docs/guide.md#limits)" in shown
    assert (shown.count("](http"), "mcp-name: io.github." in shown) > (5, False)


def test_make_tries_again_after_a_python_without_venv_and_names_one_that_is_too_old(tmp_path: Path) -> None:
    """Debian's python3 leaves half an environment behind where python3-venv is missing."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    python = tmp_path / "python3"
    python.write_text(
        '#!/bin/sh\ncase "$*" in *venv*) mkdir -p .venv/bin; echo "install python3-venv"; exit 1;; esac\n'
    )
    python.chmod(0o755)

    def made() -> str:
        command = ["make", "-s", "demo", f"PYTHON={python}"]
        done = subprocess.run(command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert done.returncode == 2
        return done.stdout

    assert "install python3-venv" in made()
    assert "install python3-venv" in made()
    python.write_text("#!/bin/sh\nexit 1\n")
    assert "is older than Python 3.11. Name a newer one: make PYTHON=python3.13 demo" in made()
