"""The engine's way to a slice: a file system with one file for each slice that is being read, and nothing else.

The engine reads files, not ranges of files. Slices as files of their own would be a second copy of every answer
(measured at 1 GB: 1.5 s of the build, and as much again on the disk).
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, Final

from fsspec import AbstractFileSystem

from gemini_batch_mcp.results.table.slices import Slice

_PROTOCOL: Final = "answers"
#: How long a slice is said to be: it is longer than any, since nobody knows before it has been read. The engine reads
#: until nothing comes.
_SIZE_BYTES: Final = 1 << 40


class SliceFiles(AbstractFileSystem):  # type: ignore[misc]  # fsspec ships no types
    """To be registered with a connection. For reading only; every other operation is refused by the base class."""

    protocol = _PROTOCOL
    #: Each build has one of its own; the base class would hand out the same one again.
    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self._slices: dict[str, Slice] = {}
        self._numbers = count()

    @contextmanager
    def showing(self, piece: Slice) -> Iterator[str]:
        """Provide the name under which the engine can read `piece`; no name is given twice."""
        name = f"{_PROTOCOL}://{next(self._numbers)}"
        self._slices[name] = piece
        try:
            yield name
        finally:
            del self._slices[name]

    def open(self, path: str, mode: str = "rb", **_: Any) -> io.RawIOBase:
        """Open a slice."""
        if mode != "rb":
            raise PermissionError(f"{path} is for reading only")
        return self._found(path).open_raw()

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Say that a slice is there."""
        self._found(path)
        return {"name": path, "size": _SIZE_BYTES, "type": "file"}

    def glob(self, path: str, **_: Any) -> list[str]:
        """Return the slice of that name: a name is never a pattern."""
        return [path] if path in self._slices else []

    def _found(self, path: str) -> Slice:
        try:
            return self._slices[path]
        except KeyError:
            raise FileNotFoundError(path) from None
