"""What a batch will take: input tokens from a sample of its lines, the cost as a range, bounded by every line."""

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Final

import anyio

from gemini_batch_mcp.domain import JsonObject, Task
from gemini_batch_mcp.errors import BatchError, Rejected
from gemini_batch_mcp.intake.prices.likely import Evidence, Likely, Rate, likely, proposed_limit, share_beyond
from gemini_batch_mcp.intake.prices.price_list import OUTPUT_TOKEN_LIMIT, Modality, Price, PriceTable
from gemini_batch_mcp.intake.prices.survey import CACHE, FILE, Limits, Load, SampledLine, Survey, Unbounded
from gemini_batch_mcp.intake.prices.tokens import Tokens
from gemini_batch_mcp.text import count as counted
from gemini_batch_mcp.text import dollars

#: Asks Gemini how many input tokens one request has; raises a BatchError when it cannot be asked.
CountTokens = Callable[[JsonObject], Awaitable[int]]

#: Calls at the same time, and seconds for all of them together (our choice: a tool call may take 50 s).
_CALLS_AT_ONCE: Final = 5
_COUNTING_SECONDS: Final = 15.0
#: How far the offline rule, or a sample of one line, may be off (assumed).
_RULE_MARGIN: Final = 0.25


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a batch is expected to take: one for each order, whoever asks.

    `cost_usd_low` is the input alone, less the margin; `cost_usd_high` what no bill passes: every line's input and
    answers at their longest. Both None when the price is not known. `basis` says how the figures came about;
    `unbounded`, a sentence each, what they leave out because nothing bounds it.
    """

    input_tokens: int
    output_tokens_max: int
    cost_usd_low: float | None
    cost_usd_high: float | None
    priced_on: str
    basis: str
    warnings: tuple[str, ...] = ()
    unbounded: tuple[str, ...] = ()
    #: By answers that exist to the same prompt; None without such, or without a price.
    likely: Likely | None = None
    #: True when Gemini itself counted the input of some lines.
    is_counted: bool = False

    @property
    def cost_usd_likely(self) -> float | None:
        """What the batch will cost by answers that exist, None without such."""
        return self.likely.usd if self.likely is not None else None

    @property
    def cost_usd_expected_high(self) -> float | None:
        """What the batch costs at most with 95 %, by answers that exist; without such, what no bill passes."""
        return self.likely.high_usd if self.likely is not None else self.cost_usd_high

    @property
    def shown_cost(self) -> str:
        """The cost in dollars as people read it; empty where no price is known."""
        if self.cost_usd_low is None or self.cost_usd_high is None:
            return ""
        if self.likely is None:
            return f"{dollars(self.cost_usd_low)} to {dollars(self.cost_usd_high)}"
        shown = f"likely {dollars(self.likely.usd)} (up to {dollars(self.likely.high_usd)} with 95 %)"
        return f"{shown}, at most {dollars(self.cost_usd_high)}"


@dataclass(frozen=True, slots=True)
class Counting:
    """What Gemini counted: tokens by number of the line, and why it was not asked for more."""

    tokens: Mapping[int, int] = field(default_factory=dict[int, int])
    failure: str = ""


def limits_of(prices: PriceTable, model: str, today: date) -> Limits:
    """Return what the prices of a batch that is created today depend on."""
    known = prices.prices(model, today)
    tiers = [price.rates.long_prompt.over_tokens for price in known if price.rates.long_prompt]
    return Limits(
        output_tokens=max((price.output_token_limit for price in known), default=OUTPUT_TOKEN_LIMIT),
        long_prompt_tokens=min(tiers, default=0),
    )


async def count(requests: Mapping[int, JsonObject], count_tokens: CountTokens) -> Counting:
    """Ask Gemini about a sample of lines, by their numbers; takes 15 seconds at most, and never fails."""
    tokens: dict[int, int] = {}
    failure = ""
    limiter = anyio.CapacityLimiter(_CALLS_AT_ONCE)
    with anyio.move_on_after(_COUNTING_SECONDS) as limit:
        async with anyio.create_task_group() as group:

            async def ask(number: int, request: JsonObject) -> None:
                nonlocal failure
                async with limiter:
                    try:
                        tokens[number] = await count_tokens(request)
                    except Rejected as error:
                        # This line is not to Gemini's liking; the others may be.
                        failure = error.message
                    except BatchError as error:
                        failure = error.message
                        group.cancel_scope.cancel()

            for number, request in requests.items():
                group.start_soon(ask, number, request)
    if limit.cancelled_caught:
        failure = f"Gemini did not answer within {_COUNTING_SECONDS:.0f} s."
    return Counting(tokens, failure)


def estimate(
    survey: Survey,
    counting: Counting,
    *,
    model: str,
    task: Task,
    prices: PriceTable,
    today: date,
    evidence: Evidence | None = None,
) -> Estimate:
    """Return the estimate for a batch that is created today: the same for the same lines, counts, prices and evidence.

    A job lives up to 48 hours: of the prices in that time the low figure takes the lowest, the high one the highest.
    """
    rows = _rows(survey, counting)
    scaled = _scaled(survey, rows, is_counted=bool(counting.tokens))
    known = prices.prices(model, today)
    costs = [(_low_usd(price, survey, rows, scaled), _high_usd(price, survey, rows)) for price in known]
    low, high = min((low for low, _ in costs), default=None), max((high for _, high in costs), default=None)
    unbounded = tuple(map(_unbounded, _left_open(survey, counting)))
    if evidence is not None and not evidence.is_enough:
        evidence = None
    expected = _likely(evidence, survey, scaled, known, high, is_counted=bool(counting.tokens)) if evidence else None
    if task == "embed" and counting.tokens and high is not None:
        expected = _likely_of_input(survey, rows, scaled, known)
        expected = expected.at_most(high) if expected is not None else None
    return Estimate(
        input_tokens=round(scaled.tokens),
        output_tokens_max=survey.most.output_tokens,
        cost_usd_low=None if low is None else round(low, 6),
        # Rounded up: a bound stays one.
        cost_usd_high=None if high is None else math.ceil(max(high, low or 0.0) * 1e6 - 1e-6) / 1e6,
        priced_on=prices.priced_on.isoformat(),
        basis=" ".join(
            [
                _input_basis(survey, rows, scaled),
                *([] if task == "embed" else [_output_basis(survey)]),
                *([_likely_basis(evidence, expected)] if expected else []),
                _price_basis(prices),
            ]
        ),
        warnings=(
            *prices.advice(model, today),
            *_warnings(survey, counting, known),
            *unbounded,
            *([] if task == "embed" else _cap_warnings(survey, counting, known, evidence)),
        ),
        unbounded=unbounded,
        likely=expected,
        is_counted=bool(counting.tokens),
    )


def over_cap(estimate: Estimate, max_cost_usd: float | None) -> str | None:
    """Return why a batch may not be created under the cap, None when it may. An unknown cost is above every cap."""
    if max_cost_usd is None:
        return None
    cap = f"GEMINI_BATCH_MAX_COST_USD allows {dollars(max_cost_usd)} a batch"
    if estimate.cost_usd_high is None:
        return f"{cap}, and this model's price is unknown."
    if estimate.unbounded:
        return f"{cap}, and the cost of this one has no upper bound. {estimate.unbounded[0]}"
    if estimate.cost_usd_high > max_cost_usd:
        return f"{cap}, and this one may cost up to {dollars(estimate.cost_usd_high)}."
    return None


@dataclass(frozen=True, slots=True)
class _Row:
    """One sampled line with its tokens: Gemini's count, or the rule's brought to the level of the counts."""

    line: SampledLine
    tokens: float
    level: float
    is_counted: bool

    @property
    def text(self) -> float:
        """Tokens of what is no file."""
        return max(0.0, self.tokens - self.line.media.total * self.level)


@dataclass(frozen=True, slots=True)
class _Scaled:
    """Tokens of all lines, give or take `margin` of them; `media` of them are no text of the lines themselves."""

    tokens: float
    media: dict[Modality, float]
    margin: float
    by: str


def _rows(survey: Survey, counting: Counting) -> list[_Row]:
    counted = [line for line in survey.lines if line.number in counting.tokens]
    by_rule = sum(line.counts.total for line in counted)
    level = sum(counting.tokens[line.number] for line in counted) / by_rule if by_rule else 1.0
    return [
        _Row(
            line,
            float(counting.tokens.get(line.number, line.counts.total * level)),
            level,
            line.number in counting.tokens,
        )
        for line in survey.lines
    ]


def _scaled(survey: Survey, rows: list[_Row], *, is_counted: bool) -> _Scaled:
    """Scale texts up by their length. What is no text has been counted by the rule on every line."""
    margin = 0.0 if is_counted else _RULE_MARGIN
    level = rows[0].level if rows else 1.0
    media = {modality: count * level for modality, count in _by_modality(survey.media).items()}
    total = sum(row.tokens for row in rows)
    if len(rows) == survey.rows:
        return _Scaled(total, media, margin, "all lines")
    by_length = sum(row.text for row in rows) / max(1, sum(row.line.text_bytes for row in rows))
    tokens = by_length * survey.text_bytes + sum(media.values())
    off = [row.tokens - by_length * row.line.text_bytes - row.line.media.total * level for row in rows]
    margin = min(margin + _spread(off) * survey.rows / max(1.0, tokens), 1.0) if len(off) > 1 else _RULE_MARGIN
    return _Scaled(tokens, media, margin, "scaled by length")


def _spread(off: list[float]) -> float:
    """Return two standard errors of a mean, from how far each is off."""
    return 2 * math.sqrt(sum(value * value for value in off) / (len(off) - 1) / len(off))


def _low_usd(price: Price, survey: Survey, rows: list[_Row], scaled: _Scaled) -> float:
    """Return what the input costs at least. Only where every line was looked at, some count as long prompts."""
    if len(rows) == survey.rows:
        usd = sum(price.input_usd(_shared(row), long_prompt=price.is_long(row.tokens)) for row in rows)
    else:
        media = {**scaled.media, "text": 0.0}
        usd = price.input_usd({**media, "text": max(0.0, scaled.tokens - sum(media.values()))})
    return usd * (1 - scaled.margin)


def _shared(row: _Row) -> dict[Modality, float]:
    """Share the tokens of a line among modalities as the offline rule sees them."""
    total = row.line.counts.total
    if not total:
        return {"text": row.tokens}
    return {modality: count / total * row.tokens for modality, count in _by_modality(row.line.counts).items()}


def _high_usd(price: Price, survey: Survey, rows: list[_Row]) -> float:
    """Return what no bill passes: counted lines by their counts, all others by the bounds of their own bytes.

    Where a count passed the bound of its line, the bounds of all others are raised as much.
    """
    counted = [row for row in rows if row.is_counted]
    raised = max((row.tokens / max(1.0, _bound(row.line.most)) for row in counted), default=1.0)
    left, left_long = survey.most, survey.most_of_long
    usd = 0.0
    for row in counted:
        tokens, line = _shared(row), row.line
        tokens["text"] = tokens.get("text", 0.0) + line.settings
        is_long = price.is_long(row.tokens + line.settings)
        usd += price.input_usd(tokens, long_prompt=is_long)
        usd += price.output_usd(line.most.output_tokens, long_prompt=is_long)
        left -= line.most
        if 0 < survey.limits.long_prompt_tokens < line.text_bytes + line.most.media.total:
            left_long -= line.most
    usd += _load_usd(price, left, max(raised, 1.0), long_prompt=False)
    if price.rates.long_prompt:
        usd += _load_usd(price, left_long, max(raised, 1.0), long_prompt=True)
        usd -= _load_usd(price, left_long, max(raised, 1.0), long_prompt=False)
    return usd


def _load_usd(price: Price, load: Load, raised: float, *, long_prompt: bool) -> float:
    tokens = {modality: count * raised for modality, count in _by_modality(load.media).items()}
    tokens["text"] += max(0.0, load.text) * raised
    return price.input_usd(tokens, long_prompt=long_prompt) + price.output_usd(
        load.output_tokens, long_prompt=long_prompt
    )


def _bound(load: Load) -> float:
    return load.text + load.media.total


def _by_modality(tokens: Tokens) -> dict[Modality, float]:
    return {
        "text": float(tokens.text),
        "image": float(tokens.image),
        "audio": float(tokens.audio),
        "video": float(tokens.video),
    }


def _left_open(survey: Survey, counting: Counting) -> list[Unbounded]:
    """Return what has no bound. A file that Gemini has counted in every line that names one is not among it."""
    all_counted = len(counting.tokens) == survey.rows
    return [found for found in survey.unbounded if found.what != FILE or not all_counted]


def _unbounded(found: Unbounded) -> str:
    where = f"Line {found.first_line}" if found.lines == 1 else f"{found.lines:,} lines (first: {found.first_line})"
    s = "s" if found.lines == 1 else ""
    match found.what:
        case _ if found.what == FILE:
            return (
                f"{where} name{s} files that can't be inspected here: the high figure assumes that they fill a "
                "request. Local files given with `attach` can be counted."
            )
        case _ if found.what == CACHE:
            return f"{where} use{s} cachedContent, whose size and storage aren't part of this estimate."
        case tool:
            return f"{where} use{s} {tool}, which Gemini bills separately from the tokens in this estimate."


def _input_basis(survey: Survey, rows: list[_Row], scaled: _Scaled) -> str:
    asked = sum(row.is_counted for row in rows)
    methods = [
        f"{how} on {count:,}"
        for how, count in (
            ("countTokens", asked),
            ("the offline rule (4 characters a token)", len(rows) - asked),
        )
        if count
    ]
    bound = "" if asked == survey.rows else " The high figure bounds each line by its own bytes and files."
    lines = counted(survey.rows, "line")
    return f"Input: {' and '.join(methods)} of {lines}, {scaled.by}, ±{scaled.margin * 100:.0f} %.{bound}"


def _output_basis(survey: Survey) -> str:
    limit, capped_rows = survey.limits.output_tokens, survey.rows - survey.uncapped_rows
    uncapped = f"{limit:,} tokens a line" if not capped_rows else f"else {limit:,} tokens a line"
    if capped_rows == survey.rows:
        uncapped = ""
    capped = "maxOutputTokens where set" if capped_rows else ""
    bound = ", ".join(part for part in (capped, uncapped) if part)
    return f"Output: at most {bound}, thinking included; the low figure counts no output."


def _likely(
    evidence: Evidence,
    survey: Survey,
    scaled: _Scaled,
    known: tuple[Price, ...],
    high: float | None,
    *,
    is_counted: bool,
) -> Likely | None:
    """Return what the batch will cost by answers that exist, counted as its bill is; never above its bound."""
    if high is None:
        return None
    rates = [Rate(price.input_usd({"text": 1.0}), price.output_usd(1)) for price in known]
    return likely(
        evidence, survey.rows, rates, input_tokens=scaled.tokens, margin=scaled.margin, is_counted=is_counted
    ).at_most(high)


def _likely_of_input(survey: Survey, rows: list[_Row], scaled: _Scaled, known: tuple[Price, ...]) -> Likely | None:
    """Return what embeddings will cost: they have no output, and their input was counted to within a margin."""
    if not known:
        return None
    usd = [_low_usd(price, survey, rows, replace(scaled, margin=0.0)) for price in known]
    return Likely(
        usd=round(usd[0], 6),
        low_usd=math.floor(min(usd) * (1 - scaled.margin) * 1e6) / 1e6,
        high_usd=math.ceil(max(usd) * (1 + scaled.margin) * 1e6) / 1e6,
        rows=0,
        batches=(),
    )


def _likely_basis(evidence: Evidence | None, found: Likely) -> str:
    if evidence is None:
        within = f"{dollars(found.low_usd)} to {dollars(found.high_usd)}"
        return f"Likely: the counted input, as embeddings have no output; with 95 % {within}."
    rows = "" if evidence.same_source else " about another source"
    rows = " for the first rows of their source, which the others need not be like" if evidence.first_rows else rows
    return (
        f"Likely: by {counted(evidence.rows, 'answer')} of {' and '.join(evidence.batches)}{rows}; with 95 % "
        f"{dollars(found.low_usd)} to {dollars(found.high_usd)}."
    )


def _price_basis(prices: PriceTable) -> str:
    match prices.tier:
        case "":
            return f"Batch prices of {prices.priced_on}."
        case "flex":
            return f"Flex prices of {prices.priced_on}, which are those of a batch."
        case _:
            return f"Standard prices of {prices.priced_on}, {prices.times:g} times those of a batch."


def _cap_warnings(survey: Survey, counting: Counting, known: tuple[Price, ...], evidence: Evidence | None) -> list[str]:
    uncapped = survey.uncapped_rows
    if not uncapped:
        return []
    lines = f"{uncapped:,} lines set" if uncapped > 1 else "1 line sets"
    said = f"{lines} no maxOutputTokens: the high figure assumes {survey.limits.output_tokens:,} tokens for each."
    if evidence is None or (limit := proposed_limit(evidence)) >= survey.limits.output_tokens:
        return [f"{said} Setting it narrows the range."]
    longest = (
        f"The longest of {counted(evidence.rows, 'answer')} so far took {evidence.longest:,} tokens, thinking included:"
    )
    met = f"maxOutputTokens={limit} would have cut none of them, and cuts at most {share_beyond(evidence.rows):.1%}"
    high = ""
    if uncapped == survey.rows and known:
        capped = _capped(survey, limit / survey.limits.output_tokens)
        usd = max(_high_usd(price, capped, _rows(capped, counting)) for price in known)
        high = f"; at most {dollars(usd)} then"
    return [f"{said} {longest} {met} of all rows, with 95 %{high}."]


def _capped(survey: Survey, share: float) -> Survey:
    """Return the survey of the same lines with answers of that share of their length at most."""

    def cut(load: Load) -> Load:
        return replace(load, output_tokens=math.ceil(load.output_tokens * share))

    return replace(
        survey,
        most=cut(survey.most),
        most_of_long=cut(survey.most_of_long),
        lines=tuple(replace(line, most=cut(line.most)) for line in survey.lines),
    )


def _warnings(survey: Survey, counting: Counting, known: tuple[Price, ...]) -> list[str]:
    said = []
    if counting.failure and len(counting.tokens) < len(survey.lines):
        said.append(f"Some or all tokens were counted by an offline rule: {counting.failure}")
    if survey.most.media.media > survey.media.media and not any(found.what == FILE for found in survey.unbounded):
        said.append("The length of audio, video or PDFs is unknown: the high figure assumes the maximum.")
    if survey.media.audio and any(price.rates.audio_input is None for price in known):
        said.append("Audio is priced like text here; Gemini charges more for it with some models.")
    return said
