"""The exact check of one request: every problem with its JSON path, what is wrong, and what to write instead.

It follows proto-JSON: either spelling of a name, null for an absent member, whole numbers as text, enums as numbers.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from gemini_batch_mcp.intake.validator import corrections
from gemini_batch_mcp.intake.validator.corrections import kind, shown, shown_value
from gemini_batch_mcp.intake.validator.enums import ENUMS
from gemini_batch_mcp.intake.validator.json_text import BadNumber, RepeatingObject
from gemini_batch_mcp.intake.validator.wire_schema import (
    DURATION,
    FLOAT_LIMITS,
    INTEGER_RANGES,
    TIMESTAMP,
    Field,
    Message,
    enum_accepts_numbers,
    is_base64,
    message,
    whole_number,
)
from gemini_batch_mcp.intake.validator.world import CLOSED, Note, World, unknown_member, unknown_value

#: Levels of objects and lists in a line: protobuf's own default for JSON.
MAX_DEPTH: Final = 100
#: Problems of one line that are put into words; all are counted.
MAX_DESCRIBED: Final = 100

_DATA_URL: Final = re.compile(r"data:[^,]{0,100};base64,")


class Finding(NamedTuple):
    """One thing that is wrong, and what to write instead."""

    message: str
    fix: str


class Findings:
    """The problems of one line. Only the first `MAX_DESCRIBED` are described: a line may hold a million of them.

    `notes` are about what is passed on although nobody here knows it.
    """

    def __init__(self) -> None:
        self.described: list[Finding] = []
        self.count = 0
        self.notes: set[Note] = set()

    def note(self, note: Note) -> None:
        """Add what is said of the line although nothing is wrong with it."""
        if len(self.notes) < MAX_DESCRIBED:
            self.notes.add(note)

    def add(self, describe: Callable[[], tuple[str, str]]) -> None:
        """Count a problem; `describe` is called for its words only while they are wanted."""
        self.count += 1
        if len(self.described) < MAX_DESCRIBED:
            self.described.append(Finding(*describe()))


class RequestWalk:
    """Walks one request, described by `root`, and adds what is wrong in that `world` to `findings`."""

    def __init__(self, findings: Findings, root: Message, world: World = CLOSED) -> None:
        self.findings = findings
        self.root = root
        self.world = world

    def request(self, value: Any, path: str) -> None:
        """Check the request itself, which stands at `path` of the line."""
        self._object(value, self.root, path, 2)

    def _add(self, path: str, what: str, fix: Callable[[], str]) -> None:
        self.findings.add(lambda: (f"`{path}` {what}", fix()))

    def _object(self, value: Any, wanted: Message, path: str, depth: int) -> None:
        if not isinstance(value, dict):
            what = f"is {kind(value)}; it must be {_article(wanted)}."
            self._add(path, what, lambda: corrections.object_form(wanted, value))
            return
        if self._too_deep(path, depth):
            return
        self._repeated(value, path)
        present: set[str] = set()
        for name, member in value.items():
            field = wanted.spellings.get(name)
            if field is None:
                self._unknown(name, member, f"{path}.{shown(name, 40)}", wanted, depth + 1)
            elif member is not None:
                here = f"{path}.{name}"
                if field.name in present:
                    self._add(here, "is given twice, once in each spelling.", lambda: "Keep one of them.")
                present.add(field.name)
                self._member(member, field, here, depth + 1)
        for field in wanted.required:
            if field.name not in present:
                self._missing(field, path, wanted)
        if wanted.one_of:
            self._one_of([name for name in wanted.one_of if name in present], path, wanted)

    def _unknown(self, name: str, value: Any, path: str, owner: Message, depth: int) -> None:
        if self.world.is_open and corrections.is_new_member(name, owner, self.root):
            if name not in self.world.installed().members.get(owner.title, ()):
                self.findings.note(unknown_member(path, owner.title))
            self._free(value, path, depth)
            return
        self._add(
            path, f"is not a member of {owner.title}.", lambda: corrections.unknown_member(name, owner, self.root)
        )

    def _missing(self, field: Field, path: str, owner: Message) -> None:
        def fix() -> str:
            form = {
                "contents": corrections.CONTENTS,
                "content": corrections.INSTRUCTION,
                "parts": f"[{corrections.TEXT_PART}]",
            }
            return f"Add `{field.name}`" + (f": {form[field.name]}." if field.name in form else ".")

        self.findings.add(lambda: (f"`{path}` has no `{field.name}`, which {owner.title} must have.", fix()))

    def _one_of(self, present: Sequence[str], path: str, owner: Message) -> None:
        if not present:
            what = f"is empty; a {owner.title} must have one of {', '.join(owner.one_of)}."
            self._add(
                path, what, lambda: f"Write {corrections.TEXT_PART}." if owner.name == "Part" else "Add one of them."
            )
        elif len(present) > 1:
            what = f"has {' and '.join(present)}; a {owner.title} takes only one of these."
            self._add(path, what, lambda: "Put each in its own object.")

    def _member(self, value: Any, field: Field, path: str, depth: int) -> None:
        match field.shape:
            case "one":
                self._value(value, field, path, depth)
            case "list":
                self._list(value, field, path, depth)
            case "map":
                self._map(value, field, path, depth)

    def _list(self, value: Any, field: Field, path: str, depth: int) -> None:
        if not isinstance(value, list):
            self._add(path, f"is {kind(value)}; it must be a list.", lambda: corrections.list_form(field, value))
            return
        if self._too_deep(path, depth):
            return
        if field.low is not None and len(value) < field.low:
            form = {"contents": corrections.CONTENTS, "parts": f"[{corrections.TEXT_PART}]"}
            self._add(path, "is empty.", lambda: f"Write {form[field.name]}.")
        if field.high is not None and len(value) > field.high:
            self._add(path, f"has {len(value)} items.", lambda: f"Give at most {field.high}.")
        for index, item in enumerate(value):
            self._value(item, field, f"{path}[{index}]", depth + 1)

    def _map(self, value: Any, field: Field, path: str, depth: int) -> None:
        if not isinstance(value, dict):
            self._add(path, f"is {kind(value)}; it must be an object.", lambda: "Write an object of names and values.")
            return
        if self._too_deep(path, depth):
            return
        self._repeated(value, path)
        for name, item in value.items():
            self._value(item, field, f"{path}.{shown(name, 40)}", depth + 1)

    def _value(self, value: Any, field: Field, path: str, depth: int) -> None:
        if isinstance(value, BadNumber):
            self._bad_number(value, path)
        elif field.is_message:
            self._object(value, message(field.type), path, depth)
        elif field.is_enum:
            self._enum(value, field, path)
        else:
            self._scalar(value, field, path, depth)

    def _enum(self, value: Any, field: Field, path: str) -> None:
        if isinstance(value, str) and value in ENUMS[field.type]:
            return
        if enum_accepts_numbers(field.type) and isinstance(value, int) and not isinstance(value, bool):
            low, high = INTEGER_RANGES["int32"]
            if low <= value <= high:
                return
        if self.world.is_open and isinstance(value, str) and corrections.is_new_value(value, field):
            if value not in self.world.installed().values.get(field.type, ()):
                self.findings.note(unknown_value(path, value))
            return
        what = f"is {shown_value(value)}, which is not a value of {field.type}."
        self._add(path, what, lambda: corrections.enum_value(value, field))

    def _scalar(self, value: Any, field: Field, path: str, depth: int) -> None:
        match field.type:
            case "string":
                self._text(value, path)
            case "bool":
                if not isinstance(value, bool):
                    self._add(path, f"is {shown_value(value)}; it must be true or false.", lambda: _boolean_form(value))
            case "bytes":
                self._bytes(value, path)
            case "duration":
                if not (isinstance(value, str) and re.fullmatch(DURATION, value)):
                    self._add(path, f"is {shown_value(value)}, not a duration.", lambda: 'Write seconds: "3.5s".')
            case "timestamp":
                if not (isinstance(value, str) and re.fullmatch(TIMESTAMP, value)):
                    self._add(path, f"is {shown_value(value)}, not a time.", lambda: 'Write "2026-01-31T12:00:00Z".')
            case "struct":
                if isinstance(value, dict):
                    self._free(value, path, depth)
                else:
                    self._add(path, f"is {kind(value)}; it must be an object.", lambda: "Write an object.")
            case "value":
                self._free(value, path, depth)
            case "int32" | "int64":
                self._integer(value, field, path)
            case _:
                self._float(value, field, path)

    def _text(self, value: Any, path: str) -> None:
        if not isinstance(value, str):
            what = f"is {kind(value)}; it must be text."
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            self._add(path, what, lambda: f'Write "{shown_value(value)}".' if is_number else "Write it in quotes.")

    def _bytes(self, value: Any, path: str) -> None:
        if isinstance(value, str) and is_base64(value):
            return
        if isinstance(value, str) and (prefix := _DATA_URL.match(value)):
            what = f"starts with {shown(prefix[0])}; it must be plain base64."
            self._add(path, what, lambda: "Remove everything up to the comma; mimeType holds the rest.")
            return
        self._add(path, f"is {kind(value)} that isn't base64.", lambda: "Write the bytes as base64 text.")

    def _integer(self, value: Any, field: Field, path: str) -> None:
        number = whole_number(value)
        if number is None:
            what = f"is {shown_value(value)}; it must be a whole number."
            self._add(path, what, lambda: "Write a whole number, without quotes.")
            return
        low, high = INTEGER_RANGES[field.type]
        low = low if field.low is None else field.low
        high = high if field.high is None else field.high
        if not low <= number <= high:
            self._out_of_range(value, path, field, low, high)

    def _float(self, value: Any, field: Field, path: str) -> None:
        number = _number(value)
        if number is None:
            self._add(path, f"is {shown_value(value)}; it must be a number.", lambda: "Write a number, without quotes.")
            return
        limit = FLOAT_LIMITS[field.type]
        low = -limit if field.low is None else field.low
        high = limit if field.high is None else field.high
        if not low <= number <= high:
            self._out_of_range(value, path, field, low, high)

    def _out_of_range(self, value: Any, path: str, field: Field, low: float, high: float) -> None:
        if field.low is not None and field.high is None:
            fix = f"Write {low} or more."
        else:
            fix = f"Write a number from {low} to {high}."
        self._add(path, f"is {shown_value(value)}, out of range.", lambda: fix)

    def _free(self, value: Any, path: str, depth: int) -> None:
        """Check free JSON: numbers, repeated names, depth."""
        if isinstance(value, BadNumber):
            self._bad_number(value, path)
        elif isinstance(value, dict):
            if not self._too_deep(path, depth):
                self._repeated(value, path)
                for name, member in value.items():
                    self._free(member, f"{path}.{shown(name, 40)}", depth + 1)
        elif isinstance(value, list) and not self._too_deep(path, depth):
            for index, item in enumerate(value):
                self._free(item, f"{path}[{index}]", depth + 1)

    def _bad_number(self, value: BadNumber, path: str) -> None:
        self._add(path, f"is {shown(value.text, 20)}, not a finite number.", lambda: "Write a number or leave it out.")

    def _repeated(self, value: dict[str, Any], path: str) -> None:
        if isinstance(value, RepeatingObject):
            for name in value.repeated:
                self._add(f"{path}.{shown(name, 40)}", "is given more than once.", lambda: "Keep one of them.")

    def _too_deep(self, path: str, depth: int) -> bool:
        if depth <= MAX_DEPTH:
            return False
        fix = f"Keep the line below {MAX_DEPTH} levels of objects and lists."
        self.findings.add(lambda: (f"`{shown(path, 80)}` is nested too deeply.", fix))
        return True


def _number(value: Any) -> float | None:
    """Read a number as proto-JSON does: 0.5 and "0.5", but never NaN or Infinity."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]{1,400}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,4})?", value):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _boolean_form(value: Any) -> str:
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return f"Write {value.lower()} without quotes."
    return "Write true or false."


def _article(wanted: Message) -> str:
    if not wanted.fields:
        return wanted.title
    return f"{'an' if wanted.title[0] in 'AEIO' else 'a'} {wanted.title} object"
