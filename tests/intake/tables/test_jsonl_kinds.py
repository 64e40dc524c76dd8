"""What a JSONL file holds, told by its first lines, whatever those lines are."""

import json
from pathlib import Path

import pytest

from gemini_batch_mcp.errors import PathError
from gemini_batch_mcp.intake.tables._jsonl_kinds import SourceKind, recognise

GEMINI, OPENAI, ROWS = SourceKind.GEMINI_JSONL, SourceKind.OPENAI_JSONL, SourceKind.ROWS
REQUEST = '{"key":"a","request":{"contents":[{"parts":[{"text":"x"}]}]}}'


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (REQUEST, GEMINI),
        ('{"key":"a","request":{}}', GEMINI),
        ('\n\n \ufeff\n{"request":{"contents":[]}}', GEMINI),
        ('{"contents":[{"parts":[]}]}', GEMINI),
        ('{"content":{"parts":[{"text":"to embed"}]}}', GEMINI),
        ('{"key":"a","request":"{}"}', GEMINI),
        ('{"custom_id":"a","body":{},"request":{}}', GEMINI),
        ("oops\n", ROWS),
        ("", ROWS),
        ('[{"id":1},\n{"id":2}]', ROWS),
        ('{"id":' + "[" * 5000 + "]" * 5000 + "}", ROWS),
        ('{"id":1,"request":"please help"}', ROWS),
        ('{"id":1,"content":"text"}', ROWS),
        ('{"id":1,"content":{"title":"text"}}', ROWS),
        ('{"id":1,"contents":["a book","a pen"]}', ROWS),
        ('{"id":1,"contents":[]}', ROWS),
        ('{"id":1,"contents":null}', ROWS),
        ('oops\n{"id":1}', ROWS),
        ('7\nnull\n"x"\n[]\n{"id":1}', ROWS),
        ('7\n7\n7\n7\n7\n{"id":1}', ROWS),
        ("x" * 21_000_000 + '\n{"id":1}', ROWS),
        ('{"custom_id":"a","method":"POST","url":"/v1","body":{}}', OPENAI),
        ('{"custom_id":"a","body":{}}', OPENAI),
        ('{"custom_id":"a","method":"POST","url":"/v1"}', OPENAI),
        ('{"custom_id":"a","note":"one member is no batch"}', ROWS),
        ('{"custom_id":"a","url":"/shop","body":"of a page"}', ROWS),
        ('{"url":"/shop","body":"of a page","method":"GET"}', ROWS),
        ('{"url":"/shop","body":{"of":"a log"},"method":"GET"}', ROWS),
    ],
)
def test_a_file_is_recognised_by_its_first_lines(tmp_path: Path, text: str, kind: SourceKind) -> None:
    source = tmp_path / "t.jsonl"
    source.write_text(text, encoding="utf-8")

    assert recognise(source) is kind


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ('{"größe":1}\n'.encode("utf-16"), ROWS),
        ('{"größe":1}\n'.encode("utf-16-be").join([b"\xfe\xff", b""]), ROWS),
        (REQUEST.encode("utf-16"), GEMINI),
        (b"\xff\xfe", ROWS),
        (b"\xff\xfe{\0", ROWS),
        ('{"größe":1}\n'.encode("cp1252"), ROWS),
        (b'{"id":"\x81"}\n', ROWS),
        (b"\0\0\0\0", ROWS),
        (b'\xef\xbb\xbf{"id":1}', ROWS),
    ],
)
def test_rows_are_recognised_in_other_encodings(tmp_path: Path, data: bytes, kind: SourceKind) -> None:
    source = tmp_path / "t.ndjson"
    source.write_bytes(data)

    assert recognise(source) is kind


def test_other_files_hold_rows_whatever_is_in_them(tmp_path: Path) -> None:
    source = tmp_path / "t.csv"
    source.write_text(json.dumps({"key": "a", "request": {}}), encoding="utf-8")

    assert recognise(source) is ROWS
    assert recognise(tmp_path / "not there.csv") is ROWS


def test_a_file_that_is_not_there_is_not_recognised(tmp_path: Path) -> None:
    with pytest.raises(PathError, match=r"none\.jsonl cannot be read"):
        recognise(tmp_path / "none.jsonl")
