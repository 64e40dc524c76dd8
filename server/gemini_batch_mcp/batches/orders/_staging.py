"""The directories of orders in the staging area: one user at a time, and none kept for ever."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import filelock

from gemini_batch_mcp.errors import state_failure

#: How long staged lines wait for their create (our choice; a quote holds as long).
_STAGED_SECONDS: Final = 24 * 3600.0
#: Between two looks at a directory that somebody else holds.
_LOOK_AGAIN_SECONDS: Final = 0.05
#: In an order's directory: what is staged there, written last, and the requests that Gemini is still to be asked about.
FACTS_NAME: Final = "facts.json"
SAMPLE_NAME: Final = "sample.json"
#: In every directory, the area's own too: who is at it.
_LOCK: Final = "lock"


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Have an order's directory to oneself. Whoever waits for it does so outside of it: a sweep may remove it then.

    Raises:
        StorageError: it cannot be created or locked.
    """
    area = directory.parent
    try:
        area.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = _entered(directory)
        while lock is None:
            time.sleep(_LOOK_AGAIN_SECONDS)
            lock = _entered(directory)
    except OSError as error:
        raise state_failure(area.parent, "The staging area", error) from None
    try:
        yield
    finally:
        lock.release()


def _entered(directory: Path) -> filelock.BaseFileLock | None:
    """Return the lock of a directory, which is created if need be; None while somebody else holds it."""
    with _lock(directory.parent):
        directory.mkdir(exist_ok=True, mode=0o700)
        lock = _lock(directory)
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            return None
        return lock


def _lock(directory: Path) -> filelock.BaseFileLock:
    return filelock.FileLock(directory / _LOCK, thread_local=False)


def is_clear(directory: Path) -> bool:
    """Return whether there is nothing to clear in a directory, or no such directory."""
    try:
        return all(left.name == _LOCK for left in directory.iterdir())
    except OSError:
        return True


def clear(directory: Path) -> None:
    """Remove all that stands in a directory that is held, however old: what is there without facts is half a thing."""
    for left in directory.iterdir():
        if left.name != _LOCK:
            _remove(left)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def sweep_others(own: Path) -> None:
    """Remove what was staged so long ago that no create will come for it, and what killed processes left beside it.

    Nothing is removed that somebody holds. Age is told by the file system's own clock: this process may have another.
    """
    area = own.parent
    with suppress(OSError), _lock(area):
        os.utime(area)
        now = area.stat().st_mtime
        for directory in (*area.iterdir(), *area.parent.glob("attach-*")):
            # Of tomorrow is what was written while the clock was wrong.
            if directory.is_dir() and directory != own and abs(now - directory.stat().st_mtime) > _STAGED_SECONDS:
                _remove_unheld(directory)


def _remove_unheld(directory: Path) -> None:
    lock = _lock(directory)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return
    # Nobody can come in between: the area is held as well.
    lock.release()
    _remove(directory)
