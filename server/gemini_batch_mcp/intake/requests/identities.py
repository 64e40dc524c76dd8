"""The identity of each request, taken in the pass that checks the lines: two requests that are the same have one.

It is a digest over model, task and the request in its canonical form: JSON without white space, characters as they are,
members in their order (Gemini fills in a schema in its order). Files attached to rows are named by their content there.
"""

import re
from array import array
from collections.abc import Sequence
from itertools import repeat
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from gemini_batch_mcp.digests import RequestDigest
from gemini_batch_mcp.errors import storage_errors
from gemini_batch_mcp.intake.asked_schema import AskedSchema
from gemini_batch_mcp.intake.opened import SourceFile
from gemini_batch_mcp.intake.requests.lines import BETWEEN, CutLines, LongLine, Onlooker, ended_lines, pieces
from gemini_batch_mcp.intake.validator.terms import Terms

#: How lines of ours begin.
_START: Final = b'{"key":"'
#: Characters that could be written as themselves.
_ESCAPED: Final = re.compile(rb"\\[u/]").search
#: Names of a schema in a request. In a text their quotes are escaped.
_SCHEMAS: Final = tuple(
    f'"{name}"'.encode()
    for name in (
        "responseSchema",
        "responseJsonSchema",
        "responseFormat",
        "response_schema",
        "response_json_schema",
        "response_format",
    )
)
_FAILED: Final = "The identities of requests could not be written down"
_BUFFER_BYTES: Final = 1 << 20
_DIGEST_BYTES: Final = 16
#: Of a page of the file, before the next one is begun.
_PAGE_BYTES: Final = 1 << 20
#: The marks of a Parquet file, and the types of Thrift's compact protocol that its facts are written in.
_PARQUET: Final = b"PAR1"
_INT, _LONG, _TEXT, _LIST, _STRUCT = 5, 6, 8, 9, 12
_COLUMN: Final = "identity"


class _Line(msgspec.Struct):
    request: Any


_decode: Final = msgspec.json.Decoder(_Line).decode


class IdentityFile:
    """Identities as a Parquet file of one column, `identity`. Use as a context.

    The engine reads it in a tenth of the time that it takes for text, which is half of what comparing them takes; to
    write it takes no engine, since nothing in it is compressed or counted.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb")
        self._file.write(_PARQUET)
        self._page: list[bytes] = []
        self._page_rows = self._rows = 0
        self._written = len(_PARQUET)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def add(self, found: Sequence[bytes]) -> None:
        """Add identities, in order."""
        self._page.append(b"".join(found))
        self._page_rows += len(found)
        if self._page_rows * _DIGEST_BYTES >= _PAGE_BYTES:
            self._write_page()

    def close(self) -> None:
        """Write what is left, and the facts about it."""
        if self._file.closed:
            return
        with self._file:
            self._write_page()
            self._file.write(facts := self._facts())
            self._file.write(len(facts).to_bytes(4, "little") + _PARQUET)

    def discard(self) -> None:
        """Remove the file."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    def _write_page(self) -> None:
        if not self._page_rows:
            return
        content, rows = b"".join(self._page), self._page_rows
        values = _struct((1, _INT, rows), (2, _INT, 0), (3, _INT, 3), (4, _INT, 3))
        header = _struct((1, _INT, 0), (2, _INT, len(content)), (3, _INT, len(content)), (5, _STRUCT, values))
        self._file.write(header)
        self._file.write(content)
        self._written += len(header) + len(content)
        self._rows += rows
        self._page, self._page_rows = [], 0

    def _facts(self) -> bytes:
        size = self._written - len(_PARQUET)
        fixed = (1, _INT, 7)
        is_uuid = _struct((14, _STRUCT, _struct()))
        root = _struct((4, _TEXT, "rows"), (5, _INT, 1))
        leaf = _struct(fixed, (2, _INT, _DIGEST_BYTES), (3, _INT, 0), (4, _TEXT, _COLUMN), (10, _STRUCT, is_uuid))
        column = _struct(
            fixed,
            (2, _LIST, _items(_INT, [_number(0)])),
            (3, _LIST, _items(_TEXT, [_text(_COLUMN)])),
            (4, _INT, 0),
            (5, _LONG, self._rows),
            (6, _LONG, size),
            (7, _LONG, size),
            (9, _LONG, len(_PARQUET)),
        )
        chunk = _struct((2, _LONG, len(_PARQUET)), (3, _STRUCT, column))
        group = _struct((1, _LIST, _items(_STRUCT, [chunk])), (2, _LONG, size), (3, _LONG, self._rows))
        return _struct(
            (1, _INT, 1),
            (2, _LIST, _items(_STRUCT, [root, leaf])),
            (3, _LONG, self._rows),
            (4, _LIST, _items(_STRUCT, [group] if self._rows else [])),
        )


def _struct(*fields: tuple[int, int, Any]) -> bytes:
    """Return a struct of numbered fields, each with its type, as Thrift's compact protocol writes it."""
    written, before = bytearray(), 0
    for number, kind, value in fields:
        written.append(number - before << 4 | kind)
        before = number
        written += value if isinstance(value, bytes) else _text(value) if kind == _TEXT else _number(value)
    return bytes(written) + b"\0"


def _items(kind: int, items: Sequence[bytes]) -> bytes:
    """Return a list of less than 15 items."""
    return bytes([len(items) << 4 | kind]) + b"".join(items)


def _text(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def _number(number: int) -> bytes:
    """Return a number that is not negative, as a varint of twice of it."""
    rest, written = number * 2, bytearray()
    while rest > 127:
        written.append(rest & 127 | 128)
        rest >>= 7
    return bytes([*written, rest])


class Identities:
    """An onlooker that another one looks through. It writes the identities of all lines to `path`; to be closed.

    `is_wanted` says whether; with `needs_schema` they are only while every line asks for an answer in a given form.
    `are_ours`: the lines are rendered here, all in one way.
    """

    def __init__(
        self,
        onlooker: Onlooker,
        path: Path,
        digest: RequestDigest,
        *,
        is_wanted: bool = True,
        needs_schema: bool = False,
        are_ours: bool = False,
    ) -> None:
        self._onlooker = onlooker
        self.path = path
        self._digest = digest
        self._is_wanted = is_wanted
        self._needs_schema = needs_schema
        self._are_ours = are_ours
        self._file: IdentityFile | None = None
        self._has_seen = False
        #: What each line asks for while it is the same for all and needs no look at the line; None otherwise.
        self.terms: Terms | None = None
        #: False once they are not wanted: there are none then.
        self.are_wanted = is_wanted
        #: The bytes of each line with its end.
        self.sizes = array("I")
        #: What form of an answer the lines ask for.
        self.asked = AskedSchema(lines_are_alike=are_ours)

    def begin(self) -> None:
        """Forget all lines: the pass begins anew."""
        self._onlooker.begin()
        self.discard()
        self.terms, self.are_wanted, self._has_seen, self.sizes = None, self._is_wanted, False, array("I")
        self.asked = AskedSchema(lines_are_alike=self._are_ours)
        if self._is_wanted:
            with storage_errors(_FAILED):
                self._file = IdentityFile(self.path)

    def close(self) -> None:
        """Put everything on the disk."""
        if self._file is not None:
            with storage_errors(_FAILED):
                self._file.close()

    def discard(self) -> None:
        """Remove what was written."""
        if self._file is not None:
            self._file.discard()

    def see(self, piece: bytes, lines: Sequence[bytes], keys: bytes, before: int, terms: Terms | list[Terms]) -> None:
        """Write down the identities of the lines of a piece."""
        self._onlooker.see(piece, lines, keys, before, terms)
        self.asked.see(piece, lines)
        if self.are_wanted and self._needs_schema and not _all_have_schema(lines):
            self.are_wanted = False
            self.discard()
        if not self.are_wanted or not lines:
            return
        self._compare(terms)
        ends = 0 if lines[0].endswith(b"\n") else 1
        self.sizes.fromlist([len(line) + ends for line in lines] if ends else list(map(len, lines)))
        assert self._file is not None, "the pass has begun"
        with storage_errors(_FAILED):
            self._file.add(identities(piece, lines, self._digest, are_ours=self._are_ours))

    def _compare(self, terms: Terms | list[Terms]) -> None:
        each = terms if isinstance(terms, list) else [terms]
        if not self._has_seen:
            self._has_seen, self.terms = True, each[0]
        if self.terms is not None and (
            self.terms.media or not all(one is self.terms or one == self.terms for one in each)
        ):
            self.terms = None


def write_identities(requests: Path, path: Path, digest: RequestDigest, *, are_ours: bool = False) -> None:
    """Write down the identities of checked lines, in place of those that were not taken while they were checked.

    Raises:
        PathError: the lines cannot be read.
        StorageError: the file cannot be written.
    """
    with SourceFile(requests) as source, storage_errors(_FAILED), IdentityFile(path) as file:
        for piece in pieces(source):
            # None is: they were checked.
            if not isinstance(piece, LongLine):
                file.add(identities(piece, ended_lines(piece), digest, are_ours=are_ours))


def identities(piece: bytes, lines: Sequence[bytes], digest: RequestDigest, *, are_ours: bool = False) -> list[bytes]:
    """Return the identity of each line of a piece; `are_ours` says that they are written in one way."""
    requests = lines.requests if isinstance(lines, CutLines) else _requests(piece, lines, are_ours=are_ours)
    # The function is called as it is: another one around it takes as long as the digest itself.
    return list(map(digest.of_bytes, requests, repeat(digest.seed)))


def _requests(piece: bytes, lines: Sequence[bytes], *, are_ours: bool) -> list[bytes]:
    """Return of each line what follows the first bracket of its request, in its canonical form, and a line end."""
    if not (lines and (are_ours or _may_be_canonical(piece, lines[0]))):
        return [_canonical(line) for line in lines]
    cut = [line.partition(BETWEEN) for line in lines]
    if not all(request and (are_ours or _has_key_only(before)) for before, _, request in cut):
        return [_canonical(line) for line in lines]
    # The last line of a file may have no end, or none of these lines has one.
    return [request if request.endswith(b"\n") else request + b"\n" for _, _, request in cut]


def _may_be_canonical(piece: bytes, first: bytes) -> bool:
    """True for a piece without escapes that need not be, whose first line has no space behind its first member's name.

    Lines that follow each other come from one writer.
    """
    if _ESCAPED(piece) is not None:
        return False
    start = first.find(BETWEEN)
    name = first.find(b'":', start + len(BETWEEN))
    return start > 0 and first[name + 2 : name + 3] != b" "


def _has_key_only(before: bytes) -> bool:
    """True for what stands before a request that has a key and nothing else in front of it.

    A member of the request may be called `request`, too: where that was found, the bracket of the request is before it.
    """
    return before.startswith(_START) and before.count(b"{") == 1


def _canonical(line: bytes) -> bytes:
    """Return the request of a line in its canonical form behind its first bracket, with what ends the line."""
    try:
        return msgspec.json.encode(_decode(line).request)[1:] + b"}\n"
    except (msgspec.MsgspecError, ValueError, RecursionError):
        # A request that only the exact check takes is the same as another one where its bytes are.
        before, _, request = line.removesuffix(b"\n").partition(BETWEEN)
        return (request if request and _has_key_only(before) else line.removesuffix(b"\n")) + b"\n"


def _all_have_schema(lines: Sequence[bytes]) -> bool:
    name = next((name for name in _SCHEMAS if name in lines[0]), None) if lines else None
    if name is not None and all(name in line for line in lines):
        return True
    return all(any(name in line for name in _SCHEMAS) for line in lines)
