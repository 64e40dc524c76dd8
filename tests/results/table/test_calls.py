"""Answers that are no text: what they hold stands in the table, on the page and in the files."""

import csv
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.results.engine import connect
from gemini_batch_mcp.results.store import ResultTable
from gemini_batch_mcp.results.table.layout import SELDOM
from support.answers import all_rows, answer, ask, cells, exported, planned
from support.loading import READER

CALL = {"functionCall": {"name": "f", "args": {"a": 1}}}
CODE = {"executableCode": {"language": "PYTHON", "code": "print(2)"}}
OUTPUT = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "2\n"}}
FILE = {"fileData": {"fileUri": "https://example.com/a", "mimeType": "image/png"}}
REPLY = {"functionResponse": {"name": "f", "response": {"a": None}}}
TOOL = {"toolCall": {"toolType": "GOOGLE_SEARCH_WEB", "id": "1"}}
HEARD = {"audioTranscription": {"text": "words"}}
SEARCHED = {
    "groundingChunks": [
        {"web": {"uri": "https://example.com/a", "title": "A page"}},
        {"maps": {"uri": "https://example.com/map", "title": "A place"}},
        {"retrievedContext": {"title": "notes.pdf", "text": "whole pages"}},
        {"image": {"sourceUri": "https://example.com/i"}},
        {"web": {}},
    ],
    "webSearchQueries": ["what is a"],
}
READ = {
    "urlMetadata": [
        {"retrievedUrl": "https://example.com/read", "urlRetrievalStatus": "URL_RETRIEVAL_STATUS_SUCCESS"},
        {"retrievedUrl": "https://example.com/paid", "urlRetrievalStatus": "URL_RETRIEVAL_STATUS_PAYWALL"},
    ]
}
QUOTED = [{"startIndex": 3, "uri": "https://example.com/q", "title": "Q", "license": "MIT"}, {"title": "A book"}]
GROUNDING = """A page (https://example.com/a)
A place (https://example.com/map)
notes.pdf
https://example.com/i
https://example.com/read
https://example.com/paid (URL_RETRIEVAL_STATUS_PAYWALL)
searched: what is a"""
CITATIONS = "Q (https://example.com/q), license MIT\nA book"


def rating(category: str, probability: str, **more: Any) -> dict[str, Any]:
    return {"category": f"HARM_CATEGORY_{category}", "probability": probability, **more}


def candidate(*parts: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"content": {"parts": list(parts), "role": "model"}, "finishReason": "STOP", **members}


def test_what_is_no_text_is_in_the_table_on_the_page_and_in_the_files(tmp_path: Path) -> None:
    wanted: dict[str, tuple[list[dict[str, Any]], str, list[dict[str, Any]] | None]] = {
        "call": ([candidate(CALL)], "", [CALL]),
        "both": ([candidate({"text": "I ask."}, CALL, CALL)], "I ask.", [CALL, CALL]),
        "code": ([candidate(CODE, OUTPUT, {"text": "It is 2."})], "It is 2.", [CODE, OUTPUT]),
        "file": ([candidate(FILE)], "", [FILE]),
        "reply": ([candidate(REPLY)], "", [REPLY]),
        "tool": ([candidate(TOOL, HEARD)], "", [TOOL, HEARD]),
        "two": ([candidate({"text": "first"}), candidate({"text": "second"})], "first", [{"candidate": "second"}]),
        "more": (
            [candidate({"text": "first"}), candidate(CALL), {"finishReason": "SAFETY"}],
            "first",
            [{"candidate": "", "calls": [CALL]}, {"candidate": "", "finishReason": "SAFETY"}],
        ),
        "text": ([candidate({"text": "plain"})], "plain", None),
        "thought": ([candidate({"text": "hm", "thought": True}, {"text": "so"})], "so", None),
    }
    lines = [answer(key, candidates=given) for key, (given, _, _) in wanted.items()]
    table = planned(tmp_path, lines, keys=list(wanted))

    stored = cells(table, "SELECT status, text, calls FROM results ORDER BY row")
    page, saved = all_rows(table), exported(table, tmp_path)
    with table.export(tmp_path / "out.csv", "csv").path.open(encoding="utf-8-sig", newline="") as file:
        people = list(csv.DictReader(file))
    rows = zip(stored, page, saved, people, wanted.values(), strict=True)
    for (status, text, calls), shown, line, person, (_, wanted_text, wanted_calls) in rows:
        assert (status, text, calls and json.loads(calls)) == ("ok", wanted_text, wanted_calls)
        assert (json.loads(shown.calls) if shown.calls else None) == wanted_calls
        assert line["calls"] == wanted_calls
        assert (json.loads(person["calls"]) if person["calls"] else None) == wanted_calls
    assert table.summary().calls == 8


def test_a_number_that_json_does_not_know_is_none_in_a_saved_line(tmp_path: Path) -> None:
    """The engine reads NaN and Infinity as JSON; not every reader of a saved file does."""
    odd = {"functionCall": {"name": "f", "args": {"a": float("inf"), "b": float("nan"), "c": 12345678901234567890}}}
    table = planned(tmp_path, [answer("odd", candidates=[candidate(odd)]), answer("good")], keys=["odd", "good"])

    lines = table.export(tmp_path / "out.jsonl", "jsonl").path.read_bytes().splitlines()
    saved = [msgspec.json.decode(line) for line in lines]
    args = {"a": None, "b": None, "c": 12345678901234567890}
    assert saved[0]["calls"] == [{"functionCall": {"name": "f", "args": args}}]
    assert [line["key"] for line in saved] == ["odd", "good"]


def test_sources_citations_and_ratings_stand_beside_the_text_wherever_it_is_read(tmp_path: Path) -> None:
    text, rated = {"text": "so"}, [rating("HARASSMENT", "NEGLIGIBLE"), rating("HATE_SPEECH", "HIGH", blocked=True)]
    wanted: dict[str, tuple[dict[str, Any], tuple[str | None, str | None, str | None], str]] = {
        "plain": ({"candidates": [candidate(text)]}, (None, None, None), ""),
        "found": (
            {"candidates": [candidate(text, groundingMetadata=SEARCHED, urlContextMetadata=READ)]},
            (GROUNDING, None, None),
            f"grounding: {GROUNDING}",
        ),
        "quoted": (
            {"candidates": [candidate(text, citationMetadata={"citationSources": QUOTED})]},
            (None, CITATIONS, None),
            f"citations: {CITATIONS}",
        ),
        "by the library": (
            {"candidates": [candidate(text, citationMetadata={"citations": QUOTED})]},
            (None, CITATIONS, None),
            f"citations: {CITATIONS}",
        ),
        "rated": (
            {"candidates": [candidate(text, safetyRatings=rated)]},
            (None, None, "HARASSMENT NEGLIGIBLE, HATE_SPEECH HIGH blocked"),
            "safety_ratings: HATE_SPEECH HIGH blocked",
        ),
        "prompt": (
            {"candidates": None, "promptFeedback": {"blockReason": "SAFETY", "safetyRatings": rated[1:]}},
            (None, None, "HATE_SPEECH HIGH blocked"),
            "safety_ratings: HATE_SPEECH HIGH blocked",
        ),
        "odd": (
            {"candidates": [candidate(text, groundingMetadata="x", citationMetadata=[1], safetyRatings={"a": [1]})]},
            (None, None, None),
            "",
        ),
        "odder": (
            {"candidates": [candidate(text, groundingMetadata={"groundingChunks": [None, 1, "x", {"web": 5}]})]},
            (None, None, None),
            "",
        ),
    }
    table = planned(tmp_path, [answer(key, **given) for key, (given, _, _) in wanted.items()], keys=list(wanted))

    stored = cells(table, "SELECT grounding, citations, safety_ratings FROM results ORDER BY row")
    assert stored == [cells for _, cells, _ in wanted.values()]
    assert [row.notes for row in all_rows(table)] == [notes for _, _, notes in wanted.values()]
    names = ("grounding", "citations", "safety_ratings")
    assert [tuple(line[name] for name in names) for line in exported(table, tmp_path)] == stored
    with table.export(tmp_path / "out.csv", "csv").path.open(encoding="utf-8-sig", newline="") as file:
        people = [tuple(row[name] or None for name in names) for row in csv.DictReader(file)]
    assert people == stored


def test_columns_that_no_answer_fills_are_nowhere(tmp_path: Path) -> None:
    """And where every answer is rated as harmless, which some models do, ratings make no column for people."""
    harmless = [rating("HARASSMENT", "NEGLIGIBLE")]
    rated = planned(tmp_path, answer("a", candidates=[candidate({"text": "so"}, safetyRatings=harmless)]), keys=["a"])
    assert [column.name for column in rated.columns if column.name in SELDOM] == ["safety_ratings"]
    assert cells(rated, "SELECT safety_ratings FROM results") == [("HARASSMENT NEGLIGIBLE",)]
    assert rated.export(tmp_path / "out.csv", "csv").path.read_text("utf-8").startswith("key,text,status,error")
    with pytest.raises(UsageError, match="There is no column grounding"):
        ask(rated.folder, "SELECT grounding FROM results")
    assert "grounding" not in ask(rated.folder, "FROM results").columns


def test_a_table_of_the_version_before_is_read_without_these_columns(tmp_path: Path) -> None:
    """As that version wrote it: in its parts and in its facts the columns are missing."""
    table = planned(tmp_path, answer("a"), keys=["a"])
    (part,) = table.folder.glob("*.parquet")
    with connect(128 << 20, tmp_path) as connection:
        kept = f"SELECT * EXCLUDE ({', '.join(SELDOM)}) FROM read_parquet('{part}')"
        connection.execute(f"COPY ({kept}) TO '{tmp_path / 'older.parquet'}' (FORMAT parquet)")
    (tmp_path / "older.parquet").replace(part)
    for other in table.folder.iterdir():
        if other != part:
            other.unlink()
    facts = json.loads(table.path.read_bytes()) | {"version": 8, "parts": [part.stat().st_size]}
    table.path.write_bytes(json.dumps(facts).encode())
    older = ResultTable.open(table.path, READER)

    assert [row.text for row in all_rows(older)] == ["fine"] == [line["text"] for line in exported(older, tmp_path)]
    assert cells(older, "SELECT text, calls FROM results") == [("fine", None)]
