"""Results as objects of an object store: whole or not at all, and over nothing of anybody else's.

The rules are those of files (`_saving`): an object is replaced only if we wrote it for this batch and it is still the
one that we wrote, which the store itself compares; otherwise the new one gets a free name beside it.
"""

from dataclasses import replace
from pathlib import Path

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.ledger.entries import SavedEntry
from gemini_batch_mcp.domain import SavedFile
from gemini_batch_mcp.results.export.formats import Format
from gemini_batch_mcp.stores.addresses import Address, addresses_after
from gemini_batch_mcp.stores.store import sha256_of


def saved_object(app: App, batch_id: str, wish: str, destination: Address, format: Format) -> SavedFile | None:
    """Return the object there, or beside it, that we wrote for that wish and that is still as it was.

    Raises:
        GeminiError, ConfigurationError: the store cannot be asked.
    """
    for candidate in addresses_after(destination):
        recorded = app.ledger.saves.found(batch_id, str(candidate))
        if recorded is None and candidate != destination:
            return None
        if recorded is None or recorded.wish != wish:
            continue
        found = app.stores.look(candidate)
        if found is not None and found.version == recorded.digest:
            return _saved(candidate, format, recorded, found.size_bytes)
    raise AssertionError("names do not end")


def publish_object(
    app: App, batch_id: str, draft: Path, destination: Address, written: SavedFile, entry: SavedEntry
) -> SavedFile:
    """Write a finished file as an object, and write down that it is ours.

    One that has the same bytes by what was noted beside it is as good as ours: its upload came from here.

    Raises:
        GeminiError, ConfigurationError: the store refuses, or cannot be reached.
    """
    sha256, size_bytes = sha256_of(draft), draft.stat().st_size
    for candidate in addresses_after(destination):
        recorded = app.ledger.saves.found(batch_id, str(candidate))
        found = app.stores.look(candidate)
        is_same = found is not None and (found.sha256, found.size_bytes) == (sha256, size_bytes)
        is_ours = found is None or (recorded is not None and recorded.digest == found.version)
        stored = found if is_same else app.stores.put(draft, candidate, found) if is_ours else None
        if stored is not None:
            entry = replace(entry, digest=stored.version)
            app.ledger.saves.record(batch_id, str(candidate), entry)
            return replace(written, path=Path(candidate.name), address=str(candidate))
    raise AssertionError("names do not end")


def _saved(address: Address, format: Format, recorded: SavedEntry, size_bytes: int) -> SavedFile:
    return SavedFile(
        Path(address.name), format, recorded.row_count, size_bytes, notes=recorded.notes, address=str(address)
    )
