"""Local ends of a transfer: what an upload reads from, what a download writes to."""

import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, runtime_checkable

from gemini_batch_mcp.digests import Digest
from gemini_batch_mcp.errors import StorageError, is_disk_full, system_reason
from gemini_batch_mcp.gemini.http import Exchange
from gemini_batch_mcp.redaction import Secrets
from gemini_batch_mcp.threads import in_thread

#: Is told bytes done, and bytes in all where they are known.
Progress = Callable[[int, int | None], None]
_PIECE_BYTES: Final = 1 << 20


class Readable(Protocol):
    """A source of bytes: a binary file, or a reader that checks what it hands out."""

    def read(self, size: int, /) -> bytes | None:
        """Return up to `size` bytes, nothing at the end."""


@runtime_checkable
class ReadableAhead(Readable, Protocol):
    """A source that reads ahead by itself: the next chunk may be waited for elsewhere than in the event loop."""

    def await_next(self) -> None:
        """Return once `read` of a chunk need not wait."""


@dataclass(frozen=True, slots=True)
class Download:
    """A file that was downloaded whole; `digest` is as in `digests`."""

    size_bytes: int
    digest: str


class Outgoing(io.RawIOBase):
    """What the SDK reads an upload from: hands out exactly `size_bytes` bytes of `source` in whole chunks.

    The last bytes are handed out only after `source` has said that it is at its end, so a reader that refuses
    its content there still prevents the finalize. The SDK itself would loop for ever on a source that is too short.
    """

    def __init__(self, source: Readable, size_bytes: int, display_name: str, on_progress: Progress) -> None:
        super().__init__()
        self._on_progress = on_progress
        self._source = source
        self._size_bytes = size_bytes
        self._display_name = display_name
        self._position = 0
        #: The exception with which the source refused to go on, None while it did not.
        self.refusal: Exception | None = None

    def rewind(self) -> bool:
        """Go back to the first byte for another attempt; False when the source cannot."""
        if self._position:
            seek = getattr(self._source, "seek", None)
            if seek is None or not self._source.seekable():  # type: ignore[attr-defined]  # io classes have both
                return False
            seek(0)
        self._position = 0
        return True

    async def await_next(self) -> None:
        """Wait until the next chunk is there: the SDK reads it in the event loop, where everybody would wait."""
        if isinstance(self._source, ReadableAhead):
            await in_thread(self._source.await_next)

    def tell(self) -> int:
        """Return the position; the SDK asks to learn the size."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move; only to the end and back, as the SDK does before it reads."""
        self._position = offset + (self._size_bytes if whence == os.SEEK_END else 0)
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        """Return the next `size` bytes, fewer only at the end.

        Raises:
            StorageError: the source is shorter or longer than stated.
            Exception: whatever the source raises, unchanged.
        """
        # The next chunk is asked for when the one before it has arrived.
        self._on_progress(self._position, self._size_bytes)
        wanted = min(size, self._size_bytes - self._position) if size >= 0 else self._size_bytes - self._position
        try:
            chunk = _read_fully(self._source, wanted)
            self._position += len(chunk)
            at_end = self._position == self._size_bytes
            if len(chunk) < wanted or (at_end and self._source.read(1)):
                raise StorageError(
                    f"{self._display_name!r} changed while it was being sent.",
                    "Try again, without changing the file meanwhile.",
                )
        except Exception as error:
            self.refusal = error
            raise
        return chunk


def unseen_progress(done_bytes: int, total_bytes: int | None) -> None:
    """Do nothing: nobody asked."""


def _read_fully(source: Readable, size: int) -> bytes:
    """Read `size` bytes although `source` may hand out less at a time: chunks of an upload must be whole."""
    chunk = source.read(size) or b""
    if len(chunk) == size:
        return chunk
    parts = [chunk]
    missing = size - len(chunk)
    while missing and parts[-1]:
        parts.append(source.read(missing) or b"")
        missing -= len(parts[-1])
    return b"".join(parts)


@contextmanager
def download_errors(directory: Path, needed_bytes: int | None = None) -> Iterator[None]:
    """Turn an OSError of a local file below `directory` into a StorageError that says what to do."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise _disk_full(directory, needed_bytes) from None
        raise StorageError(
            f"{str(directory)!r} cannot be written to ({system_reason(error)}).",
            "Check that the directory exists and is writable.",
        ) from None


@contextmanager
def reading_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of reading `path` into a StorageError."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{str(path)!r} cannot be read ({system_reason(error)}).", "Check that the file exists and its permissions."
        ) from None


def _require_room(directory: Path, needed_bytes: int) -> None:
    """Refuse a download that cannot fit before the disk is filled with a part of it."""
    with suppress(OSError):
        if shutil.disk_usage(directory).free < needed_bytes:
            raise _disk_full(directory, needed_bytes)


def _disk_full(directory: Path, needed_bytes: int | None) -> StorageError:
    free = needed = ""
    with suppress(OSError):
        free = f": {shutil.disk_usage(directory).free:,} bytes are free"
    if needed_bytes:
        needed = f", {needed_bytes:,} are needed"
    return StorageError(
        f"The disk of {str(directory)!r} is full{free}{needed}.", "Free some space, then call get_results again."
    )


def put_in_place(part: Path, destination: Path) -> None:
    """Rename the finished `part` to `destination`, atomically, and make the new name durable."""
    part.replace(destination)
    # Directories cannot be opened on every system; there the rename alone has to do.
    with suppress(OSError):
        directory = os.open(destination.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


class Incoming(io.RawIOBase):
    """What a download is written to: counts, hashes, reports, and names a full disk. To be finished at the end.

    Bytes are collected in one place and passed on in pieces of about `_PIECE_BYTES`: they come in pieces of any size.
    They go without `secrets`, which an answer may repeat: as many bytes, so that every place in the file stays what it
    was. What may be the beginning of one waits for the bytes behind it.
    """

    def __init__(self, file: BinaryIO, directory: Path, report: Progress, secrets: Secrets) -> None:
        super().__init__()
        self._secrets = secrets
        self._file = file
        self._directory = directory
        self._report = report
        self._digest = Digest()
        self._size_bytes = 0
        self._exchange: Exchange | None = None
        self._piece = bytearray(_PIECE_BYTES)
        self._filled_bytes = 0
        #: The exception with which writing ended, None while it did not.
        self.refusal: Exception | None = None

    def follow(self, exchange: Exchange) -> None:
        """Take the body of `exchange`, and its stated length once it is known."""
        self._exchange = exchange
        exchange.sink = self.write

    def write(self, chunk: Any, /) -> int:
        """Append some bytes.

        Raises:
            StorageError: the disk is full or too small, or the file cannot be written.
        """
        rest = memoryview(chunk)
        while rest:
            fitting = rest[: _PIECE_BYTES - self._filled_bytes]
            self._piece[self._filled_bytes : self._filled_bytes + len(fitting)] = fitting
            self._filled_bytes += len(fitting)
            rest = rest[len(fitting) :]
            if self._filled_bytes == _PIECE_BYTES:
                self._pass_on(is_last=False)
        return len(chunk)

    def finish(self) -> Download:
        """Write what is left, and return what was written.

        Raises:
            StorageError: as in `write`.
        """
        if self._filled_bytes:
            self._pass_on(is_last=True)
        return Download(self._size_bytes, str(self._digest))

    def _pass_on(self, *, is_last: bool) -> None:
        sure = self._secrets.cut_piece(self._piece, self._filled_bytes, is_last=is_last)
        try:
            self._take(memoryview(self._piece)[:sure])
        except Exception as error:
            self.refusal = error
            raise
        held = self._piece[sure : self._filled_bytes]
        self._piece[: len(held)] = held
        self._filled_bytes = len(held)

    def _take(self, piece: memoryview) -> None:
        total_bytes = self._exchange.total_bytes if self._exchange else None
        if not self._size_bytes and total_bytes:
            _require_room(self._directory, total_bytes)
        with download_errors(self._directory, total_bytes):
            self._file.write(piece)
        self._digest.update(piece)
        self._size_bytes += len(piece)
        self._report(self._size_bytes, total_bytes)
