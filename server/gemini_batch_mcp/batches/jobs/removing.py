"""Removing what this ledger holds of a batch: its entry, its directory, its lock."""

import secrets
import shutil

from gemini_batch_mcp.batches.app import REMOVED_PREFIX, App
from gemini_batch_mcp.batches.ledger.cards import CARD


def remove_batch(app: App, batch_id: str) -> None:
    """Forget a batch and remove its files; whoever holds its lock, or created it, may do so."""
    directory = app.files(batch_id).directory
    # First: whoever finds a card and no entry takes the batch back.
    (directory / CARD).unlink(missing_ok=True)
    app.ledger.forget(batch_id)
    removed = directory.with_name(f"{REMOVED_PREFIX}{secrets.token_hex(6)}")
    try:
        directory.rename(removed)
    except OSError:
        removed = directory
    shutil.rmtree(removed, ignore_errors=True)
    for lock in (app.lock_path(batch_id), app.saving_lock_path(batch_id)):
        lock.unlink(missing_ok=True)
