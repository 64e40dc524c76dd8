"""Request lines: what Gemini would refuse, the words of the refusal, and agreement with our own validator."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.domain import Task
from gemini_batch_mcp.sandbox.lifecycle.lines import RequestProblem, check_line, check_request, scan
from gemini_batch_mcp.settings import MAX_LINE_BYTES
from support.services import generate_line, generate_lines

TEXT = {"contents": [{"parts": [{"text": "hi"}]}]}


def scan_bytes(tmp_path: Path, data: bytes, task: Task = "generate", max_line_bytes: int = MAX_LINE_BYTES) -> Any:
    path = tmp_path / "in.jsonl"
    path.write_bytes(data)
    return scan(path, task, max_line_bytes)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"", "unexpected end of line"),
        (b"   ", "unexpected end of line"),
        (b"\xef\xbb\xbf" + generate_line("a"), "near column 1: unexpected character"),
        (generate_line("a") + b"\r", "unexpected character"),
        (b'{"key":"a","request":{', "truncated"),
        (b'{"key":"a\x01"}', "near column 10"),
        (b'{"key":"\xff"}', "invalid JSON"),
        (b"[" * 100_000, "invalid JSON"),
        (b"[]", "expected an object"),
        (b'"text"', "expected an object"),
        (b"{}", "missing field: 'contents'"),
        (b'{"key":"a"}', "missing field: 'request'"),
        (b'{"key":"a","request":null}', "missing field: 'request'"),
        (b'{"key":5,"request":{}}', "string field key"),
        (b'{"key":"a","request":[]}', "message field request"),
        (b'{"key":"a","request":{"contents":[]},"extra":1}', "no such field: 'extra'"),
        (b'{"custom_id":"a","body":{}}', "no such field: 'custom_id'"),
    ],
)
def test_a_line_that_is_no_request_is_refused(line: bytes, says: str) -> None:
    assert says in (check_line(line, "generate") or "")


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"config": {"temperature": 0}}, "no such field: 'config'"),
        ({"thinking_config": {}}, "no such field: 'thinking_config'"),
        ({"systemInstruction": "text"}, "message field systemInstruction"),
        ({"generationConfig": {"cached_content": "x"}}, "no such field: 'cached_content'"),
        ({"generationConfig": {"temperature": "warm"}}, "float field temperature"),
        ({"generationConfig": {"temperature": True}}, "float field temperature"),
        ({"generationConfig": {"temperature": 1e300}}, "float field temperature"),
        ({"generationConfig": {"maxOutputTokens": 1.5}}, "int32 field maxOutputTokens"),
        ({"generationConfig": {"maxOutputTokens": 2**31}}, "int32 field maxOutputTokens"),
        ({"generationConfig": {"maxOutputTokens": 0}}, "out of range for field maxOutputTokens"),
        ({"generationConfig": {"maxOutputTokens": 10**400}}, "int32 field maxOutputTokens"),
        ({"generationConfig": {"maxOutputTokens": "1_0"}}, "int32 field maxOutputTokens"),
        ({"generationConfig": {"topP": {"no": "number"}}}, "float field topP"),
        ({"generationConfig": {"candidateCount": []}}, "int32 field candidateCount"),
        ({"generationConfig": {"stopSequences": "x"}}, "repeated field stopSequences"),
        ({"generationConfig": {"stopSequences": list("abcdef")}}, "out of range for field stopSequences"),
        ({"generationConfig": {"responseModalities": ["SMELL"]}}, "Modality field responseModalities"),
        ({"generationConfig": {"responseSchema": {"properties": []}}}, "map field properties"),
        ({"generationConfig": {"responseSchema": {"properties": {"a": {"kind": 1}}}}}, "no such field: 'kind'"),
        ({"generationConfig": {"temperature": 0}, "generation_config": {}}, "given twice: 'generation_config'"),
        ({"safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT"}]}, "missing field: 'threshold'"),
        ({"tools": [{"functionDeclarations": [{"name": 5}]}]}, "string field name"),
        ({"tools": [{"retrieval": {}}]}, "no such field: 'retrieval'"),
        ({"store": "yes"}, "bool field store"),
        ({"labels": {"a": 5}}, "string field labels"),
        ({"contents": [{"parts": [{"text": "a", "inlineData": {"mimeType": "a/b", "data": ""}}]}]}, "exactly one data"),
        ({"contents": [{"parts": [{}]}]}, "exactly one data field"),
        ({"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": "§"}}]}]}, "bytes field data"),
        ({"contents": [{"parts": [{"functionCall": {"name": "f", "args": []}}]}]}, "struct field args"),
        ({"contents": [{"role": 1, "parts": [{"text": "a"}]}]}, "Role field role"),
    ],
)
def test_a_request_with_a_wrong_member_is_refused_near_it(members: dict[str, Any], says: str) -> None:
    problem = check_line(generate_line("a", **members), "generate") or ""
    assert says in problem
    assert problem.startswith("invalid JSON, near column ")


@pytest.mark.parametrize(
    "members",
    [
        {"generationConfig": {"maxOutputTokens": "5", "temperature": "0.5", "seed": 3.0}},
        {"generation_config": {"maxOutputTokens": 5, "thinking_config": {"thinkingLevel": "LOW"}}},
        {"generationConfig": {"responseModalities": [1]}},
        {"generationConfig": None, "systemInstruction": None},
        {"generationConfig": {"temperature": "NaN"}} | {"cachedContent": "cachedContents/a"},
        {"tools": [{"googleSearch": {"timeRangeFilter": {"startTime": "2026-01-01T00:00:00Z"}}}]},
        {"generationConfig": {"responseJsonSchema": {"$defs": {"a": {}}, "whatever": [1, None]}}},
        {"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": "_-8"}}]}]},
        {"contents": [{"parts": [{"functionCall": {"name": "f", "args": {"a": [1, {"b": None}]}}}]}]},
    ],
)
def test_what_proto_json_allows_is_accepted(members: dict[str, Any]) -> None:
    assert check_line(generate_line("a", **members), "generate") is None


def test_a_bare_request_is_a_line_without_a_key() -> None:
    assert check_line(json.dumps(TEXT).encode(), "generate") is None
    assert check_line(b'{"content":{"parts":[{"text":"a"}]}}', "embed") is None


@pytest.mark.parametrize("task", ["generate", "embed"])
def test_a_request_of_the_other_task_is_refused(task: Task) -> None:
    other = TEXT if task == "embed" else {"content": {"parts": [{"text": "a"}]}}
    with pytest.raises(RequestProblem):
        check_request(other, task)


def test_a_request_that_nests_without_end_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(5000):
        schema = {"items": schema}
    with pytest.raises(RequestProblem, match="nested too deeply"):
        check_request({**TEXT, "generationConfig": {"responseSchema": schema}}, "generate")
    head = b'{"key":"a","request":{"contents":[{"parts":[{"text":"hi"}]}],"generationConfig":{"responseSchema":'
    deep = head + b'{"items":' * 450 + b"{}" + b"}" * 450 + b"}}}"
    assert check_line(deep, "generate") == "invalid JSON, near column 1: nested too deeply"


@pytest.mark.parametrize(
    ("bad", "number"),
    [(b"", 3), (b"\r", 3), (b"{}", 3), (b'{"key":"a","request":{"contents":"hi"}}', 3)],
)
def test_the_first_bad_line_is_found_and_counted_from_one(tmp_path: Path, bad: bytes, number: int) -> None:
    found = scan_bytes(tmp_path, generate_lines(2) + bad + b"\n" + generate_lines(5) + b"junk\n")
    assert found.row_count == number - 1
    assert found.problem.startswith(f"Error on line {number}: ")


def test_a_file_without_a_last_newline_is_whole(tmp_path: Path) -> None:
    found = scan_bytes(tmp_path, generate_lines(3)[:-1])
    assert (found.row_count, found.problem) == (3, "")
    assert scan_bytes(tmp_path, b"").row_count == 0


def test_separators_of_unicode_inside_texts_are_no_line_ends(tmp_path: Path) -> None:
    found = scan_bytes(tmp_path, generate_line("a", "one\u2028two\u2029three\u0085four") + b"\n")
    assert (found.row_count, found.problem) == (1, "")


@pytest.mark.parametrize("at", ["middle", "end"])
def test_a_line_over_the_limit_is_refused_without_being_read_whole(tmp_path: Path, at: str) -> None:
    long = generate_line("a", "x" * 10_000)
    data = generate_lines(2) + long + (b"\n" + generate_lines(1) if at == "middle" else b"")
    found = scan_bytes(tmp_path, data, max_line_bytes=5000)
    assert found.problem == "Error on line 3: the line is longer than 5000 bytes"


def test_lines_longer_than_a_block_are_put_together(tmp_path: Path) -> None:
    data = generate_line("a", "x" * 9 * 1024**2) + b"\n" + generate_lines(2)
    found = scan_bytes(tmp_path, data)
    assert (found.row_count, found.problem) == (3, "")


def test_what_was_right_once_is_not_taken_for_right_elsewhere(tmp_path: Path) -> None:
    """The fast way remembers repeated members: a line that differs in anything but its text is read in full."""
    right = generate_line("a", generationConfig={"maxOutputTokens": 5})
    for wrong in (
        generate_line("b", generationConfig={"maxOutputTokens": "x"}),
        right.replace(b'"role": "user"', b'"role": "boss"'),
        right.replace(b'"text"', b'"txet"'),
        right.replace(b'"key"', b'"kay"'),
        right.replace(b'"contents"', b'"content"'),
        right[:-1] + b',"extra":1}',
    ):
        found = scan_bytes(tmp_path, right + b"\n" + right + b"\n" + wrong + b"\n")
        assert found.row_count == 2, wrong
        assert found.problem.startswith("Error on line 3: invalid JSON")


def test_snake_case_and_embeddings_are_read_fast_as_well(tmp_path: Path) -> None:
    snake = generate_line("a", generation_config={"max_output_tokens": 5}, system_instruction=None)
    embed = b'{"key":"e","request":{"content":{"parts":[{"text":"a"}]},"output_dimensionality":8}}'
    camel = embed.replace(b"output_dimensionality", b"outputDimensionality")
    assert scan_bytes(tmp_path, (snake + b"\n") * 3).row_count == 3
    assert scan_bytes(tmp_path, (embed + b"\n" + camel + b"\n") * 3, "embed").row_count == 6


def test_every_text_line_of_a_large_file_is_read_at_disk_speed(tmp_path: Path) -> None:
    """A million lines of 1 kB take about 4 s; a tenth of that on a slow machine is a safe bound for 20,000."""
    data = b"".join(generate_line(f"row-{number}", "x" * 900) + b"\n" for number in range(20_000))
    path = tmp_path / "in.jsonl"
    path.write_bytes(data)
    start = time.process_time()
    assert scan(path, "generate", MAX_LINE_BYTES).row_count == 20_000
    assert time.process_time() - start < 2
