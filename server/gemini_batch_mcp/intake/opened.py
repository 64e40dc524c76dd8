"""A file that is being read: what the system refuses is told with its name, and whether it was written to meanwhile."""

import io
from pathlib import Path
from typing import Final

from gemini_batch_mcp.errors import PathError, system_reason
from gemini_batch_mcp.handles import open_file

_BUFFER_BYTES: Final = 1 << 18


#: Size, times of change and of the last write, and place on the disk: another one is another content.
Stamp = tuple[int, int, int, int]


def stamp_of(path: Path) -> Stamp | None:
    """Return what tells whether a file has been written to since, None when it cannot be looked at."""
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino


def unreadable(path: Path, error: OSError) -> PathError:
    """Return the error for a file that the system does not let us read."""
    reason = system_reason(error)
    return PathError(f"{path.name} cannot be read: {reason}.", "Check that the file exists and is readable.")


class SourceFile(io.FileIO):
    """A file opened for reading, unbuffered, at a resolved path: no link in it is followed, see `handles`.

    A disk or a network share may fail long after it was opened.

    Raises:
        PathError: when it is opened, and from every read, if the system refuses, or it is no regular file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            super().__init__(path, "rb", opener=lambda _path, _flags: open_file(path))
        except OSError as error:
            raise unreadable(path, error) from None

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to `size` bytes, nothing at the end."""
        try:
            return super().read(size) or b""
        except OSError as error:
            raise unreadable(self._path, error) from None

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]  # typeshed wants Buffer, which 3.11 has no name for
        """Fill `buffer` as far as there are bytes; return how many."""
        try:
            return super().readinto(buffer) or 0
        except OSError as error:
            raise unreadable(self._path, error) from None


def buffered(path: Path) -> io.BufferedReader:
    """Open a file that is read line by line. Raises as `SourceFile`."""
    return io.BufferedReader(SourceFile(path), _BUFFER_BYTES)
