"""Files that are not what their names say, and byte-order marks that came twice: told by name, and left out."""

import bz2
import io
import json
import lzma
import struct
import wave
from pathlib import Path

import pytest

from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.intake.openai.lines import write_converted
from gemini_batch_mcp.intake.requests.copies import write_request_copy
from gemini_batch_mcp.intake.tables.kinds import SourceKind, recognise
from gemini_batch_mcp.intake.tables.reading import open_table
from gemini_batch_mcp.intake.tables.text_files import as_utf8
from gemini_batch_mcp.settings import MAX_FILE_BYTES
from support.sources import jpeg, png, read

TABLE = b"id,text\n1,a\n" * 50
BOM = b"\xef\xbb\xbf"
LINE = b'{"key":"a","request":{"contents":[{"parts":[{"text":"x"}]}]}}\n'


def wav() -> bytes:
    output = io.BytesIO()
    with wave.open(output, "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(b"\1\2" * 100)
    return output.getvalue()


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.json", "t.jsonl", "t.txt"])
@pytest.mark.parametrize(
    ("content", "what", "step"),
    [
        (bz2.compress(TABLE), "a bzip2 archive", "Unpack it, or give it the ending of such a file: .csv.bz2."),
        (lzma.compress(TABLE), "an xz archive", "Unpack it first."),
        (
            b"\x28\xb5\x2f\xfd\x24\x0c" + bytes(range(12, 90)),
            "a Zstandard archive",
            "Unpack it, or give it the ending of such a file: .csv.zst.",
        ),
        (b"7z\xbc\xaf\x27\x1c\0\4" + bytes(range(40)), "a 7-Zip archive", "Unpack it first."),
        (b"Rar!\x1a\x07\x01\0" + bytes(range(40)), "a RAR archive", "Unpack it first."),
        (png(1), "a PNG image", "Give the folder that contains it, or a table that names it."),
        (jpeg(), "a JPEG image", "Give the folder that contains it, or a table that names it."),
        (wav(), "a WAV audio file", "Give a table, or the folder that holds such files."),
        (b"GIF89a\1\0\1\0\x80\0\0", "a GIF image", "Give a table, or the folder that holds such files."),
    ],
)
def test_what_is_no_text_is_named_with_what_to_do(
    tmp_path: Path, name: str, content: bytes, what: str, step: str
) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(UsageError) as refusal, open_table(tmp_path / name, tmp_path):
        pass
    assert refusal.value.message == f"{name} is {what}, not text."
    assert refusal.value.next_step == step


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.json", "t.jsonl"])
@pytest.mark.parametrize(
    "start", [b"<!DOCTYPE html>\n", b"\xef\xbb\xbf\r\n  <!doctype HTML lang=en>", b"<html>", b"<HTML\n"]
)
def test_a_saved_web_page_is_told_as_one(tmp_path: Path, name: str, start: bytes) -> None:
    (tmp_path / name).write_bytes(start + b"<head><title>Sign in</title></head><body>a,b</body></html>\n")

    said = rf"^{name} is a saved web page, not a table\. Download the table itself"
    with pytest.raises(UsageError, match=said), open_table(tmp_path / name, tmp_path):
        pass


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", b"<htmlish>,b\n1,2\n"),
        ("t.csv", b"BM,text\n1,a\n"),  # two letters that bitmaps begin with
        ("t.csv", b"BZh1,text\n1,a\n"),
        ("t.csv", "BM,größe\n1,ü\n".encode("cp1252")),
        ("t.txt", b"<html>\nas lines of text\n"),
    ],
)
def test_text_that_only_begins_like_something_else_is_read(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)

    with open_table(tmp_path / name, tmp_path) as table:
        assert len(table.columns) == (1 if name == "t.txt" else 2)


def test_a_page_of_a_folder_is_text_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_bytes(b"<!DOCTYPE html><p>words</p>")

    assert as_utf8(tmp_path / "page.html", tmp_path).path.read_bytes().endswith(b"words</p>")


@pytest.mark.parametrize("marks", [2, 3])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", b"id,text\n1,a\n"),
        ("t.csv", b'"id","text"\n"1","a"\n'),
        ("t.csv", b"sep=;\nid;text\n1;a\n"),
        ("t.jsonl", b'{"id":"1","text":"a"}\n'),
        ("t.json", b'[{"id":"1","text":"a"}]'),
    ],
)
def test_a_second_byte_order_mark_is_left_out(tmp_path: Path, name: str, content: bytes, marks: int) -> None:
    (tmp_path / name).write_bytes(BOM * marks + content)

    assert read(tmp_path / name)[:2] == (["id", "text"], [["1", "a"]])
    with open_table(tmp_path / name, tmp_path) as table:
        assert table.warnings == (f"{name} begins with more than one byte-order mark; all were removed.",)


def test_a_second_mark_of_utf_16_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(("\ufeff" * 2 + "id,text\n1,ü\n").encode("utf-16-le"))

    assert read(tmp_path / "t.csv")[:2] == (["id", "text"], [["1", "ü"]])


def test_request_lines_with_two_marks_are_sent_without(tmp_path: Path) -> None:
    source = tmp_path / "t.jsonl"
    source.write_bytes(BOM + BOM + LINE)
    assert recognise(source, with_prompt=True) is SourceKind.READY
    for rows in (0, 1):
        copied = write_request_copy(
            source,
            tmp_path / "r",
            task="generate",
            keys_path=tmp_path / "k",
            max_file_bytes=MAX_FILE_BYTES,
            limit_rows=rows,
        )

        assert (tmp_path / "r").read_bytes() == LINE
        assert copied.warnings == ("A byte-order mark was removed.",)


def test_lines_of_openai_with_two_marks_are_converted(tmp_path: Path) -> None:
    source = tmp_path / "t.jsonl"
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    source.write_bytes(BOM + BOM + json.dumps({"custom_id": "a", "body": body}).encode() + b"\n")

    assert recognise(source, with_prompt=True) is SourceKind.OPENAI
    assert write_converted(source, tmp_path / "r", keys_path=tmp_path / "k").count == 1


def test_a_bitmap_is_named_though_two_letters_are_all_that_it_begins_with(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"BM" + struct.pack("<IHHI", 70, 0, 0, 54) + b"\x28\0\0\0" * 8)

    with (
        pytest.raises(UsageError, match=r"^t\.csv is a BMP image, not text\."),
        open_table(tmp_path / "t.csv", tmp_path),
    ):
        pass
