"""What markers in a request's text add to its answer: media, thoughts, its own key; and faults that are met once."""

import base64
import json
import wave
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.sandbox.config import RowFault, SandboxConfig
from gemini_batch_mcp.sandbox.lifecycle._outputs import OutputOrder, write_output
from gemini_batch_mcp.sandbox.replies._answers import GenerateAnswers
from gemini_batch_mcp.sandbox.replies._plans import usual_modalities
from support.services import MODEL, generate_line, parse_lines, texts

SCHEMA = {
    "type": "OBJECT",
    "properties": {"label": {"type": "STRING", "enum": ["a", "b"]}, "score": {"type": "NUMBER"}},
}


def rows_of(tmp_path: Path, data: bytes, *, model: str = MODEL, inline: bool = False, **config: Any) -> Any:
    """Return the parsed output of a job with these rows."""
    rows, target = tmp_path / "rows.jsonl", tmp_path / "out"
    rows.write_bytes(data)
    order = OutputOrder("generate", model, data.count(b"\n"), is_inline=inline)
    write_output(rows, target, order, SandboxConfig(**config))
    return json.loads(target.read_bytes()) if inline else parse_lines(target.read_bytes())


def response(tmp_path: Path, text: str, *, model: str = MODEL, **members: Any) -> dict[str, Any]:
    """Return the response to one row."""
    (row,) = rows_of(tmp_path, generate_line("row-1", text, **members) + b"\n", model=model)
    return dict(row["response"])


def parts(tmp_path: Path, text: str, *, model: str = MODEL, **members: Any) -> list[dict[str, Any]]:
    return list(response(tmp_path, text, model=model, **members)["candidates"][0]["content"]["parts"])


def test_a_marker_brings_a_picture_and_its_usage(tmp_path: Path) -> None:
    answer = response(tmp_path, "draw [[sandbox:image]]")
    text, image = answer["candidates"][0]["content"]["parts"]
    assert text["text"].startswith("[sandbox]")
    assert image["inlineData"]["mimeType"] == "image/png"
    assert base64.b64decode(image["inlineData"]["data"], validate=True).startswith(b"\x89PNG")
    usage = answer["usageMetadata"]
    assert usage["candidatesTokensDetails"] == [{"modality": "IMAGE", "tokenCount": 1290}]
    assert usage["candidatesTokenCount"] > 1290


def test_a_marker_brings_a_wav_file_that_plays(tmp_path: Path) -> None:
    (sound,) = parts(tmp_path, "say [[sandbox:audio]]")
    assert sound["inlineData"]["mimeType"] == "audio/wav"
    with wave.open(BytesIO(base64.b64decode(sound["inlineData"]["data"]))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth(), file.getnframes()) == (24_000, 1, 2, 240)


@pytest.mark.parametrize(
    ("model", "kinds"),
    [
        ("gemini-3.1-flash-image", ["text", "inlineData"]),
        ("nano-banana-2.1", ["text", "inlineData"]),
        ("gemini-3.8-flash-tts", ["inlineData"]),
        (MODEL, ["text"]),
    ],
)
def test_models_of_pictures_and_speech_answer_with_them_unasked(tmp_path: Path, model: str, kinds: list[str]) -> None:
    assert [next(iter(part)) for part in parts(tmp_path, "a", model=model)] == kinds
    only_text = parts(tmp_path, "a", model=model, generationConfig={"responseModalities": ["TEXT"]})
    assert [next(iter(part)) for part in only_text] == ["text"]


def test_a_name_that_only_holds_the_letters_is_no_image_model() -> None:
    assert usual_modalities("gemini-imagery-tts2") == ()


def test_a_marker_brings_thoughts_even_when_thinking_is_off(tmp_path: Path) -> None:
    answer = response(
        tmp_path, "think [[sandbox:thoughts]]", generationConfig={"thinkingConfig": {"thinkingBudget": 0}}
    )
    thought, text = answer["candidates"][0]["content"]["parts"]
    assert thought["thought"] is True
    assert base64.b64decode(text["thoughtSignature"], validate=True)
    assert "thought" not in text
    assert answer["usageMetadata"]["thoughtsTokenCount"] > 0


def test_several_markers_work_together_and_a_hyphen_is_as_good_as_a_line(tmp_path: Path) -> None:
    found = parts(tmp_path, "[[sandbox:image]] [[sandbox:thoughts]] [[sandbox:echo-key]]")
    assert [next(iter(part)) for part in found] == ["text", "text", "inlineData"]
    assert found[1]["text"].endswith('key="row-1"')


@pytest.mark.parametrize("text", ["plain", "long [[sandbox:chars:5000]]", "x" * 4000])
def test_answers_can_end_with_their_own_key(tmp_path: Path, text: str) -> None:
    odd_key = 'row "7" \u2028 é'
    data = generate_line("row-1", text) + b"\n" + generate_line(odd_key, f"{text} [[sandbox:echo_key]]") + b"\n"
    by_config = texts(rows_of(tmp_path, data, echoes_keys=True))
    assert by_config["row-1"].endswith('key="row-1"')
    by_marker = texts(rows_of(tmp_path, data))
    assert not by_marker["row-1"].endswith('key="row-1"')
    for answers in (by_config, by_marker):
        assert json.loads(answers[odd_key].rpartition("key=")[2]) == odd_key


def test_inlined_and_keyless_answers_end_with_what_key_they_have(tmp_path: Path) -> None:
    request = {"contents": [{"parts": [{"text": "a"}]}]}
    rows = [{"request": request, "metadata": {"key": "a"}}, {"request": request, "metadata": {}}, {"request": request}]
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    keyed, *others = rows_of(tmp_path, data, inline=True, echoes_keys=True)
    assert keyed["response"]["candidates"][0]["content"]["parts"][0]["text"].endswith('key="a"')
    for other in others:
        assert "key=" not in other["response"]["candidates"][0]["content"]["parts"][0]["text"]


def test_json_without_a_schema_holds_the_key_and_stays_json(tmp_path: Path) -> None:
    config = {"responseMimeType": "application/json"}
    (part,) = parts(tmp_path, "[[sandbox:echo_key]] [[sandbox:chars:300]]", generationConfig=config)
    assert json.loads(part["text"])["sandbox"].endswith('key="row-1"')


def test_a_structured_answer_can_miss_its_schema(tmp_path: Path) -> None:
    def value(schema: dict[str, Any]) -> Any:
        config = {"responseMimeType": "application/json", "responseSchema": schema}
        (part,) = parts(tmp_path, "[[sandbox:misfit]]", generationConfig=config)
        return json.loads(part["text"])

    whole = value(SCHEMA)
    assert whole["label"] not in ("a", "b")
    assert isinstance(whole["score"], float)
    assert isinstance(value({"type": "ARRAY", "items": {"type": "STRING"}}), dict)
    assert isinstance(value({"type": "STRING"}), list)
    assert isinstance(value({"type": "OBJECT"}), list)
    lists = value({"type": "OBJECT", "properties": {"tags": {"type": "ARRAY", "items": {"type": "STRING"}}}})
    assert isinstance(lists["tags"], dict)


def test_a_bare_label_can_be_one_that_was_not_on_offer(tmp_path: Path) -> None:
    config = {"responseMimeType": "text/x.enum", "responseSchema": {"type": "STRING", "enum": ["yes", "no"]}}
    (part,) = parts(tmp_path, "[[sandbox:misfit]]", generationConfig=config)
    assert part["text"] not in ("yes", "no")


def test_json_can_end_in_the_middle_although_the_model_stopped(tmp_path: Path) -> None:
    config = {"responseMimeType": "application/json", "responseSchema": SCHEMA}
    answer = response(tmp_path, "[[sandbox:cut_json]]", generationConfig=config)
    assert answer["candidates"][0]["finishReason"] == "STOP"
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer["candidates"][0]["content"]["parts"][0]["text"])


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("recitation", "RECITATION"),
        ("prohibited", "PROHIBITED_CONTENT"),
        ("malformed_call", "MALFORMED_FUNCTION_CALL"),
        ("safety", "SAFETY"),
    ],
)
def test_candidates_can_lack_their_content_for_every_known_reason(tmp_path: Path, word: str, reason: str) -> None:
    (candidate,) = response(tmp_path, f"[[sandbox:{word}]]")["candidates"]
    assert candidate["finishReason"] == reason
    assert "content" not in candidate


def test_the_key_can_come_before_the_answer(tmp_path: Path) -> None:
    data = generate_line("a", "[[sandbox:key_first]]") + b"\n" + generate_line("b") + b"\n"
    data += generate_line("c", "[[sandbox:key_first]] [[sandbox:error]]") + b"\n"
    data += b'{"request":{"contents":[{"parts":[{"text":"[[sandbox:key_first]]"}]}]}}\n'
    assert [next(iter(row)) for row in rows_of(tmp_path, data)] == ["key", "response", "key", "response"]


def test_cached_content_and_search_are_counted(tmp_path: Path) -> None:
    usage = response(tmp_path, "a", cachedContent="cachedContents/x")["usageMetadata"]
    assert 0 < usage["cachedContentTokenCount"] < usage["promptTokenCount"]
    searched = response(tmp_path, "a", tools=[{"googleSearch": {}}])["usageMetadata"]
    assert searched["toolUsePromptTokenCount"] > 0
    for counts in (usage, searched):
        names = ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "toolUsePromptTokenCount")
        assert counts["totalTokenCount"] == sum(counts.get(name, 0) for name in names)


def test_a_fault_can_be_met_once_and_never_again(tmp_path: Path) -> None:
    lines = [
        generate_line("once", "[[sandbox:error:14]] [[sandbox:once]]"),
        generate_line("other", "[[sandbox:once]] [[sandbox:dropped]]"),
        generate_line("always", "[[sandbox:error:14]]"),
        generate_line("never", "[[sandbox:once]]"),
    ]
    data = b"\n".join(lines) + b"\n"
    first = {row["key"]: row for row in rows_of(tmp_path, data)}
    assert first["once"]["error"]["code"] == 14
    assert "other" not in first
    for _ in range(2):
        again = {row["key"]: row for row in rows_of(tmp_path, data)}
        assert "error" in again["always"]
        assert all("response" in again[key] for key in ("once", "other", "never"))


def test_a_row_with_the_same_text_under_another_key_meets_the_fault_itself(tmp_path: Path) -> None:
    text = "[[sandbox:error]] [[sandbox:once]]"
    assert "error" in rows_of(tmp_path, generate_line("a", text) + b"\n")[0]
    assert "error" in rows_of(tmp_path, generate_line("b", text) + b"\n")[0]


def test_a_row_is_known_again_when_it_comes_another_way(tmp_path: Path) -> None:
    request = {"contents": [{"parts": [{"text": "[[sandbox:error]] [[sandbox:once]]"}]}]}
    inlined = {"request": {"model": f"models/{MODEL}", **request}, "metadata": {"key": "a"}}
    (row,) = rows_of(tmp_path, json.dumps(inlined).encode() + b"\n", inline=True)
    assert "error" in row
    (row,) = rows_of(tmp_path, json.dumps({"key": "a", "request": request}).encode() + b"\n")
    assert "response" in row


def test_a_chosen_fault_can_be_a_misfit(tmp_path: Path) -> None:
    config = {"responseMimeType": "application/json", "responseSchema": SCHEMA}
    data = generate_line("a", generationConfig=config) + b"\n"
    (row,) = rows_of(tmp_path, data, row_faults={RowFault.MISFIT: 1.0})
    assert json.loads(row["response"]["candidates"][0]["content"]["parts"][0]["text"])["label"] not in ("a", "b")


def test_a_called_function_carries_the_signature_of_its_thoughts() -> None:
    request = {
        "contents": [{"parts": [{"text": "a"}]}],
        "tools": [{"functionDeclarations": [{"name": "weather"}]}],
        "generationConfig": {"thinkingConfig": {"includeThoughts": True}},
    }
    answer = json.loads(GenerateAnswers(MODEL).response(json.dumps(request).encode()))
    thought, call = answer["candidates"][0]["content"]["parts"]
    assert thought["thought"]
    assert call["functionCall"] == {"name": "weather", "args": {}}
    assert call["thoughtSignature"]
