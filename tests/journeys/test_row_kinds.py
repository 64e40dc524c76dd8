"""Every kind of row that answers are known to have, ordered, answered and read through the protocol, in both eras."""

import base64
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import Conversation, line, newest, spoken, write_lines

pytestmark = pytest.mark.anyio


async def answered(talk: Conversation, sandbox: Sandbox, data: Path, mark: str, **order: Any) -> dict[str, Any]:
    """Order three rows, the second one with a marker for the sandbox, and read them all."""
    source = write_lines(data / "rows.jsonl", [line(f"k{n}", f"row {n} {mark if n == 2 else ''}") for n in (1, 2, 3)])
    created = await talk.call("create_batch", source=source, **order)
    sandbox.finish(newest(sandbox))
    return await talk.call("get_results", batch=created["batch_id"], view="rows")


def second(results: dict[str, Any]) -> dict[str, Any]:
    assert [row["key"] for row in results["rows"]] == ["k1", "k2", "k3"]
    assert [row["status"] for row in results["rows"][::2]] == ["ok", "ok"]
    return dict(results["rows"][1])


#: A marker for the sandbox, and the status, finish reason and error of its row.
MARKS: list[tuple[str, str, str, str]] = [
    ("", "ok", "STOP", ""),
    ("[[sandbox:error:8]]", "failed", "", "code 8: .+"),
    ("[[sandbox:status]]", "failed", "", "code 13: .+"),
    ("[[sandbox:blocked]]", "blocked", "", "prompt blocked: PROHIBITED_CONTENT"),
    ("[[sandbox:safety]]", "blocked", "SAFETY", "stopped: SAFETY"),
    ("[[sandbox:recitation]]", "blocked", "RECITATION", "stopped: RECITATION"),
    ("[[sandbox:malformed_call]]", "failed", "MALFORMED_FUNCTION_CALL", "stopped: MALFORMED_FUNCTION_CALL.*"),
    ("[[sandbox:empty]]", "empty", "STOP", ""),
    ("[[sandbox:no_candidates]]", "empty", "", ""),
    ("[[sandbox:null]]", "empty", "", ""),
]


async def test_a_row_is_told_by_its_status(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    source = write_lines(data / "rows.jsonl", [line(f"k{n}", f"row {n} {mark[0]}") for n, mark in enumerate(MARKS)])
    created = await talk.call("create_batch", source=source)
    sandbox.finish(newest(sandbox))
    results = await talk.call("get_results", batch=created["batch_id"], view="rows")

    for row, (mark, status, finish_reason, error) in zip(results["rows"], MARKS, strict=True):
        assert (row["status"], row["finish_reason"]) == (status, finish_reason), mark
        assert re.fullmatch(error, row["error"]), mark
        assert bool(row["text"]) == (status == "ok"), mark
    for status, count in Counter(status for _, status, _, _ in MARKS).items():
        assert results["summary"]["succeeded" if status == "ok" else status] == count
    assert results["integrity_ok"]


@pytest.mark.parametrize(("mark", "has_text"), [("[[sandbox:max_tokens]]", False), ("[[sandbox:cut_text]]", True)])
async def test_a_row_that_stopped_at_the_limit_is_truncated(
    talk: Conversation, sandbox: Sandbox, data: Path, mark: str, has_text: bool
) -> None:
    results = await answered(talk, sandbox, data, mark)

    row = second(results)
    assert (row["status"], row["finish_reason"], bool(row["text"])) == ("truncated", "MAX_TOKENS", has_text)
    assert results["summary"]["truncated"] == 1


async def test_thoughts_are_counted_and_never_shown(
    talk: Conversation, sandbox: Sandbox, data: Path, settings: Settings
) -> None:
    results = await answered(talk, sandbox, data, "[[sandbox:thoughts]]")

    row = second(results)
    (raw,) = settings.home.glob("batches/*/answers-*.jsonl")
    answers = {found["key"]: found["response"] for found in map(json.loads, raw.read_text("utf-8").splitlines())}
    parts = answers["k2"]["candidates"][0]["content"]["parts"]
    thoughts = [part["text"] for part in parts if part.get("thought")]
    assert thoughts and not any(thought in row["text"] for thought in thoughts)
    assert row["text"] == "".join(part["text"] for part in parts if not part.get("thought"))
    counted = sum(answer["usageMetadata"].get("thoughtsTokenCount", 0) for answer in answers.values())
    assert results["usage"]["thoughts_tokens"] == counted > 0


@pytest.mark.parametrize("mark", ["[[sandbox:no_key]]", "[[sandbox:malformed]]"])
async def test_a_line_that_answers_no_key_leaves_its_row_missing(
    talk: Conversation, sandbox: Sandbox, data: Path, mark: str
) -> None:
    results = await answered(talk, sandbox, data, mark)

    assert second(results)["status"] == "missing"
    assert (results["summary"]["missing"], results["summary"]["unexpected"]) == (1, 1)
    assert not results["integrity_ok"]
    assert any("'k2'" in entry for entry in results["suspect_keys"])


async def test_a_dropped_line_leaves_its_row_missing(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    results = await answered(talk, sandbox, data, "[[sandbox:dropped]]")

    assert second(results)["status"] == "missing"
    assert (results["summary"]["missing"], results["summary"]["unexpected"]) == (1, 0)


@pytest.mark.parametrize(("mark", "suffix", "has_text"), [("image", ".png", True), ("audio", ".wav", False)])
async def test_files_of_an_answer_are_written_and_never_read_out(
    talk: Conversation, sandbox: Sandbox, data: Path, settings: Settings, mark: str, suffix: str, has_text: bool
) -> None:
    results = await answered(talk, sandbox, data, f"[[sandbox:{mark}]]")

    row = second(results)
    (path,) = settings.home.glob(f"batches/*/media/*{suffix}")
    assert (row["status"], path.name) == ("ok", f"k2-1{suffix}")
    assert bool(row["text"]) == has_text
    encoded = base64.b64encode(path.read_bytes()).decode()
    shown = spoken(await talk.raw("get_results", batch=results["batch_id"], view="rows"))
    assert encoded[:40] not in shown and encoded[:40] not in json.dumps(results)
    query = "SELECT key, files FROM results WHERE files IS NOT NULL"
    answer = await talk.call("query_results", batch=results["batch_id"], sql=query)
    assert answer["rows"] == [["k2", json.dumps([f"media/k2-1{suffix}"])]]


async def test_answers_of_every_kind_are_on_the_page_in_sql_and_in_a_file(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    marks = {
        "k0": "",
        "k1": "[[sandbox:code]]",
        "k2": "[[sandbox:file]]",
        "k3": "[[sandbox:grounding]] [[sandbox:citations]] [[sandbox:ratings]]",
    }
    source = write_lines(data / "rows.jsonl", [line(key, f"row {mark}") for key, mark in marks.items()])
    created = await talk.call("create_batch", source=source)
    sandbox.finish(newest(sandbox))
    saved = data / "all.csv"
    results = await talk.call("get_results", batch=created["batch_id"], view="rows", save_to=str(saved))

    plain, code, file, found = results["rows"]
    assert [row["status"] for row in results["rows"]] == ["ok"] * 4
    assert "calls" not in plain or not plain["calls"] + plain["notes"]
    assert [list(entry) for entry in json.loads(code["calls"])] == [["executableCode"], ["codeExecutionResult"]]
    assert json.loads(file["calls"])[0]["fileData"]["fileUri"] == "https://example.com/sandbox.txt"
    grounding = (
        "[sandbox] no source (https://example.com/source)\nhttps://example.com/page (URL_RETRIEVAL_STATUS_ERROR)\n"
        "searched: [sandbox] nothing was searched"
    )
    assert found["notes"].split("\ncitations: ")[0] == f"grounding: {grounding}"
    assert found["notes"].endswith("https://example.com/quoted, license MIT\nsafety_ratings: DANGEROUS_CONTENT MEDIUM")
    sql = "SELECT key, grounding, citations, safety_ratings FROM results WHERE grounding IS NOT NULL"
    answer = await talk.call("query_results", batch=created["batch_id"], sql=sql)
    rated = "HARASSMENT NEGLIGIBLE, DANGEROUS_CONTENT MEDIUM"
    assert answer["rows"] == [["k3", grounding, "https://example.com/quoted, license MIT", rated]]
    assert grounding.splitlines()[0] in saved.read_text("utf-8") and rated in saved.read_text("utf-8")


async def test_a_vector_is_told_of_and_never_read_out(
    talk: Conversation, sandbox: Sandbox, data: Path, settings: Settings
) -> None:
    rows = [{"key": f"e{n}", "request": {"content": {"parts": [{"text": f"text {n}"}]}}} for n in (1, 2)]
    source = write_lines(data / "embed.jsonl", [json.dumps(row) for row in rows])
    created = await talk.call("create_batch", source=source, task="embed", model="gemini-embedding-001")
    sandbox.finish(newest(sandbox))
    results = await talk.call("get_results", batch=created["batch_id"], view="rows")

    (raw,) = settings.home.glob("batches/*/answers-*.jsonl")
    vector = json.loads(raw.read_text("utf-8").splitlines()[0])["response"]["embedding"]["values"]
    assert [row["status"] for row in results["rows"]] == ["ok", "ok"]
    assert results["rows"][0]["text"] == f"embedding of {len(vector):,} numbers"
    assert str(vector[0]) not in json.dumps(results)
    query = "SELECT len(embedding) FROM results"
    answer = await talk.call("query_results", batch=created["batch_id"], sql=query)
    assert answer["rows"] == [[len(vector)], [len(vector)]]


@pytest.mark.parametrize("mark", ["[[sandbox:surrogate]]", "[[sandbox:separator]]"])
async def test_characters_that_break_lines_or_json_break_nothing(
    talk: Conversation, sandbox: Sandbox, data: Path, mark: str
) -> None:
    row = second(await answered(talk, sandbox, data, mark))

    assert row["status"] == "ok"
    assert "\ufffd" in row["text"] or "<U+2028>" in row["text"]


@pytest.mark.parametrize(
    ("member", "row"),
    [
        ({"type": "string", "enum": ["pos", "neg"]}, ["1", "ok", True, ""]),
        (
            {"type": "string", "pattern": "^[0-9]{30}$"},
            ["1", "failed", None, "does not fit the response schema: label does not match its pattern"],
        ),
    ],
)
async def test_a_structured_answer_is_checked_and_stands_beside_the_users_columns(
    talk: Conversation, sandbox: Sandbox, data: Path, member: dict[str, Any], row: list[Any]
) -> None:
    """The sandbox does not look at patterns."""
    source = data / "reviews.csv"
    source.write_text("id,review\n1,good\n", encoding="utf-8")
    schema = {"type": "object", "properties": {"label": member}, "required": ["label"]}
    created = await talk.call(
        "create_batch", source=str(source), prompt="Classify: {{review}}", response_schema=schema, key_column="id"
    )
    sandbox.finish(newest(sandbox))
    query = "SELECT id, status, label IN ('pos', 'neg'), error FROM results"

    assert (await talk.call("query_results", batch=created["batch_id"], sql=query))["rows"] == [row]
