"""Lines that ask for a schema themselves: their answers are treated as those to the schema of an order."""

import json
from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from support.conversation import Conversation, line, newest, write_lines

pytestmark = [pytest.mark.anyio, pytest.mark.both_eras]

JSON_SCHEMA = {
    "type": "object",
    "properties": {"mood": {"type": "string"}, "stars": {"type": "integer"}},
    "required": ["mood", "stars"],
}
GEMINI_SCHEMA = {
    "type": "OBJECT",
    "properties": {"mood": {"type": "STRING"}, "stars": {"type": "INTEGER", "nullable": True}},
    "required": ["mood", "stars"],
}
MARKS = ["", "[[sandbox:wrapped]]", "[[sandbox:misfit]]"]


def asking(name: str, schema: object, **config: object) -> dict[str, Any]:
    return {"generationConfig": {"responseMimeType": "application/json", name: schema, **config}}


def openai_line(number: int, mark: str) -> str:
    schema = {**JSON_SCHEMA, "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    body = {"model": "gpt-5", "messages": [{"role": "user", "content": f"row {mark}"}], "response_format": form}
    return json.dumps({"custom_id": f"k{number}", "method": "POST", "url": "/v1/chat/completions", "body": body})


#: Lines of one file each, all of which ask for the same.
FILES = {
    "gemini": [line(f"k{n}", f"row {mark}", **asking("responseSchema", GEMINI_SCHEMA)) for n, mark in enumerate(MARKS)],
    "json": [line(f"k{n}", f"row {mark}", **asking("responseJsonSchema", JSON_SCHEMA)) for n, mark in enumerate(MARKS)],
    "spelled otherwise": [
        line("k0", "row", **asking("responseSchema", GEMINI_SCHEMA)),
        line("k1", "row [[sandbox:wrapped]]", **asking("responseSchema", dict(reversed(GEMINI_SCHEMA.items())))),
        line(
            "k2",
            "row [[sandbox:misfit]]",
            generation_config={"response_mime_type": "application/json", "response_schema": GEMINI_SCHEMA},
        ),
    ],
    "openai": [openai_line(n, mark) for n, mark in enumerate(MARKS)],
}


@pytest.mark.parametrize("kind", FILES)
async def test_a_schema_that_all_lines_ask_for_makes_columns(
    talk: Conversation, sandbox: Sandbox, data: Path, kind: str
) -> None:
    created = await talk.call("create_batch", source=write_lines(data / "lines.jsonl", FILES[kind]))
    assert not [warning for warning in created.get("warnings", []) if "schema" in warning]
    sandbox.finish(newest(sandbox))
    results = await talk.call("get_results", batch=created["batch_id"])

    assert (results["summary"]["succeeded"], results["summary"]["failed"]) == (2, 1)
    assert {"mood VARCHAR", "stars BIGINT"} <= set(results["columns"])
    assert any("text around the JSON" in warning for warning in results["warnings"])
    sql = "SELECT key, status, mood IS NOT NULL, stars IS NOT NULL, cleaned FROM results ORDER BY key"
    answer = await talk.call("query_results", batch=created["batch_id"], sql=sql)
    assert answer["rows"] == [
        ["k0", "ok", True, True, False],
        ["k1", "ok", True, True, True],
        ["k2", "failed", False, False, False],
    ]
    # Whoever comes back to it is told of that schema as of one that an order gave.
    asked = (await talk.call("get_results", batch=created["batch_id"], view="order"))["order"]
    assert set(asked["response_schema"]["properties"]) == {"mood", "stars"}


@pytest.mark.parametrize(
    "other",
    [
        line("k1", "row", **asking("responseSchema", {"type": "OBJECT", "properties": {"mood": {"type": "STRING"}}})),
        line("k1", "row"),
    ],
)
async def test_lines_that_ask_for_different_forms_make_none_and_that_is_said(
    talk: Conversation, sandbox: Sandbox, data: Path, other: str
) -> None:
    source = write_lines(data / "lines.jsonl", [FILES["gemini"][0], other])
    seen = await talk.call("preview_batch", source=source)
    created = await talk.call("create_batch", source=source)
    sandbox.finish(newest(sandbox))
    results = await talk.call("get_results", batch=created["batch_id"])

    assert any("don't all ask for the same response schema" in warning for warning in seen["warnings"])
    assert results["summary"]["succeeded"] == 2
    assert not any(column.startswith("mood") for column in results["columns"])


async def test_the_name_of_a_schema_in_a_text_is_a_text(talk: Conversation, data: Path) -> None:
    told = json.dumps({"generationConfig": {"responseSchema": GEMINI_SCHEMA}})
    lines = [line("k0", told), line("k1", "plain"), line("k2", "x", **asking("responseMimeType", "application/json"))]
    seen = await talk.call("preview_batch", source=write_lines(data / "lines.jsonl", lines))
    assert not [warning for warning in seen["warnings"] if "schema" in warning]
