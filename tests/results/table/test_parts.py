"""A table in many parts is read as one, in order; and whoever reads while it is built again gets a whole one."""

import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from gemini_batch_mcp.domain import RowStatus
from gemini_batch_mcp.errors import StorageError
from gemini_batch_mcp.results.chosen import keys_that_ended
from gemini_batch_mcp.results.engine import connect, parts_of, rows_of
from gemini_batch_mcp.results.query.queries import QueryEngine
from gemini_batch_mcp.results.store import AnswerFile, ResultTable, TablePlan
from gemini_batch_mcp.results.table._parts import MAX_PARTS, Parts
from support.answers import all_rows, answer, answer_file, ask, exported, keys_file, rebuilt, source_file
from support.extent import IS_FULL, few, in_part, long
from support.loading import scratch


def part_of(directory: Path, query: str) -> Path:
    path = directory / "part.parquet"
    scratch().execute(f"COPY ({query}) TO '{path}' (FORMAT parquet, ROW_GROUP_SIZE 2048)")
    return path


def table_in_parts(
    directory: Path,
    keys: Sequence[str],
    *,
    count: int,
    missing: Sequence[str] = (),
    source_columns: Path | None = None,
) -> ResultTable:
    """Build a table from answer files, each of which makes a part of its own."""
    keys_path, bounds = keys_file(directory, keys), [at * len(keys) // count for at in range(count + 1)]
    answers = tuple(
        AnswerFile(
            answer_file(
                directory,
                [answer(key, f"of {key}") for key in keys[first:last] if key not in missing],
                name=f"answers-{first}.jsonl",
            ),
            keys_path,
            first_row=first,
            row_count=last - first,
        )
        for first, last in pairwise(bounds)
    )
    return rebuilt(directory, TablePlan(answers, source_columns=source_columns))


#: Answer files, and the parts that they become; of the counts, the last ones take longest.
COUNTS = [(1, 1), (3, 3), (MAX_PARTS + 1, MAX_PARTS), (MAX_PARTS, MAX_PARTS), (3 * MAX_PARTS, MAX_PARTS)]


@few(2)
@in_part
@pytest.mark.parametrize(("count", "parts"), COUNTS if IS_FULL else COUNTS[:3])
def test_every_way_to_read_a_table_reads_its_parts_as_one(tmp_path: Path, count: int, parts: int) -> None:
    keys = [f"k{number}" for number in range(4 * count)]
    table = table_in_parts(tmp_path, keys, count=count)

    assert len(parts_of(table.folder)) == parts
    assert [row.key for row in all_rows(table, limit=7)] == keys
    assert [row.text for row in table.page(view="rows", limit=5, keys=[keys[-1]]).rows] == [f"of {keys[-1]}"]
    assert [row["key"] for row in exported(table, tmp_path)] == keys
    lines = table.export(tmp_path / "x.csv", "csv").path.read_text("utf-8").splitlines()
    assert [line.partition(",")[0] for line in lines] == ["key", *keys]
    saved = table.export(tmp_path / "x.parquet", "parquet").path
    assert scratch().execute(f"SELECT key FROM '{saved}'").fetchall() == [(key,) for key in keys]
    assert keys_that_ended(table.folder, [RowStatus.OK]) == frozenset(keys)
    found = ask(table.folder, "SELECT row FROM results", limit=1000).rows
    assert [row for (row,) in found] == list(range(1, len(keys) + 1))
    with QueryEngine() as engine:
        sql = "SELECT status, count(*) FROM results JOIN results again USING (row, status) GROUP BY 1"
        assert engine.query_table(table.folder, sql).rows == (("ok", len(keys)),)


@few(1)
@pytest.mark.parametrize("with_source", [True, False])
@long
def test_parts_that_are_not_the_table_yet_are_laid_out_in_order(tmp_path: Path, with_source: bool) -> None:
    """Rows without an answer take a second and a third pass over the parts."""
    keys = [f"k{number}" for number in range(3 * MAX_PARTS)]
    source = source_file(tmp_path, {"name": [f"name of {key}" for key in keys]}) if with_source else None
    table = table_in_parts(tmp_path, keys, count=MAX_PARTS + 8, missing=["k7", "k50"], source_columns=source)

    rows = all_rows(table)
    assert [row.key for row in rows] == keys
    assert [row.key for row in rows if row.status == "missing"] == ["k7", "k50"]
    lines = exported(table, tmp_path)
    assert [line["key"] for line in lines] == keys
    assert not with_source or [line["name"] for line in lines] == [f"name of {key}" for key in keys]


def test_parts_may_be_cut_off_again(tmp_path: Path) -> None:
    for kept in (0, 1):
        parts = Parts(tmp_path / f"parts-{kept}")
        for name in ("first", "void", "void"):
            parts.add(part_of(tmp_path, f"SELECT '{name}' AS name"))
        parts.cut(kept)
        assert len(parts) == kept
        parts.add(part_of(tmp_path, "SELECT 'last' AS name"))

        found = scratch().execute(f"FROM {rows_of(parts.folder)}").fetchall()
        assert found == [("first",), ("last",)][1 - kept :]


def test_joined_parts_hold_what_they_held_and_stay_in_order(tmp_path: Path) -> None:
    """Also lists, structs, and parts without a row or without a NULL."""
    query = """SELECT range AS n, [range, NULL] AS list, {{'a': range / 3}} AS struct,
                      CASE WHEN range % 2 = 0 THEN 'x' END AS maybe FROM range({}, {}) ORDER BY n"""
    bounds = [0, *range(0, 50 * (2 * MAX_PARTS + 1), 50), 10_000]
    parts = Parts(tmp_path / "parts")
    for first, last in pairwise(bounds):
        parts.add(part_of(tmp_path, query.format(first, last)))
    connection = connect(1 << 28, tmp_path)
    try:
        parts.join(connection, 1 << 28)
        assert len(parts_of(parts.folder)) == MAX_PARTS
        found = connection.execute(f"FROM {rows_of(parts.folder)}").fetchall()
        assert found == connection.execute(query.format(0, 10_000)).fetchall()
    finally:
        connection.close()


def test_a_table_that_is_built_again_while_it_is_read_is_read_anew(tmp_path: Path) -> None:
    opened = table_in_parts(tmp_path, ["a", "b", "c", "d"], count=2)
    read: list[Path] = []

    def keys_of(table: ResultTable) -> frozenset[str]:
        read.append(table.folder)
        if len(read) < 3:
            table_in_parts(tmp_path, ["a", "b", "c", f"d{len(read)}"], count=2)
        return keys_that_ended(table.folder, [RowStatus.OK])

    assert opened.while_there(keys_of) == {"a", "b", "c", "d2"}
    assert len(set(read)) == 3 and [folder for folder in tmp_path.iterdir() if folder.is_dir()] == [read[-1]]
    assert [row.key for row in all_rows(opened)] == ["a", "b", "c", "d2"]
    assert [row["key"] for row in exported(opened, tmp_path)] == ["a", "b", "c", "d2"]
    assert opened.history(["d2"]).keys() == {"d2"}


def test_a_failure_that_no_newer_table_explains_is_told(tmp_path: Path) -> None:
    opened = table_in_parts(tmp_path, ["a", "b"], count=2)
    calls: list[ResultTable] = []

    def fail(table: ResultTable) -> None:
        calls.append(table)
        raise StorageError("The disk is full.", "Free some space.")

    with pytest.raises(StorageError, match="The disk is full"):
        opened.while_there(fail)
    assert calls == [opened]
    (tmp_path / "results.json").unlink()
    with pytest.raises(StorageError, match="There is no result table"):
        opened.while_there(fail)


@pytest.mark.skipif(sys.platform == "win32", reason="there a file that is open stays")
def test_who_has_a_part_open_reads_it_to_its_end(tmp_path: Path) -> None:
    keys = [f"k{number}" for number in range(9000)]
    opened = table_in_parts(tmp_path, keys, count=1)
    connection = connect(1 << 28, tmp_path)
    try:
        result = connection.execute(f"SELECT key FROM {rows_of(opened.folder)}")
        first = result.fetchmany(10)
        table_in_parts(tmp_path, ["other"], count=1)
        assert not opened.folder.exists()
        assert first + result.fetchall() == [(key,) for key in keys]
    finally:
        connection.close()
