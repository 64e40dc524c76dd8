"""Attachments inside the lines: what the engine marked is replaced, in a stream, by a part that holds or names a file.

The engine never sees the files: a batch of its rows would have to be in memory with all their contents at once.
"""

import hashlib
import io
import json
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import msgspec

from gemini_batch_mcp.domain import UploadedFile
from gemini_batch_mcp.errors import StorageError, UsageError, storage_errors
from gemini_batch_mcp.intake.files.placeholder import Known, placeholder
from gemini_batch_mcp.intake.files.planning import Attachment, AttachmentPlan
from gemini_batch_mcp.intake.opened import buffered
from gemini_batch_mcp.intake.request_files import RequestFile
from gemini_batch_mcp.intake.requests.reader import file_sha256
from gemini_batch_mcp.intake.requests.skipping import FAULT
from gemini_batch_mcp.intake.tables.sql import MARK

_BLOCK_BYTES: Final = 1 << 18
#: Pieces of lines are handed on as soon as there are so many bytes of them: lines with files inside are large.
_CHUNK_BYTES: Final = 1 << 20
#: Parts that are kept, all of them small; the same cells often come again.
_MAX_KEPT: Final = 1 << 17
#: In front of a file's name in every URI of the Files API.
_URI_START: Final = "https://generativelanguage.googleapis.com/v1beta/"
#: Characters of base64 that a person is shown.
_SHOWN_CHARACTERS: Final = 24
#: A reference as `Parts` writes it. Inside a text its quotes are escaped, so no text looks like it.
_REFERENCE: Final = re.compile(rb'"fileUri":"([!#-\[\]-~]*)"')
_CELL: Final = msgspec.json.Decoder(str)


class Source(Protocol):
    """What the lines are read from."""

    def read(self, size: int, /) -> bytes | None:
        """Return up to `size` bytes, nothing at the end."""


class Parts:
    """What stands in a request for each cell of a column: each part with a comma, or nothing.

    `uploaded` leads from `Attachment.sha256` to what is at the Files API; None writes references that name nothing yet.
    """

    def __init__(self, plan: AttachmentPlan, uploaded: Mapping[str, UploadedFile] | None) -> None:
        self._plan = plan
        self._uploaded = uploaded
        self._contents = {content.sha256: content for content in plan.contents}
        self._kept: dict[bytes, bytes] = {}

    def of(self, literal: bytes) -> bytes:
        """Return what stands for a cell, which is given as JSON.

        Raises:
            UsageError: the table or the file is not what it was when the plan was made.
            PathError: the file cannot be read any more.
        """
        kept = self._kept.get(literal)
        if kept is not None:
            return kept
        cell = _CELL.decode(literal)
        if not cell.strip():
            return b""
        found = self._plan.cells.get(cell)
        if found is None and (fault := self._plan.faults.get(cell)) is not None:
            return FAULT + json.dumps(fault).encode() + FAULT
        if found is None:
            raise _changed("The table")
        contents = [self._contents[sha256] for sha256 in found]
        part = b"".join(
            _inline(content) if content.mode == "inline" else _member("fileData", self._reference(content))
            for content in contents
        )
        if any(content.mode == "inline" for content in contents):
            return part
        if len(self._kept) < _MAX_KEPT:
            self._kept[literal] = part
        return part

    def _reference(self, content: Attachment) -> dict[str, str]:
        if content.mode == "linked":
            return {"fileUri": content.sha256, **({"mimeType": content.mime_type} if content.mime_type else {})}
        if self._uploaded is None:
            file = UploadedFile("", content.size_bytes, mime_type=content.mime_type, uri=staged_uri(content))
        else:
            file = self._uploaded[content.sha256]
        reference = {"fileUri": uri_of(file)}
        mime_type = content.mime_type or file.mime_type
        return {**reference, "mimeType": mime_type} if mime_type else reference


class AttachedLines(io.RawIOBase):
    """The lines of `source` with the files in them; what is read from here is written to `output`, if any."""

    def __init__(self, source: Source, parts: Parts, output: BinaryIO | None) -> None:
        super().__init__()
        self._chunks = _replaced(source, parts)
        self._output = output
        self._chunk = memoryview(b"")

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, up to `size`, none at the end. Raises what the source and `Parts.of` raise."""
        if not self._chunk:
            self._chunk = memoryview(next(self._chunks, b""))
        end = size if size >= 0 else len(self._chunk)
        block, self._chunk = bytes(self._chunk[:end]), self._chunk[end:]
        if self._output is not None:
            self._output.write(block)
        return block


def renew_references(source: Path, destination: Path, uris: Mapping[str, str]) -> int:
    """Copy request lines with other URIs of uploaded files in them; return how many references were changed.

    `uris` leads from what stands there to what shall. For lines of ours only: they are written without spaces.

    Raises:
        StorageError: the lines cannot be read, or the copy cannot be written.
    """
    changed = 0

    def renewed(found: re.Match[bytes]) -> bytes:
        nonlocal changed
        uri = uris.get(found[1].decode())
        changed += uri is not None
        return found[0] if uri is None else b'"fileUri":' + json.dumps(uri).encode()

    with (
        storage_errors("The request lines could not be copied"),
        source.open("rb") as lines,
        destination.open("wb") as output,
    ):
        for line in lines:
            output.write(_REFERENCE.sub(renewed, line))
    return changed


def staged_uri(content: Attachment) -> str:
    """Return what lines name a content by that is not known to be at Gemini: it follows from what it holds."""
    return _URI_START + (content.sha256 if content.mode == "uploaded" else _not_yet(content))


def uri_of(file: UploadedFile) -> str:
    """Return what requests name an uploaded file by."""
    return file.uri or _URI_START + file.name


def references_in(requests: Path) -> frozenset[str]:
    """Return the URIs that request lines of ours name.

    Raises:
        StorageError: they cannot be read.
    """
    with storage_errors("The request lines could not be read"), requests.open("rb") as lines:
        return frozenset(uri.decode() for line in lines for uri in _REFERENCE.findall(line))


def with_references(request_file: RequestFile, uris: Mapping[str, str]) -> RequestFile:
    """Return request lines of ours with other URIs of uploaded files in them; see `renew_references`."""
    path = request_file.path
    draft = path.with_name(f"{path.name}.renewed")
    try:
        renew_references(path, draft, uris)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return replace(request_file, size_bytes=path.stat().st_size, sha256=file_sha256(path))


def without_files(request: Any) -> Any:
    """Return a request as it can be shown: base64 is cut to its beginning, with its length."""
    if isinstance(request, dict):
        return {
            name: _cut(value) if name == "data" and isinstance(value, str) else without_files(value)
            for name, value in request.items()
        }
    return [without_files(item) for item in request] if isinstance(request, list) else request


def _cut(data: str) -> str:
    if len(data) <= 4 * _SHOWN_CHARACTERS:
        return data
    return f"{data[:_SHOWN_CHARACTERS]}… ({len(data):,} characters of base64)"


def _replaced(source: Source, parts: Parts) -> Iterator[bytes]:
    """Yield what the source holds, a part in the place of each marked cell."""
    rest = b""
    while block := source.read(_BLOCK_BYTES):
        pieces = (rest + block).split(MARK)
        # Marks come in pairs: a cell whose second one is still to come waits for it.
        rest = MARK + pieces.pop() if len(pieces) % 2 == 0 else b""
        chunk: list[bytes] = []
        chunk_bytes = 0
        for number, piece in enumerate(pieces):
            chunk.append(parts.of(piece) if number % 2 else piece)
            chunk_bytes += len(chunk[-1])
            if chunk_bytes > _CHUNK_BYTES:
                yield b"".join(chunk)
                chunk, chunk_bytes = [], 0
        if chunk_bytes:
            yield b"".join(chunk)
    if rest:
        raise StorageError("The lines were not written completely.", "Submit the order again.")


def _inline(content: Attachment) -> bytes:
    path = content.path
    assert path is not None
    with buffered(path) as file:
        data = file.read(content.size_bytes + 1)
    if hashlib.sha256(data).hexdigest() != content.sha256:
        raise _changed(path.name)
    start = f'{{"inlineData":{{"mimeType":{json.dumps(content.mime_type)},"data":"'.encode()
    return b"".join((start, b64encode(data), b'"}},'))


def _not_yet(content: Attachment) -> str:
    return placeholder(content.sha256, Known(content.size_bytes, content.pages))


def _member(name: str, value: dict[str, str]) -> bytes:
    return json.dumps({name: value}, separators=(",", ":")).encode() + b","


def _changed(what: str) -> UsageError:
    return UsageError(f"{what} changed while the order was being prepared.", "Submit the order again.")
