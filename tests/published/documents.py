"""What people read, as what it holds: blocks by their language, and our command lines in their order."""

import re
import shlex
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
README: Final = ROOT / "README.md"
SKILL: Final = ROOT / "manifests" / "plugin" / "skills" / "gemini-batch" / "SKILL.md"
PROGRAM: Final = "gemini-batch-mcp"
_FENCED: Final = re.compile(r"^ *```(?P<form>\w*)\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL)
#: Where our command line begins in a line of each language; a block without one is a shell's.
_BEGINS: Final = {"": "", "sh": "", "crontab": r"(?:\S+ +){5}", "ini": "ExecStart="}


class Block(NamedTuple):
    """A fenced block: the language that it names, "" for none, and what stands in it."""

    form: str
    text: str


def text_of(document: Path) -> str:
    """Return what a document says."""
    return document.read_text(encoding="utf-8")


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a document."""
    return [Block(found["form"], found["text"]) for found in _FENCED.finditer(text)]


def quoted(text: str) -> list[str]:
    """Return what stands between backticks in the sentences of a document, each on one line."""
    return [" ".join(part.split()) for part in re.findall(r"`([^`]+)`", _FENCED.sub("", text))]


def shell_lines(text: str) -> list[str]:
    """Return every command line in the blocks of a document, ours and others, without its comment."""
    lines = [line for block in blocks(text) if block.form in ("", "sh") for line in block.text.splitlines()]
    return [shlex.join(words) for line in lines if (words := shlex.split(line, comments=True))]


def our_commands(text: str) -> list[list[str]]:
    """Return our command lines of blocks and of sentences as words, without the program.

    What stands for any command (`…`, `[--flag]`) is none.
    """
    found: list[str] = []
    place = 0
    for block in _FENCED.finditer(text):
        found += _in_sentences(text[place : block.start()])
        begins = _BEGINS.get(block["form"])
        if begins is not None:
            found += re.findall(rf"^{begins}({PROGRAM}\b.*)$", block["text"], re.MULTILINE)
        place = block.end()
    found += _in_sentences(text[place:])
    return [shlex.split(line, comments=True)[1:] for line in found]


def _in_sentences(text: str) -> list[str]:
    return [part for part in quoted(text) if re.match(rf"{PROGRAM}( |$)", part) and not re.search(r"…| \[-", part)]
