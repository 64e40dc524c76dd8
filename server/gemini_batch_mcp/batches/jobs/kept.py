"""What is kept here of a batch: whether its rows could be sent again, and if not, why."""

from pathlib import Path

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.ledger.entries import BatchEntry
from gemini_batch_mcp.errors import BatchError


def is_kept(app: App, batch: BatchEntry) -> bool:
    """True when the requests of a batch are here, by a quick look: the file may have been changed in place.

    Those of an object in Cloud Storage are brought here when they are wanted.
    """
    if _is_in_bigquery(batch):
        return True
    path = _request_path(app, batch)
    return app.files(batch.id).keys().is_file() and (path.is_file() or batch.is_sent_in_place)


def why_not_kept(app: App, batch: BatchEntry) -> str:
    """Say why the rows of a batch could not be sent again, empty when they could; reads the whole request file."""
    if not batch.is_ours:
        return "it was made elsewhere, and its requests are not stored here"
    if _is_in_bigquery(batch):
        return ""
    if not app.files(batch.id).keys().is_file():
        return "it was ordered from a file uploaded earlier, whose requests are not stored here"
    path = _request_path(app, batch)
    if not path.is_file() and batch.is_sent_in_place:
        return ""
    if not path.is_file():
        return f"{path}, which holds its requests, is gone"
    try:
        is_same = app.hashes.of(path) == batch.request_sha256
    except BatchError:
        is_same = False
    return "" if is_same else f"{path}, which holds its requests, has changed"


def _is_in_bigquery(batch: BatchEntry) -> bool:
    """True for an order from a table there, whose requests were written beside it and are kept there."""
    return batch.order is not None and batch.order.source.startswith("bq://")


def _request_path(app: App, batch: BatchEntry) -> Path:
    return Path(batch.request_path) if batch.request_path else app.files(batch.id).requests()
