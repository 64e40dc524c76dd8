"""Lines of an OpenAI batch: what each becomes, and what the user is told about it."""

from typing import Any

import pytest

from support.sources import HELLO, chat, configured, converted, embed, line, messages, said


def test_a_chat_completion_becomes_a_request() -> None:
    request = chat(
        **{
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
    request = chat(
        **{
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
        {
            "role": "model",
            "parts": [
                {
                    "functionCall": {"name": "get", "args": {"city": "Ulm"}},
                    "thoughtSignature": "skip_thought_signature_validator",
                }
            ],
        },
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


@pytest.mark.parametrize(
    ("part", "sent"),
    [
        (
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
            {"inlineData": {"mimeType": "image/png", "data": "QUJD"}},
        ),
        (
            {"type": "image_url", "image_url": {"url": "DATA:image/JPG;charset=utf-8;base64,QU\nJD\r\n"}},
            {"inlineData": {"mimeType": "image/jpeg", "data": "QUJD"}},
        ),
        (
            {"type": "image_url", "image_url": {"url": "https://example.org/a.jpg?size=2", "detail": "high"}},
            {"fileData": {"fileUri": "https://example.org/a.jpg?size=2", "mimeType": "image/jpeg"}},
        ),
        (
            {"type": "image_url", "image_url": "gs://bucket/a.png"},
            {"fileData": {"fileUri": "gs://bucket/a.png", "mimeType": "image/png"}},
        ),
        (
            {"type": "input_audio", "input_audio": {"format": "mp3", "data": "QUJD"}},
            {"inlineData": {"mimeType": "audio/mp3", "data": "QUJD"}},
        ),
        (
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,QUJD", "filename": "x"}},
            {"inlineData": {"mimeType": "application/pdf", "data": "QUJD"}},
        ),
        (
            {"type": "file", "file": {"file_data": "QUJD", "filename": "x.pdf"}},
            {"inlineData": {"mimeType": "application/pdf", "data": "QUJD"}},
        ),
    ],
)
def test_media_become_inline_data_or_links(part: dict[str, Any], sent: dict[str, Any]) -> None:
    assert messages({"role": "user", "content": [part, {"type": "text", "text": "?"}]})["contents"] == [
        {"role": "user", "parts": [sent, {"text": "?"}]}
    ]


def test_small_forms_are_converted() -> None:
    assert configured(response_format={"type": "text"}) is None
    assert configured(response_format={"type": "json_object"}, stop=["a", "b"]) == {
        "stopSequences": ["a", "b"],
        "responseMimeType": "application/json",
    }
    assert configured(max_tokens=5, max_completion_tokens=5) == {"maxOutputTokens": 5}
    assert configured(logprobs=True, top_logprobs=3, top_k=40, frequency_penalty=-1.5) == {
        "logprobs": 3,
        "responseLogprobs": True,
        "topK": 40,
        "frequencyPenalty": -1.5,
    }
    for url in ("/v1/chat/completions/", "https://host/openai/deployments/x/chat/completions?api-version=1"):
        assert converted(line({"messages": HELLO}, url=url)) == chat()
    assert converted({"custom_id": "a", "body": {"messages": HELLO}}) == chat()
    assert chat(**dict.fromkeys(("tools", "tool_choice", "stop", "response_format", "unheard_of"))) == chat()


@pytest.mark.parametrize(
    ("choice", "mode"),
    [
        ({"tool_choice": "required"}, {"mode": "ANY"}),
        ({"tool_choice": "auto"}, {"mode": "AUTO"}),
        ({"tool_choice": "none"}, {"mode": "NONE"}),
        ({"function_call": "auto"}, {"mode": "AUTO"}),
        ({"function_call": {"name": "f"}}, {"mode": "ANY", "allowedFunctionNames": ["f"]}),
    ],
)
def test_the_choice_of_a_tool_is_converted(choice: dict[str, Any], mode: dict[str, Any]) -> None:
    assert chat(**choice)["toolConfig"] == {"functionCallingConfig": mode}


def test_functions_of_the_older_form_are_converted() -> None:
    history = [
        *HELLO,
        {"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": '{"n":1.5}'}},
        {"role": "function", "name": "f", "content": "7"},
    ]
    request = chat(messages=history, functions=[{"name": "f", "parameters": {"type": "object"}}])

    assert request["tools"] == [{"functionDeclarations": [{"name": "f"}]}]
    assert request["contents"][1] == {
        "role": "model",
        "parts": [
            {"functionCall": {"name": "f", "args": {"n": 1.5}}, "thoughtSignature": "skip_thought_signature_validator"}
        ],
    }


def test_a_history_as_sdks_write_it_back_is_converted() -> None:
    nothing: dict[str, Any] = {
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": None,
    }
    call = {"id": "c1", "type": "function", "index": 0, "function": {"name": "f", "arguments": ""}}
    request = messages(
        {"role": "user", "content": "one", "name": "Ada"},
        {"role": "assistant", "content": "two", **nothing},
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "assistant", "content": "", **nothing, "tool_calls": [call]},
        {
            "role": "tool",
            "tool_call_id": "c1",
            "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        },
    )

    assert request["contents"] == [
        {"role": "user", "parts": [{"text": "one"}]},
        {
            "role": "model",
            "parts": [
                {"text": "two"},
                {"text": "No."},
                {"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "skip_thought_signature_validator"},
            ],
        },
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"result": "ab"}}}]},
    ]


@pytest.mark.parametrize(
    ("effort", "level", "budget"),
    [("none", "MINIMAL", 0), ("minimal", "MINIMAL", 1024), ("low", "LOW", 1024), ("xhigh", "HIGH", 24576)],
)
def test_how_much_to_think_is_written_as_the_model_takes_it(effort: str, level: str, budget: int) -> None:
    value = line({"messages": HELLO, "reasoning_effort": effort})

    for model, thinking in (("", {"thinkingLevel": level}), ("gemini-2.5-flash", {"thinkingBudget": budget})):
        assert converted(value, model=model)["generationConfig"] == {"thinkingConfig": thinking}
    nearest = f"reasoning_effort {effort} was converted to the nearest level that Gemini has, {level}."
    assert said(value)[1:] == (() if effort in ("minimal", "low") else (nearest,))
    assert said(value, model="models/gemini-2.5-pro")[1:] == ()


def test_the_levels_of_thinking_are_those_of_the_model() -> None:
    def level(effort: str, model: str) -> str:
        value = line({"messages": HELLO, "reasoning_effort": effort})
        return str(converted(value, model=model)["generationConfig"]["thinkingConfig"]["thinkingLevel"])

    assert level("xhigh", "gemini-4-hydrogen") == "XHIGH"
    assert level("xhigh", "models/gemini-4-neon") == "XHIGH"
    assert level("xhigh", "gemini-3.8-flash") == "HIGH"
    assert level("minimal", "gemini-4-hydrogen") == level("none", "gemini-3.8-flash") == "LOW"


def test_embeddings_are_converted_one_text_a_line() -> None:
    full = {"model": "m", "input": ["one"], "dimensions": 64, "encoding_format": "float"}
    assert converted(embed(full), "embed") == {"content": {"parts": [{"text": "one"}]}, "outputDimensionality": 64}
    assert converted(embed({"input": "one"}), "embed") == {"content": {"parts": [{"text": "one"}]}}
    assert converted({"custom_id": "a", "body": {"input": "one"}}, "embed") == {"content": {"parts": [{"text": "one"}]}}


def test_the_user_is_told_what_was_left_out() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD", "detail": "low"}}
    named = {"role": "user", "content": [image], "name": "Ada", "annotations": [1]}
    lines = [
        line({"model": f"gpt-{number}", "messages": [named], "user": "u", "stream": False, "prediction": {}})
        for number in (1, 2, 1, 3, 4, 5)
    ]

    assert said(*lines) == (
        "6 lines of an OpenAI batch were converted to Gemini requests.",
        "The model named in the lines (gpt-1, gpt-2, gpt-3, …) is not used: the order's model answers.",
        "Left out because Gemini has no counterpart: annotations of messages, detail of images, name of messages, "
        "prediction, stream, user.",
    )
    assert said(line({"model": 7, "messages": HELLO, "modalities": ["text"], "logit_bias": {}})) == (
        "1 line of an OpenAI batch was converted to a Gemini request.",
    )
