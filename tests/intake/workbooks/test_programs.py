"""Workbooks that LibreOffice and pandas write, each with its exact outcome. Neither is installed with the tests."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from intake.workbooks.books import BOOKS, CONTENTS, LONG, Book, table, unnamed
from intake.workbooks.writers import by_xlsxwriter
from support.extent import WANTED, in_part
from support.sources import outcome

_SOFFICE: Final = shutil.which("soffice")
#: What `make reference` makes.
_PYTHON: Final = Path(__file__).parents[3] / ".venv-reference/bin/python"
_ENDINGS: Final = ("xlsx", "xls", "ods")
pytestmark = [in_part, pytest.mark.timeout(600), pytest.mark.skipif(not WANTED, reason="all of it in make matrix")]


def _formulas(book: Any) -> None:
    """Formulas as a program that calculates them writes them; LibreOffice calculates them anew."""
    sheet = book.get_worksheet_by_name("Data")
    for row, (formula, value) in enumerate(
        [("=A2*2", 2), ("=A3=2", True), ("=A4/0", "#DIV/0!"), ("=SUM(A2:A4)", 6)], 1
    ):
        sheet.write(row, 0, row)
        sheet.write_formula(row, 1, formula, None, value)


def _money(book: Any) -> None:
    sheet = book.get_worksheet_by_name("Data")
    forms = [("0.00%", 0.125), ("#,##0.00 €", 1234.5), ("[$$-409]#,##0.00", 99.9), ("0.00E+00", 123456), ("# ?/?", 0.5)]
    for row, (form, value) in enumerate(forms, 1):
        sheet.write_number(row, 0, value, book.add_format({"num_format": form}))
    sheet.write_boolean(6, 0, True, book.add_format({"num_format": '"TRUE";"TRUE";"FALSE"'}))


_TAKEN: Final = (
    *(f"{content}, by {writer}" for writer in ("XlsxWriter", "xlwt") for content in CONTENTS),
    "texts as they are, by odfpy", "numbers without noise, by odfpy", "titles above the header",
    "titles above the header, open", "a pair of facts above a wide table", "a column without a name",
    "a column with a name and nothing else", "a name twice", "no header", "a header and nothing else",
    "nothing on two sheets", "merged cells", "two rows of names", "a formula that nobody calculated", "an error",
    "rich text, links, formats", "a long number", "durations", "moments to the millisecond", "several sheets",
    "several sheets, open", "one sheet with rows among empty ones", "a hidden sheet", "rows on a hidden sheet only",
)  # fmt: skip
#: What LibreOffice is given to write as a file of its own.
_GIVEN: Final = (
    *(book for book in BOOKS if book.name in _TAKEN),
    Book("formulas", by_xlsxwriter({"Data": [["n", "v"]]}, _formulas),
         table("n|v", "1|2", "2|TRUE", "3|", "4|6", warns="1 cell with an error such as #N/A counts as empty.")),
    Book("shares and sums of money", by_xlsxwriter({"Data": [["v"]]}, _money),
         table("v", "0.125", "1234.5", "99.9", "123456", "0.5", "TRUE")),
)  # fmt: skip


_TRUE_IS_ONE: Final = table("a|b", "1|yes", "0|no")
_MIXED: Final = table("v", "1", "1", "1", "1", "x")
_ALL_ONES: Final = table("v", "0.125", "1234.5", "99.9", "123456", "0.5", "1")
_CALCULATED: Final = table("id|v", "1|2", "2|5")
_FIFTEEN_DIGITS: Final = table("id|n", "12345678901234600000|1", warns=LONG)
_IN_FIRST_ROW: Final = "Merged cells of an .ods file hold their value in the first row only."
#: Where LibreOffice writes something else than it was given, or the kind of file says less, by book and ending.
_OTHERWISE: Final[Mapping[tuple[str, str], dict[str, Any]]] = {
    # It calculates what nobody has.
    **{("a formula that nobody calculated", ending): _CALCULATED for ending in _ENDINGS},
    # It keeps fifteen digits, and in .xls the number as it is.
    ("a long number", "xlsx"): _FIFTEEN_DIGITS,
    ("a long number", "ods"): _FIFTEEN_DIGITS,
    # A truth value is a number with a format of its own: as 1 here,
    ("shares and sums of money", "xlsx"): _ALL_ONES,
    ("shares and sums of money", "xls"): _ALL_ONES,
    # and where it has none, there.
    ("yes and no, by XlsxWriter", "ods"): _TRUE_IS_ONE,
    ("yes and no, by xlwt", "ods"): _TRUE_IS_ONE,
    ("mixed columns, by XlsxWriter", "ods"): _MIXED,
    ("mixed columns, by xlwt", "ods"): _MIXED,
    ("formulas", "ods"): table(
        "n|v", "1|2", "2|1", "3|", "4|6", warns="1 cell with an error such as #N/A counts as empty."
    ),
    # It cuts moments to a hundredth of a second.
    ("moments to the millisecond", "ods"): table("v", "2024-01-05T23:59:59.990"),
    # What reads .ods files does not tell which cells are merged, and says so.
    ("merged cells", "ods"): table("region|shop|n", "north|a|1", "|b|2", "|c|", "south|d|", warns=_IN_FIRST_ROW),
    ("two rows of names", "ods"): table(
        "id|points|column_3", "|math|art", "1|2|3", "2|4|5", warns=(unnamed(3, "t.ods"), _IN_FIRST_ROW)
    ),
    # What reads .xls files does not tell errors from empty cells.
    ("an error", "xls"): table("id|v", "1|", "2|"),
    ("formulas", "xls"): table("n|v", "1|2", "2|TRUE", "3|", "4|6"),
}

_PLAIN: Final = ("id|text|n", "007|x, y|1", "12345678901234567890|ä € 漢 😀|2.5")
_TWO_DOUBTFUL: Final = LONG.replace("1 number has", "2 numbers have")
_SHOPS: Final = ("region|shop|n", "north|a|1", "north|b|2", "south|c|3")
_LEFT_OUT: Final = '1 line above the header of t.xlsx#Sheet1 was left out: "points".'
#: What comes of each workbook that `frames.py` writes, whichever of its writers pandas takes.
_FRAMES: Final[Mapping[str, dict[str, Any]]] = {
    "plain": table(*_PLAIN),
    "with its index": table(
        "id|text|n|column_1", "007|x, y|1|0", "12345678901234567890|ä € 漢 😀|2.5|1", warns=unnamed(1)
    ),
    "with an index that has a name": table(*_PLAIN),
    "with a label for the index": table("row|id|text|n", "0|007|x, y|1", "1|12345678901234567890|ä € 漢 😀|2.5"),
    "names of two levels": table("math|art|column_1", "2|3|0", "4|5|1", warns=(unnamed(1), _LEFT_OUT)),
    "names of two levels, unmerged": {"refused": "t.xlsx has more than one column named points."},
    "an index of two levels": table(*_SHOPS, warns="1 empty cell got the value of the merged cell that covers it."),
    "an index of two levels, unmerged": table(*_SHOPS),
    "moments": table("at|id", "2024-02-29T10:30:05|1", "1999-12-31|2"),
    "days": table("on|id", "2024-02-29|1", "1999-12-31|2"),
    "times": table("at", "07:05:00", "23:59:59"),
    # pandas writes them as numbers of days.
    "durations": table("took|id", "0.0416666666666667|1", "1.5|2"),
    "what is missing": table("n|at|t", "1||", "|2024-01-05|a"),
    "what is missing, in words": table("n|t", "1|a", "NA|NA"),
    "numbers that may be missing": table("n|t", "1|a", "|b", "3|c"),
    "yes and no": table("is|maybe", "TRUE|", "FALSE|TRUE"),
    "large numbers": table(
        "id|t", "9007199254740991|a", "1152921504606847000|b", "100000000000000|c", warns=_TWO_DOUBTFUL
    ),
    "numbers without an end": table("v", "inf", "-inf", "0.3"),
    "rounded": table("v", "0.33", "0.67"),
    "years as names": table("shop|2023|2024", "a|1|2", "b|3|4"),
    "below other lines": table(*_PLAIN),
    # Nothing tells that these are no names: the preview shows them as such.
    "without names": {"columns": ["007", "x, y", "1"], "rows": [["12345678901234567890", "ä € 漢 😀", "2.5"]]},
    "other names": table("key|words|count", *_PLAIN[1:]),
    "held in place": table(*_PLAIN),
    "categories": table("c|n", "x|1", "y|2", "x|3"),
    "no rows": {"refused": "t.xlsx#Sheet1 has no rows below its header."},
    "several sheets": {
        "refused": "t.xlsx has 2 sheets with rows: Orders (3 lines, 3 columns), Notes 1 (2 lines, 1 column)."
    },
}
#: The same in .ods files, where a moment at midnight is one, and merged cells are not known.
_FRAMES_IN_ODS: Final[Mapping[str, dict[str, Any]]] = {
    "moments": table("at|id", "2024-02-29T10:30:05|1", "1999-12-31T00:00:00|2"),
    "what is missing": table("n|at|t", "1||", "|2024-01-05T00:00:00|a"),
    "an index of two levels": table(_SHOPS[0], "north|a|1", "|b|2", "south|c|3", warns=_IN_FIRST_ROW),
}


def named(expected: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """Return an outcome in which the file has another name."""
    return {
        what: said.replace(old, new) if isinstance(said, str) else [line.replace(old, new) for line in said]
        for what, said in expected.items()
        if what in {"refused", "warnings"}
    } | {what: cells for what, cells in expected.items() if what in {"columns", "rows"}}


def test_there_are_as_many_as_are_taken() -> None:
    assert len(_GIVEN) == len(_TAKEN) + 2
    assert {name for name, _ in _OTHERWISE} <= {book.name for book in _GIVEN}


@pytest.mark.skipif(_SOFFICE is None, reason="LibreOffice's soffice is not installed (tests/README.md)")
@pytest.mark.parametrize("ending", _ENDINGS)
def test_what_libreoffice_writes_is_read_exactly(tmp_path: Path, ending: str) -> None:
    given, written = tmp_path / "given", tmp_path / "written"
    given.mkdir()
    for number, book in enumerate(_GIVEN):
        book.make(given / f"{number}{Path(book.file).suffix}")
    profile = (tmp_path / "profile").as_uri()
    command = [_SOFFICE, "--headless", f"-env:UserInstallation={profile}", "--convert-to", ending, "--outdir", written]
    subprocess.run([*map(str, command), *map(str, sorted(given.iterdir()))], check=True, capture_output=True)

    found, expected = {}, {}
    for number, book in enumerate(_GIVEN):
        path = written / f"t.{ending}"
        (written / f"{number}.{ending}").rename(path)
        found[book.name] = outcome(path)
        expected[book.name] = _OTHERWISE.get((book.name, ending)) or named(book.expected, book.file, path.name)

    assert found == expected


@pytest.mark.skipif(not _PYTHON.exists(), reason="there is no pandas: make reference installs it")
def test_what_pandas_writes_is_read_exactly(tmp_path: Path) -> None:
    subprocess.run([_PYTHON, Path(__file__).with_name("frames.py"), tmp_path], check=True, capture_output=True)

    found = {path.name: outcome(path) for path in tmp_path.iterdir()}

    assert found == {
        (file := f"{name}, by {writer}.{ending}"): named(
            _FRAMES_IN_ODS.get(name, expected) if ending == "ods" else expected, "t.xlsx", file
        )
        for writer, ending in (("openpyxl", "xlsx"), ("xlsxwriter", "xlsx"), ("odf", "ods"))
        for name, expected in _FRAMES.items()
    }
