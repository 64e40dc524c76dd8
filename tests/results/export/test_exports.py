"""Results as files for other programs: CSV that no spreadsheet runs, Parquet with types, vectors for numpy."""

import csv
import io
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.errors import StorageError, UsageError
from gemini_batch_mcp.results.engine import parts_of
from gemini_batch_mcp.results.store import ResultTable
from support.answers import answer, cells, line, planned, source_file, table_of
from support.extent import few
from support.loading import scratch

PLAIN_HEADER = "key,text,status,error"


def csv_rows(table: ResultTable, directory: Path) -> list[dict[str, str]]:
    content = table.export(directory / "export.csv", "csv").path.read_bytes()
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))


def test_a_csv_file_is_what_rfc_4180_says(tmp_path: Path) -> None:
    texts = ["plain", 'quote " and, comma', "line\nbreak", "carriage\rreturn", "both\r\n", "", " spaced ", "semi;colon"]
    keys = [f"k{number}" for number in range(len(texts))]
    table = table_of(tmp_path, [answer(*pair) for pair in zip(keys, texts, strict=True)], keys=keys)
    saved = table.export(tmp_path / "mine.csv", "csv")

    content = saved.path.read_bytes()
    assert content.startswith(PLAIN_HEADER.encode() + b"\r\nk0,plain,ok,\r\n")
    assert content.endswith(b"\r\n")
    assert (saved.format, saved.rows, saved.size_bytes) == ("csv", len(texts), len(content))
    rows = csv_rows(table, tmp_path)
    assert [row["key"] for row in rows] == keys
    assert [row["text"] for row in rows] == texts


FORMULAS = (
    *("=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\u00a0=1", "\u200b=1", "\ufeff=1"),
    *("\uff1dcmd", "\uff0bcmd", "\uff0dcmd", "\uff20cmd", "=cmd|' /C calc'!A0", '=HYPERLINK("http://x","y")'),
    *("-", "--5", "- item", "+", "-5-", "+a", "-1e", "=5", "@5", "\x00=1"),
)
NO_FORMULAS = ("-5", "+5", "-0.5", "-1,234.5", "+49 170 1234567", "-5e-3", "-5%", "5", "a=1", "é", "日本=1", "'=1", "")


def with_column(directory: Path, name: str, texts: Sequence[str]) -> ResultTable:
    """Build a table with a column of the user's and, where there is any text, the same as answers."""
    keys = [f"k{number}" for number in range(len(texts))]
    answers = b"".join(answer(key, text or "x") for key, text in zip(keys, texts, strict=True))
    return planned(directory, answers, keys=keys, source_columns=source_file(directory, {name: texts}))


def test_what_a_spreadsheet_takes_for_a_formula_gets_an_apostrophe(tmp_path: Path) -> None:
    table = with_column(tmp_path, "=name", FORMULAS)

    guarded = ["'" + text.replace("\x00", "\ufffd") for text in FORMULAS]
    rows = csv_rows(table, tmp_path)
    assert [row["text"] for row in rows] == guarded
    assert [row["'=name"] for row in rows] == guarded
    assert cells(table, "SELECT text FROM results ORDER BY row") == [(text,) for text in FORMULAS]


def test_numbers_and_other_text_stay_as_they_are(tmp_path: Path) -> None:
    table = with_column(tmp_path, "cell", NO_FORMULAS)

    assert [row["cell"] for row in csv_rows(table, tmp_path)] == list(NO_FORMULAS)


def test_numbers_of_typed_columns_stay_numbers(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}, "x": {"type": "number"}, "o": {}}}
    table = planned(tmp_path, answer("a", '{"n": -3, "x": -0.5, "o": "=1"}'), keys=["a"], response_schema=schema)

    (row,) = csv_rows(table, tmp_path)
    assert row == {"key": "a", "n": "-3", "x": "-0.5", "o": '"=1"', "status": "ok", "error": ""}


def test_a_key_and_an_error_are_guarded_too(tmp_path: Path) -> None:
    lines = [line("=k", error={"message": "@evil"}), answer("b", "x", "=REASON")]
    table = table_of(tmp_path, lines, keys=["=k", "b"])

    first, second = csv_rows(table, tmp_path)
    assert (first["key"], first["error"], second["error"]) == ("'=k", "'@evil", "stopped: =REASON")


@pytest.mark.parametrize(("text", "has_mark"), [("plain", False), ("naïve", True), ("日本", True)])
def test_a_byte_order_mark_stands_only_where_excel_needs_it(tmp_path: Path, text: str, has_mark: bool) -> None:
    content = table_of(tmp_path, answer("a", text), keys=["a"]).export(tmp_path / "x.csv", "csv").path.read_bytes()

    assert content.startswith(b"\xef\xbb\xbf") == has_mark
    assert content.decode("utf-8-sig").startswith("key,text,status")
    assert sorted(path.name for path in tmp_path.glob("*.csv*")) == ["x.csv"]


@pytest.mark.parametrize("format", ["csv", "parquet", "jsonl"])
def test_every_format_has_the_rows_in_request_order(tmp_path: Path, format: Any) -> None:
    """Missing rows stand at the end of the table's file, and shuffled answers are sorted."""
    keys = [f"k{number}" for number in range(5000)]
    table = table_of(tmp_path, [answer(key) for key in keys if not key.endswith("3")], keys=keys)
    path = table.export(tmp_path / f"x.{format}", format).path

    if format == "csv":
        found = [row["key"] for row in csv_rows(table, tmp_path)]
    elif format == "jsonl":
        found = [json.loads(text)["key"] for text in path.read_text("utf-8").splitlines()]
    else:
        found = [key for (key,) in scratch().execute(f"SELECT key FROM '{path}'").fetchall()]
    assert found == keys


def test_the_users_columns_come_first_in_every_format(tmp_path: Path) -> None:
    source = source_file(tmp_path, {"id": ["7"], "Text": ["mine"]})
    table = planned(tmp_path, answer("a", "theirs"), keys=["a"], source_columns=source)

    assert list(csv_rows(table, tmp_path)[0]) == ["id", "source_Text", "text", "status", "error"]
    (text,) = table.export(tmp_path / "x.jsonl", "jsonl").path.read_text("utf-8").splitlines()
    assert list(json.loads(text))[:5] == ["id", "source_Text", "key", "status", "text"]
    path = table.export(tmp_path / "x.parquet", "parquet").path
    columns = [name for name, *_ in scratch().execute(f"DESCRIBE FROM '{path}'").fetchall()]
    assert columns[:5] == ["id", "source_Text", "key", "status", "text"]
    assert not {"row", "file", "line", "json", "files"} & set(columns)


def test_parquet_keeps_types_and_what_no_cell_could_hold(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    table = planned(tmp_path, answer("a", '{"n": 1}'), keys=["a"], response_schema=schema)
    path = table.export(tmp_path / "x.parquet", "parquet").path

    assert scratch().execute(f"SELECT n, json, input_tokens FROM '{path}'").fetchall() == [(1, '{"n": 1}', 3)]


def test_json_lines_hold_json_as_json(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"o": {}, "n": {"type": "number"}}}
    lines = [answer("a", '{"o": [1], "n": 0.5}'), answer("b", "no")]
    table = planned(tmp_path, lines, keys=["a", "b"], response_schema=schema)

    first, second = map(json.loads, table.export(tmp_path / "x.jsonl", "jsonl").path.read_text("utf-8").splitlines())
    assert (first["json"], first["o"], first["n"]) == ({"o": [1], "n": 0.5}, [1], 0.5)
    assert (second["json"], second["o"], second["error"]["code"]) == (None, None, None)


def vectors(directory: Path, *values: Any) -> ResultTable:
    keys = [f"k{number}" for number in range(len(values))]
    lines = [line(key, response={"embedding": {"values": value}}) for key, value in zip(keys, values, strict=True)]
    return planned(directory, lines, keys=keys, task="embed")


def test_vectors_are_a_column_of_numbers_and_only_told_of_in_pages(tmp_path: Path) -> None:
    table = vectors(tmp_path, [0.5, -1, 2], [1, 2, 3])

    assert cells(table, "SELECT embedding, text FROM results ORDER BY row") == [
        ([0.5, -1.0, 2.0], "embedding of 3 numbers"),
        ([1.0, 2.0, 3.0], "embedding of 3 numbers"),
    ]
    assert table.vector_size == 3
    assert [row.text for row in table.page(view="rows", limit=5).rows] == ["embedding of 3 numbers"] * 2
    assert [(row["key"], row["vector_row"]) for row in csv_rows(table, tmp_path)] == [("k0", "0"), ("k1", "1")]
    path = table.export(tmp_path / "x.parquet", "parquet").path
    assert scratch().execute(f"SELECT embedding FROM '{path}'").fetchall()[1] == ([1.0, 2.0, 3.0],)


@few(4)
@pytest.mark.parametrize("values", [[None], [1, "x"], [1, None], ["NaN"], [1e999], "x", {"a": 1}, [[1]]])
def test_a_vector_with_something_else_in_it_is_failed(tmp_path: Path, values: Any) -> None:
    table = vectors(tmp_path, [1, 2], values)

    (good, bad) = cells(table, "SELECT status, embedding, error_message FROM results ORDER BY row")
    assert good == ("ok", [1.0, 2.0], "")
    assert bad == ("failed", None, "the embedding is not a list of numbers")


def test_an_empty_vector_is_an_empty_answer(tmp_path: Path) -> None:
    assert cells(vectors(tmp_path, []), "SELECT status, embedding FROM results") == [("empty", None)]


def test_of_several_embeddings_the_first_one_is_taken(tmp_path: Path) -> None:
    content = line("a", response={"embeddings": [{"values": [1, 2]}, {"values": [3, 4]}]})
    table = planned(tmp_path, content, keys=["a"], task="embed")

    assert cells(table, "SELECT embedding FROM results") == [([1.0, 2.0],)]


def test_a_matrix_has_the_vectors_in_row_order_and_keys_beside_it(tmp_path: Path) -> None:
    table = vectors(tmp_path, [0.5, 1], [None], [2, -3])
    matrix = table.export(tmp_path / "v.npy", "npy")
    keys = table.export(tmp_path / "v.keys.jsonl", "keys")

    content = matrix.path.read_bytes()
    length = struct.unpack("<H", content[8:10])[0]
    assert content[:8] == b"\x93NUMPY\x01\x00"
    assert (10 + length) % 64 == 0
    head = content[10 : 10 + length].decode()
    assert head.startswith("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }") and head.endswith(" \n")
    assert struct.unpack("<4f", content[10 + length :]) == (0.5, 1.0, 2.0, -3.0)
    assert (matrix.rows, keys.rows, keys.path.read_text("utf-8")) == (2, 2, '"k0"\n"k2"\n')


@pytest.mark.parametrize("values", [([1], [1, 2]), ([None], [None])])
def test_vectors_of_several_lengths_make_no_matrix(tmp_path: Path, values: tuple[Any, ...]) -> None:
    table = vectors(tmp_path, *values)

    assert table.vector_size == 0
    with pytest.raises(UsageError, match="don't form a matrix"):
        table.export(tmp_path / "v.npy", "npy")
    assert not list(tmp_path.glob("*.npy*")) and not list(tmp_path.glob(".gemini-batch-*"))


@pytest.mark.parametrize("format", ["csv", "parquet", "jsonl"])
def test_an_export_that_fails_leaves_nothing(tmp_path: Path, format: Any) -> None:
    table = table_of(tmp_path, answer("a"), keys=["a"])
    (tmp_path / "out").mkdir()
    (part,) = parts_of(table.folder)
    content = bytearray(part.read_bytes())
    content[4:200] = bytes(196)
    part.write_bytes(content)

    with pytest.raises(StorageError, match="could not be written"):
        table.export(tmp_path / "out" / "x", format)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_csv_for_people_has_each_fact_once_and_text_only_where_there_are_no_fields(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
    source = source_file(tmp_path, {"id": ["1", "2", "3"], "status": ["new", "old", "new"]})
    lines = [
        answer("a", '{"label": "good"}'),
        answer("b", "I cannot say."),
        line("c", error={"code": 429, "message": "no quota"}),
    ]
    table = planned(tmp_path, lines, keys=["a", "b", "c"], source_columns=source, response_schema=schema)

    first, second, third = csv_rows(table, tmp_path)
    assert list(first) == ["id", "source_status", "label", "text", "status", "error"]
    assert (first["label"], first["text"], first["error"]) == ("good", "", "")
    assert (second["label"], second["text"]) == ("", "I cannot say.")
    assert "schema" in second["error"]
    assert (third["status"], third["error"]) == ("failed", "code 429: no quota")


def test_a_csv_of_vectors_says_where_they_are(tmp_path: Path) -> None:
    table = vectors(tmp_path, [0.5, 1], [None], [2, -3])
    saved = table.export(tmp_path / "v.csv", "csv")

    assert [(row["key"], row["vector_row"]) for row in csv_rows(table, tmp_path)] == [
        ("k0", "0"),
        ("k1", ""),
        ("k2", "1"),
    ]
    assert saved.notes == (
        "The vectors are in the .vectors.npy beside it: vector_row is the row there, counted from 0.",
    )
    some = table.export(tmp_path / "some.npy", "npy", keys=["k2", "nobody"])
    assert (some.rows, some.path.read_bytes()[-8:]) == (1, struct.pack("<2f", 2, -3))


@pytest.mark.parametrize("format", ["csv", "parquet", "jsonl", "xlsx"])
def test_the_rows_of_some_keys_are_written_in_every_format(tmp_path: Path, format: Any) -> None:
    keys = [f"k{number}" for number in range(5000)]
    table = table_of(tmp_path, [answer(key, f"text of {key}") for key in keys], keys=keys)
    saved = table.export(tmp_path / f"x.{format}", format, keys=["k4999", "k7", "nobody", "k7", "\ud800"])

    assert saved.rows == 2
    content = saved.path.read_bytes()
    if format == "jsonl":
        assert [json.loads(row)["response"]["candidates"][0]["finishReason"] for row in content.splitlines()] == [
            "STOP"
        ] * 2
    elif format == "csv":
        assert content.decode() == "key,text,status,error\r\nk7,text of k7,ok,\r\nk4999,text of k4999,ok,\r\n"
    elif format == "parquet":
        assert scratch().execute(f"SELECT key FROM '{saved.path}'").fetchall() == [("k7",), ("k4999",)]
