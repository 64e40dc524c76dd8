"""Results as files for the user: written only where nothing of anybody else's is lost."""

import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.ledger.entries import BatchEntry
from gemini_batch_mcp.digests import file_digest, has_digest
from gemini_batch_mcp.domain import SavedFile
from gemini_batch_mcp.errors import StorageError
from gemini_batch_mcp.paths import DRAFT_PREFIX, free_name, publish
from gemini_batch_mcp.results.export.formats import Format, is_written_as
from gemini_batch_mcp.results.store import ResultTable


def saved_files(app: App, batch: BatchEntry, table: ResultTable, destination: Path, format: Format) -> SavedFile | None:
    """Return the file that holds this table already, written by us and not changed since, with all its companions.

    None when one of them is not there.
    """
    found = [_saved(app, batch, table, path, kind) for path, kind in _files(table, destination, format)]
    first, *companions = found
    if first is None or None in companions:
        return None
    return replace(first, companions=tuple(companion for companion in companions if companion is not None))


def save_files(app: App, batch: BatchEntry, table: ResultTable, destination: Path, format: Format) -> SavedFile:
    """Write a table, and what belongs beside it: vectors as a matrix, with their keys.

    A file that is there is replaced only if we wrote it for this batch and nobody has changed it since; otherwise the
    new one gets a free name beside it.

    Raises:
        UsageError: the table has nothing for this format.
        StorageError: the raw answers are gone, or the file cannot be written.
    """
    first, *companions = (
        _saved(app, batch, table, path, kind) or _save(app, batch, table, path, kind)
        for path, kind in _files(table, destination, format)
    )
    return replace(first, companions=tuple(companions))


def _files(table: ResultTable, destination: Path, format: Format) -> Iterator[tuple[Path, Format]]:
    yield destination, format
    if format == "parquet" and table.vector_size:
        # The name is kept whole: "vectors.npy" saved as Parquet must not become its own companion.
        yield destination.with_name(f"{destination.name.removesuffix('.parquet')}.vectors.npy"), "npy"
        yield destination.with_name(f"{destination.name.removesuffix('.parquet')}.vectors.keys.jsonl"), "keys"


def _saved(app: App, batch: BatchEntry, table: ResultTable, destination: Path, format: Format) -> SavedFile | None:
    for candidate in (destination, *app.ledger.saved_beside(batch.id, destination)):
        recorded = app.ledger.saved_digest(batch.id, candidate)
        if not recorded or not candidate.is_file() or candidate.stat().st_mtime < table.path.stat().st_mtime:
            continue
        if is_written_as(candidate, format) and app.hashes.has_digest(candidate, recorded):
            return SavedFile(candidate, format, table.row_count, candidate.stat().st_size)
    return None


def _save(app: App, batch: BatchEntry, table: ResultTable, destination: Path, format: Format) -> SavedFile:
    draft = destination.with_name(f"{DRAFT_PREFIX}{secrets.token_hex(6)}{destination.suffix}")
    try:
        written = table.export(draft, format)
        return replace(written, path=publish_saved(app, batch.id, draft, destination))
    except OSError as error:
        raise StorageError(
            f"{destination} could not be written ({error.strerror}).", "Free some space or give another path."
        ) from None
    finally:
        draft.unlink(missing_ok=True)


def publish_saved(app: App, batch_id: str, draft: Path, destination: Path) -> Path:
    """Give a finished file its name and write down that it is ours; return where it is.

    A new name is written down before the file has it, and a file with the same bytes is as good as ours. So neither a
    process that was killed here nor one that saves the same at the same time makes this one take another name.

    Raises:
        OSError: the file system refuses.
    """
    digest = file_digest(draft)
    recorded = app.ledger.saved_digest(batch_id, destination)
    if destination.is_file() and any(has_digest(destination, ours) for ours in (recorded, digest) if ours):
        draft.replace(destination)
        app.ledger.record_saved(batch_id, destination, digest)
        return destination
    wanted = free_name(destination)
    app.ledger.record_saved(batch_id, wanted, digest)
    published = publish(draft, wanted)
    if published != wanted and wanted.is_file() and has_digest(wanted, digest):
        published.unlink()
        published = wanted
    # Once more: it may have got another name, or somebody who wanted the same one has written down theirs.
    app.ledger.record_saved(batch_id, published, digest)
    return published
