"""The page about a comparison: what it says, that hostile labels are text, and what it says where no table fits."""

from pathlib import Path
from typing import Any

from gemini_batch_mcp.results.report.comparing import ComparedFacts, write_comparison
from support.answers import HOSTILE, WHEN, Page, read_page


def _page(directory: Path, **members: Any) -> Page:
    whole: dict[str, Any] = {
        "batch_id": "moods-k3v9qd",
        "other": "truth",
        "field": "label",
        "other_is_batch": False,
        "compared": 100,
        "equal": 83,
        "left_out": 4,
        "share": 0.83,
        "share_low": 0.7445,
        "share_high": 0.8911,
        "kappa": 0.6612,
        "kappa_low": 0.5138,
        "kappa_high": 0.7821,
        "label_count": 9,
        "labels": ("good", "bad"),
        "counts": {(0, 0): 60, (0, 1): 10, (1, 1): 20, (1, None): 5, (None, None): 4, (None, 0): 1},
        "differing": (("k1", "good", "bad"),),
        "written_at": WHEN,
    }
    path = directory / "page.html"
    saved = write_comparison(ComparedFacts(**whole | members), path)
    page = read_page(path)
    assert (saved.rows, saved.size_bytes) == (len((whole | members)["differing"]), path.stat().st_size)
    assert page.script == "" and page.data == {}
    assert all(head.get("scope") in ("row", "col") for head in page.named("th"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    return page


def test_the_page_tells_the_share_and_lays_expected_against_actual(tmp_path: Path) -> None:
    page = _page(tmp_path)
    assert page.title == "label: moods-k3v9qd against truth · Gemini batch comparison"
    for words in (
        "Equal83.0 %95 % interval 74.5 to 89.1 %",
        "Cohen's kappa0.66195 % interval 0.51 to 0.78 (1: complete agreement, 0: as by chance)",
        "Compared1004 rows without an answer or a label",
        "Different1717.0 %",
        "ExpectedRowsgoodbadall others",
        "good70✓ 85.7 %6014.3 %10–",
        "bad25–✓ 80.0 %2020.0 %5",
        "all others520.0 %1–80.0 %4",
        "holds the 7 rarer of all values",
        # Recall 60 of 70, precision 60 of 61.
        "good70616085.7 %98.4 %",
        "The first 1 of 17 rows",
    ):
        assert words in page.words, words
    shades = [cell["class"] for cell in page.named("td") if cell.get("class", "").startswith(("heat-", "miss-"))]
    assert shades == [
        "heat-5",
        "miss-1",
        "miss-0 none",
        "miss-0 none",
        "heat-5",
        "miss-2",
        "miss-2",
        "miss-0 none",
        "heat-5",
    ]


def test_hostile_labels_rows_and_names_stay_text(tmp_path: Path) -> None:
    counts = {(place, (place + 1) % len(HOSTILE)): 3 for place in range(len(HOSTILE))}
    rows = tuple((text, text, text) for text in HOSTILE)
    names = {"batch_id": HOSTILE[0], "other": HOSTILE[1], "field": HOSTILE[2]}
    page = _page(tmp_path, labels=HOSTILE, counts=counts, differing=rows, **names)
    allowed = (
        "html|head|meta|title|link|style|body|header|p|h1|h2|span|code|main|dl|div|dt|dd|section|table|caption|thead|"
        "tbody|tr|th|td|b|small|footer"
    )
    assert {name for name, _ in page.elements} <= set(allowed.split("|"))
    assert page.words.count(HOSTILE[0]) >= 5
    assert "<U+202E>right to left" in page.words


def test_too_many_values_and_nothing_to_compare_are_said(tmp_path: Path) -> None:
    assert "136,511 different values: too many" in _page(tmp_path, labels=(), counts={}, label_count=136_511).words
    nothing = {
        "share": None,
        "share_low": None,
        "share_high": None,
        "kappa": None,
        "kappa_low": None,
        "kappa_high": None,
        "compared": 0,
        "equal": 0,
    }
    page = _page(tmp_path, labels=(), counts={}, label_count=0, differing=(), **nothing)
    assert "No row can be compared." in page.words and "Expected against actual" not in page.words
    same = _page(tmp_path, equal=100, differing=(), other_is_batch=True)
    assert "None." in same.words and "against another batch" in same.words
