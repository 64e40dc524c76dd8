"""Answer files in slices: ranges of whole lines, which can be read while the rest of the file still arrives."""

import errno
import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

#: Measured at 1 GB: with pieces of 1 MiB the engine takes a tenth longer, with 32 MiB, which it asks for, as well, in
#: memory that is taken anew.
_READ_BYTES: Final = 4 << 20
#: How far a slice goes past its size at the most, to the end of a line.
_OVER_BYTES: Final = 1 << 20
_BOM: Final = b"\xef\xbb\xbf"
_READ_FLAGS: Final = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


class AnswerBytes:
    """The bytes of an answer file that is still arriving, or is there. May be used from several threads.

    Who reads waits for what has not arrived. The file is open only while bytes are read, and is not read while it is
    moved: not every system lets go of a file that somebody has open.
    """

    def __init__(self) -> None:
        self._path = Path()
        self._arrived_bytes = 0
        self._is_complete = False
        self._is_void = False
        self._news = threading.Condition()
        self._place = threading.Lock()

    @classmethod
    def of(cls, path: Path) -> Self:
        """Return the bytes of a file that is there.

        Raises:
            OSError: it is not.
        """
        answers = cls()
        answers.begin(path)
        answers.arrive(path.stat().st_size)
        answers.complete()
        return answers

    def begin(self, path: Path) -> None:
        """Expect the bytes at `path`."""
        self._path = path

    def arrive(self, size_bytes: int) -> None:
        """So many bytes more can be read."""
        with self._news:
            self._arrived_bytes += size_bytes
            self._news.notify_all()

    def complete(self) -> None:
        """Nothing more arrives."""
        with self._news:
            self._is_complete = True
            self._news.notify_all()

    def void(self) -> None:
        """Nothing of this is true any more: every further read fails."""
        with self._news:
            self._is_void = True
            self._news.notify_all()

    @contextmanager
    def moving(self, destination: Path) -> Iterator[None]:
        """Give way while the file is moved to `destination`; it is read there if the block succeeds."""
        with self._place:
            yield
            self._path = destination

    def has(self, place: int) -> bool:
        """Return whether there is a byte at `place`, as soon as that is known."""
        return self._readable_bytes(place) > 0

    def read(self, place: int, size_bytes: int) -> bytes:
        """Return bytes from `place` on, at most `size_bytes`; none only where the file ends.

        Raises:
            OSError: the file cannot be read, is shorter than what has arrived, or is void.
        """
        wanted = min(size_bytes, self._readable_bytes(place))
        if wanted <= 0:
            return b""
        with self._place:
            # Not as a file object: each of its steps lets the thread that receives go first.
            descriptor = os.open(self._path, _READ_FLAGS)
            try:
                os.lseek(descriptor, place, os.SEEK_SET)
                content = os.read(descriptor, wanted)
            finally:
                os.close(descriptor)
        if content:
            return content
        raise OSError(errno.EIO, "The file has become shorter")

    def _readable_bytes(self, place: int) -> int:
        with self._news:
            self._news.wait_for(lambda: self._is_void or self._is_complete or self._arrived_bytes > place)
            if self._is_void:
                raise OSError(errno.ECANCELED, "The file is resent whole, or not at all")
            return self._arrived_bytes - place


class Slice:
    """Some lines of an answer file: from a place to the end of a line behind about `size_bytes`, or of the file.

    A slice ends where a line ends, and nowhere else. It also never ends before a byte order mark: at the start of a
    file a reader skips one, and lines would be counted in another way than in the whole file. Where that is, is found
    when it is read for the first time, from its start.
    """

    def __init__(self, answers: AnswerBytes, first_byte: int, size_bytes: int) -> None:
        self._answers = answers
        self._first_byte = first_byte
        self._size_bytes = size_bytes
        self._end: int | None = None

    @classmethod
    def whole(cls, path: Path) -> Self:
        """Return all lines of a file that is there.

        Raises:
            OSError: it is not.
        """
        return cls(AnswerBytes.of(path), 0, sys.maxsize)

    @property
    def end(self) -> int:
        """The place behind its last byte, once it has been read."""
        assert self._end is not None, "it has been read to its end"
        return self._end

    @property
    def size_bytes(self) -> int:
        """How long it is, once it has been read."""
        return self.end - self._first_byte

    def between(self, start: int, end: int) -> Self:
        """Return the lines from one place to another, both counted from its start, where lines begin."""
        piece = type(self)(self._answers, self._first_byte + start, end - start)
        piece._end = self._first_byte + end
        return piece

    def open(self) -> io.BufferedReader:
        """Return these bytes as a file of their own."""
        return io.BufferedReader(self.open_raw(), _READ_BYTES)

    def open_raw(self) -> io.RawIOBase:
        """Return these bytes as a file that hands out `_READ_BYTES` at the most at a time."""
        return _Range(self)

    def max_lines(self) -> int:
        """Return a number of lines that it does not have more of, blank ones included. Reads all of it."""
        with self.open_raw() as file:
            return sum(piece.count(b"\n") for piece in iter(lambda: file.read(_READ_BYTES), b"")) + 1

    def read(self, position: int, size_bytes: int) -> bytes:
        """Return the next bytes, counted from its start, none at its end.

        Raises:
            OSError: as in `AnswerBytes.read`.
        """
        place = self._first_byte + position
        if self._end is not None:
            return self._answers.read(place, min(size_bytes, self._end - place))
        content = self._answers.read(place, min(size_bytes, max(self._size_bytes - position, _OVER_BYTES)))
        if not content:
            self._end = place
        elif position + len(content) >= self._size_bytes and (cut := _end_of_line(content)):
            self._end = place + cut
            return content[:cut]
        return content


def slices_of(answers: AnswerBytes, size_bytes: int) -> Iterator[Slice]:
    """Yield a file slice by slice; each has to be read before the next one is asked for."""
    place = 0
    while answers.has(place):
        piece = Slice(answers, place, size_bytes)
        yield piece
        place = piece.end


def _end_of_line(piece: bytes) -> int:
    """Return where the last line of `piece` ends that is surely not followed by a byte order mark, 0 for nowhere."""
    end = piece.rfind(b"\n", 0, max(len(piece) - len(_BOM), 0)) + 1
    return 0 if piece.startswith(_BOM, end) else end


class _Range(io.RawIOBase):
    """A slice as a file. Hands out `_READ_BYTES` at a time at the most, as every reader of a raw file has to expect."""

    def __init__(self, piece: Slice) -> None:
        super().__init__()
        self._piece = piece
        self._position = 0

    def readable(self) -> bool:
        """It is for reading."""
        return True

    def seekable(self) -> bool:
        """The engine goes to the place that it reads next."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to a place, counted from the start of the slice: nobody knows the end yet."""
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("only places from the start are known")
        self._position = offset
        return offset

    def tell(self) -> int:
        """Return the place that is read next."""
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes, none at the end; all that are left if `size` is negative."""
        if size < 0:
            return self.readall()
        content = self._piece.read(self._position, min(size, _READ_BYTES))
        self._position += len(content)
        return content

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]  # typeshed wants Buffer, unnamed in 3.11
        """Fill `buffer` from its start; returns how far."""
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)
