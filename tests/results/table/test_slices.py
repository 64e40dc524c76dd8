"""Answers that are staged while they arrive: slices, and the same table as from the whole file."""

import io
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gemini_batch_mcp.errors import StorageError
from gemini_batch_mcp.results.engine import connect
from gemini_batch_mcp.results.store import AnswerFile, ResultTable, TableBuild, TablePlan
from gemini_batch_mcp.results.table._slice_files import SliceFiles
from gemini_batch_mcp.results.table.slices import AnswerBytes, Slice, slices_of
from support.answers import all_rows, answer, answer_file, cells, exported, failure, keys_file, source_file
from support.extent import few, in_part, tries

BOM = b"\xef\xbb\xbf"


def pieces(content: bytes, sizes: Iterator[int]) -> Iterator[bytes]:
    at = 0
    while at < len(content):
        size = next(sizes)
        yield content[at : at + size]
        at += size


def arriving(
    directory: Path, content: bytes, *, plan: TablePlan | None = None, keys: list[str] | None = None, seed: int = 0
) -> ResultTable:
    """Build a table from a file that arrives in pieces, and gets its name at the end."""
    path, part = directory / "answers-1.jsonl", directory / "part"
    keys_path = None if keys is None else keys_file(directory, keys)
    plan = plan or TablePlan((AnswerFile(path, keys_path),))
    sizes = random.Random(seed)
    answers = AnswerBytes()
    with TableBuild(plan, directory / "results.json") as build, ThreadPoolExecutor(1) as staging:
        staged = staging.submit(build.add_next, answers)
        try:
            answers.begin(part)
            with part.open("wb", buffering=0) as file:
                for piece in pieces(content, iter(lambda: sizes.randint(1, 60), 0)):
                    file.write(piece)
                    answers.arrive(len(piece))
            with answers.moving(path):
                part.replace(path)
        finally:
            answers.complete()
        staged.result()
        build.finish()
    return ResultTable.open(directory / "results.json")


@pytest.fixture
def short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices of a hundred bytes, so that a small file has many."""
    monkeypatch.setattr("gemini_batch_mcp.results.table.build._PLAIN_SLICE_BYTES", 100)
    monkeypatch.setattr("gemini_batch_mcp.results.table.build._SLICE_BYTES", 100)


def contents_of(piece: Slice) -> bytes:
    with piece.open() as file:
        return file.read()


@in_part
@settings(
    max_examples=tries(40, 6),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.sampled_from([b"", b" ", b"\r", BOM, BOM + b" ", b"{", b"\xff", b"line", BOM + b"line", b"x" * 50])
        | st.binary(max_size=4),
        max_size=30,
    ),
    st.integers(0, 1000),
)
@example([b"", BOM, b"\xff"], 0)
def test_slices_hold_the_lines_of_the_file_and_count_them_alike(
    short_slices: None, lines: list[bytes], seed: int
) -> None:
    content = b"\n".join(lines)
    with TemporaryDirectory() as name:
        directory = Path(name)
        answers = AnswerBytes.of(answer_file(directory, content))
        slices, contents = [], []
        for piece in slices_of(answers, 20):
            contents.append(contents_of(piece))
            slices.append(piece)

        assert b"".join(contents) == content
        assert all(part.endswith(b"\n") for part in contents[:-1])
        assert not any(part.startswith(BOM) for part in contents[1:])
        assert [piece.max_lines() for piece in slices] == [len(part.split(b"\n")) for part in contents]
        table = arriving(directory, content, seed=seed)
        assert len(exported(table, directory)) == table.row_count


def test_a_table_is_the_same_whether_its_answers_arrive_or_are_there(short_slices: None, tmp_path: Path) -> None:
    lines = [answer(f"k{number}", f"text {number}" * (number % 5)) for number in range(60)]
    lines[10], lines[20:20], lines[30] = failure("k10"), [b"\n", b"  \r\n"], answer("k29", "again\xff")
    lines[40] = answer("k40", "BYTE").replace(b"BYTE", b"\xff")
    content = BOM + b"".join(lines) + b'{"cut'
    keys = [f"k{number}" for number in range(61)]
    (tmp_path / "arriving").mkdir()
    (tmp_path / "there").mkdir()
    first = arriving(tmp_path / "arriving", content, keys=keys)
    with TableBuild(
        TablePlan((AnswerFile(answer_file(tmp_path / "there", content), keys_file(tmp_path / "there", keys)),)),
        tmp_path / "there" / "results.json",
    ) as build:
        build.add_next()
        build.finish()
    second = ResultTable.open(tmp_path / "there" / "results.json")

    assert first.summary() == second.summary()
    everything = "SELECT * FROM results ORDER BY row"
    assert cells(first, everything) == cells(second, everything)
    assert exported(first, tmp_path) == exported(second, tmp_path)
    assert first.summary().missing == 3 and first.summary().duplicate == 2


@few(2)
@pytest.mark.parametrize("schema", [{}, {"type": "object", "properties": {"n": {"type": "integer"}}}])
@pytest.mark.parametrize("is_shuffled", [False, True])
def test_slices_of_a_table_meet_the_columns_of_their_rows(
    short_slices: None, tmp_path: Path, schema: dict[str, Any], is_shuffled: bool
) -> None:
    keys = [f"k{number}" for number in range(50)]
    lines = [answer(key, f'{{"n": {number}}}') for number, key in enumerate(keys)]
    if is_shuffled:
        random.Random(2).shuffle(lines)
    source = source_file(tmp_path, {"id": [str(number) for number in range(50)]})
    content = b"".join(lines)
    answers = (AnswerFile(answer_file(tmp_path, content), keys_file(tmp_path, keys)),)
    plan = TablePlan(answers, source_columns=source, response_schema=schema)
    table = arriving(tmp_path, content, plan=plan)

    assert table.summary().integrity_ok
    assert [row.key for row in all_rows(table)] == keys
    assert cells(table, "SELECT count(*) FROM results WHERE text = '{\"n\": ' || id || '}' AND 'k' || id = key") == [
        (50,)
    ]
    if schema:
        assert cells(table, "SELECT count(*) FROM results WHERE n = id::INTEGER") == [(50,)]


def test_a_file_that_is_sent_again_is_taken_from_the_disk(tmp_path: Path) -> None:
    whole = [answer("a"), answer("b"), answer("c")]
    path = answer_file(tmp_path, whole)
    other = answer_file(tmp_path, [answer("z")], name="2.jsonl")
    torn = answer_file(tmp_path, [answer("x"), answer("a")[:20]], name="torn.jsonl")
    with TableBuild(TablePlan((AnswerFile(other), AnswerFile(path))), tmp_path / "results.json") as build:
        build.add_next()
        build.add_next(AnswerBytes.of(torn))
        assert build.answer_counts == (1, 1)
        build.begin_again()
        assert build.answer_counts == (1, 3)
        build.finish()

    assert [row.key for row in all_rows(ResultTable.open(tmp_path / "results.json"))] == ["z", "a", "b", "c"]


def test_a_build_that_is_left_leaves_nothing(tmp_path: Path) -> None:
    plan = TablePlan((AnswerFile(answer_file(tmp_path, answer("a"))),))
    with TableBuild(plan, tmp_path / "results.json") as build:
        build.add_next()

    assert [path.name for path in tmp_path.iterdir()] == ["answers-1.jsonl"]


def test_answers_that_are_gone_meanwhile_are_a_storage_error(tmp_path: Path) -> None:
    path = answer_file(tmp_path, [answer("a")])
    gone, shorter = AnswerBytes.of(path), AnswerBytes.of(answer_file(tmp_path, [answer("b")], name="b.jsonl"))
    path.unlink()
    (tmp_path / "b.jsonl").write_bytes(b"")
    for answers in (gone, shorter):
        build = TableBuild(TablePlan((AnswerFile(path),)), tmp_path / "results.json")
        with build, pytest.raises(StorageError, match="could not be made into"):
            build.add_next(answers)


def test_a_build_waits_for_what_arrives_and_ends_when_it_is_void(tmp_path: Path) -> None:
    path = answer_file(tmp_path, [answer("a"), answer("b")])
    with TableBuild(TablePlan((AnswerFile(path),)), tmp_path / "results.json") as build:
        answers = AnswerBytes()
        answers.begin(path)
        with ThreadPoolExecutor(1) as staging:
            staged = staging.submit(build.add_next, answers)
            answers.arrive(len(answer("a")))
            assert not staged.done()
            answers.void()
            with pytest.raises(StorageError, match="could not be made into"):
                staged.result()
        build.begin_again()
        build.finish()

    assert [row.key for row in all_rows(ResultTable.open(tmp_path / "results.json"))] == ["a", "b"]


def test_a_file_is_cut_where_lines_end(tmp_path: Path) -> None:
    path = answer_file(tmp_path, (b"x" * 999_999 + b"\n") * 5 + b"y")

    assert [len(contents_of(piece)) for piece in slices_of(AnswerBytes.of(path), 10_000_000)] == [5_000_001]
    assert [len(contents_of(piece)) for piece in slices_of(AnswerBytes.of(path), 2_000_000)] == [2_000_000] * 2 + [
        1_000_001
    ]
    assert list(slices_of(AnswerBytes.of(answer_file(tmp_path, b"", name="empty.jsonl")), 100)) == []
    assert contents_of(Slice.whole(path)) == path.read_bytes()


def test_a_slice_is_a_file_of_its_own(tmp_path: Path) -> None:
    """Also for an engine that goes back in it, and past its end."""
    piece = Slice(AnswerBytes.of(answer_file(tmp_path, b"0123\n5678\nabc")), 2, 5)
    with piece.open_raw() as file:
        assert (file.readable(), file.seekable(), file.writable()) == (True, True, False)
        assert (file.read(3), file.tell(), file.read(100), file.read(1)) == (b"23\n", 3, b"5678\n", b"")
        assert (file.seek(1), file.read()) == (1, b"3\n5678\n")
        assert (file.seek(50), file.read(1)) == (50, b"")
        file.seek(0)
        buffer = bytearray(b"......")
        assert (file.readinto(buffer), bytes(buffer)) == (6, b"23\n567")
        with pytest.raises(io.UnsupportedOperation):
            file.seek(0, io.SEEK_END)
    assert piece.end == 10


def test_the_engine_sees_the_slices_that_it_is_shown_and_nothing_else(tmp_path: Path) -> None:
    path = answer_file(tmp_path, b'{"a": 1}\n{"a": 2}\n')
    files = SliceFiles()
    connection = connect(1 << 28, tmp_path)
    connection.register_filesystem(files)
    try:
        with files.showing(Slice(AnswerBytes.of(path), 9, 9)) as name:
            assert connection.execute(f"SELECT a FROM read_json('{name}')").fetchall() == [(2,)]
            with pytest.raises(duckdb.Error, match="reading only"):
                connection.execute(f"COPY (SELECT 1) TO '{name}'")
        for other in (name, f"answers://{path}", "answers://*"):
            with pytest.raises(duckdb.Error):
                connection.execute(f"SELECT * FROM read_json('{other}')")
    finally:
        connection.close()
