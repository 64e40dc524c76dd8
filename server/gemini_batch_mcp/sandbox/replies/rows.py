"""One row of a job: which fault meets it, and the bytes that stand for it in the output."""

import hashlib
import re
import zlib
from collections.abc import Mapping, Set
from typing import Final

import msgspec

from gemini_batch_mcp.domain import Task
from gemini_batch_mcp.sandbox.config import FileFault, RowFault, RowFaults
from gemini_batch_mcp.sandbox.replies._answers import GenerateAnswers
from gemini_batch_mcp.sandbox.replies._embeddings import embedding_response
from gemini_batch_mcp.sandbox.replies._plans import NO_EXTRAS, Extra

_MARKER_START: Final = b"[[sandbox:"
_MARKER: Final = re.compile(rb"\[\[sandbox:([a-z_-]+)(?::(\d{1,7}))?\]\]")
_DEFAULT_ERROR_CODE: Final = 13
#: Faults of a generated answer that an embedding cannot have; it gets an error instead.
_NO_EMBEDDING: Final = frozenset(
    {
        RowFault.BLOCKED,
        RowFault.SAFETY,
        RowFault.RECITATION,
        RowFault.PROHIBITED,
        RowFault.MALFORMED_CALL,
        RowFault.MAX_TOKENS,
        RowFault.CUT_TEXT,
        RowFault.SURROGATE,
    }
)
_ROW_FAULTS: Final = frozenset(fault.value for fault in RowFault)
_FILE_FAULTS: Final = frozenset(fault.value for fault in FileFault)
_EXTRAS: Final = frozenset(extra.value for extra in Extra)
#: `[[sandbox:once]]` beside a fault's marker: the row meets the fault in the first job that ends with it, never again.
_ONCE: Final = "once"
#: The digest of a row that has met its fault.
DIGEST_BYTES: Final = 16
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


class _Row(msgspec.Struct, frozen=True, gc=False):
    """One input row. `name` decides its fault; `identity` is the member that its output is known by."""

    request: bytes
    name: str = ""
    identity: bytes = b""


class _Wish(msgspec.Struct, frozen=True, gc=False):
    """What is to happen to a row. `number` is the one in the marker of the fault, or of the choice; 0 for none."""

    fault: RowFault | None = None
    number: int = 0
    extras: frozenset[Extra] = NO_EXTRAS
    echo_key: str = ""


_NO_WISH: Final = _Wish()


class RowWriter:
    """Turns the rows of one job into its output.

    `file_faults` collects what markers ask for the whole file. `met` holds the digests of the rows that have met the
    fault they are to meet once; the writer adds to it.
    """

    def __init__(
        self, task: Task, model: str, *, is_inline: bool, faults: RowFaults, echoes_keys: bool, met: set[bytes]
    ) -> None:
        self.file_faults: set[FileFault] = set()
        self._met = met
        self._faults = faults
        self._has_wishes = callable(faults) or bool(faults) or echoes_keys
        self._echoes_keys = echoes_keys
        self._is_inline = is_inline
        answers = GenerateAnswers(model)
        self._respond = answers.response if task == "generate" else _embed
        self._decode_file = msgspec.json.Decoder(_FileRow).decode
        self._decode_inline = msgspec.json.Decoder(_InlineRow).decode
        self._is_embed = task == "embed"

    def write(self, line: bytes) -> RowOutput:
        """Return the output of one input line (or one inlined request), with or without its LF."""
        row = self._read(line)
        start = line.find(_MARKER_START)
        if start < 0 and not self._has_wishes:
            return RowOutput((b'{"response":%b%b}' % (self._respond(row.request), row.identity),))
        return self._write(row, self._wish(row, _MARKER.findall(line, start) if start >= 0 else []))

    def _read(self, line: bytes) -> _Row:
        if self._is_inline:
            inlined = self._decode_inline(line)
            metadata = bytes(inlined.metadata)
            return _Row(bytes(inlined.request), metadata.decode(), b',"metadata":%b' % metadata if metadata else b"")
        row = self._decode_file(line)
        if not row.request:
            return _Row(line.rstrip(b"\n"))
        if row.key is None:
            return _Row(bytes(row.request))
        return _Row(bytes(row.request), row.key, b',"key":%b' % _encode(row.key))

    def _wish(self, row: _Row, markers: list[tuple[bytes, bytes]]) -> _Wish:
        """Return what the row's markers ask for, or else the configuration; of several faults the first is met."""
        numbers = {word.decode().replace("-", "_"): int(digits or 0) for word, digits in reversed(markers)}
        words = [word.decode().replace("-", "_") for word, _ in markers]
        self.file_faults.update(FileFault(word) for word in words if word in _FILE_FAULTS)
        extras = frozenset(Extra(word) for word in words if word in _EXTRAS)
        fault = next((RowFault(word) for word in words if word in _ROW_FAULTS), None)
        number = numbers[fault.value] if fault else numbers.get(Extra.CHOICE, 0)
        if fault is None and self._faults:
            fault = self._faults(row.name) if callable(self._faults) else _by_share(self._faults, row.name)
        if fault and _ONCE in words and self._has_met(row):
            fault = None
        if self._is_embed and fault in _NO_EMBEDDING:
            fault = RowFault.ERROR
        echoes = self._echoes_keys or Extra.ECHO_KEY in extras
        return _Wish(fault, number, extras - {Extra.ECHO_KEY}, self._key(row) if echoes else "")

    def _has_met(self, row: _Row) -> bool:
        """Tell whether the row has been here before, from a file or inlined, and remember it."""
        request = msgspec.json.decode(row.request)
        request.pop("model", None)
        text = msgspec.json.encode([self._key(row), request], order="deterministic")
        digest = hashlib.blake2b(text, digest_size=DIGEST_BYTES).digest()
        if digest in self._met:
            return True
        self._met.add(digest)
        return False

    def _key(self, row: _Row) -> str:
        """Return the row's key; of an inlined row the member `key` of its metadata."""
        if not self._is_inline or not row.name:
            return row.name
        return str(msgspec.json.decode(row.name).get("key", ""))

    def _write(self, row: _Row, wish: _Wish) -> RowOutput:
        match wish.fault:
            case RowFault.ERROR | RowFault.STATUS:
                member = b"error" if wish.fault is RowFault.ERROR else b"status"
                code = wish.number or _DEFAULT_ERROR_CODE
                message = _encode(f"[sandbox] This row was made to fail with code {code}.")
                status = b'{"code":%d,"message":%b}' % (code, message)
                return RowOutput((_line(member, status, row.identity, wish),), failed=True)
            case RowFault.NULL:
                return RowOutput((_line(b"response", b"null", row.identity, wish),))
            case RowFault.DROPPED:
                return RowOutput(_NO_LINE)
            case RowFault.MALFORMED:
                return RowOutput((b'{"response":{"candidates":[{"content":%b' % row.identity,))
        response = self._respond(row.request, wish.fault, wish.number, wish.extras, wish.echo_key)
        text = _line(b"response", response, row.identity, wish)
        match wish.fault:
            case RowFault.DUPLICATED:
                return RowOutput((text, text))
            case RowFault.UNEXPECTED:
                member = b',"metadata":{"key":"%b"}' if self._is_inline else b',"key":"%b"'
                stranger = member % (b"never-sent-%08x" % zlib.crc32(row.identity + row.request))
                return RowOutput((text, _line(b"response", response, stranger, wish)))
            case RowFault.NO_KEY:
                return RowOutput((_line(b"response", response, b"", wish),))
            case _:
                return RowOutput((text,))


def _line(member: bytes, value: bytes, identity: bytes, wish: _Wish) -> bytes:
    if identity and Extra.KEY_FIRST in wish.extras:
        return b'{%b,"%b":%b}' % (identity[1:], member, value)
    return b'{"%b":%b%b}' % (member, value, identity)


def _by_share(shares: Mapping[RowFault, float], name: str) -> RowFault | None:
    """Choose a fault by a hash of the row's name, so that the same row always meets the same one."""
    place = zlib.crc32(name.encode("utf-8", "surrogatepass")) / 2**32
    for fault, share in shares.items():
        place -= share
        if place < 0:
            return fault
    return None


def _embed(
    request: bytes, fault: RowFault | None = None, number: int = 0, extras: Set[Extra] = NO_EXTRAS, echo_key: str = ""
) -> bytes:
    if fault in (RowFault.EMPTY, RowFault.NO_CANDIDATES):
        return b'{"embedding":{}}'
    return embedding_response(request)
