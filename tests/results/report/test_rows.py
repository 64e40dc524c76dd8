"""The list of rows in a report: which rows and columns it carries, how much of them, and what it says about that."""

from itertools import pairwise
from pathlib import Path

import duckdb

from gemini_batch_mcp.results.report._rows import MAX_BYTES, MAX_EXTRA_COLUMNS, MAX_SHOWN_ROWS
from gemini_batch_mcp.results.report.writing import write_report
from support.answers import facts, read_page
from support.extent import long

#: The members of a row as the page carries it.
STATUS, KEY, TEXT = 2, 3, 4


def _parquet(directory: Path, select: str) -> Path:
    """Write a table of the store's columns and more; `select` may replace columns by name."""
    path = directory / "made.parquet"
    duckdb.sql(f"COPY ({select}) TO '{path}' (FORMAT parquet)")
    return path


_COLUMNS = """row_number() OVER () AS row, 'key ' || i AS key, 'ok' AS status, 'answer ' || i AS "text",
    'STOP' AS finish_reason, NULL::INTEGER AS error_code, '' AS error_message, 'm' AS model_version,
    10 AS input_tokens, 5 AS output_tokens, 0 AS thoughts_tokens, 1 AS attempt, 0 AS file, i AS line"""


def test_columns_that_are_not_known_are_shown_and_media_and_vectors_are_not(tmp_path: Path) -> None:
    extra = """'Lyon' AS city, 4.5 AS "stars ""of"" it", DATE '2026-09-01' AS stayed, {'a': [1, 2]} AS labels,
        ['x', 'y'] AS tags, []::VARCHAR[] AS files, NULL::VARCHAR AS note, '\\xAA'::BLOB AS image,
        [0.5, 0.25]::FLOAT[2] AS embedding, [0.5]::DOUBLE[] AS other, '{"q":1}'::JSON AS json"""
    path = tmp_path / "report.html"
    write_report(facts(), _parquet(tmp_path, f"SELECT {extra}, {_COLUMNS} FROM range(3) t(i)"), path)
    page = read_page(path)

    columns = [column["name"] for column in page.data["columns"]]
    aside = [column["name"] for column in page.data["columns"] if column["is_aside"]]
    row = dict(zip(columns, page.data["rows"][0][KEY:], strict=True))
    assert columns[4:11] == ["city", 'stars "of" it', "stayed", "labels", "tags", "files", "note"]
    assert aside == ["json", "model_version", "input_tokens", "output_tokens", "thoughts_tokens", "attempt"]
    assert row["labels"] == '{"a":[1,2]}'
    assert row["tags"] == '["x","y"]'
    assert (row["city"], row['stars "of" it'], row["stayed"], row["note"], row["files"]) == (
        "Lyon",
        "4.5",
        "2026-09-01",
        "",
        "",
    )
    assert "Columns left out: image, embedding, other." in page.words


def test_columns_of_the_user_may_go_by_the_names_that_queries_use(tmp_path: Path) -> None:
    names = "name uses rows first place total code message characters n bin stretch error count reasons answers chosen"
    extra = ", ".join(f"'mine' AS {name}" for name in names.split())
    select = f"SELECT {extra}, * REPLACE ('failed' AS status, 'Broken ' || line AS error_message)"
    path = tmp_path / "report.html"
    write_report(facts(), _parquet(tmp_path, f"{select} FROM (SELECT {_COLUMNS} FROM range(3) t(i))"), path)
    page = read_page(path)
    assert page.data["rows"][0][1] == 1
    assert page.data["rows"][0].count("mine") == 17
    assert "STOP3" in page.words
    assert "Broken 0" in page.words


def test_a_table_of_very_many_columns_shows_the_first(tmp_path: Path) -> None:
    extra = ", ".join(f"{number} AS c{number}" for number in range(50))
    path = tmp_path / "report.html"
    write_report(facts(), _parquet(tmp_path, f"SELECT {extra}, {_COLUMNS} FROM range(3) t(i)"), path)
    page = read_page(path)
    assert sum(column["name"].startswith("c") for column in page.data["columns"]) == MAX_EXTRA_COLUMNS
    assert "Columns left out: c30, c31" in page.words


@long
def test_fifty_thousand_rows_make_a_small_page_that_says_what_it_holds(tmp_path: Path) -> None:
    select = (
        "SELECT * REPLACE (CASE WHEN i % 500 = 0 THEN 'failed' ELSE 'ok' END AS status, repeat('word ', 900) AS text)"
    )
    path = tmp_path / "report.html"
    table = _parquet(tmp_path, f"{select} FROM (SELECT i, {_COLUMNS} FROM range(50000) t(i))")
    saved = write_report(facts(), table, path)
    page = read_page(path)

    numbers = [row[0] for row in page.data["rows"] if row[STATUS] == "ok"]
    assert saved.rows == len(page.data["rows"]) == MAX_SHOWN_ROWS
    assert saved.size_bytes < MAX_BYTES + (1 << 20)
    assert sum(row[STATUS] == "failed" for row in page.data["rows"]) == 100
    gaps = [after - before for before, after in pairwise(numbers)]
    assert max(gaps) - min(gaps) <= 2
    assert numbers[-1] > 49_900
    assert "Showing 2,000 of 50,000 rows" in page.words
    assert "save_to" in page.words
    assert all(len(row[TEXT]) <= 2000 for row in page.data["rows"])
    assert "[cut: 4,500 characters in all]" in page.data["rows"][0][TEXT]


@long
def test_rows_that_would_fill_the_page_are_cut_shorter_and_then_left_out(tmp_path: Path) -> None:
    extra = ", ".join(f"repeat('<', 130) AS c{number}" for number in range(26))
    path = tmp_path / "report.html"
    table = _parquet(tmp_path, f"SELECT {extra}, {_COLUMNS} FROM range(2001) t(i)")
    saved = write_report(facts(), table, path)
    assert saved.size_bytes < MAX_BYTES + (1 << 20)
    assert 500 <= saved.rows < MAX_SHOWN_ROWS
    assert "Cells are cut at 200 characters." in read_page(path).words


def test_more_failures_than_fit_are_sampled_and_leave_room_for_the_rest(tmp_path: Path) -> None:
    select = "SELECT * REPLACE (CASE WHEN i % 2 = 0 THEN 'failed' ELSE 'ok' END AS status)"
    path = tmp_path / "report.html"
    write_report(facts(), _parquet(tmp_path, f"{select} FROM (SELECT i, {_COLUMNS} FROM range(9000) t(i))"), path)
    statuses = [row[STATUS] for row in read_page(path).data["rows"]]
    assert (statuses.count("failed"), statuses.count("ok")) == (1500, 500)
