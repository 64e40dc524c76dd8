"""What would change, as a diff without anybody's secrets: the lines around our entry are other servers' entries.

A host's file is full of keys that no variable of ours holds. So the values are taken from what the file says: whatever
stands in a server's environment or headers, or under the name of a secret. Names stay to be seen.
"""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from gemini_batch_mcp.redaction import MIN_CHARS, is_placeholder

_MASK: Final = "[secret]"
#: Members whose values are shown to nobody, whatever these are named.
_TABLES: Final = frozenset({"env", "environment", "headers", "http_headers", "httpheaders", "secrets"})
_SECRET: Final = re.compile(
    r"token|secret|passw|credential|authorization|cookie|bearer|private|api.?key|(?:^|[-_.])key$|[a-z]Key$",
    re.IGNORECASE,
)
#: Ours, and what is agreed to here: the directories that may be read.
_SEEN: Final = frozenset({"GEMINI_BATCH_ROOTS"})
#: An argument that says a secret after its name: `--token=…`, `Authorization: Bearer …`, `API_KEY=…`.
_SAID: Final = re.compile(r"-*([\w.-]+)(?:=|:\s*)(?:(?:Bearer|Basic)\s+)?(.+)", re.DOTALL)
#: A text of JSON or TOML on one line, and whether it is a name.
_LITERAL: Final = re.compile(r""""(?:[^"\\]|\\.)*"|'[^']*'""")
_IS_NAME: Final = re.compile(r"\s*[:=](?!=)")
#: Numbers of fewer digits are no secrets, and would take versions and ports away from other lines.
_LEAST_DIGITS: Final = 4


def difference(file: Path, before: bytes, after: bytes, said: Iterable[Any]) -> str:
    """Return a unified diff, "" for none, in which no secret stands of what the file `said` before and says after."""
    old, new = (content.decode("utf-8", "replace").splitlines() for content in (before, after))
    lines = list(difflib.unified_diff(old, new, str(file), str(file), lineterm="", n=2))
    values = {piece for one in said for value in _secrets(one) for piece in _pieces(value)}
    longest_first = sorted((value for value in values if len(value) >= MIN_CHARS), key=len, reverse=True)
    # The first two lines are the file's name.
    return "\n".join([*lines[:2], *(_cut(line, values, longest_first) for line in lines[2:])])


def _secrets(said: Any) -> Iterator[str]:
    """Yield the values in what a file says that are to be seen by nobody."""
    match said:
        case Mapping():
            for name, value in said.items():
                if name.lower() in _TABLES or _SECRET.search(name):
                    yield from _leaves(value)
                else:
                    yield from _secrets(value)
        case list():
            for earlier, value in zip([None, *said], said, strict=False):
                if isinstance(value, str):
                    yield from _argument(earlier if isinstance(earlier, str) else "", value)
                else:
                    yield from _secrets(value)


def _argument(earlier: str, value: str) -> Iterator[str]:
    if earlier.startswith("-") and "=" not in earlier and _SECRET.search(earlier):
        yield from _leaves(value)
    elif (found := _SAID.fullmatch(value)) and _SECRET.search(found[1]):
        yield from _leaves(found[2])


def _leaves(value: Any) -> Iterator[str]:
    match value:
        case Mapping():
            for name, inner in value.items():
                if name not in _SEEN:
                    yield from _leaves(inner)
        case list():
            for inner in value:
                yield from _leaves(inner)
        case str() if value and not is_placeholder(value):
            yield value
        case int() | float() if not isinstance(value, bool) and len(str(value)) >= _LEAST_DIGITS:
            yield str(value)


def _pieces(value: str) -> Iterator[str]:
    """Yield a value and, as TOML has texts of many lines and a diff has one, its lines."""
    yield value
    yield from (line for line in value.splitlines() if len(line.strip()) >= MIN_CHARS)


def _cut(line: str, values: set[str], longest_first: list[str]) -> str:
    """Return a line without the values: as whole texts however these are escaped, long ones anywhere."""

    def masked(found: re.Match[str]) -> str:
        is_name = _IS_NAME.match(line, found.end()) is not None
        return f"{found[0][0]}{_MASK}{found[0][0]}" if not is_name and _text(found[0]) in values else found[0]

    shown = _LITERAL.sub(masked, line)
    for value in longest_first:
        for form in {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}:
            shown = shown.replace(form, _MASK)
    for value in values:
        if value.replace(".", "", 1).lstrip("-").isdigit():
            shown = re.sub(rf"(?<![\w.]){re.escape(value)}(?![\w.])", _MASK, shown)
    return shown


def _text(literal: str) -> str:
    if literal[0] == "'":
        return literal[1:-1]
    try:
        return str(json.loads(literal, strict=False))
    except ValueError:
        # Escapes that only TOML has.
        return literal[1:-1]
