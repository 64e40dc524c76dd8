"""Tables of batches with retries, and of batches that are not at their end: history, pending rows, steady cursors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from gemini_batch_mcp.domain import RowAttempt, RowStatus, Usage
from gemini_batch_mcp.results.store import AnswerFile, ResultTable, TablePlan
from gemini_batch_mcp.results.table.build import build_planned
from gemini_batch_mcp.results.table.summary import RowRange, dated_ranges
from support.answers import all_rows, answer, answer_file, cells, exported, failure, keys_file, rebuilt, source_file
from support.extent import long

KEYS = [f"k{number}" for number in range(1, 13)]


def shard(directory: Path, first: int, count: int, *, failed: Sequence[str] = ()) -> AnswerFile:
    """Write the answers of a job that sent these keys, from the row `first` (from 0) on."""
    lines = [failure(key) if key in failed else answer(key, f"of {key}") for key in KEYS[first : first + count]]
    path = answer_file(directory, lines, name=f"answers-{first}.jsonl")
    return AnswerFile(path, keys_file(directory, KEYS), 1, first, count)


def lost(directory: Path, first: int, count: int) -> AnswerFile:
    """A job that ended without answers."""
    return AnswerFile(None, keys_file(directory, KEYS), 1, first, count)


def read_on(
    table: ResultTable,
    cursor: str,
    *,
    limit: int = 2,
    view: Literal["rows", "failures"] = "rows",
    keys: Sequence[str] = (),
) -> list[str]:
    """Follow a cursor to the end."""
    found: list[str] = []
    while cursor:
        page = table.page(view=view, limit=limit, cursor=cursor, keys=keys)
        found += [row.key for row in page.rows]
        cursor = page.next_cursor
    return found


def test_the_history_of_a_key_is_told_from_the_raw_answers(tmp_path: Path) -> None:
    first = answer_file(tmp_path, [answer("a"), failure("b"), failure("c"), failure("d"), answer("d", "", "SAFETY")])
    second = answer_file(tmp_path, [answer("b", "better"), failure("d", "again")], name="2.jsonl")
    keys = keys_file(tmp_path, ["a", "b", "c", "d", "e"])
    retried = keys_file(tmp_path, ["b", "c", "d"], name="2-keys.jsonl")
    table = rebuilt(tmp_path, TablePlan((AnswerFile(first, keys), AnswerFile(second, retried, 2))))

    internal = "code 13: Internal error encountered."
    assert table.history(["d", "a", "b", "c", "e", "nobody"]) == {
        "a": (RowAttempt(1, RowStatus.OK, "", "STOP"),),
        "b": (RowAttempt(1, RowStatus.FAILED, internal), RowAttempt(2, RowStatus.OK, "", "STOP")),
        "c": (RowAttempt(1, RowStatus.FAILED, internal), RowAttempt(2, RowStatus.MISSING)),
        "d": (
            RowAttempt(1, RowStatus.FAILED, internal),
            RowAttempt(1, RowStatus.BLOCKED, "stopped: SAFETY", "SAFETY"),
            RowAttempt(2, RowStatus.FAILED, "code 13: again"),
        ),
        "e": (RowAttempt(1, RowStatus.MISSING),),
    }
    assert [row.text for row in all_rows(table)] == ["fine", "better", "", "", ""]


@long
def test_answers_that_need_more_memory_than_is_allowed_at_first_get_it(tmp_path: Path) -> None:
    """Every row was sent twice, and nothing came back in order: lists of attempts are held in memory whole."""
    keys = [f"key-{number:06d}" for number in range(60_000)]
    first = answer_file(tmp_path, [failure(key) for key in reversed(keys)])
    second = answer_file(tmp_path, [answer(key, key) for key in reversed(keys)], name="2.jsonl")
    sent = keys_file(tmp_path, keys)
    plan = TablePlan((AnswerFile(first, sent), AnswerFile(second, sent, 2)))
    build_planned(plan, tmp_path / "results.json", memory_limit_bytes=40 << 20)
    table = ResultTable.open(tmp_path / "results.json")

    assert table.summary().succeeded == 60_000
    assert cells(table, "SELECT count(*) FROM results WHERE text <> key OR len(history) <> 2") == [(0,)]


def test_without_retries_the_history_is_the_row(tmp_path: Path) -> None:
    table = rebuilt(tmp_path, TablePlan((shard(tmp_path, 0, 12, failed=["k2"]),)))

    assert [attempt.status for attempt in table.history(["k2"])["k2"]] == ["failed"]
    assert "history" not in [column.name for column in table.columns]


def test_tokens_of_every_attempt_count(tmp_path: Path) -> None:
    first = answer_file(tmp_path, [answer("a"), answer("b", "", "MAX_TOKENS"), answer("b"), failure("c")])
    second = answer_file(tmp_path, [answer("b", "whole"), answer("c")], name="2.jsonl")
    keys = keys_file(tmp_path, ["a", "b", "c"])
    retried = keys_file(tmp_path, ["b", "c"], name="2-keys.jsonl")
    summary = rebuilt(tmp_path, TablePlan((AnswerFile(first, keys), AnswerFile(second, retried, 2)))).summary()

    assert summary.attempt_usage == (Usage(6, 4, 2), Usage(6, 4, 2))
    assert summary.attempt_wasted == (Usage(3, 2, 1), Usage())
    assert summary.usage == Usage(12, 8, 4)
    assert summary.succeeded == 3


def test_a_retry_that_ended_without_answers_changes_no_row(tmp_path: Path) -> None:
    retried = keys_file(tmp_path, ["k2"], name="2-keys.jsonl")
    plan = TablePlan((shard(tmp_path, 0, 12, failed=["k2"]), AnswerFile(None, retried, 2)))
    table = rebuilt(tmp_path, plan)

    assert [attempt.status for attempt in table.history(["k2"])["k2"]] == ["failed", "missing"]
    assert (table.summary().failed, table.summary().missing) == (1, 0)
    assert len(exported(table, tmp_path)) == 12


def test_rows_of_jobs_that_have_not_ended_are_pending(tmp_path: Path) -> None:
    source = source_file(tmp_path, {"id": [key[1:] for key in KEYS]})
    table = rebuilt(tmp_path, TablePlan((shard(tmp_path, 4, 3, failed=["k6"]),), source_columns=source))

    summary = table.summary()
    assert (summary.expected, summary.succeeded, summary.failed, summary.missing) == (3, 2, 1, 0)
    assert (summary.pending, summary.is_partial, summary.integrity_ok) == (9, True, True)
    assert cells(table, "SELECT id, key, row FROM results ORDER BY row") == [
        ("5", "k5", 5),
        ("6", "k6", 6),
        ("7", "k7", 7),
    ]
    assert [row["id"] for row in exported(table, tmp_path)] == ["5", "6", "7"]


def test_a_job_that_ended_without_answers_leaves_its_rows_missing(tmp_path: Path) -> None:
    table = rebuilt(tmp_path, TablePlan((lost(tmp_path, 0, 4), shard(tmp_path, 4, 4))))

    summary = table.summary()
    assert (summary.expected, summary.missing, summary.pending) == (8, 4, 4)
    assert [row.status for row in all_rows(table)] == ["missing"] * 4 + ["ok"] * 4


def test_an_answer_of_a_pending_row_is_unexpected(tmp_path: Path) -> None:
    path = answer_file(tmp_path, [answer("k1"), answer("k9")])
    table = rebuilt(tmp_path, TablePlan((AnswerFile(path, keys_file(tmp_path, KEYS), 1, 0, 1),)))

    assert (table.summary().unexpected_keys, table.summary().pending) == (("k9",), 11)


def test_a_reading_goes_on_while_the_batch_grows_and_shows_every_row_once(tmp_path: Path) -> None:
    table = rebuilt(tmp_path, TablePlan((shard(tmp_path, 4, 4),), batch_id="b"))
    page = table.page(view="rows", limit=2)
    assert [row.key for row in page.rows] == ["k5", "k6"]

    table = rebuilt(tmp_path, TablePlan((shard(tmp_path, 0, 4), shard(tmp_path, 4, 4)), batch_id="b"))
    page = table.page(view="rows", limit=3, cursor=page.next_cursor)
    assert [row.key for row in page.rows] == ["k7", "k8"]
    page = table.page(view="rows", limit=3, cursor=page.next_cursor)
    assert [row.key for row in page.rows] == ["k1", "k2", "k3"]

    whole = (shard(tmp_path, 0, 4), shard(tmp_path, 4, 4), lost(tmp_path, 8, 4))
    table = rebuilt(tmp_path, TablePlan(whole, batch_id="b"))
    assert read_on(table, page.next_cursor, limit=1) == ["k4", "k9", "k10", "k11", "k12"]
    assert [row.key for row in all_rows(table, limit=5)] == KEYS


def test_failures_and_chosen_keys_are_read_on_in_the_same_way(tmp_path: Path) -> None:
    failed = ["k2", "k6", "k7"]
    table = rebuilt(tmp_path, TablePlan((shard(tmp_path, 4, 4, failed=failed),), batch_id="b"))
    failures = table.page(view="failures", limit=1)
    chosen = table.page(view="rows", limit=1, keys=["k8", "k2", "k6"])

    both = (shard(tmp_path, 0, 4, failed=failed), shard(tmp_path, 4, 4, failed=failed))
    table = rebuilt(tmp_path, TablePlan(both, batch_id="b"))
    assert [row.key for row in failures.rows] == ["k6"]
    assert read_on(table, failures.next_cursor, view="failures") == ["k7", "k2"]
    assert [row.key for row in chosen.rows] == ["k6"]
    assert read_on(table, chosen.next_cursor, keys=["k8", "k2", "k6"]) == ["k8", "k2"]


def test_a_reading_that_has_nothing_left_goes_straight_to_what_is_new(tmp_path: Path) -> None:
    """k7 failed when the page was read, and has been answered by a retry since."""
    failed = ["k6", "k7"]
    shards = (shard(tmp_path, 4, 4, failed=failed),)
    page = rebuilt(tmp_path, TablePlan(shards, batch_id="b")).page(view="failures", limit=1)
    retried = keys_file(tmp_path, ["k7"], name="2-keys.jsonl")
    second = AnswerFile(answer_file(tmp_path, answer("k7", "better"), name="2.jsonl"), retried, 2)
    table = rebuilt(tmp_path, TablePlan((lost(tmp_path, 0, 2), *shards, second), batch_id="b"))

    page = table.page(view="failures", limit=5, cursor=page.next_cursor)
    assert ([row.key for row in page.rows], page.next_cursor) == (["k1", "k2"], "")


def test_a_table_that_was_lost_starts_counting_its_builds_anew(tmp_path: Path) -> None:
    rebuilt(tmp_path, TablePlan((shard(tmp_path, 4, 4),), batch_id="b"))
    table = rebuilt(tmp_path, TablePlan((shard(tmp_path, 0, 4), shard(tmp_path, 4, 4)), batch_id="b"))
    cursor = table.page(view="rows", limit=1).next_cursor
    (tmp_path / "results.json").unlink()

    table = rebuilt(tmp_path, TablePlan((shard(tmp_path, 0, 12),), batch_id="b"))
    assert read_on(table, cursor) == KEYS[1:]


def test_another_batch_at_the_same_place_does_not_inherit(tmp_path: Path) -> None:
    rebuilt(tmp_path, TablePlan((shard(tmp_path, 4, 4),), batch_id="b"))
    table = rebuilt(tmp_path, TablePlan((shard(tmp_path, 0, 12),), batch_id="c"))

    assert len(table.page(view="rows", limit=20).rows) == 12
    assert table.page(view="rows", limit=20).next_cursor == ""


def test_ranges_keep_the_build_since_which_they_are_there() -> None:
    before = (RowRange(1, 4, 1), RowRange(9, 12, 2))

    assert dated_ranges([(1, 14)], before) == (
        RowRange(1, 4, 1),
        RowRange(5, 8, 3),
        RowRange(9, 12, 2),
        RowRange(13, 14, 3),
    )
    assert dated_ranges([(1, 4), (9, 12)], before) == before
    assert dated_ranges([(2, 3), (20, 21)], before) == (RowRange(2, 3, 1), RowRange(20, 21, 3))
    assert dated_ranges([], before) == ()
