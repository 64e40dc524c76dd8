"""One line of bytes as JSON, strictly: what is no JSON is named with its place, what JSON readers gloss over is kept.

Readers differ on repeated member names, numbers beyond a double, NaN and half surrogates; none may pass unseen.
msgspec and orjson let repeated names pass, and name a byte where a user needs the slip; they are six times as fast, so
msgspec reads first (`decoders.py`), and only what it does not take comes here.
"""

import json
import math
import re
from collections import Counter
from typing import Any, Final

#: Whole numbers of more digits become floats: they fit no member, and Python refuses very long ones.
_LONGEST_INTEGER: Final = 20


#: Strings, so as to pass over them, and what opens and closes.
_STRUCTURE: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]')
#: Of a longer text the right one is not looked for; how much is shown around what is wrong, and at most.
_MAX_RIGHTED: Final = 100_000
_AROUND: Final = 12
_MAX_PART: Final = 60
_CLOSING: Final = {"{": "}", "[": "]"}


class JsonFault(Exception):
    """The line is no JSON: `message` completes the sentence "The line …"."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix


class BadNumber:
    """A number that no double can hold, or a word like NaN; `text` as it was written."""

    def __init__(self, text: str) -> None:
        self.text = text


class RepeatingObject(dict[str, Any]):
    """A JSON object in which a name came more than once; `repeated` lists those names."""

    repeated: tuple[str, ...] = ()


def parse(line: bytes) -> Any:
    """Return the JSON value of a line.

    Raises:
        JsonFault: it is no JSON, no UTF-8, or nested so deeply that it cannot be read.
    """
    text = _decode(line)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise _fault(text, error) from None
    except RecursionError:
        raise JsonFault("is nested too deeply.", "Keep it below 100 levels of objects and lists.") from None
    if "\\ud" in text or "\\uD" in text:
        _refuse_half_surrogates(value)
    return value


def _decode(line: bytes) -> str:
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise JsonFault("is UTF-16.", "Save the file as UTF-8.")
    if (at := line.find(b"\0")) >= 0:
        raise JsonFault(f"contains a NUL byte at byte {at + 1}.", "Save the file as plain UTF-8 text.")
    if line.startswith(b"\xef\xbb\xbf"):
        raise JsonFault("starts with a byte-order mark.", "Remove its first three bytes.")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = line[error.start]
        raise JsonFault(f"is not UTF-8: byte {error.start + 1} is 0x{byte:02x}.", "Save the file as UTF-8.") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    repeating = RepeatingObject(members)
    counts = Counter(name for name, _ in pairs)
    repeating.repeated = tuple(name for name, count in counts.items() if count > 1)
    return repeating


def _integer(text: str) -> int | float | BadNumber:
    return int(text) if len(text) <= _LONGEST_INTEGER else _float(text)


def _float(text: str) -> float | BadNumber:
    number = float(text)
    return number if math.isfinite(number) else BadNumber(text)


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=BadNumber
)


def _fault(text: str, error: json.JSONDecodeError) -> JsonFault:
    """Say what is wrong in words: JSON errors of parsers tell where they noticed, not what happened."""
    position = error.pos
    if error.msg.startswith("Illegal trailing comma"):
        # From 3.13 on Python gives up at the comma; before, at what stands behind it.
        position = len(text) - len(text[position + 1 :].lstrip(" \t\r\n"))
    rest = text[position:].lstrip(" \t\r")
    place = f"at character {position + 1}"
    if not error.msg.startswith(("Unterminated string", "Invalid")) and (lost := _lost(text, position)):
        return lost
    if error.msg.startswith("Unterminated string") or not rest:
        return JsonFault("ends before its JSON is complete.", "Complete the object, on one line, or remove the line.")
    if error.msg.startswith("Extra data"):
        if rest == ",":
            return JsonFault("ends with a comma.", "Remove the comma; only line ends separate lines.")
        return JsonFault(f"contains more than one JSON value; the second starts {place}.", "Write one object per line.")
    if error.msg.startswith("Invalid control character"):
        return JsonFault(f"contains a raw control character {place}.", "Escape it inside the text, as \\n or \\t.")
    if rest.startswith("'"):
        fault = JsonFault(f"has single quotes {place}.", 'JSON uses double quotes: "…".')
        return fault if '"' in text else _shown_right(fault, text, text.replace("'", '"'))
    if word := re.match(r"(None|True|False)\b", rest):
        right = {"None": "null", "True": "true", "False": "false"}[word[1]]
        end = len(text) - len(rest) + len(word[1])
        fault = JsonFault(f"has {word[1]} {place}.", f"JSON writes {right}.")
        return _shown_right(fault, text, text[: end - len(word[1])] + right + text[end:])
    if rest.startswith(("}", "]")):
        fault = JsonFault(f"has an extra comma before character {position + 1}.", "Remove the comma.")
        return _shown_right(fault, text, text[:position].rstrip().removesuffix(",") + text[position:])
    fault = JsonFault(f"is not JSON: unexpected text {place}.", "Write one JSON object on the line.")
    # Between two members or items, what is missing is a comma.
    return _shown_right(fault, text, text[:position].rstrip() + "," + rest)


def _shown_right(fault: JsonFault, text: str, right: str) -> JsonFault:
    """Return a fault whose fix shows the wrong part of a text and the right one, where the right text can be read."""
    if len(text) > _MAX_RIGHTED:
        return fault
    try:
        _DECODER.decode(right)
    except (ValueError, RecursionError):
        return fault
    start = _same_chars(text, right)
    end = _same_chars(text[start:][::-1], right[start:][::-1])
    before = max(start - _AROUND, 0)
    parts = (one[before : min(len(one) - end + _AROUND, before + _MAX_PART)] for one in (text, right))
    wrong_part, right_part = ("".join(char if char.isprintable() else " " for char in part) for part in parts)
    return JsonFault(fault.message, f"{fault.fix} Write `{right_part}` in place of `{wrong_part}`.")


def _same_chars(one: str, other: str) -> int:
    """Return how many characters two texts begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (char, another) in pairs if char != another), min(len(one), len(other)))


def _lost(text: str, position: int) -> JsonFault | None:
    """Say which brace or bracket is missing, or is one too many; None where it is something else.

    `position` is where a parser gave up.
    """
    opened: list[int] = []
    for found in _STRUCTURE.finditer(text, 0, position):
        if found[0] in "{[":
            opened.append(found.start())
        elif found[0] in "}]" and opened:
            opened.pop()
    rest = text[position:].lstrip(" \t\r")
    if not rest:
        if not opened or text.rstrip().endswith((",", ":", "{", "[")):
            # More than a brace is missing.
            return None
        ends = "".join(_CLOSING[text[at]] for at in reversed(opened))
        what = f"has lost a {ends}" if len(ends) == 1 else "ends before its JSON is complete"
        fault = JsonFault(
            f"{what}: the {text[opened[-1]]} at character {opened[-1] + 1} is never closed.",
            f"Add {ends} at the end, or where it got lost.",
        )
        return _shown_right(fault, text, text.rstrip() + ends)
    if rest[0] in "}]" and not opened:
        fault = JsonFault(
            f"has a {rest[0]} too many, at character {position + 1}.", "Remove it, or add what it closes."
        )
        return _shown_right(fault, text, text[:position] + rest[1:])
    if rest[0] in "}]" and not text[:position].rstrip().endswith((",", ":")) and rest[0] != _CLOSING[text[opened[-1]]]:
        at = opened[-1]
        fault = JsonFault(
            f"has lost a {_CLOSING[text[at]]}: the {text[at]} at character {at + 1} is still open where a {rest[0]} "
            f"stands, at character {position + 1}.",
            f"Add the {_CLOSING[text[at]]} before it.",
        )
        return _shown_right(fault, text, text[:position].rstrip() + _CLOSING[text[at]] + rest)
    if not opened and rest[0] == ":" and text.lstrip().startswith('"'):
        return JsonFault("has lost its first {.", "Add { at its beginning.")
    if not opened and rest[0] == "," and rest[1:].lstrip().startswith('"') and text.lstrip().startswith("{"):
        return JsonFault(f"closes its object too early, before character {position + 1}.", "Remove the } before it.")
    return None


def _refuse_half_surrogates(value: Any) -> None:
    try:
        json.dumps(_plain(value), ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        half = ord(error.object[error.start])
        raise JsonFault(
            f"contains half of a surrogate pair, \\u{half:04x}.",
            "Write the character itself, or both halves of the pair.",
        ) from None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, BadNumber) else value
