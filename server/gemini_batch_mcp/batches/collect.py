"""Answers of finished jobs: fetched once, kept as Gemini sent them, and turned into the batch's result table."""

import hashlib
import json
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import anyio
import filelock
import msgspec

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.entries import BatchEntry, JobEntry, Stage
from gemini_batch_mcp.batches.find import find_batch
from gemini_batch_mcp.batches.track import BatchStatus, describe, has_rows, load, refresh
from gemini_batch_mcp.domain import JsonObject, ResultPage, ResultQuery, ResultSummary, SavedFile
from gemini_batch_mcp.errors import NotFound, NotReady, StillCollecting, StorageError
from gemini_batch_mcp.intake.reader import file_sha256
from gemini_batch_mcp.paths import publish
from gemini_batch_mcp.results.store import AnswerFile, ResultTable, build_table

#: Rows of one page as JSON, in characters; with the summary around them an answer stays below 20,000.
MAX_PAGE_CHARS = 17_000
#: How long a process waits for another one that is collecting the same batch.
_LOCK_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Results:
    """What get_results answers with. `page` is None for the summary alone, `saved` None when nothing was written."""

    status: BatchStatus
    summary: ResultSummary
    page: ResultPage | None = None
    saved: SavedFile | None = None


async def batch_results(app: App, reference: str, query: ResultQuery, *, wait_seconds: float | None = None) -> Results:
    """Collect a batch if that has not been done, and read from its result table.

    Raises:
        NotReady: there is nothing to read yet, or ever.
        UsageError: the query does not fit.
        StillCollecting: fetching the answers takes longer than `wait_seconds`; it goes on in the background.
        BatchError: the answers could not be fetched or stored.
    """
    deadline = anyio.current_time() + wait_seconds if wait_seconds is not None else None
    batch = await refresh(app, await find_batch(app, reference))
    status = describe(batch)
    if not status.results_ready:
        raise NotReady(f"{batch.id} has no results: its state is {status.state}.", status.advice)
    destination = app.guard.writable_file(query.save_to, default_name=f"{batch.id}.jsonl") if query.save_to else None
    if await anyio.to_thread.run_sync(_needs_collecting, app, batch):
        await _in_background(app, f"collect {batch.id}", partial(_collect, app, batch.id), deadline, "being fetched")
        batch = await load(app, batch.id)
        status = describe(batch)
    table = await anyio.to_thread.run_sync(ResultTable.open, app.files(batch.id).table)
    page = None
    if query.view != "summary" or query.keys or query.cursor:
        page = await anyio.to_thread.run_sync(_page, table, query)
    saved = None
    if (
        destination is not None
        and (saved := await anyio.to_thread.run_sync(_saved, app, batch, table, destination)) is None
    ):
        work = partial(anyio.to_thread.run_sync, _save, app, batch, table, destination)
        await _in_background(app, f"save {batch.id} {destination}", work, deadline, "being written")
        saved = await anyio.to_thread.run_sync(_saved, app, batch, table, destination)
        if saved is None:
            raise StorageError(f"{destination} was changed right after it was written.", "Give another path.")
    return Results(status, await anyio.to_thread.run_sync(table.summary), page, saved)


async def _in_background(
    app: App, name: str, work: Callable[[], Awaitable[object]], deadline: float | None, doing: str
) -> None:
    """Do something that outlives the call when it takes longer than the call may."""
    left = max(0.0, deadline - anyio.current_time()) if deadline is not None else None
    if not await app.work.run(name, work, wait_seconds=left):
        raise StillCollecting(
            f"The answers are still {doing}; that goes on in the background.",
            "Make the same call again in half a minute.",
        )


def _needs_collecting(app: App, batch: BatchEntry) -> bool:
    if any(job.stage is Stage.FINISHED and has_rows(job) for job in batch.jobs):
        return True
    files = app.files(batch.id)
    try:
        ResultTable.open(files.table)
    except StorageError:
        return True
    return not all(files.answers(job.id).is_file() for job in batch.jobs if job.stage is Stage.COLLECTED)


async def _collect(app: App, batch_id: str) -> None:
    """Fetch what is missing and rebuild the table, in this process alone."""
    files = app.files(batch_id)
    await anyio.to_thread.run_sync(files.make_directory)
    lock = filelock.FileLock(files.collect_lock, thread_local=False)
    try:
        await anyio.to_thread.run_sync(partial(lock.acquire, timeout=_LOCK_SECONDS), abandon_on_cancel=True)
    except filelock.Timeout:
        raise StorageError(
            f"Another process has been collecting {batch_id} for ten minutes.", "Call get_results again later."
        ) from None
    try:
        batch = await load(app, batch_id)
        if not await anyio.to_thread.run_sync(_needs_collecting, app, batch):
            return
        summary = await _fetch_and_build(app, batch, again=False)
        if summary.returned + summary.duplicate + summary.unexpected < _answered(batch):
            # A body that ends early in a well-formed way shows only here: fewer lines than Gemini counted rows.
            await _fetch_and_build(app, batch, again=True)
        for job in batch.jobs:
            if job.stage is Stage.FINISHED:
                await anyio.to_thread.run_sync(partial(app.ledger.update_job, job.id, stage=Stage.COLLECTED))
    finally:
        lock.release()


async def _fetch_and_build(app: App, batch: BatchEntry, *, again: bool) -> ResultSummary:
    for job in batch.jobs:
        answers = app.files(batch.id).answers(job.id)
        if job.stage in (Stage.FINISHED, Stage.COLLECTED) and has_rows(job) and (again or not answers.is_file()):
            await _fetch(app, job, answers)
    return await anyio.to_thread.run_sync(_build, app, batch)


def _answered(batch: BatchEntry) -> int:
    """Rows that Gemini says it has answered, with success or an error."""
    collected = [job for job in batch.jobs if job.stage in (Stage.FINISHED, Stage.COLLECTED)]
    return sum(job.counts.succeeded + job.counts.failed for job in collected)


async def _fetch(app: App, job: JobEntry, destination: Path) -> None:
    """Bring one job's answers here, whole or not at all, and record what they hash to."""
    if job.responses_file:
        try:
            downloaded = await app.gateway.download(job.responses_file, destination)
        except NotFound:
            raise NotFound(
                f"The result file of {job.name} is gone from Gemini.",
                "Results are kept for a limited time; order again to get them.",
                status_code=404,
            ) from None
        sha256 = downloaded.sha256
    else:
        seen = await app.gateway.get_job(job.name)
        if seen.inlined_responses is None and seen.responses_file:
            sha256 = (await app.gateway.download(seen.responses_file, destination)).sha256
        else:
            sha256 = await anyio.to_thread.run_sync(_write_inlined, seen.inlined_responses or (), destination)
    await anyio.to_thread.run_sync(partial(app.ledger.update_job, job.id, answers_sha256=sha256))


def _write_inlined(responses: Sequence[JsonObject], destination: Path) -> str:
    """Write inlined answers as lines of a result file; a key comes from an answer's own metadata, never its place."""
    lines: list[bytes] = []
    for response in responses:
        line = {name: value for name, value in response.items() if name != "metadata"}
        metadata = response.get("metadata")
        if isinstance(metadata, dict) and "key" in metadata:
            line["key"] = metadata["key"]
        lines.append(msgspec.json.encode(line) + b"\n")
    content = b"".join(lines)
    partial_path = destination.with_suffix(".part")
    partial_path.write_bytes(content)
    partial_path.replace(destination)
    return hashlib.sha256(content).hexdigest()


def _build(app: App, batch: BatchEntry) -> ResultSummary:
    files = app.files(batch.id)
    answers = [
        AnswerFile(files.answers(job.id), files.keys if files.keys.is_file() else None, job.attempt)
        for job in batch.jobs
        if files.answers(job.id).is_file()
    ]
    expected = sum(job.counts.total or job.request_count for job in batch.jobs)
    return build_table(answers, files.table, expected_rows=expected, batch_id=batch.id)


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


def _saved(app: App, batch: BatchEntry, table: ResultTable, destination: Path) -> SavedFile | None:
    """Return the file that holds this table already, written by us and not changed since; None when there is none."""
    for candidate in (destination, *app.ledger.saved_beside(batch.id, destination)):
        recorded = app.ledger.saved_sha256(batch.id, candidate)
        if not recorded or not candidate.is_file() or candidate.stat().st_mtime < table.path.stat().st_mtime:
            continue
        if file_sha256(candidate) == recorded:
            return SavedFile(candidate, "jsonl", table.row_count, candidate.stat().st_size)
    return None


def _save(app: App, batch: BatchEntry, table: ResultTable, destination: Path) -> None:
    """Write the table as JSONL: over a file only if we wrote it for this batch and nobody has changed it since."""
    draft = destination.with_name(f".{destination.name}.{secrets.token_hex(6)}")
    try:
        table.export_jsonl(draft)
        sha256 = file_sha256(draft)
        recorded = app.ledger.saved_sha256(batch.id, destination)
        if recorded and destination.is_file() and file_sha256(destination) == recorded:
            draft.replace(destination)
        else:
            destination = publish(draft, destination)
    except OSError as error:
        raise StorageError(
            f"{destination} could not be written ({error.strerror}).", "Free some space or give another path."
        ) from None
    finally:
        draft.unlink(missing_ok=True)
    app.ledger.record_saved(batch.id, destination, sha256)
