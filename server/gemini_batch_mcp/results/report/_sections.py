"""The sections of a report about the batch as a whole: head, tiles, outcomes, jobs, reasons, cards of figures."""

from collections.abc import Mapping, Sequence
from typing import Final

from gemini_batch_mcp.domain import NOT_SENT, Job, JobState, RowStatus
from gemini_batch_mcp.results.report._facts import ReportFacts
from gemini_batch_mcp.results.report._figures import Distribution, Figures
from gemini_batch_mcp.results.report._html import Html, element, joined
from gemini_batch_mcp.results.report._words import (
    STATUSES,
    duration,
    moment,
    share,
    short,
    state_look,
    state_name,
    usd,
    utc,
)
from gemini_batch_mcp.results.visible import visible_cell
from gemini_batch_mcp.text import count

MAX_JOBS: Final = 60
_NAME_CHARS: Final = 120
_TEXT_CHARS: Final = 500
#: What is measured of rows: the title of its card, and what its numbers count.
MEASURES: Final = {
    "characters": ("Length of answers", "characters"),
    "input_tokens": ("Input tokens per row", "input tokens"),
    "output_tokens": ("Output tokens per row", "output tokens"),
    "thoughts_tokens": ("Thinking tokens per row", "thinking tokens"),
}

#: Drawn charts by name; a chart that is not there had nothing to show.
Pictures = Mapping[str, Html]


def head(facts: ReportFacts) -> Html:
    """Return what the batch is, how it stands, and whether its rows are complete."""
    name = facts.display_name or facts.batch_id
    sign, look = state_look(facts.state)
    byline = [
        element("span", element("span", sign, aria_hidden="true"), " ", state_name(facts.state), class_=f"pill {look}"),
        element("code", visible_cell(facts.batch_id, _NAME_CHARS)),
    ]
    if facts.model:
        byline.append(element("span", visible_cell(facts.model, _NAME_CHARS)))
    if facts.created_at is not None:
        when = moment(facts.created_at)
        byline.append(element("time", when, datetime=utc(facts.created_at).isoformat(timespec="seconds")))
    return element(
        "header",
        element("p", "Gemini batch report", class_="eyebrow"),
        element("h1", visible_cell(name, _NAME_CHARS), dir="auto"),
        element("p", *byline, class_="byline"),
        _integrity(facts),
    )


def _integrity(facts: ReportFacts) -> Html:
    summary = facts.summary
    if summary is None:
        return element("p", "No answers have been collected yet.", class_="notice")
    if facts.is_partial:
        return element("p", "These results are partial: some jobs have not been collected yet.", class_="notice")
    if summary.integrity_ok:
        return element("p", "✓ Every key that was sent came back exactly once.", class_="notice good")
    faults = [
        f"{count(number, noun, noun)}{_examples(keys)}"
        for number, noun, keys in (
            (summary.missing, "missing", summary.missing_keys),
            (summary.duplicate, "duplicate", summary.duplicate_keys),
            (summary.unexpected, "unexpected", summary.unexpected_keys),
            (summary.malformed, "not readable", ()),
        )
        if number
    ]
    words = "What came back is not what was sent: "
    return element("p", "! ", words, "; ".join(faults), ".", class_="notice bad")


def _examples(keys: Sequence[str]) -> str:
    return f" ({', '.join(visible_cell(key, 60) for key in keys)}, …)" if keys else ""


def tiles(facts: ReportFacts, statuses: Mapping[RowStatus, int]) -> Html:
    """Return the handful of numbers that people look for first."""
    total = sum(statuses.values())
    ok = statuses.get(RowStatus.OK, 0)
    jobs = f"in {count(len(facts.jobs), 'job')}" if facts.jobs else ""
    if facts.summary is None:
        shown = [("Rows", count(total or facts.counts.total), jobs)]
    else:
        out = facts.summary.pending
        shown = [("Rows", count(total + out), f"{count(out)} pending" if out else jobs)]
        rest = "all of them" if ok == total else f"{count(total - ok, 'row')} not OK"
        shown.append(("OK", share(ok, total), rest))
        usage = facts.summary.usage
        tokens = usage.input_tokens + usage.output_tokens + usage.thoughts_tokens
        shown.append(
            ("Tokens", short(tokens), f"{short(usage.input_tokens)} in, {short(tokens - usage.input_tokens)} out")
        )
    cost = facts.cost
    if cost.actual_usd is not None:
        shown.append(("Cost", usd(cost.actual_usd), f"prices of {cost.priced_on}" if cost.priced_on else ""))
    elif cost.high_usd is not None:
        shown.append(("Cost, at most", usd(cost.high_usd), "estimated"))
    if facts.created_at is not None and facts.ended_at is not None:
        shown.append(("Time", duration(facts.created_at, facts.ended_at), f"until {moment(facts.ended_at)}"))
    return element(
        "dl",
        *(
            element("div", element("dt", name), element("dd", number), element("dd", note, class_="note"))
            for name, number, note in shown
        ),
        class_="tiles",
    )


def outcomes(statuses: Mapping[RowStatus, int], pictures: Pictures, *, has_rows: bool) -> Html:
    """Return how the rows ended, as one strip and its legend; the legend filters the list of rows."""
    total = sum(statuses.values())
    entries = []
    for status, (name, sign, meaning) in STATUSES.items():
        number = statuses.get(status, 0)
        words = (
            element("span", sign, class_=f"sign {status.value}", aria_hidden="true"),
            element("span", element("b", name), element("small", meaning), class_="name"),
            element("span", element("b", count(number)), element("small", share(number, total)), class_="number"),
        )
        is_button = has_rows and number > 0
        entry = (
            element("button", *words, type="button", data_show_status=status.value, title=f"Show rows: {name}")
            if is_button
            else element("div", *words)
        )
        entries.append(element("li", entry, class_="" if number else "none"))
    body = [element("div", pictures["outcomes"], class_="strip tall"), element("ul", *entries, class_="legend")]
    if "columns" in pictures:
        caption = element("figcaption", "The same in request order, from the first row to the last")
        body.append(element("figure", element("div", pictures["columns"], class_="strip columns"), caption))
    return section("outcomes", "Outcomes", *body)


def jobs(facts: ReportFacts, pictures: Pictures) -> Html:
    """Return every job with its state and how far it is; of very many, those with trouble first."""
    shown = shown_jobs(facts)
    # Roles are said because the table becomes a list of blocks on narrow screens.
    names = (element("th", name, scope="col", role="columnheader") for name in ("Job", "State", "Progress", "Rows"))
    head_row = element("tr", *names, role="row")
    body = element("tbody", *(_job(job, pictures[f"job {place}"]) for place, job in enumerate(shown)))
    note = "A job's rows are as Gemini counts them; how they ended is shown above."
    if len(shown) < len(facts.jobs):
        note = f"{count(len(shown))} of {count(len(facts.jobs), 'job')}, those that need attention first. {note}"
    return section(
        "jobs",
        "Progress by job",
        element(
            "div",
            element("table", element("thead", head_row), body, class_="jobs", role="table"),
            class_="scroll",
            tabindex="0",
            role="region",
            aria_label="Jobs",
        ),
        element("p", note, class_="quiet"),
    )


def shown_jobs(facts: ReportFacts) -> list[Job]:
    """Return the jobs that a report shows."""
    if len(facts.jobs) <= MAX_JOBS:
        return list(facts.jobs)
    return sorted(facts.jobs, key=lambda job: job.state is JobState.SUCCEEDED)[:MAX_JOBS]


def _job(job: Job, picture: Html) -> Html:
    sign, look = state_look(job.state)
    state = element(
        "span", element("span", sign, aria_hidden="true"), " ", state_name(job.state), class_=f"pill {look}"
    )
    counts = job.counts
    numbers = f"{count(counts.succeeded)} of {count(counts.total)}" if counts.total else "not counted yet"
    if counts.failed:
        numbers += f", {count(counts.failed)} failed"
    error = ""
    if job.error is not None:
        words = f"Code {job.error.code}: {job.error.message}"
        error = element("p", visible_cell(words, _TEXT_CHARS), class_="error", dir="auto")
    return element(
        "tr",
        element("th", element("code", visible_cell(job.name, _NAME_CHARS)), error, scope="row", role="rowheader"),
        element("td", state, role="cell"),
        element("td", element("div", picture, class_="strip"), role="cell"),
        element("td", numbers, class_="numbers", role="cell"),
        role="row",
    )


def reasons(figures: Figures, pictures: Pictures) -> Html:
    """Return why rows are not ok: what they have in common, how many, and the first of them as an example."""
    troubled = figures.rows - figures.statuses.get(RowStatus.OK, 0)
    entries = []
    for place, reason in enumerate(figures.reasons):
        name, sign, meaning = STATUSES[reason.status]
        words = reason.example or f"{meaning.capitalize()}."
        has_code = reason.code is not None and not words.startswith(NOT_SENT)
        code = f"code {reason.code}" if has_code else ""
        first = element("p", "For example ", element("code", reason.example_key, dir="auto"), class_="quiet")
        show = element("button", "Show these rows", type="button", data_show_reason=str(place + 1), class_="plain")
        entries.append(
            element(
                "li",
                element(
                    "div",
                    element(
                        "span", element("span", sign, aria_hidden="true"), " ", name, class_=f"pill {reason.status}"
                    ),
                    element("span", code, class_="quiet") if code else "",
                    element(
                        "span", element("b", count(reason.rows)), f" {share(reason.rows, troubled)}", class_="number"
                    ),
                    class_="line",
                ),
                element("p", words, class_="message", dir="auto"),
                element("div", pictures[f"reason {place}"], class_="strip thin"),
                element("div", first, show, class_="line"),
            )
        )
    more = figures.reason_count - len(figures.reasons)
    note = f"{count(more, 'rarer reason')} not listed here."
    title = f"Why {count(troubled, 'row is', 'rows are')} not OK"
    body = element("ol", *entries, class_="reasons")
    return section("reasons", title, body, element("p", note, class_="quiet") if more else "")


def cards(facts: ReportFacts, figures: Figures | None, pictures: Pictures) -> Html:
    """Return the figures that fill a card each: tokens, cost, distributions, model versions, finish reasons."""
    shown = [_tokens(facts, pictures), _cost(facts, pictures)]
    if figures is not None:
        shown += [
            _distribution(MEASURES[name][0], found, pictures.get(name)) for name, found in figures.distributions.items()
        ]
        shown.append(_ranking("Finish reasons", "finish", figures.finish_reasons, pictures))
        shown.append(_ranking("Model versions", "version", figures.model_versions, pictures))
    filled = [card for card in shown if card]
    return section("figures", "Figures", element("div", *filled, class_="cards")) if filled else Html("")


def _tokens(facts: ReportFacts, pictures: Pictures) -> Html:
    if facts.summary is None or "tokens" not in pictures:
        return Html("")
    usage = facts.summary.usage
    rows = [("input", "Input", usage.input_tokens), ("output", "Output", usage.output_tokens)]
    rows += [("thoughts", "Thinking", usage.thoughts_tokens)] if usage.thoughts_tokens else []
    total = sum(number for _, _, number in rows)
    items = (
        element(
            "div",
            element("dt", element("span", class_=f"dot {colour}", aria_hidden="true"), name),
            element("dd", count(number), " ", element("small", share(number, total))),
        )
        for colour, name, number in rows
    )
    sums = [("Total", count(total)), ("Average per row", short(total / max(facts.summary.returned, 1)))]
    strip = element("div", pictures["tokens"], class_="strip")
    return _card("Tokens", strip, element("dl", *items, class_="facts"), _facts(sums))


def _cost(facts: ReportFacts, pictures: Pictures) -> Html:
    cost = facts.cost
    items = []
    if cost.actual_usd is not None:
        items.append(("By reported tokens", usd(cost.actual_usd)))
    if cost.low_usd is not None and cost.high_usd is not None:
        items.append(("Estimated beforehand", f"{usd(cost.low_usd)} to {usd(cost.high_usd)}"))
    if cost.likely_usd is not None:
        low, middle, high = map(usd, cost.likely_usd)
        items.append(("Likely, by earlier answers", f"{middle} ({low} to {high} with 95 %)"))
    if not items:
        return Html("")
    if cost.priced_on:
        items.append(("Price list of", cost.priced_on))
    note = element("p", visible_cell(cost.note, _TEXT_CHARS), class_="quiet") if cost.note else ""
    return _card("Cost", pictures.get("cost", Html("")), _facts(items), note)


def _distribution(title: str, found: Distribution, picture: Html | None) -> Html:
    items = [
        ("Half have up to", count(round(found.median))),
        ("95 of 100 up to", count(round(found.high))),
        ("Largest", count(found.largest)),
    ]
    if picture is None:
        # All rows have the same: a chart of one bar would say nothing.
        items = [("Each row", count(found.largest)), ("Rows", count(found.rows))]
    note = (
        f"The last bar contains everything from {count(found.bins[-1].start)} on." if picture and found.is_cut else ""
    )
    return _card(title, picture or "", _facts(items), element("p", note, class_="quiet") if note else "")


def _ranking(title: str, name: str, counts: Mapping[str, int], pictures: Pictures) -> Html:
    if not counts:
        return Html("")
    items = (
        element(
            "li",
            element("div", element("span", key, dir="auto"), element("b", count(number)), class_="line"),
            element("div", pictures[f"{name} {place}"], class_="strip thin"),
        )
        for place, (key, number) in enumerate(counts.items())
    )
    return _card(title, element("ul", *items, class_="ranking"))


def _facts(items: Sequence[tuple[str, str]]) -> Html:
    return element(
        "dl", *(element("div", element("dt", name), element("dd", words)) for name, words in items), class_="facts"
    )


def _card(title: str, *children: str) -> Html:
    return element("article", element("h3", title), *children, class_="card")


def section(name: str, title: str, *children: str) -> Html:
    """Return a section of the page with its heading."""
    heading = element("h2", title, id=f"{name}-title")
    return element("section", joined(heading, *children), id=name, aria_labelledby=f"{name}-title")
