"""A request file as a stream for the upload, checked on the way: no byte leaves before its line was found right.

A thread reads ahead and checks while the chunk before it travels. The last bytes leave only when the whole file is
right, repeated keys included, so a file with a problem anywhere can never be finalized at Google.
"""

import hashlib
import io
import os
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from gemini_batch_mcp.domain import RequestFile, Task
from gemini_batch_mcp.errors import RequestProblems, UsageError
from gemini_batch_mcp.intake.opened import SourceFile
from gemini_batch_mcp.intake.requests._inline import write_requests
from gemini_batch_mcp.intake.requests.copies import write_request_copy
from gemini_batch_mcp.intake.requests.keys import KeyLog, Keys
from gemini_batch_mcp.intake.requests.lines import BOM, LineChecker, LineSplitter, LongLine, split_lines
from gemini_batch_mcp.intake.requests.passes import Report, check_size, file_sha256, run

__all__ = [
    "CheckedReader",
    "CopyNeeded",
    "LinesRefused",
    "file_sha256",
    "write_request_copy",
    "write_requests",
]

#: One chunk of google-genai's upload; as much has been checked before anything goes over the network.
CHUNK_BYTES: Final = 8 * 1024**2
#: How far the checking may run ahead of the upload.
_AHEAD_BYTES: Final = 2 * CHUNK_BYTES


class LinesRefused(Exception):
    """A line has a problem: stop the upload, and ask `survey` for the whole report."""


class CopyNeeded(Exception):
    """The file can be used, but not as its bytes are: stop, and send what `write_request_copy` writes."""


class CheckedReader(io.BufferedIOBase):
    """Reads `path` and hands out checked bytes only. For one reading thread; `close` may come from any.

    Args:
        path: a JSONL file of requests.
        task: what the requests are for.
        keys_path: where the keys go, one JSON string a line; the file appears with `finish`.
        max_file_bytes: the largest file that may be sent.
        known_sha256: lowercase hex, when somebody has just computed it: hashing is a fifth of this reader's work.

    Raises:
        UsageError: the file is empty or too large.
        PathError: the file cannot be read.
        StorageError: the keys cannot be written.
    """

    def __init__(self, path: Path, *, task: Task, keys_path: Path, max_file_bytes: int, known_sha256: str = "") -> None:
        super().__init__()
        self._keys: KeyLog | None = None
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self._position = 0
        self._cursor = 0
        self._wanted_bytes = 0
        self._ready: deque[bytes] = deque()
        self._ready_bytes = 0
        self._finished = False
        self._stopped = False
        self._failure: BaseException | None = None
        self._known_sha256 = known_sha256
        self._sha256 = hashlib.sha256()
        self._checker = LineChecker(task)
        self.path = path
        self.task = task
        self.keys_path = keys_path
        self.size_bytes = check_size(path, max_file_bytes)
        self._keys = KeyLog(keys_path)

    def prime(self) -> None:
        """Check the first 8 MiB, or all of a smaller file.

        Raises:
            LinesRefused: a line has a problem.
            CopyNeeded: the bytes cannot be sent as they are.
            UsageError: the file changed while it was read.
        """
        self._wait_for(min(CHUNK_BYTES, self.size_bytes))

    def read(self, size: int | None = -1, /) -> bytes:
        """Return exactly `size` bytes, fewer only at the end. Raises like `prime`."""
        if self._cursor != self._position:
            raise io.UnsupportedOperation("A checked file can only be read in order.")
        left = self.size_bytes - self._position
        size = left if size is None or size < 0 else min(size, left)
        self._wait_for(size)
        data = self._take(size)
        self._position += size
        self._cursor = self._position
        return data

    def readable(self) -> bool:
        """Return True: this is an input stream."""
        return True

    def seekable(self) -> bool:
        """Return True: google-genai measures a stream by seeking to its end and back."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move the position that `tell` reports; reading goes on only where it stopped."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._cursor, os.SEEK_END: self.size_bytes}[whence]
        self._cursor = base + offset
        return self._cursor

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._cursor

    def survey(self) -> RequestProblems:
        """Check the whole file without handing out anything; return the full report.

        Raises:
            UsageError: the file has been changed, and nothing is wrong with it any more.
        """
        self.close()
        report = Report()
        with KeyLog(self.keys_path) as keys, SourceFile(self.path) as file:
            for _ in run(file, self.task, keys, report):
                pass
        if not report.problem_count:
            raise _changed_meanwhile(self.path)
        return report.as_error(self.path.name)

    def finish(self) -> RequestFile:
        """Return what was handed out, once all of it was, and put the keys file in its place.

        Raises:
            ValueError: there are bytes left to read.
            StorageError: the keys could not be written.
        """
        if self._keys is None or not self._finished or self._position != self.size_bytes:
            raise ValueError(f"{self.size_bytes - self._position} bytes of {self.path.name} have not been read")
        self._keys.keep()
        return RequestFile(
            path=self.path,
            count=self._keys.count,
            size_bytes=self.size_bytes,
            sha256=self._known_sha256 or self._sha256.hexdigest(),
            keys_path=self.keys_path,
        )

    def close(self) -> None:
        """Stop checking and let go of everything; keys that were not kept are removed."""
        if not self.closed:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()
            if self._thread is not None:
                self._thread.join()
            if self._keys is not None:
                self._keys.discard()
                # A survey may follow, which collects the keys anew: tens of megabytes for millions of them.
                self._keys = None
        super().close()

    def _wait_for(self, size: int) -> None:
        """Wait until `size` checked bytes are there.

        Raises:
            BaseException: whatever stopped the checking.
        """
        with self._changed:
            self._wanted_bytes = size
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._check, name="request-check", daemon=True)
                self._thread.start()
            self._changed.wait_for(lambda: self._failure or self._stopped or self._ready_bytes >= size)
            if self._failure is not None:
                raise self._failure
            if self._stopped:
                raise ValueError("The file has been closed.")

    def _take(self, size: int) -> bytes:
        parts: list[bytes] = []
        missing = size
        with self._changed:
            while missing:
                part = self._ready.popleft()
                if len(part) > missing:
                    self._ready.appendleft(part[missing:])
                    part = part[:missing]
                parts.append(part)
                missing -= len(part)
            self._ready_bytes -= size
            self._changed.notify_all()
        # A single part, the usual case, is not copied.
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _hand_over(self, piece: bytes) -> bool:
        """Make checked bytes available; return False when nobody wants more."""
        with self._changed:
            self._ready.append(piece)
            self._ready_bytes += len(piece)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._stopped or self._ready_bytes < max(_AHEAD_BYTES, self._wanted_bytes))
            return not self._stopped

    def _check(self) -> None:
        """Run in the thread: check the file, and keep its last piece back until all is known to be right."""
        failure: BaseException | None = None
        try:
            assert self._keys is not None
            with SourceFile(self.path) as file:
                self._check_blocks(file, self._keys)
        except BaseException as error:
            failure = error
        with self._changed:
            self._failure = failure
            self._changed.notify_all()

    def _check_blocks(self, file: BinaryIO, keys: KeyLog) -> None:
        splitter, held = LineSplitter(), deque[bytes]()
        left_bytes = self.size_bytes
        while block := file.read(CHUNK_BYTES):
            left_bytes -= len(block)
            if left_bytes < 0:
                raise _changed_meanwhile(self.path)
            held.append(block)
            self._check_pieces(splitter.feed(block), keys)
            # A block may go when the line that runs over its end has been checked; the newest one always stays.
            while len(held) > 1 and sum(map(len, held)) - len(held[0]) >= splitter.held_bytes:
                if not self._hand_over(held.popleft()):
                    return
        self._check_pieces(splitter.end(), keys)
        if left_bytes:
            raise _changed_meanwhile(self.path)
        if keys.repeats(1).count:
            raise LinesRefused
        self._finished = True
        self._hand_over(b"".join(held))

    def _check_pieces(self, found: Iterator[bytes | LongLine], log: KeyLog) -> None:
        for piece in found:
            if isinstance(piece, LongLine):
                raise LinesRefused
            if b"\r" in piece or (log.count == 0 and piece.startswith(BOM)):
                raise CopyNeeded
            lines = split_lines(piece)
            keys = self._checker.keys(lines)
            if keys is None:
                keys = Keys([self._key_of(line, number) for number, line in enumerate(lines, log.count + 1)])
            log.extend(keys)
            if not self._known_sha256:
                # Piece by piece, because hashing lets the uploading thread run; elsewhere it waits 5 ms for its turn.
                self._sha256.update(piece)

    def _key_of(self, line: bytes, number: int) -> str:
        examined = self._checker.examine(line, number)
        if examined.checked.problem_count:
            raise LinesRefused
        if examined.blank or examined.slips:
            raise CopyNeeded
        return examined.checked.key


def _changed_meanwhile(path: Path) -> UsageError:
    return UsageError(f"{path.name} changed while it was read.", "Give the order again.")
