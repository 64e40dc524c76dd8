"""What a JSONL file holds, told by its first lines: Gemini requests, an OpenAI batch, or plain rows."""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from functools import partial
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from gemini_batch_mcp.intake.opened import unreadable
from gemini_batch_mcp.intake.requests.lines import without_marks
from gemini_batch_mcp.intake.tables.kinds import REQUEST_FILE_SUFFIXES
from gemini_batch_mcp.intake.validator.validate import is_openai
from gemini_batch_mcp.settings import MAX_LINE_BYTES

_LINES_LOOKED_AT: Final = 5
#: Enough of a file in UTF-16 to see its first lines.
_UTF16_BYTES: Final = 1 << 20
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST: Final = msgspec.json.Decoder(list[msgspec.Raw])
_REQUEST_LINE: Final = frozenset({"key", "request", "metadata"})


class SourceKind(StrEnum):
    """How a source is to be read."""

    #: A request line each: read as it is.
    GEMINI_JSONL = "gemini-jsonl"
    #: Lines of an OpenAI batch: converted.
    OPENAI_JSONL = "openai-jsonl"
    #: Rows of a table: rendered with a prompt.
    ROWS = "rows"


def recognise(path: Path) -> SourceKind:
    """Return what kind of source a file is. Everything but .jsonl and .ndjson holds rows.

    Raises:
        PathError: the file cannot be read.
    """
    if path.suffix.lower() not in REQUEST_FILE_SUFFIXES:
        return SourceKind.ROWS
    try:
        with path.open("rb") as file:
            for line in _first_lines(file):
                if (kind := _kind_of(line)) is not None:
                    return kind
    except OSError as error:
        raise unreadable(path, error) from None
    # No line is an object. With a prompt, they are rows that are wrong; without one, requests that are wrong.
    return SourceKind.ROWS


def _first_lines(file: BufferedReader) -> Iterator[bytes]:
    """Yield the first lines that are not blank, in UTF-8."""
    if file.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff"):
        head = file.read(_UTF16_BYTES).decode("utf-16", "replace")
        lines: Iterable[bytes] = (line.encode() for line in head.split("\n"))
    else:
        lines = iter(partial(file.readline, MAX_LINE_BYTES), b"")
    filled = (stripped for line in lines if (stripped := without_marks(line).strip()))
    return map(_in_utf8, islice(filled, _LINES_LOOKED_AT))


def _in_utf8(line: bytes) -> bytes:
    try:
        line.decode()
    except UnicodeDecodeError:
        return line.decode("cp1252", "replace").encode()
    return line


def _kind_of(line: bytes) -> SourceKind | None:
    """Return what one line is, None when it is no JSON object."""
    members = _members(line)
    if members is None:
        return None
    if is_openai(members.keys(), body_is_object=_is_object(members.get("body"))):
        return SourceKind.OPENAI_JSONL
    if "request" in members and (_is_object(members["request"]) or members.keys() <= _REQUEST_LINE):
        return SourceKind.GEMINI_JSONL
    if _is_content(members.get("contents")) or _is_content(members.get("content")):
        return SourceKind.GEMINI_JSONL
    return SourceKind.ROWS


def _members(value: bytes | msgspec.Raw) -> dict[str, msgspec.Raw] | None:
    try:
        return _OBJECT.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _is_object(value: msgspec.Raw | None) -> bool:
    return value is not None and bytes(value).startswith(b"{")


def _is_content(value: msgspec.Raw | None) -> bool:
    """True for a Content, or a list that starts with one; rows of a table may have contents of their own."""
    if value is None:
        return False
    try:
        items = _LIST.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        items = [value]
    members = _members(items[0]) if items else None
    return members is not None and "parts" in members
