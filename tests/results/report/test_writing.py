"""A report tells what is known of a batch, from the facts and from a real result table."""

import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from gemini_batch_mcp.domain import Job, JobError, JobState, ResultSummary, RowCounts, RowStatus, SavedFile
from gemini_batch_mcp.errors import ConfigurationError, StorageError
from gemini_batch_mcp.results.report.writing import ReportCost, write_report
from gemini_batch_mcp.results.store import ResultTable
from support.answers import WHEN, Page, answer, facts, failure, line, read_page, table_of

#: The members of a row as the page carries it.
STATUS, KEY, TEXT, ERROR, FINISH_REASON = 2, 3, 4, 5, 6


def _page(directory: Path, table: ResultTable | None, **members: object) -> Page:
    summary = None if table is None else table.summary()
    path = directory / "report.html"
    write_report(facts(summary=summary, **members), None if table is None else table.folder, path)
    return read_page(path)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page of a table with a row of every status."""
    directory = tmp_path_factory.mktemp("mixed")
    return _page(directory, _mixed(directory))


def _mixed(directory: Path) -> ResultTable:
    lines = [
        answer("a", "Positive. Very good."),
        answer("b", "Negative, and long enough to be told apart."),
        failure("c", "Quota 'x1' of 500 exceeded."),
        failure("d", "Quota 'y2' of 900 exceeded."),
        answer("e", "", finish_reason="SAFETY"),
        answer("f", "Cut", finish_reason="MAX_TOKENS"),
        line("g", response=None),
    ]
    return table_of(directory, lines, keys=["a", "b", "c", "d", "e", "f", "g", "h"])


def test_the_page_tells_the_facts_of_the_batch(mixed: Page) -> None:
    assert mixed.title == "Reviews of the autumn · Gemini batch report"
    for words in (
        "Reviews of the autumn",
        "reviews-k3v9qd",
        "gemini-3.8-flash",
        "21 Nov 2026, 16:04 UTC",
        "2 h 14 min",
        "Succeeded",
        "$1.83",
        "$1.21 to $2.40",
        "2026-11-22",
        "List prices of the batch tier.",
        "Written by gemini-batch-mcp",
    ):
        assert words in mixed.words, words


def test_the_outcomes_are_counted_by_status(mixed: Page) -> None:
    for words in ("OKa whole answer225.0 %", "error225.0 %", "blocked112.5 %", "limit112.5 %", "content112.5 %"):
        assert words in mixed.words, words
    assert "6 rows not OK" in mixed.words
    assert {button.get("data-show-status") for button in mixed.named("button")} >= {
        status.value for status in RowStatus
    }


def test_what_came_back_wrongly_is_said_with_examples(tmp_path: Path, mixed: Page) -> None:
    assert "What came back is not what was sent: 1 missing (h, …)." in mixed.words

    lines = [answer("a"), answer("a"), answer("stranger"), b"no json\n"]
    page = _page(tmp_path, table_of(tmp_path, lines, keys=["a"]))
    assert "1 duplicate (a, …); 2 unexpected" in page.words
    assert "1 not readable" in page.words


def test_a_whole_batch_is_said_to_be_whole(tmp_path: Path) -> None:
    page = _page(tmp_path, table_of(tmp_path, [answer("a")], keys=["a"]))
    assert "Every key that was sent came back exactly once." in page.words
    assert "not OK" not in page.words.replace("row is not OK", "")
    assert "Why" not in page.words


def test_partial_results_are_marked(tmp_path: Path) -> None:
    page = _page(tmp_path, table_of(tmp_path, [answer("a")]), is_partial=True)
    assert "These results are partial" in page.words


def test_errors_that_differ_in_numbers_and_names_only_are_one_reason(mixed: Page) -> None:
    assert "Why 6 rows are not OK" in mixed.words
    assert mixed.words.count("Quota 'x1' of 500 exceeded.") == 1
    assert "Quota 'y2' of 900" not in mixed.words
    rows = {row[KEY]: row for row in mixed.data["rows"]}
    assert rows["c"][1] == rows["d"][1] != 0
    assert rows["a"][1] == 0


def test_only_the_commonest_reasons_are_listed(tmp_path: Path) -> None:
    letters = "abcdefghijkl"
    page = _page(tmp_path, table_of(tmp_path, [failure(letter, letter * 3) for letter in letters]))
    assert "4 rarer reasons not listed here." in page.words


def test_jobs_are_shown_with_state_progress_and_error(tmp_path: Path) -> None:
    jobs = (
        Job("batches/one", JobState.RUNNING, counts=RowCounts(1000, 420, 3, 577)),
        Job("batches/two", JobState.FAILED, error=JobError(8, "Too much at once.")),
        Job("batches/three", JobState.UPDATING, counts=RowCounts(5, 0, 0, 5)),
    )
    page = _page(tmp_path, None, state=JobState.RUNNING, jobs=jobs, ended_at=None, cost=ReportCost())

    for words in ("batches/one", "420 of 1,000, 3 failed", "Code 8: Too much at once.", "not counted yet", "Updating"):
        assert words in page.words, words
    assert "Succeeded: 420 rows (42.0 %); Failed: 3 rows (0.3 %)." in page.words


def test_of_very_many_jobs_those_that_need_a_look_come_first(tmp_path: Path) -> None:
    jobs = tuple(Job(f"batches/{number}", JobState.SUCCEEDED) for number in range(80))
    page = _page(tmp_path, None, jobs=(*jobs, Job("batches/sick", JobState.FAILED)))
    assert "60 of 81 jobs, those that need attention first." in page.words
    assert "batches/sick" in page.words


def test_a_batch_without_results_has_a_page_without_rows(tmp_path: Path) -> None:
    page = _page(tmp_path, None, display_name="", created_at=None, jobs=(), model="", cost=ReportCost(high_usd=3.0))

    assert "No answers have been collected yet." in page.words
    assert page.title.startswith("reviews-k3v9qd")
    assert "Cost, at most$3.00estimated" in page.words
    assert page.data == {}
    assert page.script == ""
    assert not any(attributes.get("id") == "explorer" for attributes in page.named("div"))


def test_a_summary_without_a_table_is_still_shown(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    saved = write_report(facts(summary=ResultSummary(expected=9, missing=9)), None, path)
    page = read_page(path)
    assert saved.rows == 0
    assert "no answer came back9100 %" in page.words
    assert "Show rows: Missing" not in page.source


def test_a_table_without_a_summary_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(facts(), _mixed(tmp_path).folder, path)
    assert "blocked112.5 %" in read_page(path).words


def test_an_empty_table_makes_a_page(tmp_path: Path) -> None:
    page = _page(tmp_path, table_of(tmp_path, b""), cost=ReportCost(note="Not priced."))
    assert "Showing all 0 rows." in page.words
    assert page.data["rows"] == []


def test_a_cost_without_an_estimate_and_without_a_date_is_told(tmp_path: Path) -> None:
    page = _page(tmp_path, None, cost=ReportCost(actual_usd=0.5))
    assert "By reported tokens$0.5000" in page.words
    assert "Price list of" not in page.words
    assert "Estimated" not in page.words


def test_the_saved_file_says_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    saved = write_report(facts(), _mixed(tmp_path).folder, path)
    assert saved == SavedFile(path, "html", 8, path.stat().st_size)


def test_figures_are_told_in_words_and_drawn(tmp_path: Path) -> None:
    lines = [answer(str(number), "x" * number, finish_reason="STOP") for number in range(1, 201)]
    page = _page(tmp_path, table_of(tmp_path, lines))

    assert "200 rows; half of them have up to 100 characters, 95 of 100 up to 190, the largest 200." in page.words
    assert "Each row3" in page.words
    assert "STOP200" in page.words
    assert "gemini-3.8-flash200" in page.words
    assert "Input: 600 tokens (50.0 %); Output: 400 tokens (33.3 %); Thinking: 200 tokens (16.7 %)." in page.words


def test_many_names_become_the_commonest_and_the_others(tmp_path: Path) -> None:
    lines = [answer(str(number), modelVersion=f"m{min(number, 12)}") for number in range(20)]
    page = _page(tmp_path, table_of(tmp_path, lines))
    assert "m128" in page.words
    assert "5 others5" in page.words


def test_the_list_of_rows_carries_failures_first(mixed: Page) -> None:
    rows = mixed.data["rows"]
    assert [row[0] for row in rows] == [3, 4, 5, 6, 7, 8, 1, 2]
    assert [row[STATUS] for row in rows] == ["failed", "failed", "blocked", "truncated", "empty", "missing", "ok", "ok"]
    assert rows[0][ERROR] == "code 13: Quota 'x1' of 500 exceeded."
    assert rows[6][TEXT] == "Positive. Very good."
    assert rows[6][FINISH_REASON] == "STOP"


def test_times_without_a_zone_are_utc(tmp_path: Path) -> None:
    bare = datetime(2026, 11, 21, 16, 4)
    page = _page(tmp_path, None, created_at=bare, ended_at=WHEN + timedelta(seconds=9))
    assert "21 Nov 2026, 16:04 UTC" in page.words
    assert "Time9 s" in page.words


def test_without_the_extra_one_sentence_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(ConfigurationError) as failed:
        write_report(facts(), None, tmp_path / "report.html")
    assert 'pip install "gemini-batch-mcp[report]"' in str(failed.value)
    assert str(failed.value).count(".") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_renderer_that_fails_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with pytest.raises(StorageError, match="could not be drawn"):
        write_report(facts(), None, tmp_path / "report.html")


def test_a_table_that_cannot_be_read_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "results.parquet").write_bytes(b"PAR1 no table PAR1")
    with pytest.raises(StorageError, match="could not be read"):
        write_report(facts(), tmp_path / "results.parquet", tmp_path / "report.html")


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="could not be written"):
        write_report(facts(), None, tmp_path / "missing" / "report.html")
