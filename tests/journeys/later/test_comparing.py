"""What follows on two batches: their answers joined, compared, and what they have cost, as an assistant asks for it."""

from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from support.conversation import Conversation, newest

pytestmark = pytest.mark.anyio

LABELS = {"type": "object", "properties": {"label": {"enum": ["good", "bad"]}}, "required": ["label"]}


def reviews(data: Path, count: int = 12) -> str:
    """A table of reviews, with the label that a person gave each."""
    rows = [f"r{number},p{number % 3},{'good' if number % 2 else 'bad'},text {number}" for number in range(count)]
    (data / "reviews.csv").write_text("\n".join(["id,product,truth,text", *rows]) + "\n", encoding="utf-8")
    return "reviews.csv"


async def answered(talk: Conversation, sandbox: Sandbox, data: Path, **order: Any) -> str:
    """Order the reviews, and let the batch end; returns its id."""
    order = {"source": reviews(data), "prompt": "Mood? {{text}}", "key_column": "id", "response_schema": LABELS} | order
    created = await talk.call("create_batch", **order)
    sandbox.finish(newest(sandbox))
    return str(created["batch_id"])


@pytest.mark.both_eras
async def test_the_answers_of_two_batches_are_joined_in_one_question(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    first = await answered(talk, sandbox, data)
    second = await answered(talk, sandbox, data, prompt="Mood, again? {{text}}", display_name="second look")
    table = second.replace("-", "_")
    joined = f"SELECT count(*), count(DISTINCT other.text) FROM results JOIN {table} AS other USING (key)"
    for also in ([second], ["second look"], [second, "second look"], second):
        found = await talk.call("query_results", batch=first, sql=joined, also=also)
        assert found["rows"][0][0] == 12
    refused = await talk.refusal("query_results", batch=first, sql="SELECT * FROM second_look", also=["second look"])
    assert f"The tables are results, {table}." in refused
    assert "label" in await talk.refusal("query_results", batch=first, sql="SELECT labl FROM results", also=[second])

    running = await talk.call("create_batch", requests=[{"prompt": "one"}])
    refused = await talk.refusal("query_results", batch=first, sql=joined, also=[second, running["batch_id"]])
    assert f"{running['batch_id']} has no results" in refused
    assert "nowhere" in await talk.refusal("query_results", batch=first, sql=joined, also=["nowhere"])
    assert "at most 10" in await talk.refusal("query_results", batch=first, sql=joined, also=[second] * 11)
