"""What an order is likely to cost, by answers that exist to the same prompt: their mean, and a range around it.

The range is one for the sum over all rows of an order, from the few that were answered. By Student's t alone it held in
83 of 100 orders where a few long answers make up much of the bill: many a sample of twenty has none of them. So it is
widened to where a log-normal with the same spread of logarithms puts the sum (Cox's method). Both together held in 95
of 100, over five kinds of answers with and without thinking (tests/intake/prices/test_likely.py), and a bootstrap of
the same answers in 91.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, fmean, variance
from typing import Final

#: With fewer answers, nothing is said about all rows (our choice).
LEAST_ANSWERS: Final = 8
#: Answers that are looked at one by one; of more, so many of them.
MOST_ANSWERS: Final = 2_000
#: How often the range holds.
CONFIDENCE: Final = 0.95
#: Within so much of each other, estimated and billed input tokens count as the same: the estimate is scaled from a few
#: lines.
_SAME_INPUT: Final = 0.1
#: Smallest limit that is proposed, and how much longer than the longest answer it is at least.
_LEAST_LIMIT: Final = 64
_ROOM: Final = 1.5


@dataclass(frozen=True, slots=True)
class Evidence:
    """Answers to the prompt of an order, from earlier `batches`: `rows` of them.

    `tokens` holds, for at most `MOST_ANSWERS` of them, the tokens of input and of output, thinking included; `longest`
    is the most output tokens of any. `first_rows` says that they answer the first rows of their source, which need not
    be like the others; `estimated_input` is what was estimated for the input of such a row by Gemini's own counts, 0
    where it was not.
    """

    batches: tuple[str, ...]
    rows: int
    tokens: tuple[tuple[int, int], ...]
    longest: int
    first_rows: bool = False
    same_source: bool = False
    estimated_input: float = 0.0

    @property
    def is_enough(self) -> bool:
        """True when something can be said about all rows."""
        return len(self.tokens) >= LEAST_ANSWERS


@dataclass(frozen=True, slots=True)
class Likely:
    """What an order will cost by the answers of earlier `batches`: in 95 of 100 orders from `low_usd` to `high_usd`.

    Of embeddings, which have no output, by the input that Gemini counted: there are no `batches`, and no `rows`.
    """

    usd: float
    low_usd: float
    high_usd: float
    rows: int
    batches: tuple[str, ...]

    def at_most(self, usd: float) -> "Likely":
        """Return the same where no bill passes so much."""
        return replace(self, usd=min(self.usd, usd), low_usd=min(self.low_usd, usd), high_usd=min(self.high_usd, usd))


@dataclass(frozen=True, slots=True)
class Rate:
    """USD for a token of input and of output."""

    input_usd: float
    output_usd: float


def likely(
    evidence: Evidence, rows: int, rates: Sequence[Rate], *, input_tokens: float, margin: float, is_counted: bool
) -> Likely:
    """Return what `rows` rows are likely to cost at each of the rates that may hold, the first of which holds today.

    Where `is_counted`, `input_tokens` are known to within `margin` of them, by Gemini's own counts; otherwise the input
    is taken from the answers as well.
    """
    found = [_at(evidence, rows, rate, input_tokens, margin, is_counted=is_counted) for rate in rates]
    return Likely(
        usd=round(found[0][0], 6),
        low_usd=round(min(low for _, low, _ in found), 6),
        high_usd=round(max(high for _, _, high in found), 6),
        rows=evidence.rows,
        batches=evidence.batches,
    )


def _at(
    evidence: Evidence, rows: int, rate: Rate, input_tokens: float, margin: float, *, is_counted: bool
) -> tuple[float, float, float]:
    each = evidence.tokens
    if not is_counted:
        values = [taken * rate.input_usd + written * rate.output_usd for taken, written in each]
        return total_range(values, rows, least_spread=rate.output_usd)
    input_usd = input_tokens * rate.input_usd * _billed_share(evidence)
    values = [written * rate.output_usd for _, written in each]
    usd, low, high = total_range(values, rows, least_spread=rate.output_usd)
    off = input_usd * margin
    return (
        input_usd + usd,
        max(0.0, input_usd + usd - math.hypot(usd - low, off)),
        input_usd + usd + math.hypot(high - usd, off),
    )


def _billed_share(evidence: Evidence) -> float:
    """Return how many input tokens are billed for each one that Gemini counts beforehand."""
    if not evidence.estimated_input:
        return 1.0
    share = fmean(taken for taken, _ in evidence.tokens) / evidence.estimated_input
    return share if abs(share - 1) > _SAME_INPUT else 1.0


def total_range(values: Sequence[float], rows: int, *, least_spread: float = 0.0) -> tuple[float, float, float]:
    """Return the sum over `rows` rows, and the range in which it lies with 95 %, from the `values` of some rows.

    The rows of the sum count as asked anew: the same one need not be answered alike. Where all values are the same, the
    range is as if one of them had been `least_spread` larger.
    """
    if not rows:
        # Everything is taken over from earlier batches.
        return 0.0, 0.0, 0.0
    count, mean = len(values), fmean(values)
    spread = max(variance(values), least_spread**2 / count)
    student = student_quantile((1 + CONFIDENCE) / 2, count - 1)
    # Of the mean of the sample, and of the mean of the rows of the sum.
    share = 1 / count + 1 / rows
    off = student * math.sqrt(spread * share)
    low, high = mean - off, mean + off
    if all(value > 0 for value in values):
        logs = [math.log(value) for value in values]
        wide = variance(logs)
        middle = fmean(logs) + wide / 2
        off = student * math.sqrt(wide * share + wide * wide / (2 * (count - 1)))
        # A mean beyond these is a log-normal that the values are not.
        low, high = min(low, math.exp(middle - off)), max(high, math.exp(min(middle + off, 700.0)))
    return mean * rows, max(0.0, low) * rows, high * rows


def student_quantile(share: float, freedom: int) -> float:
    """Return the quantile of Student's t with so many degrees of freedom, 4 at least (Abramowitz and Stegun 26.7.5).

    To within 0.05 % of the exact values, from 0.9 to 0.995.
    """
    z = NormalDist().inv_cdf(share)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92_160,
    )
    return z + math.fsum(term / freedom**power for power, term in enumerate(terms, 1))


def proposed_limit(evidence: Evidence) -> int:
    """Return a `maxOutputTokens` that no answer so far would have met, with room for longer ones: a power of two."""
    return max(_LEAST_LIMIT, 1 << math.ceil(math.log2(max(1.0, evidence.longest * _ROOM))))


def share_beyond(rows: int) -> float:
    """Return how many of all answers may pass what none of `rows` has passed, at most, with 95 %."""
    return 1.0 - math.pow(1.0 - CONFIDENCE, 1.0 / rows)
