"""What BigQuery bills: bytes as money, as words, and as a part of an order's estimate."""

import math
from dataclasses import replace
from typing import Final

from gemini_batch_mcp.intake.prices.estimate import Estimate
from gemini_batch_mcp.settings import Settings
from gemini_batch_mcp.text import dollars

#: On demand, in the US and most regions (BigQuery's pricing page); the first TiB of a month is free, which is not
#: counted here. Others pay by reserved slots.
USD_PER_TIB: Final = 6.25
PRICED_ON: Final = "2026-11"
_TIB: Final = 1024**4
#: Bytes of a table that an answer's tokens come to at most, with what stands beside its text (our estimate).
_BYTES_A_TOKEN: Final = 8
#: How often the rows are read on the way to their requests: kept, then written.
_READS: Final = 2


def cost_of_bytes(size_bytes: int) -> float:
    """Return what reading so many bytes costs in USD."""
    return size_bytes / _TIB * USD_PER_TIB


def most_bytes_unasked(settings: Settings) -> int | None:
    """Return what may be read without asking anybody; None for any amount."""
    limits = [limit for limit in (settings.confirm_above_usd, settings.max_cost_usd) if limit is not None]
    return math.floor(min(limits) / USD_PER_TIB * _TIB) if limits else None


def bytes_words(size_bytes: int) -> str:
    """Return a number of bytes for people."""
    for unit, size in (("TiB", _TIB), ("GiB", 1024**3), ("MiB", 1024**2)):
        if size_bytes >= size:
            return f"{size_bytes / size:,.1f} {unit}"
    return f"{size_bytes:,} bytes"


def with_bigquery(
    priced: Estimate, read_bytes: int, request_bytes: int, output_tokens: int, *, longest_tokens: int | None = None
) -> Estimate:
    """Return an estimate with BigQuery's own part in it.

    At least the source is read; at most requests and answers as well, the answers at their longest: likely, where they
    are as long as the longest so far, which come to `longest_tokens` then.
    """
    least = cost_of_bytes(_READS * read_bytes)
    written = cost_of_bytes(_READS * (read_bytes + request_bytes))
    most = written + cost_of_bytes(output_tokens * _BYTES_A_TOKEN)
    low, high, expected, likely_words = priced.cost_usd_low, priced.cost_usd_high, priced.likely, ""
    if expected is not None and high is not None:
        answers = min(output_tokens, longest_tokens if longest_tokens is not None else output_tokens)
        expected = replace(
            expected,
            usd=round(expected.usd + written, 6),
            low_usd=round(expected.low_usd + least, 6),
            high_usd=round(expected.high_usd + written + cost_of_bytes(answers * _BYTES_A_TOKEN), 6),
        ).at_most(math.ceil((high + most) * 1e6) / 1e6)
        likely_words = f" Likely with it: {dollars(expected.low_usd)} to {dollars(expected.high_usd)}."
    return replace(
        priced,
        likely=expected,
        cost_usd_low=round(low + least, 6) if low is not None else None,
        cost_usd_high=math.ceil((high + most) * 1e6) / 1e6 if high is not None else None,
        basis=(
            f"{priced.basis} BigQuery: {dollars(least)} to {dollars(most)} of it; by its own dry run "
            f"{bytes_words(read_bytes)} of the source are read, at ${USD_PER_TIB} a TiB (on demand, {PRICED_ON})."
            f"{likely_words}"
        ),
    )
