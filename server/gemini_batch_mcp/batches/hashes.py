"""Hashes of source files, kept for the moment between a question to the user and the order that follows it."""

from pathlib import Path

from gemini_batch_mcp.intake.reader import file_sha256

#: Files remembered; an order has one source.
_KEPT = 8


class FileHashes:
    """Hashes by path, valid while the file's size, place on the disk and time of change stay the same.

    A file that is changed without a trace in these is noticed later: Gemini reports the hash of what it received.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[Path, int, int, int, int], str] = {}

    def of(self, path: Path) -> str:
        """Return the sha256 of a file as lowercase hex.

        Raises:
            PathError: it cannot be read.
        """
        stamp = _stamp(path)
        if stamp is None:
            return file_sha256(path)
        if (known := self._known.get(stamp)) is None:
            known = file_sha256(path)
            if _stamp(path) == stamp:
                self._known[stamp] = known
                while len(self._known) > _KEPT:
                    del self._known[next(iter(self._known))]
        return known


def _stamp(path: Path) -> tuple[Path, int, int, int, int] | None:
    try:
        seen = path.stat()
    except OSError:
        return None
    return path, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino
