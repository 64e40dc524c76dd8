"""OpenAI's Responses and Anthropic's Messages, as batch lines: converted as chat completions are, or refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.intake.openai.lines import write_converted
from gemini_batch_mcp.intake.tables.kinds import SourceKind, recognise
from support.sources import converted, line, refused_line, said

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
RESPONSE = {
    "model": "gpt-5",
    "input": "hi",
    "instructions": "be short",
    "max_output_tokens": 100,
    "text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True}},
}


def response(**body: Any) -> dict[str, Any]:
    return line(body, url="/v1/responses")


def anthropic(**params: Any) -> dict[str, Any]:
    return {"custom_id": "a", "params": {"model": "claude-x", "max_tokens": 10, **params}}


def test_a_response_is_converted() -> None:
    request = converted(response(**RESPONSE))

    assert request["contents"] == [{"role": "user", "parts": [{"text": "hi"}]}]
    assert request["systemInstruction"] == {"parts": [{"text": "be short"}]}
    config = request["generationConfig"]
    assert config["maxOutputTokens"] == 100 and config["responseMimeType"] == "application/json"
    assert config["responseSchema"]["properties"] == {"a": {"type": "STRING"}}
    talk = [
        {"role": "user", "content": [{"type": "input_text", "text": "one"}]},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "two", "annotations": []}],
        },
        {"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]},
    ]
    request = converted(response(input=talk, reasoning={"effort": "low"}, store=False))
    assert [content["role"] for content in request["contents"]] == ["user", "model", "user"]
    assert request["contents"][2]["parts"] == [{"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]
    assert request["generationConfig"] == {"thinkingConfig": {"thinkingLevel": "LOW"}}


def test_an_anthropic_message_is_converted(tmp_path: Path) -> None:
    source = {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}
    value = anthropic(
        system=[{"type": "text", "text": "Be brief."}],
        messages=[
            {"role": "user", "content": [{"type": "document", "source": source}, {"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": "yes"},
            {"role": "user", "content": "more"},
        ],
        stop_sequences=["END"],
        temperature=0,
    )

    assert converted(value) == {
        "contents": [
            {
                "role": "user",
                "parts": [{"inlineData": {"mimeType": "application/pdf", "data": "AAAA"}}, {"text": "hi"}],
            },
            {"role": "model", "parts": [{"text": "yes"}]},
            {"role": "user", "parts": [{"text": "more"}]},
        ],
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "generationConfig": {"maxOutputTokens": 10, "temperature": 0, "stopSequences": ["END"]},
    }
    first, model = said(value)
    assert first == "1 line of an Anthropic batch was converted to a Gemini request." and "claude-x" in model
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(anthropic(messages=[{"role": "user", "content": "hi"}])) + "\n")
    assert recognise(path, with_prompt=False) is SourceKind.OPENAI
    assert write_converted(path, tmp_path / "r", keys_path=tmp_path / "k").count == 1


HI = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (response(input="x", previous_response_id="r"), "an OpenAI Responses line with body.previous_response_id"),
        (response(input="x", tools=[{"type": "web_search"}]), "an OpenAI Responses line with body.tools"),
        (response(input=[{"type": "function_call"}]), "an OpenAI Responses line with an item of type function_call"),
        (response(input=[{"type": "reasoning", "id": "x"}]), "with an item of type reasoning"),
        (response(input="x", reasoning={"summary": "auto"}), "an OpenAI Responses line with body.reasoning"),
        (anthropic(messages=HI, thinking={"type": "enabled"}), "an Anthropic Message line with params.thinking"),
        (anthropic(messages=HI, tools=[]), "an Anthropic Message line with params.tools"),
        (
            anthropic(messages=[{"role": "user", "content": [{"type": "tool_use", "id": "a"}]}]),
            "an Anthropic Message line with a part of type tool_use",
        ),
        (
            anthropic(system=[{"type": "text", "text": "a", "cache_control": {}}], messages=HI),
            "an Anthropic Message line with a part of type text",
        ),
        ({**anthropic(messages=HI), "extra": 1}, "doesn't belong in an Anthropic batch line"),
        ({**anthropic(messages=HI), "params": []}, "`params` isn't an object"),
    ],
)
def test_what_has_no_counterpart_is_refused_in_a_sentence_that_names_the_form(value: Any, message: str) -> None:
    said_so, fix = refused_line(value)

    assert message in said_so and fix
