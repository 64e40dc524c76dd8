"""An order's checked lines and what they may cost, found out in one pass and kept until a batch takes them.

Lines that have to be written are staged under the order's fingerprint, and so are the facts about every order: whoever
asks for its figure, in whichever process, is told the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.jobs.rows import charges_of
from gemini_batch_mcp.batches.ledger.entries import BatchEntry, JobEntry
from gemini_batch_mcp.batches.orders._staging import clear, held, sweep_others
from gemini_batch_mcp.batches.orders.ahead import PassAhead, survey_lines
from gemini_batch_mcp.batches.orders.identity import IdentifiedOrder
from gemini_batch_mcp.batches.orders.pricing import Cost, cost_of, evidence_for, read_prices
from gemini_batch_mcp.domain import JobState, JsonObject, Order, RequestFile, ResultSummary, Skipped
from gemini_batch_mcp.errors import StillPreparing, storage_errors
from gemini_batch_mcp.intake.prices.estimate import Counting, Estimate, count, estimate, limits_of
from gemini_batch_mcp.intake.prices.likely import Evidence
from gemini_batch_mcp.intake.prices.price_list import PriceTable, load_prices
from gemini_batch_mcp.intake.prices.survey import Limits, Survey
from gemini_batch_mcp.intake.requests.skipping import remove_skipped
from gemini_batch_mcp.threads import in_thread

#: In an order's directory: what is staged there, written last, and the requests that Gemini is still to be asked about.
_FACTS: Final = "facts.json"
_SAMPLE: Final = "sample.json"
_FAILED: Final = "The requests could not be staged"
_NOT_THERE_YET: Final = "Gemini cannot count files that have not been uploaded yet."


@dataclass(frozen=True, slots=True)
class Appraisal:
    """An order's checked lines, and the one figure for them."""

    request_file: RequestFile
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Facts:
    """What one pass over an order's lines found. `counting` is None until Gemini has been asked."""

    request_file: RequestFile
    survey: Survey
    counting: Counting | None = None


async def appraise(
    app: App, identified: IdentifiedOrder, wait_seconds: float | None, ahead: PassAhead | None = None
) -> Appraisal:
    """Return the order's lines and its figure; make them in one pass unless they are kept. It may have begun `ahead`.

    Gemini is asked to count at most 20 lines, for at most 15 seconds. Where it cannot be asked, the offline rule is
    what is kept.

    Raises:
        StillPreparing: it takes longer than `wait_seconds` (None: never), and goes on in the background.
        BatchError: as `stage_lines`.
    """
    prices, order = await read_prices(app), identified.order
    limits = limits_of(prices, order.model, datetime.now(UTC).date())
    known = await in_thread(_whole_facts, _staging_directory(app, identified), limits)
    evidence = await in_thread(evidence_for, app, identified)
    if known is not None and known.counting is not None:
        return Appraisal(known.request_file, priced(prices, order, known, evidence))
    found: list[Facts] = []

    async def work() -> None:
        facts, requests = await in_thread(_stage, app, identified, ahead)
        if facts.counting is None:
            counting = await _ask(app, identified, requests)
            facts = await in_thread(_keep_counting, app, identified, facts, counting)
        found.append(facts)

    if not await app.run(f"stage {identified.sha256}", work, wait_seconds=wait_seconds):
        raise StillPreparing(
            "The requests are still being prepared; nothing has been submitted yet.",
            "Make the same call again in half a minute.",
        )
    if not found:
        # Somebody else's work was waited for: what it found is kept.
        await work()
    return Appraisal(found[0].request_file, priced(prices, order, found[0], evidence))


def priced(prices: PriceTable, order: Order, facts: Facts, evidence: Evidence | None = None) -> Estimate:
    """Return the figure for what a pass and Gemini found, at the prices of today, and by answers that exist."""
    return estimate(
        facts.survey,
        facts.counting or Counting(),
        model=order.model,
        task=order.task,
        prices=prices,
        today=datetime.now(UTC).date(),
        evidence=evidence,
    )


def spent_at_most(app: App, prices: PriceTable, batch: BatchEntry, summary: ResultSummary) -> Cost:
    """Return what a batch has cost, where rows whose usage is not known count at their upper estimate.

    These are the rows of jobs whose answers are gone or were not given out, rows that no line came back for, and
    answers without a count of tokens.
    """
    usages = summary.attempt_usage
    charges = charges_of(batch, summary)
    cost = cost_of(prices, [replace(charge, usage=replace(charge.usage, unmetered=0)) for charge in charges])
    usd = cost.usd
    for attempt in range(1, batch.attempts + 1):
        jobs = [job for job in batch.jobs if job.attempt == attempt and job.name]
        rows = sum(job.request_count for job in jobs)
        unknown = sum(job.request_count for job in jobs if _has_unknown_usage(job))
        unknown += usages[attempt - 1].unmetered if attempt <= len(usages) else 0
        if attempt == batch.attempts:
            unknown += min(summary.missing, sum(job.request_count for job in jobs if job.answers_digest))
        if unknown and usd is not None:
            high = _upper_usd(app, prices, batch, attempt)
            usd = None if high is None else usd + high * unknown / rows
    return replace(cost, usd=None if usd is None else round(usd, 6))


def _has_unknown_usage(job: JobEntry) -> bool:
    """A job that failed as a whole, without a file of answers, has none."""
    return not job.answers_digest and (bool(job.responses_file) or job.state in (JobState.CANCELLED, JobState.EXPIRED))


def _upper_usd(app: App, prices: PriceTable, batch: BatchEntry, attempt: int) -> float | None:
    if attempt == 1:
        return batch.estimate.cost_usd_high if batch.estimate is not None else None
    facts = read_facts(app.files(batch.id).appraisal(attempt))
    model = next((job.model for job in batch.jobs if job.attempt == attempt), "") or batch.model
    return priced(prices, Order(model=model, task=batch.task), facts).cost_usd_high if facts is not None else None


async def ask_gemini(app: App, order: Order, requests: Mapping[int, JsonObject]) -> Counting:
    """Have Gemini count a few requests; see `estimate.count`."""

    async def count_one(request: JsonObject) -> int:
        return await app.gateway.count_tokens(model=order.model, requests=[request], task=order.task)

    return await count(requests, count_one)


def write_facts(path: Path, facts: Facts) -> None:
    """Write facts down, whole or not at all.

    Raises:
        StorageError: they cannot be written.
    """
    draft = path.with_name(f"{path.name}.part")
    with storage_errors(_FAILED):
        draft.write_bytes(msgspec.json.encode(facts, enc_hook=str))
        draft.replace(path)


def read_facts(path: Path) -> Facts | None:
    """Return what `write_facts` wrote, None when there is nothing, or nothing that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Facts, dec_hook=_path)
    except (OSError, msgspec.MsgspecError):
        return None


async def _ask(app: App, identified: IdentifiedOrder, requests: Mapping[int, JsonObject]) -> Counting:
    if identified.attachments is not None and identified.attachments.uploads:
        return Counting(failure=_NOT_THERE_YET)
    return await ask_gemini(app, identified.order, requests)


def stage_lines(app: App, identified: IdentifiedOrder) -> RequestFile:
    """Return the order's checked request lines, writing them unless they are staged already.

    `path` is the user's own file where that can be sent as it is.

    Raises:
        RequestProblems: lines or rows are wrong.
        UsageError: a template, a schema or the table as a whole is wrong.
        StorageError: the state directory cannot be written.
    """
    directory = _staging_directory(app, identified)
    with held(directory):
        return _read_or_write(app, identified, directory).request_file


def take_staged_lines(app: App, identified: IdentifiedOrder, requests: Path, keys: Path, columns: Path) -> RequestFile:
    """Bring the order's lines to where a batch keeps them, out of the staging area if they are there.

    What belongs to them comes along: their keys, and the columns of their source where it has any.

    Raises:
        as `stage_lines`.
    """
    directory = _staging_directory(app, identified)
    with held(directory):
        request_file = _read_or_write(app, identified, directory).request_file
        taken = replace(request_file, keys_path=keys)
        if request_file.path.parent == directory:
            taken = replace(taken, path=requests)
        with storage_errors(_FAILED):
            # Facts first: what is half moved counts as not staged.
            (directory / _FACTS).unlink(missing_ok=True)
            (directory / _SAMPLE).unlink(missing_ok=True)
            if taken.path == requests:
                request_file.path.replace(requests)
            request_file.keys_path.replace(keys)
            taken = replace(taken, skipped=_take_skipped(request_file.skipped, requests.parent))
            columns.unlink(missing_ok=True)
            if request_file.columns_path is not None:
                request_file.columns_path.replace(columns)
                taken = replace(taken, columns_path=columns)
    # The directory and its lock stay until they are swept: somebody may be waiting for it.
    return taken


def _take_skipped(skipped: Skipped | None, directory: Path) -> Skipped | None:
    """Bring what was left out to where a batch keeps it."""
    remove_skipped(directory)
    if skipped is None:
        return None
    kept = replace(skipped, path=directory / Skipped.NAME, keys_path=directory / Skipped.KEYS_NAME)
    skipped.keys_path.replace(kept.keys_path)
    skipped.path.replace(kept.path)
    return kept


def discard_staged_lines(app: App, identified: IdentifiedOrder) -> None:
    """Remove an order's staged lines: a batch has its own, and no create will come for these."""
    directory = _staging_directory(app, identified)
    if not (directory / _FACTS).exists():
        return
    with held(directory):
        clear(directory)


def _stage(app: App, identified: IdentifiedOrder, ahead: PassAhead | None) -> tuple[Facts, dict[int, JsonObject]]:
    """Return what is known of the order's lines, and the requests that Gemini is still to be asked about."""
    directory = _staging_directory(app, identified)
    with held(directory):
        facts = _read_or_write(app, identified, directory, ahead)
        try:
            sample = msgspec.json.decode((directory / _SAMPLE).read_bytes(), type=dict[int, Any])
        except (OSError, msgspec.MsgspecError):
            sample = {}
        return facts, sample


def _keep_counting(app: App, identified: IdentifiedOrder, facts: Facts, counting: Counting) -> Facts:
    """Write down what Gemini counted, unless somebody has done so before: then that is what holds."""
    directory = _staging_directory(app, identified)
    with held(directory):
        known = read_facts(directory / _FACTS)
        if known is not None and known.counting is not None:
            return known
        facts = replace(facts, counting=counting)
        if known is not None:
            write_facts(directory / _FACTS, facts)
        with storage_errors(_FAILED):
            (directory / _SAMPLE).unlink(missing_ok=True)
        return facts


def _read_or_write(app: App, identified: IdentifiedOrder, directory: Path, ahead: PassAhead | None = None) -> Facts:
    """Return what is known of lines staged in a directory that is held, or write them. Raises as `stage_lines`."""
    order = identified.order
    limits = limits_of(load_prices(app.settings.prices_path), order.model, datetime.now(UTC).date())
    if (known := _whole_facts(directory, limits)) is not None:
        return known
    sweep_others(directory)
    clear(directory)
    taken = ahead.take(identified, directory, limits) if ahead is not None else None
    lines, surveyor = taken or survey_lines(
        identified, directory, limits, app.gauge, app.choose, app.world(order.model)
    )
    facts = Facts(lines, surveyor.survey())
    with storage_errors(_FAILED):
        (directory / _SAMPLE).write_bytes(msgspec.json.encode(surveyor.requests()))
    write_facts(directory / _FACTS, facts)
    return facts


def _whole_facts(directory: Path, limits: Limits) -> Facts | None:
    """Return what is known of staged lines, None when they are not all there, or other prices hold by now."""
    facts = read_facts(directory / _FACTS)
    if facts is None or facts.survey.limits != limits:
        return None
    lines = facts.request_file
    try:
        beside = [lines.keys_path, *([lines.columns_path] if lines.columns_path is not None else [])]
        beside += [lines.skipped.path, lines.skipped.keys_path] if lines.skipped is not None else []
        is_whole = all(path.is_file() for path in beside) and lines.path.stat().st_size == lines.size_bytes
    except OSError:
        return None
    return facts if is_whole else None


def _staging_directory(app: App, identified: IdentifiedOrder) -> Path:
    return (app.settings.home / "staged").resolve() / identified.staged_as


def _path(kind: type, value: object) -> Path:
    """Read a path for msgspec, which asks about every kind that it does not know and wants this error for others."""
    if kind is not Path:
        raise NotImplementedError
    return Path(str(value))
