"""The encoding of a file that neither a mark nor UTF-8 settles: found out from lines all over it, or asked about.

Every byte beyond ASCII that occurs in the file occurs in what is looked at, so that two encodings which read that alike
read the whole file alike.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from gemini_batch_mcp.errors import Problem, RequestProblems, UsageError
from gemini_batch_mcp.intake.encodings._judging import Reading, is_sure, readings
from gemini_batch_mcp.intake.encodings.names import UTF_8, Page

_BLOCK_BYTES: Final = 1 << 20
#: Lines that are looked at: of the first block, of each later one, of all together.
_FIRST_LINES, _LATER_LINES, _MOST_LINES = 60, 4, 300
_LINE_BYTES: Final = 2_000
_SAMPLE_BYTES: Final = 16_000
_CUT: Final = re.compile(rb'.*[ ,;"\t]', re.DOTALL)
_CELLS: Final = re.compile(r'[,;\t|"\r\n]+')
_SHOWN_CELLS, _SHOWN_CHARS, _SHOWN_READINGS = 3, 40, 3
#: Readings that are further behind the best one are not worth a question.
_LIKELY_LEAD: Final = 8.0
#: By how much one line has to speak for another encoding than all of them together do.
_MIXED_LEAD: Final = 8.0


@dataclass(slots=True)
class Sample:
    """Lines with bytes beyond ASCII, by their numbers from 1; those that are UTF-8 apart from those that are not."""

    other: dict[int, bytes] = field(default_factory=dict)
    unicode: dict[int, bytes] = field(default_factory=dict)
    _seen: set[int] = field(default_factory=set)
    _size_bytes: int = 0

    def add(self, number: int, line: bytes) -> None:
        """Take a line in, or as much of it as is cut where no character is."""
        if len(line) > _LINE_BYTES and (cut := _CUT.match(line[:_LINE_BYTES])) is not None and not cut[0].isascii():
            line = cut[0]
        self._seen.update(byte for byte in line if byte >= 0x80)
        self._size_bytes += len(line)
        (self.unicode if _is_utf8(line) else self.other)[number] = line

    def wants(self, line: bytes) -> bool:
        """True while there is room, and for a line with a byte that no other one has."""
        has_room = len(self.other) + len(self.unicode) < _MOST_LINES and self._size_bytes < _SAMPLE_BYTES
        return has_room or not self._seen.issuperset(byte for byte in set(line) if byte >= 0x80)

    def has_new(self, block: bytes) -> bool:
        """True when there are bytes in it that no line has yet."""
        return not self._seen.issuperset(byte for byte in set(block) if byte >= 0x80)


def sample(file: BinaryIO) -> Sample:
    """Choose lines of a file that is read from where it stands."""
    chosen = Sample()
    number, rest, is_first = 1, b"", True
    while block := file.read(_BLOCK_BYTES):
        end = b"\n" if b"\n" in block or b"\r" not in block else b"\r"
        lines = (rest + block).split(end)
        rest = lines.pop()
        _choose(chosen, number, lines, _FIRST_LINES if is_first else _LATER_LINES)
        number, is_first = number + len(lines), False
    _choose(chosen, number, [rest], 1)
    return chosen


def find_page(name: str, chosen: Sample, damage: tuple[int, int]) -> Page:
    """Return the encoding of a file of that name. `damage` is the line and the byte at which it stops being UTF-8.

    Raises:
        RequestProblems: lines have different encodings, or it is text in none.
        UsageError: it may be read in several ways; shows them, and asks.
    """
    found = readings(b"\n".join(chosen.other.values()))
    if not found:
        line, byte = damage
        raise _refused(name, line, f"The byte 0x{byte:02x} does not fit any common encoding.", "Save it as UTF-8.")
    pages = [reading.page for reading in found[:4]]
    if is_sure(found):
        _refuse_mixed(name, pages, chosen)
        return pages[0]
    raise _question(name, _likely(found), chosen)


def _choose(chosen: Sample, first: int, lines: Sequence[bytes], count: int) -> None:
    beyond = [(number, line) for number, line in enumerate(lines, first) if not line.isascii()]
    step = max(1, len(beyond) // count)
    for number, line in beyond[::step]:
        if chosen.wants(line):
            chosen.add(number, line)
    if step > 1 and chosen.has_new(b"".join(line for _, line in beyond)):
        for number, line in beyond:
            if chosen.has_new(line):
                chosen.add(number, line)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _refuse_mixed(name: str, pages: Sequence[Page], chosen: Sample) -> None:
    """Refuse a file of which some line is no text in the first of the encodings, and clearly is in another one."""
    usual, *others = pages
    for number, line in sorted({**chosen.other, **chosen.unicode}.items()):
        own = readings(line, [usual])
        if own and own[0].score >= 0:
            continue
        best = readings(line, [*others, UTF_8] if number in chosen.unicode else others)
        if best and best[0].score - (own[0].score if own else 0.0) >= _MIXED_LEAD and best[0].score > 0:
            message = f"It is in {best[0].page.shown}, other lines are in {usual.shown}."
            raise _refused(name, number, message, f"Save every line in one encoding: {UTF_8.shown}.")


def _likely(found: Sequence[Reading]) -> list[Reading]:
    """Return the readings to ask about: the best, the next, and a third one that isn't far behind."""
    near = [reading for reading in found if found[0].score - reading.score < _LIKELY_LEAD]
    return (near if len(near) > 1 else list(found))[:_SHOWN_READINGS]


def _question(name: str, likely: Sequence[Reading], chosen: Sample) -> UsageError:
    cells = _telling(chosen.other.values(), [reading.page for reading in likely])
    texts = zip(*cells, strict=True)
    shown = [f"{reading.page.given}: {' · '.join(text)}" for reading, text in zip(likely, texts, strict=False)]
    names = " or ".join(f'encoding="{reading.page.given}"' for reading in likely)
    if len(likely) == 1:
        return UsageError(
            f"{name} is not UTF-8, and may be {likely[0].page.shown}, though that isn't certain. {'; '.join(shown)}.",
            f"Ask the user whether that is right; then give {names}, or the right one.",
        )
    return UsageError(
        f"{name} is not UTF-8, and its encoding isn't certain; the same cells read as {'; as '.join(shown)}.",
        f"Ask the user which is right; then give {names}, or another one if none of them is.",
    )


def _telling(lines: Iterable[bytes], pages: Sequence[Page]) -> list[list[str]]:
    """Return the first cells that tell the encodings apart, each as every one of them reads it."""
    found: list[list[str]] = []
    for line in lines:
        split = [_CELLS.split(line.decode(page.codec, "replace")) for page in pages]
        if len({len(cells) for cells in split}) > 1:
            split = [[" ".join(cells)] for cells in split]
        for texts in zip(*split, strict=True):
            shown = [text.strip()[:_SHOWN_CHARS] for text in texts]
            if (len(set(shown)) > 1 or (len(pages) == 1 and not shown[0].isascii())) and shown not in found:
                found.append(shown)
                if len(found) == _SHOWN_CELLS:
                    return found
    return found


def _refused(name: str, line: int, message: str, fix: str) -> RequestProblems:
    return RequestProblems(
        [Problem(line, "", message, fix)],
        1,
        f"{name} cannot be read as text; nothing was submitted.",
        "Correct it, then submit the order again.",
    )
