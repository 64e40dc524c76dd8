"""Answer files in slices: ranges of whole lines, small enough to be read while the rest of the file still arrives."""

import io
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: The engine begins every slice with fresh memory: measured at 1 GB, slices of 64 MB cost 0.6 s more than of 256 MB.
#: But the last one is read after the download has ended.
LEAST_SLICE_BYTES: Final = 96 << 20
_READ_BYTES: Final = 1 << 20
_BOM: Final = b"\xef\xbb\xbf"


class AnswerBytes:
    """The bytes of an answer file, also of one that is still arriving and gets its name later.

    The file is open only while bytes are read, and is not read while it moves: not every system lets go of a file that
    somebody has open. May be used from several threads.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def read(self, first_byte: int, size_bytes: int) -> bytes:
        """Return up to `size_bytes` from `first_byte` on, nothing behind the end.

        Raises:
            OSError: the file is not there, or cannot be read.
        """
        with self._lock, self._path.open("rb", buffering=0) as file:
            file.seek(first_byte)
            return file.read(size_bytes)

    @contextmanager
    def moving(self, destination: Path) -> Iterator[None]:
        """Give way while the file is moved to `destination`; it is read there if the block succeeds."""
        with self._lock:
            yield
            self._path = destination


@dataclass(frozen=True, slots=True)
class Slice:
    """Some lines of an answer file, as a range of its bytes."""

    answers: AnswerBytes
    first_byte: int
    size_bytes: int

    def open(self) -> io.BufferedReader:
        """Return these bytes as a file of their own."""
        return io.BufferedReader(self.open_raw(), _READ_BYTES)

    def max_lines(self) -> int:
        """Return a number of lines that it does not have more of, blank ones included. Reads all of it."""
        with self.open_raw() as file:
            return sum(piece.count(b"\n") for piece in iter(lambda: file.read(_READ_BYTES), b"")) + 1

    def open_raw(self) -> io.RawIOBase:
        """Return these bytes as a file that hands out a MiB at the most at a time."""
        return _Range(self)


class SliceCutter:
    """Follows an answer file in pieces of any size, and cuts what has arrived into slices.

    A slice ends where a line ends, and nowhere else. It also never ends before a byte order mark: at the start of a
    file a reader skips one, and lines would be counted in another way than in the whole file.
    """

    def __init__(self, answers: AnswerBytes) -> None:
        self._answers = answers
        self._first_byte = 0
        self._arrived_bytes = 0
        #: Where a slice may end, in ascending order; one place for each piece that has one.
        self._ends: deque[int] = deque()

    def add(self, piece: bytes | bytearray) -> None:
        """Take the next piece, which can be read from the file by now."""
        if end := _end_of_line(piece):
            self._ends.append(self._arrived_bytes + end)
        self._arrived_bytes += len(piece)

    def cut(self, least_bytes: int, most_bytes: int) -> Slice | None:
        """Return the next slice, as long as it can be; None when that is less than `least_bytes`.

        It has more than `most_bytes` only if it cannot end before.
        """
        if not self._ends or self._ends[-1] - self._first_byte < least_bytes:
            return None
        end = self._ends.popleft()
        while self._ends and self._ends[0] - self._first_byte <= most_bytes:
            end = self._ends.popleft()
        return self._until(end)

    def finish(self) -> Slice:
        """Return the last slice: all that is left. It may be empty, and its last line may have no end."""
        return self._until(self._arrived_bytes)

    def _until(self, end: int) -> Slice:
        piece = Slice(self._answers, self._first_byte, end - self._first_byte)
        self._first_byte = end
        return piece


def slices_of(path: Path, most_bytes: int) -> Iterator[Slice]:
    """Yield the slices of an answer file that is there as a whole; there is at least one.

    Raises:
        OSError: the file cannot be read.
    """
    cutter = SliceCutter(AnswerBytes(path))
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_READ_BYTES):
            cutter.add(piece)
            if (done := cutter.cut(most_bytes, most_bytes)) is not None:
                yield done
    while (done := cutter.cut(most_bytes, most_bytes)) is not None:
        yield done
    yield cutter.finish()


def _end_of_line(piece: bytes | bytearray) -> int:
    """Return where the last line of `piece` ends that is surely not followed by a byte order mark, 0 for nowhere."""
    end = piece.rfind(b"\n", 0, max(len(piece) - len(_BOM), 0)) + 1
    return 0 if piece.startswith(_BOM, end) else end


class _Range(io.RawIOBase):
    """A slice as a file. Hands out a MiB at a time at the most, as every reader of a raw file has to expect.

    Measured at 1 GB: pieces of 32 MB, which the engine asks for, cost half a second, in memory that is taken anew.
    """

    def __init__(self, piece: Slice) -> None:
        super().__init__()
        self._piece = piece
        self._position = 0

    def readable(self) -> bool:
        """It is for reading."""
        return True

    def seekable(self) -> bool:
        """It can be read from anywhere."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to a place, counted from the start of the slice; see `io.IOBase.seek`."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._piece.size_bytes}[whence]
        self._position = max(start + offset, 0)
        return self._position

    def tell(self) -> int:
        """Return the place that is read next."""
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes, none at the end; all that are left if `size` is negative."""
        if size < 0:
            return self.readall()
        wanted = min(size, _READ_BYTES, max(self._piece.size_bytes - self._position, 0))
        content = self._piece.answers.read(self._piece.first_byte + self._position, wanted) if wanted else b""
        self._position += len(content)
        return content

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]  # as in intake.opened
        """Fill `buffer` from its start; returns how far."""
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)
