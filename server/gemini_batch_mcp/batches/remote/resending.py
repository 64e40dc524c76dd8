"""Rows in BigQuery that are sent again: chosen from the table of results, and written there as another attempt."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.ledger.entries import BatchEntry, NewJob
from gemini_batch_mcp.batches.orders.consent import Quote, cost_question, figure_of
from gemini_batch_mcp.batches.orders.models import check_model
from gemini_batch_mcp.batches.orders.preparing import identify_for
from gemini_batch_mcp.batches.orders.pricing import evidence_for_retry, read_prices, refuse_over_cap, spent_at_most
from gemini_batch_mcp.batches.remote._again import Choice, keep_choice
from gemini_batch_mcp.batches.remote.kept_facts import read_remote
from gemini_batch_mcp.batches.remote.previewing import CheckedTable, check_table
from gemini_batch_mcp.domain import ResultSummary, RowStatus
from gemini_batch_mcp.errors import BatchError, NotReady, UsageError
from gemini_batch_mcp.intake.prices.estimate import Estimate
from gemini_batch_mcp.intake.prices.survey import Load, Survey
from gemini_batch_mcp.text import count
from gemini_batch_mcp.threads import in_thread


@dataclass(frozen=True, slots=True)
class ChosenRemote:
    """The rows of a retry as BigQuery is to choose them, how many they are, and what the user is told about them."""

    attempt: int
    model: str
    choice: Choice
    rows: int
    part: NewJob
    estimate: Estimate
    quote: Quote


async def choose_remote(
    app: App, batch: BatchEntry, statuses: Collection[RowStatus], *, skips_permanent: bool, model: str
) -> ChosenRemote:
    """Say which rows would be sent again, and what they may cost; nothing is written.

    Raises:
        UsageError: there are none, the model does not fit, or they cost more than the cap.
    """
    await app.gateway.check_access()
    facts = await in_thread(read_remote, app, batch)
    if facts is None or batch.order is None:
        raise NotReady(f"{batch.id} has no results in BigQuery yet.", "Call get_results.")
    model = (model or batch.jobs[-1].model or batch.model).removeprefix("models/")
    prices = await read_prices(app)
    await check_model(app, prices, model, batch.task, ask=False)
    rows = _rows(batch, facts.summary, statuses, skips_permanent=skips_permanent)
    attempt = batch.attempts + 1
    found = await _checked(app, batch)
    estimate = batch.estimate
    if found is not None:
        evidence = None
        if RowStatus.TRUNCATED not in statuses:
            # Of those nobody knows how long their answers would be, but that they are longer than others.
            evidence = await in_thread(evidence_for_retry, app, batch, model)
        order = replace(batch.order, model=model)
        estimate = found.estimate_of(_of_some(found, rows), prices, model, order, evidence)
    elif estimate is not None:
        estimate = _share(estimate, rows / max(1, batch.request_count))
    if estimate is None:
        raise UsageError(f"What rows of {batch.id} cost is not known.", "Submit them again as an order with where.")
    spent = await in_thread(spent_at_most, app, prices, batch, facts.summary)
    refuse_over_cap(app, estimate, spent=spent)
    wanted = f"retry {batch.id} {attempt} {model} {facts.stands_for} {sorted(statuses)} {skips_permanent}"
    fingerprint = hashlib.sha256(wanted.encode()).hexdigest()
    asked = f"resend {count(rows, 'row')} of {batch.id} to {model}"
    question = cost_question(app, estimate, asked, fingerprint)
    size_bytes = max(1, batch.size_bytes * rows // max(1, batch.request_count))
    return ChosenRemote(
        attempt=attempt,
        model=model,
        choice=Choice(tuple(str(status) for status in statuses), skips_permanent),
        rows=rows,
        part=NewJob(0, rows, 0, size_bytes, fingerprint, estimate.input_tokens),
        estimate=estimate,
        quote=Quote(question, fingerprint, f"retry {batch.id}", figure_of(estimate)),
    )


async def add_remote_attempt(app: App, batch: BatchEntry, chosen: ChosenRemote) -> bool:
    """Reserve a retry; what it chooses is written down first. False when there is one with this number already."""
    await in_thread(keep_choice, app, batch, chosen.attempt, chosen.choice)
    return await in_thread(
        app.ledger.add_attempt,
        batch.id,
        chosen.attempt,
        chosen.model,
        (chosen.part,),
        app.account,
        quoted_as=chosen.quote.fingerprint,
    )


def _rows(batch: BatchEntry, summary: ResultSummary, statuses: Collection[RowStatus], *, skips_permanent: bool) -> int:
    """Return how many rows are chosen.

    Raises:
        UsageError: none are.
    """
    counts = {status: int(getattr(summary, str(status))) for status in statuses}
    wanted = sum(counts.values())
    left_out = summary.permanent if skips_permanent and RowStatus.FAILED in counts else 0
    if not wanted:
        kinds = " or ".join(counts)
        raise UsageError(f"{batch.id} has no rows that are {kinds}.", "Call get_results to see how its rows ended.")
    if wanted == left_out:
        raise UsageError(
            f"All {wanted:,} failed rows of {batch.id} failed for reasons that resending does not change.",
            "Look at get_results with view='failures'; include=['failed'] resends them anyway.",
        )
    return wanted - left_out


async def _checked(app: App, batch: BatchEntry) -> CheckedTable | None:
    """Return what was counted for the order, None where that is not kept any more."""
    assert batch.order is not None
    try:
        identified = await in_thread(identify_for, app, batch.order)
        return await check_table(app, identified, await read_prices(app))
    except BatchError:
        # The source has changed, or is gone: the requests are kept, and are no longer than they were.
        return None


def _of_some(found: CheckedTable, rows: int) -> Survey:
    """Return the survey of some rows, of which nothing is known but that none is longer than the longest."""
    share = rows / max(1, found.count)
    longest = min(found.survey.text_bytes, rows * found.longest_bytes)
    return replace(
        found.survey,
        rows=rows,
        text_bytes=round(found.survey.text_bytes * share),
        most=Load(
            rows=rows,
            text=min(found.survey.most.text, float(longest)),
            # Of files nobody knows which rows have the long ones.
            media=found.survey.most.media,
            output_tokens=round(found.survey.most.output_tokens * share),
        ),
        uncapped_rows=round(found.survey.uncapped_rows * share),
    )


def _share(estimate: Estimate, share: float) -> Estimate:
    """Return what of an estimate falls to a share of its rows, at most all of it."""
    low = estimate.cost_usd_low
    return replace(
        estimate,
        input_tokens=round(estimate.input_tokens * share),
        output_tokens_max=round(estimate.output_tokens_max * share),
        cost_usd_low=round(low * share, 6) if low is not None else None,
        likely=None,
    )
