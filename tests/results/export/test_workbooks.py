"""Workbooks as Excel would read them: typed cells, text that stays text, a header, and limits that are told."""

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from gemini_batch_mcp.domain import SavedFile
from gemini_batch_mcp.results.export import _xlsx
from gemini_batch_mcp.results.export.formats import export_selected
from support.loading import scratch

MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def saved(directory: Path, select: str, name: str = "answers") -> SavedFile:
    parts = directory / "rows.parquet"
    parts.unlink(missing_ok=True)
    scratch().execute(f"COPY ({select}) TO '{parts}'")
    return export_selected(parts, directory / "out.xlsx", "xlsx", home=directory, name=name)


def sheet(path: Path, number: int = 1) -> ElementTree.Element:
    with zipfile.ZipFile(path) as archive:
        return ElementTree.fromstring(archive.read(f"xl/worksheets/sheet{number}.xml"))


def rows(path: Path, number: int = 1) -> Iterator[list[tuple[str, str]]]:
    """Each row as the type and the content of its cells; `inlineStr` is text, `n` a number, `b` a boolean."""
    for row in sheet(path, number).iter(f"{MAIN}row"):
        yield [(cell.get("t", "n"), "".join(cell.itertext())) for cell in row]


def names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return re.findall(r'<sheet name="([^"]*)"', archive.read("xl/workbook.xml").decode())


def test_cells_have_types_and_the_header_stays_in_sight(tmp_path: Path) -> None:
    path = saved(
        tmp_path,
        """SELECT '007' AS code, 3 AS stars, 0.1::FLOAT AS share, true AS sold, DATE '2026-11-29' AS day,
        TIMESTAMPTZ '2026-11-29 12:00:00+02' AS at, ['a', 'b'] AS tags, NULL::INTEGER AS nothing,
        1.50::DECIMAL(5, 2) AS price,
        'infinity'::DOUBLE AS most, DATE '1815-12-10' AS long_ago""",
    ).path
    header, row = rows(path)
    assert [text for _, text in header][:3] == ["code", "stars", "share"]
    assert row == [
        ("inlineStr", "007"),
        ("n", "3"),
        ("n", "0.1"),
        ("b", "1"),
        ("n", "46355"),
        ("n", "46355.41666666666"),
        ("inlineStr", '["a","b"]'),
        ("n", "1.5"),
        ("inlineStr", "inf"),
        ("inlineStr", "1815-12-10"),
    ]
    found = sheet(path)
    pane = found.find(f".//{MAIN}pane")
    assert pane is not None and (pane.get("ySplit"), pane.get("state")) == ("1", "frozen")
    autofilter = found.find(f"{MAIN}autoFilter")
    assert autofilter is not None and autofilter.get("ref") == "A1:K2"
    widths = [float(column.get("width", 0)) for column in found.iter(f"{MAIN}col") for _ in [0]]
    assert all(8 <= width <= 62 for width in widths)


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "@SUM(A1)",
        "{=1}",
        "http://example.com",
        "mailto:a@b.c",
        "1",
        "1e5",
        "  spaced ",
        "_x0041_",
        "a\x01b",
    ],
)
def test_text_stays_text_whatever_it_looks_like(tmp_path: Path, text: str) -> None:
    path = saved(tmp_path, f"SELECT '{text}' AS cell").path
    _, ((kind, content),) = rows(path)
    assert kind == "inlineStr"
    # How a workbook writes what XML cannot hold (ECMA-376, 22.9.2.19), and what only looks like it.
    assert re.sub("_x([0-9A-F]{4})_", lambda found: chr(int(found[1], 16)), content) == text
    with zipfile.ZipFile(path) as archive:
        assert not any(
            b"<f>" in archive.read(name) or b"hyperlink" in archive.read(name) for name in archive.namelist()
        )


def test_numbers_that_excel_would_change_are_text_in_the_whole_column(tmp_path: Path) -> None:
    path = saved(tmp_path, "SELECT unnest([1, 9007199254740993]) AS big, unnest([1, 999999999999999]) AS fits").path
    assert list(rows(path))[1:] == [
        [("inlineStr", "1"), ("n", "1")],
        [("inlineStr", "9007199254740993"), ("n", "999999999999999")],
    ]


@pytest.mark.parametrize("letter", ["x", "é", "\U0001f600"])
def test_a_cell_beyond_what_excel_holds_is_cut_and_told(tmp_path: Path, letter: str) -> None:
    units = 2 if letter > "\uffff" else 1
    fits, many = 32_767 // units, 40_000 // units
    file = saved(tmp_path, f"SELECT repeat('{letter}', {fits}) AS a, repeat('{letter}', {many}) AS b, 'x' AS c")
    _, ((_, whole), (_, cut), _) = rows(file.path)
    assert whole == letter * fits
    assert len(cut.encode("utf-16-le")) // 2 <= 32_767
    assert cut.rstrip("…") == letter * (32_766 // units)
    assert file.notes == (
        "1 cell was cut to the 32,767 characters that Excel allows; csv, parquet and jsonl keep all.",
    )


def test_rows_that_a_sheet_cannot_hold_follow_on_the_next_and_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_xlsx, "MAX_SHEET_ROWS", 2_000)
    file = saved(tmp_path, "SELECT i AS n FROM range(4000) t(i)", name="My: [reviews] / of *2026*?")
    assert names(file.path) == ["My reviews of 2026", "My reviews of 2026 2", "My reviews of 2026 3"]
    found = [[row[0][1] for row in rows(file.path, number)] for number in (1, 2, 3)]
    assert [len(sheet) for sheet in found] == [2000, 2000, 3]
    assert [sheet[0] for sheet in found] == ["n"] * 3
    assert [number for sheet in found for number in sheet[1:]] == [str(number) for number in range(4000)]
    assert (file.rows, file.notes) == (4000, ("The 4,000 rows are on 3 sheets, as a sheet has room for 2,000.",))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("", "answers"), ("History", "History answers"), ("'quoted'", "quoted"), ("x" * 40, "x" * 31)],
)
def test_a_sheet_has_a_name_that_excel_takes(tmp_path: Path, name: str, expected: str) -> None:
    assert names(saved(tmp_path, "SELECT 1 AS a WHERE false", name=name).path) == [expected]
