"""What is known here of results that lie in BigQuery: their counts and columns, in one small file beside the batch."""

from pathlib import Path
from typing import Final

import msgspec

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.ledger.entries import BatchEntry
from gemini_batch_mcp.domain import Column, ResultSummary
from gemini_batch_mcp.errors import storage_errors

_NAME: Final = "remote.json"
_VERSION: Final = 1


class RemoteFacts(msgspec.Struct, frozen=True):
    """What was counted in a results table. `stands_for` says of which answers, `table` and `location` where it is."""

    table: str
    location: str
    stands_for: str
    columns: tuple[Column, ...]
    summary: ResultSummary
    version: int = _VERSION


def read_remote(app: App, batch: BatchEntry) -> RemoteFacts | None:
    """Return what is known of a batch's results, None before they were collected."""
    try:
        found = msgspec.json.decode(_path(app, batch).read_bytes(), type=RemoteFacts)
    except (OSError, msgspec.MsgspecError):
        return None
    return found if found.version == _VERSION else None


def write_remote(app: App, batch: BatchEntry, facts: RemoteFacts) -> None:
    """Write it down.

    Raises:
        StorageError: it cannot be written.
    """
    path = _path(app, batch)
    app.files(batch.id).make_directory()
    with storage_errors("What BigQuery counted could not be written down"):
        draft = path.with_name(f"{path.name}.part")
        draft.write_bytes(msgspec.json.encode(facts))
        draft.replace(path)


def _path(app: App, batch: BatchEntry) -> Path:
    return app.files(batch.id).directory / _NAME
