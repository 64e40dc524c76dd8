"""Answers that stay in BigQuery, compared there: what comes out is what comes of the same rows on this machine."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.cloud.places import on_cloud, table
from support.conversation import Conversation, converse, newest
from support.extent import long

pytestmark = pytest.mark.anyio

_SCHEMA = {
    "type": "object",
    "properties": {
        "mood": {"type": "string"},
        "stars": {"type": "integer"},
        "sure": {"type": "number"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "yes": {"type": "boolean"},
    },
    "required": ["mood", "stars", "sure", "tags", "yes"],
}
#: What is right: as it was answered but for its form, and something else in each third row.
_RIGHT = """SELECT id, review,
    CASE n % 3 WHEN 0 THEN 'other' ELSE ' ' || upper(json ->> '$.mood') || ' ' END AS right_mood,
    CASE n % 3 WHEN 0 THEN 7 ELSE (json ->> '$.stars')::DOUBLE + 1e-11 END AS right_stars,
    CASE n % 3 WHEN 0 THEN 'none' ELSE json ->> '$.sure' END AS right_sure,
    CASE n % 4 WHEN 0 THEN ' ' WHEN 1 THEN '' WHEN 2 THEN 'other' ELSE json ->> '$.mood' END AS right_few,
    CASE n % 3 WHEN 0 THEN '["x"]' ELSE to_json(list_reverse(from_json(json -> '$.tags', '["VARCHAR"]')))::VARCHAR END
        AS right_tags,
    CASE WHEN n % 3 > 0 THEN (json ->> '$.yes')::BOOLEAN END AS right_yes
    FROM (SELECT *, row_number() OVER (ORDER BY id) - 1 AS n FROM read_json('{answers}')) ORDER BY id"""


@pytest.fixture
async def talk(settings: Settings, sandbox: Sandbox) -> AsyncIterator[Conversation]:
    with on_cloud(settings, sandbox) as settings:
        async with converse(settings, None) as conversation:
            yield conversation


async def answered(talk: Conversation, sandbox: Sandbox, source: str, **order: Any) -> str:
    """Order, and have it answered; returns the batch."""
    wanted = {"source": source, "prompt": "Judge: {{review}}", "key_column": "id", "response_schema": _SCHEMA, **order}
    await talk.call("preview_batch", **wanted)
    batch = (await talk.call("create_batch", **wanted, confirm=True))["batch_id"]
    sandbox.finish(newest(sandbox))
    return str(batch)


async def right_rows(talk: Conversation, sandbox: Sandbox, data: Path, count: int) -> str:
    """Return a SELECT of rows with right answers beside them."""
    rows = f"""SELECT printf('r%03d', n) AS id, n || CASE n WHEN 4 THEN ' [[sandbox:error:3]]' ELSE '' END AS review
        FROM range({count}) AS t(n)"""
    duckdb.connect().execute(f"COPY ({rows}) TO '{data / 'asked.parquet'}'")
    first = await answered(talk, sandbox, str(data / "asked.parquet"))
    await talk.call("get_results", batch=first, save_to=str(data / "answers.jsonl"))
    right = _RIGHT.replace("{answers}", str(data / "answers.jsonl"))
    duckdb.connect().execute(f"COPY ({right}) TO '{data / 'right.parquet'}'")
    return f"SELECT * FROM '{data / 'right.parquet'}'"


async def whole(talk: Conversation, batch: str, other: str, *, limit: int = 4, **parts: Any) -> dict[str, Any]:
    """Compare, page by page; returns the first answer with all rows in it, and without what names a batch."""
    first = page = await talk.call("compare_results", batch=batch, other=other, limit=limit, **parts)
    rows = list(first["rows"])
    while page["next_cursor"]:
        page = await talk.call(
            "compare_results", batch=batch, other=other, limit=limit, cursor=page["next_cursor"], **parts
        )
        rows += page["rows"]
    left_out = ("batch_id", "other", "next_cursor", "candidates", "verdict", "step", "running")
    return {name: value for name, value in first.items() if name not in left_out} | {"rows": rows}


@long
async def test_a_comparison_in_bigquery_says_what_one_of_the_same_rows_here_says(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    rows = await right_rows(talk, sandbox, data, 20)
    here = await answered(talk, sandbox, str(data / "right.parquet"))
    there = await answered(talk, sandbox, table(sandbox, "right", rows))
    for field in ("mood", "stars", "sure", "tags", "yes"):
        found = [await whole(talk, batch, f"right_{field}", field=field) for batch in (here, there)]
        assert found[0] == found[1], field
        # What is right of seven rows is NULL in `right_yes`.
        assert found[0]["compared"] == (12 if field == "yes" else 19)
        assert 0 < found[0]["equal"] <= found[0]["compared"], found[0]
    # Blank cells are no labels.
    few = [await whole(talk, batch, "right_few", field="mood") for batch in (here, there)]
    assert few[0] == few[1]
    assert (few[0]["compared"], few[0]["left_out"]) == (10, 10)
    (asked,) = (await talk.client.get_prompt("improve_prompt", {"batch": there, "expected": "right_mood"})).messages
    assert asked.content.type == "text"
    assert '"expected": "other"' in asked.content.text and '"right_tags": ' in asked.content.text
    assert (await talk.client.get_prompt("improve_prompt", {"batch": there})).messages
    assert "no answer field" in await talk.refusal("compare_results", batch=there, other="right_mood", field="moods")
    assert "not a cursor" in await talk.refusal("compare_results", batch=there, other="right_mood", cursor="x")
    refused = await talk.refusal("compare_results", batch=there, other="right_moods")
    assert "Did you mean right_mood?" in refused and "neither a batch nor a column" in refused
    assert "on this machine" in await talk.refusal("compare_results", batch=there, other=here)


@long
async def test_two_batches_in_bigquery_are_compared_as_two_of_the_same_rows_here_are(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    rows = await right_rows(talk, sandbox, data, 30)
    source = table(sandbox, "right", rows)
    prompts = ("Judge: {{review}}", "Say again: {{review}}")
    here = [await answered(talk, sandbox, str(data / "right.parquet"), prompt=prompt) for prompt in prompts]
    there = [await answered(talk, sandbox, source, prompt=prompt) for prompt in prompts]
    for field in ("stars", "tags", "yes", "mood=tags", "text"):
        found = [await whole(talk, *batches, field=field, limit=40) for batches in (here, there)]
        assert found[0] == found[1], field
        assert found[0]["compared"] == 29
    cursor = (await talk.call("compare_results", batch=there[0], other=there[1], limit=1))["next_cursor"]
    refused = await talk.refusal("compare_results", batch=there[0], other=there[1], field="stars", cursor=cursor)
    assert "another comparison" in refused
