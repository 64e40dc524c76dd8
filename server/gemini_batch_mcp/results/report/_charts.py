"""The kinds of charts in a report, as Vega-Lite specifications: strips that share out a whole, columns, histograms.

Every mark carries its figures in words, which become its tooltip. Words from outside are made plain first: the engine
that draws ends its process on some control characters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gemini_batch_mcp.domain import RowStatus
from gemini_batch_mcp.results.profile.crossing import Quartiles
from gemini_batch_mcp.results.profile.spread import Spread
from gemini_batch_mcp.results.report._drawing import Chart
from gemini_batch_mcp.results.report._figures import Distribution
from gemini_batch_mcp.results.report._words import STATUSES, measure, share, usd
from gemini_batch_mcp.text import count, plain_text

#: Units of what stretches, from left to right: as many as pixels on a wide screen, so that gaps look alike.
_STRIP_WIDTH: Final = 1000
_STRIP_HEIGHT: Final = 20
_GAP: Final = 3
#: The least width of a part, so that one row of a million can be seen.
_LEAST_WIDTH: Final = 6
_COLUMN_HEIGHT: Final = 80
#: Charts with text are drawn as wide as a card on a phone; wider cards enlarge them a little.
_CARD_WIDTH: Final = 360
_HISTOGRAM_HEIGHT: Final = 150
_RANGE_HEIGHT: Final = 64
_LABEL_CHARS: Final = 60

#: Each label in its own unit: 500, 1.5k. A format would give all labels of an axis the same one: 0.5k.
_SHORT: Final = "format(datum.value, '~s')"
_AXIS: Final = {
    "labelColor": "var(--muted)",
    "gridColor": "var(--line)",
    "domainColor": "var(--line)",
    "labelFontSize": 12,
    "labelPadding": 6,
    "ticks": False,
    "title": None,
}


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a whole. `colour` is the name of a CSS variable, without dashes."""

    name: str
    amount: int
    colour: str


def status_parts(counts: Mapping[RowStatus, int]) -> list[Part]:
    """Return the counts by status in their fixed order and colours."""
    return [Part(STATUSES[status][0], counts.get(status, 0), status.value) for status in STATUSES]


def strip(title: str, parts: Sequence[Part], *, noun: str = "row", whole: int = 0) -> Chart:
    """Return one line that is shared out among the parts; what they lack to `whole` stays empty."""
    filled = [part for part in parts if part.amount > 0]
    total = max(whole, sum(part.amount for part in filled), 1)
    widths = [max(_STRIP_WIDTH * part.amount / total, _LEAST_WIDTH) for part in filled]
    # Parts that were widened to be seen take their room from all others alike.
    scale = min(_STRIP_WIDTH / max(sum(widths), 1), 1)
    marks: list[dict[str, Any]] = []
    start = 0.0
    for part, width in zip(filled, widths, strict=True):
        end = start + width * scale
        words = f"{plain_text(part.name, _LABEL_CHARS)}: {count(part.amount, noun)} ({share(part.amount, total)})"
        shown_end = end if end > _STRIP_WIDTH - _GAP else end - _GAP
        marks.append({"start": start, "end": shown_end, "colour": f"var(--{part.colour})", "words": words})
        start = end
    encoding = {
        "x": _across("start", 0, _STRIP_WIDTH, axis=None),
        "x2": {"field": "end"},
        "y": {"value": 0},
        "y2": {"value": _STRIP_HEIGHT},
    }
    words = "; ".join(mark["words"] for mark in marks)
    specification = _specification(marks, "rect", encoding, width=_STRIP_WIDTH, height=_STRIP_HEIGHT)
    return Chart(title, f"{words or 'nothing yet'}.", specification, stretches=True)


def columns(title: str, pieces: Sequence[Mapping[RowStatus, int]]) -> Chart:
    """Return how each piece of the batch ended: one stacked column a piece, in request order from left to right."""
    marks: list[dict[str, Any]] = []
    for place, counts in enumerate(pieces):
        total = sum(counts.values())
        below = 0.0
        for part in status_parts(counts):
            above = below + part.amount / max(total, 1)
            words = f"Piece {place + 1} of {len(pieces)}: {part.name} {count(part.amount)} of {count(total, 'row')}"
            if part.amount:
                # A paler OK lets the others be seen, of which there are few as a rule.
                colour = "var(--calm)" if part.colour == RowStatus.OK else f"var(--{part.colour})"
                marks.append({"place": place, "below": below, "above": above, "colour": colour, "words": words})
            below = above
    gaps = {"paddingInner": 0.2, "paddingOuter": 0, "round": False}
    encoding = {
        "x": {"field": "place", "type": "ordinal", "axis": None, "scale": gaps},
        "y": {"field": "below", "type": "quantitative", "axis": None, "scale": {"domain": [0, 1]}},
        "y2": {"field": "above"},
    }
    troubled = sum(1 for counts in pieces if counts.keys() - {RowStatus.OK})
    words = (
        f"The rows in request order, in {len(pieces)} equal pieces; {troubled} of them contain rows that are not OK."
    )
    specification = _specification(marks, "rect", encoding, width=_STRIP_WIDTH, height=_COLUMN_HEIGHT)
    return Chart(title, words, specification, stretches=True)


def histogram(title: str, found: Distribution, *, noun: str) -> Chart:
    """Return how many rows have how much of what `noun` names, in the plural."""
    last = found.bins[-1]
    marks: list[dict[str, Any]] = []
    for bar in found.bins:
        is_rest = bar is last and found.is_cut
        reach = f"{count(bar.start)} or more" if is_rest else _reach(bar.start, bar.end - 1)
        words = f"{reach} {noun}: {count(bar.rows, 'row')}"
        colour = "var(--rest)" if is_rest else "var(--bar)"
        marks.append({"start": bar.start, "end": bar.end, "rows": bar.rows, "colour": colour, "words": words})
    words = (
        f"{count(found.rows, 'row')}; half of them have up to {count(round(found.median))} {noun}, "
        f"95 of 100 up to {count(round(found.high))}, the largest {count(found.largest)}."
    )
    return _bars(title, words, marks, is_whole=True)


def spread(title: str, found: Spread, *, noun: str = "") -> Chart:
    """Return how many rows have which number, which counts what `noun` names, in the plural, or nothing."""
    unit = f" {noun}" if noun else ""
    marks: list[dict[str, Any]] = []
    for place, bar in enumerate(found.bars):
        is_first, is_last = place == 0 and found.is_cut_below, bar is found.bars[-1] and found.is_cut_above
        end = bar.end - 1 if found.is_whole else bar.end
        reach = measure(bar.start) if end == bar.start else f"{measure(bar.start)} to {measure(end)}"
        reach = f"less than {measure(bar.end)}" if is_first else f"{measure(bar.start)} or more" if is_last else reach
        colour = "var(--rest)" if is_first or is_last else "var(--bar)"
        words = f"{reach}{unit}: {count(bar.rows, 'row')}"
        marks.append({"start": bar.start, "end": bar.end, "rows": bar.rows, "colour": colour, "words": words})
    words = (
        f"{count(found.rows, 'row')} from {measure(found.smallest)} to {measure(found.largest)}{unit}; half of them "
        f"lie from {measure(found.low)} to {measure(found.high)}, the middle one is {measure(found.median)}."
    )
    return _bars(title, words, marks, is_whole=found.is_whole)


def middle_half(title: str, found: Quartiles, first: float, last: float) -> Chart:
    """Return where the middle half of a group's numbers lies between `first` and `last`, with a mark at the median."""
    scale = _STRIP_WIDTH / max(last - first, 1e-300)
    low, median, high = (
        min(max((number - first) * scale, 0), _STRIP_WIDTH) for number in (found.low, found.median, found.high)
    )
    half = _LEAST_WIDTH / 2
    middle = min(max(median, half), _STRIP_WIDTH - half)
    words = f"half from {measure(found.low)} to {measure(found.high)}, median {measure(found.median)}"
    marks: list[dict[str, Any]] = [
        {"start": min(low, _STRIP_WIDTH - _LEAST_WIDTH), "end": max(high, low + _LEAST_WIDTH), "colour": "var(--bar)"},
        {"start": middle - half, "end": middle + half, "colour": "var(--ink)"},
    ]
    encoding = {
        "x": _across("start", 0, _STRIP_WIDTH, axis=None),
        "x2": {"field": "end"},
        "y": {"value": 0},
        "y2": {"value": _STRIP_HEIGHT},
    }
    marks = [mark | {"words": words} for mark in marks]
    specification = _specification(marks, "rect", encoding, width=_STRIP_WIDTH, height=_STRIP_HEIGHT)
    return Chart(title, f"{words}.", specification, stretches=True)


def _bars(title: str, words: str, marks: Sequence[Mapping[str, Any]], *, is_whole: bool) -> Chart:
    """Return columns from `start` to `end`, as high as `rows`."""
    counts = {**_AXIS, "domain": False, "tickCount": 3, "tickMinStep": 1, "labelExpr": _SHORT}
    amounts = {**_AXIS, "grid": False, "tickCount": 5, "labelExpr": _SHORT} | ({"tickMinStep": 1} if is_whole else {})
    encoding = {
        "x": _across("start", marks[0]["start"], marks[-1]["end"], axis=amounts) | {"bin": "binned"},
        "x2": {"field": "end"},
        "y": {"field": "rows", "type": "quantitative", "axis": counts},
    }
    mark = {"type": "bar", "binSpacing": 1.5}
    return Chart(title, words, _specification(marks, mark, encoding, width=_CARD_WIDTH, height=_HISTOGRAM_HEIGHT))


def cost_range(title: str, low_usd: float, high_usd: float, actual_usd: float | None) -> Chart:
    """Return the estimate as a bar from low to high, and what it came to as a mark on it."""
    marks: list[dict[str, Any]] = [
        # Heights in pixels from the top: the bar lies in the middle, the mark stands out of it.
        {"start": low_usd, "end": high_usd, "top": 14, "foot": 28, "colour": "var(--rest)"}
        | {"words": f"Estimated {usd(low_usd)} to {usd(high_usd)}"}
    ]
    largest = max(high_usd, actual_usd or 0.0, 1e-9) * 1.08
    if actual_usd is not None:
        half = largest / 180
        marks.append(
            {"start": max(actual_usd - half, 0), "end": actual_usd + half, "top": 7, "foot": 35, "colour": "var(--ink)"}
            | {"words": f"It came to {usd(actual_usd)}"}
        )
    heights = {"type": "quantitative", "axis": None, "scale": {"domain": [0, 36], "range": [0, 36]}}
    axis = {**_AXIS, "grid": True, "tickCount": 4, "format": "$,.3~r"}
    encoding = {
        "x": _across("start", 0, largest, axis=axis),
        "x2": {"field": "end"},
        "y": {"field": "top", **heights},
        "y2": {"field": "foot"},
    }
    words = "; ".join(mark["words"] for mark in marks) + "."
    return Chart(title, words, _specification(marks, "rect", encoding, width=_CARD_WIDTH, height=_RANGE_HEIGHT))


def _specification(
    marks: Sequence[Mapping[str, Any]],
    mark: str | Mapping[str, Any],
    encoding: Mapping[str, Any],
    *,
    width: int,
    height: int,
) -> dict[str, Any]:
    """Return the specification of a chart whose every mark has a `colour` and its `words`."""
    is_card = width == _CARD_WIDTH
    return {
        "width": width,
        "height": height,
        "autosize": {"type": "fit", "contains": "padding"} if is_card else "none",
        # Room for labels whose text turns out wider in the fonts of the reader.
        "padding": {"left": 4, "right": 12, "top": 6, "bottom": 2} if is_card else 0,
        "data": {"values": list(marks)},
        "mark": mark,
        "encoding": {
            **encoding,
            "color": {"field": "colour", "type": "nominal", "scale": None},
            "description": {"field": "words"},
        },
        "config": {"background": None, "view": {"stroke": None}},
    }


def _across(field: str, first: float, last: float, *, axis: Mapping[str, Any] | None) -> dict[str, Any]:
    scale = {"domain": [first, last], "nice": False, "zero": False}
    return {"field": field, "type": "quantitative", "axis": axis, "scale": scale}


def _reach(first: int, last: int) -> str:
    return count(first) if first == last else f"{count(first)} to {count(last)}"
