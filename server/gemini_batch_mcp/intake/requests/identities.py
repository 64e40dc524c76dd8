"""The identity of each request, taken in the pass that checks the lines: two requests that are the same have one.

It is a digest over model, task and the request in its canonical form: JSON without white space, characters as they are,
members in their order (Gemini fills in a schema in its order). Files attached to rows are named by their content there.
"""

import re
from collections.abc import Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from gemini_batch_mcp.digests import RequestDigest
from gemini_batch_mcp.domain import Task
from gemini_batch_mcp.errors import storage_errors
from gemini_batch_mcp.intake.asked_schema import AskedSchema
from gemini_batch_mcp.intake.requests.lines import Onlooker
from gemini_batch_mcp.intake.validator.terms import Terms

#: How lines of ours begin, and what stands between key and request. Inside a string its quotes are escaped.
_START: Final = b'{"key":"'
_BETWEEN: Final = b',"request":{'
_NAME: Final = _BETWEEN[:-1]
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


class _Line(msgspec.Struct):
    request: Any


_decode: Final = msgspec.json.Decoder(_Line).decode


class Identities:
    """An onlooker that another one looks through. It writes one identity a line to `path`; to be closed.

    `looks_for_schema`: it is to be found out whether every line asks for an answer in a given form. `are_ours`: the
    lines are rendered here, all in one way.
    """

    def __init__(
        self,
        onlooker: Onlooker,
        path: Path,
        *,
        model: str,
        task: Task,
        looks_for_schema: bool = False,
        are_ours: bool = False,
    ) -> None:
        self._onlooker = onlooker
        self._digest = RequestDigest.of(model, task)
        self.path = path
        self._file: BinaryIO | None = None
        #: What each line asks for while it is the same for all and needs no look at the line; None otherwise.
        self.terms: Terms | None = None
        #: True while it is looked for, and every line asks for an answer in a given form.
        self.have_schema = looks_for_schema
        self._looks_for_schema = looks_for_schema
        self._are_ours = are_ours
        #: What form of an answer the lines ask for.
        self.asked = AskedSchema(lines_are_alike=are_ours)
        self._has_seen = False

    def begin(self) -> None:
        """Forget all lines: the pass begins anew."""
        self._onlooker.begin()
        self.close()
        self.terms, self.have_schema, self._has_seen = None, self._looks_for_schema, False
        self.asked = AskedSchema(lines_are_alike=self._are_ours)
        with storage_errors(_FAILED):
            self._file = self.path.open("wb", buffering=_BUFFER_BYTES)

    def close(self) -> None:
        """Put everything on the disk."""
        if self._file is not None:
            with storage_errors(_FAILED):
                self._file.close()
            self._file = None

    def see(self, piece: bytes, lines: Sequence[bytes], keys: bytes, before: int, terms: Terms | list[Terms]) -> None:
        """Write down the identities of the lines of a piece."""
        self._onlooker.see(piece, lines, keys, before, terms)
        self._compare(terms)
        self.asked.see(piece, lines)
        if self.have_schema:
            self.have_schema = _all_have_schema(lines)
        written = "\n".join(identities(piece, lines, self._digest, are_ours=self._are_ours))
        assert self._file is not None, "the pass has begun"
        with storage_errors(_FAILED):
            self._file.write(written.encode() + b"\n")

    def _compare(self, terms: Terms | list[Terms]) -> None:
        each = terms if isinstance(terms, list) else [terms]
        if not self._has_seen:
            self._has_seen, self.terms = True, each[0]
        if self.terms is not None and (
            self.terms.media or not all(one is self.terms or one == self.terms for one in each)
        ):
            self.terms = None


def identities(piece: bytes, lines: Sequence[bytes], digest: RequestDigest, *, are_ours: bool = False) -> list[str]:
    """Return the identity of each line of a piece; `are_ours` says that they are written in one way."""
    hexdigest, seed = digest.hexdigest, digest.seed
    if lines and (are_ours or _may_be_canonical(piece, lines[0])):
        starts = list(map(bytes.find, lines, repeat(_BETWEEN)))
        if -1 not in starts and all(map(bytes.startswith, lines, repeat(_START))):
            # What follows is the request, and the bracket behind it; the comma and the name are the same for all. The
            # function is called as it is: another one around it takes as long as the digest itself.
            if lines[0].endswith(b"\n"):
                return [hexdigest(line[start:].rstrip(b"\n"), seed) for line, start in zip(lines, starts, strict=True)]
            return [hexdigest(line[start:], seed) for line, start in zip(lines, starts, strict=True)]
    return [hexdigest(_canonical(line), seed) for line in lines]


def _may_be_canonical(piece: bytes, first: bytes) -> bool:
    """True for a piece without escapes that need not be, whose first line has no space behind its first member's name.

    Lines that follow each other come from one writer.
    """
    if _ESCAPED(piece) is not None:
        return False
    start = first.find(_BETWEEN)
    name = first.find(b'":', start + len(_BETWEEN))
    return start > 0 and first[name + 2 : name + 3] != b" "


def _canonical(line: bytes) -> bytes:
    """Return the request of a line in its canonical form, with its name, and the bracket behind it."""
    try:
        return _NAME + msgspec.json.encode(_decode(line).request) + b"}"
    except (msgspec.MsgspecError, ValueError, RecursionError):
        # A request that only the exact check takes is the same as another one where its bytes are.
        return line[line.find(_BETWEEN) :].rstrip(b"\n")


def _all_have_schema(lines: Sequence[bytes]) -> bool:
    name = next((name for name in _SCHEMAS if name in lines[0]), None) if lines else None
    if name is not None and all(name in line for line in lines):
        return True
    return all(any(name in line for name in _SCHEMAS) for line in lines)
