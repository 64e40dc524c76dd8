"""The wrong lines that people write: what an order mends, converts or refuses (the validator refuses them all)."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from support.conversation import Conversation, converse, line, newest, write_lines
from support.samples import SAMPLES

pytestmark = pytest.mark.anyio

SAMPLE = SAMPLES / "54-input-WRONG-examples.jsonl"
OPENAI, CONFIG, THINKING, INSTRUCTION, CONTENTS = SAMPLE.read_text(encoding="utf-8").splitlines()


async def test_an_order_of_those_that_can_be_mended_arrives_mended(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    created = await talk.call(
        "create_batch", source=write_lines(data / "wrong.jsonl", [THINKING, INSTRUCTION, CONTENTS])
    )
    assert len(created["warnings"]) == 3
    path = talk.settings.home / "batches" / created["batch_id"] / "requests.jsonl"
    sent = [json.loads(row)["request"] for row in path.read_text(encoding="utf-8").splitlines()]
    assert sent[0]["generationConfig"] == {"thinking_config": {"thinking_level": "LOW"}}
    assert sent[1]["systemInstruction"] == {"parts": [{"text": "plain text"}]}
    assert sent[2]["contents"] == [{"role": "user", "parts": [{"text": "hi"}]}]
    sandbox.finish(newest(sandbox))
    assert (await talk.call("get_results", batch=created["batch_id"]))["summary"]["succeeded"] == 3


async def test_an_order_of_openai_lines_arrives_converted(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    line = json.loads(OPENAI)
    line["body"]["messages"] = [{"role": "user", "content": "hi"}]
    created = await talk.call("create_batch", source=write_lines(data / "wrong.jsonl", [json.dumps(line)]))
    assert any("OpenAI" in warning for warning in created["warnings"])
    sandbox.finish(newest(sandbox))
    assert (await talk.call("get_results", batch=created["batch_id"]))["summary"]["succeeded"] == 1


async def test_what_nobody_here_knows_is_passed_on_with_a_warning_and_judged_by_gemini(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    new = [line("a"), *(line(f"k{n}", webhook={"uri": "x"}) for n in (2, 3))]
    seen = await talk.call("preview_batch", source=write_lines(data / "new.jsonl", new))

    (warning,) = [text for text in seen["warnings"] if "`request.webhook`" in text]
    assert seen["ok"] and "in 2 lines (first: line 2)" in warning
    refusal = await talk.refusal("create_batch", source=str(data / "new.jsonl"))
    assert "line 2" in refusal and "webhook" in refusal
    order = {"generation_config": {"quantumDepth": 3}, "requests": [{"prompt": "a"}, {"prompt": "b"}]}
    seen = await talk.call("preview_batch", **order)
    assert any("`request.generationConfig.quantumDepth` in 2 items" in text for text in seen["warnings"])
    seen = await talk.call("preview_batch", **{**order, "requests": [{"a": "x"}], "prompt": "{{a}}"})
    assert any("`generation_config.quantumDepth` is not a member" in text for text in seen["warnings"])
    near = write_lines(data / "near.jsonl", [line("a", generationConfig={"temprature": 1})])
    assert not (await talk.call("preview_batch", source=near))["ok"]
    async with converse(replace(talk.settings, refuse_unknown=True, home=talk.settings.home / "b"), sandbox) as strict:
        assert not (await strict.call("preview_batch", source=str(data / "new.jsonl")))["ok"]


async def test_settings_of_an_order_fill_in_its_ready_lines_and_are_part_of_it(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    rows = [line("a"), line("b", generationConfig={"maxOutputTokens": 7})]
    source = write_lines(data / "ready.jsonl", rows)
    settings = {"maxOutputTokens": 1000, "temperature": 0}
    plain = await talk.call("preview_batch", source=source)
    seen = await talk.call("preview_batch", source=source, generation_config=settings)

    configs = [request["request"]["generationConfig"] for request in seen["sample"]]
    assert configs == [settings, {"maxOutputTokens": 7, "temperature": 0}]
    assert seen["estimate"]["output_tokens_max"] == 1007 < plain["estimate"]["output_tokens_max"]
    first = await talk.call("create_batch", source=source, generation_config=settings)
    other = await talk.call("create_batch", source=source)
    assert first["batch_id"] != other["batch_id"] and first["estimate"] == seen["estimate"]


async def test_nested_values_in_prompts_keep_their_own_characters(talk: Conversation, data: Path) -> None:
    nested = r'{"role":"user","content":"\u4f60\u597d \ud83d\ude00 \u0022 \\u0041 \n"}'
    source = data / "escapes.json"
    source.write_text(f'[{{"id":1,"messages":[{nested}]}}]', encoding="ascii")

    seen = await talk.call("preview_batch", source=str(source), prompt="{{messages}}")

    text = seen["sample"][0]["request"]["contents"][0]["parts"][0]["text"]
    assert text == r'[{"role":"user","content":"你好 😀 \u0022 \\u0041 \n"}]' and json.loads(text) == [
        json.loads(nested)
    ]


async def test_what_would_be_a_guess_is_refused_with_its_fix(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    refusal = await talk.refusal("create_batch", source=write_lines(data / "wrong.jsonl", [CONFIG, INSTRUCTION]))
    assert "line 1" in refusal
    assert "generationConfig" in refusal
    mixed = await talk.refusal("create_batch", source=write_lines(data / "mixed.jsonl", [OPENAI, CONTENTS]))
    assert "OpenAI" in mixed
    assert sandbox.creates == 0
