"""Patterns that somebody else has written, judged in linear time by RE2. What RE2 cannot say is not judged.

The `re` of Python tries every way to match, which may take hours for thirty characters; RE2 takes at most as many
steps as pattern and text are long, multiplied. It knows no lookaround and no reference back, repeats at most a
thousand times, and is compiled within 8 MB.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from gemini_batch_mcp.domain import JsonObject

#: Steps for one text, pattern times length (measured: 1.2 ns each where it takes longest).
MAX_STEPS: Final = 10**9
#: All patterns of one schema, in instructions of RE2 (measured: a million take 0.5 s to compile).
MAX_INSTRUCTIONS: Final = 2_000_000
#: Patterns that a warning names.
_MAX_NAMED: Final = 3
_PART: Final = re.compile(r"\\u[0-9a-fA-F]{4}|\\.|\[:\^?[a-z]{1,9}:\]|.", re.DOTALL)
#: As Python reads them, and most who write patterns mean them: letters and digits of any language.
_UNICODE: Final = {"w": r"\p{L}\p{M}\p{N}_", "d": r"\p{Nd}"}
#: What stands there is data, and no schema.
_DATA: Final = frozenset({"enum", "const", "default", "example", "examples"})


class TooLong(Exception):
    """The text is too long to be judged by the pattern in bounded time."""


class Pattern:
    """One pattern that can be judged. `instructions` is its size as RE2 runs it."""

    def __init__(self, program: Any) -> None:
        self._program = program
        self.instructions: int = program.programsize
        self._most_bytes = MAX_STEPS // max(1, self.instructions)

    def fits(self, text: str) -> bool:
        """True when the pattern occurs in `text`; half a surrogate pair counts as a question mark.

        Raises:
            TooLong: finding out might take seconds.
        """
        data = text.encode("utf-8", "replace")
        if len(data) > self._most_bytes:
            raise TooLong
        return self._program.search(data.decode("utf-8")) is not None


def patterns_of(schema: JsonObject) -> dict[str, Pattern | None]:
    """Return every pattern of a schema, None for those that RE2 cannot say, or that are too large."""
    found: dict[str, Pattern | None] = {}
    left = MAX_INSTRUCTIONS
    for _, text in _texts(schema):
        if text not in found:
            pattern = _compiled(text) if left > 0 else None
            left -= pattern.instructions if pattern is not None else 0
            found[text] = pattern
    return found


def pattern_warnings(schema: JsonObject) -> tuple[str, ...]:
    """Say which patterns of a `response_schema` answers are not held against."""
    judged = patterns_of(schema)
    paths = [path for path, text in _texts(schema) if judged[text] is None]
    if not paths:
        return ()
    named = ", ".join(f"`{path}`" for path in paths[:_MAX_NAMED])
    more = f" and {len(paths) - _MAX_NAMED:,} more" if len(paths) > _MAX_NAMED else ""
    verb = "is" if len(paths) == 1 else "are"
    return (
        f"{named}{more} {verb} not checked in the answers: lookaround, backreferences, and patterns that are too large "
        "cannot be checked in bounded time.",
    )


def _texts(schema: JsonObject) -> Iterator[tuple[str, str]]:
    """Yield every pattern with its path, in order."""
    waiting: list[tuple[str, Any]] = [("response_schema", schema)]
    while waiting:
        path, node = waiting.pop()
        if isinstance(node, list):
            waiting += [(f"{path}[{place}]", entry) for place, entry in reversed(list(enumerate(node)))]
        elif isinstance(node, Mapping):
            if isinstance(text := node.get("pattern"), str):
                yield f"{path}.pattern", text
            waiting += [(f"{path}.{name}", entry) for name, entry in reversed(list(node.items())) if name not in _DATA]


def _compiled(pattern: str) -> Pattern | None:
    # Imported on first use: most orders have no pattern.
    import re2

    options = re2.Options()
    options.log_errors = False
    # Where each group has matched is asked by nobody, and takes as long again for each of them.
    options.never_capture = True
    try:
        return Pattern(re2.compile("".join(_spelled(pattern)), options))
    except (re2.error, UnicodeEncodeError):
        return None


def _spelled(pattern: str) -> Iterator[str]:
    r"""Yield the parts of a pattern as RE2 spells them: `\u00fc` as `\x{00fc}`, `\Z` as `\z`, `\w` as what it means."""
    group = ""
    for part in _PART.findall(pattern):
        name = part[1:2]
        # A bracket that comes first in a group stands for itself.
        if group:
            group = "" if part == "]" and group not in ("[", "[^") else (group + part)[:3]
        elif part == "[":
            group = part
        if part[0] != "\\":
            yield part
        elif len(part) == 6:
            yield f"\\x{{{part[2:]}}}"
        elif name == "Z":
            yield r"\z"
        elif name in _UNICODE:
            yield _UNICODE[name] if group else f"[{_UNICODE[name]}]"
        elif name.lower() in _UNICODE and not group:
            yield f"[^{_UNICODE[name.lower()]}]"
        else:
            yield part
