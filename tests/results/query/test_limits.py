"""Queries that would run for ever, take all memory or bring the engine down: stopped, and the next one works."""

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.results.query._limits import watched
from gemini_batch_mcp.results.query.queries import QueryEngine
from support.answers import ask, table_at
from support.extent import few, in_part, long, part

#: Each takes hours, or more memory than there is, when nothing stops it.
BOMBS = (
    "SELECT count(*) FROM results a, results b, results c, results d",
    "SELECT count(*) FROM results a JOIN results b ON a.row < b.row JOIN results c ON b.row < c.row, results d",
    "SELECT count(*) FROM range(1000000000000)",
    "SELECT sum(i) FROM generate_series(1, 1000000000000) t(i)",
    "SELECT * FROM range(1000000000000) t(i) WHERE i < 0",
    "SELECT count(*) FROM range(TIMESTAMP '0001-01-01', TIMESTAMP '9999-01-01', INTERVAL 1 MICROSECOND)",
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t",
    "WITH RECURSIVE t(s) AS (SELECT 'x' UNION ALL SELECT s || s FROM t) SELECT max(length(s)) FROM t",
    "SELECT count(*) FROM (SELECT DISTINCT text || i FROM results, range(1000000) t(i))",
    "SELECT string_agg(text, '') FROM results, range(10000000)",
    "SELECT list(text) FROM results, range(10000000)",
    "SELECT histogram(i) FROM range(1000000000) t(i)",
    "FROM results a, results b, results c ORDER BY hash(a.row, b.row, c.row)",
    "SELECT quantile_cont(i, 0.5) FROM range(10000000000) t(i)",
    "SELECT mode(a.key || b.key) OVER (ORDER BY a.row ROWS 50000 PRECEDING) FROM results a, results b",
    "SELECT length(repeat('x', 4000000000))",
    "SELECT repeat('x', 1000000000)",
    "SELECT lpad('x', 2000000000, 'y')",
    "SELECT printf('%1000000000d', 1)",
    "SELECT len(range(50000000))",
    "SELECT unnest(range(1000000000))",
    "SELECT list_aggregate(range(50000000), 'mad')",
    "SELECT list_sum(list_transform(range(30000), lambda x: list_sum(list_transform(range(30000), lambda y: x + y))))",
    "SELECT list_reduce(list_transform(range(60), lambda i: 'x'), lambda a, b: a || a)",
    "SELECT levenshtein(repeat('a', 200000), repeat('b', 200000))",
    "SELECT damerau_levenshtein(repeat('a', 20000), repeat('b', 20000))",
    "SELECT regexp_extract_all(repeat('ab', 50000000), 'a')",
    "SELECT regexp_replace(repeat('a', 100000000), 'a', 'bbbbbbbbbb', 'g')",
    "SELECT strip_accents(repeat('é', 100000000))",
    "SELECT string_split_regex(repeat('a b', 20000000), '\\s')",
    "SELECT replace(replace(replace(repeat('a', 100000), 'a', repeat('a', 1000)), 'a', repeat('a', 1000)), 'a', 'bb')",
)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return table_at(tmp_path_factory.mktemp("limits") / "results.parquet")


@pytest.fixture(scope="module")
def engine() -> Iterator[QueryEngine]:
    with QueryEngine() as engine:
        yield engine


@few(5)
@in_part
@pytest.mark.parametrize("bomb", part(BOMBS, 3))
def test_a_bomb_is_stopped_and_the_next_query_works(engine: QueryEngine, table: Path, bomb: str) -> None:
    # With less memory than usual the large ones end sooner, and all of them end in time.
    started = time.monotonic()
    with pytest.raises(UsageError, match=r"did not finish within 0\.4 seconds|memory that it may use|out of the range"):
        engine.query_table(table, bomb, time_limit_seconds=0.4, memory_limit_bytes=256 << 20)
    assert time.monotonic() - started < 60
    assert engine.query_table(table, "SELECT count(*) FROM results").rows == ((1000,),)


@few(6)
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT " + "(" * 9000 + "1" + ")" * 9000,
        "SELECT " + "[" * 9000 + "1" + "]" * 9000,
        "SELECT 1" + " + 1" * 4500,
        "SELECT " + "NOT " * 4500 + "true",
        "SELECT " + "- " * 9000 + "1",
        "SELECT " + "(SELECT " * 2000 + "1" + ")" * 2000,
        "SELECT " + "CASE WHEN true THEN " * 800 + "1" + " END" * 800,
        "SELECT " + "upper(" * 2500 + "'x'" + ")" * 2500,
        "SELECT 'x'" + ".upper()" * 2000,
        "SELECT 1" + " UNION SELECT 1" * 1200,
        "SELECT * FROM results" + ", results" * 1500,
        "SELECT " + ", ".join(["results.*"] * 1500) + " FROM results",
        "SELECT " + ", ".join(["1"] * 6000),
        "WITH a0 AS (SELECT 1 AS x)"
        + "".join(f", a{i} AS (SELECT * FROM a{i - 1} UNION ALL SELECT * FROM a{i - 1})" for i in range(1, 60))
        + " SELECT count(*) FROM a59",
        "WITH a0 AS (SELECT 1 AS x)"
        + "".join(f", a{i} AS (SELECT *, * FROM a{i - 1})" for i in range(1, 40))
        + " FROM a39",
    ],
    ids=lambda sql: sql[:24],
)
def test_a_statement_that_is_too_deep_or_too_wide_harms_nobody(engine: QueryEngine, table: Path, sql: str) -> None:
    started = time.monotonic()
    with pytest.raises(UsageError):
        engine.query_table(table, sql, time_limit_seconds=2.0, memory_limit_bytes=256 << 20)
    assert time.monotonic() - started < 60
    assert engine.query_table(table, "SELECT count(*) FROM results").rows == ((1000,),)


def test_the_time_limit_says_what_it_was_and_what_to_do(table: Path) -> None:
    with pytest.raises(UsageError) as stopped:
        ask(table, "SELECT count(*) FROM range(1000000000000)", time_limit_seconds=0.2)
    assert stopped.value.message == "The query did not finish within 0.2 seconds and was stopped."
    assert "GROUP BY" in stopped.value.next_step


def test_the_memory_limit_says_what_it_was_and_what_to_do(table: Path) -> None:
    with pytest.raises(UsageError) as stopped:
        ask(table, "SELECT list(text) FROM results, range(1000000)", memory_limit_bytes=32 << 20)
    assert stopped.value.message == "The query needs more than the 32 MiB of memory that it may use."
    assert "WHERE" in stopped.value.next_step


def test_a_limit_in_which_not_even_the_table_can_be_opened_is_one_of_memory(table: Path) -> None:
    with pytest.raises(UsageError, match="needs more than the 0 MiB"):
        ask(table, "SELECT 1", memory_limit_bytes=1)


@long
def test_a_heavy_query_and_those_after_it_leave_the_engine_as_it_was(engine: QueryEngine, table: Path) -> None:
    """Memory that one query met its limit with must not be missing for the next."""
    heavy = "SELECT count(DISTINCT md5(i::VARCHAR)) FROM range(1000000) t(i)"
    for _ in range(2):
        assert engine.query_table(table, heavy).rows == ((1_000_000,),)
        with pytest.raises(UsageError, match="memory"):
            engine.query_table(table, "SELECT list(text) FROM results, range(1000000)")


def test_a_query_that_waits_for_itself_is_told_from_one_that_works(tmp_path: Path, engine: QueryEngine) -> None:
    """DuckDB 2.0.0 waits for ever for the first one; once that is below the floor, the advice can go.

    In a process of its own, as what other threads of a process do counts as progress.
    """
    table = table_at(tmp_path / "results.parquet", "SELECT i AS key FROM range(100000) numbers(i)")
    joined = "WITH a AS (SELECT key, count(*) AS n FROM results GROUP BY 1) SELECT * FROM a x JOIN a y USING (key)"
    if duckdb.__version__ == "2.0.0":
        with pytest.raises(UsageError) as stuck:
            engine.query_table(table, f"{joined} LIMIT 6")
        assert "stuck" in stuck.value.message
        assert "ORDER BY" in stuck.value.next_step
    else:
        assert engine.query_table(table, f"{joined} LIMIT 6").row_count == 6
    assert engine.query_table(table, joined, limit=6).row_count == 6
    assert engine.query_table(table, f"{joined} ORDER BY key LIMIT 6").row_count == 6


def test_a_statement_without_progress_is_interrupted_long_before_its_time_is_up() -> None:
    with duckdb.connect() as connection, watched(connection, 60.0, stuck_seconds=0.2) as watch:
        with pytest.raises(duckdb.InterruptException):
            connection.execute("SELECT sleep_ms(60000)").fetchall()
        assert watch.is_stuck


@pytest.mark.skipif(sys.platform != "linux", reason="only there a process sees what its threads wait for")
@long
def test_a_statement_that_others_keep_from_the_processor_is_not_taken_for_stuck() -> None:
    """A process of the lowest priority, beside another on its one processor, gets a seventieth of it."""
    statement = """
        import os, sys, duckdb
        from gemini_batch_mcp.results.query._limits import watched
        os.sched_setaffinity(0, {int(sys.argv[1])})
        connection = duckdb.connect(config={"threads": 1})
        connection.execute("SET enable_progress_bar = false")
        os.nice(19)
        with watched(connection, 60.0, stuck_seconds=0.1) as watch:
            connection.execute("SELECT sum(hash(i)) FROM range(1000000) r(i)").fetchall()
        print(watch.is_stuck)
    """
    processor = str(min(os.sched_getaffinity(0)))
    spin = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"
    other = subprocess.Popen([sys.executable, "-c", spin, processor])
    try:
        command = [sys.executable, "-c", textwrap.dedent(statement), processor]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
    finally:
        other.kill()
        other.wait()
    assert answer.stdout == "False\n"


def test_the_rows_of_an_endless_query_are_shown_as_they_come(table: Path) -> None:
    answer = ask(table, "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n FROM t) SELECT * FROM t", limit=3)
    assert answer.rows == ((1,), (1,), (1,))
    assert answer.truncated


def test_a_sort_without_limit_keeps_only_the_rows_that_are_shown(table: Path) -> None:
    wide = "SELECT i, repeat(chr(97 + i::INT % 26), 5000) AS t FROM range(20000) r(i) ORDER BY t DESC, i"
    answer = ask(table, wide, limit=3, memory_limit_bytes=64 << 20)
    assert [row[0] for row in answer.rows] == [25, 51, 77]


def test_queries_from_several_threads_get_their_own_answers(engine: QueryEngine, table: Path) -> None:
    found: dict[int, object] = {}

    def count(number: int) -> None:
        found[number] = engine.query_table(table, f"SELECT count(*) FROM results WHERE row <= {number}").rows

    threads = [threading.Thread(target=count, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: ((number,),) for number in range(12)}
