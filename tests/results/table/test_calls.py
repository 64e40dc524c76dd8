"""Answers that are no text: what they hold stands in the table, on the page and in the files."""

import csv
import json
from pathlib import Path
from typing import Any

import msgspec

from support.answers import all_rows, answer, cells, exported, planned

CALL = {"functionCall": {"name": "f", "args": {"a": 1}}}
CODE = {"executableCode": {"language": "PYTHON", "code": "print(2)"}}
OUTPUT = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "2\n"}}
FILE = {"fileData": {"fileUri": "https://example.com/a", "mimeType": "image/png"}}


def candidate(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"parts": list(parts), "role": "model"}, "finishReason": "STOP"}


def test_what_is_no_text_is_in_the_table_on_the_page_and_in_the_files(tmp_path: Path) -> None:
    wanted: dict[str, tuple[list[dict[str, Any]], str, list[dict[str, Any]] | None]] = {
        "call": ([candidate(CALL)], "", [CALL]),
        "both": ([candidate({"text": "I ask."}, CALL, CALL)], "I ask.", [CALL, CALL]),
        "code": ([candidate(CODE, OUTPUT, {"text": "It is 2."})], "It is 2.", [CODE, OUTPUT]),
        "file": ([candidate(FILE)], "", [FILE]),
        "two": ([candidate({"text": "first"}), candidate({"text": "second"})], "first", [{"candidate": "second"}]),
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
    assert table.summary().calls == 5


def test_a_number_that_json_does_not_know_is_none_in_a_saved_line(tmp_path: Path) -> None:
    """The engine reads NaN and Infinity as JSON; not every reader of a saved file does."""
    odd = {"functionCall": {"name": "f", "args": {"a": float("inf"), "b": float("nan"), "c": 12345678901234567890}}}
    table = planned(tmp_path, [answer("odd", candidates=[candidate(odd)]), answer("good")], keys=["odd", "good"])

    lines = table.export(tmp_path / "out.jsonl", "jsonl").path.read_bytes().splitlines()
    saved = [msgspec.json.decode(line) for line in lines]
    args = {"a": None, "b": None, "c": 12345678901234567890}
    assert saved[0]["calls"] == [{"functionCall": {"name": "f", "args": args}}]
    assert [line["key"] for line in saved] == ["odd", "good"]
