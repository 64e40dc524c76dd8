"""Files that a request names or holds: a row fails, as it does at Gemini, when one of them cannot be used.

The messages are those that users have met (the file that may not exist, the state, the MIME type, the picture); that a
batch answers them row by row, and not at the create, is inferred: a create looks at the lines alone.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from gemini_batch_mcp.sandbox.config import NANOSECONDS, SandboxConfig
from gemini_batch_mcp.sandbox.state import FileRecord

_FILE: Final = re.compile(r"(?:^|/)(files/[a-z0-9-]+)$")
_TAKEN: Final = re.compile(r"image/(?:png|jpe?g|webp|heic|heif)|application/pdf|(?:audio|video|text)/.+")
#: How the content of a kind begins, where that can be told at once.
_BEGINNINGS: Final = {
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "application/pdf": re.compile(rb"(?s).{0,1000}%PDF-"),
}
_BEGINNING_CHARACTERS: Final = 2048
#: Kinds of files that Gemini looks at for a while before they can be used.
_SLOW: Final = ("video/", "audio/")
#: Stands in the display name of a file that Gemini cannot make sense of.
_UNREADABLE: Final = "[[sandbox:file-failed]]"
_INVALID, _DENIED, _TOO_EARLY = 3, 7, 9


def file_state(record: FileRecord, config: SandboxConfig) -> str:
    """Return a file's state: video and sound are PROCESSING for `config.processing_seconds`."""
    is_slow = record.mime_type.startswith(_SLOW)
    if is_slow and config.clock_ns() < record.create_ns + round(config.processing_seconds * NANOSECONDS):
        return "PROCESSING"
    return "FAILED" if _UNREADABLE in record.display_name else "ACTIVE"


class References:
    """Looks at the files of rows. `find` returns the file of a name, expired or not."""

    def __init__(self, find: Callable[[str], FileRecord | None], config: SandboxConfig) -> None:
        self._find = find
        self._config = config

    def failure(self, line: bytes) -> bytes | None:
        """Return the output of a row (a line, or an inlined request) whose files cannot be used, else None."""
        if b'Data"' not in line and b'_data"' not in line:
            return None
        row = msgspec.json.decode(line)
        refused = self.problem(row.get("request", row))
        if refused is None:
            return None
        code, message = refused
        named = {name: row[name] for name in ("key", "metadata") if name in row}
        return msgspec.json.encode({"error": {"code": code, "message": message}, **named})

    def problem(self, request: Mapping[str, Any]) -> tuple[int, str] | None:
        """Return the google.rpc code and the message of the first file of a request that cannot be used."""
        return next(filter(None, map(self._problem, _parts(request))), None)

    def _problem(self, part: Mapping[str, Any]) -> tuple[int, str] | None:
        named = part.get("fileData") or part.get("file_data")
        held = part.get("inlineData") or part.get("inline_data")
        mime_type = (named or held or {}).get("mimeType") or (named or held or {}).get("mime_type") or ""
        if mime_type and not _TAKEN.fullmatch(mime_type):
            return _INVALID, f"Unsupported MIME type: {mime_type}"
        if named:
            return self._problem_of_file(named.get("fileUri") or named.get("file_uri") or "")
        return _problem_of_content(held.get("data", ""), mime_type) if held else None

    def _problem_of_file(self, uri: str) -> tuple[int, str] | None:
        found = _FILE.search(uri)
        if found is None:
            # Another link: fetched by Gemini, which the sandbox does not do.
            return None
        name = found[1]
        record = self._find(name)
        if record is None or 0 < record.expire_ns <= self._config.clock_ns():
            file_id = name.removeprefix("files/")
            return _DENIED, f"You do not have permission to access the File {file_id} or it may not exist."
        if file_state(record, self._config) != "ACTIVE":
            return _TOO_EARLY, f"The File {name.removeprefix('files/')} is not in an ACTIVE state."
        return None


def _problem_of_content(data: str, mime_type: str) -> tuple[int, str] | None:
    beginning = _BEGINNINGS.get(mime_type)
    if beginning is None:
        return None
    start = data[:_BEGINNING_CHARACTERS].replace("-", "+").replace("_", "/")
    try:
        content = base64.b64decode(start + "=" * (-len(start) % 4))
    except binascii.Error:
        return _INVALID, "Unable to process the input: no base64."
    return None if beginning.match(content) else (_INVALID, "Unable to process input image.")


def _parts(request: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the parts of a request's contents."""
    contents = request.get("contents") or request.get("content") or []
    for content in contents if isinstance(contents, list) else [contents]:
        yield from content.get("parts") or []
