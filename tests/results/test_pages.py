"""Pages of a table: order, cursors, keys, cut cells, and text that is fit to show."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pytest

from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.results.store import AnswerFile, ResultTable, TableReader, build_table
from gemini_batch_mcp.results.visible import visible, visible_cell
from support.answers import all_rows, answer, answer_file, exported, failure, keys_file, line, only_row, table_of
from support.extent import few

KEYS = [f"k{number}" for number in range(10)]


def mixed(directory: Path) -> ResultTable:
    """Return a table of ten rows: k3 failed, k6 missing, k8 blocked."""
    special = {"k3": failure("k3"), "k6": b"", "k8": answer("k8", "", "SAFETY")}
    return table_of(directory, [special.get(key, answer(key)) for key in KEYS], keys=KEYS)


def test_pages_join_to_the_whole_table(tmp_path: Path) -> None:
    table = mixed(tmp_path)

    for limit in (1, 3, 9, 10, 11):
        assert [row.key for row in all_rows(table, limit=limit)] == KEYS


def test_failures_are_all_rows_that_are_not_ok(tmp_path: Path) -> None:
    table = mixed(tmp_path)

    first = table.page(view="failures", limit=2)
    rest = table.page(view="failures", limit=2, cursor=first.next_cursor)
    assert [(row.key, row.status) for row in (*first.rows, *rest.rows)] == [
        ("k3", "failed"),
        ("k6", "missing"),
        ("k8", "blocked"),
    ]
    assert rest.next_cursor == ""


def test_a_page_of_chosen_keys_stands_in_request_order(tmp_path: Path) -> None:
    table = mixed(tmp_path)

    chosen = ["k9", "nowhere", "k3", "k0"]
    page = table.page(view="rows", limit=2, keys=chosen)
    last = table.page(view="rows", limit=2, keys=chosen, cursor=page.next_cursor)
    assert [row.key for row in (*page.rows, *last.rows)] == ["k0", "k3", "k9"]
    assert [row.key for row in table.page(view="failures", limit=9, keys=["k3", "k0"]).rows] == ["k3"]
    assert table.page(view="rows", limit=2, keys=["nowhere"]).rows == ()


def test_keys_are_data_and_never_sql(tmp_path: Path) -> None:
    table = mixed(tmp_path)

    assert table.page(view="rows", limit=5, keys=["k0') OR ('1'='1", "'; DROP TABLE x; --"]).rows == ()


def test_a_key_that_is_no_character_is_looked_up_as_it_is_stored(tmp_path: Path) -> None:
    table = table_of(tmp_path, [answer("a\ud800", "one"), answer("\U0001f600", "two")], keys=["a\ud800", "\U0001f600"])

    page = table.page(view="rows", limit=1, keys=["a\ud800", "\ud83d\ude00"])
    rest = table.page(view="rows", limit=1, keys=["a\ud800", "\ud83d\ude00"], cursor=page.next_cursor)
    assert [row.text for row in (*page.rows, *rest.rows)] == ["one", "two"]


def test_a_table_may_be_read_by_several_threads(tmp_path: Path) -> None:
    table = mixed(tmp_path)

    with ThreadPoolExecutor(4) as pool:
        pages = list(pool.map(lambda limit: all_rows(table, limit=limit), range(1, 9)))
    assert [[row.key for row in rows] for rows in pages] == [KEYS] * 8


def test_one_reader_serves_many_tables_and_threads_and_may_be_closed_in_between(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    table_of(tmp_path / "other", answer("z"), keys=["z"])
    mixed(tmp_path)
    reader = TableReader()
    tables = [ResultTable.open(path / "results.json", reader) for path in (tmp_path, tmp_path / "other")]

    with ThreadPoolExecutor(4) as pool:
        pages = list(pool.map(lambda place: all_rows(tables[place % 2], limit=3), range(12)))
    assert [len(rows) for rows in pages] == [10, 1] * 6
    reader.close()
    assert [row.key for row in all_rows(tables[1])] == ["z"]
    reader.close()
    reader.close()


def test_a_table_that_is_built_again_at_once_is_read_anew(tmp_path: Path) -> None:
    reader = TableReader()
    for text in ("one", "two", "six"):
        table_of(tmp_path, answer("a", text), keys=["a"])
        assert [row.text for row in all_rows(ResultTable.open(tmp_path / "results.json", reader))] == [text]


def test_a_cursor_survives_a_rebuild_of_the_same_batch(tmp_path: Path) -> None:
    keys = keys_file(tmp_path, ["a", "b", "c"])
    first = [AnswerFile(answer_file(tmp_path, [answer("a")]), keys)]
    second = [*first, AnswerFile(answer_file(tmp_path, [answer("c"), answer("b")], name="2.jsonl"), keys, attempt=2)]
    build_table(first, tmp_path / "results.json", batch_id="reviews-abc123")
    page = ResultTable.open(tmp_path / "results.json").page(view="rows", limit=1)
    build_table(second, tmp_path / "moved" / "table.json", batch_id="reviews-abc123")

    rest = ResultTable.open(tmp_path / "moved" / "table.json").page(view="rows", limit=5, cursor=page.next_cursor)
    assert [(row.key, row.status) for row in rest.rows] == [("b", "ok"), ("c", "ok")]


@few(4)
@pytest.mark.parametrize(
    "cursor", ["x", "????", "é", "W10", "WyJhIiwxXQ==x", "WyJhIiwtMV0", "a" * 300, " ", "WyJhIiwxLDJd"]
)
def test_a_damaged_cursor_is_refused(tmp_path: Path, cursor: str) -> None:
    with pytest.raises(UsageError, match="is not a cursor of this server") as caught:
        mixed(tmp_path).page(view="rows", limit=1, cursor=cursor)
    assert caught.value.next_step == "Leave cursor out to start at the first row."
    assert len(caught.value.message) < 100


@pytest.mark.parametrize(("view", "keys"), [("failures", ()), ("rows", ("k1",))])
def test_a_cursor_of_another_view_or_choice_is_refused(
    tmp_path: Path, view: Literal["rows", "failures"], keys: tuple[str, ...]
) -> None:
    table = mixed(tmp_path)
    cursor = table.page(view="rows", limit=1).next_cursor

    with pytest.raises(UsageError, match="belongs to another batch, view or choice of keys"):
        table.page(view=view, limit=1, cursor=cursor, keys=keys)


def test_a_cursor_of_another_batch_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    cursor = mixed(tmp_path / "other").page(view="rows", limit=1).next_cursor

    with pytest.raises(UsageError, match="belongs to another batch"):
        mixed(tmp_path).page(view="rows", limit=1, cursor=cursor)


def test_a_cursor_behind_the_last_row_gives_an_empty_page(tmp_path: Path) -> None:
    cursor = mixed(tmp_path).page(view="rows", limit=9).next_cursor
    shorter = table_of(tmp_path, [answer(key) for key in KEYS[:2]], keys=KEYS[:2])

    page = shorter.page(view="rows", limit=5, cursor=cursor)
    assert (page.rows, page.next_cursor) == ((), "")


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_a_limit_out_of_range_is_refused(tmp_path: Path, limit: int) -> None:
    with pytest.raises(UsageError, match=f"limit is {limit}"):
        mixed(tmp_path).page(view="rows", limit=limit)


def test_a_long_cell_is_cut_and_says_so(tmp_path: Path) -> None:
    table = table_of(tmp_path, [answer("a", "x" * 3000), answer("b", "y" * 2000)], keys=["a", "b"])

    cut, whole = table.page(view="rows", limit=2).rows
    assert len(cut.text) == 2000
    assert cut.text.endswith("x… [cut: 3,000 characters in all]")
    assert whole.text == "y" * 2000
    assert len(table.page(view="rows", limit=1, max_cell_chars=50).rows[0].text) == 50


def test_hidden_characters_are_visible_in_a_page_and_untouched_in_the_export(tmp_path: Path) -> None:
    text = "safe\u202egpj.exe\u200b\x1b[31m\u2028\u0085\tend\n"
    table = table_of(tmp_path, answer("k\u200b", text), keys=["k\u200b"])

    (row,) = all_rows(table)
    assert row.text == "safe<U+202E>gpj.exe<U+200B><U+001B>[31m<U+2028><U+0085>\tend\n"
    assert row.key == "k<U+200B>"
    assert (exported(table, tmp_path)[0]["key"], exported(table, tmp_path)[0]["text"]) == ("k\u200b", text)


def test_an_error_is_one_short_line_without_links(tmp_path: Path) -> None:
    message = "see\u202e https://example.test/?upload_id=1 \n" + "x" * 5000
    row = only_row(tmp_path, line("a", error={"code": 3, "message": message}))

    assert row.error.startswith("code 3: see<U+202E> [link] x")
    assert len(row.error) <= 300


def test_a_long_finish_reason_is_cut(tmp_path: Path) -> None:
    assert len(only_row(tmp_path, answer("a", "x", "R" * 5000)).finish_reason) == 60


@pytest.mark.parametrize("code", [0x00, 0x0B, 0x1B, 0x7F, 0x85, 0xAD, 0x200B, 0x200D, 0x200F, 0x202E, 0x2028, 0x2066])
@pytest.mark.parametrize("place", ["{}", "a{}b"])
def test_characters_that_hide_or_reorder_are_written_out(code: int, place: str) -> None:
    assert visible(place.format(chr(code))) == place.format(f"<U+{code:04X}>")


@pytest.mark.parametrize("code", [0xFE00, 0xFEFF, 0xFFF9, 0x3164, 0xD800, 0xE0041, 0xE0101, 0x1D173, 0x034F, 0x061C])
def test_rarer_carriers_of_hidden_text_are_written_out(code: int) -> None:
    assert visible(chr(code)) == f"<U+{code:04X}>"


@pytest.mark.parametrize("text", ["plain", "tab\tline\n", "naïve 日本語 עברית हिन्दी", "❤️ ☎︎ 😀", ""])
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert visible(text) == text


def test_carriage_returns_become_line_feeds() -> None:
    assert visible("a\r\nb\rc") == "a\nb\nc"


@pytest.mark.parametrize("max_chars", [0, 1, 20, 36, 37, 100])
def test_a_cell_never_passes_its_length(max_chars: int) -> None:
    assert len(visible_cell("\u202e" * 200, max_chars)) <= max_chars
