"""JSON with something around it: taken out where it is certain what was meant, marked, and counted."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.results.structured.checking import AnswerCheck
from support.answers import answer, cells, exported, planned

LABEL: dict[str, Any] = {
    "type": "object",
    "properties": {"label": {"type": "string", "enum": ["a", "b"]}, "inner": {"type": "object"}},
    "required": ["label"],
}
A = '{"label": "a"}'
#: Answers out of which the one value is taken.
TAKEN = [
    f'{A}."\n}}',
    f"Here is the JSON you asked for:\n```json\n{A}\n```\nAnything else?",
    f"```json {A} ```",
    f"{A}{A}",
    f"```json\n{A}\n```",
    f"  ```\r\n{A}```  \n",
    f"```json\n{A}\n``` and more",
    f"```JSON\n\n{A}\n\n```",
    f"\ufeff{A}",
    f"The answer [see below]: {A}",
    f"[1] {A} [2, 3]",
    f"{A}\n\nThis is so because a comes first (or does it?).",
    f'{A} is what I say, so: {{"label":"a"}}',
    f"{A}]",
    '```json\n{\n\n  "label":\n\n  "a"\n\n}\n```\n\n',
]
#: Answers of which nobody can say what was meant; the last ones are whole JSON, and do not fit.
LEFT = [
    f'{A} or {{"label": "b"}}',
    f'{{"inner": {A}',
    f'{{"inner": {A},}}',
    f"{A} {{",
    f"[{A},] so",
    f"So: [{A}]",
    "I would say a.",
    "```",
    "```\n```",
    "",
    "so {label} it is",
    '"{}',
    f"[{A}]",
    json.dumps(A),
]


def test_what_is_certain_is_taken_out_and_marked(tmp_path: Path) -> None:
    whole = [f" {A}\n", '\n\n{\n\n"label": "a"}\n']
    texts = [*TAKEN, *whole, *LEFT]
    keys = [f"k{place}" for place in range(len(texts))]
    lines = [answer(key, text) for key, text in zip(keys, texts, strict=True)]
    table = planned(tmp_path, lines, keys=keys, response_schema=LABEL)

    rows = cells(table, "SELECT status, label, cleaned, text FROM results ORDER BY row")
    for row, text in zip(rows, texts, strict=True):
        wanted = ("failed" if text else "empty", None, False) if text in LEFT else ("ok", "a", text in TAKEN)
        assert row == (*wanted, text), text
    assert table.summary().cleaned == len(TAKEN)
    assert [line["cleaned"] for line in exported(table, tmp_path)] == [row[2] for row in rows]


def test_what_is_taken_out_is_judged_and_keeps_its_numbers(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"id": {"type": "integer", "minimum": 1}}}
    lines = [answer("a", '```\n{"id": 18781234567890123456}\n```'), answer("b", 'So: {"id": 0}')]
    table = planned(tmp_path, lines, keys=["a", "b"], response_schema=schema)

    assert cells(table, "SELECT status, id, cleaned, error_message FROM results ORDER BY row") == [
        ("ok", "18781234567890123456", True, ""),
        ("failed", None, False, "does not fit the response schema: id is below 1"),
    ]


def test_a_list_is_taken_where_a_list_was_ordered_and_nothing_where_text_was() -> None:
    assert AnswerCheck({"type": "ARRAY"}).taken_out('Two: ["x", {"y": 1}]. {}') == '["x", {"y": 1}]'
    assert AnswerCheck({"type": "array"}).taken_out("Yes: [true]") == "[true]"
    assert AnswerCheck({"type": "string"}).taken_out('It is {"a": 1}') is None
    assert AnswerCheck({"type": "string"}).taken_out('```json\n"a"\n```') == '"a"'
    assert AnswerCheck({}).taken_out("Either {} or []") is None


@pytest.mark.parametrize("piece", ["[x", "{", "[", "{}", '{"a":', "[1]", "```", "[ ", '[{"', "[1", "{} []"])
def test_no_text_is_looked_at_again_and_again(piece: str) -> None:
    """Two million characters of each; a look from every place would take hours."""
    check = AnswerCheck(LABEL)
    started = time.process_time()
    check.taken_out(piece * (2_000_000 // len(piece)))
    assert time.process_time() - started < 10
