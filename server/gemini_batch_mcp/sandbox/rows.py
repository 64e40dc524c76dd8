"""One row of a job: which fault meets it, and the bytes that stand for it in the output."""

import re
import zlib
from collections.abc import Mapping
from typing import Final

import msgspec

from gemini_batch_mcp.domain import Task
from gemini_batch_mcp.sandbox.answers import GenerateAnswers
from gemini_batch_mcp.sandbox.config import FileFault, RowFault, RowFaults
from gemini_batch_mcp.sandbox.embeddings import embedding_response

_MARKER_START: Final = b"[[sandbox:"
_MARKER: Final = re.compile(rb"\[\[sandbox:([a-z_]+)(?::(\d{1,7}))?\]\]")
_DEFAULT_ERROR_CODE: Final = 13
#: Faults of a generated answer that an embedding cannot have; it gets an error instead.
_NO_EMBEDDING: Final = frozenset(
    {RowFault.BLOCKED, RowFault.SAFETY, RowFault.MAX_TOKENS, RowFault.CUT_TEXT, RowFault.SURROGATE}
)
_ROW_FAULTS: Final = frozenset(fault.value for fault in RowFault)
_FILE_FAULTS: Final = frozenset(fault.value for fault in FileFault)
_NO_LINE: Final[tuple[bytes, ...]] = ()
_encode = msgspec.json.encode


class _FileRow(msgspec.Struct, gc=False):
    key: str | None = None
    request: msgspec.Raw = msgspec.Raw()


class _InlineRow(msgspec.Struct, gc=False):
    metadata: msgspec.Raw = msgspec.Raw()
    request: msgspec.Raw = msgspec.Raw()


class RowOutput(msgspec.Struct, frozen=True, gc=False):
    """The JSON texts that stand for a row (none when it was dropped), and whether the row failed."""

    texts: tuple[bytes, ...]
    failed: bool = False


class RowWriter:
    """Turns the rows of one job into its output. `file_faults` collects what markers ask for the whole file."""

    def __init__(self, task: Task, model: str, *, is_inline: bool, faults: RowFaults) -> None:
        self.file_faults: set[FileFault] = set()
        self._faults = faults
        self._has_faults = callable(faults) or bool(faults)
        self._is_inline = is_inline
        answers = GenerateAnswers(model)
        self._respond = answers.response if task == "generate" else _embed
        self._decode_file = msgspec.json.Decoder(_FileRow).decode
        self._decode_inline = msgspec.json.Decoder(_InlineRow).decode
        self._is_embed = task == "embed"

    def write(self, line: bytes) -> RowOutput:
        """Return the output of one input line (or one inlined request), with or without its LF."""
        request, name, identity = self._read(line)
        fault, number = self._fault(line, name)
        if fault is None:
            return RowOutput((b'{"response":%b%b}' % (self._respond(request), identity),))
        if self._is_embed and fault in _NO_EMBEDDING:
            fault = RowFault.ERROR
        return self._faulty(fault, number, request, identity)

    def _read(self, line: bytes) -> tuple[bytes, str, bytes]:
        """Return the request, the name that decides its fault, and the member that identifies its output."""
        if self._is_inline:
            inlined = self._decode_inline(line)
            metadata = bytes(inlined.metadata)
            name = metadata.decode()
            return bytes(inlined.request), name, b',"metadata":%b' % metadata if metadata else b""
        row = self._decode_file(line)
        if not row.request:
            return line.rstrip(b"\n"), "", b""
        if row.key is None:
            return bytes(row.request), "", b""
        return bytes(row.request), row.key, b',"key":%b' % _encode(row.key)

    def _fault(self, line: bytes, name: str) -> tuple[RowFault | None, int]:
        """Return the fault of a row and the number in its marker, 0 when there is none."""
        start = line.find(_MARKER_START)
        if start >= 0:
            for word, digits in _MARKER.findall(line, start):
                text = word.decode()
                if text in _ROW_FAULTS:
                    return RowFault(text), int(digits or 0)
                if text in _FILE_FAULTS:
                    self.file_faults.add(FileFault(text))
        if not self._has_faults:
            return None, 0
        return (self._faults(name) if callable(self._faults) else _by_share(self._faults, name)), 0

    def _faulty(self, fault: RowFault, number: int, request: bytes, identity: bytes) -> RowOutput:
        match fault:
            case RowFault.ERROR | RowFault.STATUS:
                member = b"error" if fault is RowFault.ERROR else b"status"
                code = number or _DEFAULT_ERROR_CODE
                message = _encode(f"[sandbox] This row was made to fail with code {code}.")
                text = b'{"%b":{"code":%d,"message":%b}%b}' % (member, code, message, identity)
                return RowOutput((text,), failed=True)
            case RowFault.NULL:
                return RowOutput((b'{"response":null%b}' % identity,))
            case RowFault.DROPPED:
                return RowOutput(_NO_LINE)
            case RowFault.MALFORMED:
                return RowOutput((b'{"response":{"candidates":[{"content":%b' % identity,))
        text = b'{"response":%b%b}' % (self._respond(request, fault, number), identity)
        match fault:
            case RowFault.DUPLICATED:
                return RowOutput((text, text))
            case RowFault.UNEXPECTED:
                member = b'"metadata":{"key":"%b"}' if self._is_inline else b'"key":"%b"'
                stranger = member % (b"never-sent-%08x" % zlib.crc32(identity + request))
                return RowOutput((text, b'{"response":%b,%b}' % (self._respond(request), stranger)))
            case RowFault.NO_KEY:
                return RowOutput((b'{"response":%b}' % self._respond(request),))
            case _:
                return RowOutput((text,))


def _by_share(shares: Mapping[RowFault, float], name: str) -> RowFault | None:
    """Choose a fault by a hash of the row's name, so that the same row always meets the same one."""
    place = zlib.crc32(name.encode("utf-8", "surrogatepass")) / 2**32
    for fault, share in shares.items():
        place -= share
        if place < 0:
            return fault
    return None


def _embed(request: bytes, fault: RowFault | None = None, number: int = 0) -> bytes:
    if fault in (RowFault.EMPTY, RowFault.NO_CANDIDATES):
        return b'{"embedding":{}}'
    return embedding_response(request)
