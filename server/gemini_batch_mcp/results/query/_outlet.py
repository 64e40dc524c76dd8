"""The one way out for the rows of a statement that are to be saved: a file that the engine writes, which is a pipe.

The process for questions may let no file grow. What the engine writes under this name goes in frames to whoever asked,
who writes it down where the user may have it.
"""

import io
import json
from typing import Any, BinaryIO, Final

from fsspec import AbstractFileSystem

#: The only name under which the engine can open it, for writing.
OUTLET: Final = "selected://rows"


class Outlet(AbstractFileSystem):  # type: ignore[misc]  # fsspec ships no types
    """To be registered with a connection. One file for writing; every other operation is refused by the base class."""

    protocol = "selected"
    #: Each query has one of its own; the base class would hand out the same one again.
    cachable = False

    def __init__(self, answers: BinaryIO) -> None:
        super().__init__()
        self._answers = answers

    def open(self, path: str, mode: str = "rb", **_: Any) -> io.RawIOBase:
        """Open it."""
        if path != OUTLET or mode != "wb":
            raise PermissionError(f"{path} is for writing {OUTLET} only")
        return _Frames(self._answers)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Say that nothing is there yet."""
        raise FileNotFoundError(path)

    def isdir(self, path: str) -> bool:
        """Say that it is no directory."""
        return False


class _Frames(io.RawIOBase):
    """Writes each piece behind a line that says how long it is."""

    def __init__(self, answers: BinaryIO) -> None:
        self._answers = answers
        self._written = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._written

    def write(self, piece: Any) -> int:
        content = bytes(piece)
        self._answers.write(json.dumps({"frame": len(content)}).encode() + b"\n")
        self._answers.write(content)
        self._written += len(content)
        return len(content)
