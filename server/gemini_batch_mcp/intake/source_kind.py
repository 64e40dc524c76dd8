"""What a JSONL file holds, told by its first lines: Gemini requests, an OpenAI batch, or plain rows."""

from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from gemini_batch_mcp.intake.passes import unreadable
from gemini_batch_mcp.intake.source import REQUEST_FILE_SUFFIXES
from gemini_batch_mcp.settings import MAX_LINE_BYTES

_LINES_LOOKED_AT: Final = 5
_BOM: Final = b"\xef\xbb\xbf"
_LINE: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_OPENAI: Final = frozenset({"custom_id", "method", "url", "body"})
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
            looked_at = 0
            while looked_at < _LINES_LOOKED_AT and (line := file.readline(MAX_LINE_BYTES)):
                line = line.removeprefix(_BOM).strip()
                if not line:
                    continue
                looked_at += 1
                if (kind := _kind_of(line)) is not None:
                    return kind
    except OSError as error:
        raise unreadable(path, error) from None
    # No line is an object: the reader of request files says best what is wrong with such lines.
    return SourceKind.GEMINI_JSONL


def _kind_of(line: bytes) -> SourceKind | None:
    """Return what one line is, None when it is no JSON object."""
    try:
        members = _LINE.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if len(_OPENAI & members.keys()) >= 2 and "request" not in members:
        return SourceKind.OPENAI_JSONL
    if "request" in members and (_is_object(members["request"]) or members.keys() <= _REQUEST_LINE):
        return SourceKind.GEMINI_JSONL
    bare = members.get("contents", members.get("content"))
    if bare is not None and bytes(bare).startswith((b"[", b"{")):
        return SourceKind.GEMINI_JSONL
    return SourceKind.ROWS


def _is_object(raw: msgspec.Raw) -> bool:
    return bytes(raw).startswith(b"{")
