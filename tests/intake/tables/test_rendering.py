"""Lines that are made outside of the engine: the same bytes as the engine's, and rows of any width."""

import json
from pathlib import Path

import pytest

from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.intake.compose import write_rows
from gemini_batch_mcp.intake.tables.memory import EFFORTS
from gemini_batch_mcp.intake.tables.reading import open_table
from gemini_batch_mcp.intake.tables.sql import Marked, RowKey
from gemini_batch_mcp.intake.template import Column, Template

#: Every control character, quotes, backslashes, what ends lines elsewhere, and characters of up to four bytes.
TEXTS = [
    "".join(map(chr, range(1, 32))),
    *('"', "\\", '\\u001b "\\"', "/</script>", "\x7f\x80\u2028\u2029\ufeff\uffff", "é中\U0001f600", "", " a ", "{{b}}"),
]


def table_file(directory: Path, rows: list[dict[str, str]]) -> Path:
    path = directory / "table.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_both_ways_make_the_same_lines(tmp_path: Path) -> None:
    rows = [{"a": text, "b": other} for text in TEXTS for other in TEXTS[:6]]
    columns = Column("a"), Column("b")
    form = (
        '{"key":',
        RowKey(("a", "b")),
        ',"x":',
        Template(('"\x1b\\', *columns, "\n{{", columns[0])),
        ",",
        Marked("b"),
    )
    written = []
    with open_table(table_file(tmp_path, rows), tmp_path) as table:
        for effort in EFFORTS[:2]:
            path = tmp_path / f"{effort.memory_megabytes}.jsonl"
            assert table.write_lines((*form, "}"), path, effort=effort) == len(rows)
            written.append(path.read_bytes())
    assert written[0] == written[1]


def composed(directory: Path, cell: str, prompt: str, rows: int = 3) -> list[str]:
    """Return the texts of the requests that a table of equal cells becomes."""
    source = table_file(directory, [{"id": str(number), "a": cell} for number in range(rows)])
    order = Order(source=str(source), prompt=prompt)
    written = write_rows(source, directory / "out.jsonl", order=order, keys_path=directory / "keys.jsonl")
    assert written.count == rows
    lines = [json.loads(line) for line in written.path.read_text(encoding="utf-8").splitlines()]
    return [line["request"]["contents"][0]["parts"][0]["text"] for line in lines]


@pytest.mark.parametrize(("chars", "times"), [(15_000, 100), (100_000, 4), (400_000, 1), (15, 1000)])
def test_a_column_may_be_named_as_often_as_its_lines_fit(tmp_path: Path, chars: int, times: int) -> None:
    assert composed(tmp_path, "x" * chars, "{{a}}" * times) == ["x" * chars * times] * 3


def test_a_long_prompt_is_a_prompt(tmp_path: Path) -> None:
    assert composed(tmp_path, "x", "y" * 2_000_000 + "{{a}}") == ["y" * 2_000_000 + "x"] * 3


def test_a_row_that_becomes_too_large_is_named_before_it_is_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        composed(tmp_path, "x" * 500_000, "{{a}}" * 1000)
    assert str(raised.value) == (
        "Row 1 of table.jsonl makes a request of about 500,000,073 bytes, more than 20,971,520. "
        "Shorten its cells, or use the column fewer times in the prompt."
    )
