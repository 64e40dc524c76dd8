"""What the validator says about JSON that is no right request: each wrong form with its path and its way out."""

import json
from typing import Any

import pytest

from gemini_batch_mcp.domain import Task
from gemini_batch_mcp.intake.validator.validate import CheckedLine, check_line

HELLO = [{"parts": [{"text": "hi"}]}]


def check(value: Any, task: Task = "generate") -> CheckedLine:
    return check_line(json.dumps(value).encode(), 7, task)


def request(**members: Any) -> dict[str, Any]:
    return {"key": "k", "request": {"contents": HELLO, **members}}


def configured(**members: Any) -> dict[str, Any]:
    return request(generationConfig=members)


def with_part(part: Any) -> dict[str, Any]:
    return {"key": "k", "request": {"contents": [{"parts": [part]}]}}


#: What is wrong: the line, and the message and the fix that must be among its problems.
WRONG_VALUES: dict[str, tuple[Any, str, str]] = {
    # The five lines of the wire samples that must be refused, in order.
    "an OpenAI batch line": (
        {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "x", "messages": []}},
        "is in OpenAI's batch format (custom_id, method, url, body)",
        "A file with only such lines is converted",
    ),
    "the SDK's config": (
        request(config={"temperature": 0}),
        "`request.config` is not a member",
        "write `generationConfig`",
    ),
    "thinking outside generationConfig": (
        request(thinking_config={"thinking_level": "LOW"}),
        "`request.thinking_config` is not a member of GenerateContentRequest",
        "`thinking_config` belongs inside `generationConfig`",
    ),
    "an instruction as text": (
        request(systemInstruction="plain text"),
        "`request.systemInstruction` is text; it must be a Content object",
        'Write {"parts":[{"text":"…"}]}.',
    ),
    "contents as text": (
        {"key": "e", "request": {"contents": "hi"}},
        "`request.contents` is text; it must be a list",
        'Write [{"role":"user","parts":[{"text":"…"}]}].',
    ),
    # What is whole in another form.
    "a line of Bedrock's": (
        {"recordId": "a", "modelInput": {"anthropic_version": "x", "messages": []}},
        "is in Amazon Bedrock's batch format",
        "give a table with a prompt",
    ),
    "an answer": ({"key": "a", "response": {"candidates": []}}, "is an answer, not a request", "the file of requests"),
    "an answer of OpenAI's": (
        {"id": "b", "custom_id": "a", "response": {"status_code": 200, "body": {}}, "error": None},
        "is an answer, not a request",
        "the file of requests",
    ),
    "an answer of Anthropic's": (
        {"custom_id": "a", "result": {"type": "succeeded", "message": {}}},
        "is an answer, not a request",
        "the file of requests",
    ),
    # The line itself.
    "a list": ([{"key": "a"}], "The line is a list, not an object", "on its own line"),
    "a text": ("hello", "The line is text, not an object", '{"key":"…","request":{…}}'),
    "null": (None, "The line is null", '{"key":"…","request":{…}}'),
    "no key": ({"request": {"contents": HELLO}}, "has no `key`", 'Add `"key":"…"`'),
    "a null key": ({"key": None, "request": {"contents": HELLO}}, "has no `key`", "Add"),
    "an empty key": ({"key": "", "request": {"contents": HELLO}}, "`key` is empty", "no other line has"),
    "a number as key": ({"key": 7, "request": {"contents": HELLO}}, "`key` is a number", 'Write "7".'),
    "an object as key": ({"key": {}, "request": {"contents": HELLO}}, "`key` is an object", "in quotes"),
    "a long key": ({"key": "k" * 1025, "request": {"contents": HELLO}}, "`key` has 1025 characters", "at most 1024"),
    "the inline form": (
        {"request": {"contents": HELLO}, "metadata": {"key": "a"}},
        "has no `key`",
        "Move it out of `metadata`",
    ),
    "a bare request": ({"contents": HELLO}, "is a bare GenerateContentRequest", '{"key":"…","request":{…}}'),
    "no request": ({"key": "a"}, "has no `request`", '{"key":"…","request":{…}}'),
    "a request in quotes": ({"key": "a", "request": '{"contents":[]}'}, "JSON inside a string", "without quotes"),
    "a request in a list": ({"key": "a", "request": [{"contents": HELLO}]}, "`request` is a list", "without the list"),
    "a config beside request": (
        {**request(), "generationConfig": {}},
        "`generationConfig` doesn't belong in a line",
        "`generationConfig` belongs inside `request`",
    ),
    "a setting beside request": (
        {**request(), "temperature": 1},
        "`temperature` doesn't belong in a line",
        "belongs inside `request.generationConfig`",
    ),
    "a misspelled request": (
        {"key": "a", "requst": {}},
        "`requst` doesn't belong in a line",
        "Did you mean `request`?",
    ),
    "an extra member": ({**request(), "comment": "x"}, "`comment` doesn't belong", "only `key` and `request`"),
    # Names.
    "a misspelled member": (configured(temprature=1), "`request.generationConfig.temprature`", "mean `temperature`?"),
    "a misspelled snake member": (configured(max_output_token=1), "max_output_token`", "mean `max_output_tokens`?"),
    "another case": (configured(MaxOutputTokens=1), "MaxOutputTokens`", "mean `maxOutputTokens`?"),
    "OpenAI's name": (configured(max_tokens=1), "max_tokens`", "Write `maxOutputTokens`."),
    "OpenAI's messages": (request(messages=[]), "`request.messages`", "Write `contents`"),
    "a cache inside generationConfig": (
        configured(cached_content="x"),
        "`request.generationConfig.cached_content`",
        "`cached_content` belongs directly inside `request`",
    ),
    "a level outside thinkingConfig": (
        configured(thinkingLevel="LOW"),
        "`request.generationConfig.thinkingLevel`",
        "belongs inside `generationConfig.thinkingConfig`",
    ),
    "a Vertex member": (configured(routingConfig={}), "`request.generationConfig.routingConfig`", "only Vertex AI"),
    "a Vertex tool": (request(tools=[{"retrieval": {}}]), "`request.tools[0].retrieval`", "only Vertex AI"),
    "a member that nothing is like": (
        request(zzz=1),
        "`request.zzz`",
        "Leave it out. GenerateContentRequest has model,",
    ),
    "a name given in both spellings": (
        request(systemInstruction=HELLO[0], system_instruction=HELLO[0]),
        "`request.system_instruction` is given twice",
        "Keep one",
    ),
    "content for contents": (
        {"key": "a", "request": {"content": HELLO[0]}},
        "`request` has no `contents`",
        "Add `contents`",
    ),
    "something inside an empty message": (
        request(tools=[{"codeExecution": {"language": "PYTHON"}}]),
        "`request.tools[0].codeExecution.language`",
        "Leave it out",
    ),
    # Parts and turns.
    "no contents": ({"key": "a", "request": {"contents": []}}, "`request.contents` is empty", 'Write [{"role"'),
    "one turn without its list": (
        {"key": "a", "request": {"contents": HELLO[0]}},
        "`request.contents` is an object; it must be a list",
        "Put it into a list",
    ),
    "a turn as text": (
        {"key": "a", "request": {"contents": ["hi"]}},
        "`request.contents[0]` is text",
        '{"role":"user"',
    ),
    "no parts": (
        {"key": "a", "request": {"contents": [{"role": "user"}]}},
        "`request.contents[0]` has no `parts`",
        "Add",
    ),
    "empty parts": ({"key": "a", "request": {"contents": [{"parts": []}]}}, "contents[0].parts` is empty", "Write ["),
    "parts as text": (
        {"key": "a", "request": {"contents": [{"parts": "x"}]}},
        "parts` is text",
        'Write [{"text":"…"}].',
    ),
    "a part as text": (with_part("x"), "parts[0]` is text", 'Write {"text":"…"}.'),
    "an empty part": (with_part({}), "parts[0]` is empty", 'Write {"text":"…"}.'),
    "a part of a signature alone": (with_part({"thoughtSignature": "AQID"}), "is empty", "Write"),
    "two kinds in one part": (
        with_part({"text": "x", "fileData": {"fileUri": "u"}}),
        "has text and fileData; a Part takes only one",
        "its own object",
    ),
    "an OpenAI part": (with_part({"type": "text", "text": "x"}), "parts[0].type`", "Leave it out; a part is just"),
    "a part of null": (with_part(None), "parts[0]` is null", "Write"),
    "an assistant's role": (
        {"key": "a", "request": {"contents": [{"role": "assistant", "parts": [{"text": "x"}]}]}},
        '`request.contents[0].role` is "assistant"',
        'Write "model".',
    ),
    "a system role": (
        {"key": "a", "request": {"contents": [{"role": "system", "parts": [{"text": "x"}]}]}},
        '"system"',
        "Move its parts into `systemInstruction`.",
    ),
    "a role by number": (
        {"key": "a", "request": {"contents": [{"role": 1, "parts": [{"text": "x"}]}]}},
        "role` is 1, which is not a value of Role",
        "Write one of user, model, function.",
    ),
    # Values.
    "text for a number": (configured(maxOutputTokens="many"), 'is "many"; it must be a whole number', "whole number"),
    "a fraction for a whole number": (configured(topK=1.5), "topK` is 1.5; it must be a whole number", "whole number"),
    "true for a number": (configured(seed=True), "seed` is true; it must be a whole number", "whole number"),
    "a number beyond 32 bits": (configured(seed=2**31), "seed` is 2147483648, out of range", "to 2147483647."),
    "a number beyond 64 bits": (
        configured(responseSchema={"type": "ARRAY", "maxItems": "9223372036854775808"}),
        "maxItems` is",
        "Write 0 or more.",
    ),
    "a number of hundreds of digits": (configured(seed=10**400), "seed` is 1000", "number"),
    "too high a temperature": (configured(temperature=2.5), "temperature` is 2.5, out of range", "from 0 to 2"),
    "a temperature as a list": (configured(temperature=[1]), "temperature` is a list; it must be a number", "number"),
    "a word for a temperature": (configured(temperature="NaN"), 'temperature` is "NaN"', "number"),
    "an endless number as text": (configured(temperature="1e999"), 'temperature` is "1e999"', "number"),
    "text for a boolean": (request(store="True"), 'store` is "True"; it must be true or false', "Write true without"),
    "a number for a boolean": (request(store=1), "store` is 1; it must be true or false", "Write true or false."),
    "a number for a text": (request(model=3), "model` is a number; it must be text", 'Write "3".'),
    "a boolean for a text": (request(model=True), "model` is true or false; it must be text", "in quotes"),
    "too many stop sequences": (configured(stopSequences=list("abcdef")), "stopSequences` has 6 items", "at most 5"),
    "null in a list": (configured(stopSequences=["a", None]), "stopSequences[1]` is null", "in quotes"),
    "a tool without its list": (request(tools={"googleSearch": {}}), "`request.tools` is an object", "into a list"),
    "labels that are no object": (request(labels=["a"]), "`request.labels` is a list; it must be an object", "names"),
    "a label that is no text": (request(labels={"team": 4}), "`request.labels.team` is a number", 'Write "4".'),
    "lower case for an enum": (
        configured(responseSchema={"type": "object"}),
        '`request.generationConfig.responseSchema.type` is "object"',
        'Write "OBJECT".',
    ),
    "half of an enum's name": (
        request(safetySettings=[{"category": "HARASSMENT", "threshold": "BLOCK_NONE"}]),
        '`request.safetySettings[0].category` is "HARASSMENT"',
        'Write "HARM_CATEGORY_HARASSMENT".',
    ),
    "a misspelled enum": (configured(responseModalities=["TEXTS"]), 'is "TEXTS"', 'Did you mean "TEXT"?'),
    "an unknown enum": (configured(responseModalities=["§"]), 'is "§"', "Write one of MODALITY_UNSPECIFIED, TEXT"),
    "an enum of two types": (
        configured(responseSchema={"type": ["string", "null"]}),
        "type` is a list",
        '"nullable":true',
    ),
    "an enum beyond 32 bits": (request(safetySettings=[{"category": 2**40, "threshold": 1}]), "category` is", "one of"),
    "a setting without its threshold": (
        request(safetySettings=[{"category": "HARM_CATEGORY_HARASSMENT"}]),
        "`request.safetySettings[0]` has no `threshold`",
        "Add `threshold`.",
    ),
    "additionalProperties": (
        configured(responseSchema={"type": "OBJECT", "additionalProperties": False}),
        "additionalProperties` is not a member of Schema",
        "Leave it out",
    ),
    "a reference in a schema": (configured(responseSchema={"$ref": "#/x"}), "$ref` is not a member", "in its place"),
    "a data URL": (
        with_part({"inlineData": {"mimeType": "image/png", "data": "data:image/png;base64,iVBOR"}}),
        "starts with data:image/png;base64,",
        "Remove everything up to the comma",
    ),
    "no base64": (with_part({"inlineData": {"mimeType": "a/b", "data": "a b"}}), "isn't base64", "as base64"),
    "base64 of an odd length": (
        with_part({"inlineData": {"mimeType": "a/b", "data": "QUJDR"}}),
        "isn't base64",
        "as base64",
    ),
    "base64 beyond ASCII": (
        with_part({"inlineData": {"mimeType": "a/b", "data": "äöü="}}),
        "isn't base64",
        "as base64",
    ),
    "no media type": (with_part({"inlineData": {"data": "QQ=="}}), "inlineData` has no `mimeType`", "Add `mimeType`."),
    "a duration without its unit": (
        with_part({"fileData": {"fileUri": "u"}, "videoMetadata": {"startOffset": "3"}}),
        'startOffset` is "3", not a duration',
        '"3.5s"',
    ),
    "a day for a time": (
        request(tools=[{"googleSearch": {"timeRangeFilter": {"startTime": "2026-01-01"}}}]),
        'startTime` is "2026-01-01", not a time',
        "T12:00:00Z",
    ),
    "arguments that are no object": (
        with_part({"functionCall": {"name": "f", "args": [1]}}),
        "functionCall.args` is a list; it must be an object",
        "Write an object.",
    ),
    "a voice as text": (
        configured(speechConfig={"voiceConfig": "Kore"}),
        "voiceConfig` is text",
        "prebuiltVoiceConfig",
    ),
}


@pytest.mark.parametrize(("value", "message", "fix"), WRONG_VALUES.values(), ids=WRONG_VALUES.keys())
def test_a_wrong_line_is_refused_with_its_path_and_fix(value: Any, message: str, fix: str) -> None:
    problems = check(value).problems

    assert [problem for problem in problems if message in problem.message and fix in problem.fix], problems
    assert {problem.line for problem in problems} == {7}


@pytest.mark.parametrize(
    ("embed", "message", "fix"),
    [
        ({"contents": HELLO}, "`request.contents` is not a member of EmbedContentRequest", "Write `content`"),
        ({"content": "x"}, "`request.content` is text; it must be a Content object", 'Write {"parts"'),
        ("x", "`request` is text; it must be an EmbedContentRequest object", "EmbedContentRequest has model, content"),
        ({"content": HELLO[0], "config": {}}, "`request.config`", "directly inside `request`"),
        ({"content": HELLO[0], "taskType": "SEARCH"}, 'taskType` is "SEARCH"', "Write one of TASK_TYPE_UNSPECIFIED"),
        ({"content": HELLO[0], "autoTruncate": True}, "`request.autoTruncate`", "only Vertex AI"),
        ({"content": HELLO[0], "outputDimensionality": 0}, "is 0, out of range", "Write 1 or more."),
    ],
)
def test_a_wrong_embedding_line_is_refused_with_its_fix(embed: Any, message: str, fix: str) -> None:
    problems = check({"key": "e", "request": embed}, "embed").problems

    assert [problem for problem in problems if message in problem.message and fix in problem.fix], problems
