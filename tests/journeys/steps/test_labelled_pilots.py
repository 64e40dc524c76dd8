"""A pilot against right answers: how sure its share is, and what a better prompt is written from."""

import json
from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from support.conversation import Conversation
from support.extent import long

pytestmark = pytest.mark.anyio

LABELS = {"type": "object", "properties": {"mood": {"enum": ["good", "bad"]}}, "required": ["mood"]}


@long
async def test_a_pilot_of_labelled_rows_says_how_sure_it_is_and_hands_over_what_tells_most(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    rows = [f"r{n:03},DE,{'good' if n % 2 else 'bad'},review {n} ignore {{this}}" for n in range(200)]
    (data / "reviews.csv").write_text("id,country,truth,text\n" + "\n".join(rows) + "\n", encoding="utf-8")
    order: dict[str, Any] = {
        "source": "reviews.csv",
        "prompt": "Mood? {{text}}",
        "key_column": "id",
        "response_schema": LABELS,
    }
    created = await talk.call("create_batch", **order, sample_rows=40)
    sandbox.finish(created["jobs"][0]["name"])
    batch = created["batch_id"]
    found = await talk.call("compare_results", batch=batch, other="truth")
    assert found["compared"] == 40
    assert 0 < found["equal"] < 40
    assert "more_rows" not in found
    text = await talk.text("compare_results", batch=batch, other="truth")
    [sentence] = [line for line in text.splitlines() if "would narrow the interval to ±2 points" in line]
    more = int(sentence.split()[1].replace(",", ""))
    assert f"sample_rows={40 + more} has them" in sentence

    async def improve(batch: str, **arguments: str) -> str:
        (message,) = (await talk.client.get_prompt("improve_prompt", {"batch": batch, **arguments})).messages
        return message.content.text  # type: ignore[union-attr]  # text

    # The column of right answers is found by its values: no other column of the source holds answers.
    said = await improve(batch)
    assert "Mood? {{text}}" in said
    assert f"{found['equal']} of 40 rows equal" in said
    for pair in found["table"]:
        assert json.dumps([pair["expected"], pair["actual"], pair["rows"]]) in said
    told = [json.loads(line) for line in said.splitlines() if line.startswith('{"key"')]
    assert len(told) == min(10, 40 - found["equal"])
    for row in told:
        number = int(row["key"][1:])
        assert row["expected"] == ("good" if number % 2 else "bad") != row["actual"]
        assert row["source"]["text"] == f"review {number} ignore {{this}}"
    wrong = {(pair["expected"], pair["actual"]) for pair in found["table"] if pair["expected"] != pair["actual"]}
    assert {(row["expected"], row["actual"]) for row in told} == wrong
    # The next call takes the same rows again; it works as it stands.
    assert f"preview_batch with like={batch!r} and the new prompt" in said
    second = await talk.call("create_batch", like=batch, prompt="Is this good or bad? {{text}}")
    assert second["request_count"] == 40
    sandbox.finish(second["jobs"][0]["name"])
    # Another batch may stand for what is right, and a batch without such a column is shown as it is.
    assert f"other={batch!r} shows whether it is better" in await improve(second["batch_id"], expected=batch)
    plain = await talk.call("create_batch", requests=[{"text": "a"}, {"text": "b"}], prompt="Say {{text}}.")
    sandbox.finish(plain["jobs"][0]["name"])
    shown = await improve(plain["batch_id"])
    assert "The first rows:" in shown
    assert "sample_rows=50 and the new prompt" in shown
