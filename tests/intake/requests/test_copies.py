"""The copy that is sent when the user's own bytes cannot be: what it holds, what it says, and that it is whole."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.errors import PathError, RequestProblems, StorageError, UsageError
from gemini_batch_mcp.intake.request_files import RequestFile
from gemini_batch_mcp.intake.requests.copies import write_request_copy
from gemini_batch_mcp.intake.requests.mending import to_line
from gemini_batch_mcp.intake.validator.validate import check_line
from gemini_batch_mcp.settings import MAX_FILE_BYTES, MAX_LINE_BYTES
from support.extent import few

HELLO = [{"role": "user", "parts": [{"text": "hi"}]}]


def line(key: str, **members: Any) -> bytes:
    request = {"contents": HELLO, **members}
    return json.dumps({"key": key, "request": request}, ensure_ascii=False, separators=(",", ":")).encode()


class Desk:
    """A user's file, and the places that a copy of it goes to."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "reviews.jsonl"
        self.copy_path = directory / "state" / "requests.jsonl"
        self.keys_path = directory / "state" / "keys.jsonl"
        self.copy_path.parent.mkdir()

    def copy(self, content: bytes, max_file_bytes: int = MAX_FILE_BYTES, limit_rows: int = 0) -> RequestFile:
        self.path.write_bytes(content)
        try:
            return write_request_copy(
                self.path,
                self.copy_path,
                task="generate",
                keys_path=self.keys_path,
                max_file_bytes=max_file_bytes,
                limit_rows=limit_rows,
            )
        finally:
            assert self.path.read_bytes() == content

    def assert_nothing_written(self) -> None:
        assert list(self.copy_path.parent.iterdir()) == []


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_copy_is_described_like_any_request_file(desk: Desk) -> None:
    copied = desk.copy(line("a") + b"\n\n" + line("b"))
    written = desk.copy_path.read_bytes()

    assert written == line("a") + b"\n" + line("b") + b"\n"
    assert (copied.path, copied.keys_path, copied.mended) == (desk.copy_path, desk.keys_path, True)
    assert (copied.count, copied.size_bytes) == (2, len(written))
    assert copied.sha256 == hashlib.sha256(written).hexdigest()
    assert desk.keys_path.read_bytes() == b'"a"\n"b"\n'


@pytest.mark.parametrize(
    ("content", "warnings"),
    [
        (line("a"), ()),
        (b"\xef\xbb\xbf" + line("a"), ("A byte-order mark was removed.",)),
        (line("a") + b"\r\n", ("Carriage returns at line ends were removed.",)),
        (line("a") + b"\r", ("Carriage returns at line ends were removed.",)),
        (b"\n" + line("a"), ("1 blank line was skipped.",)),
        (
            b" \t\r\n\n" + line("a") + b"\n\n",
            ("Carriage returns at line ends were removed.", "3 blank lines were skipped."),
        ),
    ],
    ids=["nothing", "BOM", "CRLF", "CR at the end", "one blank line", "blank lines"],
)
def test_form_is_normalised_and_said(desk: Desk, content: bytes, warnings: tuple[str, ...]) -> None:
    copied = desk.copy(content)

    assert desk.copy_path.read_bytes() == line("a") + b"\n"
    assert copied.warnings == warnings


MENDED = [
    (
        {"systemInstruction": "Be brief."},
        {"systemInstruction": {"parts": [{"text": "Be brief."}]}},
        "systemInstruction was given as text in {where}; it is sent as a Content object.",
    ),
    (
        {"system_instruction": "Be brief."},
        {"system_instruction": {"parts": [{"text": "Be brief."}]}},
        "systemInstruction was given as text in {where}; it is sent as a Content object.",
    ),
    (
        {"contents": "hi"},
        {"contents": HELLO},
        "contents was given as text in {where}; it is sent as a user turn.",
    ),
    (
        {"thinking_config": {"thinking_level": "LOW"}},
        {"generationConfig": {"thinking_config": {"thinking_level": "LOW"}}},
        "thinkingConfig was outside generationConfig in {where}; it is sent inside.",
    ),
    (
        {"generation_config": {"top_k": 3}, "thinkingConfig": {"thinkingLevel": "LOW"}},
        {"generation_config": {"top_k": 3, "thinkingConfig": {"thinkingLevel": "LOW"}}},
        "thinkingConfig was outside generationConfig in {where}; it is sent inside.",
    ),
]


@pytest.mark.parametrize(("given", "sent", "warning"), MENDED)
def test_slips_are_put_right_and_counted(desk: Desk, given: dict[str, Any], sent: dict[str, Any], warning: str) -> None:
    content = b"\n".join([line("a"), line("b", **given), line("c"), line("d", **given)])

    copied = desk.copy(content)
    lines = desk.copy_path.read_bytes().splitlines()

    assert [json.loads(row)["request"] for row in lines] == [
        {"contents": HELLO},
        {"contents": HELLO, **sent},
        {"contents": HELLO},
        {"contents": HELLO, **sent},
    ]
    assert [check_line(row, 1, "generate").problems for row in lines] == [()] * 4
    assert lines[0] == line("a")
    assert copied.warnings == (warning.format(where="2 lines (first: line 2)"),)


def test_a_slip_in_one_line_names_that_line(desk: Desk) -> None:
    copied = desk.copy(line("a") + b"\n" + line("b", contents="hi"))

    assert copied.warnings == ("contents was given as text in line 2; it is sent as a user turn.",)


def test_several_slips_in_one_line_each_have_their_warning(desk: Desk) -> None:
    copied = desk.copy(line("a", contents="hi", systemInstruction="x", thinkingConfig={"thinkingBudget": 0}))

    assert [warning.split()[0] for warning in copied.warnings] == ["systemInstruction", "contents", "thinkingConfig"]


def test_a_thinking_config_beside_the_request_moves_inside_too(desk: Desk) -> None:
    desk.copy(
        b'{"key":"a","thinking_config":{"thinking_level":"LOW"},"request":{"contents":[{"parts":[{"text":"x"}]}]}}'
    )

    assert json.loads(desk.copy_path.read_bytes()) == {
        "key": "a",
        "request": {
            "contents": [{"parts": [{"text": "x"}]}],
            "generationConfig": {"thinking_config": {"thinking_level": "LOW"}},
        },
    }


NOT_MENDED = [
    {"thinkingConfig": {}, "generationConfig": {"thinkingConfig": {"thinkingLevel": "LOW"}}},
    {"thinkingConfig": {}, "thinking_config": {}},
    {"thinkingConfig": {}, "generationConfig": {}, "generation_config": {}},
    {"thinkingConfig": {}, "generationConfig": "x"},
    {"thinkingConfig": {"level": 1}},
    {"config": {"temperature": 0}},
    {"systemInstruction": ["Be brief."]},
    {"contents": ["hi"]},
    {"contents": "hi", "tools": {}},
]


@pytest.mark.parametrize("members", NOT_MENDED)
def test_what_would_be_a_guess_is_refused(desk: Desk, members: dict[str, Any]) -> None:
    with pytest.raises(RequestProblems) as refused:
        desk.copy(line("a", **members))

    assert refused.value.problems[0].line == 1
    desk.assert_nothing_written()


def test_the_report_counts_lines_of_the_users_file(desk: Desk) -> None:
    rows = [b"", line("a"), b" ", line("b"), b"no JSON", line("a"), b"", line("b", contents="x"), b'{"key":"a"}']

    with pytest.raises(RequestProblems) as refused:
        desk.copy(b"\xef\xbb\xbf" + b"\r\n".join(rows))

    assert [(problem.line, problem.key) for problem in refused.value.problems] == [
        (5, ""),
        (6, "a"),
        (8, "b"),
        (9, "a"),
        (9, "a"),
    ]
    assert refused.value.problems[1].message == "`key` is the same as that of line 2."
    assert refused.value.problems[2].message == "`key` is the same as that of line 4."
    assert refused.value.problem_count == 5
    desk.assert_nothing_written()


def test_numbers_and_names_of_a_mended_line_stay_as_they_were(desk: Desk) -> None:
    content = line(
        "é\u2028",
        contents="日本語 \U0001f642",
        generationConfig={"temperature": 0.1, "seed": -3, "responseJsonSchema": {"b": 1e-7, "a": [1.0, None, "\x7f"]}},
    )
    desk.copy(content)

    sent = json.loads(desk.copy_path.read_bytes())
    assert list(sent["request"]) == ["contents", "generationConfig"]
    assert sent["request"]["generationConfig"] == json.loads(content)["request"]["generationConfig"]
    assert sent["request"]["contents"][0]["parts"][0]["text"] == "日本語 \U0001f642"


def test_a_long_line_does_not_hide_what_comes_after(desk: Desk) -> None:
    content = b"x" * (MAX_LINE_BYTES + 5) + b"\n\n" + line("a") + b"\nno JSON\n"

    with pytest.raises(RequestProblems) as refused:
        desk.copy(content)

    assert [problem.line for problem in refused.value.problems] == [1, 4]


def test_a_pilot_takes_the_first_requests_and_looks_at_no_other_line(desk: Desk) -> None:
    rows = [b"\xef\xbb\xbf", b" ", line("a"), b"", line("b", contents="x"), b"\t", line("c"), b"no JSON", line("a")]
    content = b"\r\n".join(rows)

    for limit, keys, warnings in ((1, ["a"], 1), (2, ["a", "b"], 2), (3, ["a", "b", "c"], 2)):
        pilot = desk.copy(content, limit_rows=limit, max_file_bytes=400)

        assert [json.loads(row)["key"] for row in desk.copy_path.read_bytes().splitlines()] == keys
        assert desk.keys_path.read_text(encoding="utf-8") == "".join(f'"{key}"\n' for key in keys)
        assert pilot.count == limit
        assert pilot.warnings[0] == "A byte-order mark was removed."
        assert any("blank lines were skipped" in warning for warning in pilot.warnings)
        assert sum("contents was given as text in line 5" in warning for warning in pilot.warnings) == warnings - 1
    with pytest.raises(RequestProblems) as refused:
        desk.copy(content, limit_rows=4)
    assert [problem.line for problem in refused.value.problems] == [8]
    with pytest.raises(UsageError, match="a batch file has at most 100"):
        desk.copy(content, limit_rows=3, max_file_bytes=100)


@few(2)
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 70_000, 70_001])
def test_a_pilot_ends_anywhere_in_a_large_file(desk: Desk, limit: int) -> None:
    content = b"\n".join([line("first"), b"x" * (MAX_LINE_BYTES + (2 << 20)), b"", line("last")])

    if limit == 1:
        assert desk.copy(content, limit_rows=limit).count == 1
    else:
        with pytest.raises(RequestProblems) as refused:
            desk.copy(content, limit_rows=limit)
        assert [problem.line for problem in refused.value.problems] == [2]
    rows = b"".join(line(f"k{number}") + b"\n" for number in range(70_000))
    assert desk.copy(rows, limit_rows=limit).count == min(limit, 70_000)
    assert desk.copy_path.read_bytes() == b"".join(rows.splitlines(keepends=True)[:limit])


def test_a_large_file_keeps_every_line_in_order(desk: Desk) -> None:
    rows = [line(f"k{number}", **({"contents": "x"} if number % 1000 == 0 else {})) for number in range(30_000)]

    copied = desk.copy(b"\n".join(rows))

    assert copied.count == 30_000
    assert copied.warnings[0].startswith("contents was given as text in 30 lines (first: line 1);")
    keys = [json.loads(row)["key"] for row in desk.copy_path.read_bytes().splitlines()]
    assert keys == [f"k{number}" for number in range(30_000)]
    assert desk.keys_path.read_bytes().count(b"\n") == 30_000


@pytest.mark.parametrize("content", [b"\n \n\t\r\n", b"\xef\xbb\xbf"])
def test_a_file_without_any_request_is_refused(desk: Desk, content: bytes) -> None:
    with pytest.raises(UsageError, match=r"reviews\.jsonl contains no requests\."):
        desk.copy(content)
    desk.assert_nothing_written()


def test_a_copy_that_grows_over_the_limit_is_refused(desk: Desk) -> None:
    content = b"\n".join(line(f"k{number}", contents="x") for number in range(10))

    with pytest.raises(UsageError, match="a batch file has at most 500"):
        desk.copy(content, max_file_bytes=500)
    desk.assert_nothing_written()


def test_an_empty_or_missing_file_is_refused(desk: Desk) -> None:
    with pytest.raises(UsageError, match="is empty"):
        desk.copy(b"")
    desk.path.unlink()
    with pytest.raises(PathError, match="cannot be read"):
        write_request_copy(desk.path, desk.copy_path, task="generate", keys_path=desk.keys_path, max_file_bytes=10**6)


def test_a_directory_is_refused(desk: Desk) -> None:
    with pytest.raises(PathError, match="state cannot be read"):
        write_request_copy(
            desk.copy_path.parent, desk.copy_path, task="generate", keys_path=desk.keys_path, max_file_bytes=10**6
        )


@pytest.mark.parametrize("blocked", ["copy_path", "keys_path"])
def test_a_place_that_cannot_be_written_is_reported_and_nothing_stays(desk: Desk, blocked: str) -> None:
    getattr(desk, blocked).mkdir()

    with pytest.raises(StorageError, match="could not be written"):
        desk.copy(line("a", contents="x"))

    assert [path.name for path in desk.copy_path.parent.iterdir() if path.name.endswith(".part")] == []


def test_a_state_directory_that_is_gone_is_reported(desk: Desk) -> None:
    desk.copy_path = desk.copy_path.parent / "missing" / "requests.jsonl"

    with pytest.raises(StorageError, match="The request file could not be written"):
        desk.copy(line("a"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that fails like a full disk")
@pytest.mark.parametrize("rows", [1, 30_000])
def test_a_full_disk_is_reported(desk: Desk, rows: int) -> None:
    (desk.copy_path.parent / "requests.jsonl.part").symlink_to("/dev/full")

    with pytest.raises(StorageError, match="The request file could not be written: No space left"):
        desk.copy(b"\n".join(line(f"k{number}") for number in range(rows)))
    desk.assert_nothing_written()


def test_what_json_does_not_have_is_never_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        to_line({"a": float("nan")})
