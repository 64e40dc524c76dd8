"""A disk or a share that fails while a file is read: our own error with the file's name, and nothing half-written."""

import json
import os
import select
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import duckdb
import pytest

from gemini_batch_mcp import handles
from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.errors import PathError
from gemini_batch_mcp.intake.compose import write_rows
from gemini_batch_mcp.intake.openai.lines import write_converted
from gemini_batch_mcp.intake.requests.copies import write_request_copy
from gemini_batch_mcp.intake.requests.reader import file_sha256
from gemini_batch_mcp.intake.requests.selection import write_selected
from gemini_batch_mcp.intake.tables._csv import CsvTable, count_records, open_csv
from gemini_batch_mcp.intake.tables._spool import spool_json_lines, spool_json_list, spool_text_lines
from gemini_batch_mcp.intake.tables.reading import open_table
from gemini_batch_mcp.intake.tables.sql import RowKey
from gemini_batch_mcp.settings import MAX_FILE_BYTES
from support.extent import in_part, part

#: A regular file by its size, of which no byte can be read: the loopback device has no speed.
UNREADABLE = Path("/sys/class/net/lo/speed")
ROWS = 30_000

needs_unreadable = pytest.mark.skipif(not UNREADABLE.exists(), reason="the system has no such file")


def descriptors(path: Path) -> list[int]:
    """The numbers under which this process has a file open."""
    status = path.stat()
    found = []
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - numbers, and not places
        with suppress(OSError):
            if os.path.samestat(os.fstat(int(name)), status):
                found.append(int(name))
    return found


def break_off(path: Path) -> None:
    """Let every further read of an open file fail: a directory is put in its place."""
    directory = os.open(path.parent, os.O_RDONLY)
    opened = descriptors(path)
    for number in opened:
        os.dup2(directory, number)
    os.close(directory)
    assert opened


def run_broken(call: Callable[[], object], source: Path, output: Path) -> None:
    """Run what reads `source` and writes `output`; from the first byte that it writes on, reading fails."""
    output.parent.mkdir(exist_ok=True)
    os.mkfifo(output)
    end = os.open(output, os.O_RDONLY | os.O_NONBLOCK)
    with ThreadPoolExecutor(1) as pool:
        calling = pool.submit(call)
        assert select.select([end], [], [], 10)[0]
        break_off(source)
        while not calling.done():
            if select.select([end], [], [], 0.05)[0]:
                os.read(end, 1 << 20)
        os.close(end)
        calling.result()


def request_lines(path: Path, rows: int = ROWS) -> Path:
    text = "word " * 20
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            request = {"contents": [{"role": "user", "parts": [{"text": text}]}]}
            file.write(json.dumps({"key": f"k{number}", "request": request}) + "\n")
    return path


def keys_of(path: Path) -> Path:
    path.write_text("".join(f'"k{number}"\n' for number in range(ROWS)), encoding="utf-8")
    return path


def openai_lines(path: Path) -> Path:
    body = {"model": "m", "messages": [{"role": "user", "content": "word " * 20}]}
    with path.open("w", encoding="utf-8") as file:
        for number in range(ROWS):
            file.write(json.dumps({"custom_id": f"k{number}", "body": body}) + "\n")
    return path


def test_a_copy_whose_source_fails_in_the_middle_is_not_kept(tmp_path: Path) -> None:
    source, state = request_lines(tmp_path / "reviews.jsonl"), tmp_path / "state"

    def copy() -> object:
        return write_request_copy(
            source, state / "r.jsonl", task="generate", keys_path=state / "keys", max_file_bytes=MAX_FILE_BYTES
        )

    with pytest.raises(PathError, match=r"^reviews\.jsonl cannot be read: Is a directory"):
        run_broken(copy, source, state / "r.jsonl.part")
    assert list(state.iterdir()) == []


def test_a_conversion_whose_source_fails_in_the_middle_is_not_kept(tmp_path: Path) -> None:
    source, state = openai_lines(tmp_path / "reviews.jsonl"), tmp_path / "state"

    with pytest.raises(PathError, match=r"^reviews\.jsonl cannot be read: Is a directory"):
        run_broken(
            lambda: write_converted(source, state / "r.jsonl", keys_path=state / "keys"),
            source,
            state / "r.jsonl.part",
        )
    assert list(state.iterdir()) == []


@pytest.mark.parametrize("broken", ["requests.jsonl", "keys.jsonl"])
def test_a_selection_whose_source_fails_in_the_middle_is_not_kept(tmp_path: Path, broken: str) -> None:
    requests, keys = request_lines(tmp_path / "requests.jsonl"), keys_of(tmp_path / "keys.jsonl")
    state = tmp_path / "state"

    with pytest.raises(PathError, match=rf"^{broken} cannot be read: Is a directory"):
        run_broken(
            lambda: write_selected(
                requests, keys, {f"k{number}" for number in range(ROWS)}, state / "r.jsonl", state / "keys"
            ),
            tmp_path / broken,
            state / "r.jsonl.part",
        )
    assert list(state.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "row", "spool"),
    [
        ("t.jsonl", '{"text":"a word and more"}\n', spool_json_lines),
        ("t.txt", "a word and more\n", spool_text_lines),
        ("t.json", '{"text":"a word and more"},\n', spool_json_list),
    ],
)
def test_rows_whose_file_fails_in_the_middle_are_refused_with_its_name(
    tmp_path: Path, name: str, row: str, spool: Callable[[Path, Path], CsvTable]
) -> None:
    source = tmp_path / name
    text = row * 200_000
    source.write_text(f"[{text.removesuffix(chr(10)).removesuffix(',')}]" if name == "t.json" else text, "utf-8")

    with pytest.raises(PathError, match=rf"^{name} cannot be read: Is a directory"):
        run_broken(lambda: spool(source, tmp_path), source, tmp_path / "rows.csv")


@pytest.fixture
def following(monkeypatch: pytest.MonkeyPatch) -> None:
    """Links are followed: only by one can a file of which no byte can be read have a name of ours."""
    monkeypatch.setattr(handles, "_opened", os.open)


@needs_unreadable
@pytest.mark.usefixtures("following")
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.json", "t.jsonl", "t.txt", "t.parquet"])
def test_a_table_of_which_no_byte_can_be_read_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to(UNREADABLE)

    with pytest.raises(PathError, match=rf"^{name} cannot be read: Invalid argument"):
        write_rows(
            tmp_path / name,
            tmp_path / "r.jsonl",
            order=Order(prompt="{{a}}"),
            keys_path=tmp_path / "keys",
        )
    assert [path.name for path in tmp_path.iterdir()] == [name]


@needs_unreadable
@pytest.mark.usefixtures("following")
def test_a_request_file_of_which_no_byte_can_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").symlink_to(UNREADABLE)

    with pytest.raises(PathError, match=r"^t\.jsonl cannot be read: Invalid argument"):
        file_sha256(tmp_path / "t.jsonl")


def table_of_20000_rows(source: Path) -> Path:
    form = "parquet" if source.name.endswith("parquet") else "csv"
    duckdb.execute(f"COPY (SELECT range AS a, md5('' || range) AS b FROM range(20000)) TO '{source}' (FORMAT {form})")
    return source


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_table_that_fails_after_it_was_opened_is_named(tmp_path: Path, name: str) -> None:
    source = table_of_20000_rows(tmp_path / name)
    with open_table(source, tmp_path) as table:
        break_off(source)
        source.unlink()

        with pytest.raises(PathError, match=rf"^{name} cannot be read: No such file or directory"):
            table.write_lines([RowKey(("a",))], tmp_path / "lines")


def test_the_engine_goes_on_with_the_file_that_was_opened_whatever_has_its_name_by_now(tmp_path: Path) -> None:
    source, other = table_of_20000_rows(tmp_path / "t.parquet"), tmp_path / "other.parquet"
    duckdb.execute(f"COPY (SELECT 1 AS a, 'other' AS b) TO '{other}'")
    with open_table(source, tmp_path) as table:
        source.unlink()
        source.symlink_to(other)

        assert table.write_lines([RowKey(("a",))], tmp_path / "lines") == 20_000


def test_a_count_of_cells_ends_where_a_file_was_cut_short(tmp_path: Path) -> None:
    """Over a map of the file, the process would be ended by the system."""
    source = tmp_path / "t.csv"
    content = b"a,b\n" + b'1,"x"\n' * 2_000_000
    with ThreadPoolExecutor(1) as pool:
        count = len(content)
        # On a busy machine the count may have ended before it is seen.
        for _ in range(20):
            source.write_bytes(content)
            counting = pool.submit(count_records, open_csv(source, tmp_path))
            while not descriptors(source) and not counting.done():
                pass
            os.truncate(source, 4 + 6 * 1000)
            count = counting.result()
            assert count >= 1000
            if count < 2_000_000:
                break

    assert count < 2_000_000


@in_part
def test_cells_are_counted_right_over_the_borders_of_blocks(tmp_path: Path) -> None:
    """Quotes that are open at the end of a block, and line ends of two bytes that it cuts."""
    source = tmp_path / "t.csv"
    long = b'"' + b'x,""\r\n' * 400_000 + b'"'
    for shift in part(range(8), 3):
        rows = b"".join(b'%d,"a,""b\r\nc"\r\n' % number for number in range(70_000))
        source.write_bytes(
            b"sep=,\r\n\r\na,b\r\n" + b"y" * shift + b",1\r\n" + rows + b"2," + long + b'\r\n"open,1\r\n'
        )

        assert count_records(open_csv(source, tmp_path)) == 70_003


def test_the_lines_before_a_header_are_skipped_at_any_line_end(tmp_path: Path) -> None:
    for end in (b"\n", b"\r\n", b"\r"):
        source = tmp_path / "t.csv"
        source.write_bytes(end.join((b"sep=;", b"", b"a;b", b"1;2", b"3;4", b"")))

        assert count_records(open_csv(source, tmp_path)) == 2
