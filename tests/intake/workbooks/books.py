"""Workbooks of many writers, each with its exact outcome: every cell as it is sent, or the refusal with its reason."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any, Final

from openpyxl.worksheet.datavalidation import DataValidation

from intake.workbooks.writers import (
    Make,
    Rows,
    by_hand,
    by_odfpy,
    by_openpyxl,
    by_xlsxwriter,
    by_xlwt,
    cells,
    encrypted,
    in_constant_memory,
    open_by_hand,
    open_rows,
    zipped,
)


@dataclass(frozen=True)
class Book:
    """A workbook and its one outcome, as `outcome` returns it."""

    name: str
    make: Make
    expected: dict[str, Any]
    file: str = "t.xlsx"


def table(*rows: str, warns: str | tuple[str, ...] = ()) -> dict[str, Any]:
    """The outcome of a sheet: its header and rows, cells between bars."""
    header, *others = (row.split("|") for row in rows)
    warnings = [warns] if isinstance(warns, str) else list(warns)
    return {"columns": header, "rows": others} | ({"warnings": warnings} if warnings else {})


def unnamed(number: int, file: str = "t.xlsx") -> str:
    return f"Column {number} of {file} has no name in the header; it is called column_{number}."


WRITERS: Final[dict[str, tuple[Callable[[dict[str, Rows]], Make], str]]] = {
    "openpyxl": (by_openpyxl, "t.xlsx"),
    "XlsxWriter": (by_xlsxwriter, "t.xlsx"),
    "XlsxWriter in constant memory": (in_constant_memory, "t.xlsm"),
    "xlwt": (by_xlwt, "t.xls"),
    "odfpy": (by_odfpy, "t.ods"),
}
#: Rows that every writer can write, and what comes of them.
CONTENTS: Final[dict[str, tuple[Rows, tuple[str, ...]]]] = {
    "texts as they are": (
        [["id", "text"], ["007", "x, y"], ["+49 30 1", 'say "no"'], ["1e5", "a\nb"], ["TRUE", "ä € 漢 😀"]],
        ("id|text", "007|x, y", '+49 30 1|say "no"', "1e5|a\nb", "TRUE|ä € 漢 😀"),
    ),
    "numbers without noise": (
        [["n", "m"], [1, 1.5], [-2, 0.1 + 0.2], [0, 1e-7], [999_999_999_999_999, 2.50], [100_000, 1 / 3]],
        ("n|m", "1|1.5", "-2|0.3", "0|0.0000001", "999999999999999|2.5", "100000|0.333333333333333"),
    ),
    "yes and no": ([["a", "b"], [True, "yes"], [False, "no"]], ("a|b", "TRUE|yes", "FALSE|no")),
    "dates": (
        [["on", "id"], [date(2024, 2, 29), 1], [date(1999, 12, 31), 2], [datetime(2024, 1, 5, 10, 30), 3]],
        ("on|id", "2024-02-29|1", "1999-12-31|2", "2024-01-05T10:30:00|3"),
    ),
    "times": (
        [["at", "id"], [time(7, 5), 1], [time(23, 59, 59), 2]],
        ("at|id", "07:05:00|1", "23:59:59|2"),
    ),
    "empty rows and columns": (
        [[None, None, None], [None, "id", None, "text"], [None, None, None, None], [None, "1", None, "a"], [None] * 4,
         [None, "2", None, None], [None, None, None, "b"]],
        ("id|text", "1|a", "2|", "|b"),
    ),
    "one column": ([["text"], ["a"], [None], ["b"]], ("text", "a", "b")),
    "names with spaces": ([["customer  id", " the\ntext "], ["1", "a"]], ("customer id|the text", "1|a")),
    "mixed columns": ([["v"], [1], ["1"], [1.0], [True], ["x"]], ("v", "1", "1", "1", "TRUE", "x")),
    "long ids as texts": (
        [["id", "n"], ["12345678901234567890", 1], ["00000000000000000001", 2]],
        ("id|n", "12345678901234567890|1", "00000000000000000001|2"),
    ),
}  # fmt: skip
EVERYWHERE: Final = tuple(
    Book(f"{content}, by {writer}", make({"Data": rows}), table(*expected), file)
    for content, (rows, expected) in CONTENTS.items()
    for writer, (make, file) in WRITERS.items()
)
LONG: Final = (
    "1 number has more than 15 digits, which spreadsheets do not keep. If these are ids, format their column as text "
    "where they come from."
)
TITLED: Final[Rows] = [["Report of May"], ["all shops"], [], ["id", "text", "n"], ["1", "a", 2], ["2", "b", 3]]
TITLES: Final = '2 lines above the header of {}#Data were left out: "Report of May", "all shops".'
TWO: Final[dict[str, Rows]] = {
    "Orders": [["id", "n"], *[[number, 1] for number in range(1204)]],
    "Notes 1": [["read me"]],
    "Empty": [],
}
SEVERAL: Final = "{} has 2 sheets with rows: Orders (1,205 lines, 2 columns), Notes 1 (1 line, 1 column)."
UNCALCULATED: Final = (
    "1 formula has no value and will be sent as empty: no spreadsheet program has calculated the file. Open it in one, "
    "and save it."
)


def merged(book: Any) -> None:
    sheet = book["Data"]
    sheet.merge_cells("A2:A4")
    sheet.merge_cells("C3:C4")
    sheet.merge_cells("B5:C5")


def merged_by_xlwt(book: Any) -> None:
    book.get_sheet(0).write_merge(1, 3, 0, 0, "north")


def two_headers(book: Any) -> None:
    book["Data"].merge_cells("B1:C1")
    book["Data"].merge_cells("A1:A2")


def hide(title: str) -> Callable[[Any], object]:
    def change(book: Any) -> None:
        book[title].sheet_state = "hidden"

    return change


def choices(book: Any) -> None:
    """What people really have: drop-down lists on a sheet that nobody sees, a filter, a comment, a chart sheet."""
    hide("Lists")(book)
    sheet = book["Data"]
    sheet.add_data_validation(DataValidation(type="list", formula1="Lists!$A$1:$A$2"))
    sheet.auto_filter.ref = "A1:B3"
    book.create_chartsheet("Chart")


def results(book: Any) -> None:
    sheet = book.get_worksheet_by_name("Data")
    for row, (formula, value) in enumerate(
        [("=1+1", 2), ('="a"&"b"', "ab"), ("=1=1", True), ("=1/0", "#DIV/0!"), ("=TODAY()", 45000.5)], 1
    ):
        sheet.write(row, 0, row)
        sheet.write_formula(row, 1, formula, None, value)


def rich(book: Any) -> None:
    sheet, bold = book.get_worksheet_by_name("Data"), book.add_format({"bold": True})
    sheet.write_rich_string(1, 0, "a ", bold, "bold", " word")
    sheet.write_url(2, 0, "https://example.com", string="a link")
    sheet.write_comment(2, 0, "a remark")
    sheet.write_blank(3, 0, None, bold)
    sheet.write_number(4, 0, 0.25, book.add_format({"num_format": "0%"}))
    sheet.write_number(5, 0, 1234.5, book.add_format({"num_format": '#,##0.00 "EUR"'}))
    sheet.write_number(6, 0, 1.5, book.add_format({"num_format": "[h]:mm"}))


MERGED: Final[dict[str, Rows]] = {
    "Data": [["region", "shop", "n"], ["north", "a", 1], [None, "b", 2], [None, "c", None], ["south", "d", None]]
}
HEADERS: Final[dict[str, Rows]] = {"Data": [["id", "points", None], [None, "math", "art"], ["1", 2, 3], ["2", 4, 5]]}
LISTS: Final[dict[str, Rows]] = {"Data": [["id", "n"], ["1", "x"], ["2", "y"]], "Lists": [["x"], ["y"]]}
XML: Final = '<c t="inlineStr"><is><t>{}</t></is></c>'

# fmt: off
SPECIAL: Final = (
    Book("titles above the header", by_openpyxl({"Data": TITLED}),
         table("id|text|n", "1|a|2", "2|b|3", warns=TITLES.format("t.xlsx"))),
    Book("titles above the header, old", by_xlwt({"Data": TITLED}),
         table("id|text|n", "1|a|2", "2|b|3", warns=TITLES.format("t.xls")), "t.xls"),
    Book("titles above the header, open", by_odfpy({"Data": TITLED}),
         table("id|text|n", "1|a|2", "2|b|3", warns=TITLES.format("t.ods")), "t.ods"),
    Book("a pair of facts above a wide table", by_openpyxl({"Data": [
        ["made on", date(2024, 1, 5)], ["a", "b", "c", "d", "e"], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]}),
        table("a|b|c|d|e", "1|2|3|4|5", "1|2|3|4|5",
              warns='1 line above the header of t.xlsx#Data was left out: "made on".')),
    Book("a column without a name", by_openpyxl({"Data": [["id", None, "n"], [1, "x", 2], [3, None, 4]]}),
         table("id|n|column_2", "1|2|x", "3|4|", warns=unnamed(2))),
    Book("a cell beyond the header, far below",
         by_openpyxl({"Data": [["id", "n"], *[[1, 2]] * 1500, [3, 4, None, "x"]]}),
         table("id|n|column_4", *["1|2|"] * 1500, "3|4|x", warns=unnamed(4))),
    Book("a column with a name and nothing else", by_openpyxl({"Data": [["id", "later"], [1, None], [2, None]]}),
         table("id|later", "1|", "2|")),
    Book("a name twice", by_openpyxl({"Data": [["id", "id"], [1, 2]]}),
         {"refused": "t.xlsx has more than one column named id."}),
    Book("no header", by_openpyxl({"Data": [[1, 2024], [2, 2025]]}),
         {"refused": "t.xlsx has no header: its first line is 1, 2024."}),
    Book("a header and nothing else", by_openpyxl({"Data": [["id", "n"]]}),
         {"refused": "t.xlsx#Data has no rows below its header."}),
    Book("nothing at all", by_openpyxl({"Data": []}), {"refused": "t.xlsx#Data has no rows."}),
    Book("nothing on two sheets", by_openpyxl({"Data": [], "More": []}), {"refused": "t.xlsx has no rows."}),
    Book("merged cells", by_openpyxl(MERGED, merged), table(
        "region|shop|n", "north|a|1", "north|b|2", "north|c|2", "south|d|",
        warns="3 empty cells got the value of the merged cell that covers them.")),
    Book("merged cells, old", by_xlwt({"Data": [["region", "n"], [None, 1], [None, 2], [None, 3]]}, merged_by_xlwt),
         table("region|n", "north|1", "north|2", "north|3",
               warns="2 empty cells got the value of the merged cell that covers them."), "t.xls"),
    Book("two rows of names", by_openpyxl(HEADERS, two_headers), table("id|points math|points art", "1|2|3", "2|4|5")),
    Book("formulas with their values", by_xlsxwriter({"Data": [["id", "v"]]}, results),
         table("id|v", "1|2", "2|ab", "3|TRUE", "4|", "5|45000.5",
               warns="1 cell with an error such as #N/A counts as empty.")),
    Book("a formula that nobody calculated", by_openpyxl({"Data": [["id", "v"], [1, "=A2*2"], [2, 5]]}),
         table("id|v", "1|", "2|5", warns=UNCALCULATED)),
    Book("an error", by_openpyxl({"Data": [["id", "v"], [1, "#N/A"], [2, "#REF!"]]}),
         table("id|v", "1|", "2|", warns="2 cells with an error such as #N/A count as empty.")),
    Book("rich text, links, formats", by_xlsxwriter({"Data": [["v"]]}, rich),
         table("v", "a bold word", "a link", "0.25", "1234.5", "36:00:00")),
    Book("a long number", by_xlsxwriter({"Data": [["id", "n"], [12345678901234567890, 1]]}),
         table("id|n", "12345678901234570000|1", warns=LONG)),
    Book("a very small and a very large number", by_xlsxwriter({"Data": [["v"], [1.5e-300], [1e300]]}),
         table("v", "1.5e-300", f"1{'0' * 300}", warns=LONG)),
    Book("durations", by_openpyxl({"Data": [["v"], [timedelta(hours=26, minutes=30)], [timedelta(seconds=1.5)]]}),
         table("v", "26:30:00", "00:00:01.500")),
    Book("moments to the millisecond", by_openpyxl({"Data": [["v"], [datetime(2024, 1, 5, 23, 59, 59, 999_600)]]}),
         table("v", "2024-01-06T00:00:00")),
    Book("days from 1904", by_hand(
        cells("on") + '<row><c s="1"><v>1</v></c></row>', workbook='<workbookPr date1904="1"/>'),
        table("on", "1904-01-02")),
    Book("several sheets", by_openpyxl(TWO), {"refused": SEVERAL.format("t.xlsx")}),
    Book("several sheets, old", by_xlwt(TWO), {"refused": SEVERAL.format("t.xls")}, "t.xls"),
    Book("several sheets, open", by_odfpy(TWO), {"refused": SEVERAL.format("t.ods")}, "t.ods"),
    Book("one sheet with rows among empty ones", by_openpyxl({"Empty": [], "Data": [["a"], [1]], "Sheet3": []}),
         table("a", "1")),
    Book("a hidden sheet", by_openpyxl(LISTS, choices),
         table("id|n", "1|x", "2|y", warns="The hidden sheet Lists of t.xlsx was left out.")),
    Book("rows on a hidden sheet only", by_openpyxl({"Front": [], "Data": [["a"], [1]]}, hide("Data")),
         {"refused": "t.xlsx has rows on hidden sheets only: Data."}),
    Book("cells without places", by_hand(cells("id|text", "1|a", "2|b")), table("id|text", "1|a", "2|b")),
    Book("names with a prefix", by_hand(
        '<x:row><x:c t="inlineStr"><x:is><x:t>id</x:t></x:is></x:c></x:row><x:row><x:c><x:v>7</x:v></x:c></x:row>',
        prefix="x"), table("id", "7")),
    Book("texts in a table of their own, with readings beside them", by_hand(
        '<row><c r="A1" t="s"><v>0</v></c></row><row><c r="A2" t="s"><v>1</v></c></row>',
        shared=("<t>名前</t>", "<r><t>東</t></r><r><t>京</t></r><rPh sb='0' eb='2'><t>トウキョウ</t></rPh>")),
        table("名前", "東京")),
    Book("escaped characters", by_hand(cells("text", "a_x000D_b", "&lt;p&gt; &amp;amp; &#228;")),
         table("text", "a\rb", "<p> &amp; ä")),
    Book("spaces that count", by_hand(
        cells("text") + '<row><c t="inlineStr"><is><t xml:space="preserve">  a  </t></is></c></row>'),
        table("text", "  a  ")),
    Book("dates as texts of ISO", by_hand(cells("on") + '<row><c t="d"><v>2024-01-05T10:30:00</v></c></row>'),
         table("on", "2024-01-05T10:30:00")),
    Book("a date in a format of its own", by_hand(cells("on") + '<row><c s="2"><v>45296.4375</v></c></row>'),
         table("on", "2024-01-05T10:30:00")),
    Book("rows far apart", by_hand(
        f'<row r="3">{XML.format("id")}</row><row r="90000"><c r="A90000"><v>1</v></c></row>'), table("id", "1")),
    Book("cells that are formatted and empty to the last column", by_hand(
        cells("id", "1") + '<row r="9"><c r="XFD9" s="1"/></row>'), table("id", "1")),
    Book("a password", encrypted, {"refused": "t.xlsx is protected by a password."}),
    Book("a password, open", zipped(
        mimetype="application/vnd.oasis.opendocument.spreadsheet", content_xml="x",
        **{"META-INF__manifest_xml": "<m:encryption-data/>"}),
        {"refused": "t.ods is protected by a password."}, "t.ods"),
    Book("a page by that name", lambda path: path.write_text("<html><table><tr><td>a"),
         {"refused": "t.xls is not a spreadsheet: it contains HTML or XML."}, "t.xls"),
    Book("a CSV file by that name", lambda path: path.write_text("id,text\n1,a\n"),
         {"refused": "t.xls is not a spreadsheet: it contains text."}, "t.xls"),
    Book("an empty file", lambda path: path.write_bytes(b""), {"refused": "t.xlsx is empty."}),
    Book("a Word document", zipped(word__document_xml="x"),
         {"refused": "t.xlsx is a Word document, not a spreadsheet."}),
    Book("an archive", zipped(a_csv="x"), {"refused": "t.xlsx is a ZIP archive, not a spreadsheet."}),
    Book("a binary workbook", zipped(xl__workbook_bin="x"),
         {"refused": "t.xlsx is a binary workbook (.xlsb), which is not read here."}),
    Book("a text document", zipped(mimetype="application/vnd.oasis.opendocument.text", content_xml="x"),
         {"refused": "t.ods is a document, not a spreadsheet."}, "t.ods"),
    Book("bytes of no kind", lambda path: path.write_bytes(bytes(range(256)) * 4),
         {"refused": "t.xlsx is damaged, or is not a spreadsheet."}),
    Book("an .xlsx file that was called .xls", by_openpyxl({"Data": [["a"], ["x"]]}), table("a", "x"), "t.xls"),
    Book("an .xls file that was called .xlsx", by_xlwt({"Data": [["a"], ["x"]]}), table("a", "x")),
    Book("capital letters", by_xlwt({"Data": [["a"], ["x"]]}), table("a", "x"), "T.XLS"),
    Book("an entity that grows", by_hand(
        cells("a", "&amp;b"), around='<!-- -->{}'), table("a", "&b")),
    Book("durations, open", open_by_hand(Data=open_rows(
        "text:v", "time:PT23H59M59S", "time:PT26H30M00S", "time:-PT01H30M00S", "time:PT1000H00M01.5S", "time:P1DT1H",
        "time:PT90M", "text:PT")),
        table("v", "23:59:59", "26:30:00", "-01:30:00", "1000:00:01.500", "25:00:00", "01:30:00", "PT"), "t.ods"),
    Book("errors on one of two sheets, open", open_by_hand(
        Empty="", **{"A &amp; B": open_rows("text:v", "text:a", "error:#N/A", "text:b")}),
        table("v", "a", "b", warns="1 cell with an error such as #N/A counts as empty."), "t.ods"),
)
# fmt: on
BOOKS: Final = (*EVERYWHERE, *SPECIAL)
