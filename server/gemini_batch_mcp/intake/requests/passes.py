"""One pass over a request file that looks at everything: for the full report, or to write a copy that can be sent."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from gemini_batch_mcp.domain import ChosenRows, Task
from gemini_batch_mcp.errors import Problem, RequestProblems, UsageError
from gemini_batch_mcp.intake.opened import SourceFile, unreadable
from gemini_batch_mcp.intake.requests.filling import Filling
from gemini_batch_mcp.intake.requests.keys import KeyLog, Keys
from gemini_batch_mcp.intake.requests.lines import (
    BOM,
    LineChecker,
    LongLine,
    Onlooker,
    ended_lines,
    is_blank,
    pieces,
    split_lines,
    without_marks,
)
from gemini_batch_mcp.intake.requests.mending import Slip
from gemini_batch_mcp.intake.requests.skipping import LeftOut
from gemini_batch_mcp.intake.rows.spreading import NO_ROW, Spread, chosen, digest, has
from gemini_batch_mcp.intake.unpacked import is_packed, unpacking
from gemini_batch_mcp.intake.validator.validate import CheckedLine, long_line
from gemini_batch_mcp.intake.validator.world import CLOSED, Note, World

#: Problems that a report describes; all are counted.
MAX_REPORTED: Final = 20
#: Kinds of notes that a report describes.
MAX_NOTES: Final = 10
#: Where what comes out is held to a limit, and not what goes in.
NO_LIMIT_BYTES: Final = 1 << 62
#: Bytes hashed at a time: between two blocks, it has to wait for its turn among threads that do not let others run.
_HASHED_BYTES: Final = 1 << 24


@dataclass(frozen=True, slots=True)
class PassedOver:
    """So many lines that are not looked at."""

    lines: int


@dataclass
class Report:
    """Problems and warnings, as they come up in one source. `unit` is what the source is made of."""

    unit: str = "line"
    problems: list[Problem] = field(default_factory=list)
    problem_count: int = 0
    blank_lines: int = 0
    has_bom: bool = False
    has_cr: bool = False
    slips: Counter[Slip] = field(default_factory=Counter)
    first_slips: dict[Slip, int] = field(default_factory=dict)
    notes: Counter[Note] = field(default_factory=Counter)
    first_notes: dict[Note, int] = field(default_factory=dict)
    #: Notes of kinds beyond those that are described.
    more_notes: int = 0
    #: What is said of the lines that a pilot takes.
    spread: str = ""

    @property
    def differs(self) -> bool:
        """True when what can be sent is not what was read."""
        return self.has_bom or self.has_cr or bool(self.blank_lines or self.slips)

    def add(self, checked: CheckedLine) -> None:
        """Add the problems of one line."""
        self.problems += checked.problems[: max(0, MAX_REPORTED - len(self.problems))]
        self.problem_count += checked.problem_count

    def add_notes(self, notes: frozenset[Note], number: int) -> None:
        """Note what is said of the line of that number."""
        for note in sorted(notes):
            if note not in self.notes and len(self.notes) == MAX_NOTES:
                self.more_notes += 1
                continue
            self.notes[note] += 1
            self.first_notes.setdefault(note, number)

    def add_slips(self, slips: frozenset[Slip], number: int) -> None:
        """Note what was put right in the line of that number."""
        for slip in slips:
            self.slips[slip] += 1
            self.first_slips.setdefault(slip, number)

    def add_repeats(self, keys: KeyLog) -> None:
        """Add the lines whose key came before."""
        repeats = keys.repeats(MAX_REPORTED, self.unit)
        self.problems = sorted([*self.problems, *repeats.problems], key=lambda problem: problem.line)[:MAX_REPORTED]
        self.problem_count += repeats.count

    def warnings(self) -> tuple[str, ...]:
        """Return a sentence for each kind of thing that differs in what is sent."""
        sentences = [self.spread] if self.spread else []
        if self.has_bom:
            sentences.append("A byte-order mark was removed.")
        if self.has_cr:
            sentences.append("Carriage returns at line ends were removed.")
        if self.blank_lines:
            plural = "" if self.blank_lines == 1 else "s"
            sentences.append(f"{self.blank_lines:,} blank line{plural} {'was' if not plural else 'were'} skipped.")
        sentences += [
            slip.warning(self.slips[slip], self.first_slips[slip], self.unit) for slip in Slip if slip in self.slips
        ]
        sentences += [note.warning(count, self.first_notes[note], self.unit) for note, count in self.notes.items()]
        if self.more_notes:
            sentences.append(f"{self.more_notes:,} more such warnings, about other members, are not listed.")
        return tuple(sentences)

    def as_error(self, source: str) -> RequestProblems:
        """Return the report on `source` as the error that refuses it."""
        count = self.problem_count
        message = f"{source} has {count:,} problem{'' if count == 1 else 's'}; nothing was submitted."
        shown = len(self.problems)
        step = "Correct them" if shown == count else f"The first {shown} are listed. Correct them"
        step = f"{step}, then submit the order again."
        return RequestProblems(self.problems, count, message, step, warnings=self.warnings())


def check_size(path: Path, max_file_bytes: int) -> int:
    """Return the size of a request file in bytes.

    Raises:
        UsageError: it is empty, or larger than what can be sent.
        PathError: it cannot be read.
    """
    try:
        size_bytes = path.stat().st_size
    except OSError as error:
        raise unreadable(path, error) from None
    if size_bytes == 0:
        raise UsageError(f"{path.name} is empty.", 'Write one {"key":"…","request":{…}} on each line.')
    if size_bytes > max_file_bytes:
        raise too_large(path.name, size_bytes, max_file_bytes)
    return size_bytes


def too_large(name: str, size_bytes: int, max_file_bytes: int) -> UsageError:
    """Return the error for a request file over the limit."""
    return UsageError(
        f"{name} has {size_bytes:,} bytes; a batch file has at most {max_file_bytes:,}.",
        "Split it into several files.",
    )


def no_requests(name: str) -> UsageError:
    """Return the error for a file of blank lines only."""
    return UsageError(f"{name} contains no requests.", 'Write one {"key":"…","request":{…}} on each line.')


def spread_lines(file: BinaryIO, spread: Spread) -> ChosenRows:
    """Return the lines that a spread takes, blank ones never. The file is at its beginning, before and afterwards."""
    found = chosen(_digests(file), spread.rows)
    file.seek(0)
    return found


def run(
    file: BinaryIO,
    task: Task,
    keys: KeyLog,
    report: Report,
    limit_rows: int = 0,
    onlooker: Onlooker | None = None,
    world: World = CLOSED,
    filling: Filling | None = None,
    left_out: LeftOut | None = None,
    rows: ChosenRows | None = None,
) -> Iterator[bytes]:
    """Check a file; yield what can be sent, in whole lines, while filling `keys` and `report`.

    With `limit_rows`, only so many lines are looked at, blank ones not counted; with `rows`, only those. What is
    yielded is worth nothing if the report has problems at the end. With `left_out`, wrong lines go there instead, and
    the rest is worth something.

    Raises:
        RepeatsFound: only with `left_out`.
    """
    if left_out is not None:
        left_out.begin()
    checker = LineChecker(task, onlooker, world, filling)
    number = 0
    found: Iterator[bytes | LongLine | PassedOver] = pieces(file)
    if rows is not None:
        found = _only_chosen(pieces(file), rows)
    elif limit_rows:
        found = _first_rows(pieces(file), limit_rows)
    for piece in found:
        if isinstance(piece, PassedOver):
            number += piece.lines
            keys.skip_lines(piece.lines)
            continue
        if isinstance(piece, LongLine):
            number += 1
            keys.skip_line()
            checked = long_line(piece.size_bytes, number)
            if left_out is not None:
                left_out.add_checked(number, checked)
            else:
                report.add(checked)
            continue
        if number == 0 and piece.startswith(BOM):
            piece, report.has_bom = without_marks(piece), True
        if b"\r" in piece:
            # Outside of strings a carriage return is white space, and inside it is an error that stays one.
            piece, report.has_cr = piece.replace(b"\r\n", b"\n").removesuffix(b"\r"), True
        lines = ended_lines(piece)
        repeats = left_out is not None and left_out.has_repeats_in(number, len(lines))
        filled = None if repeats else checker.filled(lines)
        sent = piece if filled is lines or filled is None else b"".join(filled)
        if filled is not None and (fast := checker.keys(sent, filled, number)) is not None:
            keys.extend(fast)
            yield sent if sent.endswith(b"\n") else sent + b"\n"
        else:
            yield _examined(split_lines(piece), number, checker, keys, report, left_out)
        number += len(lines)
    if left_out is not None:
        left_out.refuse_repeats(keys)
    else:
        report.add_repeats(keys)


def _only_chosen(found: Iterator[bytes | LongLine], rows: ChosenRows) -> Iterator[bytes | LongLine | PassedOver]:
    """Yield of the pieces of a file the lines that are chosen, and in their places what is said of the others."""
    number = passed = 0
    for piece in found:
        for line in [piece] if isinstance(piece, LongLine) else split_lines(piece):
            number += 1
            if not has(rows, number):
                passed += 1
                continue
            if passed:
                yield PassedOver(passed)
                passed = 0
            yield line if isinstance(line, LongLine) else line + b"\n"


def _digests(file: BinaryIO) -> Iterator[int]:
    """Yield a number for each line, by what it says: not by how it ends."""
    is_first = True
    for piece in pieces(file):
        if isinstance(piece, LongLine):
            yield digest(b"%d" % piece.size_bytes)
            continue
        for line in split_lines(piece):
            content = without_marks(line) if is_first else line
            is_first = False
            yield NO_ROW if is_blank(content) else digest(content.strip())


def _first_rows(found: Iterator[bytes | LongLine], limit_rows: int) -> Iterator[bytes | LongLine]:
    """Cut pieces off behind the line that has that number among those that are not blank."""
    left = limit_rows
    for piece in found:
        if isinstance(piece, LongLine):
            left -= 1
            yield piece
        else:
            lines = split_lines(piece)
            for count, line in enumerate(lines, 1):
                left -= not is_blank(without_marks(line))
                if not left:
                    piece = b"\n".join(lines[:count]) + b"\n"
                    break
            yield piece
        if not left:
            return


def _examined(
    lines: list[bytes], before: int, checker: LineChecker, keys: KeyLog, report: Report, left_out: LeftOut | None
) -> bytes:
    """Check lines one by one; return those that can be sent."""
    sendable = []
    for number, line in enumerate(lines, before + 1):
        if left_out is not None and left_out.takes(number, line):
            keys.skip_line()
            continue
        examined = checker.examine(line, number)
        if left_out is not None and examined.checked.problem_count:
            left_out.add_checked(number, examined.checked, line)
            keys.skip_line()
            continue
        if examined.checked.key:
            keys.extend(Keys([examined.checked.key]))
        else:
            keys.skip_line()
        if examined.blank:
            report.blank_lines += 1
            continue
        report.add(examined.checked)
        report.add_slips(examined.slips, number)
        report.add_notes(examined.checked.notes, number)
        sendable.append(examined.line)
    return b"".join(line + b"\n" for line in sendable)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, or of what is in a packed one, as lowercase hex. Other threads run on meanwhile.

    Raises:
        PathError: the file cannot be read.
        UsageError: it is packed, and cannot be unpacked.
    """
    digest = hashlib.sha256()
    if is_packed(path):
        # The same rows are the same order, packed or not.
        with unpacking(path) as unpacked:
            while packed_block := unpacked.read(_HASHED_BYTES):
                digest.update(packed_block)
        return digest.hexdigest()
    with SourceFile(path) as file:
        block = memoryview(bytearray(min(_HASHED_BYTES, max(1, os.fstat(file.fileno()).st_size))))
        while size := file.readinto(block):
            digest.update(block[:size])
    return digest.hexdigest()
