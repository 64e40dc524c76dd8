"""Inputs that were reported to go wrong in work of this kind, each with its right outcome, through the tools.

The inputs are made for these tests, after what was reported. Each stands for its kind; the neighbours of each are tried
where that kind is tested.
"""

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from support.conversation import Conversation, newest, write_lines

pytestmark = pytest.mark.anyio

OLD, NEW, NEWEST = "gemini-2.5-flash", "gemini-3-flash-preview", "gemini-3.8-flash"
HI: Final = [{"role": "user", "parts": [{"text": "Say hi"}]}]
TEXT: Final = {"type": "STRING"}
STAND_IN: Final = "skip_thought_signature_validator"


def request(contents: Any = HI, **members: Any) -> str:
    return json.dumps({"key": "k1", "request": {"contents": contents, **members}})


def config(**members: Any) -> dict[str, Any]:
    return {"generationConfig": members}


def calling(calls: int) -> list[Any]:
    """A conversation in which the model has called a function so often, and one call was answered."""
    return [
        {"role": "user", "parts": [{"text": "ls"}]},
        {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"c": "ls"}}}] * calls},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"out": "a"}}}]},
    ]


@dataclass(frozen=True)
class Line:
    """A line of a request file, the members of it that are to be sent, and the warnings in which words are wanted.

    With `problems` it is refused instead: for each what is said, and what to do.
    """

    text: str
    sent: dict[str, Any] = field(default_factory=dict[str, Any])
    warned: Sequence[str] = ()
    problems: Sequence[tuple[str, str]] = ()
    model: str = NEW


DECLARED: Final = [
    {"functionDeclarations": [{"name": "f", "parameters": {"type": "OBJECT", "properties": {"c": TEXT}}}]}
]
JSON_ANSWER: Final = {
    "responseMimeType": "application/json",
    "responseSchema": {"type": "OBJECT", "properties": {"a": TEXT}},
}
SEARCHED: Final = request(tools=[{"googleSearch": {}}], **config(**JSON_ANSWER))
LEVEL_AND_BUDGET: Final = request(**config(thinkingConfig={"thinkingLevel": "LOW", "thinkingBudget": 100}))
LISTS, CASES = "A single value was given where a list is expected", "Values had the wrong letter case"
SEATS: Final = {"functionCall": {"name": "free_seats", "args": {"day": "today"}}}
TEMPLATE: Final = [
    {"role": "user", "parts": [{"text": "Is there still room for two tonight?"}]},
    {"role": "model", "parts": [SEATS]},
    {"role": "user", "parts": [{"functionResponse": {"name": "free_seats", "response": {"seats": 6}}}]},
]
OPENAI_CALL: Final = {
    "model": "gpt-4o",
    "messages": [
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "42"},
    ],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "f",
                "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
                "strict": True,
            },
        }
    ],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "parallel_tool_calls": False,
}
RESPONSES: Final = {
    "model": "gpt-5",
    "input": "hi",
    "instructions": "be short",
    "max_output_tokens": 100,
    "text": {
        "format": {
            "type": "json_schema",
            "name": "x",
            "schema": {
                "type": "object",
                "properties": {"a": {"type": "string"}},
                "required": ["a"],
                "additionalProperties": False,
            },
            "strict": True,
        }
    },
}


def posted(url: str, body: dict[str, Any]) -> str:
    return json.dumps({"custom_id": "a1", "method": "POST", "url": url, "body": body})


LINES: Final[dict[str, Line]] = {
    # one meaning, spelled otherwise
    "one object for parts": Line(
        request(system_instruction={"parts": {"text": "Answer with one word"}}),
        {"system_instruction": {"parts": [{"text": "Answer with one word"}]}},
        [f"{LISTS} in line 1"],
    ),
    "one object for tools": Line(
        request(tools={"google_search": {}}), {"tools": [{"google_search": {}}]}, [f"{LISTS} in line 1"]
    ),
    "a level in small letters": Line(
        request(**config(thinkingConfig={"thinkingLevel": "low"})),
        config(thinkingConfig={"thinkingLevel": "LOW"}),
        [f"{CASES} in line 1"],
    ),
    "types in small letters": Line(
        request(
            **config(
                responseMimeType="application/json",
                responseSchema={"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
            )
        ),
        config(
            responseMimeType="application/json",
            responseSchema={"type": "OBJECT", "properties": {"a": TEXT}, "required": ["a"]},
        ),
        [f"{CASES} in line 1"],
    ),
    # right one by one, and not together
    "an empty instruction": Line(
        request(systemInstruction={"parts": [{"text": ""}]}),
        problems=[("`request.systemInstruction.parts[0].text` is empty", "leave `systemInstruction` out")],
    ),
    "a schema without its type": Line(
        request(**config(maxOutputTokens=100, responseSchema={"type": "OBJECT", "properties": {"a": TEXT}})),
        config(maxOutputTokens=100, responseSchema={"type": "OBJECT", "properties": {"a": TEXT}}),
        ["`request.generationConfig.responseSchema` stands without `responseMimeType` in line 1"],
    ),
    "a schema that is not taken": Line(
        request(
            **config(
                responseMimeType="application/json",
                responseSchema={
                    "type": "OBJECT",
                    "properties": {
                        "a": {"type": "ARRAY"},
                        "b": {"type": "OBJECT"},
                        "c": {"type": "STRING", "format": "email"},
                        "d": {"type": "INTEGER", "enum": ["1"]},
                    },
                    "required": ["zz"],
                },
            )
        ),
        problems=[
            ("properties.a` is an ARRAY without `items`", 'Add "items"'),
            ('properties.c.format` is "email"', "date-time"),
            ("properties.d.enum` stands with the type INTEGER", '"STRING"'),
        ],
    ),
    "search and JSON, an older model": Line(
        SEARCHED, model=OLD, problems=[(f"together with an answer in JSON, which {OLD} refuses", "Gemini 3")]
    ),
    "search and JSON, a newer model": Line(SEARCHED, {"tools": [{"googleSearch": {}}], **config(**JSON_ANSWER)}),
    "a call without its answer": Line(
        request(calling(2)), problems=[("has 2 functionCall parts, and the turn after it 1", "Answer every call")]
    ),
    "a level and a budget, an older model": Line(
        LEVEL_AND_BUDGET, model=OLD, problems=[(f"thinkingLevel` is not taken by {OLD}", "Write `thinkingBudget`")]
    ),
    "a level and a budget": Line(LEVEL_AND_BUDGET, warned=["has both thinkingLevel and thinkingBudget in line 1"]),
    "a level and a budget, the newest model": Line(
        LEVEL_AND_BUDGET,
        model=NEWEST,
        problems=[(f"thinkingBudget` is not taken by {NEWEST}", "Write `thinkingLevel`")],
    ),
    # calls without a signature
    "a call without a signature": Line(
        request(calling(1), tools=DECLARED), {"contents": calling(1)}, [f'"thoughtSignature":"{STAND_IN}"']
    ),
    "a call without a signature, an older model": Line(request(calling(1), tools=DECLARED), model=OLD),
    "our template without its signature": Line(
        json.dumps({"key": "call-2", "request": {"contents": TEMPLATE}}), warned=[f'"thoughtSignature":"{STAND_IN}"']
    ),
    "a call of OpenAI's": Line(
        posted("/v1/chat/completions", OPENAI_CALL),
        {
            "contents": [
                {"role": "user", "parts": [{"text": "hi"}]},
                {
                    "role": "model",
                    "parts": [{"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": STAND_IN}],
                },
                {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"result": "42"}}}]},
            ]
        },
        ["OpenAI"],
    ),
    # other vendors' lines
    "a line of OpenAI's Responses": Line(
        posted("/v1/responses", RESPONSES),
        {
            "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
            "systemInstruction": {"parts": [{"text": "be short"}]},
        },
        ["1 line of an OpenAI batch was converted"],
    ),
    "a line of Anthropic's": Line(
        json.dumps(
            {
                "custom_id": "a1",
                "params": {"model": "claude-x", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]},
            }
        ),
        {"contents": [{"role": "user", "parts": [{"text": "hi"}]}], **config(maxOutputTokens=10)},
        ["1 line of an Anthropic batch was converted"],
    ),
}


async def test_every_reported_line_is_mended_converted_warned_of_or_refused_with_the_fix(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    for name, line in LINES.items():
        seen = await talk.call("preview_batch", source=write_lines(data / "lines.jsonl", [line.text]), model=line.model)
        told = [(problem["line"], problem["message"], problem["fix"]) for problem in seen["problems"]]
        assert (seen["ok"], len(told)) == (not line.problems, len(line.problems)), (name, told)
        for message, fix in line.problems:
            assert any(number == 1 and message in what and fix in step for number, what, step in told), (name, told)
        if line.problems:
            continue
        (shown,) = seen["sample"]
        sent = {member: shown["request"].get(member) for member in line.sent}
        assert sent == line.sent, (name, json.dumps(sent))
        for words in line.warned:
            assert any(words in warning for warning in seen["warnings"]), (name, seen["warnings"])
        if not line.warned:
            assert not [warning for warning in seen["warnings"] if "line 1" in warning], (name, seen["warnings"])
    assert sandbox.creates == 0
    template = await talk.client.read_resource("gemini-batch://templates/function-calling")
    text = "".join(part.text for part in template.contents if hasattr(part, "text"))
    assert f'"thoughtSignature":"{STAND_IN}"' in text


#: A table, what asks of its rows, the texts that are sent for the first of them, and words of a warning.
TABLES: Final[dict[str, tuple[bytes, str, list[str], str]]] = {
    "cp850.csv": (
        "id;comment\n1;Prix fixé très bon café\n2;naïve façade ñandú\n".encode("cp850"),
        "{{comment}}",
        ["Prix fixé très bon café", "naïve façade ñandú"],
        "read as CP850 (DOS)",
    ),
    "cp1250.csv": (
        "id,opinia\n1,Świetny produkt zażółć gęślą jaźń\n2,źle\n".encode("cp1250"),
        "{{opinia}}",
        ["Świetny produkt zażółć gęślą jaźń", "źle"],
        "read as Windows-1250",
    ),
    "cp1251.csv": (
        "id,text\n1,Очень хороший\n".encode("cp1251"),
        "{{text}}",
        ["Очень хороший"],
        "read as Windows-1251",
    ),
    "sjis.csv": (
        ("id,レビュー\n" + "".join(f"{n},配達が遅くてとても残念でした。番号{n}\n" for n in range(48))).encode("cp932"),
        "{{レビュー}}",
        [f"配達が遅くてとても残念でした。番号{n}" for n in range(2)],
        "read as Shift_JIS",
    ),
    "escapes.json": (
        b'[{"id":1,"messages":[{"role":"user","content":"\\u4f60\\u597d"}]}]',
        "{{messages}}",
        ['[{"role":"user","content":"你好"}]'],
        "",
    ),
    "rows.csv.gz": (gzip.compress(b"id,text\n1,a\n2,b\n"), "{{text}}", ["a", "b"], ""),
}


async def test_every_reported_table_is_read_as_it_was_written(talk: Conversation, data: Path) -> None:
    for name, (content, prompt, texts, words) in TABLES.items():
        (data / name).write_bytes(content)
        seen = await talk.call("preview_batch", source=name, prompt=prompt)
        assert [line["request"]["contents"][0]["parts"][0]["text"] for line in seen["sample"]] == texts, name
        assert any(words in warning for warning in seen["warnings"]) or not words, (name, seen["warnings"])
    # Of the shortest one nobody could be sure; it is settled by saying so.
    (data / "short.csv").write_bytes("id,text\n1,źle\n2,Ćma\n".encode("cp1250"))
    asked = await talk.refusal("preview_batch", source="short.csv", prompt="{{text}}")
    assert "its encoding isn't certain" in asked and "windows-1250: źle · Ćma" in asked
    seen = await talk.call("preview_batch", source="short.csv", prompt="{{text}}", encoding="windows-1250")
    assert seen["sample"][0]["request"]["contents"][0]["parts"][0]["text"] == "źle"


async def test_what_is_elsewhere_is_attached_and_a_page_of_the_web_is_not(talk: Conversation, data: Path) -> None:
    address = "https://generativelanguage.googleapis.com/v1beta/files/abc123"
    (data / "elsewhere.csv").write_text(f"id,img\n0,gs://bucket/a.mp4\n1,files/abc123\n2,{address}\n", encoding="utf-8")
    seen = await talk.call("preview_batch", source="elsewhere.csv", prompt="What is it?", attach="img")
    assert seen["request_count"] == 3
    parts = [part for line in seen["sample"] for part in line["request"]["contents"][0]["parts"] if "fileData" in part]
    assert [part["fileData"]["fileUri"] for part in parts][:1] == ["gs://bucket/a.mp4"] and len(parts) == 2
    assert any("2 rows name files that were uploaded earlier" in warning for warning in seen["warnings"])
    assert any("1 link to gs:// or YouTube" in warning for warning in seen["warnings"])

    video, page = "https://www.youtube.com/watch?v=abcdefghijk", "https://example.com/x.jpg"
    (data / "pages.csv").write_text(f"id,img\n0,{video}\n1,{page}\n", encoding="utf-8")
    result = await talk.raw("preview_batch", source="pages.csv", prompt="What is it?", attach="img")
    said = str(result.structured_content or result.content)
    assert "Row 2: This is a link; the path of a local file is expected." in said and "Row 1" not in said
    seen = await talk.call("preview_batch", source="pages.csv", prompt="What is it?", attach="img", limit_rows=1)
    assert video in str(seen["sample"])
    for name in ("a", "b"):
        (data / f"{name}.pdf").write_bytes(b"%PDF-1.4\n1 0 obj<</Type/Page>>endobj\n%%EOF" + name.encode())
    rows = [{"img": "a.pdf, b.pdf"}]
    seen = await talk.call("preview_batch", requests=rows, prompt="What are they?", attach="img")
    assert str(seen["sample"]).count("inlineData") == 2


async def test_what_hosts_add_or_leave_empty_means_nothing(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    (data / "a.csv").write_text("id,text\n1,good\n2,bad [[sandbox:error:13]]\n", encoding="utf-8")
    order = {"source": "a.csv", "prompt": "{{text}}"}
    batch = (await talk.call("create_batch", **order))["batch_id"]
    sandbox.finish(newest(sandbox))
    plain = await talk.call("preview_batch", **order)
    for empty in (
        {"attach": None, "response_schema": None, "limit_rows": None},
        {"response_schema": "", "limit_rows": ""},
        {"toolCallId": "c", "sessionId": "s", "wait_for_previous": True},
    ):
        assert await talk.call("preview_batch", **order, **empty) == plain
    results = await talk.call("get_results", batch=batch, cursor=None, keys=None, save_to=None)
    assert (results["summary"]["succeeded"], results["summary"]["failed"], results["saved"]) == (1, 1, None)
    again = await talk.call("retry_failed", batch=batch, include="failed")
    assert again["request_count"] == 1
    near = await talk.refusal("preview_batch", **order, respons_schema={})
    assert "respons_schema" in near and "response_schema" in near
