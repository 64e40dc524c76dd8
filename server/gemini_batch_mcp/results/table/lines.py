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

from gemini_batch_mcp.settings import MAX_ANSWER_LINE_BYTES, MAX_ANSWER_VALUES, MAX_UNSEEN_LINE_BYTES

#: The status inside the error of a line that stands for a row whose reply was lost on its way here.
REPLY_LOST: Final = "REPLY_LOST"
#: A byte order mark.
BOM: Final = b"\xef\xbb\xbf"
_READ_AHEAD_BYTES: Final = 1 << 20

#: An escape that stands for a surrogate, behind the escaped backslashes that stand before it; a pair matches as whole,
#: as the group `pair`. Ordinary escapes are passed over, a run of backslashes once.
_HALVES: Final = re.compile(
    r"(?<!\\)(?P<before>(?:\\\\)*+)\\(?:(?P<pair>u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    r"|u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
#: The key of a line that begins with it. Nothing that it has taken is given back.
_FIRST_KEY: Final = re.compile(rb'\s*+\{\s*+"key"\s*+:\s*+("(?:[^"\\]|\\.)*+")', re.S)
#: No key is longer (`intake/requests/keys.py`).
_MAX_KEY_BYTES: Final = 1 << 16
#: A longer line is not looked at for its form.
_MAX_SHAPED_BYTES: Final = 4 << 20
_MAX_FAULT_CHARS: Final = 200
#: Control characters may not stand in JSON at all; white space may, between values.
_CONTROL: Final = re.compile(r"[\x00-\x1f]")


class _Object(msgspec.Struct, gc=False):
    """An object, whatever is in it."""


class _Key(msgspec.Struct):
    key: Any = None


_decode_key: Final = msgspec.json.Decoder(_Key).decode


def answer_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the byte offset and the bytes of every line of `path` that is not blank, its line feed included."""
    with path.open("rb", buffering=_READ_AHEAD_BYTES) as file:
        yield from lines_of(file)


def lines_of(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield what `answer_lines` yields of a file that has just been opened.

    Of a line that is too long, its beginning comes, which is too long as well.
    """
    offset = 0
    while line := file.readline(MAX_ANSWER_LINE_BYTES + 1):
        size_bytes = len(line)
        if is_too_long(line):
            rest = line
            while not rest.endswith(b"\n") and (rest := file.readline(_READ_AHEAD_BYTES)):
                size_bytes += len(rest)
        if not (line.isspace() or (offset == 0 and _is_blank(line.removeprefix(BOM)))):
            yield offset, line
        offset += size_bytes


def long_lines_of(file: BinaryIO, over_bytes: int) -> Iterator[bytes]:
    """Yield the lines of a file that has just been opened which have more than `over_bytes`, at least a MiB.

    As `lines_of` does, but without a look at each of the others: a hundred times as fast where there are many.
    """
    assert over_bytes >= _READ_AHEAD_BYTES
    spans: list[tuple[int, int]] = []
    start = place = 0
    while block := file.read(_READ_AHEAD_BYTES):
        # Lines within a block are shorter than it.
        if (first := block.find(b"\n")) >= 0:
            if (end := place + first + 1) - start > over_bytes:
                spans.append((start, end))
            start = place + block.rfind(b"\n") + 1
        place += len(block)
    if place - start > over_bytes:
        spans.append((start, place))
    for start, end in spans:
        file.seek(start)
        line = file.read(min(end - start, MAX_ANSWER_LINE_BYTES + 1))
        if not line.isspace():
            yield line


def is_too_long(line: bytes) -> bool:
    """True for a line, or the beginning of one, that is longer than lines may be."""
    return len(line) > MAX_ANSWER_LINE_BYTES


def line_offsets(path: Path) -> "array[int]":
    """Return where each line of `path` that is not blank starts, in bytes; 8 bytes of memory a line."""
    return array("Q", (offset for offset, _ in answer_lines(path)))


def mended(line: bytes) -> str:
    """Return `line` as text that differs from it only where no JSON reader can read it.

    Invalid UTF-8, lone surrogate escapes and bare control characters become U+FFFD, bare tabs a space; a byte order
    mark and the end of the line go. Text that was well-formed comes back as it is; nothing is made up.
    """
    text = line.removeprefix(BOM).decode("utf-8", "replace")
    text = _CONTROL.sub(lambda match: " " if match[0] in "\t\n\r" else "\ufffd", text).strip(" ")
    return _HALVES.sub(lambda match: match[0] if match["pair"] else match["before"] + "\\ufffd", text)


def stand_in(line: bytes, reason: str) -> bytes:
    """Return a line that stands for one that cannot be taken: its key with an error; without a key, one of no use.

    The beginning of a line is enough where its key comes first.
    """
    if (key := _key_of(line)) is None:
        return b"null\n"
    return msgspec.json.encode({"key": key, "error": {"message": reason}}) + b"\n"


def with_error(line: bytes, reason: str) -> bytes:
    """Return the line of an object with an error put before all that it holds."""
    error = msgspec.json.encode({"message": reason})
    return b'{"error":' + error + b"," + line.removeprefix(BOM).lstrip()[1:]


def too_large(line: bytes) -> str:
    """Return why a line, or the beginning of one, is larger than lines may be; empty where it is not.

    What it holds counts as well: values of JSON take forty times their bytes while they are read.
    """
    if is_too_long(line):
        return f"its answer has more than {MAX_ANSWER_LINE_BYTES:,} bytes in one line, which is not read"
    if len(line) > MAX_UNSEEN_LINE_BYTES and sum(map(line.count, (b",", b"[", b"{"))) > MAX_ANSWER_VALUES:
        return f"its answer has {len(line):,} bytes and more than {MAX_ANSWER_VALUES:,} values, which are not read"
    return ""


def _key_of(line: bytes) -> str | None:
    """Return the key of a line that may be anything, None where there is none."""
    try:
        key = _decode_key(line).key
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = _FIRST_KEY.match(line.removeprefix(BOM)[:_MAX_KEY_BYTES])
        try:
            key = json.loads(mended(found[1])) if found else None
        except ValueError:
            return None
    return key if isinstance(key, str) and key else None


class _Content(msgspec.Struct):
    parts: list[_Object | None] | None = None


class _Candidate(msgspec.Struct):
    content: _Content | None = None


class _Response(msgspec.Struct):
    candidates: list[_Candidate | None] | None = None
    embedding: _Object | None = None
    embeddings: list[_Object | None] | None = None


class _Shape(msgspec.Struct):
    response: _Response | None = None


_decode_shape: Final = msgspec.json.Decoder(_Shape).decode


def misshapen(line: bytes) -> str:
    """Return where a line has another form than Gemini's answers, in words of ours, empty where it has not.

    Only what holds other things is looked at: objects and lists.
    """
    if len(line) > _MAX_SHAPED_BYTES:
        return ""
    try:
        _decode_shape(line.removeprefix(BOM))
    except msgspec.ValidationError as error:
        return f"its answer does not have Gemini's format: {str(error)[:_MAX_FAULT_CHARS]}"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    return ""


def count_answers(path: Path) -> int:
    """Return how many lines of `path` are JSON objects that can be read, in whatever form."""
    return sum(_is_object(line) for _, line in answer_lines(path))


def _is_object(line: bytes) -> bool:
    if is_too_long(line):
        return _key_of(line) is not None
    try:
        return isinstance(json.loads(mended(line)), dict)
    except (ValueError, RecursionError):
        return False


def ends_whole(path: Path) -> bool:
    """Return whether the last line of `path` is whole: it has its line feed, or can be read without one."""
    with path.open("rb") as file:
        place = file.seek(0, SEEK_END)
        tail = b""
        while place and b"\n" not in tail and not is_too_long(tail):
            size_bytes = min(max(_READ_AHEAD_BYTES, len(tail)), place)
            place = file.seek(place - size_bytes)
            tail = file.read(size_bytes) + tail
    last = tail.rpartition(b"\n")[2]
    if not last.strip():
        return True
    if is_too_long(last):
        return last.endswith(b"}")
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


def plain_json(content: bytes) -> msgspec.Raw:
    """Return what the engine takes for JSON as JSON that any reader accepts: NaN and Infinity become null."""
    try:
        return msgspec.json.decode(content, type=msgspec.Raw)
    except msgspec.DecodeError:
        try:
            value = json.loads(content, parse_constant=lambda _: None, parse_float=_finite)
            return msgspec.Raw(json.dumps(value).encode())
        except (ValueError, RecursionError):
            return msgspec.Raw(b"null")


def _finite(number: str) -> float | None:
    """Return null where NaN or an infinity would stand, which are no JSON."""
    value = float(number)
    return value if isfinite(value) else None


def _is_blank(line: bytes) -> bool:
    return not line or line.isspace()
