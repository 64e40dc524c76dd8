"""Hashes of files, kept for the moment between two looks at the same file."""

from collections.abc import Callable
from pathlib import Path

from gemini_batch_mcp.digests import file_digest
from gemini_batch_mcp.intake.opened import Stamp, stamp_of
from gemini_batch_mcp.intake.requests.reader import file_sha256

#: Files remembered; an order has one source.
_KEPT = 8


class FileHashes:
    """Hashes by path, valid while the file's size, place on the disk and time of change stay the same.

    A source that is changed without a trace in these is noticed later: Gemini reports the hash of what it received.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[Path, Stamp, str], str] = {}

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
            known = hash_of(path)
            if stamp_of(path) == stamp:
                self._known[path, stamp, kind] = known
                while len(self._known) > _KEPT:
                    del self._known[next(iter(self._known))]
        return known
