"""From an order to a batch: priced, agreed to, reserved, and sent. The same order given again is the same batch."""

import contextlib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import anyio

from gemini_batch_mcp.batches.answers.collecting import collect_batch
from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.calls.calling import go_on_calling, is_calling
from gemini_batch_mcp.batches.in_place import Checked
from gemini_batch_mcp.batches.jobs.accounts import claim, is_anothers, refuse_anothers, was_sent
from gemini_batch_mcp.batches.jobs.finding import MAX_DISPLAY_NAME_CHARS
from gemini_batch_mcp.batches.jobs.lock import BatchGone
from gemini_batch_mcp.batches.jobs.removing import remove_batch
from gemini_batch_mcp.batches.jobs.tracking import BatchStatus, current, describe, prove_absent
from gemini_batch_mcp.batches.ledger.entries import BatchEntry, NewBatch, Stage
from gemini_batch_mcp.batches.objects import check_object, is_sent_in_place
from gemini_batch_mcp.batches.orders.ahead import PassAhead
from gemini_batch_mcp.batches.orders.appraising import appraise, discard_staged_lines
from gemini_batch_mcp.batches.orders.consent import (
    Quote,
    cost_question,
    name_of_source,
    quote_of,
    refuse_unagreed,
    unpriced_question,
)
from gemini_batch_mcp.batches.orders.identity import IdentifiedOrder, template_sha256
from gemini_batch_mcp.batches.orders.likeness import likeness_notes
from gemini_batch_mcp.batches.orders.models import check_model, check_thinking
from gemini_batch_mcp.batches.orders.preparing import find_order, standing_for
from gemini_batch_mcp.batches.orders.pricing import (
    evidence_for,
    now_notes,
    price_notes,
    read_prices,
    refuse_over_cap,
    refuse_too_many,
    tier_of,
)
from gemini_batch_mcp.batches.remote.previewing import check_table
from gemini_batch_mcp.batches.submitting._early_upload import EarlyUpload
from gemini_batch_mcp.batches.submitting._withdrawing import join, notes_about, withdrawn_on_cancel
from gemini_batch_mcp.batches.submitting.creating import Submission
from gemini_batch_mcp.batches.work import deadline_after, seconds_left, within
from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.errors import BatchError, NotReady, UsageError
from gemini_batch_mcp.intake.prices.estimate import Estimate
from gemini_batch_mcp.intake.request_files import RequestFile
from gemini_batch_mcp.intake.tables.earlier import EarlierRows
from gemini_batch_mcp.intake.tables.folders import Folder
from gemini_batch_mcp.intake.tables.kinds import SourceKind
from gemini_batch_mcp.text import plain_text
from gemini_batch_mcp.threads import in_thread

#: How often an order is placed anew whose batch is deleted under its hands.
_TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class Placement:
    """What became of an order. `reused`: the same order already stood and nothing new was started.

    `rows_again` is how many rows of a batch are sent again, with their own estimate; 0 for an order as a whole.
    """

    status: BatchStatus
    reused: bool
    rows_again: int = 0
    estimate_again: Estimate | None = None
    #: What the caller has to be told beside, in sentences.
    notes: tuple[str, ...] = ()

    @property
    def skipped_count(self) -> int:
        """How many requests were left out as wrong."""
        return 0 if self.rows_again else self.status.batch.skipped_count

    @property
    def reused_count(self) -> int:
        """How many requests are not sent, because they were answered in an earlier batch."""
        return 0 if self.rows_again else self.status.batch.reused_count

    @property
    def send_count(self) -> int:
        """How many requests are sent."""
        return self.rows_again or self.status.batch.request_count

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know: about the order, and about this call."""
        return (*self.status.batch.warnings, *self.notes)

    @property
    def request_count(self) -> int:
        """How many requests were asked for."""
        return self.rows_again or self.status.batch.row_count

    @property
    def estimate(self) -> Estimate | None:
        """What these requests may cost, None where that is not known."""
        return self.estimate_again if self.rows_again else self.status.batch.estimate


@dataclass(frozen=True, slots=True)
class _Appraised:
    """An order with what it may cost, or the batch that stands for it already. An uploaded file has no estimate."""

    identified: IdentifiedOrder
    quote: Quote
    standing: BatchEntry | None = None
    estimate: Estimate | None = None
    #: None for an uploaded file.
    lines: RequestFile | None = None
    notes: tuple[str, ...] = ()


async def quote_order(app: App, order: Order, *, resubmit: bool = False, wait_seconds: float | None = None) -> Quote:
    """Return what the user is told about this order, and has to be asked, before it is placed.

    Raises:
        BatchError: the order is wrong, or above the cap.
        StillPreparing: the requests are still being written after `wait_seconds`; that goes on.
    """
    return (await _appraise(app, order, resubmit=resubmit, deadline=deadline_after(wait_seconds))).quote


async def place_order(
    app: App,
    order: Order,
    *,
    agreed_to: Quote | None = None,
    confirm: bool = False,
    resubmit: bool = False,
    wait_seconds: float | None = None,
) -> Placement:
    """Submit an order, or return the batch that already stands for it.

    Waits at most `wait_seconds` (None: to the end) and then answers with the batch as it stands; the rest goes on in
    the background. `agreed_to` is what the user was asked and said yes to; `confirm` is somebody's word that they
    agreed to what was said before.

    Raises:
        BatchError: the order is wrong, not agreed to, or Gemini refused it; nothing was submitted.
        StillPreparing: the requests are still being written after `wait_seconds`; that goes on.
        OutcomeUnknown: is never raised; the batch is left in stage `unknown` and says so.
    """
    deadline = deadline_after(wait_seconds)
    with within(wait_seconds, app.gauge) as limit:
        for _ in range(_TRIES):
            with contextlib.suppress(BatchGone):
                return await _place(
                    app, order, agreed_to, confirm=confirm, resubmit=resubmit, deadline=deadline, limit=limit
                )
        raise NotReady("The batch of this order is being deleted.", "Submit the same order again in a minute.")


async def _place(
    app: App,
    order: Order,
    agreed_to: Quote | None,
    *,
    confirm: bool,
    resubmit: bool,
    deadline: float | None,
    limit: anyio.CancelScope,
) -> Placement:
    """Submit an order, or return the batch that already stands for it.

    Raises:
        BatchGone: it was deleted, or taken back by the client of another call, meanwhile.
        as `place_order`.
    """
    early = EarlyUpload(app)
    try:
        appraised = await _appraise(app, order, resubmit=resubmit, deadline=deadline, early=early)
        return await _place_appraised(
            app, appraised, agreed_to, early, confirm=confirm, resubmit=resubmit, deadline=deadline, limit=limit
        )
    finally:
        if not early.is_handed_over:
            early.give_up()


async def _place_appraised(
    app: App,
    appraised: _Appraised,
    agreed_to: Quote | None,
    early: EarlyUpload,
    *,
    confirm: bool,
    resubmit: bool,
    deadline: float | None,
    limit: anyio.CancelScope,
) -> Placement:
    """Do what `_place` does, once it is known what the order may cost or which batch stands for it."""
    identified, earlier, is_new = appraised.identified, appraised.standing, False
    # Before anything is reserved: a cancel between the two would leave what nobody wants.
    likeness = await in_thread(likeness_notes, app, identified)
    if earlier is None:
        likeness = (*likeness, *appraised.notes)
    elif identified.order.display_name not in ("", earlier.display_name):
        likeness = (*likeness, f"It is called {earlier.display_name!r}: display_name names new batches only.")
    if earlier is not None:
        batch = await claim(app, earlier)
    else:
        by_word = await refuse_unagreed(app, appraised.quote, agreed_to=agreed_to, confirm=confirm)
        new = _new_batch(app, identified, appraised)
        batch, is_new = await in_thread(app.ledger.reserve, new, always=resubmit, on_quote=by_word)
    if batch.is_submitted or (is_anothers(app, batch) and was_sent(batch)):
        await _call(app, batch.id, deadline)
        now = await current(app, batch.id)
        if now.is_deleting:
            raise BatchGone(batch.id)
        return Placement(describe(replace(now, forgotten=batch.forgotten)), reused=True, notes=likeness)
    if earlier is not None:
        await join(app, batch)
    async with withdrawn_on_cancel(app, batch.id, 1, identified.sha256, limit):
        notes = await notes_about(app, identified.sha256, earlier)
        is_ours = await _submit(app, batch, identified, deadline, early, is_new=is_new)
        if (await current(app, batch.id)).sends_nothing:
            # Its answers are here: they need not be waited for.
            await app.run(
                f"collect {batch.id}", partial(collect_batch, app, batch.id), wait_seconds=seconds_left(deadline)
            )
    # Outside: a client that cancels its call takes back what has not left, and rows have begun to leave.
    await _call(app, batch.id, deadline)
    return Placement(describe(await current(app, batch.id)), reused=not is_ours, notes=(*likeness, *notes))


async def _submit(
    app: App,
    batch: BatchEntry,
    identified: IdentifiedOrder,
    deadline: float | None,
    early: EarlyUpload,
    *,
    is_new: bool,
) -> bool:
    """Send a batch, as far as that goes until the deadline; True when it is this call that sends it.

    Raises:
        BatchError: Gemini refused it, or it cannot be sent.
    """
    submission = Submission(app, batch.id, identified, may_repeat_unknown=True, early=early)
    try:
        has_ended = await app.run(f"submit {batch.id}", submission.run, wait_seconds=seconds_left(deadline))
    except BatchError:
        await in_thread(_forget_if_never_sent, app, batch.id)
        raise
    if has_ended:
        # Also where this call has sent it: the lines may have been brought there by a process that was killed then.
        await in_thread(discard_staged_lines, app, identified)
    # Of several processes that are given one order at once, the one that submits it has not reused it.
    return submission.has_begun or (is_new and not has_ended)


async def _call(app: App, batch_id: str, deadline: float | None) -> None:
    """Have the rows of a batch called that are answered now, as far as that goes until the deadline.

    Raises:
        BatchError: Gemini refuses every row, or they cannot be read.
    """
    batch = await current(app, batch_id)
    if not is_calling(batch) or is_anothers(app, batch):
        return
    try:
        await go_on_calling(app, batch_id, wait_seconds=seconds_left(deadline))
    except BatchError:
        await in_thread(_forget_if_never_sent, app, batch_id)
        raise


async def _appraise(
    app: App, order: Order, *, resubmit: bool, deadline: float | None, early: EarlyUpload | None = None
) -> _Appraised:
    """Find out what an order is and what it may cost, or which batch stands for it.

    Raises:
        as `quote_order`.
    """
    with PassAhead(app, early.begin if early is not None else None) as ahead:
        return await _appraise_order(app, order, ahead, resubmit=resubmit, deadline=deadline)


async def _appraise_order(
    app: App, order: Order, ahead: PassAhead, *, resubmit: bool, deadline: float | None
) -> _Appraised:
    await in_thread(app.refuse_lost)
    identified = await find_order(app, order, ahead, seconds_left(deadline))
    if identified.kind is SourceKind.UPLOADED and not is_sent_in_place(app, order):
        await _check_uploaded(app, order.source)
    prices = (await read_prices(app)).at(tier_of(app.settings, order.delivery, order.task))
    await check_model(app, prices, order.model, order.task, ask=False)
    check_thinking(prices, order)
    if not resubmit:
        for sha256 in {identified.sha256, identified.plain_sha256}:
            await _look_for_refused(app, sha256)
    standing = await in_thread(standing_for, app, identified)
    if standing is not None and not resubmit:
        return _Appraised(identified, quote_of(identified, standing.estimate), standing)
    await app.gateway.check_access()
    source, to = name_of_source(app, identified), order.model
    if prices.tier:
        to = f"{order.model} now, at the {prices.tier} price"
    if standing is not None:
        # An answer to the question before this one must not pass for an answer to this one.
        to = f"{to} once more (already ordered as {standing.id}, and charged again)"
    if identified.kind is SourceKind.REMOTE or is_sent_in_place(app, order):
        found: Checked
        if identified.kind is SourceKind.REMOTE:
            found = await check_table(app, identified, prices, wait_seconds=seconds_left(deadline))
        else:
            found = await check_object(app, identified.order, prices)
        figure = found.estimate(prices, identified.order, await in_thread(evidence_for, app, identified))
        refuse_over_cap(app, figure)
        # Without the time that it is pinned to.
        shown = order.source.partition("#")[0] if identified.kind is SourceKind.REMOTE else order.source
        asked = f"submit {found.count:,} requests of {plain_text(shown, 200)} to {to}"
        question = cost_question(app, figure, asked, identified.sha256)
        quote = quote_of(identified, figure, question)
        return _Appraised(identified, quote, estimate=figure, notes=price_notes(app, prices))
    if identified.kind is SourceKind.UPLOADED:
        return _Appraised(identified, quote_of(identified, None, unpriced_question(source, to)))
    identified = replace(identified, is_anew=resubmit)
    appraisal = await appraise(app, identified, seconds_left(deadline), ahead, is_to_take=True)
    lines, priced = appraisal.request_file, appraisal.estimate
    identified, count = identified.settled(lines), lines.count
    if not count:
        # Nothing is sent, so nothing is asked.
        return _Appraised(identified, quote_of(identified, priced), estimate=priced, lines=lines)
    refuse_too_many(order.delivery, count)
    refuse_over_cap(app, priced)
    plural = "" if count == 1 else "s"
    requests = f"{count:,} request{plural} {f'of {source}' if order.source else 'given in the call'}"
    question = cost_question(app, priced, f"submit {requests} to {to}", identified.sha256)
    return _Appraised(
        identified,
        quote_of(identified, priced, question),
        estimate=priced,
        lines=lines,
        notes=(*appraisal.notes, *now_notes(prices, order.task, count), *price_notes(app, prices)),
    )


async def _look_for_refused(app: App, order_sha256: str) -> None:
    """Look for jobs of this order whose create was refused: one that is there all the same stands for the order.

    Raises:
        Unproved: whether there is one is not known.
        AnothersBatch: another key's project would have it.
        AccessDenied: the key was refused.
    """
    for batch in await in_thread(app.ledger.unproved, order_sha256):
        for job in batch.jobs:
            if job.is_unproved and job.stage is Stage.FAILED:
                refuse_anothers(app, await claim(app, batch))
                await prove_absent(app, batch, job)


def _new_batch(app: App, identified: IdentifiedOrder, appraised: _Appraised) -> NewBatch:
    order, lines = identified.order, appraised.lines
    spared = lines.spared if lines is not None else None
    place = identified.place
    stem = "batch"
    if isinstance(place, Path):
        stem = place.stem
    elif isinstance(place, Folder):
        stem = place.name
    elif isinstance(place, EarlierRows):
        # Not the same name: whoever says it means the batch that was called so.
        stem = f"after {place.display_name.removeprefix('after ')}"
    elif identified.kind is SourceKind.REMOTE:
        stem = order.source.partition("#")[0].rpartition(".")[2]
    return NewBatch(
        order_sha256=identified.sha256,
        earlier_sha256=identified.earlier_sha256,
        account=app.account,
        display_name=plain_text(order.display_name or stem, MAX_DISPLAY_NAME_CHARS) or "batch",
        model=order.model,
        task=order.task,
        delivery=order.delivery,
        source=identified.source_name,
        uploaded_file=order.source if identified.kind is SourceKind.UPLOADED else "",
        order=order,
        content_sha256=identified.content_sha256,
        template_sha256=template_sha256(identified),
        estimate=appraised.estimate,
        reused_count=spared.reused_count if spared is not None else 0,
        identical_count=spared.identical_count if spared is not None else 0,
        donors=spared.donors if spared is not None else (),
        request_sha256=lines.sha256 if lines is not None and spared is not None else "",
        is_anew=identified.is_anew,
        tier=tier_of(app.settings, order.delivery, order.task),
    )


async def _check_uploaded(app: App, uploaded_file: str) -> None:
    if app.settings.max_cost_usd is not None:
        raise UsageError(
            f"GEMINI_BATCH_MAX_COST_USD is set, and {uploaded_file} cannot be priced: it cannot be read back.",
            "Give the local file.",
        )
    await app.gateway.get_file(uploaded_file)


def _forget_if_never_sent(app: App, batch_id: str) -> None:
    """Drop the traces of an order that was refused before anything could cost: the caller has just been told why."""
    batch = app.ledger.batch(batch_id)
    if batch is None or any(job.stage is not Stage.FAILED for job in batch.jobs):
        return
    # Nothing was paid with it: the user need not be asked again about the same order.
    app.ledger.quotes.release(batch_id)
    if any(job.uploaded_file or job.is_unproved or job.lost_rows for job in batch.jobs):
        return
    remove_batch(app, batch_id)
