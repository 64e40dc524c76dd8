"""Tables of every size and kind: wide, long, with huge cells, Parquet, folders; and which files hold what."""

import csv
import hashlib
import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gemini_batch_mcp.errors import PathError, RequestProblems, StorageError, UsageError
from gemini_batch_mcp.intake.tables._csv import count_records, open_csv, survey
from gemini_batch_mcp.intake.tables.folders import Folder, list_folder
from gemini_batch_mcp.intake.tables.memory import EFFORTS, MoreEffort
from gemini_batch_mcp.intake.tables.reading import open_table
from gemini_batch_mcp.intake.tables.sql import RowKey
from gemini_batch_mcp.intake.tables.text_files import BLOCK_BYTES
from support.extent import in_part, part, tries
from support.sources import outcome, read

CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
FAST = settings(max_examples=tries(60, 15), suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_rows_that_share_no_member_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "wide.jsonl"
    first = ",".join(f'"c{number}":1' for number in range(16_000))
    others = "".join(f'{{"c{number}":1}}\n' for number in range(16_000, 16_385))
    source.write_text(f"{{{first}}}\n{others}", encoding="utf-8")

    assert outcome(source) == {"refused": "The rows of wide.jsonl have more than 16,384 different members."}


def test_a_record_larger_than_any_request_is_refused_with_its_line(tmp_path: Path) -> None:
    source = tmp_path / "huge.csv"
    source.write_bytes(b"id,text\n1,a\n2," + b"x" * 45_000_000 + b"\n")

    assert outcome(source) == {
        "refused": "huge.csv has a row of more than 41,943,040 bytes, or a quote that is not closed."
    }


def test_a_long_table_with_quotes_in_it_is_read_whole_and_in_order(tmp_path: Path) -> None:
    source = tmp_path / "long.csv"
    choose = random.Random(3)
    pieces = ["a", '"', ",", "\n", "\r\n", "", "ü", " ", "\\", "#"]
    expected = [[str(number), "".join(choose.choices(pieces, k=60))] for number in range(40_000)]
    with source.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", "text"], *expected])
    assert source.stat().st_size > 2 << 20

    assert read(source)[1] == expected
    table = open_csv(source, tmp_path)
    assert survey(table).record_count == count_records(table) == 40_000


def test_every_kind_of_line_end_counts_the_same_over_many_blocks(tmp_path: Path) -> None:
    for line_end in ("\n", "\r\n", "\r"):
        source = tmp_path / "long.csv"
        blank = line_end * 3
        body = line_end.join(f"{number},{'x' * (number % 97)}" for number in range(60_000))
        source.write_bytes(f"id,text{line_end}{blank}{body}{blank}".encode())
        assert source.stat().st_size > 2 << 20

        table = open_csv(source, tmp_path)

        assert survey(table).record_count == count_records(table) == 60_000
        assert len(read(source)[1]) == 60_000


@in_part
@FAST
@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8), line_end=st.sampled_from(["\n", "\r\n"]))
def test_whatever_a_csv_writer_quotes_comes_out_as_it_went_in(
    tmp_path: Path, rows: list[tuple[str, str]], line_end: str
) -> None:
    written = io.StringIO(newline="")
    csv.writer(written, quoting=csv.QUOTE_ALL, lineterminator=line_end).writerows([("a", "b"), *rows])
    source = tmp_path / "t.csv"
    source.write_text(written.getvalue(), encoding="utf-8", newline="")

    assert read(source)[:2] == (["a", "b"], [list(row) for row in rows])


def test_a_limit_reads_the_first_rows_only(tmp_path: Path) -> None:
    source = tmp_path / "t.csv"
    source.write_text("id\n" + "".join(f"{number}\n" for number in range(100)), encoding="utf-8")

    assert read(source, limit_rows=3)[1] == [["0"], ["1"], ["2"]]


def test_ragged_rows_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    source = tmp_path / "t.csv"
    source.write_text("a,b\n" + "1\n" * 300, encoding="utf-8")

    with pytest.raises(RequestProblems) as refusal:
        read(source)

    assert refusal.value.problem_count == 300
    assert [problem.line for problem in refusal.value.problems] == list(range(2, 22))
    assert "header has" in refusal.value.problems[0].fix


def test_parquet_that_is_damaged_inside_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "t.parquet"
    duckdb.execute(
        f"COPY (SELECT range || 'text' || hash(range) AS t FROM range(50000)) TO '{source}' (FORMAT parquet)"
    )
    data = bytearray(source.read_bytes())
    data[2000:60000:7] = bytes(byte ^ 0x5A for byte in data[2000:60000:7])
    source.write_bytes(data)

    assert outcome(source) == {"refused": "t.parquet cannot be read: it is damaged."}


def test_rows_that_need_more_memory_are_tried_again_with_more(tmp_path: Path) -> None:
    source = tmp_path / "t.parquet"
    duckdb.execute(f"COPY (SELECT repeat('x', 30000000) AS t FROM range(2)) TO '{source}' (FORMAT parquet)")

    with open_table(source, tmp_path) as table, pytest.raises(MoreEffort):
        table.write_parquet({"t": "t"}, tmp_path / "columns", effort=EFFORTS[0])
    assert [len(row[0]) for row in read(source)[1]] == [30_000_000] * 2


def test_lines_that_cannot_be_written_are_said(tmp_path: Path) -> None:
    source = tmp_path / "t.csv"
    source.write_text("a,b\n1,2\n", encoding="utf-8")

    with open_table(source, tmp_path) as table, pytest.raises(StorageError, match="could not be written"):
        table.write_lines(["0"], tmp_path / "none" / "lines")


@pytest.mark.parametrize("line_end", ["\r\n", "\n"])
def test_a_line_end_between_two_blocks_counts_once(tmp_path: Path, line_end: str) -> None:
    source = tmp_path / "t.csv"
    start = 'id,text\r\n1,"a\nb"\r\n2,'
    start += "x" * ((1 << 20) - len(start) - 1)
    source.write_bytes(f"{start}\r\n3,c{line_end}4,d\r\n".encode())

    rows = read(source)[1]

    assert [row[0] for row in rows] == ["1", "2", "3", "4"]
    assert rows[0][1] == "a\nb"


def test_line_ends_that_change_right_between_two_blocks_are_seen(tmp_path: Path) -> None:
    source = tmp_path / "t.csv"
    rows = b"a,b\r\n" + b"1,2\r\n" * 1000
    cell = b"x" * (BLOCK_BYTES - len(rows) - len(b"3,\r"))
    source.write_bytes(rows + b"3," + cell + b"\r\n" + b"4,5\n" * 3)

    table = open_csv(source, tmp_path)
    assert table.warnings == ("Different kinds of line ends were treated alike.",)
    assert [row[0] for row in read(source)[1]][-4:] == ["3", "4", "4", "4"]


def test_rows_are_numbered_on_beyond_six_digits(tmp_path: Path) -> None:
    source = tmp_path / "t.csv"
    source.write_text("a\n" + "x\n" * 1_000_001, encoding="utf-8")
    with open_table(source, tmp_path) as table:
        table.write_lines([RowKey(("a",))], tmp_path / "lines")

    keys = (tmp_path / "lines").read_bytes().splitlines()
    digest = hashlib.md5(b"x").hexdigest()[:8]
    for number in (1, 999_999, 1_000_000, 1_000_001):
        assert keys[number - 1].decode() == f'"row-{number:06d}-{digest}"'


def test_a_character_between_two_blocks_is_read_whole(tmp_path: Path) -> None:
    source = tmp_path / "t.csv"
    source.write_bytes(b"id,text\n1," + b"x" * ((1 << 20) - 11) + "ü\n2,é\n".encode())
    assert read(source)[1][1] == ["2", "é"]

    source.write_bytes(b"id,text\n" + b"1,x\n" * 300_000 + "2,ü\n".encode() + b"3,\xc3")
    assert outcome(source) == {"problems": ["300003: The byte 0xc3 is not UTF-8."]}


def test_a_long_json_list_is_read_in_pieces(tmp_path: Path) -> None:
    source = tmp_path / "t.json"
    texts = [f"text {number} " + "ü" * (number % 1000) for number in range(4_000)]
    rows = [{"n": number, "t": text} for number, text in enumerate(texts)]
    source.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")
    assert source.stat().st_size > 3 << 20
    assert read(source)[1] == [[str(number), text] for number, text in enumerate(texts)]

    source.write_text("[" + ",\n".join(str(number) for number in range(40_000)) + "]", encoding="utf-8")
    with pytest.raises(RequestProblems) as refusal:
        read(source)
    assert refusal.value.problem_count == 40_000


def test_quotes_that_the_engine_and_the_count_read_differently_are_counted_cell_by_cell(tmp_path: Path) -> None:
    source = tmp_path / "t.csv"
    source.write_text('sep=;\nid;text\n\n1;5" disc\n2;"a\nb"\n\n3;c\n', encoding="utf-8")

    table = open_csv(source, tmp_path)

    assert read(source)[1] == [["1", '5" disc'], ["2", "a\nb"], ["3", "c"]]
    assert survey(table).record_count != count_records(table) == 3


def test_a_name_with_wildcards_is_a_file_and_no_pattern(tmp_path: Path) -> None:
    (tmp_path / "a1.csv").write_text("id\nwrong\n", encoding="utf-8")
    source = tmp_path / "a[1]*.csv"
    source.write_text("id\nright\n", encoding="utf-8")

    assert read(source)[1] == [["right"]]


def test_a_source_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PathError, match=r"none\.csv does not exist"):
        read(tmp_path / "none.csv")


def test_scratch_files_are_removed(tmp_path: Path) -> None:
    source = tmp_path / "t.csv"
    source.write_bytes("id;text\n1;é\n".encode("utf-16"))
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    with open_table(source, scratch) as table:
        assert list(scratch.iterdir())
        assert table.write_lines(["0"], tmp_path / "lines") == 1
    assert list(scratch.iterdir()) == []


def test_a_folder_is_a_table_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("second", encoding="utf-8")
    (tmp_path / "a.md").write_text('\ufefffirst, "quoted"\nline', encoding="utf-8")
    (tmp_path / "c.png").write_bytes(b"\x89PNG\r\n")
    (tmp_path / "d.txt").write_bytes(b"")
    (tmp_path / "old.txt").write_bytes("Müller".encode("cp1252"))
    (tmp_path / ".hidden").write_text("no", encoding="utf-8")
    (tmp_path / "sub").mkdir()

    columns, rows, warnings = read(list_folder(tmp_path))

    assert columns == ["path", "name", "text"]
    assert rows == [
        ["a.md", "a.md", 'first, "quoted"\nline'],
        ["b.txt", "b.txt", "second"],
        ["c.png", "c.png", ""],
        ["d.txt", "d.txt", ""],
        ["old.txt", "old.txt", "Müller"],
    ]
    assert warnings == [
        "1 subdirectory was skipped; end the source in /**/* to include its files.",
        "The files are of several kinds, judging by their names: 4 text, 1 image.",
        "1 file is not text; the column text is empty there.",
    ]


def test_a_folder_of_documents_has_paths_and_names_only(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.pdf").write_bytes(b"%PDF-1.7")
    (tmp_path / "in" / "a.pdf").write_bytes(b"%PDF-1.7")
    (tmp_path / "data").write_bytes(b"\0\1\2")

    assert read(list_folder(tmp_path, "**/*"))[:2] == (
        ["path", "name"],
        [["data", "data"], ["in/a.pdf", "a.pdf"], ["in/b.pdf", "b.pdf"]],
    )


def test_a_pattern_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no file that matches \*\.pdf"):
        list_folder(tmp_path, "*.pdf")
    with pytest.raises(UsageError, match="holds no files"):
        list_folder(tmp_path)
    assert outcome(Folder(tmp_path, ())) == {"refused": "No file was found."}


def test_files_of_a_folder_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("fine", encoding="utf-8")
    (tmp_path / "b.txt").write_bytes("ü".encode() + b"\xff")
    (tmp_path / "c.txt").write_bytes(b"x" * (20 * 1024**2 + 1))

    result = outcome(Folder(tmp_path, (*list_folder(tmp_path).names, "d.txt")))

    assert result == {
        "problems": [
            "2: b.txt cannot be read as text; nothing was submitted.",
            "3: c.txt has 20,971,521 bytes, more than 20,971,520.",
            "4: d.txt cannot be read: No such file or directory.",
        ]
    }


@in_part
def test_a_time_with_a_zone_is_written_the_same_on_every_machine(tmp_path: Path) -> None:
    """Nested ones too. Each subprocess is a machine in another zone."""
    source = tmp_path / "t.parquet"
    moment = "TIMESTAMPTZ '2026-07-02 03:04:05.5+02'"
    duckdb.execute(
        f"COPY (SELECT {moment} AS a, [{moment}] AS b, {{'t': {moment}}} AS c) TO '{source}' (FORMAT parquet)"
    )
    script = (
        "import json, sys; from pathlib import Path; from gemini_batch_mcp.domain import Order;"
        "from gemini_batch_mcp.intake.compose import write_rows;"
        "source = Path(sys.argv[1]); lines = source.with_name('lines'); order = Order(prompt='{{a}}|{{b}}|{{c}}');"
        "write_rows(source, lines, order=order, keys_path=source.with_name('keys'));"
        "print(json.loads(lines.read_bytes())['request']['contents'][0]['parts'][0]['text'])"
    )
    expected = '2026-07-02 01:04:05.5+00|["2026-07-02 01:04:05.5+00"]|{"t":"2026-07-02 01:04:05.5+00"}'
    for zone in part(("Asia/Kolkata", "America/St_Johns", "UTC"), 2):
        command = [sys.executable, "-c", script, str(source)]
        said = subprocess.run(command, env={**os.environ, "TZ": zone}, check=True, capture_output=True, text=True)

        assert said.stdout.strip() == expected, zone


def test_the_engine_draws_no_progress_on_stdout(tmp_path: Path) -> None:
    """Started without a file, as here, it takes the interpreter for one with a person before it."""
    (tmp_path / "t.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    script = (
        "import sys; from pathlib import Path; from gemini_batch_mcp.intake.tables.reading import open_table;"
        "source = Path(sys.argv[1])\n"
        "with open_table(source, source.parent) as table:\n"
        "    asked = table._connection.execute(\"SELECT current_setting('enable_progress_bar')\")\n"
        "    print(asked.fetchone()[0])\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "t.csv")]

    assert subprocess.run(command, check=True, capture_output=True).stdout.strip() == b"False"


def test_a_server_that_reads_no_table_does_not_load_the_engine() -> None:
    script = "import sys; import gemini_batch_mcp.intake.compose; sys.exit('duckdb' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
