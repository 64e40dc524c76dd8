"""A file that is being read: what the system refuses is told with its name, and whether it was written to meanwhile."""

import io
import os
from collections.abc import Generator
from pathlib import Path
from typing import Final, Self

from gemini_batch_mcp.errors import PathError, system_reason
from gemini_batch_mcp.handles import Neighbours, open_file

_BUFFER_BYTES: Final = 1 << 18
#: Of many files, most are read in one go.
_BLOCK_BYTES: Final = 1 << 16


#: Size, times of change and of the last write, and place on the disk: another one is another content.
Stamp = tuple[int, int, int, int]


def stamp_of(path: Path | str) -> Stamp | None:
    """Return what tells whether a file has been written to since, None when it cannot be looked at."""
    try:
        seen = os.stat(path)  # noqa: PTH116 - of a text, too: a path for each of many files takes as long as the look
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


class ManyFiles:
    """Files read one after the other, each in blocks: for many small ones in the same directories. For `with`."""

    def __init__(self) -> None:
        self._handles = Neighbours()

    def __enter__(self) -> Self:
        self._handles.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._handles.__exit__(*error)

    def blocks(self, directory: Path, name: str) -> Generator[bytes, None, None]:
        """Yield what is in the file of that name in the directory at a resolved path; nothing where it is empty.

        Raises:
            PathError: the system refuses, or it is no regular file.
        """
        try:
            descriptor = self._handles.open_file(directory, name)
            try:
                while block := os.read(descriptor, _BLOCK_BYTES):
                    yield block
            finally:
                os.close(descriptor)
        except OSError as error:
            raise unreadable(directory / name, error) from None
