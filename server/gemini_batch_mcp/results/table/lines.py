"""Raw answer lines, exactly as Gemini sent them: where they start, and how a damaged one is mended.

Lines end at the byte `\\n` and nowhere else: U+2028, U+2029 and U+0085 are ordinary characters inside JSON strings.
A line of white space is no line; neither is a byte order mark alone at the start. DuckDB's JSON reader counts the
same way (tested over random bytes), so that a line number found there leads to the bytes here.
"""

import json
import re
from array import array
from collections.abc import Iterator
from math import isfinite
from os import SEEK_END
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

_BOM: Final = b"\xef\xbb\xbf"
_READ_AHEAD_BYTES: Final = 1 << 20

#: One escape of a JSON string at a time, so that an escaped backslash before "u" is never taken for an escape.
#: A surrogate pair matches as a whole; what is left in the group `lone` stands for no character.
_ESCAPE: Final = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.S
)
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
#: Control characters may not stand in JSON at all; white space may, between values.
_CONTROL: Final = re.compile(r"[\x00-\x1f]")


def answer_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the byte offset and the bytes of every line of `path` that is not blank, its line feed included."""
    with path.open("rb", buffering=_READ_AHEAD_BYTES) as file:
        yield from lines_of(file)


def lines_of(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield what `answer_lines` yields of a file that has just been opened."""
    offset = 0
    for line in file:
        if not (line.isspace() or (offset == 0 and _is_blank(line.removeprefix(_BOM)))):
            yield offset, line
        offset += len(line)


def line_offsets(path: Path) -> "array[int]":
    """Return where each line of `path` that is not blank starts, in bytes; 8 bytes of memory a line."""
    return array("Q", (offset for offset, _ in answer_lines(path)))


def mended(line: bytes) -> str:
    """Return `line` as text that differs from it only where no JSON reader can read it.

    Invalid UTF-8, lone surrogate escapes and bare control characters become U+FFFD, bare tabs a space; a byte order
    mark and the end of the line go. Text that was well-formed comes back as it is; nothing is made up.
    """
    text = line.removeprefix(_BOM).decode("utf-8", "replace")
    text = _CONTROL.sub(lambda match: " " if match[0] in "\t\n\r" else "\ufffd", text).strip(" ")
    return _ESCAPE.sub(lambda match: "\\ufffd" if match["lone"] else match[0], text)


def count_answers(path: Path) -> int:
    """Return how many lines of `path` are JSON objects that can be read, in whatever form."""
    return sum(_is_object(line) for _, line in answer_lines(path))


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(mended(line)), dict)
    except (ValueError, RecursionError):
        return False


def ends_whole(path: Path) -> bool:
    """Return whether the last line of `path` is whole: it has its line feed, or can be read without one."""
    with path.open("rb") as file:
        place = file.seek(0, SEEK_END)
        tail = b""
        while place and b"\n" not in tail:
            size_bytes = min(_READ_AHEAD_BYTES, place)
            place = file.seek(place - size_bytes)
            tail = file.read(size_bytes) + tail
    last = tail.rpartition(b"\n")[2]
    if not last.strip():
        return True
    try:
        json.loads(mended(last))
    except (ValueError, RecursionError):
        return False
    return True


class _Answer(msgspec.Struct):
    response: msgspec.Raw = msgspec.Raw(b"null")


_decode_answer: Final = msgspec.json.Decoder(_Answer).decode


def raw_response(line: bytes) -> msgspec.Raw:
    """Return the member `response` of an answer line as JSON that any reader accepts; null when there is none.

    The bytes are Gemini's own unless they hold what JSON or UTF-8 does not allow.
    """
    try:
        if _SURROGATE.search(line):
            return _decode_answer(mended(line)).response
        line.decode("utf-8")
        return _decode_answer(line).response
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return _mended_response(line)


def _mended_response(line: bytes) -> msgspec.Raw:
    try:
        value: Any = json.loads(mended(line), parse_constant=lambda _: None, parse_float=_finite)
        return msgspec.Raw(json.dumps(value.get("response")).encode() if isinstance(value, dict) else b"null")
    except (ValueError, RecursionError):
        return msgspec.Raw(b"null")


def _finite(number: str) -> float | None:
    """Return null where NaN or an infinity would stand, which are no JSON."""
    value = float(number)
    return value if isfinite(value) else None


def _is_blank(line: bytes) -> bool:
    return not line or line.isspace()
