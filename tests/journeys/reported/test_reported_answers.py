"""Answers that were reported to be lost, changed or called good with nothing in them, each with its right outcome.

They are delivered by the service in place of its own, and read in every way that the tools offer.
"""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from support.answers import answer
from support.conversation import Conversation, answered, line, newest, write_lines

pytestmark = pytest.mark.anyio

PNG: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
CALL: Final = {"functionCall": {"name": "f", "args": {"a": 1}}}
CODE: Final = {"executableCode": {"language": "PYTHON", "code": "print(2)"}}
OUTPUT: Final = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "2\n"}}
FILE: Final = {"fileData": {"mimeType": "video/mp4", "fileUri": "https://example.com/v1beta/files/abc"}}


def said(*parts: dict[str, Any], reason: str = "STOP", **members: Any) -> dict[str, Any]:
    return {"content": {"role": "model", "parts": list(parts)}, "finishReason": reason, **members}


def text(words: str) -> dict[str, Any]:
    return {"text": words}


def media(kind: str, data: str = PNG) -> dict[str, Any]:
    return {"inlineData": {"mimeType": kind, "data": data}}


STOPPED: Final = {"finishReason": "SAFETY"}
#: By key: the candidates, and what comes of them: the status, the text, and what stands in the column `calls`.
ANSWERS: Final[dict[str, tuple[list[dict[str, Any]], str, str, list[dict[str, Any]] | None]]] = {
    "call": ([said(CALL)], "ok", "", [CALL]),
    "calltext": ([said(text("I ask."), CALL)], "ok", "I ask.", [CALL]),
    "exec": ([said(CODE, OUTPUT, text("It is 2."))], "ok", "It is 2.", [CODE, OUTPUT]),
    "imgtext": ([said(text("A dot."), media("image/png"))], "ok", "A dot.", None),
    "thoughtimg": ([said({"text": "hm", "thought": True}, media("image/png"))], "ok", "", None),
    "pcm": ([said(media("audio/L16;codec=pcm;rate=24000", "AAAA"))], "ok", "", None),
    "filedata": ([said(FILE)], "ok", "", [FILE]),
    "two": ([said(text("first")), said(text("second"), index=1)], "ok", "first", [{"candidate": "second"}]),
    "first blocked": ([STOPPED, said(text("second"))], "blocked", "", [{"candidate": "second"}]),
    "first cut off": (
        [said(text("fir"), reason="MAX_TOKENS"), said(text("second"))],
        "truncated",
        "fir",
        [{"candidate": "second"}],
    ),
    "first empty": ([said(), said(text("second"))], "empty", "", [{"candidate": "second"}]),
    "first a thought": (
        [said({"text": "hm", "thought": True}), said(CALL)],
        "empty",
        "",
        [{"candidate": "", "calls": [CALL]}],
    ),
    "second blocked": (
        [said(text("first")), STOPPED],
        "ok",
        "first",
        [{"candidate": "", "finishReason": "SAFETY"}],
    ),
    "only a thought": ([said({"text": "hm", "thought": True})], "empty", "", None),
    "an empty text": ([said(text(""))], "empty", "", None),
    "ground": (
        [
            said(
                text("So it is."),
                groundingMetadata={"groundingChunks": [{"web": {"title": "A page", "uri": "https://example.com/a"}}]},
            )
        ],
        "ok",
        "So it is.",
        None,
    ),
    "logprobs": ([said(text("so"), avgLogprobs=-0.5, logprobsResult={"topCandidates": [{}]})], "ok", "so", None),
    "formula": ([said(text('=HYPERLINK("https://example.com")'))], "ok", '=HYPERLINK("https://example.com")', None),
    "bidi": ([said(text("a\u202eb"))], "ok", "a\u202eb", None),
    "huge": ([said(text("long " * 20_000))], "ok", "long " * 20_000, None),
    "surr": ([said(text("a\ud800b"))], "ok", "a\ufffdb", None),
    "nul": ([said(text("a\0b"))], "ok", "a\0b", None),
}


async def delivered(
    talk: Conversation, sandbox: Sandbox, order: Mapping[str, Any], answers: Mapping[str, bytes]
) -> str:
    """Order it, and let it be answered so."""
    batch = str((await talk.call("create_batch", **order))["batch_id"])
    sandbox.finish(newest(sandbox))
    answered(sandbox, newest(sandbox), b"".join(answers.values()))
    return batch


async def test_nothing_that_was_answered_is_lost_or_called_good_with_nothing_in_it(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    source = write_lines(data / "lines.jsonl", [line(key, f"hello {key}") for key in ANSWERS])
    lines = {key: answer(key, candidates=candidates) for key, (candidates, *_) in ANSWERS.items()}
    batch = await delivered(talk, sandbox, {"source": source}, lines)

    results = await talk.call("get_results", batch=batch, view="rows", limit=200)
    shown = {row["key"]: row for row in results["rows"]}
    saved = (await talk.call("get_results", batch=batch, save_to="rows.jsonl"))["saved"]
    kept = {row["key"]: row for row in map(json.loads, Path(saved["path"]).read_bytes().splitlines())}
    for key, (candidates, status, words, calls) in ANSWERS.items():
        row, written = shown[key], kept[key]
        assert (row["status"], written["status"], written["text"], key) == (status, status, words, key)
        assert (written.get("calls"), json.loads(row["calls"]) if row["calls"] else None) == (calls, calls), key
        has_media = "inlineData" in str(candidates)
        assert status != "ok" or words or calls or has_media, key
        assert bool(row["files"]) == has_media, key
    assert shown["first blocked"]["error"] == "stopped: SAFETY"
    assert "A page (https://example.com/a)" in shown["ground"]["notes"]
    page = await talk.text("get_results", batch=batch, view="failures")
    assert page.count("second") == 3, page
    counted = await talk.call("query_results", batch=batch, sql="SELECT status, count(*) FROM results GROUP BY 1")
    wanted = [status for _, status, *_ in ANSWERS.values()]
    assert dict(counted["rows"]) == {status: wanted.count(status) for status in wanted}


async def test_numbers_are_everywhere_as_they_were_answered(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    (data / "t.csv").write_text("id,text\nk0,hey k0\nk1,hey k1\nk2,hey k2\n", encoding="utf-8")
    schema = {"type": "object", "properties": {"tid": {"type": "integer"}, "num": {"type": "number"}}}
    given = {
        "k0": ("1878123456789012345", "1878123456789012345"),
        "k1": ("18781234567890123456", "12345678901234567.5"),
        "k2": ("2", "0.1"),
    }
    order = {"source": "t.csv", "prompt": "{{text}}", "key_column": "id", "response_schema": schema}
    lines = {key: answer(key, f'{{"tid":{tid},"num":{num}}}') for key, (tid, num) in given.items()}
    batch = await delivered(talk, sandbox, order, lines)

    asked = await talk.call(
        "query_results", batch=batch, sql="SELECT tid::VARCHAR, num::VARCHAR FROM results ORDER BY key"
    )
    assert [tuple(row) for row in asked["rows"]] == list(given.values())
    assert (await talk.call("get_results", batch=batch))["summary"]["succeeded"] == 3
    path = Path((await talk.call("get_results", batch=batch, save_to="t-out.csv"))["saved"]["path"])
    people = csv.DictReader(path.read_text("utf-8-sig").splitlines())
    assert [(row["tid"], row["num"]) for row in people] == list(given.values())
    path = Path((await talk.call("get_results", batch=batch, save_to="t-out.jsonl"))["saved"]["path"])
    rows = [json.loads(row, parse_float=str, parse_int=str) for row in path.read_bytes().splitlines()]
    assert [(row["json"]["tid"], row["json"]["num"]) for row in rows] == list(given.values())


async def test_json_with_something_around_it_is_taken_and_marked(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    around = [
        '{"label": "a"}."\n}',
        'Here is the JSON you asked for:\n```json\n{"label": "a"}\n```\nAnything else?',
        '```json {"label": "a"} ```',
        '{"label": "a"}{"label": "a"}',
    ]
    schema = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
    rows = [{"id": f"r{number}", "text": f"row {number}"} for number in range(len(around))]
    order = {"requests": rows, "prompt": "{{text}}", "key_column": "id", "response_schema": schema}
    lines = {row["id"]: answer(row["id"], words) for row, words in zip(rows, around, strict=True)}
    batch = await delivered(talk, sandbox, order, lines)
    seen = await talk.call("get_results", batch=batch)
    assert seen["summary"]["succeeded"] == len(around)
    assert any("text around the JSON" in warning for warning in seen["warnings"])
    asked = await talk.call(
        "query_results", batch=batch, sql="SELECT status, label, cleaned, text FROM results ORDER BY key"
    )
    assert [tuple(row) for row in asked["rows"]] == [("ok", "a", True, words) for words in around]
