"""Reports for the tests of `results/report*.py`: hostile texts, pages written from real tables, pages read back."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from gemini_batch_mcp.domain import Job, JobState, RowCounts
from gemini_batch_mcp.results.report import ReportCost, ReportFacts, write_report
from results_kit import answer, failure, table_of

WHEN = datetime(2026, 11, 21, 16, 4, tzinfo=UTC)

#: Texts that would do harm, or hide something, if they were taken for anything but text.
HOSTILE = (
    "<script>window.hacked = true; alert(1)</script>",
    "</script><script>window.hacked = true; alert(1)</script>",
    '<img src=x onerror="window.hacked = true; alert(1)">',
    "<svg onload=alert(1)><style>body{display:none}</style>",
    "<!-- <script> --> ]]> &lt;b&gt; &amp; &#x41;",
    "{{title}} ${body} %(rows)s {0} $rows \\u003c",
    "\u202eright to left\u202c \u2066isolated\u2069",
    "zero\u200bwidth\u200d\ufeff",
    "nul\x00 bell\x07 escape\x1b[31m",
    "line\nbreak\u2028separator",
    "http://attacker.example/pixel.gif javascript:alert(1)",
    "\"'`=<>",
)


@dataclass
class Page:
    """What a page says: its visible words, its elements with their attributes, and the parts that are no markup."""

    source: str
    words: str = ""
    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    style: str = ""
    script: str = ""
    title: str = ""
    data: dict[str, Any] = field(default_factory=dict)

    def named(self, name: str) -> list[dict[str, str]]:
        """Return the attributes of all elements of that name."""
        return [attributes for element, attributes in self.elements if element == name]


class _Reader(HTMLParser):
    def __init__(self, page: Page) -> None:
        super().__init__(convert_charrefs=True)
        self.page = page
        self._inside: list[tuple[str, dict[str, str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.page.elements.append((tag, attributes))
        if tag not in ("meta", "link", "input"):
            self._inside.append((tag, attributes))

    def handle_endtag(self, tag: str) -> None:
        opened, _ = self._inside.pop()
        assert opened == tag, f"{tag} closes {opened}"

    def handle_data(self, data: str) -> None:
        tag, attributes = self._inside[-1] if self._inside else ("", {})
        if tag == "style":
            self.page.style += data
        elif tag == "script" and attributes.get("type") == "application/json":
            self.page.data = json.loads(data)
        elif tag == "script":
            self.page.script += data
        elif tag == "title" and len(self._inside) == 3:
            self.page.title += data
        else:
            self.page.words += data

    def check_closed(self) -> None:
        assert self._inside == []


def read_page(path: Path) -> Page:
    """Read a page; every element must be closed in its place."""
    page = Page(path.read_text(encoding="utf-8"))
    reader = _Reader(page)
    reader.feed(page.source)
    reader.close()
    reader.check_closed()
    return page


def facts(**members: Any) -> ReportFacts:
    """Return the facts of an ordinary batch; `members` replace them."""
    whole: dict[str, Any] = {
        "batch_id": "reviews-k3v9qd",
        "state": JobState.SUCCEEDED,
        "display_name": "Reviews of the autumn",
        "model": "gemini-3.8-flash",
        "created_at": WHEN,
        "ended_at": WHEN + timedelta(hours=2, minutes=14),
        "written_at": WHEN + timedelta(days=1),
        "jobs": (Job("batches/first", JobState.SUCCEEDED, counts=RowCounts(10, 8, 2, 0)),),
        "cost": ReportCost(1.8342, 1.21, 2.4, "2026-11-22", "List prices of the batch tier."),
    }
    return ReportFacts(**whole | members)


def hostile_lines() -> list[bytes]:
    """Return answers, errors and keys made of hostile texts, one cell of a megabyte, and two rows without harm."""
    answers = [answer(f"answer {number} {text}", text) for number, text in enumerate(HOSTILE)]
    errors = [failure(f"error {number} {text}", text) for number, text in enumerate(HOSTILE)]
    strange = answer("strange", "fine", finish_reason=HOSTILE[0], modelVersion=HOSTILE[1] + "\x00")
    surrogate = b'{"key":"surrogate","response":{"candidates":[{"content":{"parts":[{"text":"lone \\ud800"}]}}]}}\n'
    plain = [answer("needle", "the Needle of this row"), answer("cut", "Cut", finish_reason="MAX_TOKENS")]
    return [*answers, *errors, strange, surrogate, answer("huge", "<" * 1_000_000), *plain]


def hostile_facts() -> ReportFacts:
    """Return facts in which every text is hostile."""
    job = Job(f"batches/{HOSTILE[2]}", JobState.RUNNING, error=None)
    return facts(
        batch_id=HOSTILE[1],
        display_name=f"</title>{HOSTILE[0]}\ud800\u202e",
        model=HOSTILE[2],
        jobs=(job,),
        cost=ReportCost(0.0003, 0.0001, 0.0002, HOSTILE[4], HOSTILE[8]),
    )


def hostile_page(directory: Path) -> Path:
    """Write the page of a batch in which everything is hostile."""
    table = table_of(directory, hostile_lines())
    path = directory / "hostile.html"
    report = hostile_facts()
    write_report(report, table.path, path)
    return path
