"""Collecting a batch: which answers are not here yet, fetched by one process at a time, and made into the table."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from gemini_batch_mcp.batches.answers._fetching import NotDelivered, fetch_answers
from gemini_batch_mcp.batches.app import App, BatchFiles
from gemini_batch_mcp.batches.gauge import Doing, Progress
from gemini_batch_mcp.batches.jobs.delivery import (
    Body,
    can_fetch,
    counted,
    has_rows,
    is_overdue,
    is_undelivered,
    lack_of,
    next_look,
    utc_now,
)
from gemini_batch_mcp.batches.jobs.lock import BatchLocked, batch_lock
from gemini_batch_mcp.batches.jobs.rows import asked_of, charges_of, table_summary
from gemini_batch_mcp.batches.jobs.tracking import load
from gemini_batch_mcp.batches.ledger.entries import BatchEntry, JobEntry, Lack, Stage
from gemini_batch_mcp.batches.orders.pricing import rates_of
from gemini_batch_mcp.batches.remote.collecting import collect_remote, must_collect_remote
from gemini_batch_mcp.batches.remote.places import is_remote
from gemini_batch_mcp.digests import file_digest, has_digest
from gemini_batch_mcp.domain import JsonObject
from gemini_batch_mcp.errors import ConfigurationError, NotFound, StorageError
from gemini_batch_mcp.intake.prices.price_list import load_prices
from gemini_batch_mcp.paths import DRAFT_PREFIX, sweep
from gemini_batch_mcp.results.store import AnswerFile, ResultTable, TableBuild, TablePlan, build_planned
from gemini_batch_mcp.results.table.inputs import Identified, OrderedRows
from gemini_batch_mcp.results.table.lines import count_answers, ends_whole
from gemini_batch_mcp.threads import in_thread
from gemini_batch_mcp.tracing import span

#: How long a process waits for another one that is collecting, or submitting, the same batch.
_LOCK_SECONDS: Final = 600.0

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
    try:
        async with batch_lock(app, batch_id, wait_seconds=_LOCK_SECONDS):
            with span("collect", batch=batch_id):
                return await _collect_locked(app, batch_id)
    except BatchLocked:
        raise StorageError(
            f"Another process has been working on {batch_id} for ten minutes.", "Call get_results again later."
        ) from None


async def _collect_locked(app: App, batch_id: str) -> bool:
    batch = await load(app, batch_id)
    if not await in_thread(must_collect, app, batch):
        return False
    if is_remote(batch):
        return await collect_remote(app, batch, utc_now())
    # What a killed process has left: nobody else is at it now.
    directory = app.files(batch_id).directory
    await in_thread(sweep, directory, "answers-*.part*", ".again-*", f"{DRAFT_PREFIX}*")
    try:
        delivered = await _collect(app, batch, utc_now())
        await in_thread(_check_table, app, batch)
    except OSError as error:
        raise StorageError(
            f"The answers of {batch_id} could not be stored ({error.strerror}).",
            "Free some space in the state directory, then make the same call again.",
        ) from None
    collected: dict[int, int | None] = {
        job.id: None for job in batch.jobs if job.stage is Stage.FINISHED and not has_rows(job)
    }
    collected |= {job_id: body.answer_count for job_id, body in delivered.items()}
    summary = await in_thread(table_summary, app, batch_id)
    rows, charges = (summary.outcomes, charges_of(batch, summary)) if summary is not None else (None, None)
    await in_thread(app.ledger.record_collected, batch_id, rows, charges, collected)
    return True


def must_collect(app: App, batch: BatchEntry) -> bool:
    """True when the table lacks rows that may be there to fetch, or files are not as they were. Quick."""
    now = utc_now()
    if is_remote(batch):
        return must_collect_remote(app, batch, now)
    jobs = _ended_jobs(batch, now)
    if not jobs:
        return False
    if any(can_fetch(job, now) or _was_never_counted(job) for job in jobs):
        return True
    return not _is_current(app, batch, _plan(app, batch, jobs), opened_table(app, batch))


def _is_current(app: App, batch: BatchEntry, plan: TablePlan, table: ResultTable | None) -> bool:
    return table is not None and table.plan_digest == plan.digest() and not table.changed_answers()


def opened_table(app: App, batch: BatchEntry) -> ResultTable | None:
    """Return the batch's result table as it is now, None when there is none that can be read."""
    try:
        return ResultTable.open(app.files(batch.id).table)
    except StorageError:
        return None


def _check_table(app: App, batch: BatchEntry) -> None:
    """Read a row: a table that cannot be read is found here, and the first page will not wait for the engine."""
    path = app.files(batch.id).table
    if path.exists():
        ResultTable.open(path, app.tables).page(view="rows", limit=1)


async def _collect(app: App, batch: BatchEntry, now: datetime) -> Mapping[int, Body]:
    """Fetch what can be fetched, and build the table of what is here; return what came as answers that are all here.

    By the job's id. What lacks answers is noted in the ledger, and is not in the table.
    """
    files = app.files(batch.id)
    jobs = _ended_jobs(batch, now)
    plan = _plan(app, batch, jobs)
    table = await in_thread(opened_table, app, batch)
    # What a table was built from and has not been touched since needs no second look.
    trusted = {files.answers(job.id) for job in jobs} - set(table.changed_answers()) if table is not None else set()
    delivered: dict[int, Body] = {}
    is_as_planned = True
    build = TableBuild(plan, files.table)
    await in_thread(build.open)
    try:
        # What was not sent stands behind the answers of all jobs.
        for number, (job, answer) in enumerate(zip(jobs, plan.answers, strict=False)):
            _show(app, build, plan)
            path = answer.path
            if path is None or (not job.lack and await in_thread(_is_intact, job, path, path in trusted)):
                await in_thread(build.add_next)
                if path is None or (job.stage is Stage.COLLECTED and job.answer_count is not None):
                    continue
                digest = job.answers_digest or await in_thread(file_digest, path)
            else:
                try:
                    digest = await _fetch(app, job, path, build, now)
                except NotDelivered as found:
                    await in_thread(build.leave_out, number)
                    await _note_lack(app, job, found.lack, None, now)
                    is_as_planned = False
                    continue
            body = Body(build.answer_counts[number], await in_thread(ends_whole, path), digest)
            lack = lack_of(job, body, now)
            if _was_never_counted(job):
                second = await _look_once_more(app, job, body)
                is_as_planned &= second == body
                delivered[job.id] = second
            elif lack:
                await _note_lack(app, job, lack, body, now)
                is_as_planned = False
            else:
                delivered[job.id] = body
        _show(app, build, plan)
        if is_as_planned:
            for _ in plan.answers[len(jobs) :]:
                await in_thread(build.add_next)
            await in_thread(build.finish)
            return delivered
    finally:
        await in_thread(build.close)
    here = _plan(app, batch, _ended_jobs(await load(app, batch.id), now))
    if here.answers and not await in_thread(_is_current, app, batch, here, table):
        await in_thread(build_planned, here, files.table)
    return delivered


def _show(app: App, build: TableBuild, plan: TablePlan) -> None:
    """Show how many rows are in the table to be; rows that were sent again count once more."""
    app.gauge.show(
        Progress(Doing.COLLECTING, sum(build.answer_counts), max(plan.expected_rows, sum(build.answer_counts)))
    )


async def _note_lack(app: App, job: JobEntry, lack: Lack, body: Body | None, now: datetime) -> None:
    """Write down that answers were looked for and are not all here, and when to look again."""
    again = next_look(job, now, app.settings.poll_seconds)
    came = {"seen_digest": body.digest, "answer_count": body.answer_count} if body is not None else {}
    await _set(app, job, stage=Stage.FINISHED, lack=lack, looks=job.looks + 1, look_again_at=again, **came)


async def _set(app: App, job: JobEntry, **values: Any) -> None:
    await in_thread(app.ledger.update_job, job.id, **values)


async def _fetch(app: App, job: JobEntry, path: Path, build: TableBuild, now: datetime) -> str:
    """Bring a job's answers to `path`, staged, and return their digest. Fewer than are here do not replace them.

    Raises:
        NotDelivered: they are not there, or fewer came than before.
    """
    before = await in_thread(_set_aside, job, path)
    try:
        digest = await fetch_answers(app, job, path, build)
        came = build.answer_counts[-1]
        if before is None or came >= (job.answer_count or 0):
            return digest
        await in_thread(before.replace, path)
        await _set(app, job, answers_digest=job.answers_digest)
        if not is_overdue(job, now):
            raise NotDelivered(job.lack if came else Lack.ANSWERS)
        await in_thread(build.begin_again)
        return job.answers_digest
    except NotFound:
        if job.stage is Stage.COLLECTED:
            raise StorageError(
                f"{path} was removed or changed after it was collected, and Gemini no longer has it.",
                "Restore the file, or submit the rows again.",
            ) from None
        if not job.answer_count or not await in_thread(_is_intact, job, path, False):
            raise
        # Some of its answers came before, and there will be no others.
        await in_thread(build.begin_again)
        return job.answers_digest
    finally:
        if before is not None:
            before.unlink(missing_ok=True)


def _set_aside(job: JobEntry, path: Path) -> Path | None:
    """Give the answers that a job lacks others to a second name, under which they stay when they are fetched anew."""
    if not job.answer_count or not job.answers_digest or not _is_intact(job, path, False):
        return None
    kept = path.with_name(f".again-{secrets.token_hex(4)}.jsonl")
    try:
        os.link(path, kept)
    except OSError:
        shutil.copyfile(path, kept)
    return kept


def _was_never_counted(job: JobEntry) -> bool:
    """True for answers that an older version took for whole whatever came."""
    return job.stage is Stage.COLLECTED and has_rows(job) and job.answer_count is None


async def _look_once_more(app: App, job: JobEntry, body: Body) -> Body:
    """Return what is here of answers that were never counted; fewer than Gemini counts are fetched once more.

    What is here is replaced only by more answers, and stays when Gemini has none any more.
    """
    if body.answer_count >= counted(job) and body.is_whole:
        return body
    path = app.files(job.batch_id).answers(job.id)
    second = path.with_name(f".again-{secrets.token_hex(4)}.jsonl")
    try:
        digest = await fetch_answers(app, job, second)
        count = await in_thread(count_answers, second)
        if count > body.answer_count:
            await in_thread(second.replace, path)
            return Body(count, is_whole=True, digest=digest)
    except (NotDelivered, NotFound):
        pass
    finally:
        second.unlink(missing_ok=True)
    await _set(app, job, answers_digest=body.digest)
    return body


def _is_intact(job: JobEntry, path: Path, is_trusted: bool) -> bool:
    """True when the answers are here as they were fetched."""
    if not path.is_file():
        return False
    return is_trusted or not job.answers_digest or has_digest(path, job.answers_digest)


def _ended_jobs(batch: BatchEntry, now: datetime) -> list[JobEntry]:
    """Return the jobs whose rows have come to an end and may be here, in request order, attempt by attempt.

    Rows of others are pending, those of a job that has ended and is not delivered among them.
    """
    return sorted(
        (job for job in batch.jobs if job.stage in _ENDED and (not is_undelivered(job) or can_fetch(job, now))),
        key=lambda job: (job.attempt, job.first_row, job.shard),
    )


def _not_sent(files: BatchFiles) -> tuple[AnswerFile, ...]:
    """Return the answers to rows that were not sent: taken from earlier batches, or the reasons why they were left out.

    They are there whatever the jobs do.
    """
    taken = files.spared
    answers = [AnswerFile(taken.taken_path, taken.taken_keys_path, is_taken=True)] if taken.taken_path.is_file() else []
    return (*answers, *([AnswerFile(files.skipped, files.skipped_keys)] if files.skipped.is_file() else []))


def _plan(app: App, batch: BatchEntry, jobs: Sequence[JobEntry]) -> TablePlan:
    files = app.files(batch.id)
    has_keys = files.keys().is_file()
    prices = None
    # Answers are collected whatever the user's price list holds; who asks for money is told.
    with contextlib.suppress(ConfigurationError):
        prices = load_prices(app.settings.prices_path)

    def answers_of(job: JobEntry) -> AnswerFile:
        has_answers = job.stage in _WITH_ANSWERS and has_rows(job) and not job.is_of_nothing
        path = files.answers(job.id) if has_answers else None
        keys_path = files.keys(job.attempt) if has_keys else None
        is_whole = sum(other.attempt == job.attempt for other in batch.jobs) == 1
        row_count = 0 if is_whole or not has_keys else job.request_count
        rates = rates_of(prices, *asked_of(batch, job.attempt)) if prices is not None else None
        return AnswerFile(path, keys_path, job.attempt, job.first_row, row_count, rates)

    return TablePlan(
        answers=(*map(answers_of, jobs), *_not_sent(files)),
        batch_id=batch.id,
        expected_rows=sum(job.counts.total or job.request_count for job in jobs if job.attempt == 1),
        task=batch.task,
        response_schema=schema_of(app, batch),
        source_columns=files.source_columns,
        media=files.media,
        rows=OrderedRows(files.spared.keys_path, files.spared.alike_path) if files.spared.are_there else None,
        identified=Identified(files.identities, _of_own_model(batch)) if files.identities.is_file() else None,
    )


def schema_of(app: App, batch: BatchEntry) -> JsonObject:
    """Return the response schema that answers of a batch are held against: the order's, or what all its lines ask for.

    Nothing where there is none.
    """
    if batch.order is None or batch.order.response_schema:
        return batch.order.response_schema if batch.order is not None else {}
    try:
        schema = msgspec.json.decode(app.files(batch.id).asked_schema.read_bytes())
    except (OSError, msgspec.MsgspecError):
        return {}
    return schema if isinstance(schema, dict) else {}


def _of_own_model(batch: BatchEntry) -> frozenset[int]:
    """Return the attempts that asked the model that was ordered."""
    return frozenset(job.attempt for job in batch.jobs if job.model in ("", batch.model))
