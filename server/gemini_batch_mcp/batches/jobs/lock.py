"""The submit lock of a batch: while a process holds it, no other one writes its requests or creates its jobs."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import filelock

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.errors import NotReady, StorageError, system_reason
from gemini_batch_mcp.threads import in_thread

#: How long to wait for a process that holds the lock.
_LOCK_WAIT_SECONDS = 5.0


class BatchLocked(NotReady):
    """Another process holds the lock of the batch."""


@contextmanager
def lock_errors(batch_id: str) -> Iterator[None]:
    """Turn a system's refusal to open a lock's file into a StorageError; that somebody holds the lock passes."""
    try:
        yield
    except filelock.Timeout:
        raise
    except OSError as error:
        raise StorageError(
            f"A lock of {batch_id} could not be taken: {system_reason(error)}.",
            "Check the rights of the directory that GEMINI_BATCH_HOME names.",
        ) from None


@asynccontextmanager
async def submit_lock(app: App, batch_id: str, *, wait_seconds: float = _LOCK_WAIT_SECONDS) -> AsyncIterator[None]:
    """Keep other processes from submitting a batch, or from writing the files of its next attempt.

    Raises:
        BatchLocked: another process holds the lock, and still does after `wait_seconds`.
        StorageError: the lock's file cannot be opened.
    """
    await in_thread(app.files(batch_id).make_directory)
    lock = filelock.FileLock(app.files(batch_id).submit_lock, thread_local=False)
    try:
        with lock_errors(batch_id):
            await in_thread(lock.acquire, timeout=wait_seconds)
    except filelock.Timeout:
        raise BatchLocked(f"Another process is working on {batch_id}.", "Call check_status, then try again.") from None
    try:
        yield
    finally:
        lock.release()
