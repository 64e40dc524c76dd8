"""Rows without a file, given in the call with a prompt."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from support.conversation import Conversation, newest

pytestmark = [pytest.mark.anyio, pytest.mark.both_eras]

ROWS = [
    {"product": "mug", "text": "broke at once", "price": 4.5},
    {"product": "lid", "text": "fits", "price": 2, "notes": ["a", "b"]},
    {"product": "jar", "text": "", "price": None},
]


def _sent(talk: Conversation, batch: str) -> list[dict[str, Any]]:
    path = talk.settings.home / "batches" / batch / "requests.jsonl"
    return [json.loads(row) for row in path.read_text(encoding="utf-8").splitlines()]


def _text(row: dict[str, Any]) -> str:
    return str(row["request"]["contents"][0]["parts"][0]["text"])


def _saved(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


async def test_rows_given_in_the_call_are_asked_with_a_prompt_and_come_back_beside_the_answers(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    order = {"requests": ROWS, "prompt": "Mood of {{text}} ({{product}}, {{price}})?"}
    preview = await talk.call("preview_batch", **order)
    assert preview["ok"], preview
    created = await talk.call("create_batch", **order)
    again = await talk.call("create_batch", **order)
    assert (again["batch_id"], again["reused"]) == (created["batch_id"], True)
    sent = _sent(talk, created["batch_id"])
    assert sent[:2] == preview["sample"]
    assert [_text(row) for row in sent] == [
        "Mood of broke at once (mug, 4.5)?",
        "Mood of fits (lid, 2)?",
        "Mood of  (jar, )?",
    ]
    sandbox.finish(newest(sandbox))
    await talk.call("get_results", batch=created["batch_id"], save_to="moods.csv")
    saved = _saved(data / "moods.csv")
    assert [(row["product"], row["price"], row["notes"]) for row in saved] == [
        ("mug", "4.5", ""),
        ("lid", "2", '["a","b"]'),
        ("jar", "", ""),
    ]


async def test_keys_of_given_rows_come_from_key_column_or_from_their_own_key(talk: Conversation) -> None:
    rows = [{"key": f"k{number}", "id": number, "text": f"t{number}"} for number in (2, 1)]
    own = await talk.call("preview_batch", requests=rows, prompt="{{text}}")
    named = await talk.call("preview_batch", requests=rows, prompt="{{text}}", key_column="id")
    twice = [{"key": "same", "text": "a"}, {"key": "same", "text": "b"}]
    made = await talk.call("preview_batch", requests=twice, prompt="{{text}}")
    assert [row["key"] for row in own["sample"]] == ["k2", "k1"]
    assert [row["key"] for row in named["sample"]] == ["2", "1"]
    assert [row["key"].startswith("row-00000") for row in made["sample"]] == [True, True]


async def test_rows_and_requests_do_not_mix_and_each_is_told_what_it_lacks(
    talk: Conversation, sandbox: Sandbox
) -> None:
    refusals = [
        await talk.refusal("preview_batch", requests=requests, prompt=prompt)
        for requests, prompt in (
            ([{"key": "a", "prompt": "hi"}, {"text": "x"}], "Mood of {{text}}?"),
            ([{"key": "a", "prompt": "hi"}], "Mood of {{text}}?"),
            (ROWS, ""),
            (ROWS, "Mood of {{txt}}?"),
        )
    ]
    assert "mixes requests (item 1) with plain rows (item 2)" in refusals[0]
    assert "does not go with prompt" in refusals[1]
    assert "holds rows with product, text, price, notes, and the order has no prompt" in refusals[2]
    assert "Did you mean text?" in refusals[3]
    # A column may be called as an item's member is, where the prompt names it.
    asked = await talk.call("preview_batch", requests=[{"prompt": "hi"}, {"prompt": "ho"}], prompt="Say {{prompt}}.")
    assert [_text(row) for row in asked["sample"]] == ["Say hi.", "Say ho."]
    assert sandbox.creates == 0
