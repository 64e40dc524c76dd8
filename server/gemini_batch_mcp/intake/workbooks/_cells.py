"""A cell's value as the text that a person sees in it: no exponent, no `.0`, dates and times as in ISO 8601."""

from collections.abc import Callable, Mapping, Sequence, Set
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final

#: Spreadsheet programs keep fifteen digits of a number; from here on, what stands behind them is not what was typed.
LEAST_INEXACT: Final = 1e15
#: Smaller numbers keep their exponent: nobody reads so many zeros.
_LEAST_WRITTEN_OUT: Final = 1e-15
_MICROSECONDS_OF_MILLISECOND: Final = 1000


def _number(value: float) -> str:
    if value.is_integer():
        if abs(value) < LEAST_INEXACT:
            return str(int(value))
        return format(Decimal(repr(value)), "f").removesuffix(".0")
    text = f"{value:.15g}"
    if "e" in text and abs(value) >= _LEAST_WRITTEN_OUT:
        return format(Decimal(text), "f")
    return text


def _moment(value: datetime) -> str:
    whole = _rounded(value)
    return whole.isoformat(timespec="milliseconds" if whole.microsecond else "seconds")


def _time(value: time) -> str:
    moment = _rounded(datetime.combine(date(2000, 1, 1), value))
    return moment.time().isoformat(timespec="milliseconds" if moment.microsecond else "seconds")


def _rounded(value: datetime) -> datetime:
    """Return a moment to the millisecond: a spreadsheet keeps it as a fraction of a day."""
    milliseconds = round(value.microsecond / _MICROSECONDS_OF_MILLISECOND)
    return value.replace(microsecond=0) + timedelta(milliseconds=milliseconds)


def _duration(value: timedelta) -> str:
    seconds = round(value.total_seconds(), 3)
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    hours, rest = divmod(int(seconds), 3600)
    text = f"{sign}{hours:02}:{rest // 60:02}:{rest % 60:02}"
    return f"{text}.{round(seconds % 1 * 1000):03}" if seconds % 1 else text


#: How each type of value is written; texts stay as they are.
TEXT_OF: Final[Mapping[type, Callable[[Any], str]]] = {
    str: str,
    float: _number,
    int: str,
    bool: lambda value: "TRUE" if value else "FALSE",
    date: date.isoformat,
    datetime: _moment,
    time: _time,
    timedelta: _duration,
}


def texts(cells: Sequence[Any]) -> tuple[Sequence[str], int]:
    """Return cells as texts, and how many numbers among them may be others than were typed.

    Those of a column are mostly of one type, which takes a third of the time then.
    """
    types = set(map(type, cells))
    if types == {str}:
        return cells, 0
    doubtful = _inexact(cells, types) if float in types else 0
    if types == {float} and not doubtful:
        written = list(map("{:.15g}".format, cells))
        if "e" not in "".join(written):
            return written, 0
    if types == {date}:
        return list(map(date.isoformat, cells)), 0
    return [cell if type(cell) is str else TEXT_OF[type(cell)](cell) for cell in cells], doubtful


def _inexact(cells: Sequence[Any], types: Set[type]) -> int:
    numbers = cells if types == {float} else [cell for cell in cells if type(cell) is float]
    if max(numbers) < LEAST_INEXACT and min(numbers) > -LEAST_INEXACT:
        return 0
    return sum(abs(number) >= LEAST_INEXACT for number in numbers)
