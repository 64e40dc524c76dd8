"""How numbers spread over rows: quartiles, and bars of one width that hold every row."""

# ruff: noqa: S608 - queries consist of our own names and of numbers

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: Bars of a histogram, about.
_BARS: Final = 24


@dataclass(frozen=True, slots=True)
class Bar:
    """Rows with a number from `start` to below `end`; of the last bar, `end` included."""

    start: float
    end: float
    rows: int


@dataclass(frozen=True, slots=True)
class Spread:
    """Numbers of so many rows. `bars` are empty where the numbers lie too far apart for any.

    The first and the last bar hold also what lies beyond them, which is less than one row of a hundred: `is_cut_below`
    and `is_cut_above` say so.
    """

    rows: int
    mean: float
    smallest: float
    low: float
    median: float
    high: float
    largest: float
    is_whole: bool
    bars: tuple[Bar, ...] = ()
    is_cut_below: bool = False
    is_cut_above: bool = False


def spread_of(connection: "DuckDBPyConnection", relation: str, *, is_whole: bool) -> Spread | None:
    """Measure the column `n` of a relation: finite numbers as DOUBLE. None where it has no rows."""
    rows, mean, smallest, largest, quantiles = connection.execute(
        f"""SELECT count(n), avg(n / 2) * 2, min(n), max(n), quantile_cont(n, [0.005, 0.25, 0.5, 0.75, 0.995])
            FROM {relation}"""
    ).fetchall()[0]
    if not rows:
        return None
    lowest, low, median, high, highest = quantiles
    # Few rows far away would leave all others in one bar.
    middle = highest - lowest
    first = lowest if lowest - smallest > middle else smallest
    last = highest if largest - highest > middle else largest
    spread = Spread(rows, mean, smallest, low, median, high, largest, is_whole)
    width = bar_width(last - first, is_whole=is_whole)
    if width is None or abs(first) / width > 2**53 or abs(last) / width > 2**53:
        return spread
    # Multiplied by the whole number that it is the part of, a width like 0.05 puts 0.15 where it belongs.
    scale = f"* {round(1 / width)}" if width < 1 else f"/ {width!r}"
    factor = round(1 / width) if width < 1 else 1 / width
    start = math.floor(first * factor)
    # A number at the end of all bars is in the last one: 1.0 of scores from 0 to 1.
    end = math.floor(last * factor) if is_whole else max(start, math.ceil(last * factor) - 1)
    found = connection.execute(
        f"""SELECT greatest(least(floor(n {scale}), {end}), {start})::BIGINT AS place, count(*)
            FROM {relation} WHERE n IS NOT NULL GROUP BY place"""
    ).fetchall()
    filled: dict[int, int] = dict(found)
    bars = tuple(
        Bar(_times(place, width), _times(place + 1, width), filled.get(place, 0)) for place in range(start, end + 1)
    )
    return Spread(
        rows,
        mean,
        smallest,
        low,
        median,
        high,
        largest,
        is_whole,
        bars,
        smallest < bars[0].start,
        largest > bars[-1].end,
    )


def bar_width(span: float, *, is_whole: bool) -> float | None:
    """Return the least of 1, 2 and 5 times a power of ten that cuts `span` into no more than the wanted bars.

    None where a double cannot say it.
    """
    if not math.isfinite(span):
        return None
    if span <= 0:
        return 1.0
    wanted = span / _BARS
    power = math.floor(math.log10(wanted))
    for exponent in (power, power + 1):
        for factor in (1, 2, 5):
            width = factor * 10.0**exponent if exponent >= 0 else factor / 10.0**-exponent
            if width >= wanted and (width >= 1 or not is_whole):
                return width
    return 1.0 if is_whole else None


def _times(place: int, width: float) -> float:
    return place / round(1 / width) if width < 1 else place * width
