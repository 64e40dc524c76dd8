"""Hashes of files, kept for the moment between two looks at the same file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from gemini_batch_mcp.digests import file_digest
from gemini_batch_mcp.intake.opened import Stamp, stamp_of
from gemini_batch_mcp.intake.requests.reader import file_sha256
from gemini_batch_mcp.threads import yielding

#: Files remembered; an order has one source.
_KEPT = 8
#: Attached files of at least so many bytes are remembered, and so many of them (our choice: about 30 MB): of a smaller
#: one, reading it again takes no longer than remembering it.
_LEAST_BYTES = 1 << 18
_KEPT_FILES = 50_000
#: A smaller file is hashed before anybody has waited for a processor.
_YIELDING_BYTES = 1 << 24

T = TypeVar("T")


class FileHashes:
    """Hashes by path, valid while the file's size, place on the disk and time of change stay the same.

    A source that is changed without a trace in these is noticed later: Gemini reports the hash of what it received.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[Path, Stamp, str], str] = {}
        self._folders: dict[tuple[Path, str], Any] = {}
        self._seen: dict[tuple[Path, Stamp], Any] = {}

    def of(self, path: Path) -> str:
        """Return the sha256 of a file as lowercase hex: what an order is recognised by.

        Raises:
            PathError: it cannot be read.
        """
        return self._remembered(path, "", file_sha256)

    def knows(self, path: Path) -> bool:
        """True when the sha256 of a file need not be computed."""
        stamp = stamp_of(path)
        return stamp is not None and (path, stamp, "") in self._known

    def of_folder(self, root: Path, stamp: str, read: Callable[[], T]) -> T:
        """Return what `read` says of the files of a folder, which had this stamp before: see `source_stamp`.

        Raises:
            whatever `read` raises.
        """
        found: T | None = self._folders.get((root, stamp))
        if found is None:
            # What changes while it is read has another stamp when it is next looked at.
            found = self._folders[root, stamp] = read()
            while len(self._folders) > _KEPT:
                del self._folders[next(iter(self._folders))]
        return found

    def of_attached(self, path: Path, look: Callable[[], T]) -> T:
        """Return what `look` finds in an attached file, or has found in it before.

        Raises:
            whatever `look` raises.
        """
        stamp = stamp_of(path)
        if stamp is None or stamp[0] < _LEAST_BYTES:
            return look()
        found: T | None = self._seen.get((path, stamp))
        if found is None:
            found = look()
            if len(self._seen) < _KEPT_FILES:
                self._seen[path, stamp] = found
        return found

    def has_digest(self, path: Path, digest: str) -> bool:
        """Return whether a file has a digest that was taken earlier, as `digests.has_digest` does.

        Raises:
            StorageError: it cannot be read.
        """
        algorithm = digest.partition(":")[0]
        return self._remembered(path, algorithm, lambda path: file_digest(path, algorithm)) == digest

    def _remembered(self, path: Path, kind: str, hash_of: Callable[[Path], str]) -> str:
        stamp = stamp_of(path)
        if stamp is None:
            return hash_of(path)
        if (known := self._known.get((path, stamp, kind))) is None:
            known = yielding(hash_of, path) if stamp[0] >= _YIELDING_BYTES else hash_of(path)
            if stamp_of(path) == stamp:
                self._known[path, stamp, kind] = known
                while len(self._known) > _KEPT:
                    del self._known[next(iter(self._known))]
        return known
