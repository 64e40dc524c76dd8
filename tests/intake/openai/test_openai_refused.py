"""Lines of an OpenAI batch that have no counterpart at Gemini: each refused with its line, its place and the reason."""

from typing import Any

import pytest

from support.sources import HELLO, embed, line, refused_line

IMAGE = {"type": "image_url", "image_url": "data:image/png;base64,QUJD"}


def user(content: Any) -> dict[str, Any]:
    return line({"messages": [{"role": "user", "content": content}]})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"{oops", "The line is not JSON"),
        ([1], "The line is a list, not an object."),
        (b'{"custom_id":"a","custom_id":"b","body":{}}', "`custom_id` is given more than once."),
        (b'{"custom_id":"a","body":{"n":1,"n":2}}', "`body.n` is given more than once."),
        ({**line({"messages": HELLO}), "extra": 1}, "`extra` doesn't belong in an OpenAI batch line."),
        (line({"messages": HELLO}, ""), "The line has no `custom_id`."),
        (line({"messages": HELLO}, 7), "`custom_id` is a number; it must be text."),
        ({"custom_id": None, "body": {}}, "The line has no `custom_id`."),
        ({"custom_id": "a", "url": "/v1"}, "The line has no `body`."),
        ({**line({"messages": HELLO}), "method": "GET"}, '`method` is "GET"; it must be POST.'),
        ({"key": "a", "request": {"contents": []}}, "The line isn't an OpenAI batch line, unlike others in this file"),
        ({"key": "a", "text": "x"}, "The line isn't an OpenAI batch line, unlike others in this file."),
        (line({"input": "x"}), "`body.messages` isn't a list of messages."),
        (line({"messages": []}), "`body.messages` isn't a list of messages."),
        (line({"messages": ["x"]}), "`body.messages[0].role` must be one of"),
        (line({"messages": [{"role": "bot", "content": "x"}]}), "`body.messages[0].role` must be one of"),
        (line({"messages": [{"role": "system", "content": "x"}]}), "`body.messages` has only system messages."),
        (line({"messages": [*HELLO, {"role": "system", "content": "x"}]}), "`body.messages[1]` is a system message"),
        (line({"messages": [{"role": "tool", "content": "x"}]}), "`body.messages[0]` answers a call that isn't"),
        (line({"messages": [{"role": "user"}]}), "`body.messages[0]` has no content."),
        (user(7), "`body.messages[0].content` is a number."),
        (user([{"type": "video"}]), "`body.messages[0].content[0]` is a part of type video"),
        (user([{"type": "text", "text": 7}]), "`body.messages[0].content[0]` is a part of type text"),
        (user(["x"]), "`body.messages[0].content[0]` is a part without a type."),
        (user([{"type": ["text"]}]), "`body.messages[0].content[0]` is a part of type ['text']"),
        (user([{"type": "image_url", "image_url": {}}]), "`body.messages[0].content[0].image_url` has no `url`."),
        (
            user([{"type": "image_url", "image_url": {"url": "data:image/svg+xml,%3Csvg"}}]),
            "`body.messages[0].content[0]",
        ),
        (
            user([{"type": "image_url", "image_url": {"url": "data:;base64,QUJD"}}]),
            "`body.messages[0].content[0]` holds",
        ),
        (
            user([{"type": "image_url", "image_url": {"url": "data:image/png;base64,QQ" * 2}}]),
            "`request.contents[0].parts[0]",
        ),
        (
            user([{"type": "input_audio", "input_audio": {"format": "ogg", "data": ""}}]),
            "`body.messages[0].content[0].inp",
        ),
        (
            user([{"type": "input_audio", "input_audio": {"format": "wav"}}]),
            "`body.messages[0].content[0].input_audio` ha",
        ),
        (user([{"type": "file", "file": {"file_id": "file-1"}}]), "`body.messages[0].content[0].file` names a file at"),
        (
            user([{"type": "file", "file": {"filename": "a.pdf"}}]),
            "`body.messages[0].content[0].file` has no `file_data`",
        ),
        (user([{"type": "file", "file": {"file_data": "QUJD"}}]), "`body.messages[0].content[0]` holds neither"),
        (line({"messages": [{**HELLO[0], "audio": {"id": "x"}}]}), "`body.messages[0].audio` has no counterpart"),
        (
            line({"messages": [{"role": "system", "content": [IMAGE]}]}),
            "`body.messages[0]` holds something other than text",
        ),
        (
            line({"messages": [{"role": "assistant", "tool_calls": {}, "content": 1}]}),
            "`body.messages[0].content` is a",
        ),
        (line({"messages": [{"role": "assistant", "tool_calls": "x"}]}), "`body.messages[0].tool_calls` is text"),
        (line({"messages": HELLO, "modalities": ["text", "audio"]}), "`body.modalities` has no counterpart"),
        (line({"messages": HELLO, "verbosity": "low"}), "`body.verbosity` has no counterpart"),
        (line({"messages": HELLO, "web_search_options": {}}), "`body.web_search_options` has no counterpart"),
        (line({"messages": HELLO, "maxtokens": 1}), "`body.maxtokens` has no counterpart in Gemini."),
        (line({"messages": HELLO, "functions": {}}), "`body.functions` is an object; it must be a list."),
        (line({"messages": HELLO, "functions": ["f"]}), "`body.functions[0]` is not a function."),
        (line({"messages": HELLO, "tools": [{"type": "function"}]}), "`body.tools[0].function` is not a function."),
        (line({"messages": HELLO, "function_call": 1}), "`body.function_call` cannot be"),
        (line({"messages": HELLO, "reasoning_effort": ["x"]}), "`body.reasoning_effort` is a list."),
        (
            b'{"custom_id":"a","body":{"messages":[{"role":"user","content":"x"}],"temperature":NaN}}',
            "The line holds a",
        ),
        (user([{"type": "image_url", "image_url": {"url": "http://x/a.png"}}]), "`body.messages[0].content[0]` holds"),
        (user([{"type": "image_url", "image_url": {"url": "https://x/a"}}]), "`body.messages[0].content[0]` holds"),
        (line({"messages": HELLO, "logit_bias": {"1": 2}}), "`body.logit_bias` has no counterpart in Gemini."),
        (line({"messages": HELLO, "max_tokens": 1, "max_completion_tokens": 2}), "`body` has both `max_tokens`"),
        (line({"messages": HELLO, "reasoning_effort": "x"}), '`body.reasoning_effort` is "x".'),
        (
            line({"messages": HELLO, "response_format": {"type": "x"}}),
            "`body.response_format` is of a type that cannot",
        ),
        (line({"messages": HELLO, "tools": 1}), "`body.tools` is a number"),
        (line({"messages": HELLO, "tools": [{"type": "web"}]}), "`body.tools[0]` is not a function."),
        (line({"messages": HELLO, "tool_choice": "x"}), "`body.tool_choice` cannot be"),
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
            "`body.messages[0].tool_calls[0].function.arguments` is not a string with a JSON",
        ),
        (
            line({"messages": [{"role": "assistant", "function_call": {"name": "f", "arguments": '{"a":NaN}'}}]}),
            "The line holds a value that doesn't exist in JSON.",
        ),
        (
            line({"messages": [{"role": "assistant", "function_call": {"name": "f", "arguments": '{"a":"\\ud800"}'}}]}),
            "The line holds a value that doesn't exist in JSON.",
        ),
        (
            line({"messages": [{"role": "assistant", "tool_calls": [1]}]}),
            "`body.messages[0].tool_calls[0]` is not a function call.",
        ),
        (
            line(
                {
                    "messages": [
                        {
                            "role": "function",
                            "name": "f",
                            "content": [IMAGE],
                        }
                    ]
                }
            ),
            "`body.messages[0]` holds something other than text.",
        ),
    ],
)
def test_what_cannot_be_converted_is_refused_with_its_line(value: Any, message: str) -> None:
    assert refused_line(value)[0].startswith(message)


@pytest.mark.parametrize(
    ("value", "message", "fix"),
    [
        (embed({"input": ["a", "b"]}), "`body.input` has 2 texts.", "Write one line per text"),
        (embed({"input": [1, 2]}), "`body.input` holds token numbers.", "Write the text itself."),
        (embed({"input": [[1, 2]]}), "`body.input` holds token numbers.", "Write the text itself."),
        (embed({"input": [7]}), "`body.input` holds token numbers.", "Write the text itself."),
        (embed({"input": []}), "`body.input` holds token numbers.", "Write the text itself."),
        (embed({}), "`body.input` is null; it must be text.", "Write the text to embed."),
        (embed({"input": "a", "x": 1}), "`body.x` has no counterpart in Gemini's embeddings.", "Leave it out."),
        (
            embed({"input": "a", "dimensions": 0}),
            "`request.outputDimensionality` is 0, out of range.",
            "Write 1 or more",
        ),
        (line({"messages": HELLO}), "The line is a chat completion.", 'Give task "generate".'),
        ({"custom_id": "a", "body": {"messages": HELLO}}, "The line is a chat completion.", 'Give task "generate".'),
    ],
)
def test_embeddings_that_cannot_be_converted_are_refused(value: Any, message: str, fix: str) -> None:
    told = refused_line(value, "embed")

    assert told[0] == message
    assert told[1].startswith(fix)


@pytest.mark.parametrize(
    ("url", "message", "fix"),
    [
        ("/v1/embeddings", "The line asks for an embedding.", 'Give task "embed".'),
        ("/v1/completions", '`url` is "/v1/completions"; only chat', "Leave these lines out."),
        ("/v1/moderations", '`url` is "/v1/moderations"; only chat', "Leave these lines out."),
        (7, "`url` is 7; only chat", "Leave these lines out."),
    ],
)
def test_other_endpoints_are_refused_with_the_reason(url: Any, message: str, fix: str) -> None:
    told = refused_line(line({"model": "m", "input": "x"}, url=url))

    assert told[0].startswith(message)
    assert told[1].startswith(fix)
