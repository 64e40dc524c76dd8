"""Results as files for the user: in the directory that was checked, and over nothing of anybody else's.

They are written in the state directory and then brought over, in one step and by the handle of the directory where they
are to be: what is put in the place of that directory, or of a draft, meanwhile, changes nothing.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from stat import S_ISREG
from tempfile import TemporaryDirectory
from typing import Final

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.jobs.lock import saving_lock
from gemini_batch_mcp.batches.ledger.entries import BatchEntry
from gemini_batch_mcp.digests import descriptor_digest, file_digest
from gemini_batch_mcp.domain import SavedFile
from gemini_batch_mcp.errors import StorageError, storage_errors, system_reason
from gemini_batch_mcp.handles import Directory, open_file
from gemini_batch_mcp.paths import DRAFT_PREFIX, DRAFT_SECONDS, names_after, sweep
from gemini_batch_mcp.results.export.formats import Format, is_written_as
from gemini_batch_mcp.results.store import ResultTable

#: How a page about a batch begins, and nothing else that is written here.
_PAGE: Final = b"<!doctype html>"


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
    new one gets a free name beside it. Whoever saves the same at the same time waits, and is given the same file.

    Raises:
        UsageError: the table has nothing for this format.
        StorageError: the raw answers are gone, or the file cannot be written.
        BatchLocked: another process has been writing results of this batch for long.
    """
    with saving_lock(app, batch.id):
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
        with suppress(OSError):
            status = candidate.lstat()
            if not recorded or not S_ISREG(status.st_mode) or status.st_mtime < table.path.stat().st_mtime:
                continue
            if is_written_as(candidate, format) and app.hashes.has_digest(candidate, recorded):
                return SavedFile(candidate, format, table.row_count, status.st_size)
    return None


def _save(app: App, batch: BatchEntry, table: ResultTable, destination: Path, format: Format) -> SavedFile:
    with draft_of(app, destination) as draft:
        written = table.export(draft, format)
        return replace(written, path=publish_saved(app, batch.id, draft, destination))


@contextmanager
def draft_of(app: App, destination: Path) -> Iterator[Path]:
    """Yield where a file is to be written that will then be published as `destination`.

    Raises:
        StorageError: the state directory cannot be written to; or the block ended in an OSError.
    """
    home = app.settings.home.resolve()
    with storage_errors("The file could not be written"):
        directory = TemporaryDirectory(prefix=DRAFT_PREFIX, dir=home, ignore_cleanup_errors=True)
    with directory as name:
        try:
            yield Path(name, destination.name)
        except OSError as error:
            raise StorageError(
                f"{destination} could not be written ({system_reason(error)}).", "Free some space or give another path."
            ) from None


def sweep_drafts(app: App, directory: Path) -> None:
    """Remove what killed processes have left of their drafts, here and in the directory where results are saved."""
    sweep(app.settings.home, f"{DRAFT_PREFIX}*", older_than_seconds=DRAFT_SECONDS)
    with suppress(OSError), Directory(directory) as opened:
        opened.sweep(DRAFT_SECONDS)


def publish_saved(app: App, batch_id: str, draft: Path, destination: Path) -> Path:
    """Give a finished file its name and write down that it is ours; return where it is.

    A new name is written down before the file has it, and a file with the same bytes is as good as ours. So neither a
    process that was killed here nor one that saves the same at the same time makes this one take another name.
    A page and results never take each other's place.

    Raises:
        OSError: the file system refuses, or a link stands in the path of the directory.
    """
    digest, size_bytes, is_page = file_digest(draft), draft.stat().st_size, _is_page(open_file(draft))
    with Directory(destination.parent) as directory:
        for candidate in names_after(destination):
            recorded = app.ledger.saved_digest(batch_id, candidate)
            is_free = directory.status(candidate.name) is None
            if is_free:
                app.ledger.record_saved(batch_id, candidate, digest)
                with suppress(FileExistsError):
                    directory.publish(draft, candidate.name)
                    # Once more: somebody who wanted the same name has perhaps written down theirs.
                    app.ledger.record_saved(batch_id, candidate, digest)
                    return candidate
            if _may_replace(directory, candidate.name, size_bytes, digest, recorded, is_page):
                directory.replace(draft, candidate.name)
                app.ledger.record_saved(batch_id, candidate, digest)
                return candidate
    raise AssertionError("names do not end")


def _may_replace(directory: Directory, name: str, size_bytes: int, digest: str, recorded: str, is_page: bool) -> bool:
    """True for a file that holds the same, or that is ours, of the same kind, and as we wrote it."""
    status = directory.status(name)
    if status is None or not S_ISREG(status.st_mode):
        return False
    if status.st_size == size_bytes and descriptor_digest(directory.open_file(name)) == digest:
        return True
    if not recorded or _is_page(directory.open_file(name)) != is_page:
        return False
    return descriptor_digest(directory.open_file(name), recorded.partition(":")[0]) == recorded


def _is_page(descriptor: int) -> bool:
    """True for a page about a batch; the file is open, and closed here."""
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        return file.read(len(_PAGE)) == _PAGE
