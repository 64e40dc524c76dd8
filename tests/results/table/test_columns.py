"""The columns of a table: the user's own beside ours, fields of structured answers, and names that clash."""

import json
from pathlib import Path

import pytest

from gemini_batch_mcp.domain import Column
from gemini_batch_mcp.results.engine import identifier
from gemini_batch_mcp.results.query._database import locked_database
from gemini_batch_mcp.results.store import AnswerFile, TablePlan
from gemini_batch_mcp.results.table.layout import layout
from support.answers import answer, answer_file, cells, failure, keys_file, planned, rebuilt, source_file

OURS = ["key", "status", "text", "json", "finish_reason", "error_code", "error", "model_version"]
OURS += [
    "input_tokens",
    "output_tokens",
    "thoughts_tokens",
    "cost_usd",
    "attempt",
    "files",
    "calls",
    "cleaned",
    "answered_by",
    "row",
    "file",
    "line",
]
KEYS = ["a", "b", "c"]


def names(columns: tuple[Column, ...]) -> list[str]:
    return [column.name for column in columns]


def test_a_plain_table_has_our_columns_only(tmp_path: Path) -> None:
    assert names(planned(tmp_path, answer("a"), keys=["a"]).columns) == OURS


@pytest.mark.parametrize("keys", [["a"], ["b", "a"]])
def test_the_columns_that_are_told_are_those_of_the_file(tmp_path: Path, keys: list[str]) -> None:
    """Told without opening the file, as SQL has them; in a table written in one pass and in one that takes more."""
    members = {"s": {"type": "string"}, "i": {"type": "integer"}, "n": {"type": "number"}, "b": {"type": "boolean"}}
    schema = {"type": "object", "properties": members | {"o": {"type": "object"}, "l": {"type": "array"}}}
    source = source_file(tmp_path, {"id": ["1"]})
    first = AnswerFile(answer_file(tmp_path, answer("a", "{}")), keys_file(tmp_path, keys))
    again = AnswerFile(None, keys_file(tmp_path, keys, name="2-keys.jsonl"), 2)
    answers = (first,) if len(keys) == 1 else (first, again)
    plan = TablePlan(answers, task="embed", response_schema=schema, source_columns=source)
    table = rebuilt(tmp_path, plan)

    with locked_database({"results": table.folder}, 512 << 20) as connection:
        described = [(name, kind) for name, kind, *_ in connection.execute("DESCRIBE results").fetchall()]
    assert described == [(column.name, column.type) for column in table.columns]
    assert {"id", "s", "o", "embedding"} < set(names(table.columns))
    assert ("history" in names(table.columns)) == (len(keys) == 2)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [1, 2]])
def test_the_users_columns_stand_first_in_the_row_of_their_key(tmp_path: Path, order: list[int]) -> None:
    """In order, out of order, and with a row missing: the three ways in which a table is written."""
    source = source_file(tmp_path, {"id": ["1", "2", "3"], "review": ["good", None, "bad"]})
    lines = [answer(KEYS[place], f"of {KEYS[place]}") for place in order]
    table = planned(tmp_path, lines, keys=KEYS, source_columns=source)

    assert names(table.columns) == ["id", "review", *OURS]
    rows = cells(table, "SELECT id, review, key, text FROM results ORDER BY row")
    texts = [f"of {key}" if place in order else "" for place, key in enumerate(KEYS)]
    assert rows == list(zip(["1", "2", "3"], ["good", None, "bad"], KEYS, texts, strict=True))


def test_shards_and_slices_get_the_columns_of_their_own_rows(tmp_path: Path) -> None:
    keys = [f"k{number}" for number in range(40)]
    source = source_file(tmp_path, {"number": [str(number) for number in range(40)]})
    keys_path = keys_file(tmp_path, keys)
    halves = [(0, 25), (25, 15)]
    answers = tuple(
        AnswerFile(
            answer_file(tmp_path, [answer(key) for key in keys[first : first + count]], name=f"{first}.jsonl"),
            keys_path,
            first_row=first,
            row_count=count,
        )
        for first, count in halves
    )
    table = rebuilt(tmp_path, TablePlan(answers, source_columns=source))

    assert cells(table, "SELECT count(*) FROM results WHERE key = 'k' || number AND row = number::INTEGER + 1") == [
        (40,)
    ]
    assert table.summary().integrity_ok


def test_names_that_clash_give_way_in_a_known_manner(tmp_path: Path) -> None:
    source = source_file(tmp_path, {"Text": ["x"], "source_text": ["y"], "STATUS": ["z"], "error": ["e"]})
    schema = {"type": "object", "properties": {"key": {}, "Source_Status": {"type": "string"}, "json": {}}}
    table = planned(tmp_path, answer("a", "{}"), keys=["a"], source_columns=source, response_schema=schema)

    own = [name for name in names(table.columns) if name not in OURS]
    assert own == [
        *("source_Text_2", "source_text", "source_STATUS", "source_error"),
        *("answer_key", "answer_Source_Status", "answer_json"),
    ]
    assert cells(table, 'SELECT "source_Text_2", source_text, "source_STATUS", source_error FROM results') == [
        ("x", "y", "z", "e")
    ]


def test_a_column_that_has_another_name_says_what_its_source_or_the_schema_calls_it() -> None:
    columns = layout([Column("Text", "VARCHAR"), Column("id", "VARCHAR")], [Column("key", "VARCHAR")]).columns

    assert [column for column in columns if column.origin] == [
        Column("source_Text", "VARCHAR", "Text"),
        Column("answer_key", "VARCHAR", "key"),
    ]


def test_sql_calls_an_error_what_a_row_calls_it_and_what_gemini_sent_is_no_column(tmp_path: Path) -> None:
    """A source's `response` keeps its name in SQL; in a JSON line the whole response has it."""
    source = source_file(tmp_path, {"response": ["mine", "mine"], "error": ["theirs", "theirs"]})
    first = AnswerFile(answer_file(tmp_path, [answer("a"), failure("b")]), keys_file(tmp_path, ["a", "b"]))
    again = AnswerFile(
        answer_file(tmp_path, [failure("b")], name="2.jsonl"), keys_file(tmp_path, ["b"], name="2-keys.jsonl"), 2
    )
    table = rebuilt(tmp_path, TablePlan((first, again), source_columns=source))

    with locked_database({"results": table.folder}, 512 << 20) as connection:
        (row,) = connection.execute(
            "SELECT error, [entry.error FOR entry IN history], response, source_error FROM results WHERE key = 'b'"
        ).fetchall()
    (stored,) = cells(table, "SELECT error_message FROM results WHERE key = 'b'")
    assert row == (stored[0], [stored[0], stored[0]], "mine", "theirs")
    saved = table.export(tmp_path / "saved.jsonl", "jsonl").path.read_text(encoding="utf-8").splitlines()
    (good, bad) = map(json.loads, saved)
    assert (good["source_response"], good["source_error"], good["error"], bad["response"]) == (
        *("mine", "theirs", None, None),
    )
    assert good["response"]["candidates"]


def test_weird_names_stay_and_hidden_characters_in_them_are_written_out(tmp_path: Path) -> None:
    weird = ['a"b', "c'd; DROP TABLE results", "e f", "g\u202eh", "日本", "x" * 300]
    source = source_file(tmp_path, {name: ["1"] for name in weird})
    table = planned(tmp_path, [answer("a"), b"{cut\n"], keys=["a"], source_columns=source)

    shown = names(table.columns)[:6]
    assert shown[:5] == ['a"b', "c'd; DROP TABLE results", "e f", "g<U+202E>h", "日本"]
    assert len(shown[5]) == 100
    assert cells(table, f"SELECT {', '.join(map(identifier, shown))} FROM results") == [("1",) * 6]


@pytest.mark.parametrize("name", ["", " ", "\n"])
def test_a_column_without_a_name_gets_one(name: str) -> None:
    columns = layout([Column(name, "VARCHAR"), Column(name, "VARCHAR")], []).columns

    assert names(columns)[:2] == ["column", "source_column"]


def test_a_source_that_is_not_there_costs_its_columns_only(tmp_path: Path) -> None:
    table = planned(tmp_path, answer("a"), keys=["a"], source_columns=tmp_path / "nowhere.parquet")

    assert names(table.columns) == OURS


def test_a_source_with_fewer_rows_leaves_cells_empty(tmp_path: Path) -> None:
    source = source_file(tmp_path, {"id": ["1"]})
    table = planned(tmp_path, [answer("a"), failure("b")], keys=["a", "b"], source_columns=source)

    assert cells(table, "SELECT id, status FROM results ORDER BY row") == [("1", "ok"), (None, "failed")]


def test_another_plan_has_another_digest(tmp_path: Path) -> None:
    answers = (AnswerFile(tmp_path / "answers-1.jsonl", None),)
    source = source_file(tmp_path, {"id": ["1"]})
    plans = [
        TablePlan(()),
        TablePlan(answers),
        TablePlan(answers, expected_rows=2),
        TablePlan(answers, task="embed"),
        TablePlan(answers, response_schema={"type": "object"}),
        TablePlan(answers, response_schema={"properties": {"a": {}, "b": {}}}),
        TablePlan(answers, response_schema={"properties": {"b": {}, "a": {}}}),
        TablePlan(answers, source_columns=source),
        TablePlan(answers, media=tmp_path / "media"),
        TablePlan((AnswerFile(tmp_path / "answers-1.jsonl", tmp_path / "keys.jsonl", 2, 5, 7),)),
    ]

    digests = {plan.digest() for plan in plans}
    assert len(digests) == len(plans)
    assert TablePlan(answers, source_columns=tmp_path / "nowhere").digest() == TablePlan(answers).digest()
    assert rebuilt(tmp_path, plans[0]).plan_digest == plans[0].digest()
