"""What a source is: told by its name, and of JSONL by its first lines, whatever those lines are."""

import json
from pathlib import Path

import pytest

from gemini_batch_mcp.errors import PathError, UsageError
from gemini_batch_mcp.intake.tables.kinds import SourceKind, recognise

READY, OPENAI, TABLE = SourceKind.READY, SourceKind.OPENAI, SourceKind.TABLE
REQUEST = '{"key":"a","request":{"contents":[{"parts":[{"text":"x"}]}]}}'


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (REQUEST, READY),
        ('{"key":"a","request":{}}', READY),
        ('\n\n \ufeff\n{"request":{"contents":[]}}', READY),
        ('{"contents":[{"parts":[]}]}', READY),
        ('{"content":{"parts":[{"text":"to embed"}]}}', READY),
        ('{"key":"a","request":"{}"}', READY),
        ('{"custom_id":"a","body":{},"request":{}}', READY),
        ("oops\n", TABLE),
        ("", TABLE),
        ('[{"id":1},\n{"id":2}]', TABLE),
        ('{"id":' + "[" * 5000 + "]" * 5000 + "}", TABLE),
        ('{"id":1,"request":"please help"}', TABLE),
        ('{"id":1,"content":"text"}', TABLE),
        ('{"id":1,"content":{"title":"text"}}', TABLE),
        ('{"id":1,"contents":["a book","a pen"]}', TABLE),
        ('{"id":1,"contents":[]}', TABLE),
        ('{"id":1,"contents":null}', TABLE),
        ('oops\n{"id":1}', TABLE),
        ('7\nnull\n"x"\n[]\n{"id":1}', TABLE),
        ('7\n7\n7\n7\n7\n{"id":1}', TABLE),
        ("x" * 21_000_000 + '\n{"id":1}', TABLE),
        ('{"custom_id":"a","method":"POST","url":"/v1","body":{}}', OPENAI),
        ('{"custom_id":"a","body":{}}', OPENAI),
        ('{"custom_id":"a","method":"POST","url":"/v1"}', OPENAI),
        ('{"custom_id":"a","note":"one member is no batch"}', TABLE),
        ('{"custom_id":"a","url":"/shop","body":"of a page"}', TABLE),
        ('{"url":"/shop","body":"of a page","method":"GET"}', TABLE),
        ('{"url":"/shop","body":{"of":"a log"},"method":"GET"}', TABLE),
    ],
)
def test_a_file_is_recognised_by_its_first_lines(tmp_path: Path, text: str, kind: SourceKind) -> None:
    source = tmp_path / "t.jsonl"
    source.write_text(text, encoding="utf-8")

    assert recognise(source, with_prompt=True) is kind


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ('{"größe":1}\n'.encode("utf-16"), TABLE),
        ('{"größe":1}\n'.encode("utf-16-be").join([b"\xfe\xff", b""]), TABLE),
        (REQUEST.encode("utf-16"), READY),
        (b"\xff\xfe", TABLE),
        (b"\xff\xfe{\0", TABLE),
        ('{"größe":1}\n'.encode("cp1252"), TABLE),
        (b'{"id":"\x81"}\n', TABLE),
        (b"\0\0\0\0", TABLE),
        (b'\xef\xbb\xbf{"id":1}', TABLE),
    ],
)
def test_rows_are_recognised_in_other_encodings(tmp_path: Path, data: bytes, kind: SourceKind) -> None:
    source = tmp_path / "t.ndjson"
    source.write_bytes(data)

    assert recognise(source, with_prompt=True) is kind


def test_other_files_hold_rows_whatever_is_in_them(tmp_path: Path) -> None:
    source = tmp_path / "t.csv"
    source.write_text(json.dumps({"key": "a", "request": {}}), encoding="utf-8")

    assert recognise(source, with_prompt=True) is TABLE
    assert recognise(tmp_path / "not there.csv", with_prompt=True) is TABLE


def test_a_file_that_is_not_there_is_not_recognised(tmp_path: Path) -> None:
    with pytest.raises(PathError, match=r"none\.jsonl cannot be read"):
        recognise(tmp_path / "none.jsonl", with_prompt=True)


@pytest.mark.parametrize(
    ("text", "kind"),
    [(REQUEST, READY), ('{"custom_id":"a","body":{}}', OPENAI), ('{"id":1}', READY), ("oops\n", READY)],
)
def test_without_a_prompt_lines_are_requests_right_or_wrong(tmp_path: Path, text: str, kind: SourceKind) -> None:
    source = tmp_path / "T.JSONL"
    source.write_text(text, encoding="utf-8")

    assert recognise(source, with_prompt=False) is kind


@pytest.mark.parametrize("with_prompt", [True, False])
@pytest.mark.parametrize("name", ["a.csv", "a.TSV", "a.b.json", "a.parquet", "a.txt"])
def test_tables_are_known_by_their_ending(name: str, with_prompt: bool) -> None:
    assert recognise(Path(name), with_prompt=with_prompt) is TABLE


@pytest.mark.parametrize("with_prompt", [True, False])
@pytest.mark.parametrize("name", ["a.xyz", "jsonl", "a.jsonl.xz", "reviews", "a.csv "])
def test_other_files_are_refused_by_their_ending(name: str, with_prompt: bool) -> None:
    with pytest.raises(UsageError) as refused:
        recognise(Path("/somewhere") / name, with_prompt=with_prompt)

    assert refused.value.message == f"{name} does not have the name of a table or of requests."
    assert refused.value.next_step.startswith("If it is one, end the name in .csv")
