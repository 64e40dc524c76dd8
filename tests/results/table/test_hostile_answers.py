"""Answer files as nobody should send them: any bytes make a table, and every key keeps exactly one row."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gemini_batch_mcp.results.store import AnswerFile, ResultTable, build_table
from gemini_batch_mcp.results.table.lines import answer_lines, mended, raw_response
from support.answers import (
    all_rows,
    answer,
    answer_file,
    exported,
    failure,
    keys_file,
    line,
    only_row,
    status_sum,
    table_of,
)
from support.extent import few, in_part, long, tries
from support.samples import SAMPLES

SAMPLE_LINES = [
    content
    for name in ("55-output-generate", "56-output-embed", "57-output-image")
    for content in (SAMPLES / f"{name}.jsonl").read_bytes().split(b"\n")
    if content
]
KEYS = [*(f"row-{number}" for number in range(1, 7)), "e1", "e2", "img-1", "never-answered"]
STRAY = [
    *(b"null", b"true", b"-1", b"1e400", b"NaN", b"[]", b"{}", b'""', b'"\\ud800"', b'"\\ud83d\\ude00"', b"[null]"),
    *(b"\xff", b"\x00", b"\r", b"\n", b"\n\n", b"\t", b"\x0b", b" ", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xc2\x85"),
    *(b"\\", b'"', b"[" * 50, b"]", b"{", b"}", b",", b":", b"9" * 400, b'"thought":true,', b'"key":"row-1",', b"//"),
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A sample line with pieces replaced, cut out or pushed in."""
    content = draw(st.sampled_from(SAMPLE_LINES))
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(content)))
        if draw(st.booleans()) and (values := list(re.finditer(rb'(?<=:)("[^"]*"|\d+|\{|\[)', content))):
            start, end = draw(st.sampled_from(values)).span()
        else:
            end = min(start + draw(st.integers(0, 20)), len(content))
        content = content[:start] + draw(st.sampled_from(STRAY) | st.binary(max_size=3)) + content[end:]
    return content


files = st.builds(
    lambda start, lines, separator, end: start + separator.join(lines) + end,
    st.sampled_from([b"", b"", b"\xef\xbb\xbf"]),
    st.lists(damaged() | st.binary(max_size=30), max_size=12),
    st.sampled_from([b"\n", b"\r\n"]),
    st.sampled_from([b"", b"\n"]),
)


@in_part
@settings(max_examples=tries(50, 10), suppress_health_check=[HealthCheck.too_slow])
@given(files, st.sampled_from([None, KEYS]), st.sampled_from([0, 4, 50]))
@long
def test_any_bytes_make_a_table_with_one_row_for_each_key(
    content: bytes, keys: list[str] | None, expected_rows: int
) -> None:
    with TemporaryDirectory() as name:
        directory = Path(name)
        table = table_of(directory, content, keys=keys, expected_rows=expected_rows)

        summary, rows = table.summary(), all_rows(table, limit=7)
        assert status_sum(summary) == summary.expected
        assert summary.returned == summary.expected - summary.missing
        assert table.page(view="failures", limit=1000).rows == tuple(row for row in rows if row.status != "ok")
        if keys is not None:
            assert [row.key for row in rows] == keys
        written = exported(table, directory)
        assert [row["status"] for row in written] == [row.status for row in rows]
        assert not re.search(r"[\ud800-\udfff]", repr(rows) + repr(summary) + repr(written))


@in_part
@settings(max_examples=tries(25, 6), suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.sampled_from(["a", "b", "c", "d", "x"]), max_size=12),
    st.lists(st.booleans(), min_size=12, max_size=12),
    st.lists(st.integers(1, 3), min_size=12, max_size=12),
)
def test_rows_are_those_of_a_plain_reading(keys: list[str], good: list[bool], attempts: list[int]) -> None:
    """Merge by an independent rule: walk attempts from the last, take the first good line, else the first one."""
    sent = ["d", "c", "b", "a"]
    lines = [
        (attempt, key, f"{key}{place}", is_good)
        for place, (key, is_good, attempt) in enumerate(zip(keys, good, attempts, strict=False))
    ]
    with TemporaryDirectory() as name:
        directory = Path(name)
        keys_path = keys_file(directory, sent)
        answers = []
        for attempt in (1, 2, 3):
            content = [
                answer(key, text) if is_good else failure(key, text)
                for number, key, text, is_good in lines
                if number == attempt
            ]
            answers.append(AnswerFile(answer_file(directory, content, name=f"{attempt}.jsonl"), keys_path, attempt))
        summary = build_table(answers, directory / "results.json")
        rows = {row.key: row.text or row.error for row in all_rows(ResultTable.open(directory / "results.json"))}

    expected: dict[str, str] = {}
    for key in sent:
        found = sorted((entry for entry in lines if entry[1] == key), key=lambda entry: -entry[0])
        best = next((entry for entry in found if entry[3]), found[0] if found else None)
        expected[key] = "" if best is None else best[2] if best[3] else f"code 13: {best[2]}"
    assert rows == expected
    assert summary.missing == sum(not text for text in expected.values())
    assert summary.unexpected == keys.count("x")
    assert summary.duplicate == sum(1 for entry in lines if entry[1] != "x") - len(
        {(attempt, key) for attempt, key, *_ in lines if key != "x"}
    )


@few(6)
@pytest.mark.parametrize(
    ("content", "key", "text"),
    [
        (
            answer("a", "SEPARATED").replace(b"SEPARATED", "x\u2028y\u2029z\u0085".encode()),
            "a",
            "x\u2028y\u2029z\u0085",
        ),
        (answer("a", "crlf").replace(b"\n", b"\r\n"), "a", "crlf"),
        (b"\xef\xbb\xbf" + answer("a", "bom"), "a", "bom"),
        (answer("a", "no end").rstrip(b"\n"), "a", "no end"),
        (answer("a", "\ud800 lone"), "a", "\ufffd lone"),
        (answer("a", "\udc00\ud800"), "a", "\ufffd\ufffd"),
        (answer("a", "\U0001f600 pair"), "a", "\U0001f600 pair"),
        (answer("a", "\\ud800"), "a", "\\ud800"),
        (answer("a", "BYTE").replace(b"BYTE", b"\xffx\xfe"), "a", "\ufffdx\ufffd"),
        (answer("a", "BYTE").replace(b"BYTE", b"x\x01y\tz"), "a", "x\ufffdy z"),
        (answer("a", "nul\x00"), "a", "nul\x00"),
        (answer("a", "nan", avgLogprobs=float("nan")), "a", "nan"),
        (answer("a", "members").replace(b'{"key": "a", ', b"{")[:-2] + b', "key": "a"}', "a", "members"),
    ],
)
def test_odd_lines_keep_their_text(tmp_path: Path, content: bytes, key: str, text: str) -> None:
    (written,) = exported(table_of(tmp_path, content, keys=["a"]), tmp_path)

    assert (written["key"], written["status"], written["text"]) == (key, "ok", text)
    raw_text = written["response"]["candidates"][0]["content"]["parts"][0]["text"]
    assert raw_text == text


@few(4)
@pytest.mark.parametrize(
    "content", [b'{"key": "a", "resp', b"[]", b'"a"', b"{} {}", b"<html>", b"\xff", b"\x00", b"{}"]
)
def test_a_line_that_is_no_answer_leaves_its_row_missing(tmp_path: Path, content: bytes) -> None:
    table = table_of(tmp_path, content + b"\n" + answer("b"), keys=["a", "b"])

    assert [row.status for row in all_rows(table)] == ["missing", "ok"]
    assert (table.summary().unexpected, table.summary().malformed) == (1, 1)


@few(3)
@pytest.mark.parametrize("blank", [b"", b"\n", b"\r\n", b" \t\n\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n \n"])
def test_blank_lines_are_no_lines(tmp_path: Path, blank: bytes) -> None:
    table = table_of(tmp_path, blank, keys=["a"])

    assert (table.summary().missing, table.summary().unexpected) == (1, 0)
    assert exported(table, tmp_path)[0]["status"] == "missing"


@few(3)
@pytest.mark.parametrize("depth", [2000, 1_000_000])
@pytest.mark.parametrize("place", ['"key":"a","response":%s', '"key":"a","error":%s', '"key":"a\\ud800","response":%s'])
def test_deep_nesting_breaks_nothing(tmp_path: Path, place: str, depth: int) -> None:
    content = "{" + place % ("[" * depth + "]" * depth) + "}\n"
    table = table_of(tmp_path, content.encode() + answer("b"))

    assert [row.status for row in all_rows(table)] == ["failed", "ok"]
    assert len(exported(table, tmp_path)) == 2


@in_part
@pytest.mark.parametrize("spoiled", [b"", b"\xff"])
@long
def test_a_line_far_longer_than_others_is_read(tmp_path: Path, spoiled: bytes) -> None:
    image = {"inlineData": {"mimeType": "image/png", "data": "A" * tries(40_000_000, 20_000_000)}}
    content = answer("a", candidates=[{"content": {"parts": [image, {"text": "SPOT"}]}, "finishReason": "STOP"}])
    table = table_of(tmp_path, content.replace(b"SPOT", b"seen" + spoiled) + answer("b"), keys=["a", "b"])

    assert [row.text.rstrip("\ufffd") for row in all_rows(table)] == ["seen", "fine"]
    assert exported(table, tmp_path)[0]["response"]["candidates"][0]["content"]["parts"][0] == image


def test_many_wide_rows_are_read_in_bounded_memory(tmp_path: Path) -> None:
    text = "".join(chr(97 + place * place % 26) for place in range(60_000))
    table = table_of(tmp_path, [answer(f"k{number}", f"{number}{text}") for number in range(1500)])

    assert table.summary().succeeded == 1500
    (row,) = table.page(view="rows", limit=1, keys=["k1234"]).rows
    assert row.text.startswith("1234abejq")


def test_a_file_of_nothing_but_damage_is_counted(tmp_path: Path) -> None:
    table = table_of(tmp_path, b"<html>\xff</html>\n" * 10_000, keys=["a"])

    assert (table.summary().malformed, table.summary().missing) == (10_000, 1)


def test_lines_are_found_with_where_they_start(tmp_path: Path) -> None:
    path = answer_file(tmp_path, b"a\n\nlonger\nb")

    assert list(answer_lines(path)) == [(0, b"a\n"), (3, b"longer\n"), (10, b"b")]


@pytest.mark.parametrize("value", ["plain", "\u2028", "\ud83d\ude00", "back\\slash \\u0041", '{"a": "\\n"}'])
def test_mending_leaves_what_is_well_formed(value: str) -> None:
    assert mended(value.encode("utf-8", "surrogatepass").decode("utf-8", "replace").encode() + b"\r\n") == (
        value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"key": "a"}', b"null"),
        (b'{"response": {"a":  [1, 2]}}', b'{"a":  [1, 2]}'),
        (b'{"response": {"a": "\\ud83d\\ude00"}}', b'{"a": "\\ud83d\\ude00"}'),
        (b'{"response": {"a": "\\ud83d"}}', b'{"a": "\\ufffd"}'),
        (b'{"response": [NaN, 1e999, -Infinity, 1.5]}', b"[null, null, null, 1.5]"),
        (b'{"response": "\xff"}', b'"\\ufffd"'),
        (b"[1]", b"null"),
        (b"{cut", b"null"),
        (b'{"response": ' + b"[" * 100_000 + b"]" * 100_000 + b', "n": NaN}', b"null"),
    ],
)
def test_the_raw_response_is_json_that_any_reader_accepts(content: bytes, expected: bytes) -> None:
    assert bytes(raw_response(content)) == expected


@pytest.mark.parametrize("value", [None, "x", 5, [], {"code": "NaN"}])
def test_the_error_of_a_row_may_be_anything(tmp_path: Path, value: Any) -> None:
    row = only_row(tmp_path, line("a", error=value, response=None))

    assert row.status == ("empty" if value is None else "failed")
