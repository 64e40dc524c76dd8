"""The checked stream: it hands out the file's own bytes, and never the last of them while anything is wrong."""

import hashlib
import io
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gemini_batch_mcp.domain import Task
from gemini_batch_mcp.errors import PathError, RequestProblems, StorageError, UsageError
from gemini_batch_mcp.intake.requests.reader import CHUNK_BYTES, CheckedReader, CopyNeeded, LinesRefused, file_sha256
from gemini_batch_mcp.settings import MAX_FILE_BYTES, MAX_LINE_BYTES
from support.extent import in_part, tries

#: More than three chunks, so that something has left before the end is seen.
LINES_OF_A_LARGE_FILE = 26_000


def line(key: str, text: str = "hi", **members: object) -> bytes:
    request = {"contents": [{"role": "user", "parts": [{"text": text}]}], **members}
    return json.dumps({"key": key, "request": request}, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def large(change: Callable[[int], bytes | None] = lambda _: None) -> bytes:
    """A file of several chunks; `change` gives another line for some of the numbers."""
    return b"".join(
        change(number) or line(f"row-{number}", "x" * 1000) for number in range(1, LINES_OF_A_LARGE_FILE + 1)
    )


class Desk:
    """A directory with a request file, and readers over it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "requests.jsonl"
        self.keys_path = directory / "keys.jsonl"

    def reader(
        self, content: bytes | None = None, *, task: Task = "generate", max_file_bytes: int = MAX_FILE_BYTES
    ) -> CheckedReader:
        if content is not None:
            self.path.write_bytes(content)
        return CheckedReader(self.path, task=task, keys_path=self.keys_path, max_file_bytes=max_file_bytes)

    def read_all(self, content: bytes, size: int = CHUNK_BYTES) -> bytes:
        """Read as an upload does; give back what was handed out."""
        with self.reader(content) as reader:
            reader.prime()
            handed = b"".join(iter(lambda: reader.read(size), b""))
            reader.finish()
            return handed

    def handed_until_refused(self, content: bytes, refusal: type[Exception]) -> int:
        """Read until `refusal` is raised; give back how many bytes had left by then."""
        handed = 0
        with self.reader(content) as reader, pytest.raises(refusal):
            reader.prime()
            while data := reader.read(CHUNK_BYTES):
                handed += len(data)
        assert not self.keys_path.exists() and list(self.path.parent.iterdir()) == [self.path]
        return handed

    def survey(self, content: bytes) -> RequestProblems:
        with self.reader(content) as reader:
            with pytest.raises(LinesRefused):
                reader.read()
            return reader.survey()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


KEYS = st.lists(st.text(min_size=1, max_size=20), unique=True, min_size=1, max_size=120)


@in_part
@settings(max_examples=tries(60, 25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keys=KEYS, text=st.text(), size=st.integers(1, 5000), ends=st.booleans())
def test_any_right_file_is_handed_out_byte_by_byte_as_it_is(
    desk: Desk, keys: list[str], text: str, size: int, ends: bool
) -> None:
    content = b"".join(line(key, text) for key in keys)
    content = content if ends else content.removesuffix(b"\n")

    assert desk.read_all(content, size) == content
    assert [json.loads(key) for key in desk.keys_path.read_bytes().split(b"\n")[:-1]] == keys


def test_a_finished_reader_describes_what_was_sent(desk: Desk) -> None:
    content = line("a") + line("b", "déjà \u2028 vu")
    with desk.reader(content) as reader:
        assert reader.size_bytes == len(content)
        reader.prime()
        assert reader.read() == content
        request_file = reader.finish()

    assert request_file.path == desk.path
    assert (request_file.count, request_file.size_bytes) == (2, len(content))
    assert request_file.sha256 == hashlib.sha256(content).hexdigest() == file_sha256(desk.path)
    assert desk.keys_path.read_text(encoding="utf-8") == '"a"\n"b"\n'
    assert (request_file.warnings, request_file.mended) == ((), False)


def test_a_hash_that_is_known_is_not_computed_again(desk: Desk) -> None:
    desk.path.write_bytes(line("a"))
    with CheckedReader(
        desk.path, task="generate", keys_path=desk.keys_path, max_file_bytes=MAX_FILE_BYTES, known_sha256="c0ffee"
    ) as reader:
        reader.read()
        assert reader.finish().sha256 == "c0ffee"


def test_a_large_file_is_handed_out_in_whole_chunks(desk: Desk) -> None:
    content = large()
    sizes = []
    digest = hashlib.sha256()
    with desk.reader(content) as reader:
        reader.prime()
        while data := reader.read(CHUNK_BYTES):
            sizes.append(len(data))
            digest.update(data)
        request_file = reader.finish()

    assert sizes == [CHUNK_BYTES] * 3 + [len(content) - 3 * CHUNK_BYTES]
    assert digest.hexdigest() == request_file.sha256
    assert request_file.count == LINES_OF_A_LARGE_FILE


@pytest.mark.parametrize("size", [-1, 3_000_001, CHUNK_BYTES + 1, 10**9])
def test_a_large_file_can_be_read_in_any_size(desk: Desk, size: int) -> None:
    content = large()

    assert desk.read_all(content, size) == content


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

    assert desk.read_all(content) == content


def test_embedding_lines_are_checked_as_such(desk: Desk) -> None:
    content = b'{"key":"a","request":{"content":{"parts":[{"text":"x"}]}}}\n'
    with desk.reader(content, task="embed") as reader:
        assert reader.read() == content
    assert "EmbedContentRequest" not in str(desk.survey(content))


WRONG = line("wrong", temperature=1)


@pytest.mark.parametrize(
    "at", [1, 2, 9_000, 20_000, LINES_OF_A_LARGE_FILE - 1, LINES_OF_A_LARGE_FILE], ids=lambda at: f"line {at}"
)
def test_the_last_chunk_never_leaves_when_a_line_is_wrong(desk: Desk, at: int) -> None:
    content = large(lambda number: WRONG if number == at else None)
    before = sum(len(row) for row in content.split(b"\n")[: at - 1]) + at - 1

    assert desk.handed_until_refused(content, LinesRefused) <= before


def test_a_line_over_the_border_of_chunks_is_checked_before_its_first_part_leaves(desk: Desk) -> None:
    first = line("first", "x" * (CHUNK_BYTES - 200))
    content = first + line("second", "y" * 1000, temperature=1) + line("third", "z" * CHUNK_BYTES)

    assert desk.handed_until_refused(content, LinesRefused) == 0


def test_a_repeated_key_keeps_the_last_chunk_back(desk: Desk) -> None:
    content = large(lambda number: line("row-1", "again") if number == LINES_OF_A_LARGE_FILE else None)

    handed = desk.handed_until_refused(content, LinesRefused)

    assert 0 < handed < len(content)


@pytest.mark.parametrize("multiple", [1, 2, 3])
def test_a_file_of_whole_chunks_keeps_its_last_chunk_back_too(desk: Desk, multiple: int) -> None:
    """A chunk that ends with the file is the one that finalizes the upload."""
    rows = [line("same"), *(line(f"row-{number:05}", "x" * 1000) for number in range((multiple * CHUNK_BYTES) // 1200))]
    missing = multiple * CHUNK_BYTES - sum(map(len, rows)) - len(line("same", ""))
    content = b"".join([*rows, line("same", "x" * missing)])

    assert len(content) == multiple * CHUNK_BYTES
    assert desk.handed_until_refused(content, LinesRefused) <= (multiple - 1) * CHUNK_BYTES


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
    assert desk.handed_until_refused(content, CopyNeeded) < len(content)


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
    assert report.next_step == "The first 20 are listed. Correct them and give the order again."


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
    assert report.next_step == "Correct them and give the order again."


def test_lines_end_at_line_feeds_only(desk: Desk) -> None:
    content = line("a", "one\u2028two\u2029three\u0085four\x0bfive") + line("b")

    assert desk.read_all(content) == content
    report = desk.survey(content + b"x\n")
    assert [problem.line for problem in report.problems] == [3]


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_over_the_limit_is_refused_and_read_past(desk: Desk, end: bytes) -> None:
    content = line("a") + line("b", "x" * (MAX_LINE_BYTES + CHUNK_BYTES)) + line("c", temperature=1).strip() + end

    report = desk.survey(content)

    assert [problem.line for problem in report.problems] == [2, 3]
    assert report.problems[0].message.startswith("The line has 29,360,")


def test_a_last_line_over_the_limit_is_refused(desk: Desk) -> None:
    content = line("a") + b"x" * (MAX_LINE_BYTES + 1)

    assert desk.handed_until_refused(content, LinesRefused) == 0
    assert [problem.message for problem in desk.survey(content).problems] == [
        "The line has 20,971,521 bytes, more than 20,971,520."
    ]


def test_an_empty_file_is_refused_at_once(desk: Desk) -> None:
    with pytest.raises(UsageError, match=r"requests\.jsonl is empty\."):
        desk.reader(b"")


def test_a_file_over_the_limit_is_refused_at_once(desk: Desk) -> None:
    with pytest.raises(UsageError, match=r"has 85 bytes, more than the 80 of one batch file\. Split"):
        desk.reader(line("a" * 9), max_file_bytes=80)


def test_a_missing_file_is_refused_at_once(desk: Desk) -> None:
    with pytest.raises(PathError, match=r"requests\.jsonl cannot be read: No such file"):
        desk.reader()


def test_keys_that_cannot_be_written_are_refused_at_once(desk: Desk) -> None:
    desk.keys_path = desk.keys_path.parent / "missing" / "keys.jsonl"

    with pytest.raises(StorageError, match="The list of keys could not be written: No such file"):
        desk.reader(line("a"))


def test_a_file_removed_before_it_is_read_is_reported(desk: Desk) -> None:
    with desk.reader(line("a")) as reader:
        desk.path.unlink()
        with pytest.raises(PathError):
            reader.prime()


@pytest.mark.parametrize("content", [line("a"), line("a") + line("b") + line("c")], ids=["shorter", "longer"])
def test_a_file_that_changes_its_size_is_refused(desk: Desk, content: bytes) -> None:
    with desk.reader(line("a") + line("b")) as reader:
        desk.path.write_bytes(content)
        with pytest.raises(UsageError, match="changed while it was read"):
            reader.read()


def test_a_survey_of_a_file_that_was_put_right_meanwhile_says_so(desk: Desk) -> None:
    with desk.reader(line("a", temperature=1)) as reader:
        with pytest.raises(LinesRefused):
            reader.prime()
        desk.path.write_bytes(line("a"))
        with pytest.raises(UsageError, match="changed while it was read"):
            reader.survey()


def test_the_stream_can_be_measured_but_not_rewound(desk: Desk) -> None:
    content = line("a") + line("b")
    with desk.reader(content) as reader:
        assert reader.readable() and reader.seekable() and isinstance(reader, io.IOBase)
        assert reader.seek(0, io.SEEK_END) == reader.tell() == len(content)
        assert reader.seek(-len(content), io.SEEK_CUR) == 0
        assert reader.read(10) == content[:10]
        reader.seek(0)
        with pytest.raises(io.UnsupportedOperation, match="in order"):
            reader.read(10)
        reader.seek(10)
        buffer = bytearray(5)
        assert reader.readinto(buffer) == 5 and buffer == content[10:15]
        assert reader.read() == content[15:]
        assert reader.read(1) == b""


def test_a_reader_is_finished_only_when_all_was_read(desk: Desk) -> None:
    with desk.reader(line("a") + line("b")) as reader:
        reader.read(10)
        with pytest.raises(ValueError, match=r"bytes of requests\.jsonl have not been read"):
            reader.finish()
    assert not desk.keys_path.exists()


def test_closing_stops_the_checking_and_removes_the_keys(desk: Desk) -> None:
    reader = desk.reader(large())
    reader.prime()
    reader.close()
    reader.close()

    assert [thread.name for thread in threading.enumerate() if thread.name == "request-check"] == []
    assert list(desk.path.parent.iterdir()) == [desk.path]
    with pytest.raises(ValueError, match="closed"):
        reader.read(1)


def test_closing_wakes_a_reader_that_waits(desk: Desk) -> None:
    reader = desk.reader(large())
    refused: list[ValueError] = []

    def read() -> None:
        try:
            while reader.read(CHUNK_BYTES):
                reader.close()
        except ValueError as error:
            refused.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    thread.join(timeout=30)

    assert len(refused) == 1


def test_a_directory_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PathError):
        file_sha256(tmp_path)
