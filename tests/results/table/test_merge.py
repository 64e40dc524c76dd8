"""Which line answers which key: order, missing, duplicate and unexpected keys, attempts, and keys nobody knows."""

import random
from pathlib import Path

import pytest

from gemini_batch_mcp.errors import StorageError
from gemini_batch_mcp.results.store import AnswerFile, ResultTable, build_table
from support.answers import all_rows, answer, answer_file, exported, failure, keys_file, status_sum, table_of


def texts(table: ResultTable) -> list[tuple[str, str]]:
    return [(row.key, row.text or str(row.status)) for row in all_rows(table)]


def test_answers_in_order_are_all_there(tmp_path: Path) -> None:
    table = table_of(tmp_path, [answer("b"), failure("a")], keys=["b", "a"])

    summary = table.summary()
    assert texts(table) == [("b", "fine"), ("a", "failed")]
    assert (summary.expected, summary.returned, summary.succeeded, summary.failed) == (2, 2, 1, 1)
    assert summary.integrity_ok


def test_shuffled_answers_come_back_in_request_order_under_their_own_keys(tmp_path: Path) -> None:
    keys = [f"k{number}" for number in range(20_000)]
    lines = [answer(key, f"answer of {key}") for key in keys]
    random.Random(1).shuffle(lines)
    table = table_of(tmp_path, lines, keys=keys)

    assert table.summary().integrity_ok
    assert texts(table) == [(key, f"answer of {key}") for key in keys]


def test_missing_duplicate_and_unexpected_keys_are_counted_and_named(tmp_path: Path) -> None:
    lines = [
        answer("c", "first"),
        answer("c", "again"),
        answer("x"),
        answer(None),
        b'{"key": "b", "resp\n',
        answer("a"),
    ]
    table = table_of(tmp_path, lines, keys=["a", "b", "c", "d"])

    summary = table.summary()
    assert texts(table) == [("a", "fine"), ("b", "missing"), ("c", "first"), ("d", "missing")]
    assert (summary.expected, summary.returned, summary.missing) == (4, 2, 2)
    assert (summary.duplicate, summary.unexpected, summary.malformed) == (1, 3, 1)
    assert summary.missing_keys == ("b", "d")
    assert summary.duplicate_keys == ("c",)
    assert summary.unexpected_keys == ("x", "line 4 (no key)", "line 5 (not readable)")
    assert not summary.integrity_ok


def test_only_a_few_keys_are_named(tmp_path: Path) -> None:
    summary = table_of(tmp_path, b"", keys=[f"k{number}" for number in range(9)]).summary()

    assert (summary.missing, summary.missing_keys) == (9, ("k0", "k1", "k2", "k3", "k4"))


def test_among_duplicates_the_first_ok_line_stays(tmp_path: Path) -> None:
    lines = [failure("a"), answer("a", "good"), answer("a", "later"), failure("b", "one"), answer("b", "", "SAFETY")]
    table = table_of(tmp_path, lines, keys=["a", "b"])

    assert [(row.text, row.error) for row in all_rows(table)] == [("good", ""), ("", "code 13: one")]
    assert (table.summary().duplicate, table.summary().duplicate_keys) == (3, ("a", "b"))


def test_the_latest_good_attempt_wins_and_attempts_are_no_duplicates(tmp_path: Path) -> None:
    keys = keys_file(tmp_path, ["a", "b", "c", "d"])
    retried = keys_file(tmp_path, ["a", "b", "c"], name="retried.jsonl")
    first = answer_file(tmp_path, [answer("a", "old"), answer("b", "kept"), failure("c"), answer("d", "once")])
    second = answer_file(tmp_path, [failure("b"), answer("a", "new"), answer("c", "", "SAFETY")], name="2.jsonl")
    destination = tmp_path / "results.json"
    summary = build_table([AnswerFile(first, keys), AnswerFile(second, retried, attempt=2)], destination)

    table = ResultTable.open(destination)
    assert texts(table) == [("a", "new"), ("b", "kept"), ("c", "blocked"), ("d", "once")]
    assert summary.integrity_ok
    assert (summary.expected, summary.duplicate) == (4, 0)


def test_shards_in_order_make_one_table(tmp_path: Path) -> None:
    keys = keys_file(tmp_path, ["a", "b", "c"])
    shards = [
        answer_file(tmp_path, [answer("a"), b"\n", answer("b")], name="1.jsonl"),
        answer_file(tmp_path, b"", name="2.jsonl"),
        answer_file(tmp_path, [answer("c", "last")], name="3.jsonl"),
    ]
    destination = tmp_path / "results.json"
    summary = build_table([AnswerFile(shard, keys) for shard in shards], destination)

    table = ResultTable.open(destination)
    assert summary.integrity_ok
    assert texts(table) == [("a", "fine"), ("b", "fine"), ("c", "last")]
    assert [row["response"]["candidates"][0]["content"]["parts"][0]["text"] for row in exported(table, tmp_path)] == [
        "fine",
        "fine",
        "last",
    ]


def test_without_known_keys_rows_stand_in_line_order(tmp_path: Path) -> None:
    table = table_of(tmp_path, [answer("z"), answer("a", "first"), answer("a", "again"), answer("m")])

    assert texts(table) == [("z", "fine"), ("a", "first"), ("m", "fine")]
    assert (table.summary().expected, table.summary().duplicate, table.summary().unexpected) == (3, 1, 0)


def test_a_job_without_any_keys_shows_its_answers_by_line(tmp_path: Path) -> None:
    table = table_of(tmp_path, [answer(None, "one"), answer(None, "two")], expected_rows=2)

    assert texts(table) == [("line 1 (no key)", "one"), ("line 2 (no key)", "two")]
    assert table.summary().integrity_ok


def test_a_line_without_key_among_others_is_shown_and_counts_as_unexpected(tmp_path: Path) -> None:
    table = table_of(tmp_path, [answer("a"), answer(None, "stray")], expected_rows=2)

    assert texts(table) == [("a", "fine"), ("line 2 (no key)", "stray")]
    assert (table.summary().expected, table.summary().unexpected) == (2, 1)
    assert table.summary().unexpected_keys == ("line 2 (no key)",)


def test_lines_without_key_say_which_file_they_stand_in(tmp_path: Path) -> None:
    files = [AnswerFile(answer_file(tmp_path, answer(None), name=f"{number}.jsonl")) for number in (1, 2)]
    build_table(files, tmp_path / "results.json")

    rows = all_rows(ResultTable.open(tmp_path / "results.json"))
    assert [row.key for row in rows] == ["line 1 of file 1 (no key)", "line 1 of file 2 (no key)"]


@pytest.mark.parametrize(("expected_rows", "missing", "unexpected"), [(0, 0, 0), (2, 0, 0), (5, 3, 0), (1, 0, 1)])
def test_without_known_keys_the_row_count_of_the_job_decides(
    tmp_path: Path, expected_rows: int, missing: int, unexpected: int
) -> None:
    table = table_of(tmp_path, [answer("a"), failure("b")], expected_rows=expected_rows)

    summary = table.summary()
    assert (summary.missing, summary.unexpected) == (missing, unexpected)
    assert status_sum(summary) == summary.expected == max(expected_rows, 2)


def test_no_answers_at_all_is_an_empty_table(tmp_path: Path) -> None:
    summary = build_table([], tmp_path / "results.json", expected_rows=3)

    table = ResultTable.open(tmp_path / "results.json")
    assert (summary.expected, summary.missing, status_sum(summary)) == (3, 3, 3)
    assert all_rows(table) == []
    assert exported(table, tmp_path) == []


def test_keys_of_any_form_are_matched(tmp_path: Path) -> None:
    keys = ['quote " and \\ backslash', "é\u2028\U0001f600", " spaced ", "null", "a,b", "line 1 (no key)"]
    table = table_of(tmp_path, [answer(key, "of it") for key in keys], keys=keys)

    assert table.summary().integrity_ok
    assert [row["key"] for row in exported(table, tmp_path)] == keys


def test_a_key_that_is_no_character_is_mended_on_both_sides(tmp_path: Path) -> None:
    table = table_of(tmp_path, [answer("a"), answer("b\ud800", "found")], keys=["a", "b\ud800"])

    assert texts(table) == [("a", "fine"), ("b\ufffd", "found")]
    assert table.summary().integrity_ok


def test_keys_sent_twice_are_one_row(tmp_path: Path) -> None:
    table = table_of(tmp_path, [answer("a"), answer("b"), answer("a")], keys=["a", "b", "a"])

    assert texts(table) == [("a", "fine"), ("b", "fine")]
    assert table.summary().duplicate == 1


@pytest.mark.parametrize("damage", [b'"cut\n', b'{"key": 1}garbage\n', b"null\n"])
def test_a_damaged_keys_file_is_named(tmp_path: Path, damage: bytes) -> None:
    keys = answer_file(tmp_path, b'"a"\n\n' + damage, name="keys.jsonl")
    answers = answer_file(tmp_path, answer("a"))

    with pytest.raises(StorageError, match=r"Key 2 in .*keys\.jsonl cannot be read"):
        build_table([AnswerFile(answers, keys)], tmp_path / "results.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers-1.jsonl", "keys.jsonl"]
