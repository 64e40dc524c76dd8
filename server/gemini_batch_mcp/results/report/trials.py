"""Candidates on the same rows as a page: prompts against models as a heat map, their figures, what these allow."""

from collections.abc import Iterator
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
from gemini_batch_mcp.results.visible import visible_cell
from gemini_batch_mcp.text import count, dollars, duration

_NAME_CHARS: Final = 120
_PROMPT_CHARS: Final = 2_000


@dataclass(frozen=True, slots=True)
class TriedFacts:
    """One candidate as the page shows it; see `batches.trials.candidates.Candidate`. Text may be anything."""

    batch_id: str
    number: int
    prompt: str
    model: str
    rows: int
    compared: int
    equal: int
    share_low: float | None
    share_high: float | None
    per_thousand_usd: float | None
    seconds: int


@dataclass(frozen=True, slots=True)
class TrialFacts:
    """Candidates in the order in which they were tried, against the column `other` of right answers."""

    other: str
    field: str
    candidates: tuple[TriedFacts, ...]
    verdict: str
    written_at: datetime | None = None


def write_trials(facts: TrialFacts, destination: Path) -> SavedFile:
    """Write the page to `destination` and return how many candidates stand in it. Give a draft, and move it.

    Raises:
        StorageError: the page cannot be written.
    """
    head = element(
        "header",
        element("p", "Gemini batch trial", class_="eyebrow"),
        element("h1", visible_cell(facts.field, _NAME_CHARS), dir="auto"),
        element(
            "p",
            element("span", f"{count(len(facts.candidates), 'candidate')} on the same rows"),
            element("span", "against right answers: ", element("code", visible_cell(facts.other, _NAME_CHARS))),
            class_="byline",
        ),
    )
    text = page(
        f"{facts.field}: {len(facts.candidates)} candidates",
        [head, *trial_sections(facts)],
        None,
        facts.written_at,
        kind="Gemini batch trial",
    )
    with storage_errors(f"{destination} could not be written", "Give another path."):
        destination.write_text(text, encoding="utf-8", newline="\n")
    return SavedFile(destination, "html", len(facts.candidates), destination.stat().st_size)


def trial_sections(facts: TrialFacts) -> list[Html]:
    """Return the sections about candidates: the heat map with what it allows, their figures, their prompts."""
    note = element("p", facts.verdict, class_="quiet")
    grid = section("grid", "Prompts and models", element("div", _grid(facts), note, class_="card"))
    figures = section("figures", "Each candidate", element("div", _figures(facts), class_="card"))
    return [grid, figures, section("prompts", "Prompts", element("div", _prompts(facts), class_="card"))]


def _grid(facts: TrialFacts) -> Html:
    """Return the heat map: a line for each prompt, a column for each model, shaded by the share that is right."""
    models = list(dict.fromkeys(one.model for one in facts.candidates))
    found = {(one.number, one.model): one for one in facts.candidates}

    def line(number: int) -> Html:
        cells = []
        for model in models:
            one = found.get((number, model))
            if one is None or not one.compared:
                cells.append(element("td", "–", class_="heat-0 none"))
            else:
                cells.append(heat_cell(one.equal, one.compared))
        rows = element("td", count(facts.candidates[0].rows), class_="number")
        return element("tr", element("th", f"Prompt {number}", scope="row"), rows, *cells)

    heads = ["Prompt", "Rows", *(visible_cell(model, _NAME_CHARS) for model in models)]
    lines = (line(number) for number in dict.fromkeys(one.number for one in facts.candidates))
    return table_of_head("heat", "Share of rows that are right, and how many they are", heads, lines)


def _figures(facts: TrialFacts) -> Html:
    def lines() -> Iterator[Html]:
        for one in facts.candidates:
            cells = (
                f"{one.equal:,} of {one.compared:,}",
                share(one.equal, one.compared) if one.compared else "–",
                _interval(one),
                count(one.rows - one.compared),
                dollars(one.per_thousand_usd) if one.per_thousand_usd is not None else "–",
                duration(one.seconds),
            )
            name = f"Prompt {one.number} with {visible_cell(one.model, _NAME_CHARS)} "
            head = element("th", name, element("small", visible_cell(one.batch_id, _NAME_CHARS)), scope="row")
            yield element("tr", head, *(element("td", words, class_="number") for words in cells))

    heads = ["Candidate", "Right", "Share", "95 % interval", "No answer", "1,000 rows", "Ran"]
    return table_of_head("counts plain", "What came of each candidate", heads, lines())


def _interval(one: TriedFacts) -> str:
    if one.share_low is None or one.share_high is None:
        return "–"
    return f"{100 * one.share_low:.1f} to {100 * one.share_high:.1f} %"


def _prompts(facts: TrialFacts) -> Html:
    prompts = {one.number: one.prompt for one in facts.candidates}
    lines = (
        element(
            "tr",
            element("th", f"Prompt {number}", scope="row"),
            element("td", visible_cell(prompt, _PROMPT_CHARS) or "(none: ready requests)", dir="auto"),
        )
        for number, prompt in prompts.items()
    )
    return table_of_head("texts", "Prompts", ["", "Text"], lines)
