"""The page of a report: one HTML document that loads nothing, with its own style and script allowed by their hashes."""

import base64
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from importlib.resources import files
from typing import Final
from urllib.parse import quote

from gemini_batch_mcp import __version__
from gemini_batch_mcp.results.report._html import Html, element, joined
from gemini_batch_mcp.results.report._rows import ShownRows
from gemini_batch_mcp.results.report._sections import section
from gemini_batch_mcp.results.report._words import moment
from gemini_batch_mcp.results.visible import visible_cell
from gemini_batch_mcp.text import count

_TITLE_CHARS: Final = 200


def page(
    title: str,
    body: Sequence[Html],
    shown: ShownRows | None,
    written_at: datetime | None,
    *,
    kind: str = "Gemini batch report",
) -> str:
    """Return the document: `body` are the sections above the list of rows, `shown` the rows, None for no list."""
    style, script = _part("report.css"), _part("report.js")
    # Three bars in a square. It keeps browsers from asking a server for an icon.
    icon = _part("icon.svg").strip()
    policy = "; ".join(
        (
            "default-src 'none'",
            f"style-src '{_hash(style)}'",
            f"script-src '{_hash(script)}'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            # Scripts may not write markup at all, not even ours.
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", f"{visible_cell(title, _TITLE_CHARS)} · {kind}"),
        element("link", rel="icon", href=f"data:image/svg+xml,{quote(icon)}"),
        element("style", Html(style)),
    )
    first, *others = body
    skip = element("a", "Skip to the rows", href="#rows", class_="skip") if shown is not None else ""
    rows = [] if shown is None else [element("script", Html(shown.json), type="application/json", id="rows-data")]
    content = element("body", skip, first, element("main", *others), _foot(written_at), *rows, _script(script, shown))
    return f"<!doctype html>\n{element('html', head, content, lang='en')}\n"


def rows_section(shown: ShownRows, total: int) -> Html:
    """Return the list of rows without its rows, which the script fills in, and a note about what is not in it."""
    notes = [f"Showing all {count(total, 'row')}." if shown.rows == total else _sample_note(shown, total)]
    notes.append(f"Cells are cut at {count(shown.max_cell_chars)} characters.")
    if shown.left_out_columns:
        notes.append(f"Columns left out: {', '.join(shown.left_out_columns[:20])}.")
    search = element(
        "label",
        element("span", "Search rows", class_="caption"),
        element("input", type="search", id="search", placeholder="Words, a key, an error …", autocomplete="off"),
        class_="search",
    )
    columns = element(
        "details",
        element("summary", "Columns"),
        element("div", id="columns", class_="choices"),
        class_="menu",
        id="columns-menu",
    )
    return section(
        "rows",
        "Rows",
        element("p", " ".join(notes), class_="quiet", id="rows-note"),
        element("noscript", element("p", "The list of rows needs JavaScript. It loads nothing.", class_="notice")),
        element(
            "div",
            element("div", search, columns, class_="line"),
            element("div", id="filters", class_="filters", role="group", aria_label="Show rows by status"),
            element("p", id="found", role="status", class_="quiet"),
            element(
                "div",
                element(
                    "table", element("thead", id="list-head"), element("tbody", id="list"), aria_describedby="found"
                ),
                class_="scroll list",
                tabindex="0",
                role="region",
                aria_label="Rows of the result table",
            ),
            _pager(),
            id="explorer",
            hidden=True,
        ),
        _dialog(),
    )


def _sample_note(shown: ShownRows, total: int) -> str:
    return (
        f"Showing {count(shown.rows)} of {count(total, 'row')}: those that are not OK first, then an even sample "
        "of the others. Use get_results with save_to for all of them."
    )


def _pager() -> Html:
    sizes = (element("option", size, value=size) for size in ("25", "50", "100"))
    return element(
        "nav",
        element("button", "← Previous", type="button", id="previous"),
        element("span", id="place"),
        element("button", "Next →", type="button", id="next"),
        element("label", "Rows per page ", element("select", *sizes, id="size")),
        class_="pager",
        aria_label="Pages of rows",
    )


def _dialog() -> Html:
    return element(
        "dialog",
        element(
            "div",
            element("h3", id="row-title"),
            element("button", "← Previous row", type="button", id="row-previous"),
            element("button", "Next row →", type="button", id="row-next"),
            element("button", "Close", type="button", id="row-close"),
            class_="line",
        ),
        element("dl", id="row-cells"),
        id="row",
        aria_labelledby="row-title",
    )


def _foot(written_at: datetime | None) -> Html:
    when = f" on {moment(written_at)}" if written_at is not None else ""
    return element(
        "footer",
        element("p", f"Written by gemini-batch-mcp {__version__}{when}. This page loads nothing and sends nothing."),
        element("p", "Row texts come from a model or from the data; hidden characters are written out."),
    )


def _script(script: str, shown: ShownRows | None) -> Html:
    return element("script", Html(script)) if shown is not None else joined()


def _part(name: str) -> str:
    return files("gemini_batch_mcp.results.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(sha256(text.encode()).digest()).decode()
