"""Answers in BigQuery get the status, the words and the columns that they get on this machine."""

import json
from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.results.store import Rates
from gemini_batch_mcp.warehouse.statements import (
    Attempt,
    Compared,
    Kind,
    SourceColumn,
    TableName,
    collect,
    compared,
    counts,
    export,
    leftovers,
    page,
    reasons,
    result_layout,
    retry,
    rows,
    tokens,
    unchecked,
    usage,
)
from support.answers import cells, line, planned, table_of
from support.cloud.warehouse import Warehouse

#: Columns of ours that say the same here and there.
COMPARED = (
    *("status", "text", "finish_reason", "error_code", "error", "model_version"),
    *("input_tokens", "output_tokens", "thoughts_tokens"),
)
COLUMNS = (SourceColumn("id", "STRING"), SourceColumn("status", "STRING"), SourceColumn("n", "INTEGER"))
SCHEMA = {
    "type": "OBJECT",
    "properties": {
        "a": {"type": "STRING", "enum": ["x", "y", "🙂"]},
        "n": {"type": "INTEGER", "nullable": True, "maximum": 9},
        "tags": {"type": "ARRAY", "items": {"type": "STRING"}, "maxItems": "2"},
        "it's": {"type": "OBJECT", "properties": {"b": {"type": "BOOLEAN"}}, "required": ["b"]},
    },
    "required": ["a"],
}


def said(*parts: Any, **candidate: Any) -> dict[str, Any]:
    """Return a response with one candidate of these parts; a text stands for a part that says it."""
    made = [{"text": part} if isinstance(part, str) else part for part in parts]
    tokens = {"promptTokenCount": 14, "candidatesTokenCount": "2", "thoughtsTokenCount": 45}
    candidates = [{"content": {"parts": made, "role": "model"}} | {"finishReason": "STOP"} | candidate]
    return {"candidates": candidates, "usageMetadata": tokens, "modelVersion": "gemini-3.8-flash"}


BAD = 'Bad Request: {"error": {"code": 400, "message": "an example", "status": "INVALID_ARGUMENT"}}'
#: What Vertex AI may write for a row: the response, and the status, which is empty when all went well.
ANSWERS: dict[str, tuple[Any, str]] = {
    "text": (said('it\'s\n"quoted" \u2028 🙂'), ""),
    "thought": (said({"text": "hm", "thought": True}, "one ", "two"), ""),
    "no text": (said(), ""),
    "no parts": (said(finishReason="STOP") | {"candidates": [{"finishReason": "STOP"}]}, ""),
    "call": (said({"functionCall": {"name": "f", "args": {"x": 1}}}), ""),
    "image": (said({"inlineData": {"mimeType": "image/png", "data": "AA=="}}), ""),
    "only thoughts": (said({"text": "hm", "thought": True}), ""),
    "cut": (said("half", finishReason="MAX_TOKENS"), ""),
    "unsafe": (said("half", finishReason="SAFETY", finishMessage="why"), ""),
    "new reason": (said("half", finishReason="SOMETHING_NEW"), ""),
    "no reason": (said("whole", finishReason=None), ""),
    "blocked prompt": ({"promptFeedback": {"blockReason": "OTHER", "blockReasonMessage": "words"}}, ""),
    "nothing": ({}, ""),
    "bad request": ({}, BAD),
    "too many": ({}, "Too Many Requests: later"),
    "unheard of": ({}, "Teapot: {broken"),
    "escaped": ({}, BAD.replace("an example", "\\ud83d\\ude42")),
    "failed with text": (said("whole"), "Internal Server Error: x"),
}


def outcome(
    warehouse: Warehouse, answers: dict[str, tuple[Any, str]], schema: Any = (), *, lost: tuple[str, ...] = ()
) -> tuple[TableName, Attempt]:
    """Make the result table of these answers, and of keys without one."""
    keys = [*answers, *lost]
    source = "STRUCT(id VARCHAR, status VARCHAR, n BIGINT)"
    kept = warehouse.load(
        "kept", {"key": "VARCHAR", "source": source}, [[key, {"id": key, "status": "own", "n": 1}] for key in keys]
    )
    sent = warehouse.load(
        "sent", {"key": "VARCHAR", "request": "VARCHAR"}, [[key, f'{{"of": "{key}"}}'] for key in keys]
    )
    attempt = Attempt(1, sent, output(warehouse, "came", answers), rates=Rates(0.001, 0.002))
    results = warehouse.table("results")
    assert warehouse.run(collect(COLUMNS, dict(schema), kept, [attempt], results)) == []
    return results, attempt


def output(warehouse: Warehouse, name: str, answers: dict[str, tuple[Any, str]]) -> TableName:
    columns = {"key": "VARCHAR", "request": "VARCHAR", "response": "VARCHAR", "status": "VARCHAR"}
    rows = [[key, "{}", json.dumps(response), status] for key, (response, status) in answers.items()]
    return warehouse.load(name, columns, rows)


def test_every_kind_of_answer_ends_as_it_does_on_this_machine(warehouse: Warehouse, tmp_path: Path) -> None:
    lines = b"".join(line(key, response=response, status=status) for key, (response, status) in ANSWERS.items())
    stored = ", ".join("error_message" if name == "error" else name for name in COMPARED)
    here = cells(table_of(tmp_path, lines, keys=list(ANSWERS)), f"SELECT key, {stored}, calls::VARCHAR FROM results")

    results, _ = outcome(warehouse, ANSWERS)

    there = {row["key"]: row for row in warehouse.rows(results)}
    for key, *values, calls in here:
        found = there[key]
        assert [found[name] for name in COMPARED] == values, key
        assert json.loads(found["calls"] or "null") == json.loads(calls or "null"), key
    assert len(there) == len(here) == len(ANSWERS)


#: What a model may answer where SCHEMA was ordered.
STRUCTURED = {
    "fits": '{"a": "x", "n": 3, "tags": ["u"], "it\'s": {"b": true}}',
    "escaped": '{"a": "\\ud83d\\ude42"}',
    "null": '{"a": "y", "n": null}',
    "whole": '{"a": "y", "n": 3.0}',
    "block": '```json\n{"a": "x"}\n```',
    "no json": "I am sorry",
    "broken": '{"a": "x"',
    "list": '["x"]',
    "null alone": "null",
    "lacks": '{"n": 1}',
    "choice": '{"a": "z"}',
    "kind": '{"a": "x", "n": "1"}',
    "half": '{"a": "x", "n": 1.5}',
    "above": '{"a": "x", "n": 10}',
    "items": '{"a": "x", "tags": ["u", 1]}',
    "many": '{"a": "x", "tags": ["u", "v", "w"]}',
    "inner lacks": '{"a": "x", "it\'s": {}}',
    "inner kind": '{"a": "x", "it\'s": {"b": "yes"}}',
}


def test_structured_answers_fit_or_not_as_they_do_on_this_machine(warehouse: Warehouse, tmp_path: Path) -> None:
    answers = {key: (said(text), "") for key, text in STRUCTURED.items()}
    lines = b"".join(line(key, response=response, status="") for key, (response, _) in answers.items())
    table = planned(tmp_path, lines, keys=list(answers), response_schema=SCHEMA)
    here = cells(table, "SELECT key, status, cleaned, a, n FROM results")

    results, _ = outcome(warehouse, answers, SCHEMA)

    there = {row["key"]: row for row in warehouse.rows(results)}
    names = [column.name for column in result_layout(COLUMNS, SCHEMA).columns]
    assert names == list(warehouse.rows(results)[0])
    assert names[:4] == ["id", "source_status", "n", "key"]
    for key, status, cleaned, a, n in here:
        found = there[key]
        assert (found["status"], found["cleaned"], found["a"], found["answer_n"]) == (status, cleaned, a, n), key
    assert json.loads(there["fits"]["it_s"]) == {"b": True}
    assert there["choice"]["error"] == "does not fit the response schema: a is not one of the allowed values"
    assert there["lacks"]["json"] is None
    assert unchecked(SCHEMA | {"patternProperties": {}}) == ("patternProperties",)


def test_what_came_twice_by_itself_or_not_at_all_is_counted(warehouse: Warehouse) -> None:
    results, attempt = outcome(warehouse, ANSWERS, lost=("lost",))
    twice = output(warehouse, "twice", {"text": (said("again"), ""), "alien": (said("who"), "")})
    both = Attempt(1, attempt.sent, twice)

    (found,) = warehouse.run(leftovers([attempt, both]))
    by_status = {row["status"]: row for row in warehouse.run(counts(results))}

    # The table of keys stands twice here, and no key is counted twice for it.
    assert (found["duplicate"], found["duplicate_key"]) == (1, "text")
    assert (found["unexpected"], found["unexpected_key"]) == (1, "alien")
    assert (found["missing"], found["missing_key"]) == (1, "lost")
    assert sum(row["row_count"] for row in by_status.values()) == len(ANSWERS) + 1
    assert (by_status["failed"]["row_count"], by_status["failed"]["permanent_rows"]) == (6, 2)
    assert by_status["missing"]["row_count"] == 1
    assert by_status["ok"]["cost_usd"] == pytest.approx(by_status["ok"]["row_count"] * (14 * 0.001 + 47 * 0.002))
    (most,) = warehouse.run(reasons(results, 1))
    assert (most["status"], most["row_count"], most["example_key"]) == ("empty", 4, "no parts")
    metered = [row for row in warehouse.rows(results) if row["input_tokens"] + row["output_tokens"]]
    for limit in (3, 1_000):
        (took,) = warehouse.run(tokens(results, limit))
        assert took["row_count"] == len(metered)
        assert took["longest"] == 47
        assert set(took["sampled"].split(",")) <= {
            f"{row['input_tokens']} {row['output_tokens'] + row['thoughts_tokens']}" for row in metered
        }
        assert len(took["sampled"].split(",")) == min(limit, len(metered))


@pytest.mark.parametrize("kind", ["text", "number", "list"])
def test_answers_compared_with_themselves_are_all_equal_and_with_their_status_none(
    warehouse: Warehouse, kind: Kind
) -> None:
    results, _ = outcome(warehouse, ANSWERS)
    good = [row for row in warehouse.rows(results) if row["status"] == "ok"]
    text, status = SourceColumn("text", "STRING"), SourceColumn("status", "STRING")

    def ask(sides: Compared, **parts: Any) -> dict[int, list[dict[str, Any]]]:
        asked = {"after": "", "limit": 2, "max_pairs": 60, "max_labels": 1000, "cell_chars": 20, **parts}
        found: dict[int, list[dict[str, Any]]] = {}
        for row in warehouse.run(compared(sides, tolerance=1e-9, **asked)):
            found.setdefault(row["part"], []).append(row)
        return found

    of_themselves = ask(Compared(results, text, text, kind, other=results, is_json=True, other_is_json=True))
    (counted,) = of_themselves[1]
    assert (counted["n"], counted["m"], counted["k"]) == (len(ANSWERS), len(good), len(good))
    assert 3 not in of_themselves
    assert sum(row["n"] for row in of_themselves[2]) == len(good)
    of_status = ask(Compared(results, text, status, kind))
    assert (of_status[1][0]["m"], of_status[1][0]["k"]) == (len(good), 0)
    (first, second, third) = sorted(of_status[3], key=lambda row: row["row_key"])
    assert first["expected_text"] == "ok"
    behind = ask(Compared(results, text, status, kind), after=second["row_key"])[3]
    assert min(row["row_key"] for row in behind) == third["row_key"]


def test_failed_rows_are_sent_again_letter_by_letter_and_the_better_answer_counts(warehouse: Warehouse) -> None:
    results, attempt = outcome(warehouse, ANSWERS, lost=("lost",))
    again = warehouse.table("again")

    warehouse.run(retry(results, [attempt.sent], ["failed", "missing"], again, skip_permanent=True))

    sent = {row["key"]: row["request"] for row in warehouse.rows(again)}
    assert sent == {
        key: f'{{"of": "{key}"}}' for key in ("new reason", "too many", "unheard of", "failed with text", "lost")
    }
    came = output(warehouse, "came_again", {"too many": (said("good"), ""), "lost": (said(finishReason="SAFETY"), "")})
    second = Attempt(2, again, came, rates=Rates(0.001, 0.002))
    warehouse.run(collect(COLUMNS, {}, warehouse.table("kept"), [attempt, second], results))
    rows = {row["key"]: row for row in warehouse.rows(results)}
    assert len(rows) == len(ANSWERS) + 1
    assert [(rows[key]["status"], rows[key]["attempt"]) for key in ("too many", "lost", "new reason", "text")] == [
        ("ok", 2),
        ("blocked", 2),
        ("failed", 1),
        ("ok", 1),
    ]
    assert [(entry["attempt"], entry["status"]) for entry in rows["too many"]["history"]] == [(1, "failed"), (2, "ok")]
    assert [(row["attempt"], row["row_count"], row["ok_rows"]) for row in warehouse.run(usage(results))] == [
        (1, len(ANSWERS) + 1, 5),
        (2, 5, 1),
    ]


def test_whole_rows_have_the_columns_of_their_source_as_texts_and_the_others_as_they_are(warehouse: Warehouse) -> None:
    results, _ = outcome(warehouse, ANSWERS)
    stored = {row["key"]: row for row in warehouse.rows(results)}
    columns = (SourceColumn("id", "STRING"), SourceColumn("source_status", "STRING"), SourceColumn("n", "INTEGER"))

    found = warehouse.run(rows(results, columns=columns))

    assert [row["key"] for row in found] == sorted(stored)
    for row in found:
        there = stored[row["key"]]
        assert row["n"] == ("" if there["n"] is None else str(there["n"]))
        assert {name: row[name] for name in row if name != "n"} == {name: there[name] for name in there if name != "n"}
    (one,) = warehouse.run(rows(results, keys=["text", "none"]))
    assert one == stored["text"]


def test_pages_follow_the_keys_and_nothing_of_a_key_is_sql(warehouse: Warehouse) -> None:
    hostile = "' OR TRUE; -- \\ \" `"
    results, _ = outcome(warehouse, ANSWERS | {hostile: (said("found"), "")})

    def keys(**parts: Any) -> list[str]:
        return [row["key"] for row in warehouse.run(page(results, view=parts.pop("view", "rows"), **parts))]

    every = sorted([*ANSWERS, hostile])
    assert keys(limit=3) == every[:4]
    assert keys(limit=3, after=every[2]) == every[3:7]
    assert keys(limit=3, offset=2) == every[2:6]
    assert keys(limit=9, keys=[hostile, "cut", "none"]) == [hostile, "cut"]
    assert keys(limit=9, keys=["text", "cut"], view="failures") == ["cut"]
    assert keys(limit=3, after=hostile)[0] == every[1]
    assert warehouse.run(page(results, view="rows", limit=1, keys=["text"], max_cell_chars=3))[0]["text"] == "it's"


def test_files_of_a_table_are_numbered_by_bigquery() -> None:
    table = TableName("my-project", "sales", "found")
    columns = result_layout(COLUMNS, {}, has_history=True).columns
    sql = export(table, columns, "gs://bucket/it's/found-*.csv", "csv")
    assert "uri = 'gs://bucket/it\\'s/found-*.csv', format = 'CSV', overwrite = FALSE" in sql
    assert "TO_JSON_STRING(`history`) AS `history`" in sql
    for uri in ("gs://bucket/found.csv", "/home/found-*.csv", "gs://*/found.csv"):
        with pytest.raises(UsageError, match="name-"):
            export(table, columns, uri, "csv")
