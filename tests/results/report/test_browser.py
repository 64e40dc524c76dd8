"""A report in a real browser: hostile texts stay text, the list of rows works with mouse and keyboard, nothing leaves.

Needs Debian's `chromium` and the packages of tests/js.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.results.report.writing import write_report
from support.answers import HOSTILE, answer, facts, failure, hostile_page, table_of
from support.extent import long
from support.npm import chromium, run_node

pytestmark = [pytest.mark.npm, long]

Seen = dict[str, Any]
NUMBER, STATUS, KEY, TEXT = range(4)


def _walk(page: Path, profile: Path) -> Seen:
    seen: Seen = json.loads(run_node("report.mjs", chromium(), str(page), str(profile), timeout_seconds=110))
    return seen


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """A walk through the page of 130 rows: 20 failed for two reasons, 5 truncated, the others ok, one with a needle."""
    directory = tmp_path_factory.mktemp("ordinary")
    lines = [answer(f"key-{number:03}", f"Answer of row {number}") for number in range(1, 105)]
    lines += [answer(f"key-{number:03}", "Cut", finish_reason="MAX_TOKENS") for number in range(105, 110)]
    lines += [failure(f"key-{number:03}", "Internal error.") for number in range(110, 123)]
    lines += [failure(f"key-{number:03}", f"Quota of {number} exceeded.") for number in range(123, 130)]
    lines.append(answer("key-130", "the Needle of this row"))
    table = table_of(directory, lines)
    path = directory / "report.html"
    write_report(facts(summary=table.summary()), table.folder, path)
    return _walk(path, directory / "profile")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """A walk through the page of a batch in which everything is hostile."""
    directory = tmp_path_factory.mktemp("hostile")
    return _walk(hostile_page(directory), directory / "profile")


def test_hostile_texts_do_not_run(hostile: Seen) -> None:
    assert hostile["document"]["hacked"] is False
    assert hostile["document"]["strange"] == 0
    assert hostile["document"]["scripts"] == 1
    assert hostile["dialogs"] == []
    assert hostile["document"]["title"].startswith("</title><script>window.hacked")


def test_hostile_texts_are_read_as_they_are(hostile: Seen) -> None:
    texts = {row[TEXT] for row in hostile["hundred"]["rows"]}
    assert set(HOSTILE[:3]) <= texts
    assert "<U+202E>right to left<U+202C> <U+2066>isolated<U+2069>" in texts
    assert "nul<U+0000> bell<U+0007> escape<U+001B>[31m" in texts


@pytest.mark.parametrize("page", ["ordinary", "hostile"])
def test_a_page_is_quiet_and_nothing_leaves_it(page: str, request: pytest.FixtureRequest) -> None:
    seen: Seen = request.getfixturevalue(page)
    assert seen["errors"] == []
    assert seen["messages"] == []
    assert seen["violations"] == []
    assert seen["served"] == ["/"]
    outside = [
        url for url in seen["requests"] if not url.startswith(("file:///", "http://127.0.0.1:", "data:image/svg"))
    ]
    assert outside == []
    assert len([url for url in seen["requests"] if url.startswith("file:///")]) == 1


@pytest.mark.parametrize("page", ["ordinary", "hostile"])
def test_a_page_fits_every_width(page: str, request: pytest.FixtureRequest) -> None:
    seen: Seen = request.getfixturevalue(page)
    assert seen["widths"] == {width: int(width) for width in ("320", "360", "768", "1280", "2560")}
    assert seen["document"]["pictures"] == 0


def test_a_page_without_rows_is_quiet(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(facts(), None, path)
    seen = _walk(path, tmp_path / "profile")
    assert (seen["errors"], seen["messages"], seen["violations"], seen["served"]) == ([], [], [], ["/"])


def test_the_list_starts_with_what_failed(ordinary: Seen) -> None:
    start = ordinary["start"]
    assert start["found"] == "Rows 1 to 25 of 130 rows found."
    assert start["place"] == "Page 1 of 6"
    assert start["head"] == ["Row", "status", "key", "text", "error", "finish_reason"]
    assert [row[NUMBER] for row in start["rows"][:3]] == ["105", "106", "107"]
    assert [row[NUMBER] for row in start["rows"][24:]] == ["129"]
    assert start["rows"][5][STATUS:] == ["✕ Failed", "key-110", "–", "code 13: Internal error.", "–"]
    assert start["filters"] == ["All130", "✓OK105", "✕Failed20", "⋯Truncated5"]
    assert start["pressed"] == ["All130"]
    assert start["previous"] is True


def test_searching_leaves_the_rows_that_hold_every_word(ordinary: Seen) -> None:
    assert [row[KEY] for row in ordinary["searched"]["rows"]] == ["key-130"]
    assert ordinary["searched"]["found"] == "Rows 1 to 1 of 1 row found."
    assert ordinary["nothing"]["found"] == "No row matches. Clear the search or choose All."
    assert ordinary["nothing"]["rows"] == []
    assert ordinary["cleared"]["found"] == ordinary["start"]["found"]


def test_paging_turns_to_the_next_rows(ordinary: Seen) -> None:
    assert ordinary["second"]["found"] == "Rows 26 to 50 of 130 rows found."
    assert ordinary["second"]["rows"][0][KEY] == "key-001"
    assert ordinary["second"]["previous"] is False
    assert len(ordinary["hundred"]["rows"]) == 100
    assert ordinary["hundred"]["place"] == "Page 1 of 2"


def test_rows_are_filtered_by_status_and_by_reason(ordinary: Seen) -> None:
    assert {row[STATUS] for row in ordinary["failed"]["rows"]} == {"✕ Failed"}
    assert ordinary["failed"]["pressed"] == ["✕Failed20"]
    assert len(ordinary["reason"]["rows"]) == 13
    assert {row[4] for row in ordinary["reason"]["rows"]} == {"code 13: Internal error."}
    assert ordinary["reason"]["pressed"] == ["One reason ✕13"]
    assert ordinary["reason"]["focus"] == "Row 110: show all of it"
    assert {row[STATUS] for row in ordinary["outcome"]["rows"]} == {"⋯ Truncated"}
    assert ordinary["all"]["found"] == "Rows 1 to 100 of 130 rows found."


def test_columns_sort_up_and_down_and_back(ordinary: Seen) -> None:
    assert ordinary["ascending"]["rows"][0][KEY] == "key-001"
    assert ordinary["ascending"]["sorted"][2] == "ascending"
    assert ordinary["descending"]["rows"][0][KEY] == "key-130"
    assert ordinary["descending"]["focus"] == "key"
    assert ordinary["unsorted"]["rows"][0][KEY] == "key-105"
    assert ordinary["unsorted"]["sorted"] == ["none"] * 6
    assert [row[NUMBER] for row in ordinary["byRow"]["rows"][:2]] == ["1", "2"]
    assert ordinary["byStatus"]["rows"][0][STATUS] == "✕ Failed"


def test_columns_can_be_hidden_and_shown(ordinary: Seen) -> None:
    assert ordinary["fewer"]["head"] == ["Row", "status", "key", "text", "finish_reason", "attempt"]
    assert ordinary["fewer"]["open"] is False
    assert ordinary["fewer"]["focus"] == "Columns"


def test_the_keyboard_walks_through_rows_and_pages(ordinary: Seen) -> None:
    assert ordinary["skip"] == {"first": "Skip to the rows", "hash": "#rows"}
    walked = ordinary["walked"]
    assert walked["first"] == "Row 110: show all of it"
    assert walked["over"]["place"] == "Page 2 of 6"
    assert walked["over"]["focus"] == f"Row {walked['over']['rows'][0][NUMBER]}: show all of it"
    assert walked["back"]["place"] == "Page 1 of 6"
    assert walked["back"]["focus"] == f"Row {walked['back']['rows'][24][NUMBER]}: show all of it"
    assert walked["out"] == "search"


def test_a_row_opens_with_all_it_has_and_closes_to_where_it_was(ordinary: Seen) -> None:
    assert ordinary["opened"]["open"] is True
    assert ordinary["opened"]["title"] == "Row 110 ✕ Failed"
    assert ordinary["opened"]["cells"][:2] == [["key", "key-110"], ["error", "code 13: Internal error."]]
    assert ordinary["after"]["title"] == "Row 111 ✕ Failed"
    assert ordinary["before"]["title"] == "Row 110 ✕ Failed"
    assert ordinary["closed"]["open"] is False
    assert ordinary["closed"]["focus"] == "Row 110: show all of it"


def test_leafing_past_a_page_leaves_the_list_at_the_row_last_seen(ordinary: Seen) -> None:
    assert ordinary["leafed"]["place"] == "Page 2 of 6"
    assert ordinary["leafed"]["focus"] == f"Row {ordinary['leafed']['rows'][0][NUMBER]}: show all of it"
    assert ordinary["outside"]["open"] is False


def test_charts_have_names_for_those_who_cannot_see_them(ordinary: Seen) -> None:
    assert ordinary["named"] == 1


def test_the_page_follows_light_and_dark_and_prints_on_white(ordinary: Seen) -> None:
    assert ordinary["schemes"] == {
        "light": "rgb(248, 248, 245)",
        "dark": "rgb(18, 20, 22)",
        "printed": "rgb(255, 255, 255)",
        "controls": 0,
    }
