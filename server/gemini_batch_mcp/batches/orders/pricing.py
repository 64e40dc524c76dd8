"""What an order may cost and how large a job may be, against the caps that the user has set; and what it has cost."""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

import msgspec

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.jobs.delivery import left_nothing
from gemini_batch_mcp.batches.jobs.rows import asked_of, charges_of
from gemini_batch_mcp.batches.ledger.entries import BatchEntry, Charge, JobEntry
from gemini_batch_mcp.batches.orders.identity import OUTPUT_LIMIT, IdentifiedOrder, template_of, template_sha256
from gemini_batch_mcp.domain import Delivery, JobState, Order, ResultSummary, Task, Usage
from gemini_batch_mcp.errors import StorageError, UsageError, storage_errors
from gemini_batch_mcp.intake.prices.estimate import Counting, Estimate, estimate, over_cap
from gemini_batch_mcp.intake.prices.likely import MOST_ANSWERS, Evidence
from gemini_batch_mcp.intake.prices.price_list import CallTier, PriceTable, load_prices
from gemini_batch_mcp.intake.prices.survey import Survey
from gemini_batch_mcp.intake.request_files import RequestFile
from gemini_batch_mcp.intake.tables.kinds import SourceKind
from gemini_batch_mcp.results.store import Rates, ResultTable, TokenSample
from gemini_batch_mcp.settings import MAX_NOW_ROWS, Settings
from gemini_batch_mcp.text import dollars
from gemini_batch_mcp.threads import in_thread
from gemini_batch_mcp.warehouse.statements import is_table

#: Batches that are looked at for answers to the same prompt (our choice).
_MOST_BATCHES: Final = 8
#: More tokens than any order has.
_NO_LIMIT: Final = 1 << 62
_FAILED: Final = "The facts about an order could not be written down"


@dataclass(frozen=True, slots=True)
class JobLimits:
    """What one job may take: bytes of its request file, and estimated input tokens.

    `is_known` says that the tokens were set for this project; otherwise they are the most that any project gets, and
    Gemini's refusal tells when this one gets less (`lower`, the next smaller limits to try).
    """

    max_bytes: int
    max_tokens: int
    is_known: bool
    lower: tuple[int, ...] = ()
    #: None for no limit.
    max_rows: int | None = None

    def fit(self, size_bytes: int, input_tokens: int) -> bool:
        """True when so much may be one job."""
        return size_bytes <= self.max_bytes and input_tokens <= self.max_tokens

    def job_count(self, request_file: RequestFile, priced: Estimate) -> int:
        """Return how many jobs it takes, or one more where lines do not fill them evenly."""
        if not request_file.count:
            return 0
        by_bytes = math.ceil(request_file.size_bytes / self.max_bytes)
        by_rows = math.ceil(request_file.count / self.max_rows) if self.max_rows else 1
        by_tokens = math.ceil(priced.input_tokens / self.max_tokens)
        return max(1, min(request_file.count, max(by_bytes, by_rows, by_tokens)))


@dataclass(frozen=True, slots=True)
class Cost:
    """What answers cost in USD, None when that is not known, and the date of the prices.

    `wasted_usd` is what of it went into rows that got no good answer, `retries_usd` what went into later attempts.
    """

    usd: float | None
    priced_on: str
    wasted_usd: float | None = None
    retries_usd: float | None = None


def tier_of(settings: Settings, delivery: Delivery, task: Task) -> CallTier:
    """Return at which service tier rows are called that are answered now, empty for those of a batch.

    Embeddings know no tiers: they cost what is standard.
    """
    if delivery != "now":
        return ""
    return "standard" if task == "embed" else settings.now_tier


def refuse_too_many(delivery: Delivery, count: int) -> None:
    """Refuse an order of more rows than are answered now.

    Raises:
        UsageError: says how to order them.
    """
    if delivery == "now" and count > MAX_NOW_ROWS:
        raise UsageError(
            f"delivery='now' takes up to {MAX_NOW_ROWS:,} rows, one call each; this order has {count:,}.",
            f"Set limit_rows={MAX_NOW_ROWS} for a trial, or delivery='file' for all of them.",
        )


def now_notes(prices: PriceTable, task: Task, count: int) -> tuple[str, ...]:
    """Return what the user should know of rows that are called at the tier of these prices; nothing of a batch."""
    if not prices.tier:
        return ()
    calls = f"delivery='now': {count:,} call{'' if count == 1 else 's'}, four at a time,"
    if prices.tier == "flex":
        return (
            f"{calls} at the flex tier: the batch price, usually answered within minutes. Gemini may turn calls away "
            "for a while; they are repeated until cancel_batch stops them.",
        )
    why = "embeddings have no flex tier" if task == "embed" else "GEMINI_BATCH_NOW_TIER is standard"
    return (f"{calls} at the standard price, {prices.times:g} times that of a batch: {why}.",)


def price_notes(app: App, prices: PriceTable) -> tuple[str, ...]:
    """Say whose prices an order on Google Cloud is priced at; nothing elsewhere."""
    if not app.gateway.service.is_cloud or app.settings.prices_path is not None:
        return ()
    return (
        f"Priced at the Gemini API's batch prices of {prices.priced_on}. Google Cloud's own list is taken to be the "
        "same; where it differs, GEMINI_BATCH_PRICES replaces them. Storage in the bucket comes on top.",
    )


async def read_prices(app: App) -> PriceTable:
    """Read the dated table of models and prices, with the user's own laid over it.

    Raises:
        ConfigurationError: the user's table cannot be used.
    """
    return await in_thread(load_prices, app.settings.prices_path)


def evidence_for(app: App, identified: IdentifiedOrder) -> Evidence | None:
    """Return answers that exist to what an order asks, None where there are none.

    All of the same source count; where there are none of it, those of the batch that was ordered last. Answers that
    another limit of their length may have cut do not count, and longer ones than this order lets through are cut.
    """
    if identified.kind is SourceKind.UPLOADED:
        return None
    return _evidence(app, template_sha256(identified), identified.order, identified.content_sha256)


def evidence_for_retry(app: App, batch: BatchEntry, model: str) -> Evidence | None:
    """Return answers that exist to what rows of a batch ask, sent again to a model; None where there are none."""
    if batch.order is None or not batch.template_sha256:
        return None
    order = replace(batch.order, model=model)
    template = batch.template_sha256
    if model != batch.model:
        template = template_of(order, "" if order.prompt else batch.content_sha256)
    return _evidence(app, template, order, batch.content_sha256)


def _evidence(app: App, template_sha256: str, order: Order, content_sha256: str) -> Evidence | None:
    if order.task == "embed":
        return None
    alike = app.ledger.answered_alike(template_sha256, limit=_MOST_BATCHES)
    same = [batch for batch in alike if _is_same_source(batch, order, content_sha256)]
    limit = _output_limit(order)
    found: list[tuple[BatchEntry, TokenSample]] = []
    for batch in same or alike[:1]:
        with suppress(StorageError):
            # One that was deleted meanwhile tells nothing any more.
            sample = _tokens(app, batch)
            own = _output_limit(batch.order)
            is_cut = own not in (0, limit) and sample.longest >= own
            found += [(batch, sample)] if sample.rows and not is_cut else []
    if not found:
        return None
    each = tuple(
        (taken, min(written, limit) if limit else written) for _, sample in found for taken, written in sample.each
    )
    return Evidence(
        batches=tuple(batch.id for batch, _ in found),
        rows=sum(sample.rows for _, sample in found),
        tokens=each[:MOST_ANSWERS],
        longest=max(sample.longest for _, sample in found),
        first_rows=all(batch.is_pilot and batch.order is not None and batch.order.limit_rows for batch, _ in found),
        same_source=bool(same),
        estimated_input=_estimated_input([batch for batch, _ in found]),
    )


def keep_tokens(app: App, batch: BatchEntry, sample: TokenSample) -> None:
    """Write down what the answers of a batch took whose table is not on this machine.

    Raises:
        StorageError: it cannot be written.
    """
    path = app.files(batch.id).tokens
    draft = path.with_name(f"{path.name}.part")
    with storage_errors(_FAILED):
        draft.write_bytes(msgspec.json.encode(sample))
        draft.replace(path)


def _tokens(app: App, batch: BatchEntry) -> TokenSample:
    """Return what the answers of a batch took. Raises StorageError."""
    files = app.files(batch.id)
    with suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(files.tokens.read_bytes(), type=TokenSample)
    return ResultTable.open(files.table, app.tables).tokens(MOST_ANSWERS)


def _output_limit(order: Order | None) -> int:
    """Return the most tokens of an answer that an order sets for all of its rows, 0 for none."""
    values = [order.generation_config.get(name) for name in OUTPUT_LIMIT] if order is not None else []
    return next((int(value) for value in values if isinstance(value, int | float) and value > 0), 0)


def _is_same_source(batch: BatchEntry, order: Order, content_sha256: str) -> bool:
    """True for rows of the same file, or of the same content; a file that rows were added to is the same one."""
    is_named_alike = batch.order is not None and _named(batch.order.source) == _named(order.source) != ""
    return is_named_alike or batch.content_sha256 == content_sha256


def _named(source: str) -> str:
    """Return a source without the time of its last change, to which an order over a table in BigQuery is pinned."""
    return source.partition("#")[0] if is_table(source) else source


def _estimated_input(batches: Sequence[BatchEntry]) -> float:
    """Return the input tokens of a row as Gemini counted them beforehand, 0 where it did not for all of the batches."""
    if not all(batch.estimate is not None and batch.estimate.is_counted for batch in batches):
        return 0.0
    rows = sum(batch.request_count for batch in batches)
    return sum(batch.estimate.input_tokens for batch in batches if batch.estimate is not None) / max(1, rows)


def job_limits(app: App, prices: PriceTable, model: str) -> JobLimits:
    """Return how large a job of a model may be.

    The enqueued-token limit depends on the project's tier, which no call tells. Without a setting the highest tier's
    is taken: more is never accepted, and less shows in a refusal that costs nothing.
    """
    settings, service = app.settings, app.gateway.service
    # However little is set: a job takes a line at least.
    max_bytes, max_rows = max(1, min(settings.max_file_bytes, service.file_bytes)), service.job_rows or None
    if settings.max_enqueued_tokens is not None:
        return JobLimits(max_bytes, settings.max_enqueued_tokens, is_known=True, max_rows=max_rows)
    if not service.has_quota:
        return JobLimits(max_bytes, _NO_LIMIT, is_known=True, max_rows=max_rows)
    low, middle, high = (max(1, prices.enqueued_tokens(model, tier)) for tier in (1, 2, 3))
    return JobLimits(max_bytes, high, is_known=False, lower=(middle, low), max_rows=max_rows)


def refuse_over_cap(app: App, priced: Estimate, *, spent: Cost | None = None) -> None:
    """Refuse what may cost more than the hard cap. No argument of a tool lifts it.

    `spent` is what the answers of the batch have cost already, when rows of it are sent again.

    Raises:
        UsageError: the upper estimate is above GEMINI_BATCH_MAX_COST_USD, or the cost is not known.
    """
    cap = app.settings.max_cost_usd
    refusal = over_cap(priced, cap)
    if refusal is None and cap is not None and spent is not None:
        if spent.usd is None:
            refusal = f"GEMINI_BATCH_MAX_COST_USD allows {dollars(cap)} a batch, and what this one has cost is unknown."
        elif (high := priced.cost_usd_high or 0.0) + spent.usd > cap:
            refusal = (
                f"GEMINI_BATCH_MAX_COST_USD allows {dollars(cap)} a batch; this one has cost {dollars(spent.usd)} "
                f"so far, and these rows may cost up to {dollars(high)} more."
            )
    if refusal is not None:
        if priced.unbounded:
            raise UsageError(refusal, "Leave it out of the requests, or ask the user to remove the cap.")
        raise UsageError(refusal, "Set maxOutputTokens, order fewer rows, or ask the user to raise the cap.")


def actual_cost(prices: PriceTable, batch: BatchEntry, summary: ResultSummary) -> Cost:
    """Return what the tokens of a batch's answers cost; see `cost_of`. Not known where no job gave out what it made."""
    cost = cost_of(prices, charges_of(batch, summary))
    has_unseen = any(left_nothing(job) and job.name and not job.tier for job in batch.jobs)
    return replace(cost, usd=None, wasted_usd=None) if has_unseen and not cost.usd else cost


def cost_of(prices: PriceTable, charges: Sequence[Charge]) -> Cost:
    """Return what charges come to at list prices. Every figure that is said of answers is from here.

    Each charge is rounded to a millionth of a dollar, so that any grouping of them has the same sum.
    """
    each = [_usd(prices, charge, charge.usage) for charge in charges]
    wasted = [_usd(prices, charge, charge.wasted) for charge in charges]
    return Cost(_sum(each), prices.priced_on.isoformat(), _sum(wasted), _sum(each[1:]))


def _usd(prices: PriceTable, charge: Charge, usage: Usage) -> float | None:
    """Return what tokens of a charge cost, None where no price is known, or no answer says what it took."""
    rates = rates_of(prices, charge.model, charge.sent_on, charge.tier)
    tokens = usage.input_tokens + usage.output_tokens + usage.thoughts_tokens
    if rates is None or (usage.unmetered and not tokens):
        return None
    output = usage.output_tokens + usage.thoughts_tokens
    return round(usage.input_tokens * rates.input_usd + output * rates.output_usd, 6)


def rates_of(prices: PriceTable, model: str, day: date, tier: CallTier = "") -> Rates | None:
    """Return what a token of answers costs in a batch, or called at a tier; None where no price is known.

    All input counts as text, and every output token at the dearest kind of output that the model has.
    """
    price = prices.at(tier).price(model, day)
    return Rates(price.input_usd({"text": 1.0}), price.output_usd(1)) if price is not None else None


def _sum(each: Sequence[float | None]) -> float | None:
    known = [usd for usd in each if usd is not None]
    return round(sum(known), 6) if len(known) == len(each) else None


@dataclass(frozen=True, slots=True)
class Facts:
    """What one pass over an order's lines found. `counting` is None until Gemini has been asked.

    `survey` is of the lines that are sent, `all_rows` of all, where some are not. `answers` stands for what earlier
    batches had to give then; None where nothing is taken. `whole` are all lines, while those that are sent stand only
    there: what a preview needs of them is known, and who creates a batch has them written.
    """

    request_file: RequestFile
    survey: Survey
    counting: Counting | None = None
    all_rows: Survey | None = None
    answers: str | None = None
    whole: RequestFile | None = None


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
        jobs = [job for job in batch.jobs if job.attempt == attempt and job.has_left]
        rows = sum(job.request_count for job in jobs)
        unknown = sum(job.request_count for job in jobs if _has_unknown_usage(job))
        unknown += sum(job.lost_rows for job in jobs)
        unknown += usages[attempt - 1].unmetered if attempt <= len(usages) else 0
        if attempt == batch.attempts:
            sent = sum(job.request_count for job in jobs if job.answers_digest and not job.tier)
            unknown += min(summary.missing, sent)
        if unknown and usd is not None:
            high = _upper_usd(app, prices, batch, attempt)
            usd = None if high is None else usd + high * unknown / rows
    return replace(cost, usd=None if usd is None else round(usd, 6))


def _has_unknown_usage(job: JobEntry) -> bool:
    """A job that failed as a whole, without a file of answers, has none; what calls came to is known row by row."""
    return (
        not job.tier
        and not job.answers_digest
        and (bool(job.responses_file) or job.state in (JobState.CANCELLED, JobState.EXPIRED))
    )


def _upper_usd(app: App, prices: PriceTable, batch: BatchEntry, attempt: int) -> float | None:
    if attempt == 1:
        return batch.estimate.cost_usd_high if batch.estimate is not None else None
    facts = read_facts(app.files(batch.id).appraisal(attempt))
    model = next((job.model for job in batch.jobs if job.attempt == attempt), "") or batch.model
    _, _, tier = asked_of(batch, attempt)
    if facts is None:
        return None
    return priced(prices.at(tier), Order(model=model, task=batch.task), facts).cost_usd_high


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


def _path(kind: type, value: object) -> Path:
    """Read a path for msgspec, which asks about every kind that it does not know and wants this error for others."""
    if kind is not Path:
        raise NotImplementedError
    return Path(str(value))
