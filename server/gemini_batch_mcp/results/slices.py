"""Answer files in slices: files of whole lines, small enough to be read while the next one is still arriving."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

#: Measured at 1 GB: half of it takes an eighth more time; with more, the last slice only has to wait longer.
SLICE_BYTES: Final = 64 << 20
_READ_BYTES: Final = 1 << 20
_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Slice:
    """Some lines of an answer file, in a file of their own. At most `max_lines` of them are not blank."""

    path: Path
    max_lines: int
    size_bytes: int


class SliceWriter:
    """Takes an answer file in pieces of any size, and cuts it into slices.

    A slice ends where a line ends, and nowhere else. It also never ends before a byte order mark: at the start of a
    file a reader skips one, and lines would be counted in another way than in the whole file.

    Raises:
        OSError: a slice cannot be written.
    """

    def __init__(self, directory: Path, *, slice_bytes: int = SLICE_BYTES) -> None:
        self._directory = directory
        self._slice_bytes = slice_bytes
        self._number = 0
        self._open()

    def write(self, piece: bytes) -> Slice | None:
        """Take the next piece; returns the slice that it completed, if it did."""
        cut = _end_of_line(piece) if self._size_bytes + len(piece) >= self._slice_bytes else 0
        if not cut:
            self._add(piece)
            return None
        self._add(piece[:cut])
        done = self.finish()
        self._number += 1
        self._open()
        self._add(piece[cut:])
        return done

    def finish(self) -> Slice:
        """Return the last slice, which may be empty and whose last line may have no end."""
        self._file.close()
        return Slice(self._path, self._line_ends + 1, self._size_bytes)

    def close(self) -> None:
        """Close the file, whatever became of it: a full disk may say so once more, about bytes that nobody needs."""
        with suppress(OSError):
            self._file.close()

    def _open(self) -> None:
        self._path = self._directory / f"slice-{self._number}.jsonl"
        self._file: BinaryIO = self._path.open("wb", buffering=0)
        self._size_bytes = 0
        self._line_ends = 0

    def _add(self, piece: bytes) -> None:
        view = memoryview(piece)
        while view:  # An unbuffered file may take less than it is given.
            view = view[self._file.write(view) :]
        self._size_bytes += len(piece)
        self._line_ends += piece.count(b"\n")


def slices_of(path: Path, directory: Path, *, slice_bytes: int = SLICE_BYTES) -> Iterator[Slice]:
    """Yield an answer file that is there as a whole in slices, for whoever takes one to remove.

    A file that makes one slice is its own slice, and has to stay.
    """
    size_bytes = path.stat().st_size
    if size_bytes <= slice_bytes:
        yield Slice(path, _line_ends(path) + 1, size_bytes)
        return
    writer = SliceWriter(directory, slice_bytes=slice_bytes)
    try:
        with path.open("rb", buffering=0) as file:
            while piece := file.read(_READ_BYTES):
                if (done := writer.write(piece)) is not None:
                    yield done
        yield writer.finish()
    finally:
        writer.close()


def _end_of_line(piece: bytes) -> int:
    """Return where the last line of `piece` ends that is surely not followed by a byte order mark, 0 for nowhere."""
    end = piece.rfind(b"\n", 0, max(len(piece) - len(_BOM), 0)) + 1
    return 0 if piece.startswith(_BOM, end) else end


def _line_ends(path: Path) -> int:
    with path.open("rb", buffering=0) as file:
        return sum(piece.count(b"\n") for piece in iter(lambda: file.read(_READ_BYTES), b""))
