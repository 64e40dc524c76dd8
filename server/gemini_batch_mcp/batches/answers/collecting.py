"""Collecting a batch: which answers are not here yet, fetched by one process at a time, and made into the table."""

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
import filelock

from gemini_batch_mcp.batches.answers._fetching import fetch_answers
from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.jobs.lock import lock_errors
from gemini_batch_mcp.batches.jobs.tracking import has_rows, load
from gemini_batch_mcp.batches.ledger.entries import BatchEntry, JobEntry, Stage
from gemini_batch_mcp.digests import file_digest, has_digest
from gemini_batch_mcp.errors import NotFound, StorageError
from gemini_batch_mcp.paths import DRAFT_PREFIX, sweep
from gemini_batch_mcp.results.store import AnswerFile, ResultTable, TableBuild, TablePlan, build_planned
from gemini_batch_mcp.threads import in_thread

#: How long a process waits for another one that is collecting the same batch, and how often it looks.
_LOCK_SECONDS: Final = 600.0
_LOOK_SECONDS: Final = 0.1

_WITH_ANSWERS: Final = frozenset({Stage.FINISHED, Stage.COLLECTED})
_ENDED: Final = _WITH_ANSWERS | {Stage.FAILED, Stage.CANCELLED}


async def collect_batch(app: App, batch_id: str) -> bool:
    """Fetch the answers of ended jobs that are not here, and bring the result table up to date.

    Returns whether there was anything to do. One process does it at a time; one that has waited for another finds
    nothing left. What has been fetched stays, whatever happens afterwards.

    Raises:
        NotFound: Gemini does not have the answers any more.
        GeminiError: they could not be fetched.
        StorageError: they could not be stored, or the table not be built.
    """
    if not await in_thread(must_collect, app, await load(app, batch_id)):
        return False
    await in_thread(app.files(batch_id).make_directory)
    async with _collect_lock(app, batch_id):
        batch = await load(app, batch_id)
        if not await in_thread(must_collect, app, batch):
            return False
        # What a killed process has left: nobody else is at it now.
        directory = app.files(batch_id).directory
        await in_thread(sweep, directory, "answers-*.part*", ".again-*", f"{DRAFT_PREFIX}*")
        try:
            await _collect(app, batch)
            await in_thread(_check_table, app, batch)
        except OSError as error:
            raise StorageError(
                f"The answers of {batch_id} could not be stored ({error.strerror}).",
                "Free some space in the state directory, then make the same call again.",
            ) from None
        for job in batch.jobs:
            if job.stage is Stage.FINISHED:
                await in_thread(app.ledger.update_job, job.id, stage=Stage.COLLECTED)
    return True


def must_collect(app: App, batch: BatchEntry) -> bool:
    """True when a job has ended whose rows the table does not have yet, or files are not as they were. Quick."""
    jobs = _ended_jobs(batch)
    if not jobs:
        return False
    if any(job.stage is Stage.FINISHED and has_rows(job) for job in jobs):
        return True
    table = opened_table(app, batch)
    return table is None or table.plan_digest != _plan(app, batch, jobs).digest() or bool(table.changed_answers())


def opened_table(app: App, batch: BatchEntry) -> ResultTable | None:
    """Return the batch's result table as it is now, None when there is none that can be read."""
    try:
        return ResultTable.open(app.files(batch.id).table)
    except StorageError:
        return None


def _check_table(app: App, batch: BatchEntry) -> None:
    """Read a row: a table that cannot be read is found here, and the first page will not wait for the engine."""
    ResultTable.open(app.files(batch.id).table, app.tables).page(view="rows", limit=1)


async def _collect(app: App, batch: BatchEntry) -> None:
    files = app.files(batch.id)
    jobs = _ended_jobs(batch)
    plan = _plan(app, batch, jobs)
    table = await in_thread(opened_table, app, batch)
    # What a table was built from and has not been touched since needs no second look.
    trusted = {files.answers(job.id) for job in jobs} - set(table.changed_answers()) if table is not None else set()
    fetched: list[tuple[int, JobEntry]] = []
    build = TableBuild(plan, files.table)
    await in_thread(build.open)
    try:
        for number, (job, answer) in enumerate(zip(jobs, plan.answers, strict=True)):
            path = answer.path
            if path is None or await in_thread(_is_intact, job, path, path in trusted):
                await in_thread(build.add_next)
            else:
                await _fetch(app, job, path, build)
                fetched.append((number, job))
        counts = build.line_counts
        short = [job for number, job in fetched if counts[number] < job.counts.succeeded + job.counts.failed]
        if not await _fetch_again(app, files.directory, short):
            await in_thread(build.finish)
            return
    finally:
        await in_thread(build.close)
    await in_thread(build_planned, plan, files.table)


async def _fetch(app: App, job: JobEntry, path: Path, build: TableBuild) -> None:
    try:
        await fetch_answers(app, job, path, build)
    except NotFound:
        if job.stage is Stage.COLLECTED:
            raise StorageError(
                f"{path} was removed or changed after it had been collected, and Gemini does not have it any more.",
                "Put the file back as it was, or order the rows again.",
            ) from None
        raise


async def _fetch_again(app: App, directory: Path, jobs: Sequence[JobEntry]) -> bool:
    """Fetch answers a second time that have fewer lines than Gemini counted rows; returns whether there are more now.

    A body that ends early in a well-formed way shows nowhere else.
    """
    is_longer = False
    for job in jobs:
        path = app.files(job.batch_id).answers(job.id)
        second = directory / f".again-{secrets.token_hex(4)}.jsonl"
        try:
            await fetch_answers(app, job, second)
            if second.stat().st_size > path.stat().st_size:
                second.replace(path)
                is_longer = True
            else:
                digest = await in_thread(file_digest, path)
                await in_thread(app.ledger.update_job, job.id, answers_digest=digest)
        finally:
            second.unlink(missing_ok=True)
    return is_longer


def _is_intact(job: JobEntry, path: Path, is_trusted: bool) -> bool:
    """True when the answers are here as they were fetched."""
    if not path.is_file():
        return False
    return is_trusted or not job.answers_digest or has_digest(path, job.answers_digest)


def _ended_jobs(batch: BatchEntry) -> list[JobEntry]:
    """Return the jobs whose rows have all come to an end, in request order, attempt by attempt."""
    return sorted(
        (job for job in batch.jobs if job.stage in _ENDED), key=lambda job: (job.attempt, job.first_row, job.shard)
    )


def _plan(app: App, batch: BatchEntry, jobs: Sequence[JobEntry]) -> TablePlan:
    files = app.files(batch.id)
    has_keys = files.keys().is_file()

    def answers_of(job: JobEntry) -> AnswerFile:
        path = files.answers(job.id) if job.stage in _WITH_ANSWERS and has_rows(job) else None
        keys_path = files.keys(job.attempt) if has_keys else None
        is_whole = sum(other.attempt == job.attempt for other in batch.jobs) == 1
        row_count = 0 if is_whole or not has_keys else job.request_count
        return AnswerFile(path, keys_path, job.attempt, job.first_row, row_count)

    return TablePlan(
        answers=tuple(map(answers_of, jobs)),
        batch_id=batch.id,
        expected_rows=sum(job.counts.total or job.request_count for job in jobs if job.attempt == 1),
        task=batch.task,
        response_schema=batch.order.response_schema if batch.order is not None else {},
        source_columns=files.source_columns,
        media=files.media,
    )


@asynccontextmanager
async def _collect_lock(app: App, batch_id: str) -> AsyncIterator[None]:
    """Keep other processes from collecting the same batch.

    Raises:
        StorageError: one of them has been at it for too long, or the lock's file cannot be opened.
    """
    lock = filelock.FileLock(app.files(batch_id).collect_lock, blocking=False, thread_local=False)
    deadline = anyio.current_time() + _LOCK_SECONDS
    while True:
        try:
            # Not in a thread: it does not wait, and a lock that is taken after a cancel would never be released.
            with lock_errors(batch_id):
                lock.acquire()
            break
        except filelock.Timeout:
            if anyio.current_time() > deadline:
                raise StorageError(
                    f"Another process has been collecting {batch_id} for ten minutes.", "Call get_results again later."
                ) from None
        await anyio.sleep(_LOOK_SECONDS)
    try:
        yield
    finally:
        lock.release()
