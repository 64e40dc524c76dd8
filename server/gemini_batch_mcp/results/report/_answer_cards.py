"""The sections of a report about answers: each field counted and laid against a column of the source; what retries did.

Charts are asked for by name before they are drawn: `charts_of` and `answers` walk through the same fields.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from gemini_batch_mcp.domain import RowStatus
from gemini_batch_mcp.results.profile.crossing import Crossing, Group
from gemini_batch_mcp.results.profile.fields import NOTHING, OTHERS, Answers, Field
from gemini_batch_mcp.results.profile.retries import Retries
from gemini_batch_mcp.results.report._charts import Part, middle_half, spread, strip
from gemini_batch_mcp.results.report._drawing import Chart
from gemini_batch_mcp.results.report._html import Html, element
from gemini_batch_mcp.results.report._sections import Pictures, section
from gemini_batch_mcp.results.report._words import STATUSES, measure, share
from gemini_batch_mcp.text import count

#: Shades of a heat map, from the palest.
SHADES: Final = 5
_NOUNS: Final = {"numbers": "", "lengths": "characters", "entries": "entries"}


def charts_of(answers: Answers) -> dict[str, Chart]:
    """Return the charts of all fields by the names under which `answer_section` looks for them."""
    charts: dict[str, Chart] = {}
    for place, field in enumerate(answers.fields):
        for number, (name, rows) in enumerate(_counts(field, answers.rows)):
            colour = "rest" if name in (NOTHING, OTHERS) else "bar"
            charts[f"answer {place} {number}"] = strip(
                "Part of the rows", [Part(name, rows, colour)], whole=answers.rows
            )
        if field.spread is None:
            continue
        bars = field.spread.bars
        if len(bars) > 1:
            charts[f"answer {place}"] = spread(field.name, field.spread, noun=_NOUNS[field.kind])
        for number, group in enumerate(field.crossing.groups if field.crossing is not None and bars else ()):
            if group.quartiles is not None:
                chart = middle_half("The middle half", group.quartiles, bars[0].start, bars[-1].end)
                charts[f"group {place} {number}"] = chart
    return charts


def answer_section(answers: Answers, pictures: Pictures) -> Html:
    """Return what the fields of the answers hold, and what each varies with."""
    notes = [f"Fields of {count(answers.rows, 'OK row')}."]
    if answers.groupings:
        columns = ", ".join(answers.groupings)
        notes.append(f"Each is broken down by the source column it varies with most, out of: {columns}.")
    if answers.left_out:
        notes.append(f"Fields left out: {', '.join(answers.left_out[:20])}.")
    cards = (_card(place, field, answers.rows, pictures) for place, field in enumerate(answers.fields))
    return section(
        "answers",
        "Answers",
        element("p", " ".join(notes), class_="quiet"),
        element("div", *cards, class_="answers"),
    )


def _counts(field: Field, rows: int) -> Iterator[tuple[str, int]]:
    """Yield the lines of a field's table: its values, the others together, and rows without any."""
    for value in field.values:
        yield value.name, value.rows
    # Entries of lists may stand in the same row: what the others add up to is no number of rows.
    if field.others and field.kind != "entries":
        yield f"{count(field.others)} {OTHERS}", field.other_rows
    if field.values and field.filled < rows:
        yield NOTHING, rows - field.filled


def _card(place: int, field: Field, rows: int, pictures: Pictures) -> Html:
    title = f"field-{place}"
    parts = [_counted(place, field, rows, pictures) if field.values else _measured(place, field, pictures)]
    if field.crossing is not None:
        parts.append(_crossed(place, field, field.crossing, pictures))
    return element(
        "article",
        element(
            "div", element("h3", field.name, id=title, dir="auto"), element("p", _about(field, rows), class_="quiet")
        ),
        element("div", *parts, class_="parts"),
        class_="card wide" if field.crossing is not None else "card",
        aria_labelledby=title,
    )


def _about(field: Field, rows: int) -> str:
    nothing = f"; {count(rows - field.filled, 'row has', 'rows have')} none" if field.filled < rows else ""
    about = "about " if field.is_about else ""
    match field.kind:
        case "values":
            return f"{count(field.different, 'different answer')}{nothing}"
        case "numbers":
            return f"Numbers, {about}{count(field.different, 'different one')}{nothing}"
        case "lengths":
            return f"Texts by length, {about}{count(field.different, 'different one')}{nothing}"
        case "entries":
            more = (
                f", of which {count(field.others, 'rarer one is', 'rarer ones are')} not listed" if field.others else ""
            )
            return f"Lists of {about}{count(field.different, 'different entry', 'different entries')}{more}{nothing}"


def _counted(place: int, field: Field, rows: int, pictures: Pictures) -> Html:
    lines = (
        element(
            "tr",
            element("th", name, scope="row", dir="auto"),
            element("td", count(number), class_="number"),
            element("td", share(number, rows), class_="number"),
            element("td", element("div", pictures[f"answer {place} {line}"], class_="strip thin")),
        )
        for line, (name, number) in enumerate(_counts(field, rows))
    )
    caption = "How many lists have each entry" if field.kind == "entries" else "How many rows have each answer"
    head = [_head("Entry" if field.kind == "entries" else "Answer"), _head("Rows", "number"), _head("Share", "number")]
    return _table("counts", caption, [*head, element("td")], lines)


def _measured(place: int, field: Field, pictures: Pictures) -> Html:
    found = field.spread
    if found is None:
        return element("p", "Nothing to measure.", class_="quiet")
    noun = f" {_NOUNS[field.kind]}" if _NOUNS[field.kind] else ""
    facts = [
        ("Middle half", f"{measure(found.low)} to {measure(found.high)}{noun}"),
        ("Median", measure(found.median)),
        ("Mean", measure(found.mean)),
        ("Range", f"{measure(found.smallest)} to {measure(found.largest)}"),
    ]
    items = (element("div", element("dt", name), element("dd", words)) for name, words in facts)
    note = ""
    if found.is_cut_below or found.is_cut_above:
        note = element("p", "A pale bar also holds everything beyond it.", class_="quiet")
    picture = pictures.get(f"answer {place}", Html(""))
    return element("div", picture, element("dl", *items, class_="facts"), note, class_="measured")


def _crossed(place: int, field: Field, crossing: Crossing, pictures: Pictures) -> Html:
    by = f"{field.name} by {crossing.column}"
    if not crossing.heads:
        heads = [_head(name, "number") for name in ("Rows", "Mean", "Median")]
        lines = (
            element(
                "tr",
                element("th", group.value, scope="row", dir="auto"),
                element("td", count(group.rows), class_="number"),
                *_quartiles(group),
                element("td", element("div", pictures[f"group {place} {number}"], class_="strip box")),
            )
            for number, group in enumerate(crossing.groups)
        )
        note = (
            "Bars span the middle half; the mark is the median. "
            f"Correlation ratio {crossing.strength:.2f} (0: unrelated, 1: fully determined)."
        )
        head = [_head(crossing.column), *heads, _head("Middle half")]
        return element("div", _table("counts", by, head, lines, is_shown=True), _note(note))
    rows = [(group.value, group.rows, group.counts) for group in crossing.groups]
    note = (
        f"Percentages are of the rows with that {crossing.column}. "
        f"Cramér's V {crossing.strength:.2f} (0: unrelated, 1: fully determined)."
    )
    if field.kind == "entries":
        note = f"Percentages are of the rows with that {crossing.column}: how many have the entry in their list."
    return element("div", heat_table(by, crossing.column, crossing.heads, rows), _note(note))


def _quartiles(group: Group) -> list[Html]:
    found = group.quartiles
    numbers = (found.mean, found.median) if found is not None else ()
    return [element("td", measure(number), class_="number") for number in numbers]


def retry_section(retries: Retries) -> Html:
    """Return what was sent again, and what it changed: how rows ended at first, against how they stand now."""
    ok = sum(rows for (_, after), rows in retries.changes.items() if after is RowStatus.OK)
    left = retries.rows - ok
    words = f"{count(retries.rows, 'row was', 'rows were')} retried: {count(ok)} are OK now, {count(left)} are not."
    if len(retries.attempts) > 1:
        parts = (f"attempt {one.number}: {count(one.ok)} of {count(one.rows)} OK" for one in retries.attempts)
        words += f" By attempt: {'; '.join(parts)}."
    before = [status for status in STATUSES if any(first is status for first, _ in retries.changes)]
    after = [status for status in STATUSES if any(last is status for _, last in retries.changes)]
    lines = []
    for first in before:
        counts = [retries.changes.get((first, last), 0) for last in after]
        lines.append((_named(first), sum(counts), counts))
    table = heat_table("First and current outcome of the retried rows", "First outcome", [*map(_named, after)], lines)
    return section("retries", "What the retries changed", element("p", words), element("div", table, class_="card"))


def _named(status: RowStatus) -> str:
    name, sign, _ = STATUSES[status]
    return f"{sign} {name}"


def heat_table(
    caption: str, corner: str, heads: Sequence[str], lines: Sequence[tuple[str, int, Sequence[int]]]
) -> Html:
    """Return a table of counts whose cells are shaded by their part of the line, which is said in words as well."""
    body = (
        element(
            "tr",
            element("th", name, scope="row", dir="auto"),
            element("td", count(rows), class_="number"),
            *(heat_cell(number, rows) for number in counts),
        )
        for name, rows, counts in lines
    )
    return _table(
        "heat", caption, [_head(corner), _head("Rows", "number"), *(_head(name) for name in heads)], body, is_shown=True
    )


def heat_cell(number: int, whole: int, tone: str = "heat", *, mark: str = "") -> Html:
    """Return a cell shaded by its part of a whole, with the part and the number as text, and a mark before them."""
    if not number:
        return element("td", "–", class_=f"{tone}-0 none")
    shade = min(int(SHADES * number / whole) + 1, SHADES) if whole else 0
    words = element("b", mark, share(number, whole))
    return element("td", words, element("small", count(number)), class_=f"{tone}-{shade}")


def table_of_head(kind: str, caption: str, heads: Sequence[str], lines: Iterator[Html]) -> Html:
    """Return a table with a shown caption; all columns but the first hold numbers unless it is one of texts."""
    first, *others = heads
    align = "" if kind == "texts" else "number"
    cells = (_head(name, align if kind != "heat" or place == 0 else "") for place, name in enumerate(others))
    return _table(kind, caption, [_head(first), *cells], lines, is_shown=kind != "texts")


def _table(kind: str, caption: str, head: Sequence[Html], lines: Iterator[Html], *, is_shown: bool = False) -> Html:
    return element(
        "div",
        element(
            "table",
            element("caption", caption, class_="" if is_shown else "caption", dir="auto"),
            element("thead", element("tr", *head)),
            element("tbody", *lines),
            class_=kind,
        ),
        class_="wide-table",
        tabindex="0",
        role="region",
        aria_label=caption,
    )


def _head(name: str, kind: str = "") -> Html:
    return element("th", name, scope="col", class_=kind, dir="auto")


def _note(words: str) -> Html:
    return element("p", words, class_="quiet")
