"""One pass over rendered lines: their keys, their count, their digest, and a sample that is checked as a whole."""

import hashlib
import io
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from gemini_batch_mcp.domain import Task
from gemini_batch_mcp.errors import Problem, RequestProblems, StorageError
from gemini_batch_mcp.intake.requests.keys import KeyLog, Keys
from gemini_batch_mcp.intake.requests.lines import (
    CutLines,
    LineChecker,
    LongLine,
    Onlooker,
    Unseen,
    ended_lines,
    pieces,
    split_lines,
)
from gemini_batch_mcp.intake.validator.corrections import shown
from gemini_batch_mcp.intake.validator.decoders import MAX_KEY_CHARACTERS
from gemini_batch_mcp.intake.validator.terms import Terms, terms_of
from gemini_batch_mcp.intake.validator.validate import check_line
from gemini_batch_mcp.intake.validator.world import CLOSED, World
from gemini_batch_mcp.settings import MAX_LINE_BYTES
from gemini_batch_mcp.text import count

_MAX_REPORTED: Final = 20
#: What the engine puts around a line that it does not write as it is; JSON never holds it.
_QUOTE: Final = b"\x02"
#: How a part of a file reads that nobody has written, although later ones are there.
_NOT_THERE: Final = b"\0"
#: Pause of a reader that has caught up with the writer.
_WAIT_SECONDS: Final = 0.01
_KEYS: Final = msgspec.json.Decoder(str)


class GrowingFile(io.RawIOBase):
    """A file of JSON that is read while another thread writes it. Whatever that thread raises, reading raises too.

    The engine hands its blocks to threads that write each at its place, the last ones perhaps first: the file is long
    before all of it is there. What is not there yet reads as NUL, which JSON never holds, so reading stops before it.
    """

    def __init__(self, path: Path, writing: Future[int]) -> None:
        super().__init__()
        self._path = path
        self._writing = writing
        self._file: BinaryIO | None = None

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, up to `size`; wait for them when they are not there and the writer is not done.

        Raises:
            StorageError: the writer is done, and bytes are missing before the end.
        """
        while True:
            done = self._writing.done()
            if block := self._next(size):
                return block
            if done:
                self._writing.result()
                if self._has_gap():
                    raise StorageError("The lines were not written completely.", "Submit the order again.")
                return b""
            wait((self._writing,), timeout=_WAIT_SECONDS)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
        super().close()

    def _next(self, size: int) -> bytes:
        if self._file is None:
            # Not there yet, or not to be shared while it is written, as some systems have it.
            if not self._writing.done() and not self._path.exists():
                return b""
            try:
                self._file = self._path.open("rb", buffering=0)
            except OSError:
                return b""
        block = self._file.read(size)
        if (gap := block.find(_NOT_THERE)) >= 0:
            self._file.seek(gap - len(block), io.SEEK_CUR)
            block = block[:gap]
        return block

    def _has_gap(self) -> bool:
        return self._file is not None and self._file.read(1) == _NOT_THERE


class RowKeys:
    """The keys of the lines, written down as they stand there. Use as a context: only `keep` leaves the file.

    Keys out of a column may be empty, too long or repeated; those that this room makes are none of it.
    """

    def __init__(self, path: Path, column: str) -> None:
        self.column = column
        self._path = path
        self._log = KeyLog(path) if column else None
        self._draft = path.with_name(f"{path.name}.part")
        self._file = None if column else self._draft.open("wb")

    def __enter__(self) -> "RowKeys":
        return self

    def __exit__(self, *_: object) -> None:
        if self._log is not None:
            self._log.discard()
        if self._file is not None:
            self._file.close()
            self._draft.unlink(missing_ok=True)

    def add(self, lines: list[bytes]) -> tuple[CutLines, list[str]]:
        """Add the keys of whole lines; return the lines, cut, and their keys as texts unless all can be used."""
        cut = CutLines(lines, keys_are_made=self._file is not None)
        if self._file is not None:
            cut.keys += b"\n"
            self._file.write(cut.keys)
            return cut, []
        assert self._log is not None
        keys = _KEYS.decode_lines(cut.keys)
        if all(keys) and max(map(len, keys)) <= MAX_KEY_CHARACTERS:
            self._log.extend(Keys(keys))
            return cut, []
        for key in keys:
            if is_usable(key):
                self._log.extend(Keys([key]))
            else:
                self._log.skip_line()
        return cut, keys

    def skip(self) -> None:
        """Say that the next line is too long to be looked at."""
        if self._log is not None:
            self._log.skip_line()

    def repeats(self) -> tuple[int, tuple[Problem, ...]]:
        """Return how many rows repeat a key, and the first of them; `line` is the row."""
        if self._log is None:
            return 0, ()
        repeats = self._log.repeats(_MAX_REPORTED, "row")
        return repeats.count, repeats.problems

    def keep(self) -> None:
        """Put the keys file in its place.

        Raises:
            StorageError, OSError: it could not be written.
        """
        if self._log is not None:
            self._log.keep()
        if self._file is not None:
            self._file.close()
            self._draft.replace(self._path)


def is_usable(key: str) -> bool:
    """True for a key that a line may have."""
    return 0 < len(key) <= MAX_KEY_CHARACTERS


class Inspection:
    """What a file of rendered lines turns out to be. `empty_text` is what only lines without a text hold.

    All lines ask for the same, except where `is_varied`: files go with them. Without `is_hashed` there is no digest.
    """

    def __init__(
        self,
        task: Task,
        keys: RowKeys,
        empty_text: bytes,
        onlooker: Onlooker | None = None,
        *,
        is_varied: bool = False,
        is_hashed: bool = True,
        world: World = CLOSED,
    ) -> None:
        self._onlooker = onlooker or Unseen()
        self._checker = LineChecker(task, self._onlooker, world) if is_varied else None
        self._onlooker.begin()
        self._terms: Terms | None = None
        self._sha256 = hashlib.sha256() if is_hashed else None
        self.size_bytes = 0
        self._task = task
        self._world = world
        self._keys = keys
        self._empty_text = empty_text
        self.count = 0
        self._empty = 0
        self._problems: list[Problem] = []
        self._problem_count = 0
        #: Rows without a key, and the first of them.
        self._keyless = self._first_keyless = 0

    def run(self, file: BinaryIO | Any) -> None:
        """Read all lines. Of each quarter of a megabyte, the first one goes through the whole validator."""
        for piece in pieces(file):
            if isinstance(piece, LongLine):
                self._skip_long(piece.size_bytes)
            elif len(piece) <= MAX_LINE_BYTES:
                self._take(piece)
            else:
                for line in split_lines(piece):
                    if len(line) > MAX_LINE_BYTES:
                        self._skip_long(len(line))
                    else:
                        self._take(line + b"\n")

    def _take(self, piece: bytes) -> None:
        """Look at whole lines, none of which is too long."""
        if self._sha256 is not None:
            self._sha256.update(piece)
        self.size_bytes += len(piece)
        if _QUOTE in piece:
            raise StorageError("The lines were not written exactly as they are.", "Convert the table to Parquet.")
        if self._empty_text:
            self._empty += piece.count(self._empty_text)
        lines = ended_lines(piece)
        self._sample(lines[0].removesuffix(b"\n"))
        cut, unusable = self._keys.add(lines)
        for row, key in enumerate(unusable, self.count + 1):
            self._check_key(key, row)
        self._show(piece, cut)
        self.count += len(lines)

    def _show(self, piece: bytes, lines: CutLines) -> None:
        if self._checker is not None:
            if self._checker.keys(piece, lines, self.count) is None:
                for number, line in enumerate(split_lines(piece), self.count + 1):
                    self._checker.examine(line, number)
            return
        if self._terms is None:
            self._terms = terms_of(msgspec.json.decode(lines[0])["request"])
        self._onlooker.see(piece, lines, lines.keys, self.count, self._terms)

    def refuse(self, name: str, written: int) -> None:
        """Refuse the table when its keys, a sample or the count of lines are not right.

        Raises:
            RequestProblems: they are not.
            StorageError: lines are missing.
        """
        if self.count != written:
            raise StorageError(
                f"{name} was rendered as {self.count:,} lines for {written:,} rows.", "Submit the order again."
            )
        repeat_count, repeats = self._keys.repeats()
        for problem in repeats:
            self._add(problem.key, f"Row {problem.line:,}: {problem.message}", "Choose a column of unique values.")
        self._problem_count += repeat_count - len(repeats)
        if self._problem_count:
            message = f"{name} has {count(self._problem_count, 'problem')}; nothing was submitted."
            step = "Correct the table, then submit the order again."
            raise RequestProblems([*self._without_key(), *self._problems], self._problem_count, message, step)

    def _without_key(self) -> tuple[Problem, ...]:
        if not self._keyless:
            return ()
        more = f" and {self._keyless - 1:,} more have" if self._keyless > 1 else " has"
        message = f"Row {self._first_keyless:,}{more} nothing in the key column {shown(self._keys.column)}."
        return (Problem(0, "", message, "Fill it in, or choose another key column."),)

    def sha256(self) -> str:
        """Return the digest of all lines, where it was wanted."""
        return self._sha256.hexdigest() if self._sha256 is not None else ""

    def warnings(self) -> tuple[str, ...]:
        """Return what is worth knowing about the rows."""
        if not self._empty:
            return ()
        plural = " has" if self._empty == 1 else "s have"
        return (f"{self._empty:,} row{plural} no text, which Gemini refuses.",)

    def _skip_long(self, size_bytes: int) -> None:
        self.count += 1
        self._keys.skip()
        size = f"{size_bytes:,} bytes, more than {MAX_LINE_BYTES:,}"
        self._add("", f"Row {self.count:,} becomes a request of {size}.", "Shorten the row.")

    def _check_key(self, key: str, row: int) -> None:
        if is_usable(key):
            return
        column = shown(self._keys.column)
        if key:
            most = f"Keys have at most {MAX_KEY_CHARACTERS:,} characters: choose another column."
            self._add(key, f"Row {row:,} has {len(key):,} characters in the key column {column}.", most)
        else:
            # One sentence for all of them: others would have no place left beside twenty.
            self._problem_count += 1
            self._keyless += 1
            self._first_keyless = self._first_keyless or row

    def _sample(self, line: bytes) -> None:
        checked = check_line(line, 0, self._task, self._world)
        # Keys that cannot be used are found in every line, with their rows.
        if checked.key:
            for problem in checked.problems:
                self._add(checked.key, problem.message, problem.fix)

    def _add(self, key: str, message: str, fix: str) -> None:
        self._problem_count += 1
        if len(self._problems) < _MAX_REPORTED:
            self._problems.append(Problem(0, shown(key), message, fix))
