"""Hosts' files as bytes: read if they are regular files, written whole or not at all, with a copy of what was there."""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gemini_batch_mcp import handles
from gemini_batch_mcp.errors import StorageError

#: Stands behind the name of the copy of what was there.
BACKUP: Final = ".before-gemini-batch"
#: What only one who wrote a key into it is to read.
_PRIVATE: Final = 0o600


def place_of(file: Path) -> Path:
    """Return where a file really is: a link is kept, people manage such files in a repository of their own.

    Raises:
        StorageError: it is a link that leads nowhere.
    """
    try:
        return file.resolve()
    except (OSError, RuntimeError):
        # RuntimeError is what Python before 3.13 says of links that lead in a circle.
        raise StorageError(
            f"{file} cannot be read (it is a link that leads in a circle).",
            "Nothing was changed. Remove the link, then run this again.",
        ) from None


def backup_of(file: Path) -> Path:
    """Return where the copy of what was in a file before us lies."""
    place = place_of(file)
    return place.with_name(place.name + BACKUP)


def read(file: Path) -> bytes:
    """Return what is in a file, nothing where there is none.

    Raises:
        StorageError: it cannot be read, or is no file.
    """
    return kept(file) or b""


def kept(file: Path) -> bytes | None:
    """Return what is in a file, None where there is none.

    Raises:
        StorageError: it cannot be read, or is no file.
    """
    try:
        with os.fdopen(handles.open_file(place_of(file)), "rb") as stream:
            return stream.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(
            f"{file} cannot be read ({error.strerror}).",
            "Nothing was changed. Make it a file that can be read, then run this again.",
        ) from None


@contextmanager
def copied(file: Path, content: bytes | None) -> Iterator[Path | None]:
    """Keep a copy of what is in the file, and yield where; a change that fails leaves the copies as they were.

    Raises:
        StorageError: the copy cannot be written.
    """
    if content is None:
        yield None
        return
    backup = backup_of(file)
    earlier = kept(backup)
    replace(backup, content, like=file)
    try:
        yield backup
    except BaseException:
        if earlier is None:
            backup.unlink(missing_ok=True)
        else:
            replace(backup, earlier, like=file)
        raise


def hold_writable(file: Path) -> None:
    """Refuse a file that its owner has made read-only: a draft in its place would pass over that.

    Raises:
        StorageError: it is.
    """
    if file.exists() and not os.access(file, os.W_OK):
        raise _not_written(file, "it is read-only")


def written(file: Path, before: bytes, after: bytes | None) -> bool:
    """Write the file, or remove it, unless it is no longer what was read; say whether.

    Raises:
        StorageError: it cannot be written.
    """
    if after is not None:
        return replace(file, after, like=file, only_if=before)
    if read(file) != before:
        return False
    try:
        file.unlink()
    except OSError as error:
        raise _not_written(file, error.strerror) from None
    return True


def replace(file: Path, content: bytes, *, like: Path, only_if: bytes | None = None) -> bool:
    """Put a finished draft in the file's place, unless the file no longer holds `only_if`; say whether.

    Raises:
        StorageError: the file or its directory cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        mode = stat.S_IMODE(like.stat().st_mode) if like.exists() else _PRIVATE
        descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        draft = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            draft.chmod(mode)
            # As late as can be: hosts write this file, too.
            if only_if is not None and read(file) != only_if:
                return False
            draft.replace(file)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise _not_written(file, error.strerror) from None
    return True


def _not_written(file: Path, reason: str | None) -> StorageError:
    return StorageError(
        f"{file} cannot be written ({reason}).", "Nothing was changed. Make it writable, then run this again."
    )
