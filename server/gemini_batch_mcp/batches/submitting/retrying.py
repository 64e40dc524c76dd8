"""Sending rows again that came to nothing: a new attempt of the same batch, from the requests as they were stored."""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

import anyio

from gemini_batch_mcp.batches.answers.awaiting import await_delivery
from gemini_batch_mcp.batches.answers.collecting import collect_batch
from gemini_batch_mcp.batches.answers.lost import note_lost_answers, note_undelivered
from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.calls.calling import go_on_calling, is_calling
from gemini_batch_mcp.batches.jobs.accounts import refuse_anothers
from gemini_batch_mcp.batches.jobs.advice import longer, next_step
from gemini_batch_mcp.batches.jobs.delivery import has_rows, is_overdue, not_there_yet, undelivered, utc_now
from gemini_batch_mcp.batches.jobs.finding import find_batch
from gemini_batch_mcp.batches.jobs.lock import BatchGone, batch_lock
from gemini_batch_mcp.batches.jobs.stored_lines import request_path
from gemini_batch_mcp.batches.jobs.tracking import current, describe, load, prove_absent, refresh
from gemini_batch_mcp.batches.ledger.entries import BatchEntry, NewJob, Stage
from gemini_batch_mcp.batches.objects import bring_lines
from gemini_batch_mcp.batches.orders.appraising import ask_gemini
from gemini_batch_mcp.batches.orders.consent import Quote, cost_question, figure_of, refuse_unagreed
from gemini_batch_mcp.batches.orders.counted import Counted
from gemini_batch_mcp.batches.orders.models import check_model
from gemini_batch_mcp.batches.orders.preparing import identify_for
from gemini_batch_mcp.batches.orders.pricing import (
    Facts,
    evidence_for_retry,
    job_limits,
    priced,
    read_facts,
    read_prices,
    refuse_over_cap,
    spent_at_most,
    tier_of,
    write_facts,
)
from gemini_batch_mcp.batches.remote.places import is_remote
from gemini_batch_mcp.batches.remote.resending import ChosenRemote, add_remote_attempt, choose_remote
from gemini_batch_mcp.batches.submitting._attached_files import renew_attachments
from gemini_batch_mcp.batches.submitting._cutting import cut_jobs, one_job
from gemini_batch_mcp.batches.submitting._withdrawing import join, notes_about, withdrawn_on_cancel
from gemini_batch_mcp.batches.submitting.creating import Submission
from gemini_batch_mcp.batches.submitting.ordering import Placement
from gemini_batch_mcp.batches.work import deadline_after, seconds_left, within
from gemini_batch_mcp.domain import PERMANENT_CODES, RETRYABLE, Order, RowStatus
from gemini_batch_mcp.errors import BatchError, NotFound, NotReady, StillPreparing, UsageError
from gemini_batch_mcp.intake.files.in_lines import with_references
from gemini_batch_mcp.intake.files.placeholder import Known
from gemini_batch_mcp.intake.prices.estimate import Estimate, limits_of
from gemini_batch_mcp.intake.prices.likely import Evidence
from gemini_batch_mcp.intake.prices.price_list import PriceTable
from gemini_batch_mcp.intake.prices.survey import Surveyor
from gemini_batch_mcp.intake.request_files import RequestFile
from gemini_batch_mcp.intake.requests.lines import Onlooker
from gemini_batch_mcp.intake.requests.selection import write_selected
from gemini_batch_mcp.results.chosen import keys_that_ended
from gemini_batch_mcp.results.store import ResultTable
from gemini_batch_mcp.text import count as number
from gemini_batch_mcp.threads import in_thread


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The rows of a retry, written as a new attempt's request file, and what the user is told about them."""

    attempt: int
    model: str
    request_file: RequestFile
    estimate: Estimate
    quote: Quote


async def quote_retry(
    app: App, reference: str, include: Sequence[str], *, model: str = "", wait_seconds: float | None = None
) -> Quote | None:
    """Return what the user is told, and has to be asked, before these rows are sent again; None while they are.

    Raises:
        as `retry_rows`.
    """
    ended = await _ended_batch(app, reference, wait_seconds)
    if ended is None:
        return None
    async with batch_lock(app, ended.id):
        batch = await _still_ended(app, ended)
        return (await _choose(app, batch, include, model)).quote if batch is not None else None


async def retry_rows(
    app: App,
    reference: str,
    include: Sequence[str],
    *,
    model: str = "",
    agreed_to: Quote | None = None,
    confirm: bool = False,
    wait_seconds: float | None = None,
) -> Placement:
    """Send rows of an ended batch again, as a new attempt; without `include`, those that may fare better this time.

    Those are the missing ones, and failed ones whose error code is not permanent. While a retry is under way, the
    same call answers with it, and says which of the rows asked for are not among those that it sends. Waits at most
    `wait_seconds` for the submission (None: to its end).

    Raises:
        NotReady: the batch has not ended, or a retry with another model is under way.
        UsageError: there is nothing to send again, its requests are not here, or it is not agreed to.
        BatchError: the requests changed, or Gemini refused them.
    """
    deadline = deadline_after(wait_seconds)
    with within(wait_seconds, app.gauge) as limit:
        ended = await _ended_batch(app, reference, wait_seconds)
        if ended is None:
            return await _continue_retry(app, await find_batch(app, reference), include, model, deadline, limit)
        async with batch_lock(app, ended.id):
            batch = await _still_ended(app, ended)
            if batch is not None:
                chosen = await _choose(app, batch, include, model)
                await refuse_unagreed(app, chosen.quote, agreed_to=agreed_to, confirm=confirm)
                await in_thread(app.refuse_lost)
                added = await _add_attempt(app, batch, chosen)
        if batch is None:
            return await _continue_retry(app, ended, include, model, deadline, limit)
        if not added:
            return await _placement(app, batch, None)
        wish = chosen.quote.fingerprint
        async with withdrawn_on_cancel(app, batch.id, chosen.attempt, wish, limit):
            notes = await notes_about(app, wish, None)
            try:
                await _submit(app, batch, deadline)
            except BatchError:
                await in_thread(_drop_if_never_sent, app, batch.id, chosen.attempt)
                raise
        await _call(app, batch.id, deadline)
        left_out = _left_out_note(app, batch) if RowStatus.FAILED in _statuses(include) else ""
        return await _placement(app, batch, chosen.estimate, (*notes, *((left_out,) if left_out else ())))


async def _continue_retry(
    app: App,
    batch: BatchEntry,
    include: Sequence[str],
    model: str,
    deadline: float | None,
    limit: anyio.CancelScope,
) -> Placement:
    """Answer with the retry that is under way, and take its submission further; say which rows it does not send.

    Raises:
        NotReady: another model was asked for than it asks.
    """
    batch = await refresh(app, batch)
    asked = batch.jobs[-1].model or batch.model
    if model.removeprefix("models/") not in ("", asked):
        raise NotReady(
            f"A retry of {batch.id} with {asked} is under way and was not changed.",
            "Call check_status; when it has ended, or after cancel_batch, call retry_failed with the other model.",
        )
    not_sent = "" if is_remote(batch) else await in_thread(_not_sent, app, batch, include)
    notes = (*await notes_about(app, "", batch), *((not_sent,) if not_sent else ()))
    if batch.is_submitted:
        await _call(app, batch.id, deadline)
        return await _placement(app, batch, None, notes)
    try:
        await join(app, batch)
    except BatchGone:
        raise NotReady(
            f"The retry of {batch.id} that was under way was just cancelled by its client.",
            "Make the same call again.",
        ) from None
    async with withdrawn_on_cancel(app, batch.id, batch.attempts, f"retry {batch.id} {batch.attempts}", limit):
        await _submit(app, batch, deadline)
    await _call(app, batch.id, deadline)
    return await _placement(app, batch, None, notes)


def _not_sent(app: App, batch: BatchEntry, include: Sequence[str]) -> str:
    """Say which of the rows asked for are not among those of the retry that is under way, empty for none."""
    files, statuses = app.files(batch.id), _statuses(include)
    with files.keys(batch.attempts).open("rb") as lines:
        under_way = {json.loads(key) for key in lines}
    left_out = () if include else PERMANENT_CODES
    waiting = {status: len(_keys(app, batch, [status], without_codes=left_out) - under_way) for status in statuses}
    if not any(waiting.values()):
        return ""
    rows = " and ".join(f"{count:,} {status}" for status, count in waiting.items() if count)
    kinds = ", ".join(repr(str(status)) for status, count in waiting.items() if count)
    were = "row was" if sum(waiting.values()) == 1 else "rows were"
    return (
        f"{rows} {were} not sent: a retry of {number(len(under_way), 'other row')} is under way, and only one can run. "
        f"When check_status says that it has ended, call retry_failed again with include=[{kinds}]."
    )


def _keys(
    app: App, batch: BatchEntry, statuses: Collection[RowStatus], *, without_codes: Collection[int] = ()
) -> frozenset[str]:
    """Return the keys of rows that were sent with one of these statuses in the table; see `keys_that_ended`."""
    table = ResultTable.open(app.files(batch.id).table)
    ended = table.while_there(lambda there: keys_that_ended(there.folder, statuses, without_codes=without_codes))
    if batch.reused_count or batch.identical_count:
        # A row that asks the same as another one is answered with that one, again.
        with app.files(batch.id).keys().open("rb") as lines:
            return frozenset(key for line in lines if (key := json.loads(line)) in ended)
    return ended - _left_out(app, batch)


def _left_out(app: App, batch: BatchEntry) -> frozenset[str]:
    """Return the keys of rows that were left out of the order as wrong: there is no request to send."""
    path = app.files(batch.id).skipped_keys
    if not path.is_file():
        return frozenset()
    with path.open("rb") as lines:
        return frozenset(json.loads(key) for key in lines)


def _left_out_note(app: App, batch: BatchEntry) -> str:
    """Say what becomes of the rows that were left out of the order, empty where there are none."""
    if not (count := batch.skipped_count):
        return ""
    rows = "1 row was" if count == 1 else f"{count:,} rows were"
    one = "it" if count == 1 else "them"
    return (
        f"{rows} left out of {batch.id} as wrong and cannot be resent: there is no request. get_results with "
        f"view='failures' says what is wrong; correct the source and order {one} again, with where or in a file of "
        f"{'its' if count == 1 else 'their'} own."
    )


async def _placement(app: App, batch: BatchEntry, estimate: Estimate | None, notes: tuple[str, ...] = ()) -> Placement:
    """Return what became of the newest retry; with an estimate it is this call's, without one somebody else's."""
    batch = await current(app, batch.id)
    rows = sum(job.request_count for job in batch.jobs if job.attempt == batch.attempts)
    return Placement(describe(batch), reused=estimate is None, rows_again=rows, estimate_again=estimate, notes=notes)


async def _add_attempt(app: App, batch: BatchEntry, chosen: _Chosen | ChosenRemote) -> bool:
    if isinstance(chosen, ChosenRemote):
        return await add_remote_attempt(app, batch, chosen)
    request_file = await _with_renewed_files(app, batch, chosen.request_file)
    limits = job_limits(app, await read_prices(app), chosen.model)
    tier = tier_of(app.settings, batch.delivery, batch.task)
    parts: tuple[NewJob, ...] = (one_job(request_file, chosen.estimate),)
    if not tier:
        parts = await in_thread(cut_jobs, request_file, chosen.estimate.input_tokens, limits)
    return await in_thread(
        app.ledger.add_attempt,
        batch.id,
        chosen.attempt,
        chosen.model,
        parts,
        app.account,
        quoted_as=chosen.quote.fingerprint,
        tier=tier,
    )


async def _still_ended(app: App, ended: BatchEntry) -> BatchEntry | None:
    """Return the batch as it is now that nobody else can add an attempt; None when somebody just has.

    The table that rows are chosen from has the answers of every attempt, or else rows would be paid twice. A job that
    was refused may be there all the same, and then its rows are under way.

    Raises:
        Unproved: whether such a job is there is not known.
        NotReady: it is there, in the first attempt.
    """
    batch = await load(app, ended.id)
    for job in batch.jobs:
        if job.is_unproved and job.stage is Stage.FAILED:
            await prove_absent(app, batch, job)
            if job.attempt > 1:
                await in_thread(_drop_if_never_sent, app, batch.id, job.attempt)
    batch = await load(app, ended.id)
    if batch.attempts == 1 and not describe(batch).done:
        raise NotReady(f"{batch.id} has not ended: a job that was refused exists after all.", describe(batch).advice)
    is_collected = not any(job.stage is Stage.FINISHED and has_rows(job) for job in batch.jobs)
    return batch if describe(batch).done and is_collected else None


async def _ended_batch(app: App, reference: str, wait_seconds: float | None) -> BatchEntry | None:
    """Return a batch whose rows have all come to an end and are here; None while a retry of it is under way.

    Raises:
        NotReady: its first attempt has not ended, or is not delivered.
        UsageError: its requests are not here.
        AnothersBatch: it was made with another key.
    """
    batch = await refresh(app, await find_batch(app, reference))
    refuse_anothers(app, batch)
    if batch.attempts > 1 and not describe(batch).done:
        return None
    has_keys = is_remote(batch) or app.files(batch.id).keys().is_file()
    if not batch.is_ours or batch.order_sha256 == "" or not has_keys:
        raise UsageError(
            f"The requests of {batch.id} are not stored here: it was made elsewhere, or from an uploaded file.",
            "Submit the rows again from their source.",
        )
    if not describe(batch).done:
        raise NotReady(f"{batch.id} has not ended.", describe(batch).advice)
    collecting = partial(_collect_what_is_left, app, batch)
    if not await app.run(f"collect {batch.id}", collecting, wait_seconds=wait_seconds):
        raise StillPreparing("Its answers are still being fetched.", "Make the same call again in half a minute.")
    return await load(app, batch.id)


async def _collect_what_is_left(app: App, batch: BatchEntry) -> None:
    """Fetch the answers that are not here; rows whose answers are gone from Gemini count as missing.

    Raises:
        NotReady: Gemini has answers that it has not delivered yet: their rows need not be sent again.
    """

    async def collect(batch: BatchEntry) -> BatchEntry:
        try:
            await collect_batch(app, batch.id)
        except NotFound:
            if not await note_lost_answers(app, batch):
                raise
            await collect_batch(app, batch.id)
        return await load(app, batch.id)

    batch = await await_delivery(app, batch, collect)
    if missing := undelivered(batch):
        now = utc_now()
        if not all(is_overdue(job, now) for job in missing):
            raise NotReady(f"{not_there_yet(missing, now)} Nothing was submitted.", next_step(batch, now))
        await note_undelivered(app, missing)
        await collect_batch(app, batch.id)


async def _choose(app: App, batch: BatchEntry, include: Sequence[str], model: str) -> _Chosen | ChosenRemote:
    """Write the rows asked for into the files of the next attempt, and price them.

    Raises:
        UsageError: there are none, the model does not fit, or they cost more than the cap.
        StorageError: the stored requests have changed or are gone.
    """
    if is_remote(batch):
        return await choose_remote(app, batch, _statuses(include), skips_permanent=not include, model=model)
    await app.gateway.check_access()
    batch = await bring_lines(app, batch)
    model = (model or batch.jobs[-1].model or batch.model).removeprefix("models/")
    await check_model(app, await read_prices(app), model, batch.task, ask=False)
    attempt = batch.attempts + 1
    prices = (await read_prices(app)).at(tier_of(app.settings, batch.delivery, batch.task))
    order = Order(model=model, task=batch.task, delivery=batch.delivery)
    files = await in_thread(app.ledger.attachments, batch.id)
    known = {file.uri: Known(file.size_bytes, pages=0) for file in files.values()}
    limits = limits_of(prices, model, datetime.now(UTC).date())
    surveyor = Surveyor(model, batch.task, limits=limits, known=known.get)
    request_file = await in_thread(
        _write, app, batch, _statuses(include), not include, attempt, Counted(surveyor, app.gauge)
    )
    evidence = None
    if RowStatus.TRUNCATED not in _statuses(include):
        # Of those nobody knows how long their answers would be, but that they are longer than others.
        evidence = await in_thread(evidence_for_retry, app, batch, model)
    appraised = await _appraise(app, batch, attempt, order, request_file, surveyor, prices, evidence)
    estimate = _no_dearer(appraised, batch, model)
    summary = await in_thread(lambda: ResultTable.open(app.files(batch.id).table).summary())
    spent = await in_thread(spent_at_most, app, prices, batch, summary)
    refuse_over_cap(app, estimate, spent=spent)
    fingerprint = hashlib.sha256(f"retry {batch.id} {attempt} {model} {request_file.sha256}".encode()).hexdigest()
    rows = f"{request_file.count:,} row{'' if request_file.count == 1 else 's'} of {batch.id}"
    question = cost_question(app, estimate, f"resend {rows} to {model}", fingerprint)
    quote = Quote(question, fingerprint, f"retry {batch.id}", figure_of(estimate))
    return _Chosen(attempt, model, request_file, estimate, quote)


async def _appraise(
    app: App,
    batch: BatchEntry,
    attempt: int,
    order: Order,
    request_file: RequestFile,
    surveyor: Surveyor,
    prices: PriceTable,
    evidence: Evidence | None,
) -> Estimate:
    """Return what the rows may cost: as it was told before, if these very rows were chosen before for this model."""
    path, survey = app.files(batch.id).appraisal(attempt), surveyor.survey()
    facts = await in_thread(read_facts, path)
    if facts is None or facts.request_file.sha256 != request_file.sha256 or facts.survey != survey:
        counting = await ask_gemini(app, order, surveyor.requests())
        facts = Facts(request_file, survey, counting)
        await in_thread(write_facts, path, facts)
    return priced(prices, order, facts, evidence)


def _no_dearer(estimate: Estimate, batch: BatchEntry, model: str) -> Estimate:
    """Bound the cost of rows with files by that of all rows: the files were seen then, their URIs tell nothing."""
    whole = batch.estimate if batch.order is not None and batch.order.attach else None
    if whole is None or model != batch.model or whole.cost_usd_high is None or estimate.cost_usd_high is None:
        return estimate
    high = min(estimate.cost_usd_high, whole.cost_usd_high)
    likely = estimate.likely.at_most(high) if estimate.likely is not None else None
    return replace(estimate, cost_usd_high=high, cost_usd_low=min(estimate.cost_usd_low or 0.0, high), likely=likely)


async def _with_renewed_files(app: App, batch: BatchEntry, request_file: RequestFile) -> RequestFile:
    """Return the lines with references to attached files that are at Gemini now: uploads vanish after 48 hours.

    Raises:
        UsageError: a file is gone or has changed.
        GeminiError: it could not be sent again.
    """
    if batch.order is None or not await in_thread(app.ledger.attachments, batch.id):
        return request_file
    identified = await in_thread(identify_for, app, batch.order)
    if identified.attachments is None or identified.content_sha256 != batch.content_sha256:
        raise UsageError(f"The source of {batch.id}, or a file it attaches, has changed.", "Submit the rows again.")
    uris = await renew_attachments(app, batch.id, identified.attachments)
    return await in_thread(with_references, request_file, uris) if uris else request_file


def _statuses(include: Sequence[str]) -> Collection[RowStatus]:
    wrong = [name for name in include if name not in RETRYABLE]
    if wrong:
        raise UsageError(f"{wrong[0][:80]!r} is not a status that can be retried.", f"Give: {', '.join(RETRYABLE)}.")
    return [RowStatus(name) for name in include] or (RowStatus.FAILED, RowStatus.MISSING)


def _write(
    app: App,
    batch: BatchEntry,
    statuses: Collection[RowStatus],
    leave_permanent: bool,
    attempt: int,
    surveyor: Onlooker,
) -> RequestFile:
    files = app.files(batch.id)
    wanted = _keys(app, batch, statuses)
    chosen = _keys(app, batch, statuses, without_codes=PERMANENT_CODES) if leave_permanent else wanted
    if not chosen:
        kinds = " or ".join(statuses)
        left_out = _left_out_note(app, batch) if RowStatus.FAILED in statuses else ""
        if left_out and not wanted:
            raise UsageError(
                f"{batch.id} has no rows that are {kinds} and were sent. {left_out}",
                "Call get_results with view='failures'.",
            )
        if wanted:
            raise UsageError(
                f"All {len(wanted):,} failed rows of {batch.id} failed for reasons that resending does not change.",
                "Look at get_results with view='failures'; include=['failed'] resends them anyway.",
            )
        raise _nothing_to_send(batch, kinds, statuses)
    return write_selected(
        request_path(app, batch, batch.jobs[0]),
        files.keys(),
        chosen,
        files.requests(attempt),
        files.keys(attempt),
        sha256=batch.request_sha256,
        task=batch.task,
        onlooker=surveyor,
    )


def _nothing_to_send(batch: BatchEntry, kinds: str, statuses: Collection[RowStatus]) -> UsageError:
    """Return the error for a batch of which no row ended like that, with how to send those that are not ok."""
    rows = batch.rows
    others = [str(name) for name in RETRYABLE if name not in statuses and rows is not None and getattr(rows, name)]
    if not others:
        return UsageError(f"{batch.id} has no rows that are {kinds}.", "Call get_results to see how its rows ended.")
    ended = " and ".join(f"{getattr(rows, name):,} {name}" for name in others)
    step = f"include={others!r} resends them as they are.".replace("', '", "','")
    if "truncated" in others:
        step += f" For room for longer answers: {longer(batch)}."
    return UsageError(f"{batch.id} has no rows that are {kinds}; it has {ended}.", step)


async def _call(app: App, batch_id: str, deadline: float | None) -> None:
    """Have rows called that are answered now, as far as that goes until the deadline."""
    if is_calling(await load(app, batch_id)):
        await go_on_calling(app, batch_id, wait_seconds=seconds_left(deadline))


async def _submit(app: App, batch: BatchEntry, deadline: float | None) -> None:
    # The user asks for the rows again: a create that Gemini's list does not have may be repeated.
    submission = Submission(app, batch.id, may_repeat_unknown=True)
    await app.run(f"submit {batch.id}", submission.run, wait_seconds=seconds_left(deadline))


def _drop_if_never_sent(app: App, batch_id: str, attempt: int) -> None:
    batch = app.ledger.batch(batch_id)
    if batch is not None and not any(job.has_left for job in batch.jobs if job.attempt == attempt):
        app.ledger.drop_attempt(batch_id, attempt)
