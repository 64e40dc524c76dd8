"""A page about a comparison: the share that is equal, expected against actual as a heat map, the rows that differ.

It is HTML alone: no chart is drawn and no script runs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from gemini_batch_mcp.domain import SavedFile
from gemini_batch_mcp.errors import storage_errors
from gemini_batch_mcp.results.report._answer_cards import heat_cell, table_of_head
from gemini_batch_mcp.results.report._html import Html, element
from gemini_batch_mcp.results.report._page import page
from gemini_batch_mcp.results.report._sections import section
from gemini_batch_mcp.results.report._words import share
from gemini_batch_mcp.results.report.trials import TrialFacts, trial_sections
from gemini_batch_mcp.results.visible import visible_cell
from gemini_batch_mcp.text import count

_NAME_CHARS: Final = 120
_LABEL_CHARS: Final = 80
#: Where all rows of one side stand together that have a rarer label.
_OTHERS: Final = "all others"

#: Places among the labels, expected first; None is any rarer label.
Places = tuple[int | None, int | None]


@dataclass(frozen=True, slots=True)
class ComparedFacts:
    """One comparison as its page shows it. Text may be anything: it is shown as text, hidden characters written out.

    `share` and `kappa` and their 95 % intervals are None where they cannot be said. `labels` are the commonest of both
    sides, `counts` every compared row by the two that it has; both are empty where there are too many (`label_count`).
    `differing` are the first rows that differ: key, expected, actual.
    """

    batch_id: str
    other: str
    field: str
    other_is_batch: bool
    compared: int
    equal: int
    left_out: int
    share: float | None
    share_low: float | None
    share_high: float | None
    kappa: float | None
    kappa_low: float | None
    kappa_high: float | None
    label_count: int
    labels: tuple[str, ...]
    counts: Mapping[Places, int]
    differing: tuple[tuple[str, str, str], ...]
    written_at: datetime | None = None
    #: This and other candidates that answer the same rows; None without such.
    trials: TrialFacts | None = None


def write_comparison(facts: ComparedFacts, destination: Path) -> SavedFile:
    """Write the page to `destination` and return how many rows stand in it. Give a draft, and move it.

    Raises:
        StorageError: the page cannot be written.
    """
    body = [_head(facts), _tiles(facts)]
    if facts.trials is not None:
        body += trial_sections(facts.trials)
    if facts.counts:
        body += [_crossed(facts), _by_label(facts)]
    elif facts.label_count:
        words = f"{count(facts.label_count, 'different value')}: too many for a table of expected against actual."
        body.append(section("crossed", "Expected against actual", element("p", words, class_="quiet")))
    body.append(_differing(facts))
    title = f"{facts.field}: {facts.batch_id} against {facts.other}"
    text = page(title, body, None, facts.written_at, kind="Gemini batch comparison")
    with storage_errors(f"{destination} could not be written", "Give another path."):
        destination.write_text(text, encoding="utf-8", newline="\n")
    return SavedFile(destination, "html", len(facts.differing), destination.stat().st_size)


def _head(facts: ComparedFacts) -> Html:
    against = "another batch" if facts.other_is_batch else "a column of its source"
    return element(
        "header",
        element("p", "Gemini batch comparison", class_="eyebrow"),
        element("h1", visible_cell(facts.field, _NAME_CHARS), dir="auto"),
        element(
            "p",
            element("span", "Answers of ", element("code", visible_cell(facts.batch_id, _NAME_CHARS))),
            element("span", f"against {against}: ", element("code", visible_cell(facts.other, _NAME_CHARS))),
            class_="byline",
        ),
        element("p", "No row can be compared.", class_="notice") if facts.share is None else "",
    )


def _tiles(facts: ComparedFacts) -> Html:
    differing = facts.compared - facts.equal
    shown = [
        ("Compared", count(facts.compared), f"{count(facts.left_out, 'row')} without an answer or a label"),
        ("Different", count(differing), share(differing, facts.compared) if facts.compared else ""),
    ]
    if facts.share is not None and facts.share_low is not None and facts.share_high is not None:
        interval = f"95 % interval {100 * facts.share_low:.1f} to {100 * facts.share_high:.1f} %"
        shown.insert(0, ("Equal", share(facts.equal, facts.compared), interval))
    if facts.kappa is not None and facts.kappa_low is not None and facts.kappa_high is not None:
        meaning = "1: complete agreement, 0: as by chance"
        interval = f"95 % interval {facts.kappa_low:.2f} to {facts.kappa_high:.2f} ({meaning})"
        shown.insert(1, ("Cohen's kappa", f"{facts.kappa:.3f}", interval))
    return element(
        "dl",
        *(
            element("div", element("dt", name), element("dd", number), element("dd", note, class_="note"))
            for name, number, note in shown
        ),
        class_="tiles",
    )


def _places(facts: ComparedFacts, side: int) -> list[int | None]:
    """Return the labels that one side has, in order; the rarer ones last."""
    found = {places[side] for places in facts.counts}
    return [*(place for place in range(len(facts.labels)) if place in found), *([None] if None in found else [])]


def _name(facts: ComparedFacts, place: int | None) -> str:
    return _OTHERS if place is None else visible_cell(facts.labels[place], _LABEL_CHARS) or "(empty)"


def _crossed(facts: ComparedFacts) -> Html:
    """Return the heat map: a line for each expected label, shaded by its parts."""
    actual = _places(facts, 1)

    def line(expected: int | None) -> Html:
        numbers = {place: facts.counts.get((expected, place), 0) for place in actual}
        rows = sum(numbers.values())
        cells = []
        for place, number in numbers.items():
            # Among the rarer labels, equal ones and different ones stand together.
            is_equal = expected == place and place is not None
            tone = "heat" if is_equal or (expected is None and place is None) else "miss"
            cells.append(heat_cell(number, rows, tone, mark="✓ " if is_equal else ""))
        head = element("th", _name(facts, expected), scope="row", dir="auto")
        return element("tr", head, element("td", count(rows), class_="number"), *cells)

    heads = ["Expected", "Rows", *(_name(facts, place) for place in actual)]
    lines = (line(expected) for expected in _places(facts, 0))
    table = table_of_head("heat", "Expected values in rows, actual answers in columns", heads, lines)
    note = "Percentages are of the rows with that expected value. ✓ marks agreement; other shaded cells differ."
    if None in actual or None in _places(facts, 0):
        note += f" “{_OTHERS}” holds the {count(facts.label_count - len(facts.labels))} rarer of all values."
    return section(
        "crossed",
        "Expected against actual",
        element("div", table, element("p", note, class_="quiet"), class_="card"),
    )


def _by_label(facts: ComparedFacts) -> Html:
    """Return how well each label is met: of the rows that should have it, and of those that were given it."""

    def lines() -> Iterator[Html]:
        for place in range(len(facts.labels)):
            expected = sum(rows for (one, _), rows in facts.counts.items() if one == place)
            actual = sum(rows for (_, other), rows in facts.counts.items() if other == place)
            both = facts.counts.get((place, place), 0)
            cells = (
                count(expected),
                count(actual),
                count(both),
                share(both, expected) if expected else "–",
                share(both, actual) if actual else "–",
            )
            yield element(
                "tr",
                element("th", _name(facts, place), scope="row", dir="auto"),
                *(element("td", words, class_="number") for words in cells),
            )

    heads = ["Value", "Expected", "Answered", "Both", "Recall", "Precision"]
    table = table_of_head("counts plain", "How well each value is met", heads, lines())
    note = "Recall is the part of the expected rows that were answered so; precision, of the rows answered so."
    return section("labels", "By value", element("div", table, element("p", note, class_="quiet"), class_="card"))


def _differing(facts: ComparedFacts) -> Html:
    differing = facts.compared - facts.equal
    if not differing:
        return section("differing", "Rows that differ", element("p", "None.", class_="quiet"))
    lines = (
        element(
            "tr",
            element("th", key, scope="row", dir="auto"),
            element("td", expected, dir="auto"),
            element("td", actual, dir="auto"),
        )
        for key, expected, actual in facts.differing
    )
    note = (
        f"All {count(differing, 'row')}."
        if len(facts.differing) == differing
        else (
            f"The first {count(len(facts.differing))} of {count(differing, 'row')}; compare_results pages through all."
        )
    )
    table = table_of_head("texts", "Rows that differ", ["Key", "Expected", "Actual"], lines)
    return section(
        "differing", "Rows that differ", element("p", note, class_="quiet"), element("div", table, class_="card")
    )
