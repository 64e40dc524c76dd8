"""Rows whose answers cannot be taken: each is a failed row that says why, and costs no other row anything."""

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from gemini_batch_mcp.domain import ResultRow
from gemini_batch_mcp.errors import StorageError
from gemini_batch_mcp.results.engine import table_errors
from gemini_batch_mcp.results.store import ResultTable
from gemini_batch_mcp.results.table.lines import lines_of, long_lines_of
from results.mutations import SCHEMA, structured
from support.answers import all_rows, answer, exported, line, planned
from support.extent import IS_FULL, few, in_part, long

GOOD = [f"g{number}" for number in range(6)]
HEAD, TAIL = b'{"key":"odd","response":{"candidates":[{"content":{"parts":[', b']},"finishReason":"STOP"}]}}\n'


def carrying(mime_type: Any, data: Any = "AAAA", times: int = 1) -> bytes:
    part = {"inlineData": {"mimeType": mime_type, "data": data}}
    return answer("odd", candidates=[{"content": {"parts": [part] * times}, "finishReason": "STOP"}])


def among_good(directory: Path, content: bytes, schema: dict[str, Any] | None = None) -> tuple[ResultTable, ResultRow]:
    """Build the table of a line among good ones, which must be right; returns the row of "odd"."""
    lines = [answer(key, structured(number)) for number, key in enumerate(GOOD)]
    table = planned(
        directory,
        [*lines[:3], content, *lines[3:]],
        keys=[*GOOD[:3], "odd", *GOOD[3:]],
        response_schema=schema or {},
        media=directory / "media",
    )
    rows = {row.key: row for row in all_rows(table)}
    assert [rows[key].status for key in GOOD] == ["ok"] * len(GOOD)
    written = {row["key"]: row for row in exported(table, directory)}
    assert [written[key]["text"] for key in GOOD] == [structured(number) for number in range(len(GOOD))]
    return table, rows["odd"]


FAILED: list[tuple[str, Callable[[], bytes], str]] = [
    ("half a surrogate", lambda: answer("odd", '{"name": "\\ud800"}'), "the answer's JSON cannot be read"),
    ("half in a name", lambda: answer("odd", '{"name": "a", "\\ud800": 1}'), "the answer's JSON cannot be read"),
    ("many misfits", lambda: answer("odd", json.dumps({"name": "a", "tags": [[]] * 5000})), "is a list, not text"),
    ("much JSON", lambda: answer("odd", json.dumps({"name": "a" * 2_100_000})), "up to 2,097,152 are checked"),
    ("huge step", lambda: answer("odd", '{"name": "a", "more": {"step": 1%s}}' % ("0" * 400)), "cannot be judged"),
]


@few(3)
@pytest.mark.parametrize(("content", "reason"), [row[1:] for row in FAILED], ids=[row[0] for row in FAILED])
def test_a_structured_answer_that_cannot_be_read_fails_alone(
    tmp_path: Path, content: Callable[[], bytes], reason: str
) -> None:
    _, row = among_good(tmp_path, content(), SCHEMA)
    assert row.status == "failed"
    assert reason in row.error


LINES: list[tuple[str, Callable[[], bytes], str]] = [
    ("no rate", lambda: carrying("audio/L16;rate=0000"), "audio in the answer (3 bytes, 0 samples a second)"),
    ("many files", lambda: carrying("image/png", times=1001), "carries 1,001 files; the first 1,000 are written"),
    ("object for list", lambda: line("odd", response={"candidates": {}}), "got `object` - at `$.response.candidates`"),
    ("text for object", lambda: line("odd", response="fine"), "got `str` - at `$.response`"),
    ("parts in no list", lambda: line("odd", response={"candidates": [{"content": {"parts": 5}}]}), "got `int`"),
    ("error of nothing", lambda: line("odd", error={"code": 10**400, "message": ""}), "without a code and a message"),
    ("a million parts", lambda: HEAD + b"{}," * 1_200_000 + b"{}" + TAIL, "the table engine cannot"),
]


@few(4)
@pytest.mark.parametrize(("content", "reason"), [row[1:] for row in LINES], ids=[row[0] for row in LINES])
def test_an_answer_that_cannot_be_taken_fails_alone_and_its_line_stays(
    tmp_path: Path, content: Callable[[], bytes], reason: str
) -> None:
    raw = content()
    table, row = among_good(tmp_path, raw)
    assert row.status == "failed"
    assert reason in row.error
    assert raw in (tmp_path / "answers-1.jsonl").read_bytes()
    assert table.summary().failed == 1


@in_part
@long
def test_several_rows_that_the_engine_cannot_take_are_found_wherever_they_stand(tmp_path: Path) -> None:
    """Before a line that begins with a byte order mark no file can be cut: a reader would take the mark for its own."""
    bad = (HEAD + b"{}," * 1_200_000 + b"{}" + TAIL).replace(b'"odd"', b'"bad-%d"')
    keys = [f"k{number}" for number in range(9)]
    lines = [b"\xef\xbb\xbf" * (number % 3 == 0) + answer(key, f"text {key}") for number, key in enumerate(keys)]
    places = (0, 5, 11) if IS_FULL else (5,)
    for place in places:
        lines.insert(place, bad % place)

    wrong = [f"bad-{place}" for place in places]
    rows = {row.key: row for row in all_rows(planned(tmp_path, [b"\n", *lines], keys=[*keys, *wrong]))}
    assert [rows[key].text for key in keys] == [f"text {key}" for key in keys]
    assert [rows[key].status for key in wrong] == ["failed"] * len(wrong)


def test_an_answer_of_many_parts_is_read(tmp_path: Path) -> None:
    parts = [{"text": f"{number} "} for number in range(20_000)]
    table, row = among_good(tmp_path, answer("odd", candidates=[{"content": {"parts": parts}, "finishReason": "STOP"}]))
    assert row.status == "ok"
    (written,) = (entry for entry in exported(table, tmp_path) if entry["key"] == "odd")
    assert written["text"] == "".join(part["text"] for part in parts)


def test_an_answer_with_line_ends_in_its_json_is_one_line_of_a_file(tmp_path: Path) -> None:
    table, row = among_good(
        tmp_path, answer("odd", json.dumps({"name": "a\nb"}, indent=4).replace("\n", "\r\n")), SCHEMA
    )
    assert row.status == "ok"
    (written,) = (entry for entry in exported(table, tmp_path) if entry["key"] == "odd")
    assert written["json"] == {"name": "a\nb"}


def test_what_a_row_holds_is_never_told_as_a_fault_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as raised, table_errors("The answers could not be read", tmp_path):
        duckdb.connect().execute("""SELECT json_extract('{"a": "\\ud800"}', '/a')""")
    assert str(raised.value) == (
        "The answers could not be read: the table engine failed (InvalidInputException). "
        "The answers are kept as they came. Please report this as a bug in gemini-batch-mcp."
    )


def test_long_lines_are_found_without_a_look_at_the_others() -> None:
    over_bytes, chance = 1 << 20, random.Random(5)
    for _ in range(6):
        sizes = [chance.choice((0, 1, 700_000, over_bytes - 1, over_bytes, over_bytes + 1, 3 << 20)) for _ in range(9)]
        content = b"".join(chance.choice((b"x", b" ", b"\xef\xbb\xbf")) * size + b"\n" for size in sizes)
        content = content[: -chance.randrange(2) or None]
        long = [text for _, text in lines_of(io.BytesIO(content)) if len(text) > over_bytes]
        assert list(long_lines_of(io.BytesIO(content), over_bytes)) == long
