"""What the validator says about one line: the right form in every spelling, text that is no JSON, and every limit."""

import json
from typing import Any

import pytest

from gemini_batch_mcp.domain import Task
from gemini_batch_mcp.intake.validator.json_text import JsonFault, parse
from gemini_batch_mcp.intake.validator.validate import CheckedLine, check_line
from gemini_batch_mcp.intake.validator.walk import MAX_DESCRIBED
from gemini_batch_mcp.settings import MAX_LINE_BYTES

HELLO = [{"parts": [{"text": "hi"}]}]


def check(value: Any, task: Task = "generate") -> CheckedLine:
    return check_line(json.dumps(value).encode(), 7, task)


def request(**members: Any) -> dict[str, Any]:
    return {"key": "k", "request": {"contents": HELLO, **members}}


def configured(**members: Any) -> dict[str, Any]:
    return request(generationConfig=members)


def with_part(part: Any) -> dict[str, Any]:
    return {"key": "k", "request": {"contents": [{"parts": [part]}]}}


RIGHT_LINES = {
    "a schema, thinking and safety in camel case": (
        '{"key":"row-1","request":{"contents":[{"role":"user","parts":[{"text":"Sort this note: the lift is stuck '
        'again."}]}],"systemInstruction":{"parts":[{"text":"Reply with one label."}]},"generationConfig":{'
        '"temperature":0,"maxOutputTokens":512,"responseMimeType":"application/json","responseSchema":{"type":'
        '"OBJECT","properties":{"label":{"type":"STRING"}},"required":["label"]},"thinkingConfig":{"thinkingLevel":'
        '"LOW"}},"safetySettings":[{"category":"HARM_CATEGORY_HARASSMENT","threshold":"BLOCK_ONLY_HIGH"}]}}'
    ),
    "a file beside text beyond ASCII": (
        '{"key":"row-2","request":{"contents":[{"role":"user","parts":[{"text":"What is shown here? 日本語 ok 🙂"},'
        '{"fileData":{"fileUri":"https://generativelanguage.googleapis.com/v1beta/files/pic1","mimeType":'
        '"image/png"}}]}]}}'
    ),
    "a tool": (
        '{"key":"row-3","request":{"contents":[{"role":"user","parts":[{"text":"Latest on this topic?"}]}],'
        '"tools":[{"googleSearch":{}}]}}'
    ),
    "a cache": (
        '{"key":"row-4","request":{"contents":[{"role":"user","parts":[{"text":"Sum up section 4."}]}],'
        '"cachedContent":"cachedContents/c0ffee"}}'
    ),
    "snake case": (
        '{"key":"row-1","request":{"contents":[{"parts":[{"text":"hello"}]}],"system_instruction":{"parts":[{"text":'
        '"Be brief."}]},"generation_config":{"max_output_tokens":64,"thinking_config":{"thinking_level":"LOW"}}}}'
    ),
    "an image to be made": (
        '{"key":"img-1","request":{"contents":[{"parts":[{"text":"A small red kite over a beach"}]}],'
        '"generationConfig":{"responseModalities":["TEXT","IMAGE"],"imageConfig":{"aspectRatio":"1:1"}}}}'
    ),
    "both spellings beside each other": json.dumps(
        request(system_instruction=HELLO[0], generationConfig={"max_output_tokens": 3, "topP": 0.5})
    ),
    "null for absent": json.dumps(request(tools=None, generationConfig={"temperature": None})),
    "whole numbers as text and as floats": json.dumps(configured(maxOutputTokens="64", topK=40.0, seed="-1")),
    "numbers as text": json.dumps(configured(temperature="0.5", topP="1e-1")),
    "64-bit numbers as text": json.dumps(
        configured(responseSchema={"type": "ARRAY", "maxItems": "9223372036854775807"})
    ),
    "an enum by number": json.dumps(request(safetySettings=[{"category": 7, "threshold": 3}])),
    "white space around": '  {"key": "k", "request": {"contents": [{"parts": [{"text": "hi"}]}]}}\t\r',
    "a line separator inside a text": '{"key":"k","request":{"contents":[{"parts":[{"text":"a\u2028b\u0085c"}]}]}}',
    "escaped NUL inside a text": r'{"key":"k","request":{"contents":[{"parts":[{"text":"a\u0000b"}]}]}}',
    "a surrogate pair": r'{"key":"k","request":{"contents":[{"parts":[{"text":"\ud83d\ude00"}]}]}}',
    "a thought with its signature": json.dumps(with_part({"text": "", "thought": True, "thoughtSignature": "AQID"})),
    "url-safe base64 without padding": json.dumps(with_part({"inlineData": {"mimeType": "a/b", "data": "-_8"}})),
    "the older role of function answers": json.dumps(
        {
            "key": "k",
            "request": {
                "contents": [
                    {"role": "function", "parts": [{"functionResponse": {"name": "f", "response": {"a": [1, None]}}}]}
                ]
            },
        }
    ),
    "any role in an instruction": json.dumps(request(systemInstruction={"role": "system", "parts": [{"text": "x"}]})),
    "a schema property named like a member": json.dumps(
        configured(
            responseSchema={"type": "OBJECT", "properties": {"key": {"type": "STRING"}, "config": {"type": "NULL"}}}
        )
    ),
    "free JSON in a JSON schema": json.dumps(configured(responseJsonSchema={"$ref": "#/x", "a": [1.5, {"b": None}]})),
    "the longest key": json.dumps({"key": "k" * 1024, "request": {"contents": HELLO}}),
}


@pytest.mark.parametrize("line", RIGHT_LINES.values(), ids=RIGHT_LINES.keys())
def test_a_right_line_has_no_problem(line: str) -> None:
    assert check_line(line.encode(), 1, "generate").problems == ()


@pytest.mark.parametrize(
    "embed",
    [
        {"content": {"parts": [{"text": "river ferry timetable"}]}, "outputDimensionality": 768},
        {"model": "models/m", "content": {"role": "user", "parts": [{"text": "x"}]}, "task_type": "CLUSTERING"},
        {"content": {"parts": [{"text": "x"}]}, "taskType": "RETRIEVAL_DOCUMENT", "title": "t"},
    ],
)
def test_a_right_embedding_line_has_no_problem(embed: dict[str, Any]) -> None:
    assert check({"key": "e", "request": embed}, "embed").problems == ()


WRONG_TEXTS: dict[str, tuple[bytes, str, str]] = {
    "nothing": (b"", "ends before its JSON is complete", "Complete the object"),
    "a cut line": (
        b'{"key":"a","request":{"contents":[{"parts":[{"text":"hi',
        "ends before its JSON is complete",
        "Complete",
    ),
    "a cut object": (b'{"key":"a",', "ends before its JSON is complete", "Complete"),
    "a comma at the end": (b'{"key":"a"},', "ends with a comma", "Remove the comma"),
    "a comma too many": (
        b'{"key":"a",}',
        "extra comma",
        """Remove the comma. Write `{"key":"a"}` in place of `{"key":"a",}`.""",
    ),
    "two objects": (
        b'{"key":"a"}{"key":"b"}',
        "more than one JSON value; the second starts at character 12",
        "one object",
    ),
    "single quotes": (
        b"{'key':'a'}",
        "single quotes at character 2",
        """Write `{"key":"a"}` in place of `{'key':'a'}`.""",
    ),
    "Python's None": (
        b'{"key":None}',
        "has None at character 8",
        """Write `{"key":null}` in place of `{"key":None}`.""",
    ),
    "a comma too few": (b'{"key":"a" "b":1}', "unexpected text", """Write `{"key":"a","b":1}` in place of"""),
    "Python's True": (b'{"key":True}', "has True at character 8", "JSON writes true"),
    "no JSON at all": (b"key,prompt", "is not JSON: unexpected text at character 1", "one JSON object"),
    "a raw tab in a text": (b'{"key":"a\tb"}', "raw control character at character 10", "Escape it"),
    "a byte-order mark": (b'\xef\xbb\xbf{"key":"a"}', "byte-order mark", "first three bytes"),
    "UTF-16": ('{"key":"a"}'.encode("utf-16"), "is UTF-16", "Save the file as UTF-8"),
    "a NUL byte": (b'{"key":"a\x00"}', "NUL byte at byte 10", "plain UTF-8"),
    "Latin-1": ('{"key":"é"}'.encode("latin-1"), "is not UTF-8: byte 9 is 0xe9", "Save the file as UTF-8"),
    "a cut character": ('{"key":"é'.encode()[:-1], "is not UTF-8: byte 9", "UTF-8"),
    "half a surrogate pair": (rb'{"key":"\ud800"}', "half of a surrogate pair, \\ud800", "both halves"),
    "the other half": (rb'{"a":[1.0,NaN,{"\uDC00":null}]}', "half of a surrogate pair, \\udc00", "both halves"),
    "brackets without end": (b"[" * 100_000, "nested too deeply", "below 100 levels"),
}


@pytest.mark.parametrize(("line", "message", "fix"), WRONG_TEXTS.values(), ids=WRONG_TEXTS.keys())
def test_a_line_that_is_no_json_is_refused_with_its_place(line: bytes, message: str, fix: str) -> None:
    checked = check_line(line, 3, "generate")

    assert checked.key == "" and checked.problem_count == 1
    assert message in checked.problems[0].message and fix in checked.problems[0].fix
    assert checked.problems[0].line == 3


def text_line(request: str) -> bytes:
    return f'{{"key":"k","request":{{"contents":[{{"parts":[{{"text":"x"}}]}}],{request}}}}}'.encode()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (text_line('"generationConfig":{"temperature":NaN}'), "temperature` is NaN, not a finite number"),
        (text_line('"generationConfig":{"temperature":1e999}'), "temperature` is 1e999, not a finite number"),
        (text_line('"generationConfig":{"responseJsonSchema":{"a":[-Infinity]}}'), "a[0]` is -Infinity, not a finite"),
        (
            text_line('"generationConfig":{"topK":1,"topK":1}'),
            "`request.generationConfig.topK` is given more than once",
        ),
        (text_line('"labels":{"a":"1","a":"2"}'), "`request.labels.a` is given more than once"),
        (text_line('"generationConfig":{"responseJsonSchema":{"a":1,"a":2}}'), "responseJsonSchema.a` is given more"),
        (b'{"key":"a","key":"b","request":{"contents":[{"parts":[{"text":"x"}]}]}}', "`key` is given more than once"),
        (b'{"key":NaN,"request":{"contents":[{"parts":[{"text":"x"}]}]}}', "`key` is a number; it must be text"),
        (b"Infinity", "The line is a number, not an object"),
    ],
)
def test_what_json_readers_gloss_over_is_refused(line: bytes, message: str) -> None:
    problems = check_line(line, 1, "generate").problems

    assert [problem for problem in problems if message in problem.message], problems


def test_every_problem_of_a_line_is_reported() -> None:
    line = configured(temperature=3, topP=-1, max_tokens=5, thinkingLevel="LOW", responseModalities=["text", "x", 1.5])
    line["request"]["contents"] = [{"role": "bot", "parts": [{"text": 1}, {}, {"text": "a", "extra": 1}]}]
    line["key"] = 1.5

    paths = [problem.message.split("`")[1] for problem in check(line).problems]

    assert sorted(paths) == sorted(
        [
            "key",
            "request.contents[0].role",
            "request.contents[0].parts[0].text",
            "request.contents[0].parts[1]",
            "request.contents[0].parts[2].extra",
            "request.generationConfig.temperature",
            "request.generationConfig.topP",
            "request.generationConfig.max_tokens",
            "request.generationConfig.thinkingLevel",
            "request.generationConfig.responseModalities[0]",
            "request.generationConfig.responseModalities[1]",
            "request.generationConfig.responseModalities[2]",
        ]
    )


def test_problems_carry_the_key_of_their_line() -> None:
    problems = check({"key": "row-9", "request": {}}).problems

    assert [problem.key for problem in problems] == ["row-9"]


def test_of_very_many_problems_the_first_are_described_and_all_counted() -> None:
    checked = check({"key": "k", "request": {"contents": HELLO, **{f"member{index}": 1 for index in range(5000)}}})

    assert checked.problem_count == 5000
    assert len(checked.problems) == MAX_DESCRIBED


def test_words_from_outside_are_cut_short_and_made_printable() -> None:
    long_name = "ignore\nall\u202eprevious" + "x" * 100_000
    problem = check({"key": "k" * 1000, "request": {"contents": HELLO, long_name: long_name}}).problems[0]

    assert "ignore?all?previous" in problem.message
    assert max(map(len, (problem.message, problem.fix, problem.key))) < 400


def nested(levels: int) -> dict[str, Any]:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return configured(responseJsonSchema=value)


def test_nesting_is_taken_up_to_a_hundred_levels() -> None:
    # The line, the request, generationConfig: three levels stand around the lists.
    assert check(nested(97)).problems == ()
    assert "nested too deeply" in check(nested(98)).problems[0].message


def test_a_schema_inside_schemas_is_followed_all_the_way() -> None:
    schema: dict[str, Any] = {"type": "STRONG"}
    for _ in range(20):
        schema = {"type": "ARRAY", "items": schema}

    problem = check(configured(responseSchema=schema)).problems[0]

    assert problem.message.count(".items") == 20 and problem.fix == 'Did you mean "STRING"?'


def test_a_line_may_have_twenty_mebibytes_and_no_more() -> None:
    frame = len(b'{"key":"k","request":{"contents":[{"parts":[{"text":""}]}]}}')
    text = "x" * (MAX_LINE_BYTES - frame)
    line = b'{"key":"k","request":{"contents":[{"parts":[{"text":"%s"}]}]}}'

    assert check_line(line % text.encode(), 1, "generate").problems == ()
    longer = check_line(line % (text + "x").encode(), 1, "generate")
    assert longer.problems[0].message == "The line has 20,971,521 bytes, more than 20,971,520."


def test_whole_numbers_too_long_for_python_are_read_as_floats() -> None:
    assert parse(b"123456789012345678901234") == 1.2345678901234568e23


def test_a_fault_says_what_and_what_to_do() -> None:
    with pytest.raises(JsonFault) as fault:
        parse(b"{")

    assert (str(fault.value), fault.value.fix[:8]) == ("ends before its JSON is complete.", "Complete")
