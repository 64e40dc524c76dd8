"""The one lock of a batch: whoever changes it holds this, be it to submit, collect, retry, cancel or delete it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

import anyio
import filelock

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.errors import NotReady, StorageError, UnknownBatch, state_failure
from gemini_batch_mcp.threads import in_thread

#: How long to wait for whoever holds the lock, unless the caller says otherwise, and how often to look.
LOCK_WAIT_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.05
#: How long to wait for somebody who writes results for the user (our choice: ten million rows take as long).
_SAVING_SECONDS: Final = 600.0


class BatchLocked(NotReady):
    """Another process holds the lock of the batch."""


class BatchGone(UnknownBatch):
    """The batch was deleted after the call had begun."""

    def __init__(self, batch_id: str) -> None:
        super().__init__(f"The batch {batch_id} was deleted in the meantime.", "Call list_jobs to see the batches.")


@asynccontextmanager
async def batch_lock(app: App, batch_id: str, *, wait_seconds: float = LOCK_WAIT_SECONDS) -> AsyncIterator[None]:
    """Keep everybody else from changing a batch, in this process and in others; its directory is there meanwhile.

    What was read before may have changed: read again inside.

    Raises:
        BatchLocked: somebody holds the lock, and still does after `wait_seconds`.
        BatchGone: the batch was deleted.
        StorageError: the lock's file cannot be opened, or the directory not be made.
    """
    path = app.lock_path(batch_id)
    with _lock_errors(path, batch_id):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = filelock.FileLock(path, blocking=False, thread_local=False)
    deadline = anyio.current_time() + wait_seconds
    while not _is_taken(lock, path, batch_id):
        if anyio.current_time() > deadline:
            raise BatchLocked(
                f"{batch_id} is being submitted, collected or changed by another process or call.",
                "Call check_status, then try again.",
            )
        await anyio.sleep(_LOOK_SECONDS)
    try:
        # Whoever waited while the batch was deleted holds what nobody needs any more, and must not make it anew.
        if await in_thread(app.ledger.batch, batch_id) is None:
            path.unlink(missing_ok=True)
            raise BatchGone(batch_id)
        await in_thread(app.files(batch_id).make_directory)
        yield
        # What was done is done, whether or not it can be written down a second time.
        with suppress(StorageError), anyio.CancelScope(shield=True):
            await in_thread(app.keep_card, batch_id)
    finally:
        lock.release()


@contextmanager
def saving_lock(app: App, batch_id: str) -> Iterator[None]:
    """Keep everybody else from writing results of a batch for the user, in this process and in others. Blocks.

    It is no part of the batch's own lock: nothing of the batch changes, and writing may take minutes.

    Raises:
        BatchLocked: somebody holds it for longer than a large table takes.
        StorageError: the lock's file cannot be opened.
    """
    path = app.saving_lock_path(batch_id)
    with _lock_errors(path, batch_id):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = filelock.FileLock(path, timeout=_SAVING_SECONDS, thread_local=False)
    try:
        with _lock_errors(path, batch_id):
            lock.acquire()
    except filelock.Timeout:
        raise BatchLocked(
            f"Results of {batch_id} are being written by another process or call.", "Make the same call again later."
        ) from None
    try:
        yield
    finally:
        lock.release()


def is_locked(app: App, batch_id: str) -> bool:
    """True while somebody holds the lock of a batch.

    Raises:
        StorageError: the lock's file cannot be opened.
    """
    path = app.lock_path(batch_id)
    if not path.exists():
        return False
    lock = filelock.FileLock(path, blocking=False, thread_local=False)
    if not _is_taken(lock, path, batch_id):
        return True
    lock.release()
    return False


def _is_taken(lock: filelock.BaseFileLock, path: Path, batch_id: str) -> bool:
    """Take the lock if it is free. Not in a thread: a lock that is taken after a cancel would never be released."""
    try:
        with _lock_errors(path, batch_id):
            lock.acquire()
    except filelock.Timeout:
        return False
    return True


@contextmanager
def _lock_errors(path: Path, batch_id: str) -> Iterator[None]:
    """Turn a system's refusal to open a lock's file into a StorageError; that somebody holds the lock passes."""
    try:
        yield
    except filelock.Timeout:
        raise
    except OSError as error:
        raise state_failure(path.parents[1], f"The lock of {batch_id}", error) from None
