"""The journal of one job's calls: a line before each call leaves and one when its reply is here, each on the disk.

A row whose last line says that its call has begun got no reply that anybody knows of: it may have been answered, and
charged. It is never called again by itself.

    {"row": 3, "begun": "2026-11-29T10:00:00+00:00"}     the call is about to leave
    {"row": 3, "turned_away": "…"}                       it was not answered, and may be made again
    {"row": 3, "lost": "…"}                              its reply is lost
    {"row": 3, "answer": {"key": …, "response": …}}      answered, in the form of a batch's output line
    {"row": 3, "answer": {"key": …, "error": …}}         refused
"""

import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

import msgspec

from gemini_batch_mcp.errors import StorageError, storage_errors
from gemini_batch_mcp.results.table.lines import REPLY_LOST

_FAILED: Final = "The journal of calls could not be written"
#: google.rpc UNKNOWN.
_UNKNOWN: Final = 2
_ENDED: Final = "The process that made the call ended before the reply came."
_MAY_BE_CHARGED: Final = "It may have been answered and charged; retry_failed sends the row once more."


class _Line(msgspec.Struct):
    row: int
    begun: str = ""
    turned_away: str = ""
    lost: str = ""
    answer: msgspec.Raw = msgspec.Raw()


class _Outcome(msgspec.Struct):
    error: msgspec.Raw | None = None


@dataclass(slots=True)
class Standing:
    """How the rows of a job stand, by their numbers from 0: those of `open` have begun and are neither ended nor back.

    Of the ended ones, `answered` counts answers, and `lost` are those whose reply is lost; the others were refused.
    """

    answered: int = 0
    ended: set[int] = field(default_factory=set[int])
    lost: set[int] = field(default_factory=set[int])
    open: set[int] = field(default_factory=set[int])

    def note(self, row: int, what: str, *, is_answer: bool = False) -> None:
        """Take in one line: what it says of a row, and whether a reply in it is an answer."""
        self.open.discard(row)
        if what == "begun":
            self.open.add(row)
        elif what != "turned_away" and row not in self.ended:
            self.ended.add(row)
            self.answered += is_answer
            if what == "lost":
                self.lost.add(row)


@dataclass(slots=True)
class Journal:
    """The journal of one job, open for writing by the one process that holds the batch's lock. Methods block."""

    path: Path
    standing: Standing
    _file: BinaryIO
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or begin a journal. A last line that is not whole was never relied on, and goes.

        Calls that a process which is gone had begun are lost from here on.

        Raises:
            StorageError: it cannot be read or written.
        """
        with storage_errors(_FAILED):
            is_new = not path.exists()
            file = path.open("ab+", buffering=0)
        try:
            with storage_errors(_FAILED):
                _drop_torn_end(file)
                if is_new:
                    _sync_directory(path.parent)
            journal = cls(path, read_standing(path), file)
            for row in sorted(journal.standing.open):
                journal.lose(row, _ENDED)
        except BaseException:
            file.close()
            raise
        return journal

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def begin(self, row: int) -> None:
        """Write that a row's call is about to leave. Before this returns, it must not.

        Raises:
            StorageError: that could not be written: the call must not leave.
        """
        self._write(row, "begun", datetime.now(UTC).isoformat())

    def turn_away(self, row: int, why: str) -> None:
        """Write that a row's call was not answered, and can be made again."""
        self._write(row, "turned_away", why)

    def lose(self, row: int, why: str) -> None:
        """Write that the reply to a row's call is lost."""
        self._write(row, "lost", why)

    def answer(self, row: int, line: Mapping[str, Any]) -> None:
        """Write what came back for a row, as a line of a batch's output."""
        self._write(row, "answer", line)

    def _write(self, row: int, what: str, value: object) -> None:
        # As ASCII: text in an answer may hold half a surrogate pair.
        content = json.dumps({"row": row, what: value}).encode("ascii") + b"\n"
        with self._lock:
            with storage_errors(_FAILED):
                left = memoryview(content)
                while left:
                    left = left[self._file.write(left) :]
                os.fsync(self._file.fileno())
            self.standing.note(row, what, is_answer=isinstance(value, Mapping) and "error" not in value)


def read_standing(path: Path) -> Standing:
    """Return how the rows of a journal stand; nothing has begun where there is none.

    Raises:
        StorageError: it cannot be read.
    """
    standing = Standing()
    for _, line in _sized_lines(path) if path.exists() else ():
        what = next(name for name in ("begun", "turned_away", "lost", "answer") if getattr(line, name))
        is_answer = what == "answer" and msgspec.json.decode(line.answer, type=_Outcome).error is None
        standing.note(line.row, what, is_answer=is_answer)
    return standing


def write_answers(path: Path, keys: Path, destination: Path) -> None:
    """Write what came back to `destination`, as a batch's output has it: a line for each ended row, in row order.

    `keys` holds the keys of the rows, one JSON string a line.

    Raises:
        StorageError: the journal cannot be read, or the answers not be written.
    """
    places: dict[int, bytes | int] = {}
    with keys.open("rb") as names:
        key_of = dict(enumerate(names))
    offset = 0
    for size_bytes, line in _sized_lines(path):
        if line.answer:
            places.setdefault(line.row, offset)
        elif line.lost:
            error = {"code": _UNKNOWN, "status": REPLY_LOST, "message": f"{line.lost} {_MAY_BE_CHARGED}"}
            places.setdefault(
                line.row, b'{"key":%b,"error":%b}' % (key_of[line.row].strip(), msgspec.json.encode(error))
            )
        offset += size_bytes
    draft = destination.with_suffix(".part")
    try:
        with (
            storage_errors(f"{destination.name} could not be written"),
            draft.open("wb") as file,
            path.open("rb") as journal,
        ):
            for _, place in sorted(places.items()):
                content = place
                if isinstance(content, int):
                    journal.seek(content)
                    content = bytes(msgspec.json.decode(journal.readline(), type=_Line).answer)
                file.write(content + b"\n")
        with storage_errors(f"{destination.name} could not be written"):
            draft.replace(destination)
    finally:
        draft.unlink(missing_ok=True)


def _sized_lines(path: Path) -> Iterator[tuple[int, _Line]]:
    """Yield the lines of a journal with their sizes; of a torn last one nothing.

    Raises:
        StorageError: it is damaged, or cannot be read.
    """
    with storage_errors(f"{path.name}, the journal of calls, could not be read"), path.open("rb") as file:
        for content in file:
            if not content.endswith(b"\n"):
                return
            try:
                yield len(content), msgspec.json.decode(content, type=_Line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                raise StorageError(
                    f"{path}, the journal of calls, is damaged.",
                    "Nothing more is sent. Submit the rows that have no answer as a new order.",
                ) from None


def _drop_torn_end(file: BinaryIO) -> None:
    size_bytes = file.seek(0, os.SEEK_END)
    place = size_bytes
    while place:
        start = max(0, place - (1 << 16))
        file.seek(start)
        found = file.read(place - start).rfind(b"\n")
        if found >= 0:
            place = start + found + 1
            break
        place = start
    if place < size_bytes:
        file.truncate(place)
        os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    """Have the name of a new file on the disk as well; a system that cannot do so keeps it anyway."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    number = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
