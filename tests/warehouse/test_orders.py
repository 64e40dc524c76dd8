"""Orders over a table: the same requests as from a file of the same rows, byte by byte, under keys that are proved."""

import hashlib
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.errors import RequestProblems, UsageError
from gemini_batch_mcp.intake.compose import write_rows
from gemini_batch_mcp.warehouse.statements import (
    RowsPlan,
    SourceColumn,
    TableName,
    keep_rows,
    plan_rows,
    prove_keys,
    row_problem,
    sample,
    survey,
    table_named,
    write_requests,
)
from support.cloud.warehouse import Warehouse
from support.extent import WANTED, in_part, tries

ROWS = tries(10_000, 1_000)
#: GoogleSQL's own implementation takes its time.
pytestmark = pytest.mark.timeout(3600 if WANTED else 300)
#: What ends something in JSON, in SQL or on a line, what is invisible, and what takes more than two bytes.
CHARACTERS = "'\"`\\;-#/{}$:\n\r\t\0\x01\x08\x0b\x0c\x1b\x1f\x7f\x85\u2028\u2029\u202e\ufeff\u00a0🙂é<>&abc "
TYPES = {"id": "VARCHAR", "text": "VARCHAR", "Größe": "VARCHAR", "n": "BIGINT", "flag": "BOOLEAN", "day": "DATE"}
COLUMNS = (
    SourceColumn("id", "STRING"),
    SourceColumn("text", "STRING"),
    SourceColumn("Größe", "STRING"),
    SourceColumn("n", "INTEGER"),
    SourceColumn("flag", "BOOLEAN"),
    SourceColumn("day", "DATE"),
)
HOSTILE = Order(
    prompt='it\'s {{text}} \\{{ "x"\n\x01\u2028🙂 {{n}}/{{flag}}/{{ day }}{{text}}',
    system_instruction="S {{Größe}} \\ ' `",
    generation_config={"temperature": 0.5, "stopSequences": ["'\n\u2028"]},
    response_schema={"type": "object", "properties": {"a'": {"type": "string", "description": "\\ \" '"}}},
    key_column="id",
)


def hostile_rows(count: int) -> list[list[Any]]:
    chance = random.Random(5)

    def text() -> str | None:
        kind = chance.random()
        length = 0 if kind < 0.1 else chance.randrange(1, 40)
        return None if kind < 0.05 else "".join(chance.choices(CHARACTERS, k=length))

    numbers = [None, 0, -1, 2**53 + 1, -(2**63), 2**63 - 1]
    days = [None, "0001-01-01", "2026-11-29"]
    return [
        [f"k{number}", text(), text(), chance.choice(numbers), chance.choice([None, True, False]), chance.choice(days)]
        for number in range(count)
    ]


def planned(order: Order, table: TableName, columns: tuple[SourceColumn, ...] = COLUMNS) -> RowsPlan:
    return plan_rows(replace(order, source=table.uri), table, columns)


def requests(warehouse: Warehouse, plan: RowsPlan) -> dict[str, str]:
    kept, written = warehouse.table("kept"), warehouse.table("requests")
    for statement in (keep_rows(plan, kept), write_requests(plan, kept, written)):
        assert warehouse.run(statement) == []
    return {row["key"]: row["request"] for row in warehouse.rows(written)}


def from_a_file(order: Order, rows: list[list[Any]], directory: Path) -> dict[str, str]:
    """Return the requests of the same rows by key, as tables on this machine become them."""
    source = directory / "same.jsonl"
    source.write_text("".join(json.dumps(dict(zip(TYPES, row, strict=True))) + "\n" for row in rows), encoding="utf-8")
    write_rows(source, directory / "lines", order=replace(order, source=str(source)), keys_path=directory / "keys")
    return by_key(directory / "lines")


def by_key(lines: Path) -> dict[str, str]:
    """Return the requests of written lines by their keys, as they stand there."""
    found = {}
    for line in lines.read_bytes().decode().split("\n")[:-1]:
        key, _, request = line.partition(',"request":')
        found[json.loads(key.removeprefix('{"key":'))] = request[:-1]
    return found


@in_part
def test_requests_of_hostile_rows_are_those_of_a_file_byte_by_byte(warehouse: Warehouse, tmp_path: Path) -> None:
    rows = hostile_rows(ROWS)
    plan = planned(HOSTILE, warehouse.load("source", TYPES, rows))
    expected = from_a_file(HOSTILE, rows, tmp_path)

    (figures,) = warehouse.run(survey(plan))
    written = requests(warehouse, plan)

    assert len(expected) == ROWS
    assert written == expected
    assert figures["row_count"] == ROWS
    assert figures["request_bytes"] == sum(len(request.encode()) for request in expected.values())
    assert figures["longest_bytes"] == max(len(request.encode()) for request in expected.values())
    assert row_problem(plan, figures) is None
    assert row_problem(plan, warehouse.run(prove_keys(warehouse.table("kept")))[0]) is None
    shown = warehouse.run(sample(plan, 3))
    assert [row["key"] for row in shown] == sorted(expected)[:3]
    assert [row["request"] for row in shown] == [expected[row["key"]] for row in shown]
    texts = [json.loads(request) for request in expected.values()]
    said = (part["parts"][0]["text"] for text in texts for part in (text["contents"][0], text["systemInstruction"]))
    assert figures["text_bytes"] == sum(len(text.encode()) for text in said)


def test_rows_are_chosen_by_a_condition_by_keys_and_spread_as_in_a_file(warehouse: Warehouse, tmp_path: Path) -> None:
    rows = hostile_rows(60)
    source = warehouse.load("source", TYPES, rows)

    def chosen(**parts: Any) -> set[str]:
        plan = planned(replace(HOSTILE, **parts), source)
        return {row["key"] for row in warehouse.run(sample(plan, 100))}

    assert chosen(where="flag AND n IS NULL") == {row[0] for row in rows if row[4] and row[3] is None}
    assert chosen(limit_rows=7) == set(sorted(row[0] for row in rows)[:7])
    assert chosen(sample_rows=9) == from_a_file(replace(HOSTILE, sample_rows=9), rows, tmp_path).keys()
    assert chosen(sample_rows=9) == chosen(sample_rows=9, prompt="Other {{n}}")


def test_a_row_without_a_key_gets_one_of_its_content_and_twins_are_told_apart(warehouse: Warehouse) -> None:
    rows: list[list[Any]] = [["a", "x", None, 1, True, None], ["b", "x", None, 1, True, None]] + [
        ["c", "x", None, 1, None, None]
    ] * 3
    plan = planned(replace(HOSTILE, key_column=""), warehouse.load("source", TYPES, rows))

    first = requests(warehouse, plan)
    again = {row["key"] for row in warehouse.run(sample(plan, 10))}

    assert len(first) == 5
    assert again == first.keys()
    (made,) = {key for key in first if key.endswith("-3")}
    assert {made.removesuffix("-3"), made.replace("-3", "-2")} <= first.keys()
    # The digest of the digests of its cells, as rows are spread by.
    cells = "".join(hashlib.md5(cell.encode()).hexdigest() for cell in ("a", "x", "", "1", "true", ""))
    assert f"row-{hashlib.md5(cells.encode()).hexdigest()[:16]}" in first


def test_what_is_wrong_with_rows_is_told_in_words(warehouse: Warehouse) -> None:
    rows: list[list[Any]] = [
        ["a", "x", "", 1, True, None],
        ["a", " \u00a0\n", "", 2, True, None],
        [None, "y", "", 3, True, None],
    ]
    rows += [["", "y", "", 4, True, None], ["k" * 1025, "y", "", 5, True, None]]
    source = warehouse.load("source", TYPES, rows)

    def told(**parts: Any) -> str:
        plan = planned(replace(HOSTILE, prompt="{{text}}", **parts), source)
        (figures,) = warehouse.run(survey(plan))
        return str(row_problem(plan, figures))

    (figures,) = warehouse.run(survey(planned(replace(HOSTILE, prompt="{{text}}"), source)))
    assert [figures[name] for name in ("row_count", "null_keys", "repeated_keys", "long_keys", "blank_rows")] == [
        5, 2, 1, 1, 1
    ]  # fmt: skip
    assert "2 rows of 5 have nothing in id" in told()
    assert "such as a." in told(where="id IS NOT NULL AND id != ''")
    assert "1 key of 2 have more than 1,024 characters" in told(where="n IN (2, 5)")
    assert "meets `where`" in told(where="n > 5")
    assert told(where="n = 5", key_column="") == "None"


def test_files_in_cloud_storage_are_attached_by_their_addresses(warehouse: Warehouse) -> None:
    cells: list[str | None] = ["gs://bucket/a 'b'.PDF", "", None, "gs://bucket/c", "/home/d.png", "gs://bucket"]
    rows = [[str(number), "t", cell, number, True, None] for number, cell in enumerate(cells)]
    plan = planned(Order(prompt="{{text}}", attach="Größe", key_column="id"), warehouse.load("source", TYPES, rows))

    (figures,) = warehouse.run(survey(plan))
    parts = {key: json.loads(request)["contents"][0]["parts"] for key, request in requests(warehouse, plan).items()}

    assert (figures["attached_files"], figures["bad_files"]) == (4, 2)
    assert "2 cells of the attached column" in str(row_problem(plan, figures))
    assert parts["0"][0] == {"fileData": {"fileUri": cells[0], "mimeType": "application/pdf"}}
    assert [len(parts[key]) for key in ("1", "2")] == [1, 1]
    assert parts["3"][0] == {"fileData": {"fileUri": cells[3]}}


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"prompt": "{{texts}}"}, "Did you mean text?"),
        ({"prompt": "All alike"}, "names no column"),
        ({"prompt": "{{place}}"}, "ST_ASTEXT(place)"),
        ({"prompt": "{{nested}}"}, "holds an INTERVAL"),
        ({"key_column": "ids"}, "ids"),
        ({"key_column": "score"}, "not keys"),
        ({"task": "embed"}, "Embeddings"),
        ({"delivery": "now"}, "delivery"),
        ({"skip_invalid": True}, "skip_invalid"),
        ({"encoding": "latin-1"}, "encoding"),
        ({"reuse": "always"}, "reuse"),
        ({"limit_rows": 1, "sample_rows": 1}, "one of them"),
        ({"generation_config": {"temperature": 9}}, "temperature"),
        ({"prompt": "\ud800{{text}}"}, "surrogate"),
    ],
)
def test_an_order_that_cannot_be_one_is_refused_before_anything_is_asked(parts: dict[str, Any], words: str) -> None:
    columns = (
        *COLUMNS,
        SourceColumn("score", "FLOAT"),
        SourceColumn("place", "GEOGRAPHY"),
        SourceColumn("nested", "RECORD", fields=(SourceColumn("range", "STRING"), SourceColumn("for", "INTERVAL"))),
    )
    order = replace(Order(prompt="{{text}}"), **parts)
    with pytest.raises((UsageError, RequestProblems)) as refused:
        planned(order, table_named("bq://my-project.sales.reviews"), columns)
    assert words in str(refused.value)
