"""The check of a file that is sent as it is: one pass, all of its problems, and its keys."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gemini_batch_mcp.domain import Task
from gemini_batch_mcp.errors import PathError, RequestProblems, StorageError, UsageError
from gemini_batch_mcp.intake.request_files import RequestFile
from gemini_batch_mcp.intake.requests.reader import CopyNeeded, check_file, file_sha256
from gemini_batch_mcp.settings import MAX_LINE_BYTES
from support.extent import in_part, tries

#: More than what is read at a time, several times over.
LINES_OF_A_LARGE_FILE = 6_000


def line(key: str, text: str = "hi", **members: object) -> bytes:
    request = {"contents": [{"role": "user", "parts": [{"text": text}]}], **members}
    return json.dumps({"key": key, "request": request}, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def large(change: Callable[[int], bytes | None] = lambda _: None) -> bytes:
    """A file of several pieces; `change` gives another line for some of the numbers."""
    return b"".join(
        change(number) or line(f"row-{number}", "x" * 1000) for number in range(1, LINES_OF_A_LARGE_FILE + 1)
    )


class Desk:
    """A directory with a request file."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "requests.jsonl"
        self.keys_path = directory / "keys.jsonl"

    def check(self, content: bytes | None = None, *, task: Task = "generate") -> RequestFile:
        if content is not None:
            self.path.write_bytes(content)
        return check_file(self.path, task=task, keys_path=self.keys_path, sha256="c0ffee")

    def refused(self, content: bytes, refusal: type[Exception]) -> Exception:
        """Check what must be refused: nothing is left behind."""
        with pytest.raises(refusal) as caught:
            self.check(content)
        assert list(self.path.parent.iterdir()) == [self.path]
        return caught.value

    def survey(self, content: bytes) -> RequestProblems:
        refusal = self.refused(content, RequestProblems)
        assert isinstance(refusal, RequestProblems)
        return refusal


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


KEYS = st.lists(st.text(min_size=1, max_size=20), unique=True, min_size=1, max_size=120)


@in_part
@settings(max_examples=tries(60, 15), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keys=KEYS, text=st.text(), ends=st.booleans())
def test_any_right_file_is_sent_as_it_is_and_its_keys_are_written_down(
    desk: Desk, keys: list[str], text: str, ends: bool
) -> None:
    content = b"".join(line(key, text) for key in keys)
    content = content if ends else content.removesuffix(b"\n")
    found = desk.check(content)

    assert (found.path, found.count, found.size_bytes) == (desk.path, len(keys), len(content))
    assert desk.path.read_bytes() == content
    assert [json.loads(key) for key in desk.keys_path.read_bytes().split(b"\n")[:-1]] == keys
    assert (found.sha256, found.warnings, found.mended) == ("c0ffee", (), False)


def test_kinds_of_requests_may_change_within_a_file(desk: Desk) -> None:
    image = {"inlineData": {"mimeType": "image/png", "data": "QUJD" * 50}}
    kinds = [
        lambda number: line(f"k{number}"),
        lambda number: line(f"k{number}", contents=[{"parts": [image]}]),
        lambda number: line(f"k{number}", generation_config={"max_output_tokens": 5}, toolConfig={}),
        lambda number: line(f"k{number}", generation_config={"max_output_tokens": "5"}),
        lambda number: line(f"k{number}", generationConfig={"responseSchema": {"properties": {"key": {}}}}),
        lambda number: b'{ "request": {"contents":[{"parts":[{"text":"x"}]}]}, "key": "k%d" }\n' % number,
    ]
    content = b"".join(
        kinds[number // 300 % 6](number) if number < 9000 else kinds[number % 6](number) for number in range(12_000)
    )

    assert desk.check(content).count == 12_000


def test_embedding_lines_are_checked_as_such(desk: Desk) -> None:
    content = b'{"key":"a","request":{"content":{"parts":[{"text":"x"}]}}}\n'
    assert desk.check(content, task="embed").count == 1
    desk.keys_path.unlink()
    assert "EmbedContentRequest" not in str(desk.survey(content))


@pytest.mark.parametrize("at", [1, 2, 3_000, LINES_OF_A_LARGE_FILE - 1, LINES_OF_A_LARGE_FILE])
def test_a_wrong_line_is_found_wherever_it_stands(desk: Desk, at: int) -> None:
    report = desk.survey(large(lambda number: line("wrong", temperature=1) if number == at else None))
    assert [problem.line for problem in report.problems] == [at]


def test_a_repeated_key_is_found_at_the_end(desk: Desk) -> None:
    report = desk.survey(large(lambda number: line("row-1", "again") if number == LINES_OF_A_LARGE_FILE else None))
    assert [problem.line for problem in report.problems] == [LINES_OF_A_LARGE_FILE]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + line("a"),
        line("a").replace(b"\n", b"\r\n"),
        line("a") + b"\n" + line("b"),
        line("a") + b" \t\n",
        b"\n\n",
        line("a", systemInstruction="Be brief."),
        line("a", contents="hi"),
        line("a", thinkingConfig={"thinkingLevel": "LOW"}),
        large(lambda number: b"\n" if number == LINES_OF_A_LARGE_FILE - 1 else None),
    ],
    ids=["BOM", "CRLF", "blank line", "white space", "nothing", "instruction", "contents", "thinking", "late"],
)
def test_what_can_be_mended_asks_for_a_copy(desk: Desk, content: bytes) -> None:
    desk.refused(content, CopyNeeded)


def test_a_file_changed_into_utf8_text_with_a_bom_in_the_middle_is_refused(desk: Desk) -> None:
    content = line("a") + b"\xef\xbb\xbf" + line("b")

    assert desk.survey(content).problems[0].message == "The line starts with a byte-order mark."


def test_the_survey_reports_the_first_twenty_problems_and_counts_all(desk: Desk) -> None:
    content = b"".join(
        line(f"k{number}", temperature=1) if number % 3 else line(f"k{number}") for number in range(1, 91)
    )

    report = desk.survey(content)

    assert report.problem_count == 60
    assert [problem.line for problem in report.problems] == [number for number in range(1, 31) if number % 3]
    assert report.message == "requests.jsonl has 60 problems; nothing was submitted."
    assert report.next_step == "The first 20 are listed. Correct them, then submit the order again."


def test_the_survey_finds_repeated_keys_between_other_problems(desk: Desk) -> None:
    content = line("a") + b"not JSON\n" + line("a") + line("b", temperature=1) + line("b") + line("a", contents="x")

    report = desk.survey(content)

    assert [(problem.line, problem.key) for problem in report.problems] == [
        (2, ""),
        (3, "a"),
        (4, "b"),
        (5, "b"),
        (6, "a"),
    ]
    assert report.problems[1].message == "`key` is the same as that of line 1."
    assert report.problems[3].message == "`key` is the same as that of line 4."
    assert report.message == "requests.jsonl has 5 problems; nothing was submitted."


def test_the_survey_of_a_single_problem_reads_well(desk: Desk) -> None:
    report = desk.survey(line("a", temperature=1))

    assert report.message == "requests.jsonl has 1 problem; nothing was submitted."
    assert report.next_step == "Correct them, then submit the order again."


def test_lines_end_at_line_feeds_only(desk: Desk) -> None:
    content = line("a", "one\u2028two\u2029three\u0085four\x0bfive") + line("b")

    assert desk.check(content).count == 2
    desk.keys_path.unlink()
    report = desk.survey(content + b"x\n")
    assert [problem.line for problem in report.problems] == [3]


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_over_the_limit_is_refused_and_read_past(desk: Desk, end: bytes) -> None:
    content = line("a") + line("b", "x" * (MAX_LINE_BYTES + 1_000_000)) + line("c", temperature=1).strip() + end

    report = desk.survey(content)

    assert [problem.line for problem in report.problems] == [2, 3]
    assert report.problems[0].message.startswith("The line has 21,971,")


def test_a_last_line_over_the_limit_is_refused(desk: Desk) -> None:
    content = line("a") + b"x" * (MAX_LINE_BYTES + 1)

    assert [problem.message for problem in desk.survey(content).problems] == [
        "The line has 20,971,521 bytes, more than 20,971,520."
    ]


def test_an_empty_file_is_refused(desk: Desk) -> None:
    assert str(desk.refused(b"", UsageError)).startswith("requests.jsonl is empty.")


def test_a_missing_file_is_refused(desk: Desk) -> None:
    with pytest.raises(PathError, match=r"requests\.jsonl cannot be read"):
        desk.check()
    with pytest.raises(PathError):
        file_sha256(desk.path)


def test_keys_that_cannot_be_written_are_refused(desk: Desk) -> None:
    desk.keys_path = desk.path.parent / "none" / "keys.jsonl"
    with pytest.raises(StorageError):
        desk.check(line("a"))


def test_a_file_that_changes_while_it_is_read_is_refused(desk: Desk) -> None:
    class Appending:
        def begin(self) -> None:
            with desk.path.open("ab") as file:
                file.write(line("late"))

        def see(self, *_: object) -> None:
            pass

    desk.path.write_bytes(line("a"))
    with pytest.raises(UsageError, match="changed while it was read"):
        check_file(desk.path, task="generate", keys_path=desk.keys_path, sha256="", onlooker=Appending())
    assert list(desk.path.parent.iterdir()) == [desk.path]
