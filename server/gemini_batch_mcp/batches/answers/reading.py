"""Reading a batch's results: collected first where that is left to do, then counts, a page of rows, or a file."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Literal

from gemini_batch_mcp.batches.answers._objects import publish_object
from gemini_batch_mcp.batches.answers._saving import (
    Wish,
    draft_of,
    files_of,
    publish_saved,
    save_files,
    saved_file,
    saved_files,
    sweep_drafts,
)
from gemini_batch_mcp.batches.answers.awaiting import await_delivery
from gemini_batch_mcp.batches.answers.collecting import collect_batch, must_collect, opened_table, schema_of
from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.jobs.accounts import is_anothers, refuse_anothers
from gemini_batch_mcp.batches.jobs.advice import after_retry, next_step
from gemini_batch_mcp.batches.jobs.delivery import lost_answers, not_there_yet, undelivered, utc_now
from gemini_batch_mcp.batches.jobs.finding import find_batch
from gemini_batch_mcp.batches.jobs.rows import note_rows
from gemini_batch_mcp.batches.jobs.tracking import BatchStatus, describe, load, refresh
from gemini_batch_mcp.batches.ledger.entries import BatchEntry, SavedEntry
from gemini_batch_mcp.batches.remote.kept_facts import RemoteFacts, read_remote
from gemini_batch_mcp.batches.remote.places import is_remote
from gemini_batch_mcp.batches.remote.reading import RemoteTable, read_page
from gemini_batch_mcp.batches.remote.saving import fetch_rows, save_lines
from gemini_batch_mcp.batches.work import deadline_after, seconds_left
from gemini_batch_mcp.digests import text_digest
from gemini_batch_mcp.domain import (
    FORMATS_BY_ENDING,
    Column,
    FileFormat,
    ResultPage,
    ResultQuery,
    ResultSummary,
    RowAttempt,
    SavedFile,
)
from gemini_batch_mcp.errors import BatchError, NotReady, StillCollecting, StorageError, UsageError
from gemini_batch_mcp.patterns import pattern_warnings
from gemini_batch_mcp.results.query.queries import RELATION
from gemini_batch_mcp.results.store import ResultTable
from gemini_batch_mcp.stores.addresses import Address, is_address
from gemini_batch_mcp.text import count, plain_text
from gemini_batch_mcp.threads import in_thread

#: Rows of one page as JSON, in characters; with the summary around them an answer stays below 20,000.
MAX_PAGE_CHARS = 17_000
#: Of files with rows from BigQuery; one of another layout is written again.
_REMOTE_LAYOUT: Final = 2
#: Batches beside the one that is asked: each is collected first, and its parts are opened for the statement.
MAX_ALSO = 10


@dataclass(frozen=True, slots=True)
class Results:
    """What get_results answers with. `page` is None for the summary alone, `saved` None when nothing was written.

    `warnings` are sentences of ours about what is not as it should be, although there are results. While
    `summary.pending` is not 0 more rows are to come. `table` is the open table, for what else it tells.
    """

    status: BatchStatus
    summary: ResultSummary
    #: None where the answers stay in BigQuery; `remote` then.
    here: ResultTable | None
    page: ResultPage | None = None
    saved: SavedFile | None = None
    warnings: tuple[str, ...] = ()
    remote: RemoteTable | None = None

    @property
    def table(self) -> ResultTable:
        """The open table.

        Raises:
            UsageError: the answers stay in BigQuery.
        """
        if self.here is None:
            raise UsageError(
                f"The answers of {self.status.batch.id} stay in BigQuery, and this reads tables on this machine only.",
                "Ask them with query_results, lay them against others with compare_results, or save them with "
                "get_results and save_to.",
            )
        return self.here

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns that a query may use."""
        return self.remote.columns if self.remote is not None else self.table.columns

    def history(self, keys: Sequence[str]) -> Mapping[str, tuple[RowAttempt, ...]]:
        """Return how the attempts at these rows ended; of rows in BigQuery, of those that were read."""
        return self.remote.history(keys) if self.remote is not None else self.table.history(keys)

    def first_key(self) -> str:
        """Return a key, to show what keys look like here; empty where none is at hand."""
        rows = self.remote.rows if self.remote is not None else self.table.page(view="rows", limit=1).rows
        return next((row.key for row in rows), "")


async def read_results(app: App, reference: str, query: ResultQuery, *, wait_seconds: float | None = None) -> Results:
    """Collect what can be collected of a batch, and read from its result table.

    A batch of several jobs may be read while some of them run; rows of those are pending. When something new cannot be
    fetched, what was collected before is read, with a warning.

    Raises:
        NotReady: there is nothing to read yet, or ever.
        UsageError: the query does not fit.
        StillCollecting: fetching the answers takes longer than `wait_seconds`; it goes on in the background.
        BatchError: the answers could not be fetched or stored.
    """
    deadline = deadline_after(wait_seconds)
    _refuse_unheard(query)
    batch = await refresh(app, await find_batch(app, reference))
    if not (status := describe(batch)).results_ready and not undelivered(batch):
        raise NotReady(f"{batch.id} has no results: its state is {status.state}.", status.advice)
    destination, format = _destination(app, batch, query)
    batch, warnings = await _collected(app, batch, deadline)
    missing, now = undelivered(batch), utc_now()
    if not describe(batch).results_ready:
        raise NotReady(not_there_yet(missing, now), next_step(batch, now))
    if missing:
        warnings += (f"{not_there_yet(missing, now)} {next_step(batch, now)}",)
    if is_remote(batch):
        return await _read_remote(app, batch, query, destination, format, warnings, deadline)
    table = await in_thread(ResultTable.open, app.files(batch.id).table, app.tables)
    # A process that was killed between the two has left a table that the ledger does not know of.
    batch = await in_thread(note_rows, app, batch, table.summary())
    status = describe(batch)
    if status.done and (in_vain := after_retry(batch)):
        warnings += (in_vain,)
    page = None
    if query.view != "summary" or query.cursor or (query.keys and destination is None):
        page = await in_thread(_page, table, query)
    saved = None
    if destination is not None:
        tables = {RELATION: table} | await read_also(app, query.also, deadline) if query.sql else {}
        wish = Wish(table, format, query.keys, query.sql, tables, batch.display_name)
        saved = await _saved(app, batch, wish, destination, deadline)
        warnings += _words_of(saved, destination, format)
    warnings += await in_thread(lambda: pattern_warnings(schema_of(app, batch)))
    summary = table.summary()
    if unmetered := summary.usage.unmetered:
        warnings += (f"{count(unmetered, 'answer')} came without a count of tokens: that cost is in no figure.",)
    if summary.cleaned:
        warnings += (_cleaned_words(summary.cleaned),)
    if summary.missing and (lost := lost_answers(batch)):
        warnings += (
            f"Gemini counts {lost:,} more rows of {batch.id} as done than it has delivered, in two downloads "
            "of the same bytes or a day after the end: these answers are lost at Gemini.",
        )
    if await in_thread(_lacks_columns, app, batch):
        warnings += (
            f"The columns of {batch.source} were not kept, so they are not shown beside these answers; "
            "the keys say which row each answer belongs to.",
        )
    return Results(status, summary, table, page, saved, warnings)


async def _read_remote(
    app: App,
    batch: BatchEntry,
    query: ResultQuery,
    destination: Path | Address | None,
    format: FileFormat,
    warnings: tuple[str, ...],
    deadline: float | None,
) -> Results:
    """Read results that stay in BigQuery; see `read_results`."""
    facts = await in_thread(read_remote, app, batch)
    if facts is None:
        raise NotReady(f"{batch.id} has no results in BigQuery yet.", "Call get_results again in a minute.")
    remote, page = await read_page(app, batch, replace(query, keys=() if destination is not None else query.keys))
    saved = None
    if destination is not None:
        if query.also:
            raise UsageError(
                f"also names other batches: {batch.id}'s answers stay in {facts.table}.",
                "Save this batch alone, or ask with query_results, which takes also.",
            )
        saved = await _save_remote(app, batch, query, destination, format, facts, deadline)
        warnings += _words_of(saved, destination, format)
    status = describe(batch)
    if status.done and (in_vain := after_retry(batch)):
        warnings += (in_vain,)
    summary = facts.summary
    warnings += (f"The answers stay in BigQuery, in {facts.table}; query_results takes BigQuery's SQL.",)
    if unmetered := summary.usage.unmetered:
        warnings += (f"{count(unmetered, 'answer')} came without a count of tokens: that cost is in no figure.",)
    return Results(status, summary, None, page, saved, warnings, remote)


async def _save_remote(
    app: App,
    batch: BatchEntry,
    query: ResultQuery,
    destination: Path | Address,
    format: FileFormat,
    facts: RemoteFacts,
    deadline: float | None,
) -> SavedFile:
    """Return the file that holds what is wanted, written now unless it is there as we wrote it.

    Raises:
        StillCollecting: writing it takes longer than until `deadline`; it goes on in the background.
        GeminiError, StorageError: the rows cannot be read, or not be written.
    """
    wish = text_digest(f"remote {_REMOTE_LAYOUT} {facts.stands_for} {format} {query.keys} {query.sql}")
    await in_thread(sweep_drafts, app, destination)
    files = files_of(destination, format)

    def saved() -> SavedFile | None:
        found = [saved_file(app, batch.id, wish, path, kind) for path, kind in files]
        there = [file for file in found if file is not None]
        return replace(there[0], companions=tuple(there[1:])) if len(there) == len(found) else None

    async def save() -> None:
        with draft_of(app, destination) as draft:
            if format == "jsonl":
                rows = await save_lines(app, batch, draft, keys=query.keys, sql=query.sql)
                written = [SavedFile(draft, format, rows, 0)]
            else:
                folder = draft.with_name(f"{draft.name}.arriving")
                fetched = await fetch_rows(app, batch, folder, format, keys=query.keys, sql=query.sql)
                written = [await in_thread(fetched.write, draft.with_name(path.name), kind) for path, kind in files]
            for (path, _), file in zip(files, written, strict=True):
                entry = SavedEntry("", wish, file.rows, file.notes)
                if isinstance(path, Address):
                    await in_thread(publish_object, app, batch.id, file.path, path, file, entry)
                else:
                    await in_thread(publish_saved, app, batch.id, file.path, path, entry)

    if (found := await in_thread(saved)) is None:
        await _in_background(app, f"save {batch.id} {wish} {destination}", save, deadline, "being written")
        found = await in_thread(saved)
    if found is None:
        raise StorageError(
            f"{destination} was changed by someone else right after it was written.", "Give another path."
        )
    return found


def _words_of(saved: SavedFile, destination: Path | Address, format: FileFormat) -> tuple[str, ...]:
    """Say what is not as one may expect of a file that was saved."""
    words, ending = saved.notes, destination.suffix.lower()
    if FORMATS_BY_ENDING.get(ending, format) != format:
        words += (f"{saved.path.name} holds {format}, as format says, and not what its ending {ending} names.",)
    if saved.place != str(destination):
        taken = f"{destination.name} is another file, which was left as it is"
        words += (f"{taken}: the rows are in {saved.path.name}.",)
    return words


async def read_also(app: App, also: Sequence[str], deadline: float | None) -> dict[str, ResultTable]:
    """Collect further batches that a statement may read; return their tables by their names.

    Those are the ids, with underscores for hyphens: ids have none, so that no two have the same name.

    Raises:
        NotReady, StillCollecting: as `read_results` does, about the first that cannot be read.
        UsageError: there are too many.
    """
    if len(also) > MAX_ALSO:
        raise UsageError(f"also names {len(also):,} batches.", f"Name at most {MAX_ALSO}.")
    tables: dict[str, ResultTable] = {}
    for other in dict.fromkeys(also):
        results = await read_results(app, other, ResultQuery(), wait_seconds=seconds_left(deadline))
        tables[results.status.batch.id.replace("-", "_")] = results.table
    return tables


def _cleaned_words(rows: int) -> str:
    answers = count(rows, "answer")
    return (
        f"{answers} had text around the JSON, such as a code block. It was left out, and the rows count as ok "
        f"(column cleaned); the column text has the whole answers."
    )


def _refuse_unheard(query: ResultQuery) -> None:
    """Refuse a wish that would go unheard beside the others.

    Raises:
        UsageError: there is one.
    """
    if query.sql and not query.save_to:
        raise UsageError("sql says what to save, but save_to is empty.", "Give save_to as well, or call query_results.")
    if query.sql and query.keys:
        raise UsageError("keys can't be combined with sql.", "Select the rows in the statement: WHERE key IN ('…').")
    if query.also and not query.sql:
        raise UsageError("also names batches for sql to read, but sql is empty.", "Give sql, or leave also out.")


def _destination(app: App, batch: BatchEntry, query: ResultQuery) -> tuple[Path | Address | None, FileFormat]:
    """Return where results are to be written, None for nowhere, and as what.

    Raises:
        UsageError: the ending of the file says nothing known, its name holds a secret, or it may not be written.
    """
    if query.file_format is None:
        endings = ", ".join(filter(None, FORMATS_BY_ENDING))
        raise UsageError(
            f"Results can't be saved to files that end in {Path(query.save_to).suffix!r}.",
            f"End the name in one of {endings}, or give format as well.",
        )
    if not query.save_to:
        return None, query.file_format
    if app.settings.secrets.cut(query.save_to) != query.save_to:
        raise UsageError(
            "save_to contains a secret from this server's settings, and file names are stored.",
            "Give a name without it.",
        )
    name = f"{batch.id}.{query.file_format}"
    if is_address(query.save_to):
        folder = query.save_to.endswith("/")
        return app.stores.allowed(f"{query.save_to}{name}" if folder else query.save_to), query.file_format
    if "://" in query.save_to:
        raise UsageError(
            f"save_to is {plain_text(query.save_to, 100)}, and results are saved to files of this machine, to s3:// "
            "and to gs:// only.",
            "Give a path, or s3://bucket/path/name.csv.",
        )
    return app.guard.writable_file(query.save_to, default_name=name), query.file_format


def _lacks_columns(app: App, batch: BatchEntry) -> bool:
    """True for a table whose columns an older version did not come to keep, or could not be kept."""
    return batch.order is not None and bool(batch.order.prompt) and not app.files(batch.id).source_columns.is_file()


async def _collected(app: App, batch: BatchEntry, deadline: float | None) -> tuple[BatchEntry, tuple[str, ...]]:
    """Collect what can be collected of a batch, and return it with sentences about what could not."""
    warnings: tuple[str, ...] = ()

    async def collect(batch: BatchEntry) -> BatchEntry:
        nonlocal warnings
        warnings = ()
        if is_anothers(app, batch):
            warnings = (batch.forgotten,)
            if await in_thread(opened_table, app, batch) is None:
                refuse_anothers(app, batch)
            return batch
        if not await in_thread(must_collect, app, batch):
            return batch
        await app.prepare_queries()
        work = partial(collect_batch, app, batch.id)
        try:
            await _in_background(app, f"collect {batch.id}", work, deadline, "being fetched")
        except StillCollecting:
            raise
        except BatchError as error:
            if await in_thread(opened_table, app, batch) is None:
                raise
            warnings = (f"Showing what was collected earlier: {error}",)
        return await load(app, batch.id)

    return await await_delivery(app, batch, collect, deadline), warnings


async def _saved(
    app: App, batch: BatchEntry, wish: Wish, destination: Path | Address, deadline: float | None
) -> SavedFile:
    """Return the file that holds what is wanted, written now unless it is there as we wrote it.

    Raises:
        StillCollecting: writing it takes longer than until `deadline`; it goes on in the background.
        StorageError: it cannot be written.
    """
    await in_thread(sweep_drafts, app, destination)
    saved = await in_thread(saved_files, app, batch, wish, destination)
    if saved is not None:
        return saved
    written: list[SavedFile] = []

    async def save() -> None:
        written.append(await in_thread(save_files, app, batch, wish, destination))

    name = f"save {batch.id} {wish.digest(wish.format)} {destination}"
    await _in_background(app, name, save, deadline, "being written")
    # An earlier call may have been at the same file; then it has to be looked at.
    saved = written[0] if written else await in_thread(saved_files, app, batch, wish, destination)
    if saved is None:
        raise StorageError(
            f"{destination} was changed by someone else right after it was written.", "Give another path."
        )
    return saved


async def _in_background(
    app: App, name: str, work: Callable[[], Awaitable[object]], deadline: float | None, doing: str
) -> None:
    """Do something that outlives the call when it takes longer than the call may."""
    if not await app.run(name, work, wait_seconds=seconds_left(deadline)):
        raise StillCollecting(
            f"The answers are still {doing}, in the background.",
            "Make the same call again in half a minute.",
        )


def _page(table: ResultTable, query: ResultQuery) -> ResultPage:
    """Return the page asked for, with fewer rows when they would be too much to read at once."""
    view: Literal["rows", "failures"] = "failures" if query.view == "failures" else "rows"
    page = table.page(view=view, limit=query.limit, cursor=query.cursor, keys=query.keys)
    characters = 0
    for fitting, row in enumerate(page.rows):
        characters += len(json.dumps(asdict(row), ensure_ascii=False))
        if fitting and characters > MAX_PAGE_CHARS:
            return table.page(view=view, limit=fitting, cursor=query.cursor, keys=query.keys)
    return page
