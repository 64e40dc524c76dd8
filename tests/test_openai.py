"""Lines of an OpenAI batch: what each becomes, what is refused with its line, and the file as a whole."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.domain import Task
from gemini_batch_mcp.errors import PathError, RequestProblems, UsageError
from gemini_batch_mcp.intake.openai import convert_line, write_converted

HELLO = [{"role": "user", "content": "hi"}]


def line(body: Mapping[str, Any], custom_id: Any = "a") -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


def converted(body: Mapping[str, Any], task: Task = "generate") -> Any:
    written, checked = convert_line(json.dumps(line(body)).encode(), 3, task, set())
    assert checked.problems == ()
    value = json.loads(written)
    assert value["key"] == checked.key == "a"
    return value["request"]


def refused(value: Any, task: Task = "generate") -> tuple[str, str]:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    _, checked = convert_line(text, 3, task, set())
    (problem,) = checked.problems
    assert problem.line == 3
    return problem.message, problem.fix


def test_a_chat_completion_becomes_a_request() -> None:
    request = converted(
        {
            "model": "gpt-x",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "developer", "content": [{"type": "text", "text": "And kind."}]},
                {"role": "user", "content": "One."},
                {"role": "user", "content": [{"type": "text", "text": "Two."}]},
                {"role": "assistant", "content": "Yes?"},
                {"role": "user", "content": "Three."},
            ],
            "max_completion_tokens": 50,
            "temperature": 0.5,
            "top_p": 0.9,
            "stop": "END",
            "seed": 7,
            "n": 2,
            "user": None,
            "reasoning_effort": "low",
            "response_format": {
                "type": "json_schema",
                "json_schema": {
                    "name": "x",
                    "strict": True,
                    "schema": {
                        "type": "object",
                        "properties": {"a": {"type": ["string", "null"]}},
                        "required": ["a"],
                        "additionalProperties": False,
                    },
                },
            },
        }
    )

    assert request == {
        "contents": [
            {"role": "user", "parts": [{"text": "One."}, {"text": "Two."}]},
            {"role": "model", "parts": [{"text": "Yes?"}]},
            {"role": "user", "parts": [{"text": "Three."}]},
        ],
        "systemInstruction": {"parts": [{"text": "Be brief."}, {"text": "And kind."}]},
        "generationConfig": {
            "maxOutputTokens": 50,
            "temperature": 0.5,
            "topP": 0.9,
            "seed": 7,
            "candidateCount": 2,
            "stopSequences": ["END"],
            "thinkingConfig": {"thinkingLevel": "LOW"},
            "responseMimeType": "application/json",
            "responseSchema": {
                "type": "OBJECT",
                "properties": {"a": {"type": "STRING", "nullable": True}},
                "required": ["a"],
                "propertyOrdering": ["a"],
            },
        },
    }


def test_tools_calls_and_their_answers_are_converted() -> None:
    request = converted(
        {
            "messages": [
                {"role": "user", "content": "Weather?"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"id": "1", "type": "function", "function": {"name": "get", "arguments": '{"city":"Ulm"}'}}
                    ],
                },
                {"role": "tool", "tool_call_id": "1", "content": "rain"},
                {"role": "function", "name": "other", "content": "x"},
            ],
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "get",
                        "description": "d",
                        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
                    },
                },
                {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
            ],
            "tool_choice": {"type": "function", "function": {"name": "get"}},
        }
    )

    assert request["contents"][1:] == [
        {"role": "model", "parts": [{"functionCall": {"name": "get", "args": {"city": "Ulm"}}}]},
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "get", "response": {"result": "rain"}}},
                {"functionResponse": {"name": "other", "response": {"result": "x"}}},
            ],
        },
    ]
    city = {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}, "propertyOrdering": ["city"]}
    assert request["tools"] == [
        {"functionDeclarations": [{"name": "get", "description": "d", "parameters": city}, {"name": "now"}]}
    ]
    assert request["toolConfig"] == {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["get"]}}


def test_media_become_inline_data_or_links() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.jpg?size=2", "detail": "high"}},
        {"type": "input_audio", "input_audio": {"format": "wav", "data": "QUJD"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,QUJD"}},
    ]

    request = converted({"messages": [{"role": "user", "content": parts}]})

    assert request["contents"][0]["parts"] == [
        {"inlineData": {"mimeType": "image/png", "data": "QUJD"}},
        {"fileData": {"fileUri": "https://example.org/a.jpg?size=2", "mimeType": "image/jpeg"}},
        {"inlineData": {"mimeType": "audio/wav", "data": "QUJD"}},
        {"inlineData": {"mimeType": "application/pdf", "data": "QUJD"}},
    ]


def test_small_forms_are_converted() -> None:
    assert converted({"messages": HELLO, "tool_choice": "required"})["toolConfig"] == {
        "functionCallingConfig": {"mode": "ANY"}
    }
    assert "generationConfig" not in converted({"messages": HELLO, "response_format": {"type": "text"}})
    config = converted({"messages": HELLO, "response_format": {"type": "json_object"}, "stop": ["a", "b"]})
    assert config["generationConfig"] == {"stopSequences": ["a", "b"], "responseMimeType": "application/json"}
    assert converted({"messages": HELLO, "max_tokens": 5, "max_completion_tokens": 5})["generationConfig"] == {
        "maxOutputTokens": 5
    }


def test_embeddings_are_converted_one_text_a_line() -> None:
    assert converted({"model": "m", "input": ["one"], "dimensions": 64, "encoding_format": "float"}, "embed") == {
        "content": {"parts": [{"text": "one"}]},
        "outputDimensionality": 64,
    }
    assert refused(line({"input": ["a", "b"]}), "embed")[0] == "`body.input` is no single text."
    assert refused(line({"input": "a", "x": 1}), "embed")[0].startswith("`body.x` has no counterpart")
    assert refused(line({"input": "a", "encoding_format": "base64"}), "embed")[0].startswith("`body.encoding_format`")


def user(content: Any) -> dict[str, Any]:
    return line({"messages": [{"role": "user", "content": content}]})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"{oops", "The line is not JSON"),
        ([1], "The line is a list, not an object."),
        (b'{"custom_id":"a","custom_id":"b","body":{}}', "`custom_id` is given more than once."),
        (b'{"custom_id":"a","body":{"n":1,"n":2}}', "`body.n` is given more than once."),
        ({**line({"messages": HELLO}), "extra": 1}, "`extra` is no member of an OpenAI batch line."),
        (line({"messages": HELLO}, ""), "The line has no `custom_id`."),
        (line({"messages": HELLO}, 7), "The line has no `custom_id`."),
        ({"custom_id": "a", "url": "/v1"}, "The line has no `body`."),
        (line({"input": "x"}), "`body` has no `messages` (/v1/chat/completions)"),
        ({"custom_id": "a", "url": "/v1/embeddings", "body": {"input": "x"}}, "`body` has no `messages`"),
        (line({"messages": []}), "`body.messages` is no list of messages."),
        (line({"messages": ["x"]}), "`body.messages[0].role` is none of"),
        (line({"messages": [{"role": "bot", "content": "x"}]}), "`body.messages[0].role` is none of"),
        (line({"messages": [{"role": "system", "content": "x"}]}), "`body.messages` has system messages only."),
        (line({"messages": [*HELLO, {"role": "system", "content": "x"}]}), "`body.messages[1]` is a system message"),
        (line({"messages": [{"role": "tool", "content": "x"}]}), "`body.messages[0]` answers a call that is not"),
        (line({"messages": [{"role": "user"}]}), "`body.messages[0]` has no content."),
        (user(7), "`body.messages[0].content` is a number."),
        (user([{"type": "video"}]), "`body.messages[0].content[0]` is a part of type video"),
        (user([{"type": "image_url", "image_url": {"url": "http://x/a.png"}}]), "`body.messages[0].content[0]` holds"),
        (user([{"type": "image_url", "image_url": {"url": "https://x/a"}}]), "`body.messages[0].content[0]` holds"),
        (line({"messages": HELLO, "logit_bias": {"1": 2}}), "`body.logit_bias` has no counterpart at Gemini."),
        (line({"messages": HELLO, "max_tokens": 1, "max_completion_tokens": 2}), "`body` has both `max_tokens`"),
        (line({"messages": HELLO, "reasoning_effort": "x"}), "`body.reasoning_effort` is x."),
        (line({"messages": HELLO, "response_format": {"type": "x"}}), "`body.response_format` is none"),
        (line({"messages": HELLO, "tools": 1}), "`body.tools` is a number"),
        (line({"messages": HELLO, "tools": [{"type": "web"}]}), "`body.tools[0]` is no function."),
        (line({"messages": HELLO, "tool_choice": "x"}), "`body.tool_choice` is none"),
        (line({"messages": HELLO, "temperature": 9}), "`request.generationConfig.temperature` is 9"),
        (
            line(
                {
                    "messages": HELLO,
                    "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "array"}}},
                }
            ),
            "`body.response_format.json_schema.schema` is a list",
        ),
        (
            line({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "x"}}]}]}),
            "`body.messages[0].tool_calls[0].function.arguments` is no JSON object",
        ),
        (
            line({"messages": [{"role": "assistant", "tool_calls": [1]}]}),
            "`body.messages[0].tool_calls[0]` is no function call.",
        ),
        (
            line(
                {
                    "messages": [
                        {
                            "role": "function",
                            "name": "f",
                            "content": [{"type": "image_url", "image_url": "data:image/png;base64,QUJD"}],
                        }
                    ]
                }
            ),
            "`body.messages[0]` holds something else than text.",
        ),
    ],
)
def test_what_cannot_be_converted_is_refused_with_its_line(value: Any, message: str) -> None:
    assert refused(value)[0].startswith(message)


def test_a_file_is_converted_and_says_so(tmp_path: Path) -> None:
    source = tmp_path / "batch.jsonl"
    lines = [json.dumps(line({"model": "m", "messages": HELLO, "user": "u"}, f"k{number}")) for number in range(3)]
    source.write_text("\ufeff" + "\n\n".join(lines), encoding="utf-8")

    file = write_converted(source, tmp_path / "out.jsonl", keys_path=tmp_path / "keys")

    assert file.warnings == (
        "3 lines of an OpenAI batch were converted to Gemini requests.",
        "Left out, as it means nothing here: model, user.",
        "2 blank lines were left out.",
    )
    assert (file.count, file.mended) == (3, True)
    assert (tmp_path / "keys").read_text(encoding="utf-8") == '"k0"\n"k1"\n"k2"\n'
    assert [json.loads(text)["key"] for text in (tmp_path / "out.jsonl").read_text().splitlines()] == ["k0", "k1", "k2"]

    pilot = write_converted(source, tmp_path / "out.jsonl", keys_path=tmp_path / "keys", limit_rows=1)
    assert pilot.count == 1
    assert pilot.warnings[0] == "1 line of an OpenAI batch was converted to a Gemini request."


def test_a_file_with_problems_is_refused_as_a_whole(tmp_path: Path) -> None:
    source = tmp_path / "batch.jsonl"
    lines = [json.dumps(line({"messages": HELLO}, "same")), "{}", json.dumps(line({"messages": HELLO}, "same"))]
    source.write_bytes("\n".join(lines).encode() + b"\n" + b"x" * (21 * 1024**2))

    with pytest.raises(RequestProblems) as refusal:
        write_converted(source, tmp_path / "out.jsonl", keys_path=tmp_path / "keys")

    assert [problem.line for problem in refusal.value.problems] == [2, 3, 4]
    assert {path.name for path in tmp_path.iterdir()} == {"batch.jsonl"}


def test_files_without_requests_or_with_too_many_bytes_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "batch.jsonl"
    out, keys = tmp_path / "out.jsonl", tmp_path / "keys"
    with pytest.raises(PathError):
        write_converted(source, out, keys_path=keys)
    source.write_text("\n \n", encoding="utf-8")
    with pytest.raises(UsageError, match="holds no request"):
        write_converted(source, out, keys_path=keys)
    source.write_text(json.dumps(line({"messages": HELLO})), encoding="utf-8")
    with pytest.raises(UsageError, match="more than the 10 of one"):
        write_converted(source, out, keys_path=keys, max_file_bytes=10)
