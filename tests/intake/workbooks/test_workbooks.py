"""Workbooks of many writers are read exactly or refused with the reason; so are parts of large ones and broken ones."""

from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.intake.workbooks.sheets import write_sheet
from intake.workbooks.books import BOOKS, EVERYWHERE, SPECIAL, WRITERS, XML, Book
from intake.workbooks.writers import Make, Rows, by_hand, by_openpyxl, cells, in_constant_memory
from support.conversation import Conversation
from support.extent import in_part, part
from support.sources import outcome


def cut(make: Make, bytes_left: float) -> Make:
    def made(path: Path) -> None:
        make(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * bytes_left)])

    return made


def test_there_are_many_and_each_has_a_name_of_its_own() -> None:
    assert len({book.name for book in BOOKS}) == len(BOOKS) >= 100


@in_part
@pytest.mark.parametrize("book", [*part(EVERYWHERE, 4), *part(SPECIAL, 2)], ids=lambda book: book.name)
def test_a_workbook_is_read_exactly_or_refused_with_the_reason(tmp_path: Path, book: Book) -> None:
    path = tmp_path / book.file
    book.make(path)
    before = path.read_bytes()

    assert outcome(path) == book.expected
    assert path.read_bytes() == before
    assert [left.name for left in tmp_path.iterdir()] == [book.file]


@in_part
@pytest.mark.parametrize("writer", part(list(WRITERS), 3))
@pytest.mark.parametrize("bytes_left", part([0.1, 0.5, 0.9, 0.99], 2))
def test_a_workbook_that_ends_too_early_is_refused(tmp_path: Path, writer: str, bytes_left: float) -> None:
    make, file = WRITERS[writer]
    cut(make({"Data": [["id", "text"], *[[number, f"text {number}"] for number in range(500)]]}), bytes_left)(
        tmp_path / file
    )

    said = outcome(tmp_path / file)

    assert "damaged" in said.get("refused", ""), said


def test_a_sheet_that_is_cut_in_parts_is_the_same(tmp_path: Path) -> None:
    """Parts of a kilobyte, so that rows, merged cells and a late column fall on both sides of a cut."""
    rows: Rows = [
        ["title"],
        ["id", "text", "n"],
        *[[n, f'<row r="{n}"> & "x"', n / 4] for n in range(600)],
        [1, "a", 2, "late"],
    ]

    def change(book: Any) -> None:
        book["Data"].merge_cells("B10:B300")

    makes = {
        "one.xlsx": by_openpyxl({"Data": rows, "Other": [["x"]]}, change),
        "two.xlsx": in_constant_memory({"Data": rows}),
        "three.xlsx": by_hand(cells("id|text", *[f"{n}|a" for n in range(600)])),
        "four.xlsx": by_hand(
            cells("on") + '<row><c s="1"><v>1</v></c></row>' * 500, workbook='<workbookPr date1904="1"/>'
        ),
    }
    for name, make in makes.items():
        make(tmp_path / name)
        whole, parts = tmp_path / "whole.csv", tmp_path / "parts.csv"
        expected = write_sheet(tmp_path / name, whole, sheet="Data")
        seen = write_sheet(tmp_path / name, parts, sheet="Data", split_bytes=1000, part_bytes=1000)
        assert parts.read_bytes() == whole.read_bytes(), name
        assert (seen.header, seen.row_count, seen.notes) == (expected.header, expected.row_count, expected.notes)


def test_a_workbook_that_needs_too_much_memory_ends_its_reader_only(tmp_path: Path) -> None:
    corner = '<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'
    by_hand(f'<row r="1">{XML.format("id")}</row>{corner}')(tmp_path / "t.xlsx")

    with pytest.raises(UsageError, match=r"t\.xlsx needs more memory than is allowed \(1,024 MB\)"):
        write_sheet(tmp_path / "t.xlsx", tmp_path / "rows.csv")


@pytest.mark.anyio
async def test_a_sheet_is_named_after_its_book_and_a_file_of_that_name_goes_first(
    talk: Conversation, data: Path
) -> None:
    by_openpyxl({"Orders 1": [["id", "text"], [1, "a"]], "Q#2": [["id", "text"], [2, "b"], [3, "c"]]})(
        data / "book.xlsx"
    )
    by_openpyxl({"Only": [["id", "text"], [9, "z"]]})(data / "one.xlsx")
    by_openpyxl({"Real": [["id", "text"], [7, "y"]]})(data / "one.xlsx#Only.xlsx")
    order = {"prompt": "{{id}} {{text}}"}

    async def first(source: str) -> tuple[int, str]:
        seen = await talk.call("preview_batch", source=str(data / source), **order)
        assert seen["ok"], seen
        return seen["request_count"], seen["sample"][0]["request"]["contents"][0]["parts"][0]["text"]

    assert await first("book.xlsx#Orders 1") == (1, "1 a")
    assert await first("book.xlsx#q#2") == (2, "2 b")
    assert await first("one.xlsx#Only.xlsx") == (1, "7 y")
    assert "has 2 sheets with rows: Orders 1 (2 lines, 2 columns), Q#2 (3 lines, 2 columns)" in await talk.refusal(
        "preview_batch", source=str(data / "book.xlsx"), **order
    )
    assert "has no sheet 'Nope'; it has Orders 1, Q#2." in await talk.refusal(
        "preview_batch", source=str(data / "book.xlsx#Nope"), **order
    )
    named = await talk.call("create_batch", source=str(data / "one.xlsx#Only"), **order)
    found = await talk.call("create_batch", source=str(data / "one.xlsx"), **order)
    assert (found["batch_id"], found["reused"]) == (named["batch_id"], True)
    other = await talk.call("create_batch", source=str(data / "book.xlsx#Q#2"), **order)
    one = await talk.call("create_batch", source=str(data / "book.xlsx#Orders 1"), **order)
    assert len({named["batch_id"], other["batch_id"], one["batch_id"]}) == 3
