"""Results as files for the user: in the directory that was checked, and over nothing of anybody else's.

They are written in the state directory and then brought over, in one step and by the handle of the directory where they
are to be: what is put in the place of that directory, or of a draft, meanwhile, changes nothing.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from stat import S_ISREG
from tempfile import TemporaryDirectory
from typing import Final, TypeVar

from gemini_batch_mcp.batches.answers._objects import publish_object, saved_object
from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.jobs.lock import saving_lock
from gemini_batch_mcp.batches.ledger.entries import BatchEntry, SavedEntry
from gemini_batch_mcp.digests import descriptor_digest, file_digest, text_digest
from gemini_batch_mcp.domain import SavedFile
from gemini_batch_mcp.errors import StorageError, storage_errors, system_reason
from gemini_batch_mcp.handles import Directory, open_file
from gemini_batch_mcp.paths import DRAFT_PREFIX, DRAFT_SECONDS, names_after, sweep
from gemini_batch_mcp.results.export.formats import Format, export_selected, is_written_as
from gemini_batch_mcp.results.store import ResultTable
from gemini_batch_mcp.stores.addresses import Address

#: How a page about a batch begins, and nothing else that is written here.
_PAGE: Final = b"<!doctype html>"
_A_PAGE: Final = SavedEntry("")
#: Of the columns that files for people have; a file of another layout is written again.
_LAYOUT: Final = 2

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be written: all rows of a table, those with these keys, or what `sql` selects.

    `tables` are those that the statement may read, by their names; one of them is `table`.
    """

    table: ResultTable
    format: Format
    keys: tuple[str, ...] = ()
    sql: str = ""
    tables: Mapping[str, ResultTable] = field(default_factory=dict)
    #: What a sheet is called.
    name: str = ""

    def digest(self, format: Format) -> str:
        """Return what stands for the rows and columns of one of the files: another one, and the file is another."""
        tables = [[name, table.folder.name] for name, table in self.tables.items()]
        wanted = [_LAYOUT, self.table.folder.name, format, self.keys, self.sql, tables, self.name]
        return text_digest(json.dumps(wanted))


def saved_files(app: App, batch: BatchEntry, wish: Wish, destination: Path | Address) -> SavedFile | None:
    """Return the file that holds this already, written by us and not changed since, with all its companions.

    None when one of them is not there.
    """
    found = [_saved(app, batch, wish, path, kind) for path, kind in _files(wish, destination)]
    first, *companions = found
    if first is None or None in companions:
        return None
    return replace(first, companions=tuple(companion for companion in companions if companion is not None))


def save_files(app: App, batch: BatchEntry, wish: Wish, destination: Path | Address) -> SavedFile:
    """Write what is wanted, and what belongs beside it: vectors as a matrix, with their keys.

    A file that is there is replaced only if we wrote it for this batch and nobody has changed it since; otherwise the
    new one gets a free name beside it. Whoever saves the same at the same time waits, and is given the same file.

    Raises:
        UsageError: the table has nothing for this format, or the statement may not run.
        StorageError: the raw answers are gone, or the file cannot be written.
        BatchLocked: another process has been writing results of this batch for long.
    """
    with saving_lock(app, batch.id), _selected(app, wish) as selected:
        first, *companions = (
            _saved(app, batch, wish, path, kind) or _save(app, batch, wish, path, kind, selected)
            for path, kind in _files(wish, destination)
        )
    return replace(first, companions=tuple(companions))


def with_tables(tables: Mapping[str, ResultTable], work: Callable[[Mapping[str, Path]], T]) -> T:
    """Do work with the folders of several tables, again with those that took the place of one that went away.

    Raises:
        StorageError: a table cannot be read, or what `work` raises.
    """
    if not tables:
        return work({})
    (name, table), *others = tables.items()
    return table.while_there(
        lambda there: with_tables(dict(others), lambda folders: work({name: there.folder, **folders}))
    )


def files_of(destination: Path | Address, format: Format) -> list[tuple[Path | Address, Format]]:
    """Return a file and what belongs beside it whatever it holds, each with its format: vectors have their keys."""
    companions: list[tuple[Path | Address, Format]] = []
    if format == "npy":
        companions = [(destination.with_name(f"{_stem(destination, format)}.keys.jsonl"), "keys")]
    return [(destination, format), *companions]


def _files(wish: Wish, destination: Path | Address) -> list[tuple[Path | Address, Format]]:
    files = files_of(destination, wish.format)
    if wish.format not in ("jsonl", "npy") and wish.table.vector_size and not wish.sql:
        stem = _stem(destination, wish.format)
        files.append((destination.with_name(f"{stem}.vectors.npy"), "npy"))
        files.append((destination.with_name(f"{stem}.vectors.keys.jsonl"), "keys"))
    return files


def _stem(destination: Path | Address, format: Format) -> str:
    """Return a file's name without its ending, whole: vectors.npy saved as Parquet isn't its own companion."""
    return destination.name.removesuffix(f".{format}")


def _saved(app: App, batch: BatchEntry, wish: Wish, destination: Path | Address, format: Format) -> SavedFile | None:
    return saved_file(app, batch.id, wish.digest(format), destination, format)


def saved_file(app: App, batch_id: str, wish: str, destination: Path | Address, format: Format) -> SavedFile | None:
    """Return the file there, or beside it, that we wrote for that wish and nobody has changed since."""
    if isinstance(destination, Address):
        return saved_object(app, batch_id, wish, destination, format)
    for candidate in (destination, *app.ledger.saves.beside(batch_id, destination)):
        recorded = app.ledger.saves.found(batch_id, candidate)
        with suppress(OSError):
            status = candidate.lstat()
            if recorded is None or recorded.wish != wish or not S_ISREG(status.st_mode):
                continue
            if is_written_as(candidate, format) and app.hashes.has_digest(candidate, recorded.digest):
                return SavedFile(candidate, format, recorded.row_count, status.st_size, notes=recorded.notes)
    return None


def _save(
    app: App, batch: BatchEntry, wish: Wish, destination: Path | Address, format: Format, selected: Path | None
) -> SavedFile:
    with draft_of(app, destination) as draft:
        if selected is not None:
            home = wish.table.path.parent
            written = export_selected(selected, draft, format, home=home, name=wish.name)
        else:
            written = wish.table.export(draft, format, keys=wish.keys, name=wish.name)
        entry = SavedEntry("", wish.digest(format), written.rows, written.notes)
        if isinstance(destination, Address):
            return publish_object(app, batch.id, draft, destination, replace(written, notes=entry.notes), entry)
        return replace(written, path=publish_saved(app, batch.id, draft, destination, entry))


@contextmanager
def _selected(app: App, wish: Wish) -> Iterator[Path | None]:
    """Yield the rows that the statement of a wish selects, as Parquet in the state directory; None without one.

    Raises:
        UsageError: the statement may not run, or not to its end.
        StorageError: a table cannot be read, or the rows cannot be written.
    """
    if not wish.sql:
        yield None
        return
    with TemporaryDirectory(prefix=DRAFT_PREFIX, dir=app.settings.home.resolve(), ignore_cleanup_errors=True) as place:
        numbers = count()

        def select(folders: Mapping[str, Path]) -> Path:
            selected = Path(place, f"selected-{next(numbers)}.parquet")
            with storage_errors("The selected rows could not be written"):
                app.queries.save_selected(folders, wish.sql, selected)
            return selected

        yield with_tables(wish.tables, select)


@contextmanager
def draft_of(app: App, destination: Path | Address) -> Iterator[Path]:
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


def sweep_drafts(app: App, destination: Path | Address) -> None:
    """Remove what killed processes have left of their drafts, here and in the directory where results are saved."""
    sweep(app.settings.home, f"{DRAFT_PREFIX}*", older_than_seconds=DRAFT_SECONDS)
    if isinstance(destination, Path):
        with suppress(OSError), Directory(destination.parent) as opened:
            opened.sweep(DRAFT_SECONDS)


def publish_saved(app: App, batch_id: str, draft: Path, destination: Path, entry: SavedEntry = _A_PAGE) -> Path:
    """Give a finished file its name and write down that it is ours; return where it is.

    A new name is written down before the file has it, and a file with the same bytes is as good as ours. So neither a
    process that was killed here nor one that saves the same at the same time makes this one take another name.
    A page and results never take each other's place.

    Raises:
        OSError: the file system refuses, or a link stands in the path of the directory.
    """
    digest, size_bytes, is_page = file_digest(draft), draft.stat().st_size, _is_page(open_file(draft))
    entry = replace(entry, digest=digest)
    with Directory(destination.parent) as directory:
        for candidate in names_after(destination):
            found = app.ledger.saves.found(batch_id, candidate)
            recorded = found.digest if found is not None else ""
            is_free = directory.status(candidate.name) is None
            if is_free:
                app.ledger.saves.record(batch_id, candidate, entry)
                with suppress(FileExistsError):
                    directory.publish(draft, candidate.name)
                    # Once more: somebody who wanted the same name has perhaps written down theirs.
                    app.ledger.saves.record(batch_id, candidate, entry)
                    return candidate
            if _may_replace(directory, candidate.name, size_bytes, digest, recorded, is_page):
                directory.replace(draft, candidate.name)
                app.ledger.saves.record(batch_id, candidate, entry)
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
