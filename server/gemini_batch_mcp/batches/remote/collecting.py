"""Answers in BigQuery as a table of results: put together, classified and counted there, and never brought here."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.gauge import Doing, Progress
from gemini_batch_mcp.batches.jobs.delivery import Body, can_fetch, has_rows, is_undelivered, lack_of, next_look
from gemini_batch_mcp.batches.jobs.rows import asked_of, charges_of
from gemini_batch_mcp.batches.ledger.entries import BatchEntry, JobEntry, Lack, Stage
from gemini_batch_mcp.batches.orders.pricing import keep_tokens, rates_of, read_prices
from gemini_batch_mcp.batches.remote.kept_facts import RemoteFacts, read_remote, write_remote
from gemini_batch_mcp.batches.remote.places import (
    columns_of,
    requests_table,
    results_table,
    rows_table,
    statement,
    warehouse_of,
)
from gemini_batch_mcp.digests import text_digest
from gemini_batch_mcp.domain import Column, ErrorGroup, ResultSummary, RowStatus, Usage
from gemini_batch_mcp.errors import NotFound
from gemini_batch_mcp.gemini.warehouse import Rows, StoredTable
from gemini_batch_mcp.intake.prices.likely import MOST_ANSWERS
from gemini_batch_mcp.results.store import TokenSample
from gemini_batch_mcp.text import plain_text, safe_text
from gemini_batch_mcp.threads import in_thread
from gemini_batch_mcp.warehouse import statements

_ENDED: Final = frozenset({Stage.FINISHED, Stage.COLLECTED, Stage.FAILED, Stage.CANCELLED})
_WITH_ANSWERS: Final = frozenset({Stage.FINISHED, Stage.COLLECTED})
#: Reasons for which rows are not ok that are told.
_MOST_REASONS: Final = 10
_SHOWN_REASON_CHARS: Final = 300


def must_collect_remote(app: App, batch: BatchEntry, now: datetime) -> bool:
    """True when answers may be there in BigQuery that are not in the table of results."""
    jobs = _ended(batch, now)
    if any(can_fetch(job, now) for job in jobs):
        return True
    return bool(jobs) and read_remote(app, batch) is None


async def collect_remote(app: App, batch: BatchEntry, now: datetime) -> bool:
    """Have BigQuery put the answers of ended jobs into the table of results, and count it.

    Returns whether there was anything to do. Only for whoever holds the batch's lock.

    Raises:
        GeminiError: BigQuery refused, or could not be asked.
        StorageError: the counts could not be written down.
    """
    assert batch.order is not None
    app.gauge.show(Progress(Doing.COLLECTING, 0, None, "answers are put together in BigQuery"))
    warehouse, kept = warehouse_of(app), rows_table(batch)
    there = await warehouse.describe(kept.uri)
    if there is None:
        raise NotFound(
            f"{kept.uri}, which holds the rows that were ordered, is gone.",
            "Restore it from BigQuery's time travel, or submit the rows again.",
            status_code=404,
        )
    bodies: dict[int, Body] = {}
    jobs: list[JobEntry] = []
    answers: dict[int, StoredTable] = {}
    for job in _ended(batch, now):
        table = await warehouse.describe(job.responses_file) if _has_answers(job) else None
        if _has_answers(job):
            body = Body(table.rows if table is not None else 0, is_whole=True, digest=_stands_for(table))
            lack = lack_of(job, body, now) if table is not None else Lack.FILE
            if lack:
                await _note_lack(app, job, lack, body, now)
                continue
            bodies[job.id] = body
        if table is not None:
            answers[job.id] = table
        if job.has_left:
            # Of one that never left, there may be no table of requests either.
            jobs.append(job)
    if not jobs:
        return False
    (columns,) = (columns_of(column.fields) for column in there.columns if column.name == "source")
    schema = batch.order.response_schema
    attempts = [await _attempt(app, batch, job, answers.get(job.id)) for job in jobs]
    to = results_table(batch)
    sql = statements.collect(columns, schema, kept, attempts, to)
    stands_for = text_digest(f"{sql}\0{[(job, _stands_for(found)) for job, found in sorted(answers.items())]}")
    facts = await in_thread(read_remote, app, batch)
    if facts is None or facts.stands_for != stands_for:
        written = await statement(app, sql, there.location, batch_id=batch.id, once=f"{batch.id} results {stands_for}")
        await warehouse.write(written, to.uri)
        laid_out = statements.result_layout(columns, schema, has_history=len({job.attempt for job in jobs}) > 1)
        facts = await _count(app, batch, jobs, attempts, there.location, stands_for, laid_out.columns)
        await in_thread(write_remote, app, batch, facts)
    collected: dict[int, int | None] = {job.id: None for job in jobs if job.stage is Stage.FINISHED}
    collected |= {job_id: body.answer_count for job_id, body in bodies.items()}
    charges = charges_of(batch, facts.summary)
    await in_thread(app.ledger.record_collected, batch.id, facts.summary.outcomes, charges, collected)
    return True


async def _attempt(app: App, batch: BatchEntry, job: JobEntry, answers: StoredTable | None) -> statements.Attempt:
    types = {column.name: column.type for column in answers.columns} if answers is not None else {}
    return statements.Attempt(
        number=job.attempt,
        sent=requests_table(batch, job),
        answers=statements.table_named(answers.name) if answers is not None else None,
        response_type="JSON" if types.get("response") == "JSON" else "STRING",
        rates=rates_of(await read_prices(app), *asked_of(batch, job.attempt)),
    )


async def _count(
    app: App,
    batch: BatchEntry,
    jobs: Sequence[JobEntry],
    attempts: Sequence[statements.Attempt],
    location: str,
    stands_for: str,
    columns: tuple[Column, ...],
) -> RemoteFacts:
    """Count a table of results that has just been written, in a few statements whatever its size."""
    results = results_table(batch)

    async def ask(sql: str, most_rows: int) -> list[dict[str, Any]]:
        found = await warehouse_of(app).ask(await statement(app, sql, location, batch_id=batch.id), most_rows=most_rows)
        return _dicts(found)

    by_status = await ask(statements.counts(results), len(RowStatus) + 1)
    (left,) = await ask(statements.leftovers(attempts), 1)
    numbers = {attempt.number for attempt in attempts}
    used = await ask(statements.usage(results), len(numbers)) if len(numbers) > 1 else by_status
    reasons = await ask(statements.reasons(results, _MOST_REASONS), _MOST_REASONS)
    (took,) = await ask(statements.tokens(results, MOST_ANSWERS), 1)
    await in_thread(keep_tokens, app, batch, _sampled(took))
    pending = sum(job.request_count for job in batch.jobs if job.attempt == 1 and job.id not in {j.id for j in jobs})
    return RemoteFacts(
        table=results.uri,
        location=location,
        stands_for=stands_for,
        columns=columns,
        summary=_summary(by_status, left, reasons, used, pending),
    )


def _sampled(took: Mapping[str, Any]) -> TokenSample:
    pairs = (pair.split() for pair in str(took["sampled"] or "").split(",") if pair)
    each = tuple((int(taken), int(written)) for taken, written in pairs)
    return TokenSample(int(took["row_count"]), int(took["longest"] or 0), each)


def _summary(
    by_status: Sequence[Mapping[str, Any]],
    left: Mapping[str, Any],
    reasons: Sequence[Mapping[str, Any]],
    used: Sequence[Mapping[str, Any]],
    pending: int,
) -> ResultSummary:
    """Return the counts of a table; `used` is what each attempt took, or of one attempt the rows by their status."""
    rows = {str(row["status"]): int(row["row_count"] or 0) for row in by_status}
    by_attempt: dict[int, list[Mapping[str, Any]]] = {}
    for row in used:
        by_attempt.setdefault(int(row.get("attempt") or 1), []).append(row)
    attempt_usage = tuple(_usage(by_attempt.get(number, ())) for number in range(1, max(by_attempt, default=1) + 1))
    attempt_wasted = tuple(
        _usage(by_attempt.get(number, ()), "wasted_") for number in range(1, max(by_attempt, default=1) + 1)
    )
    if used is by_status:
        attempt_wasted = (_usage([row for row in by_status if row["status"] != "ok"]),)
    last = max((int(row.get("last_attempt") or 1) for row in by_status), default=1)
    good = next((row for row in by_status if row["status"] == "ok"), {})
    expected = sum(rows.values()) + pending
    return ResultSummary(
        expected=expected,
        returned=expected - pending - rows.get("missing", 0),
        succeeded=rows.get("ok", 0),
        failed=rows.get("failed", 0),
        blocked=rows.get("blocked", 0),
        truncated=rows.get("truncated", 0),
        empty=rows.get("empty", 0),
        missing=rows.get("missing", 0),
        duplicate=int(left.get("duplicate") or 0),
        unexpected=int(left.get("unexpected") or 0),
        usage=replace(_usage(used), unmetered=_total(by_status, "unmetered")),
        missing_keys=_key(left, "missing_key") if rows.get("missing") else (),
        duplicate_keys=_key(left, "duplicate_key"),
        unexpected_keys=_key(left, "unexpected_key"),
        pending=pending,
        attempt_usage=attempt_usage,
        attempt_wasted=attempt_wasted,
        error_groups=tuple(
            ErrorGroup(
                status=RowStatus(str(reason["status"])),
                rows=int(reason["row_count"]),
                reason=safe_text(str(reason["reason"] or ""))[:_SHOWN_REASON_CHARS],
                example_key=str(reason["example_key"] or ""),
            )
            for reason in reasons
        ),
        permanent=_total(by_status, "permanent_rows"),
        gained=int(good.get("from_last") or 0) if last > 1 else None,
        calls=_total(by_status, "calls"),
    )


def _total(rows: Sequence[Mapping[str, Any]], name: str) -> int:
    return sum(int(row.get(name) or 0) for row in rows)


def _usage(rows: Sequence[Mapping[str, Any]], prefix: str = "") -> Usage:
    names = ("input_tokens", "output_tokens", "thoughts_tokens")
    return Usage(*(_total(rows, f"{prefix}{name}") for name in names))


def _key(left: Mapping[str, Any], name: str) -> tuple[str, ...]:
    return (str(left[name]),) if left.get(name) is not None else ()


def _dicts(rows: Rows) -> list[dict[str, Any]]:
    names = [column.name for column in rows.columns]
    return [dict(zip(names, row, strict=True)) for row in rows.rows]


def _ended(batch: BatchEntry, now: datetime) -> list[JobEntry]:
    ended = (job for job in batch.jobs if job.stage in _ENDED and (not is_undelivered(job) or can_fetch(job, now)))
    return sorted(ended, key=lambda job: (job.attempt, job.shard))


def _has_answers(job: JobEntry) -> bool:
    return job.stage in _WITH_ANSWERS and has_rows(job) and bool(job.responses_file)


def _stands_for(table: StoredTable | None) -> str:
    return f"{table.name} {table.rows} {table.modified_at.isoformat()}" if table is not None else ""


async def _note_lack(app: App, job: JobEntry, lack: Lack, body: Body, now: datetime) -> None:
    """Write down that answers were looked for and are not all there, and when to look again."""
    await in_thread(
        app.ledger.update_job,
        job.id,
        stage=Stage.FINISHED,
        lack=lack,
        looks=job.looks + 1,
        look_again_at=next_look(job, now, app.settings.poll_seconds),
        seen_digest=plain_text(body.digest, 300),
        answer_count=body.answer_count,
    )
