"""Parts of a checked request file: cut into jobs on line borders, and read as uploads that prove to be unchanged."""

import hashlib
import io
import math
import os
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.intake.opened import SourceFile, unreadable
from gemini_batch_mcp.intake.requests.lines import BLOCK_BYTES, LineSplitter, LongLine
from gemini_batch_mcp.intake.requests.passes import too_large
from gemini_batch_mcp.processes import yield_thread_to_others

#: One chunk of google-genai's upload; as much is read ahead.
_CHUNK_BYTES: Final = 8 * 1024**2
_NO_LIMIT: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Shard:
    """Lines of a request file that follow each other and become one job.

    `number` counts from 1, `first_row` and `first_byte` from 0. `sha256` is of its bytes, as lowercase hex.
    `input_tokens` is an estimate, by size.
    """

    number: int
    first_row: int
    count: int
    first_byte: int
    size_bytes: int
    sha256: str
    input_tokens: int


def cut(
    path: Path,
    *,
    size_bytes: int,
    count: int,
    max_bytes: int,
    max_tokens: int | None,
    tokens_per_byte: float,
    max_rows: int | None = None,
    sha256: str = "",
) -> tuple[Shard, ...]:
    """Cut a checked file of `count` lines into as few shards as the limits allow, all about equally large.

    None is above a limit, but for a single line that has more than `max_tokens` by itself. The file is read once,
    and not at all when it is one shard and its `sha256` is given; a given hash is checked against what is read.

    Raises:
        UsageError: the file is not the one that was checked, or a line has more than `max_bytes`.
        PathError: the file cannot be read.
    """
    whole = Shard(1, 0, count, 0, size_bytes, sha256, round(size_bytes * tokens_per_byte))
    limits = _Limits.of(max_bytes, max_tokens, tokens_per_byte, max_rows)
    if sha256 and limits.needed(size_bytes, count) == 1:
        return (whole,)
    return _cut(path, whole, limits, tokens_per_byte)


def split(
    path: Path, shard: Shard, *, max_tokens: int, tokens_per_byte: float, max_bytes: int = _NO_LIMIT
) -> tuple[Shard, ...]:
    """Cut one shard into smaller ones, numbered from 1. Raises like `cut`."""
    return _cut(path, shard, _Limits.of(max_bytes, max_tokens, tokens_per_byte, None), tokens_per_byte)


@dataclass(frozen=True, slots=True)
class _Limits:
    """Limits of one shard. `line_bytes` is the most that a single line may have, the others bind from two on."""

    line_bytes: int
    size_bytes: int
    rows: int

    @classmethod
    def of(cls, max_bytes: int, max_tokens: int | None, tokens_per_byte: float, max_rows: int | None) -> "_Limits":
        by_tokens = (
            math.floor(max_tokens / tokens_per_byte) if max_tokens is not None and tokens_per_byte > 0 else max_bytes
        )
        return cls(max_bytes, max(1, min(max_bytes, by_tokens)), max_rows or _NO_LIMIT)

    def needed(self, size_bytes: int, rows: int) -> int:
        """Return how many shards it takes at least."""
        return max(1, -(-size_bytes // self.size_bytes), -(-rows // self.rows))


def _cut(path: Path, whole: Shard, limits: _Limits, tokens_per_byte: float) -> tuple[Shard, ...]:
    cutter, splitter, digest = _Cutter(whole, limits, path.name), LineSplitter(), hashlib.sha256()
    with _opened(path, whole.first_byte) as file, ThreadPoolExecutor(1) as pool:
        left_bytes = whole.size_bytes
        while block := _read(path, file, min(left_bytes, BLOCK_BYTES)):
            left_bytes -= len(block)
            # Beside the shards' own hashes, on another processor: it takes as long as everything else together.
            hashed = pool.submit(digest.update, block)
            for piece in splitter.feed(block):
                cutter.feed(piece)
            hashed.result()
        for piece in splitter.end():
            cutter.feed(piece)
    shards = cutter.end()
    counted = (sum(shard.size_bytes for shard in shards), sum(shard.count for shard in shards))
    if counted != (whole.size_bytes, whole.count) or whole.sha256 not in ("", digest.hexdigest()):
        raise _changed(path)
    return tuple(replace(shard, input_tokens=round(shard.size_bytes * tokens_per_byte)) for shard in shards)


class _Cutter:
    """Takes pieces of whole lines in order and ends a shard where it has its share of what is left, or is full."""

    def __init__(self, whole: Shard, limits: _Limits, name: str) -> None:
        self._limits = limits
        self._name = name
        self._left_bytes = whole.size_bytes
        self._left_rows = whole.count
        self._shards: list[Shard] = []
        self._begin(whole.first_row, whole.first_byte)

    def feed(self, piece: bytes | LongLine) -> None:
        """Take the next lines; one that no checked file has ends up in no shard."""
        if isinstance(piece, LongLine):
            return
        start = 0
        while start < len(piece):
            end, is_last = self._end_in(piece, start)
            if end > start:
                self._take(piece, start, end)
            if is_last:
                self._close()
            start = end

    def end(self) -> list[Shard]:
        """Return the shards, once all lines were given."""
        if self._size:
            self._close()
        return self._shards

    def _begin(self, first_row: int, first_byte: int) -> None:
        self._first_row, self._first_byte = first_row, first_byte
        self._size = self._rows = 0
        self._sha256 = hashlib.sha256()
        self._share = -(-self._left_bytes // self._limits.needed(self._left_bytes, self._left_rows))

    def _end_in(self, piece: bytes, start: int) -> tuple[int, bool]:
        """Return how far the shard reaches into the piece, and whether it ends there."""
        end, is_last = len(piece), False
        if self._size >= self._share:
            return start, True
        if self._size + end - start > self._share:
            is_last = True
            end = _line_end(piece, start + self._share - self._size - 1)
            if self._size + end - start > self._limits.size_bytes:
                end = self._last_that_fits(piece, start)
        if self._limits.rows < _NO_LIMIT and self._rows + _count_lines(piece, start, end) > self._limits.rows:
            is_last = True
            end = start
            for _ in range(self._limits.rows - self._rows):
                end = _line_end(piece, end)
        return end, is_last

    def _last_that_fits(self, piece: bytes, start: int) -> int:
        """Return the last line end below the limit; that of the first line when the shard has no other."""
        room = max(0, self._limits.size_bytes - self._size)
        end = piece.rfind(b"\n", start, start + room) + 1
        if end > start or self._size:
            return max(end, start)
        end = _line_end(piece, start)
        if end - start > self._limits.line_bytes:
            number = self._first_row + 1
            raise too_large(f"Line {number} of {self._name}", end - start, self._limits.line_bytes)
        return end

    def _take(self, piece: bytes, start: int, end: int) -> None:
        self._sha256.update(memoryview(piece)[start:end])
        self._size += end - start
        self._rows += _count_lines(piece, start, end)

    def _close(self) -> None:
        shard = Shard(
            number=len(self._shards) + 1,
            first_row=self._first_row,
            count=self._rows,
            first_byte=self._first_byte,
            size_bytes=self._size,
            sha256=self._sha256.hexdigest(),
            input_tokens=0,
        )
        self._shards.append(shard)
        self._left_bytes = max(0, self._left_bytes - self._size)
        self._left_rows = max(0, self._left_rows - self._rows)
        self._begin(self._first_row + self._rows, self._first_byte + self._size)


def _line_end(piece: bytes, position: int) -> int:
    """Return where the line ends that holds `position`; the last one of a file may lack its line end."""
    return piece.find(b"\n", position) + 1 or len(piece)


def _count_lines(piece: bytes, start: int, end: int) -> int:
    return piece.count(b"\n", start, end) + (end > start and piece[end - 1] != 0x0A)


def _opened(path: Path, first_byte: int) -> io.FileIO:
    file = SourceFile(path)
    try:
        file.seek(first_byte)
    except OSError as error:
        file.close()
        raise unreadable(path, error) from None
    return file


def _read(path: Path, file: io.FileIO, size: int) -> bytes:
    try:
        return file.read(size) or b""
    except OSError as error:
        raise unreadable(path, error) from None


def _changed(path: Path) -> UsageError:
    return UsageError(
        f"{path.name} has changed since it was checked; these lines were not submitted.",
        "Submit the order again, without changing the file until it is submitted.",
    )


class ShardReader(io.BufferedIOBase):
    """Reads the bytes of one shard for an upload, and keeps the last ones back unless all of them are what they were.

    Of a shard without a `sha256` that is for whoever finalizes the upload to see, in `sent_sha256`.

    A thread reads and hashes one chunk ahead, so that the reading thread, an event loop, does not wait for the disk.
    For one reading thread; `seek(0)` starts again.

    Raises:
        PathError: the file cannot be opened.
    """

    def __init__(self, path: Path, shard: Shard) -> None:
        super().__init__()
        # First of all: what could not be opened is closed as well, when it is collected.
        self._held = ExitStack()
        self.path = path
        self.shard = shard
        self._file = self._held.enter_context(_opened(path, shard.first_byte))
        self._pool = ThreadPoolExecutor(1, "shard-read", yield_thread_to_others)
        self._held.callback(self._pool.shutdown, cancel_futures=True)
        self._ahead: Future[bytes]
        self._rest: bytes
        self._start()

    def read(self, size: int | None = -1, /) -> bytes:
        """Return exactly `size` bytes, fewer only at the end.

        Raises:
            UsageError: the bytes are not those that were checked.
            PathError: they cannot be read.
        """
        missing = self._left_bytes if size is None or size < 0 else min(size, self._left_bytes)
        parts: list[bytes] = []
        while missing:
            if not self._rest:
                self._rest = self._ahead.result()
                self._ahead = self._pool.submit(self._load)
            # A slice of all bytes is no copy.
            part = self._rest[:missing]
            self._rest = self._rest[len(part) :]
            self._left_bytes -= len(part)
            missing -= len(part)
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def await_next(self) -> None:
        """Wait until the next bytes are there, or the reason why they are not: `read` of a chunk waits no longer."""
        wait([self._ahead])

    def readable(self) -> bool:
        """Return True: this is an input stream."""
        return True

    def seekable(self) -> bool:
        """Return True: an upload that was refused for its MIME type is read a second time."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go back to the first byte.

        Raises:
            io.UnsupportedOperation: to any other place.
        """
        if offset or whence != os.SEEK_SET:
            raise io.UnsupportedOperation("A shard is read from its first byte on.")
        wait([self._ahead])
        self._file.seek(self.shard.first_byte)
        self._start()
        return 0

    def close(self) -> None:
        """Let go of the file and the thread."""
        self._held.close()
        super().close()

    @property
    def sent_sha256(self) -> str:
        """The hash of all that was read, as lowercase hex, once the last bytes were."""
        return self._sha256.hexdigest()

    def _start(self) -> None:
        self._left_bytes = self.shard.size_bytes
        self._unread_bytes = self.shard.size_bytes
        self._rest = b""
        self._sha256 = hashlib.sha256()
        self._ahead = self._pool.submit(self._load)

    def _load(self) -> bytes:
        """Run in the thread: return the next chunk, the last one only if all of them were right."""
        chunk = _read(self.path, self._file, min(_CHUNK_BYTES, self._unread_bytes))
        self._sha256.update(chunk)
        self._unread_bytes -= len(chunk)
        is_short = self._unread_bytes and not chunk
        is_changed = self.shard.sha256 and self._sha256.hexdigest() != self.shard.sha256
        if is_short or (not self._unread_bytes and is_changed):
            raise _changed(self.path)
        return chunk
