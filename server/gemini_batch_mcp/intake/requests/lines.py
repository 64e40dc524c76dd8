"""Whole lines out of a file, and the quick way to check them: fast decoders first, the exact check for the rest."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import repeat
from typing import Any, BinaryIO, Final, Protocol

import msgspec

from gemini_batch_mcp.domain import Task
from gemini_batch_mcp.intake.requests.filling import Filling
from gemini_batch_mcp.intake.requests.keys import Keys
from gemini_batch_mcp.intake.requests.mending import Slip, mend, respell, to_line
from gemini_batch_mcp.intake.validator.decoders import (
    NOT_TAKEN,
    Flavour,
    LineDecoder,
    RequestLine,
    as_members,
    flavour_of,
    line_decoder,
)
from gemini_batch_mcp.intake.validator.json_text import parse
from gemini_batch_mcp.intake.validator.terms import PLAIN, Terms, terms_of
from gemini_batch_mcp.intake.validator.together import check_together
from gemini_batch_mcp.intake.validator.validate import CheckedLine, check_parsed, parse_line
from gemini_batch_mcp.intake.validator.walk import Findings
from gemini_batch_mcp.intake.validator.world import CLOSED, World
from gemini_batch_mcp.settings import MAX_LINE_BYTES

BOM: Final = b"\xef\xbb\xbf"
#: Bytes per read.
BLOCK_BYTES: Final = 1 << 20
#: Bytes checked at a time: little enough to stay in the processor's cache and to keep other threads waiting for less
#: than 1 ms.
PIECE_BYTES: Final = 1 << 18
#: Right lines that no decoder took, or their bytes, before the next one is built: building one takes about 8 ms, as
#: long as 200 exact checks of small lines or those of 2 MB.
_PATIENCE: Final = 64
_PATIENCE_BYTES: Final = 1 << 20
#: Decoders of one file; lines that need yet another keep to the exact check.
_MAX_FLAVOURS: Final = 8
#: Lines from this length on are cut with `find`, which looks at many bytes at once; `split` looks at each.
_LONG_LINE_BYTES: Final = 1 << 10
_KEY_NAME: Final = b'"key"'
#: What stands before the key and before what is in the request, in lines as they are rendered here. In no JSON string
#: does the second stand as it is: the quotes in it are escaped there.
_START: Final = b'{"key":'
BETWEEN: Final = b',"request":{'
_SPACED_START: Final = b'{"key": '
_WHITESPACE: Final = b" \t\r"


@dataclass(frozen=True, slots=True)
class LongLine:
    """A line over `MAX_LINE_BYTES`, which was read past and not kept."""

    size_bytes: int


@dataclass(frozen=True, slots=True)
class Examined:
    """One line after the exact check. `slips` says what was put right; `line` is what to send then."""

    checked: CheckedLine
    line: bytes
    slips: frozenset[Slip] = frozenset()
    blank: bool = False


class Onlooker(Protocol):
    """Sees every line that is right, in order and as it is sent, in the pass that checks it."""

    def begin(self) -> None:
        """Forget all lines: the pass begins anew."""

    def see(self, piece: bytes, lines: Sequence[bytes], keys: bytes, before: int, terms: Terms | list[Terms]) -> None:
        """Look at the `lines` of a piece (which may have line ends or not).

        `keys` are those of the lines, one JSON string a line; `before` says how many lines of the source stand before
        the first one; `terms` what each line asks for, or all of them.
        """


class Unseen:
    """An onlooker that looks away."""

    def begin(self) -> None:
        """Do nothing."""

    def see(self, piece: bytes, lines: Sequence[bytes], keys: bytes, before: int, terms: Terms | list[Terms]) -> None:
        """Do nothing."""


class CutLines(list[bytes]):
    """Lines with their ends as they are rendered here, cut into keys and requests; with `keys_are_made`, all by us.

    `keys` are one JSON string a line, `requests` what of each line follows the first bracket of its request.
    """

    def __init__(self, lines: list[bytes], *, keys_are_made: bool = False) -> None:
        super().__init__(lines)
        self._start, self._requests = 0, list[bytes]()
        # Made keys have a digit more only after 999,999 rows, so those of a piece are nearly always of one length.
        end = lines[0].index(BETWEEN)
        if keys_are_made and lines[-1].index(BETWEEN) == end:
            self.keys = b"\n".join([line[len(_START) : end] for line in lines])
            self._start = end + len(BETWEEN)
            return
        # Measured: two thirds of the time that it takes to find the place, and to take what is before.
        cut = [line.partition(BETWEEN) for line in lines]
        before = b"\n".join([before for before, _, _ in cut])
        self.keys = before.removeprefix(_START).replace(b"\n" + _START, b"\n")
        self._requests = [request for _, _, request in cut]
        assert all(self._requests), "every line has a request"

    @property
    def requests(self) -> list[bytes]:
        """What of each line follows the first bracket of its request, with the end of the line."""
        if not self._requests:
            self._requests = [line[self._start :] for line in self]
        return self._requests


class LineSplitter:
    """Cuts blocks of any size into pieces of whole lines. Lines end at LF bytes only, never inside a JSON string."""

    def __init__(self) -> None:
        #: Bytes of the line that no piece has held yet.
        self.held_bytes = 0
        # Views, because a copy of megabytes costs as much as checking them.
        self._parts: list[memoryview] = []

    def feed(self, block: bytes) -> Iterator[bytes | LongLine]:
        """Yield the pieces that end inside `block`; the rest is held for the next one."""
        start = 0
        if self.held_bytes > MAX_LINE_BYTES and (end := block.find(b"\n")) >= 0:
            yield LongLine(self.held_bytes + end)
            self.held_bytes = 0
            start = end + 1
        while start < len(block):
            near = min(start + PIECE_BYTES, len(block))
            cut = block.rfind(b"\n", start, near) + 1 or block.find(b"\n", near) + 1
            if not cut:
                self._hold(memoryview(block)[start:])
                return
            if self._parts:
                piece = b"".join([*self._parts, memoryview(block)[start:cut]])
                self._parts = []
            else:
                piece = block[start:cut]
            self.held_bytes = 0
            yield piece
            start = cut

    def end(self) -> Iterator[bytes | LongLine]:
        """Yield the last line if it has no line end."""
        if self.held_bytes > MAX_LINE_BYTES:
            yield LongLine(self.held_bytes)
        elif self.held_bytes:
            yield b"".join(self._parts)

    def _hold(self, part: memoryview) -> None:
        self.held_bytes += len(part)
        # Of a line that is too long, only the size is kept.
        self._parts = [*self._parts, part] if self.held_bytes <= MAX_LINE_BYTES else []


def pieces(file: BinaryIO) -> Iterator[bytes | LongLine]:
    """Yield a file in pieces of whole lines; only the last one may lack its line end."""
    splitter = LineSplitter()
    while block := file.read(BLOCK_BYTES):
        yield from splitter.feed(block)
    yield from splitter.end()


def split_lines(piece: bytes) -> list[bytes]:
    """Return the lines of a piece without their line ends."""
    end = piece.find(b"\n")
    if end < _LONG_LINE_BYTES:
        lines = piece.split(b"\n")
        if not lines[-1]:
            # What follows the last line end. Removing that first would copy the piece once more.
            lines.pop()
        return lines
    lines, start = [], 0
    while end >= 0:
        lines.append(piece[start:end])
        start = end + 1
        end = piece.find(b"\n", start)
    if start < len(piece):
        lines.append(piece[start:])
    return lines


def ended_lines(piece: bytes) -> list[bytes]:
    """Return the lines of a piece with their line ends, which `Onlooker` and `LineChecker.keys` take as well.

    Measured on lines of 1,000 bytes: a quarter of the time of `split_lines`, which is a fifth of a whole pass.
    """
    return BytesIO(piece).readlines()


def without_marks(data: bytes) -> bytes:
    """Return the beginning of a file without byte-order marks; two tools may each have written one."""
    while data.startswith(BOM):
        data = data.removeprefix(BOM)
    return data


def is_blank(line: bytes) -> bool:
    """True for a line without anything but the white space of JSON."""
    return not line.strip(_WHITESPACE)


class LineChecker:
    """Checks lines of one file. It learns which flavour of decoder the file needs; small files need none."""

    def __init__(
        self,
        task: Task,
        onlooker: Onlooker | None = None,
        world: World = CLOSED,
        filling: Filling | None = None,
    ) -> None:
        self.task = task
        self.world = world
        self._filling = filling
        self._onlooker = onlooker or Unseen()
        self._onlooker.begin()
        self._decoders: list[LineDecoder] = []
        self._flavours: set[Flavour] = set()
        #: Settings that go together: all of them, how their first looks at the end of a line, and the others.
        self._usual: tuple[Any, ...] = ()
        self._end = b""
        self._beside: tuple[Any, ...] = ()
        self._misses = 0
        self._missed_bytes = 0

    def keys(self, piece: bytes, lines: list[bytes], before: int) -> Keys | None:
        """Return the keys if every line of a piece is right as it is, or None when some line needs a closer look.

        `before` says how many lines stand before the piece.
        """
        if not self._decoders:
            return None
        decoder = self._decoders[0]
        decode, terms = decoder.decode, decoder.terms
        if decoder.may_call and _has_calls(piece):
            return None
        try:
            if terms is None:
                keys = Keys([decode(line).key for line in lines])
                found: Terms | list[Terms] = PLAIN
            else:
                decoded = [decode(line) for line in lines]
                if self.world.model and not self._are_usual(lines, decoded, decoder):
                    return None
                keys = Keys([line.key for line in decoded])
                found = [terms(line.request) for line in decoded]
        except NOT_TAKEN:
            return None
        if not _all_single(lines, keys):
            return None
        self._onlooker.see(piece, lines, keys.written, before, found)
        return keys

    def filled(self, lines: list[bytes]) -> list[bytes] | None:
        """Return lines with an order's settings in them, as they stand where there are none; None if some must be read.

        What comes back has line ends.
        """
        if self._filling is None:
            return lines
        quick = [self._filling.quick(line) for line in lines]
        return None if None in quick else [line for line in quick if line is not None]

    def examine(self, line: bytes, number: int) -> Examined:
        """Check one line, by a decoder if one takes it."""
        if self._filling is not None:
            quick = self._filling.quick(line)
            # What is read first is filled in by the exact check.
            taken = self._taken(quick[:-1]) if quick is not None else None
            line = quick[:-1] if taken is not None and quick is not None else line
        else:
            taken = self._taken(line)
        if taken is not None:
            key, found = taken
            self._onlooker.see(line, (line,), msgspec.json.encode(key), number - 1, found)
            return Examined(CheckedLine(key), line)
        if is_blank(line):
            return Examined(CheckedLine(""), b"", blank=True)
        examined = examine(line, number, self.task, self.world, self._filling)
        if not examined.checked.problem_count:
            request = parse(examined.line)["request"]
            written = msgspec.json.encode(examined.checked.key)
            self._onlooker.see(examined.line, (examined.line,), written, number - 1, terms_of(request))
            if not examined.slips and not examined.checked.notes:
                self._learn(line, request)
        return examined

    def _taken(self, line: bytes) -> tuple[str, Terms] | None:
        for index, decoder in enumerate(self._decoders):
            if decoder.may_call and _has_calls(line):
                continue
            try:
                decoded = decoder.decode(line)
            except NOT_TAKEN:
                continue
            if self.world.model and not self._are_usual([line], [decoded], decoder):
                return None
            if index:
                self._decoders.insert(0, self._decoders.pop(index))
            key, terms = decoded.key, decoder.terms
            return (key, terms(decoded.request) if terms else PLAIN) if _single(line, key) else None
        return None

    def _are_usual(self, lines: list[bytes], decoded: list[RequestLine], decoder: LineDecoder) -> bool:
        """True for lines whose settings go together; most have those of the line before, and mostly at their end.

        Comparing the bytes of a schema takes a tenth of comparing what was decoded (measured).
        """
        beside = decoder.beside
        if beside is None:
            return True
        for line, right in zip(lines, decoded, strict=True):
            if self._end and line.endswith(self._end) and beside(right.request) == self._beside:
                continue
            if not self._is_usual(right.request, decoder):
                return False
            at = line.find(decoder.config_name)
            self._end, self._beside = line[at:] if at >= 0 else b"", beside(right.request)
        return True

    def _is_usual(self, request: Any, decoder: LineDecoder) -> bool:
        settings = decoder.settings(request) if decoder.settings is not None else ()
        if settings == self._usual:
            return True
        findings = Findings()
        check_together(as_members(settings), self.world.model, findings, is_cloud=self.world.is_cloud)
        if findings.count or findings.notes:
            return False
        self._usual = settings
        return True

    def _learn(self, line: bytes, request: dict[str, Any]) -> None:
        """Build the decoder for lines like this one, when there have been enough of them to be worth it."""
        self._misses += 1
        self._missed_bytes += len(line)
        is_time = self._misses >= _PATIENCE or self._missed_bytes >= _PATIENCE_BYTES
        if not is_time or len(self._flavours) == _MAX_FLAVOURS:
            return
        self._misses = self._missed_bytes = 0
        flavour = flavour_of(request, self.task, needs_role=self.world.is_cloud)
        if flavour not in self._flavours:
            self._flavours.add(flavour)
            self._decoders.insert(0, line_decoder(self.task, flavour))


def _has_calls(line: bytes) -> bool:
    """True for what may hold a function call, in either spelling; calls and their answers go together."""
    return b'unctionCall"' in line or b'unction_call"' in line


def _all_single(lines: list[bytes], keys: Keys) -> bool:
    """True when no line has two keys that differ; decoders keep the last of two members of one name."""
    spaced = lines[0].startswith(_SPACED_START)
    starts = keys.starts(_SPACED_START if spaced else _START)
    if all(map(bytes.startswith, lines, starts)):
        return True
    counts = map(bytes.count, lines, repeat(_KEY_NAME))
    return all(count == 1 or _single(line, key) for line, key, count in zip(lines, keys.keys, counts, strict=True))


def _single(line: bytes, key: str) -> bool:
    """True when `"key"` stands in the line once, or first and with that value."""
    written = msgspec.json.encode(key)
    return line.startswith((_START + written, _SPACED_START + written)) or line.count(_KEY_NAME) == 1


def examine(line: bytes, number: int, task: Task, world: World = CLOSED, filling: Filling | None = None) -> Examined:
    """Check one line exactly, after putting right what can be."""
    value, checked = parse_line(line, number)
    if checked is not None:
        return Examined(checked, line)
    slips = mend(value, task, needs_role=world.is_cloud)
    is_filled = filling is not None and filling.into(value)
    checked = check_parsed(value, number, task, world)
    if checked.problem_count and (respelled := respell(value, task)):
        slips |= respelled
        checked = check_parsed(value, number, task, world)
    if checked.problem_count or not (slips or is_filled):
        return Examined(checked, line)
    return Examined(checked, to_line(value), slips)
