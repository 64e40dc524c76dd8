"""Tables that once took the square of their size: wide rows, rows without a shared member, quotes that never close."""

import json
import time
from pathlib import Path
from typing import Final

import pytest

from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.errors import BatchError
from gemini_batch_mcp.intake.compose import write_rows
from gemini_batch_mcp.settings import MAX_FILE_BYTES

#: Far above what any of these takes, far below what it took; of the processor, since the machine may be busy.
MOST_SECONDS: Final = 15.0
WIDE: Final = 50_000


def lines_of(*members: dict[str, str]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in members)


def refusal_or_lines(source: Path, prompt: str) -> tuple[str, list[str]]:
    """What is said of a source, and the texts that its rows became."""
    destination = source.with_name("lines")
    order = Order(prompt=prompt)
    try:
        write_rows(source, destination, order=order, keys_path=source.with_name("keys"), max_file_bytes=MAX_FILE_BYTES)
    except BatchError as error:
        return str(error), []
    values = [json.loads(line) for line in destination.read_bytes().splitlines()]
    return "", [value["request"]["contents"][0]["parts"][0]["text"] for value in values]


REFUSED: Final = {
    "a row of 50,000 cells": (
        "t.csv",
        b"a,b,c\n1,2,3\n" + b",".join([b"x"] * WIDE) + b"\n4,5,6\n",
        "line 3: The row has 50,000 cells; the header has 3.",
    ),
    "a row of 50,000 cells of quotes": (
        "t.csv",
        b"a,b,c\n" + b",".join([b'"x""y"'] * WIDE) + b"\n1,2\n",
        "line 3: The row has 2 cells; the header has 3.",
    ),
    "50,000 rows that are too short": (
        "t.csv",
        b"a,b,c\n" + b"1,2\n" * WIDE,
        "t.csv has 50,000 rows that cannot be read; nothing was submitted.",
    ),
    "a header of 50,000 names": (
        "t.csv",
        b",".join(b"c%d" % number for number in range(WIDE)) + b"\n1\n",
        "t.csv has 50,000 columns, more than 16,384.",
    ),
    "a header of 50,000 empty names": (
        "t.csv",
        b"a" + b"," * (WIDE - 1) + b"\n1\n",
        "t.csv has 50,000 columns, more than 16,384.",
    ),
    "quotes that each open a cell and never close": (
        "t.csv",
        b"a,b\n" + b'"x,"y\n' * WIDE,
        "t.csv has 50,000 rows that cannot be read; nothing was submitted.",
    ),
    "an open quote before pairs of quotes": (
        "t.csv",
        b'a,b\n1,"' + b'""' * (1 << 20) + b"x\n2,3\n",
        "line 2: A quote is not closed, or text follows the closing quote.",
    ),
    "backslashes before quotes": (
        "t.csv",
        b'a,b\n"x\\"y",1\n2,"' + b'\\"' * (1 << 20) + b"\n",
        "line 3: A quote is not closed, or text follows the closing quote.",
    ),
    "JSON lines that share no member": (
        "t.jsonl",
        lines_of(*({f"member {number}": "x"} for number in range(17_000))),
        "The rows of t.jsonl have more than 16,384 different members.",
    ),
    "a JSON list whose items share no member": (
        "t.json",
        json.dumps([{f"member {number}": "x"} for number in range(17_000)]).encode(),
        "The rows of t.json have more than 16,384 different members.",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_with_the_right_figure_in_seconds(tmp_path: Path, name: str) -> None:
    file, content, said = REFUSED[name]
    (tmp_path / file).write_bytes(content)
    start = time.process_time()
    refusal, _ = refusal_or_lines(tmp_path / file, "{{a}}")
    assert said in refusal
    assert time.process_time() - start < MOST_SECONDS


def test_rows_that_share_no_member_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(lines_of(*({f"m{number}": f"v{number}"} for number in range(4000)), {"z": "w"}))
    start = time.process_time()
    said, texts = refusal_or_lines(tmp_path / "t.jsonl", "{{m0}}|{{m7}}|{{m3999}}|{{z}}")
    assert said == ""
    assert {number: text for number, text in enumerate(texts) if text != "|||"} == {
        0: "v0|||",
        7: "|v7||",
        3999: "||v3999|",
        4000: "|||w",
    }
    assert len(texts) == 4001
    assert time.process_time() - start < MOST_SECONDS


def test_a_header_of_empty_names_is_warned_about_in_a_few_sentences(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a" + b"," * 5000 + b"\n1" + b"," * 5000 + b"\n")
    file = write_rows(
        tmp_path / "t.csv",
        tmp_path / "lines",
        order=Order(prompt="{{a}}"),
        keys_path=tmp_path / "keys",
        max_file_bytes=MAX_FILE_BYTES,
    )
    assert file.warnings[9] == "Column 11 of t.csv has no name in the header; it is named column_11."
    assert file.warnings[10] == (
        "4,990 more columns of t.csv have no name in the header; each is named by its number, such as column_5001."
    )
    assert len(file.warnings) == 11
