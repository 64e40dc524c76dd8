"""Numbers as they were answered: in SQL, and in every file that is saved, whatever the type that was asked for."""

import csv
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from python_calamine import CalamineWorkbook

from gemini_batch_mcp.results.engine import quoted
from gemini_batch_mcp.results.store import AnswerFile, ResultTable, TablePlan
from support.answers import answer, answer_file, cells, failure, keys_file, planned, rebuilt
from support.extent import few, long
from support.loading import scratch

KINDS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "whole": {"type": "integer"},
        "number": {"type": "number"},
        "many": {"type": "array"},
        "within": {"type": "object"},
    },
}
#: Numbers that neither a 64-bit integer nor a double holds, or only one of them.
LONG = [
    "1878123456789012345",
    "18781234567890123456",
    "-18781234567890123456",
    "9223372036854775808",
    "-9223372036854775809",
    "123456789012345678901234567890123456789012345",
    "12345678901234567.5",
    "-0.12345678901234567890",
    "9007199254740993",
    "1234567890123456",
    "1234567890.1234567",
    "1e22",
    "1.878123456789012345e18",
    "1E400",
    "1e-400",
]
SHORT = ["-0", "0", "1.50", "0.1", "-2.5e3", "1E5", "123456789012345", "1.5e-7", "0.30000000000000004"]


def types_of(table: ResultTable) -> dict[str, str]:
    return {column.name: column.type for column in table.columns}


def read_back(table: ResultTable, directory: Path, name: str) -> dict[str, list[Any]]:
    """Return what every kind of saved file has under a name, row by row."""
    saved = {
        ending: table.export(directory / f"out.{ending}", ending).path for ending in ("csv", "jsonl", "parquet", "xlsx")
    }
    with saved["csv"].open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    sheet = CalamineWorkbook.from_path(str(saved["xlsx"])).get_sheet_by_index(0).to_python()
    with scratch() as connection:
        stored = connection.execute(f'SELECT "{name}" FROM read_parquet({quoted(saved["parquet"])})').fetchall()
    return {
        "csv": [row[name] for row in rows],
        "jsonl": [
            json.loads(line, parse_float=str, parse_int=str)[name]
            for line in saved["jsonl"].read_text("utf-8").splitlines()
        ],
        "parquet": [value for (value,) in stored],
        "xlsx": [row[sheet[0].index(name)] for row in sheet[1:]],
    }


@pytest.mark.parametrize("name", ["whole", "number"])
def test_a_number_is_everywhere_the_one_that_was_answered(tmp_path: Path, name: str) -> None:
    """Numbers that are no whole ones do not fit an integer, and are no matter here."""
    given = [text for text in LONG + SHORT if name == "number" or Decimal(text) == Decimal(text).to_integral_value()]
    given = [text for text in given if name == "number" or text != "1E400"]
    keys = [f"k{place}" for place in range(len(given))]
    lines = [answer(key, f'{{"{name}": {text}}}') for key, text in zip(keys, given, strict=True)]
    table = planned(tmp_path, lines, keys=keys, response_schema=KINDS)

    assert types_of(table)[name] == "VARCHAR"
    wanted = list(map(Decimal, given))
    found = read_back(table, tmp_path, name) | {
        "sql": [value for (value,) in cells(table, f"SELECT {name} FROM results ORDER BY row")]
    }
    for kind, values in found.items():
        assert list(map(Decimal, values)) == wanted, kind
        assert [text for text in values if text in LONG] == [text for text in given if text in LONG], kind
    assert table.summary().succeeded == len(given)


def test_columns_keep_their_type_where_it_holds_every_number(tmp_path: Path) -> None:
    """Digits by themselves decide nothing: the largest integer, and a double written out, are what they are."""
    pairs = [("9223372036854775807", "0.30000000000000004"), ("-9223372036854775808", "1e22"), ("1E5", "1e-7")]
    keys = [f"k{place}" for place in range(len(pairs))]
    lines = [
        answer(key, f'{{"whole": {whole}, "number": {number}}}')
        for key, (whole, number) in zip(keys, pairs, strict=True)
    ]
    table = planned(tmp_path, lines, keys=keys, response_schema=KINDS)

    assert (types_of(table)["whole"], types_of(table)["number"]) == ("BIGINT", "DOUBLE")
    assert cells(table, "SELECT whole, number FROM results ORDER BY row") == [
        (2**63 - 1, 0.30000000000000004),
        (-(2**63), 1e22),
        (100_000, 1e-7),
    ]


@few(5, more=len(LONG))
@pytest.mark.parametrize("text", LONG)
def test_a_number_deep_in_an_answer_is_the_one_that_was_answered(tmp_path: Path, text: str) -> None:
    whole = f'{{"many": [1,\n {text}, {{"x": {text}}}], "within": {{"x": [{text}]}}}}'
    table = planned(tmp_path, answer("a", whole), keys=["a"], response_schema=KINDS)

    assert cells(table, "SELECT many::VARCHAR, within::VARCHAR, json::VARCHAR FROM results") == [
        (f'[1,{text},{{"x":{text}}}]', f'{{"x":[{text}]}}', whole)
    ]
    assert read_back(table, tmp_path, "many")["csv"] == [f'[1,{text},{{"x":{text}}}]']


@long
def test_all_parts_of_a_table_agree_whichever_holds_the_long_number(tmp_path: Path) -> None:
    """In a later file, in an earlier one, and in a retry; a line that cannot be read cuts its slice in pieces."""
    texts = {"a": "7", "b": "0.5", "c": "18781234567890123456", "d": "8"}
    for order in ("abcd", "cabd", "dbac"):
        place = tmp_path / order
        place.mkdir()
        keys = list(order)
        keys_path = keys_file(place, keys)
        answers = tuple(
            AnswerFile(
                answer_file(place, answer(key, f'{{"number": {texts[key]}, "whole": 3}}'), name=f"{key}.jsonl"),
                keys_path,
                first_row=row,
                row_count=1,
            )
            for row, key in enumerate(keys)
        )
        table = rebuilt(place, TablePlan(answers, response_schema=KINDS))
        assert cells(table, "SELECT key, number, whole FROM results ORDER BY row") == [
            (key, texts[key], 3) for key in keys
        ]
        assert types_of(table) | {"number": "VARCHAR", "whole": "BIGINT"} == types_of(table)

    first = AnswerFile(
        answer_file(tmp_path, [answer("a", '{"number": 7}'), failure("b")]), keys_file(tmp_path, ["a", "b"])
    )
    again = AnswerFile(
        answer_file(tmp_path, answer("b", '{"number": 9007199254740993}'), name="2.jsonl"),
        keys_file(tmp_path, ["b"], name="2-keys.jsonl"),
        2,
    )
    retried = rebuilt(tmp_path, TablePlan((first, again), response_schema=KINDS))
    assert cells(retried, "SELECT number FROM results ORDER BY row") == [("7",), ("9007199254740993",)]
