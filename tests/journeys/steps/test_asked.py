"""What a batch was asked, for whoever comes back to it: in conversation and on a terminal."""

from dataclasses import replace
from pathlib import Path

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from support.conversation import Conversation, Run, converse, newest, request_file

pytestmark = [pytest.mark.anyio, pytest.mark.both_eras]

SCHEMA = {"type": "object", "properties": {"mood": {"type": "string"}}, "required": ["mood"]}
LONG = "Judge fairly. " * 300


async def test_an_old_batch_says_what_it_was_asked_and_what_became_of_it(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    source = data / "reviews.csv"
    source.write_text("id,text\n1,good\n2,bad\n", encoding="utf-8")
    order = {
        "source": "reviews.csv",
        "prompt": "Mood of {{text}}?",
        "system_instruction": LONG,
        "response_schema": SCHEMA,
        "generation_config": {"temperature": 0, "maxOutputTokens": 50},
        "key_column": "id",
    }
    batch = (await talk.call("create_batch", **order))["batch_id"]
    before = await talk.call("get_results", batch=batch, view="order")
    asked = before["order"]
    assert {name: asked[name] for name in order if name not in ("source", "system_instruction")} == {
        name: value for name, value in order.items() if name not in ("source", "system_instruction")
    }
    assert asked["source"] == str(source)
    assert asked["system_instruction"].startswith(LONG[:2000])
    assert asked["system_instruction"].endswith("… [4,200 characters in all]")
    assert (asked["rows"], asked["task"], asked["source_now"]) == (2, "generate", "unchanged")
    assert "answered_by" not in asked
    assert asked["estimate_usd"][0] < asked["estimate_usd"][1]

    sandbox.finish(newest(sandbox))
    await talk.call("get_results", batch=batch)
    source.write_text("id,text\n1,good\n", encoding="utf-8")
    after = (await talk.call("get_results", batch=batch, view="order"))["order"]
    assert after["outcomes"] == {"ok": 2}
    assert sum(after["answered_by"].values()) == 2
    assert after["cost_usd"] > 0
    assert after["source_now"] == "changed since"
    source.unlink()
    text = await talk.text("get_results", batch=batch, view="order")
    assert 'prompt: "Mood of {{text}}?"' in text
    assert 'source_now: "gone"' in text
    assert len(text) < 3_500


async def test_of_a_job_made_elsewhere_it_says_what_is_known(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    await talk.call("create_batch", source=request_file(data))
    name = newest(sandbox)
    async with converse(replace(talk.settings, home=talk.settings.home / "other"), sandbox) as other:
        asked = (await other.call("get_results", batch=name, view="order"))["order"]
    assert "made elsewhere" in asked["prompt"]
    assert (asked["model"], asked["rows"]) == ("gemini-3-flash-preview", 3)


def test_a_terminal_shows_it_too(run_at_port: Run, data: Path) -> None:
    (data / "reviews.csv").write_text("id,text\n1,good\n", encoding="utf-8")
    created = run_at_port("create-batch", "reviews.csv", "--prompt", "Mood of {{text}}?")
    batch = created.stdout.split()[0]
    shown = run_at_port("get-results", batch, "--view", "order")
    assert shown.returncode == 0, shown.stderr
    assert "Mood of {{text}}?" in shown.stdout
