"""What a batch will take: input tokens from a sample of its lines, output up to its bounds, and the cost as a range."""

import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import date
from typing import Final

import anyio

from gemini_batch_mcp.domain import JsonObject, Task
from gemini_batch_mcp.errors import BatchError, Rejected
from gemini_batch_mcp.intake.prices._sample import Sample, SampledLine, Sampler, sample_file
from gemini_batch_mcp.intake.prices.price_list import OUTPUT_TOKEN_LIMIT, Modality, Price, PriceTable
from gemini_batch_mcp.intake.prices.tokens import Tokens
from gemini_batch_mcp.text import dollars

__all__ = ["CountTokens", "Estimate", "Sample", "Sampler", "estimate", "over_cap", "sample_file"]

#: Asks Gemini how many input tokens one request has; raises a BatchError when it cannot be asked.
CountTokens = Callable[[JsonObject], Awaitable[int]]

#: Calls at the same time, and seconds for all of them together (our choice: a tool call may take 50 s).
_CALLS_AT_ONCE: Final = 5
_COUNTING_SECONDS: Final = 15.0
#: How far the offline rule, or a sample of one line, may be off (assumed).
_RULE_MARGIN: Final = 0.25
_MODALITIES: Final[tuple[Modality, ...]] = ("text", "image", "audio", "video")


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a batch is expected to take.

    `cost_usd_low` is the input alone, less the margin; `cost_usd_high` the input with the margin and every answer at
    its longest. Both None when the price is not known. `basis` says how the figures came about.
    """

    input_tokens: int
    output_tokens_max: int
    cost_usd_low: float | None
    cost_usd_high: float | None
    priced_on: str
    basis: str
    warnings: tuple[str, ...] = ()


async def estimate(
    sample: Sample,
    *,
    model: str,
    task: Task,
    prices: PriceTable,
    count_tokens: CountTokens | None,
    today: date,
) -> Estimate:
    """Return the estimate for a batch that is created today, after at most 20 countTokens calls and 15 seconds.

    `count_tokens` None, or one that fails, means the offline rule (`tokens.py`); `basis` and a warning say so. A job
    lives up to 48 hours: of the prices in that time the low figure takes the lowest, the high one the highest.
    """
    counting = await _count(sample.lines, count_tokens)
    rows = _rows(sample, counting)
    scaled = _scaled(sample, rows, is_counted=bool(counting.tokens))
    known = prices.prices(model, today)
    limit = max((price.output_token_limit for price in known), default=OUTPUT_TOKEN_LIMIT)
    output = 0 if task == "embed" else _output_tokens(sample, limit)
    costs = [_cost_usd(price, rows, scaled, output) for price in known]
    return Estimate(
        input_tokens=round(scaled.tokens),
        output_tokens_max=output,
        cost_usd_low=round(min(low for low, _ in costs), 6) if costs else None,
        cost_usd_high=round(max(high for _, high in costs), 6) if costs else None,
        priced_on=prices.priced_on.isoformat(),
        basis=" ".join(
            [
                _input_basis(sample, counting, scaled),
                *([] if task == "embed" else [_output_basis(sample, limit)]),
                f"Batch prices of {prices.priced_on}.",
            ]
        ),
        warnings=(
            *prices.advice(model, today),
            *_warnings(sample, counting, known),
            *([] if task == "embed" else _cap_warnings(sample, limit)),
        ),
    )


def over_cap(estimate: Estimate, max_cost_usd: float | None) -> str | None:
    """Return why a batch may not be created under the cap, None when it may. An unknown cost is above every cap."""
    if max_cost_usd is None:
        return None
    cap = f"GEMINI_BATCH_MAX_COST_USD allows {dollars(max_cost_usd)} a batch"
    if estimate.cost_usd_high is None:
        return f"{cap}, and the price of this model is not known."
    if estimate.cost_usd_high > max_cost_usd:
        return f"{cap}, and this one may cost up to {dollars(estimate.cost_usd_high)}."
    return None


@dataclass(slots=True)
class _Counting:
    """What Gemini counted: tokens by line number, and why it was not asked for more."""

    tokens: dict[int, int] = field(default_factory=dict[int, int])
    failure: str = ""


@dataclass(frozen=True, slots=True)
class _Row:
    """One sampled line with its tokens: Gemini's count, or the rule's brought to the level of the counts.

    `most` is what they may be at most, the same where Gemini counted.
    """

    line: SampledLine
    tokens: float
    most: float


@dataclass(frozen=True, slots=True)
class _Scaled:
    """Tokens of all lines, give or take `margin` of them; `factor` leads there from the sample.

    `high_factor` is the larger one where lines may be scaled by their number or by their length.
    """

    tokens: float
    factor: float
    margin: float
    by: str
    high_factor: float


async def _count(lines: Iterable[SampledLine], count_tokens: CountTokens | None) -> _Counting:
    counting = _Counting()
    if count_tokens is None:
        counting.failure = "Gemini was not asked."
        return counting
    limiter = anyio.CapacityLimiter(_CALLS_AT_ONCE)
    with anyio.move_on_after(_COUNTING_SECONDS) as limit:
        async with anyio.create_task_group() as group:

            async def ask(number: int, request: JsonObject) -> None:
                async with limiter:
                    try:
                        counting.tokens[number] = await count_tokens(request)
                    except Rejected as error:
                        # This line is not to Gemini's liking; the others may be.
                        counting.failure = error.message
                    except BatchError as error:
                        counting.failure = error.message
                        group.cancel_scope.cancel()

            for line in lines:
                if line.request is not None:
                    group.start_soon(ask, line.number, line.request)
    if limit.cancelled_caught:
        counting.failure = f"Gemini did not answer within {_COUNTING_SECONDS:.0f} s."
    return counting


def _rows(sample: Sample, counting: _Counting) -> list[_Row]:
    counted = [line for line in sample.lines if line.number in counting.tokens]
    by_rule = sum(line.counts.total for line in counted)
    level = sum(counting.tokens[line.number] for line in counted) / by_rule if by_rule else 1.0
    rows = []
    for line in sample.lines:
        counted_tokens = counting.tokens.get(line.number)
        if counted_tokens is None:
            tokens = line.counts.total * level
            rows.append(_Row(line, tokens, max(tokens, line.most.total * max(level, 1.0))))
        else:
            rows.append(_Row(line, float(counted_tokens), float(counted_tokens)))
    return rows


def _scaled(sample: Sample, rows: list[_Row], *, is_counted: bool) -> _Scaled:
    """Scale up by length; where lines carry media, whose length says little, by the number of lines."""
    rule_margin = 0.0 if is_counted else _RULE_MARGIN
    total = sum(row.tokens for row in rows)
    if not total:
        return _Scaled(sample.size_bytes / 4, 0.0, _RULE_MARGIN, "its bytes, four a token", 0.0)
    if len(rows) == sample.rows:
        return _Scaled(total, 1.0, rule_margin, "all lines", 1.0)
    by_length = sample.size_bytes / sum(row.line.size_bytes for row in rows)
    if any(row.line.counts.media for row in rows):
        weights, whole, by = [1.0] * len(rows), float(sample.rows), "scaled by the number of lines"
    else:
        weights, whole, by = [float(row.line.size_bytes) for row in rows], float(sample.size_bytes), "scaled by length"
    factor = whole / sum(weights)
    margin = min(rule_margin + _spread(rows, weights), 1.0)
    return _Scaled(total * factor, factor, margin, by, max(factor, by_length))


def _spread(rows: list[_Row], weights: list[float]) -> float:
    """Return two standard errors of the ratio estimate, as a part of it."""
    count, total = len(rows), sum(row.tokens for row in rows)
    if count == 1:
        return _RULE_MARGIN
    ratio = total / sum(weights)
    squares = sum((row.tokens - ratio * weight) ** 2 for row, weight in zip(rows, weights, strict=True))
    return 2 * math.sqrt(squares / (count - 1) / count) / (total / count)


def _output_tokens(sample: Sample, limit: int) -> int:
    candidates = max((line.candidates for line in sample.lines), default=1)
    capped = min(sample.cap_tokens, sample.capped_rows * limit)
    return (capped + (sample.rows - sample.capped_rows) * limit) * candidates


def _cost_usd(price: Price, rows: list[_Row], scaled: _Scaled, output_tokens: int) -> tuple[float, float]:
    """Return the low and the high cost. Low: each row at its own tier; high: all at the higher one if any row is."""
    any_long = any(price.is_long(row.most) for row in rows)
    if not scaled.factor:
        every = price.input_usd({"text": scaled.tokens})
        return every * (1 - scaled.margin), every * (1 + scaled.margin) + price.output_usd(output_tokens)
    by_row = [_by_modality(row.line.counts, row.tokens * scaled.factor) for row in rows]
    low = sum(
        price.input_usd(tokens, long_prompt=price.is_long(row.tokens)) for row, tokens in zip(rows, by_row, strict=True)
    )
    most = [_by_modality(_bound(row), row.most * scaled.high_factor) for row in rows]
    high = sum(price.input_usd(tokens, long_prompt=any_long) for tokens in most)
    answers = price.output_usd(output_tokens, long_prompt=any_long)
    return low * (1 - scaled.margin), high * (1 + scaled.margin) + answers


def _bound(row: _Row) -> Tokens:
    """Return by what the most that a row can have is shared among modalities."""
    return row.line.most if row.most > row.tokens else row.line.counts


def _by_modality(counts: Tokens, tokens: float) -> dict[Modality, float]:
    """Share tokens among modalities as the offline rule sees them."""
    if not counts.total:
        return {"text": tokens}
    return {modality: getattr(counts, modality) / counts.total * tokens for modality in _MODALITIES}


def _input_basis(sample: Sample, counting: _Counting, scaled: _Scaled) -> str:
    by_rule = len(sample.lines) - len(counting.tokens)
    methods = [
        f"{how} on {count:,}"
        for how, count in (("countTokens", len(counting.tokens)), ("the offline rule (4 characters a token)", by_rule))
        if count
    ]
    return (
        f"Input: {' and '.join(methods) or 'the size'} of {sample.rows:,} lines, {scaled.by}, "
        f"±{scaled.margin * 100:.0f} %."
    )


def _output_basis(sample: Sample, limit: int) -> str:
    uncapped = f"{limit:,} tokens a line" if not sample.capped_rows else f"else {limit:,} tokens a line"
    if sample.capped_rows == sample.rows:
        uncapped = ""
    capped = "maxOutputTokens where set" if sample.capped_rows else ""
    bound = ", ".join(part for part in (capped, uncapped) if part)
    return f"Output: at most {bound}, thinking included; none in the low figure."


def _cap_warnings(sample: Sample, limit: int) -> list[str]:
    uncapped = sample.rows - sample.capped_rows
    if not uncapped:
        return []
    lines = f"{uncapped:,} lines set" if uncapped > 1 else "1 line sets"
    return [
        f"{lines} no maxOutputTokens: the high figure counts {limit:,} tokens for each. Setting it narrows the range."
    ]


def _warnings(sample: Sample, counting: _Counting, known: tuple[Price, ...]) -> list[str]:
    said = []
    if counting.failure and len(counting.tokens) < len(sample.lines):
        said.append(f"Some or all tokens are counted by an offline rule: {counting.failure}")
    unseen = [line for line in sample.lines if line.number not in counting.tokens and line.counts.unknown_references]
    if unseen:
        said.append(
            "Files and caches that lines only name are counted as 10 pages or 60 seconds each, and in the high figure "
            "as long as one request can hold."
        )
    elif any(line.most.media > line.counts.media for line in sample.lines if line.number not in counting.tokens):
        said.append("The length of sound, video or PDFs is not known: the high figure counts the longest they can be.")
    with_sound = any(line.counts.audio for line in sample.lines)
    if with_sound and any(price.rates.audio_input is None for price in known):
        said.append("Sound is priced as text here; Gemini bills it higher for some models.")
    return said
