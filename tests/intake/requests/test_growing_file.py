"""A file that is read while it is written: nothing is taken for a line before its bytes are there."""

from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.errors import StorageError
from gemini_batch_mcp.intake.compose import write_rows
from gemini_batch_mcp.intake.requests.inspection import GrowingFile
from gemini_batch_mcp.settings import MAX_FILE_BYTES

LINES = [b'{"key":"%d","text":"%s"}\n' % (number, b"x" * (number * 7919 % 3000)) for number in range(300)]
WHOLE = b"".join(LINES)


class _Writer:
    """Writes parts of a file at their places, in any order, as the engine's threads do."""

    def __init__(self, path: Path) -> None:
        self.done: Future[int] = Future()
        self._file = path.open("wb", buffering=0)

    def put(self, start: int, end: int) -> None:
        self._file.seek(start)
        self._file.write(WHOLE[start:end])

    def finish(self) -> None:
        self._file.close()
        self.done.set_result(len(LINES))


def test_a_file_that_is_long_before_it_is_full_is_read_up_to_the_first_gap(tmp_path: Path) -> None:
    writer = _Writer(tmp_path / "lines")
    ends = [0, 5000, 5001, 90_000, len(WHOLE)]
    spans = list(pairwise(ends))
    with GrowingFile(tmp_path / "lines", writer.done) as growing:
        writer.put(*spans[0])
        # One byte of a line's end, and all that comes after it: the length is that of the whole file.
        writer.put(*spans[2])
        writer.put(*spans[3])
        assert growing.read(1 << 20) == WHOLE[:5000]
        writer.put(*spans[1])
        assert growing.read(1 << 20) == WHOLE[5000:]
        writer.finish()
        assert growing.read(1 << 20) == b""


def test_every_byte_is_read_whatever_the_order_in_which_parts_are_written(tmp_path: Path) -> None:
    for seed in range(30):
        random = Random(seed)
        cuts = sorted({0, len(WHOLE), *(random.randrange(len(WHOLE)) for _ in range(40))})
        spans = list(pairwise(cuts))
        random.shuffle(spans)
        writer = _Writer(tmp_path / f"lines-{seed}")

        def write(writer: _Writer = writer, spans: list[tuple[int, int]] = spans) -> None:
            for span in spans:
                writer.put(*span)
            writer.finish()

        with ThreadPoolExecutor(1) as pool, GrowingFile(tmp_path / f"lines-{seed}", writer.done) as growing:
            pool.submit(write)
            assert b"".join(iter(lambda: growing.read(1 << 14), b"")) == WHOLE


def test_a_gap_that_is_never_filled_is_no_end(tmp_path: Path) -> None:
    writer = _Writer(tmp_path / "lines")
    writer.put(0, 100)
    writer.put(200, len(WHOLE))
    writer.finish()
    with GrowingFile(tmp_path / "lines", writer.done) as growing:
        assert growing.read(1 << 20) == WHOLE[:100]
        with pytest.raises(StorageError, match=r"were not written completely\. Submit the order again\."):
            growing.read(1 << 20)


def test_rows_of_megabytes_become_as_many_lines_as_there_are_rows(tmp_path: Path) -> None:
    """Of these, the engine writes the last byte of the file before the ones in its middle."""
    texts = [chr(ord("a") + number) * 3_000_000 for number in range(8)]
    (tmp_path / "t.csv").write_text("text\n" + "\n".join(texts) + "\n", encoding="utf-8")
    order = Order(model="gemini-3.6-flash", prompt="{{text}}")
    destination = tmp_path / "lines.jsonl"
    file = write_rows(
        tmp_path / "t.csv", destination, order=order, keys_path=tmp_path / "keys", max_file_bytes=MAX_FILE_BYTES
    )
    assert file.count == len(texts)
    lines = destination.read_bytes().splitlines()
    assert [line.count(text.encode()) for line, text in zip(lines, texts, strict=True)] == [1] * len(texts)
