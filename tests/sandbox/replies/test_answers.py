"""Answers of the sandbox: they fit what was asked, follow from the request alone, and go wrong when told to."""

import base64
import json
import math
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.sandbox.config import FileFault, RowFault, SandboxConfig
from gemini_batch_mcp.sandbox.lifecycle._outputs import Output, OutputOrder, write_output
from gemini_batch_mcp.sandbox.replies._answers import GenerateAnswers
from gemini_batch_mcp.sandbox.replies._embeddings import embedding_response
from gemini_batch_mcp.sandbox.replies.tokens import text_tokens
from support.services import MODEL, generate_line, generate_lines, parse_lines


def answer(text: str = "Sort this note.", fault: RowFault | None = None, number: int = 0, **members: Any) -> Any:
    """Return the response to one request."""
    request = {"contents": [{"role": "user", "parts": [{"text": text}]}], **members}
    return json.loads(GenerateAnswers(MODEL).response(json.dumps(request).encode(), fault, number))


def text_of(response: Any) -> str:
    return str(response["candidates"][0]["content"]["parts"][0]["text"])


def written(tmp_path: Path, data: bytes, *, is_inline: bool = False, **config: Any) -> tuple[bytes, Output]:
    """Return the output file of a job with these rows."""
    rows, target = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    rows.write_bytes(data)
    order = OutputOrder("generate", MODEL, data.count(b"\n"), is_inline=is_inline)
    output = write_output(rows, target, order, SandboxConfig(**config))
    return target.read_bytes(), output


def test_an_answer_says_that_it_is_none_and_echoes_the_prompt() -> None:
    response = answer("key-17: sort this note.")
    assert text_of(response).startswith("[sandbox] No model answered.")
    assert "key-17: sort this note." in text_of(response)
    assert response["modelVersion"] == MODEL
    assert response["responseId"]
    usage = response["usageMetadata"]
    assert usage["promptTokenCount"] == 6
    assert usage["candidatesTokenCount"] == text_tokens(text_of(response))
    parts = (usage["promptTokenCount"], usage["candidatesTokenCount"], usage["thoughtsTokenCount"])
    assert usage["totalTokenCount"] == sum(parts)


def test_a_long_prompt_is_echoed_at_both_ends() -> None:
    echo = text_of(answer("begin " + "x" * 1000 + " end"))
    assert "begin" in echo
    assert echo.endswith("end")
    assert len(echo) < 300


def test_the_answer_changes_with_the_request_and_with_nothing_else() -> None:
    assert answer("a") == answer("a")
    assert text_of(answer("a")) != text_of(answer("b"))
    assert answer("a")["responseId"] != answer("a", generationConfig={"temperature": 0})["responseId"]


def test_thinking_is_shown_when_asked_for_and_counted_unless_it_is_off() -> None:
    shown = answer(generationConfig={"thinkingConfig": {"includeThoughts": True}})
    thought, text = shown["candidates"][0]["content"]["parts"]
    assert thought["thought"] is True
    assert "thought" not in text
    off = answer(generation_config={"thinking_config": {"thinking_budget": 0}})
    assert "thoughtsTokenCount" not in off["usageMetadata"]


def test_the_output_limit_is_kept_and_reported() -> None:
    response = answer(generationConfig={"maxOutputTokens": 8})
    assert response["candidates"][0]["finishReason"] == "MAX_TOKENS"
    assert response["usageMetadata"]["candidatesTokenCount"] <= 8
    assert text_tokens(text_of(response)) <= 8
    # No model gives more than its own limit, whatever a request allows.
    cut = answer(fault=RowFault.MAX_TOKENS, generationConfig={"maxOutputTokens": 70_000})
    assert cut["usageMetadata"]["thoughtsTokenCount"] == 65_536


def test_system_instruction_tools_and_several_candidates_are_honoured() -> None:
    system = {"parts": [{"text": "Reply with one label."}]}
    assert answer(systemInstruction=system)["usageMetadata"]["promptTokenCount"] == 10
    several = answer(generationConfig={"candidateCount": 3})["candidates"]
    assert [one["index"] for one in several] == [0, 1, 2]
    assert len({one["content"]["parts"][0]["text"] for one in several}) == 3
    grounded = answer(tools=[{"googleSearch": {}}])["candidates"][0]
    assert "groundingMetadata" in grounded


def test_declared_functions_are_called_with_arguments_that_fit() -> None:
    parameters = {"type": "OBJECT", "properties": {"city": {"type": "STRING", "enum": ["Oslo", "Bergen"]}}}
    tools = [{"functionDeclarations": [{"name": "weather", "parameters": parameters}, {"name": "time"}]}]
    (part,) = answer(tools=tools)["candidates"][0]["content"]["parts"]
    assert part["functionCall"]["name"] == "weather"
    assert part["functionCall"]["args"]["city"] in ("Oslo", "Bergen")
    only_time = {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["time"]}}
    (part,) = answer(tools=tools, toolConfig=only_time)["candidates"][0]["content"]["parts"]
    assert part["functionCall"] == {"name": "time", "args": {}}
    never = {"functionCallingConfig": {"mode": "NONE"}}
    assert text_of(answer(tools=tools, toolConfig=never)).startswith("[sandbox]")
    unknown = {"functionCallingConfig": {"allowedFunctionNames": ["nothing"]}}
    assert text_of(answer(tools=tools, toolConfig=unknown)).startswith("[sandbox]")


def test_images_and_sound_are_real_ones() -> None:
    text, image = answer(generationConfig={"responseModalities": ["TEXT", "IMAGE"]})["candidates"][0]["content"][
        "parts"
    ]
    assert text["text"].startswith("[sandbox]")
    data = base64.b64decode(image["inlineData"]["data"])
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(zlib.decompress(data[data.index(b"IDAT") + 4 : data.index(b"IEND") - 8])) == 4
    (sound,) = answer(generationConfig={"responseModalities": ["AUDIO"]})["candidates"][0]["content"]["parts"]
    assert sound["inlineData"]["mimeType"].startswith("audio/")
    assert len(base64.b64decode(sound["inlineData"]["data"])) == 480


def test_geminis_own_schema_form_is_understood() -> None:
    schema = {
        "type": "OBJECT",
        "properties": {
            "b": {"type": "ARRAY", "items": {"type": "STRING"}, "minItems": "2", "maxItems": "2"},
            "a": {"type": "STRING", "enum": ["x", "y"]},
            "c": {"type": "INTEGER", "minimum": 3, "maximum": 3},
            "d": {"type": "NUMBER"},
            "e": {"type": "BOOLEAN"},
        },
        "propertyOrdering": ["a", "b"],
    }
    response = answer(generationConfig={"responseMimeType": "application/json", "responseSchema": schema})
    value = json.loads(text_of(response))
    assert list(value) == ["a", "b", "c", "d", "e"]
    assert value["a"] in ("x", "y")
    assert len(value["b"]) == 2
    assert all(text.startswith("[sandbox]") for text in value["b"])
    assert value["c"] == 3
    assert isinstance(value["d"], float)


def test_labels_vary_over_rows_and_an_enum_answer_is_bare() -> None:
    config = {"responseMimeType": "text/x.enum", "responseSchema": {"type": "STRING", "enum": ["yes", "no"]}}
    labels = Counter(text_of(answer(f"row {number}", generationConfig=config)) for number in range(200))
    assert set(labels) == {"yes", "no"}
    assert min(labels.values()) > 50
    no_schema = answer(generationConfig={"responseMimeType": "application/json"})
    assert json.loads(text_of(no_schema))["sandbox"].startswith("[sandbox]")


@pytest.mark.parametrize("dimensions", [0, 1, 3, 8, 768, 1001, 3072])
def test_embeddings_are_unit_vectors_of_the_length_asked_for(dimensions: int) -> None:
    request = {"content": {"parts": [{"text": "river ferry"}]}, "outputDimensionality": dimensions}
    response = json.loads(embedding_response(json.dumps(request).encode()))
    values = response["embedding"]["values"]
    assert len(values) == (dimensions or 3072)
    assert math.isclose(math.hypot(*values), 1.0, rel_tol=1e-6)
    assert response["tokenCount"] == "3"


def test_different_texts_have_different_embeddings() -> None:
    def vector(text: str) -> list[float]:
        request = {"content": {"parts": [{"text": text}]}, "output_dimensionality": "64"}
        return list(json.loads(embedding_response(json.dumps(request).encode()))["embedding"]["values"])

    assert vector("a") == vector("a")
    assert abs(sum(one * other for one, other in zip(vector("a"), vector("b"), strict=True))) < 0.9


def test_tokens_are_a_quarter_of_ascii_and_one_for_other_characters() -> None:
    assert text_tokens("") == 0
    assert text_tokens("a") == 1
    assert text_tokens("abcd" * 10) == 10
    assert text_tokens("日本語") == 3
    assert text_tokens("abcd日本語") == 4


@pytest.mark.parametrize(
    ("fault", "finish", "parts"),
    [
        (RowFault.MAX_TOKENS, "MAX_TOKENS", 0),
        (RowFault.SAFETY, "SAFETY", 0),
        (RowFault.EMPTY, "STOP", 0),
        (RowFault.CUT_TEXT, "MAX_TOKENS", 1),
    ],
)
def test_an_answer_can_end_badly(fault: RowFault, finish: str, parts: int) -> None:
    (candidate,) = answer(fault=fault)["candidates"]
    assert candidate["finishReason"] == finish
    assert len(candidate.get("content", {}).get("parts", [])) == parts


def test_a_blocked_prompt_and_a_missing_candidate_look_different() -> None:
    assert answer(fault=RowFault.BLOCKED)["promptFeedback"]["blockReason"]
    for fault in (RowFault.BLOCKED, RowFault.NO_CANDIDATES):
        assert "candidates" not in answer(fault=fault)
    assert "promptFeedback" not in answer(fault=RowFault.NO_CANDIDATES)


def test_answers_can_hold_what_readers_stumble_over() -> None:
    surrogate = GenerateAnswers(MODEL).response(b'{"contents":[{"parts":[{"text":"a"}]}]}', RowFault.SURROGATE)
    assert surrogate.count(b"\\ud83d") == 1
    assert json.loads(surrogate)
    assert "\u2028" in text_of(answer(fault=RowFault.SEPARATOR))
    assert len(text_of(answer(fault=RowFault.LONG))) == 10_000
    assert len(text_of(answer(fault=RowFault.LONG, number=7))) == 7
    thinking = {"thinkingConfig": {"includeThoughts": True}}
    parts = answer(fault=RowFault.LONG, number=50, generationConfig=thinking)["candidates"][0]["content"]["parts"]
    assert len(parts[1]["text"]) == 50


def test_markers_choose_what_happens_to_a_row(tmp_path: Path) -> None:
    words = ["error:8", "status", "null", "dropped", "duplicated", "unexpected", "no_key", "chars:12", "nonsense", ""]
    lines = [generate_line(f"row-{n}", f"x [[sandbox:{word}]]") for n, word in enumerate(words)]
    data, output = written(tmp_path, b"\n".join(lines) + b"\n")
    rows = parse_lines(data)
    by_key: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_key.setdefault(row.get("key", ""), []).append(row)
    assert by_key["row-0"][0]["error"]["code"] == 8
    assert by_key["row-1"][0]["status"]["code"] == 13
    assert by_key["row-2"][0]["response"] is None
    assert "row-3" not in by_key
    assert by_key["row-4"][0] == by_key["row-4"][1]
    (stranger,) = [key for key in by_key if key.startswith("never-sent-")]
    assert by_key[stranger][0]["response"]["candidates"]
    assert len(by_key[""]) == 1
    assert len(by_key["row-7"][0]["response"]["candidates"][0]["content"]["parts"][0]["text"]) == 12
    assert by_key["row-8"][0]["response"]["candidates"]
    assert (output.succeeded, output.failed) == (8, 2)


def test_a_malformed_line_spoils_no_other(tmp_path: Path) -> None:
    data, _ = written(tmp_path, generate_line("a", "[[sandbox:malformed]]") + b"\n" + generate_lines(1))
    bad, good = data.splitlines()
    with pytest.raises(json.JSONDecodeError):
        json.loads(bad)
    assert json.loads(good)["key"] == "row-0"


def test_shares_of_faults_fall_on_the_same_rows_each_time(tmp_path: Path) -> None:
    faults = {RowFault.ERROR: 0.1, RowFault.DROPPED: 0.1, RowFault.DUPLICATED: 0.1}
    data, output = written(tmp_path, generate_lines(2000), row_faults=faults)
    again, _ = written(tmp_path, generate_lines(2000), row_faults=faults)
    assert data == again
    keys = Counter(row["key"] for row in parse_lines(data))
    assert 150 < 2000 - len(keys) < 250
    assert 150 < sum(count == 2 for count in keys.values()) < 250
    assert 150 < output.failed < 250


def test_a_function_may_choose_the_faults_and_a_marker_wins(tmp_path: Path) -> None:
    def choose(key: str) -> RowFault | None:
        return RowFault.ERROR if key in ("row-1", "marked") else None

    lines = generate_lines(3) + generate_line("marked", "[[sandbox:null]]") + b"\n"
    data, _ = written(tmp_path, lines, row_faults=choose)
    rows = {row["key"]: row for row in parse_lines(data)}
    assert "error" in rows["row-1"]
    assert rows["marked"]["response"] is None
    assert "response" in rows["row-0"]


@pytest.mark.parametrize("by_marker", [True, False])
def test_whole_files_can_be_shuffled_cut_and_have_crlf(tmp_path: Path, by_marker: bool) -> None:
    lines = generate_lines(50)
    if by_marker:
        lines += generate_line("last", "".join(f"[[sandbox:{fault}]]" for fault in FileFault)) + b"\n"
        data, output = written(tmp_path, lines)
    else:
        data, output = written(tmp_path, lines, file_faults=frozenset(FileFault))
    *whole, cut = data.split(b"\r\n")
    keys = [json.loads(line)["key"] for line in whole]
    assert len(keys) == len(set(keys)) == lines.count(b"\n") - 1
    assert keys != sorted(keys, key=lambda key: int(key.removeprefix("row-")) if key != "last" else 99)
    with pytest.raises(json.JSONDecodeError):
        json.loads(cut)
    assert output.size_bytes == len(data)


def test_one_fault_of_a_file_leaves_the_rest_alone(tmp_path: Path) -> None:
    plain, _ = written(tmp_path, generate_lines(9))
    cut, _ = written(tmp_path, generate_lines(9), file_faults=frozenset({FileFault.CUT_LAST_LINE}))
    assert plain.startswith(cut)
    assert plain[: len(cut)].count(b"\n") == 8
    crlf, _ = written(tmp_path, generate_lines(9), file_faults=frozenset({FileFault.CRLF}))
    assert crlf.replace(b"\r\n", b"\n") == plain


@pytest.mark.parametrize("faults", [frozenset(), frozenset(FileFault)])
def test_a_file_may_end_up_empty(tmp_path: Path, faults: frozenset[FileFault]) -> None:
    lines = generate_line("a", "[[sandbox:dropped]]") + b"\n"
    data, output = written(tmp_path, lines, file_faults=faults)
    assert data == b""
    assert output.size_bytes == 0


def test_inlined_answers_are_one_array_whatever_happens_to_single_rows(tmp_path: Path) -> None:
    request = {"contents": [{"parts": [{"text": "a"}]}]}
    unexpected = {"contents": [{"parts": [{"text": "[[sandbox:unexpected]]"}]}]}
    dropped = {"contents": [{"parts": [{"text": "[[sandbox:dropped]]"}]}]}
    rows = [{"request": dropped}, {"request": request, "metadata": {"key": "a"}}, {"request": unexpected}]
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    data, _ = written(tmp_path, lines, is_inline=True, file_faults=frozenset(FileFault))
    first, second, stranger = json.loads(data)
    assert first["metadata"] == {"key": "a"}
    assert "metadata" not in second
    assert stranger["metadata"]["key"].startswith("never-sent-")
    assert written(tmp_path, lines[: lines.index(b"\n") + 1], is_inline=True)[0] == b"[]"


def test_bare_requests_are_answered_without_a_key(tmp_path: Path) -> None:
    bare = json.dumps({"contents": [{"parts": [{"text": "a"}]}]}).encode()
    without_key = json.dumps({"request": {"contents": [{"parts": [{"text": "a"}]}]}}).encode()
    one, other = parse_lines(written(tmp_path, bare + b"\n" + without_key + b"\n")[0])
    assert one.keys() == other.keys() == {"response"}


def test_faults_of_embeddings_are_those_that_embeddings_can_have(tmp_path: Path) -> None:
    rows, target = tmp_path / "rows", tmp_path / "out"
    words = ("blocked", "empty", "null", "dropped", "duplicated")
    lines = [
        json.dumps({"key": word, "request": {"content": {"parts": [{"text": f"[[sandbox:{word}]]"}]}}})
        for word in words
    ]
    rows.write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_output(rows, target, OutputOrder("embed", "gemini-embedding-2", 5, is_inline=False), SandboxConfig())
    found = parse_lines(target.read_bytes())
    assert [row["key"] for row in found] == ["blocked", "empty", "null", "duplicated", "duplicated"]
    assert found[0]["error"]["code"] == 13
    assert found[1]["response"] == {"embedding": {}}
