"""One row for each kind of answer line: wire samples 55-57 and 85, and the enums of google-genai 3.4.0."""

from pathlib import Path
from typing import Any

import pytest
from google.genai import types

from gemini_batch_mcp.domain import RowStatus, Usage
from gemini_batch_mcp.intake.validator._messages import ONE_OF
from gemini_batch_mcp.results.outcomes import BLOCKED_REASONS, CONTENT_MEMBERS, TRUNCATED_REASONS, WHOLE_REASONS
from support.answers import all_rows, answer, exported, failure, line, only_row, rows_apart, table_of
from support.samples import SAMPLES


def parts(*parts: Any, **candidate: Any) -> bytes:
    return answer("a", candidates=[{"content": {"parts": list(parts)}, "finishReason": "STOP"} | candidate])


def test_every_line_of_sample_55_gets_its_status(tmp_path: Path) -> None:
    table = table_of(
        tmp_path, (SAMPLES / "55-output-generate.jsonl").read_bytes(), keys=[f"row-{n}" for n in range(1, 7)]
    )

    assert [(row.key, row.status) for row in all_rows(table)] == [
        ("row-1", RowStatus.OK),
        ("row-2", RowStatus.FAILED),
        ("row-3", RowStatus.BLOCKED),
        ("row-4", RowStatus.TRUNCATED),
        ("row-5", RowStatus.BLOCKED),
        ("row-6", RowStatus.MISSING),
    ]
    summary = table.summary()
    assert (summary.unexpected, summary.unexpected_keys) == (1, ("line 6 (no key)",))
    assert summary.usage == Usage(input_tokens=43, output_tokens=2, thoughts_tokens=557)
    assert summary.model_versions == {"gemini-3.8-flash": 3}


def test_embeddings_are_answers_and_their_token_count_is_input(tmp_path: Path) -> None:
    table = table_of(tmp_path, (SAMPLES / "56-output-embed.jsonl").read_bytes(), keys=["e1", "e2"])

    assert [row.status for row in all_rows(table)] == [RowStatus.OK, RowStatus.FAILED]
    assert table.summary().usage == Usage(input_tokens=4)
    assert exported(table, tmp_path)[0]["response"]["embedding"] == {"values": [0.0123, -0.0456, 0.0789]}


def test_an_image_stays_whole_in_the_export_and_out_of_the_page(tmp_path: Path) -> None:
    table = table_of(tmp_path, (SAMPLES / "57-output-image.jsonl").read_bytes(), keys=["img-1"])

    (row,) = all_rows(table)
    assert (row.status, row.text) == (RowStatus.OK, "Here is the kite.")
    (written,) = exported(table, tmp_path)
    image = written["response"]["candidates"][0]["content"]["parts"][1]["inlineData"]
    assert image == {"mimeType": "image/png", "data": "iVBORw0KGgo="}


def test_agent_platform_lines_are_read_by_their_status_text(tmp_path: Path) -> None:
    table = table_of(tmp_path, (SAMPLES / "85-vertex-output.jsonl").read_bytes(), keys=["row-1", "row-2"])

    first, second = all_rows(table)
    assert (first.status, first.text) == (RowStatus.OK, "maintenance")
    assert (second.status, second.error) == (RowStatus.FAILED, "code 3: Bad Request: example")


#: How the error of an answer begins that holds something else than answers do.
FORM = "its answer does not have Gemini's format: Expected `"


#: A line, its status, and its error.
LINES: list[tuple[bytes, str, str]] = [
    (failure("a"), "failed", "code 13: Internal error encountered."),
    (line("a", status={"code": 4, "message": "too late"}), "failed", "code 4: too late"),
    (line("a", error={"status": "UNAVAILABLE"}), "failed", "UNAVAILABLE"),
    (line("a", error={"code": "8", "message": 5}), "failed", "code 8: 5"),
    (line("a", error="broken"), "failed", "broken"),
    (line("a", error=7), "failed", "7"),
    (line("a", error={}), "failed", "an error without a code and a message"),
    (line("a", error={"code": 3}, response={"candidates": [{}]}), "failed", "code 3:"),
    (answer("a").replace(b'{"key"', b'{"error": {"message": "both"}, "key"'), "failed", "both"),
    (answer("a").replace(b'{"key"', b'{"status": {"code": 0}, "key"'), "ok", ""),
    (answer("a").replace(b'{"key"', b'{"status": "", "error": null, "key"'), "ok", ""),
    (line("a", response=None), "empty", ""),
    (line("a", response={}), "empty", ""),
    (line("a", response="text"), "failed", f"{FORM}object | null`, got `str` - at `$.response`"),
    (line("a", response=[1]), "failed", f"{FORM}object | null`, got `array` - at `$.response`"),
    (line("a"), "empty", ""),
    (answer("a", candidates=None), "empty", ""),
    (answer("a", candidates=[]), "empty", ""),
    (answer("a", candidates=[None]), "empty", ""),
    (
        answer("a", candidates={"content": 1}),
        "failed",
        f"{FORM}array | null`, got `object` - at `$.response.candidates`",
    ),
    (
        answer("a", candidates=[{"content": "text", "finishReason": "STOP"}]),
        "failed",
        f"{FORM}object | null`, got `str` - at `$.response.candidates[0].content`",
    ),
    (answer("a", ""), "empty", ""),
    (answer("a", candidates=[], promptFeedback={"blockReason": "OTHER"}), "blocked", "prompt blocked: OTHER"),
    (
        line("a", response={"promptFeedback": {"blockReason": "SAFETY", "blockReasonMessage": "no"}}),
        "blocked",
        "prompt blocked: SAFETY: no",
    ),
    (answer("a", promptFeedback={"blockReason": "SAFETY"}), "ok", ""),
    (
        answer("a", "", "SAFETY", promptFeedback={"blockReason": "OTHER"}),
        "blocked",
        "stopped: SAFETY",
    ),
    (answer("a", "half an ans", "MAX_TOKENS"), "truncated", ""),
    (answer("a", "", "MAX_TOKENS"), "truncated", ""),
    (answer("a", "half", "A_REASON_OF_NEXT_YEAR"), "failed", "stopped: A_REASON_OF_NEXT_YEAR"),
    (
        parts(finishReason="MALFORMED_FUNCTION_CALL", finishMessage="print("),
        "failed",
        "stopped: MALFORMED_FUNCTION_CALL: print(",
    ),
    (parts({"text": "no reason"}, finishReason=None), "ok", ""),
]


def test_a_line_gets_its_status_and_error(tmp_path: Path) -> None:
    rows = rows_apart(tmp_path, [content for content, _, _ in LINES])

    for row, (content, status, error) in zip(rows, LINES, strict=True):
        assert (row.status, row.error) == (status, error), content


def test_no_finish_reason_of_the_sdk_but_stop_leaves_a_partial_answer_ok(tmp_path: Path) -> None:
    reasons = [reason for reason in types.FinishReason if reason.name != "STOP"]
    rows = rows_apart(tmp_path, [answer("a", "some text", reason.value) for reason in reasons])

    for row, reason in zip(rows, reasons, strict=True):
        expected = "failed"
        if reason.value in BLOCKED_REASONS:
            expected = "blocked"
        elif reason.value in TRUNCATED_REASONS:
            expected = "truncated"
        elif reason.value in WHOLE_REASONS:
            expected = "ok"
        assert (row.status, row.finish_reason, row.text) == (expected, reason.value, "some text")
        assert (expected == "ok") == (reason.name == "FINISH_REASON_UNSPECIFIED")


def test_a_part_that_is_no_text_is_an_answer(tmp_path: Path) -> None:
    # Also what the requests of this version may hold: an answer's part is the same message.
    members = sorted({*CONTENT_MEMBERS, *ONE_OF["Part"]} - {"text"})
    rows = rows_apart(tmp_path, [parts({member: {"name": "x"}, "thoughtSignature": "c2ln"}) for member in members])

    for row, member in zip(rows, members, strict=True):
        assert (row.status, row.text) == (RowStatus.OK, ""), member


def test_thoughts_and_parts_without_content_are_no_answer(tmp_path: Path) -> None:
    found = [
        {"thoughtSignature": "c2ln"},
        {},
        None,
        {"text": "hm", "thought": True},
        {"inlineData": {}, "thought": True},
    ]
    rows = rows_apart(tmp_path, [parts(part) for part in found])

    for row, part in zip(rows, found, strict=True):
        assert row.status == RowStatus.EMPTY, part


def test_text_parts_are_joined_without_thoughts(tmp_path: Path) -> None:
    row = only_row(
        tmp_path, parts({"text": "hm", "thought": True}, {"text": "one "}, {"thought": False, "text": "two"})
    )

    assert (row.status, row.text) == (RowStatus.OK, "one two")


def test_of_several_candidates_the_first_one_is_shown_and_all_are_kept(tmp_path: Path) -> None:
    candidates = [{"content": {"parts": [{"text": text}]}, "finishReason": "STOP"} for text in ("first", "second")]
    table = table_of(tmp_path, answer("a", candidates=candidates), keys=["a"])

    assert [row.text for row in all_rows(table)] == ["first"]
    assert exported(table, tmp_path)[0]["response"]["candidates"] == candidates


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"promptTokenCount": "12", "candidatesTokenCount": 7.0, "thoughtsTokenCount": "x"}, Usage(12, 7, 0)),
        ({"promptTokenCount": -4, "candidatesTokenCount": "9" * 30, "thoughtsTokenCount": None}, Usage(unmetered=1)),
        ({"promptTokenCount": 10**15}, Usage(10**9, 0, 0)),
        (None, Usage(unmetered=1)),
        ("none", Usage(unmetered=1)),
    ],
)
def test_tokens_may_be_numbers_or_strings_or_nonsense(tmp_path: Path, usage: object, expected: Usage) -> None:
    assert table_of(tmp_path, answer("a", usageMetadata=usage), keys=["a"]).summary().usage == expected
