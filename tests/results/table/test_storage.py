"""Tables on disk: written whole or not at all, found damaged when damaged, and nothing left behind."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest

from gemini_batch_mcp.errors import StorageError
from gemini_batch_mcp.results.engine import connect, parts_of, table_errors
from gemini_batch_mcp.results.store import AnswerFile, ResultTable, build_table
from support.answers import all_rows, answer, answer_file, exported, failure, table_of
from support.loading import scratch


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_reading_a_summary_never_loads_the_engine(tmp_path: Path) -> None:
    table_of(tmp_path, answer("a"), keys=["a"])
    script = (
        "import sys, pathlib; from gemini_batch_mcp.results.store import ResultTable\n"
        f"print(ResultTable.open(pathlib.Path({str(tmp_path / 'results.json')!r})).summary().expected, "
        "'duckdb' in sys.modules)"
    )

    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert output.split() == ["1", "False"]


def test_a_build_leaves_the_table_and_its_parts_only(tmp_path: Path) -> None:
    table_of(tmp_path, [answer("a"), b"cut\n"], keys=["b", "a"])
    table = table_of(tmp_path, [answer("a")], keys=["a"])

    assert names(tmp_path) == ["answers-1.jsonl", "keys.jsonl", table.folder.name, "results.json"]
    assert names(table.folder) == ["000000.parquet", "unfilled"]


def test_a_build_removes_no_file_but_its_own(tmp_path: Path) -> None:
    others = ["results.csv", "results.parquet", "results.schema.json", "results.json.json", "results-1", "source-1"]
    for name in others:
        (tmp_path / name).touch()
    table_of(tmp_path, answer("a"), keys=["a"])

    assert set(others) < set(names(tmp_path))


def test_what_killed_builds_and_earlier_versions_have_left_goes_with_the_next_build(tmp_path: Path) -> None:
    """An earlier version had the whole table in one file, beside its facts."""
    old, half = "results." + "0" * 32 + ".json", "results-" + "1" * 32
    (tmp_path / old).write_text("{}", encoding="utf-8")
    (tmp_path / "results.parquet").write_bytes(b"PAR1")
    (tmp_path / half).mkdir()
    (tmp_path / half / "000000.parquet").write_bytes(b"PAR1")
    table = table_of(tmp_path, answer("a"), keys=["a"])

    assert names(tmp_path) == ["answers-1.jsonl", "keys.jsonl", table.folder.name, "results.json"]


def test_a_failed_build_leaves_the_older_table_readable(tmp_path: Path) -> None:
    table_of(tmp_path, answer("a", "older"), keys=["a"])
    before = names(tmp_path)
    with pytest.raises(StorageError, match="needs more memory"):
        build_table([AnswerFile(tmp_path / "answers-1.jsonl")], tmp_path / "results.json", memory_limit_bytes=1000)

    assert names(tmp_path) == before
    assert [row.text for row in all_rows(ResultTable.open(tmp_path / "results.json"))] == ["older"]


def test_an_open_table_stays_readable_when_it_is_built_again(tmp_path: Path) -> None:
    opened = table_of(tmp_path, [answer("a", "one"), failure("b")], keys=["a", "b"])
    cursor = opened.page(view="rows", limit=1).next_cursor
    table_of(tmp_path, [answer("a", "two"), answer("b", "now")], keys=["a", "b"])

    assert [row.text for row in opened.page(view="rows", limit=1, cursor=cursor).rows] == ["now"]
    assert opened.summary().failed == 1


def test_leftovers_of_killed_builds_go_after_a_day(tmp_path: Path) -> None:
    for name in (".gemini-batch-old", ".gemini-batch-young"):
        (tmp_path / name).mkdir()
    two_days_ago = time.time() - 2 * 86_400
    os.utime(tmp_path / ".gemini-batch-old", (two_days_ago, two_days_ago))
    table_of(tmp_path, answer("a"), keys=["a"])

    assert ".gemini-batch-old" not in names(tmp_path)
    assert ".gemini-batch-young" in names(tmp_path)


def test_a_missing_answer_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nowhere\.jsonl is missing"):
        build_table([AnswerFile(tmp_path / "nowhere.jsonl")], tmp_path / "results.json")


def test_a_destination_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    answers = answer_file(tmp_path, answer("a"))

    with pytest.raises(StorageError, match=r"could not be made into results\.json"):
        build_table([AnswerFile(answers)], answers / "results.json")


def test_a_table_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="There is no result table"):
        ResultTable.open(tmp_path / "results.json")


def test_a_table_without_its_facts_says_so(tmp_path: Path) -> None:
    table_of(tmp_path, answer("a"), keys=["a"])
    (tmp_path / "results.json").unlink()

    with pytest.raises(StorageError, match="There is no result table"):
        ResultTable.open(tmp_path / "results.json")


@pytest.mark.parametrize("damage", ["cut", "zeros at the end", "gone", "one more", "other", "no folder"])
def test_a_table_whose_parts_are_not_as_written_is_damaged(tmp_path: Path, damage: str) -> None:
    table = table_of(tmp_path, answer("a"), keys=["a"])
    (part,) = parts_of(table.folder)
    content = part.read_bytes()
    if damage == "cut":
        part.write_bytes(content[:-5])
    elif damage == "zeros at the end":  # what a system leaves that went down
        part.write_bytes(content[:-5] + bytes(5))
    elif damage == "one more":
        (table.folder / "000001.parquet").write_bytes(content)
    elif damage == "other":
        scratch().execute(f"COPY (SELECT 1 AS key) TO '{part}' (FORMAT parquet)")
    elif damage == "gone":
        part.unlink()
    else:
        shutil.rmtree(table.folder)

    with pytest.raises(StorageError, match="is damaged"):
        ResultTable.open(table.path)


def test_a_directory_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="could not be read"):
        ResultTable.open(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"build": 1}', b'{"version": 8}', b"\xff", b""])
def test_a_damaged_table_says_so(tmp_path: Path, content: bytes) -> None:
    table_of(tmp_path, answer("a"), keys=["a"])
    (tmp_path / "results.json").write_bytes(content)

    with pytest.raises(StorageError, match="is damaged"):
        ResultTable.open(tmp_path / "results.json")


def test_damage_inside_a_table_is_a_storage_error_of_the_page(tmp_path: Path) -> None:
    table = table_of(tmp_path, [answer(f"k{number}", f"text {number}") for number in range(2000)])
    (part,) = parts_of(table.folder)
    content = bytearray(part.read_bytes())
    content[8 : len(content) // 2] = bytes(len(content) // 2 - 8)
    part.write_bytes(content)

    with pytest.raises(StorageError, match="could not be read"):
        table.page(view="rows", limit=5)


def test_an_export_is_whole_and_in_request_order(tmp_path: Path) -> None:
    table = table_of(tmp_path, [answer("b", "of b"), b"\n", failure("c", "no\u200b")], keys=["a", "b", "c"])
    saved = table.export(tmp_path / "mine.jsonl", "jsonl")

    first, second, third = (json.loads(text) for text in saved.path.read_text("utf-8").splitlines())
    assert (saved.format, saved.rows, saved.size_bytes) == ("jsonl", 3, saved.path.stat().st_size)
    assert first == {
        "key": "a",
        "status": "missing",
        "text": "",
        "error": None,
        "finish_reason": "",
        "model_version": "",
        "input_tokens": 0,
        "output_tokens": 0,
        "thoughts_tokens": 0,
        "cost_usd": None,
        "attempt": None,
        "response": None,
    }
    assert second["response"]["candidates"][0]["content"]["parts"] == [{"text": "of b"}]
    assert (second["text"], second["model_version"], second["input_tokens"]) == ("of b", "gemini-3.8-flash", 3)
    assert third["error"] == {"code": 13, "message": "no\u200b"}


def test_an_export_of_many_rows_goes_through_in_pieces(tmp_path: Path) -> None:
    keys = [f"k{number}" for number in range(9000)]
    rows = exported(table_of(tmp_path, [answer(key, key) for key in keys], keys=keys), tmp_path)

    assert [row["key"] for row in rows] == keys
    assert all(row["response"]["candidates"][0]["content"]["parts"][0]["text"] == row["key"] for row in rows)


@pytest.mark.parametrize("change", [b"", answer("a") + answer("b"), answer("a")[:-1] + b" ", b"\n" * 100])
def test_an_export_notices_raw_answers_that_changed(tmp_path: Path, change: bytes) -> None:
    table = table_of(tmp_path, [answer("a")], keys=["a"])
    size = len(answer("a"))
    (tmp_path / "answers-1.jsonl").write_bytes(change if len(change) != size else b"\n" * size)

    with pytest.raises(StorageError, match=r"answers-1\.jsonl.* changed"):
        table.export(tmp_path / "mine.jsonl", "jsonl")
    assert not [name for name in names(tmp_path) if name == "mine.jsonl" or name.endswith(".part")]


def test_raw_answers_elsewhere_are_found(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "tables").mkdir()
    build_table([AnswerFile(answer_file(tmp_path / "raw", answer("a")))], tmp_path / "tables" / "results.json")

    assert exported(ResultTable.open(tmp_path / "tables" / "results.json"), tmp_path)[0]["response"] is not None


def test_an_export_into_nowhere_is_a_storage_error(tmp_path: Path) -> None:
    table = table_of(tmp_path, answer("a"), keys=["a"])

    with pytest.raises(StorageError, match="could not be written"):
        table.export(tmp_path / "nowhere" / "mine.jsonl", "jsonl")


def test_paths_that_look_like_patterns_or_sql_are_plain_paths(tmp_path: Path) -> None:
    strange = tmp_path / "it's [1]*? key=3"
    strange.mkdir()

    table = table_of(strange, [answer("b"), b"{\n"], keys=["a", "b"])
    assert [row.status for row in all_rows(table)] == ["missing", "ok"]
    assert len(exported(table, strange)) == 2


def test_our_own_wrong_sql_is_no_storage_error(tmp_path: Path) -> None:
    connection = connect(1 << 27, tmp_path)

    with pytest.raises(duckdb.BinderException), table_errors("The table"):
        connection.execute("SELECT nothing")
    connection.close()


def test_a_full_disk_is_called_one(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"The table: the disk is full\. Free some space"), table_errors("The table"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(StorageError, match="The table: Permission denied"), table_errors("The table", tmp_path):
        raise OSError(errno.EACCES, "Permission denied")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system without free space")
def test_a_failed_write_on_a_disk_without_room_is_explained_by_it() -> None:
    for failure_of in (duckdb.IOException("could not write"), duckdb.OutOfMemoryException("spill"), OSError(5, "I/O")):
        with (
            pytest.raises(StorageError, match=r"the disk of /proc is full \(0 bytes are free\)"),
            table_errors("The table", Path("/proc")),
        ):
            raise failure_of


def test_a_table_of_another_version_is_built_again(tmp_path: Path) -> None:
    table_of(tmp_path, answer("a"), keys=["a"])
    facts = tmp_path / "results.json"
    facts.write_text(json.dumps(json.loads(facts.read_text("utf-8")) | {"version": 1}), encoding="utf-8")

    with pytest.raises(StorageError, match="was written by another version"):
        ResultTable.open(tmp_path / "results.json")


def test_the_engine_draws_no_progress_on_stdout() -> None:
    """Started without a file, as here, it takes the interpreter for one with a person before it."""
    script = (
        "from gemini_batch_mcp.results.engine import TableReader\n"
        "with TableReader().reading() as connection:\n"
        "    print(connection.execute(\"SELECT current_setting('enable_progress_bar')\").fetchone()[0])\n"
    )

    assert subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout.strip() == b"False"
