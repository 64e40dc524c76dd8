"""Workbooks as programs write them: openpyxl, XlsxWriter, xlwt, odfpy, and XML by hand for what none of them writes."""

import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import openpyxl
import xlsxwriter
import xlwt
from odf.opendocument import OpenDocumentSpreadsheet
from odf.table import Table, TableCell, TableRow
from odf.text import P

Rows = Sequence[Sequence[Any]]
Make = Callable[[Path], object]

_FORMATS: Final = {datetime: "yyyy-mm-dd hh:mm:ss", date: "yyyy-mm-dd", time: "hh:mm:ss", timedelta: "[h]:mm:ss"}


def by_openpyxl(sheets: Mapping[str, Rows], change: Callable[[Any], object] | None = None) -> Make:
    def make(path: Path) -> None:
        book = openpyxl.Workbook()
        book.remove(book.active)
        for title, rows in sheets.items():
            sheet = book.create_sheet(title)
            for row in rows:
                sheet.append(list(row))
        if change is not None:
            change(book)
        book.save(path)

    return make


def by_xlsxwriter(
    sheets: Mapping[str, Rows], change: Callable[[Any], object] | None = None, *, constant: bool = False
) -> Make:
    def make(path: Path) -> None:
        options = {"constant_memory": constant, "strings_to_numbers": False, "strings_to_formulas": False}
        with xlsxwriter.Workbook(path, options) as book:
            formats = {kind: book.add_format({"num_format": form}) for kind, form in _FORMATS.items()}
            for title, rows in sheets.items():
                sheet = book.add_worksheet(title)
                for number, row in enumerate(rows):
                    for place, cell in enumerate(row):
                        if cell is not None:
                            sheet.write(number, place, cell, formats.get(type(cell)))
            if change is not None:
                change(book)

    return make


def in_constant_memory(sheets: Mapping[str, Rows]) -> Make:
    """Texts stand in the cells then, and not in a table of their own."""
    return by_xlsxwriter(sheets, constant=True)


def by_xlwt(sheets: Mapping[str, Rows], change: Callable[[Any], object] | None = None) -> Make:
    def make(path: Path) -> None:
        book = xlwt.Workbook()
        for title, rows in sheets.items():
            sheet = book.add_sheet(title)
            for number, row in enumerate(rows):
                for place, cell in enumerate(row):
                    style = xlwt.XFStyle()
                    style.num_format_str = _FORMATS.get(type(cell), "General")
                    if cell is not None:
                        sheet.write(number, place, cell, style)
        if change is not None:
            change(book)
        book.save(str(path))

    return make


def by_odfpy(sheets: Mapping[str, Rows]) -> Make:
    def make(path: Path) -> None:
        document = OpenDocumentSpreadsheet()
        for title, rows in sheets.items():
            table = Table(name=title)
            for row in rows:
                line = TableRow()
                for cell in row:
                    line.addElement(_odf_cell(cell))
                table.addElement(line)
            document.spreadsheet.addElement(table)
        document.save(str(path))

    return make


def _odf_cell(value: Any) -> Any:
    match value:
        case None:
            return TableCell()
        case bool():
            return TableCell(valuetype="boolean", booleanvalue=str(value).lower())
        case int() | float():
            return TableCell(valuetype="float", value=repr(value))
        case datetime() | date():
            return TableCell(valuetype="date", datevalue=value.isoformat())
        case time():
            return TableCell(valuetype="time", timevalue=value.strftime("PT%HH%MM%SS"))
    cell = TableCell(valuetype="string")
    for line in str(value).split("\n"):
        cell.addElement(P(text=line))
    return cell


def by_hand(rows: str, *, shared: Sequence[str] = (), around: str = "{}", workbook: str = "", prefix: str = "") -> Make:
    """An .xlsx file of one sheet, `Data`: `rows` stands in its `sheetData`, and `around` around that."""
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    name = f"{prefix}:" if prefix else ""
    space = f"xmlns:{prefix}" if prefix else "xmlns"
    data = around.format(f"<{name}sheetData>{rows}</{name}sheetData>")
    strings = "".join(f"<si>{text}</si>" for text in shared)
    relations = "".join(
        f'<Relationship Id="r{number}" Type="{office}/{kind}" Target="{target}"/>'
        for number, (kind, target) in enumerate(
            [("worksheet", "worksheets/sheet1.xml"), ("sharedStrings", "sharedStrings.xml"), ("styles", "styles.xml")],
            1,
        )
    )
    files = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types"><Default Extension="xml" '
        'ContentType="application/xml"/><Default Extension="rels" '
        'ContentType="application/vnd.openxmlformats-package.relationships+xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{package}/relationships"><Relationship Id="r1" '
        f'Type="{office}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}">{workbook}'
        '<sheets><sheet name="Data" sheetId="1" r:id="r1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}/relationships">{relations}</Relationships>',
        "xl/styles.xml": f'<styleSheet xmlns="{main}"><numFmts count="1"><numFmt numFmtId="164" '
        'formatCode="yyyy\\-mm\\-dd\\ hh:mm"/></numFmts><cellXfs count="3"><xf numFmtId="0"/><xf numFmtId="14"/>'
        '<xf numFmtId="164"/></cellXfs></styleSheet>',
        "xl/sharedStrings.xml": f'<sst xmlns="{main}">{strings}</sst>',
        "xl/worksheets/sheet1.xml": f'<{name}worksheet {space}="{main}">{data}</{name}worksheet>',
    }

    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book:
            for member, text in files.items():
                book.writestr(member, f'<?xml version="1.0" encoding="UTF-8"?>\n{text}')

    return make


def cells(*rows: str) -> str:
    """Rows of cells that say neither their place nor their row's number; a text is written in its cell."""
    return "".join(
        "<row>" + "".join(f'<c t="inlineStr"><is><t>{text}</t></is></c>' for text in row.split("|")) + "</row>"
        for row in rows
    )


def zipped(**members: str) -> Make:
    """An archive that is something else: names have `_` for a dot and `__` for a slash."""

    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as book:
            for name, text in members.items():
                book.writestr(name.replace("__", "/").replace("_", "."), text)

    return make


def open_by_hand(**sheets: str) -> Make:
    """An .ods file of sheets whose rows are XML, with the names that LibreOffice gives to its parts."""
    names = {"office": "office:1.0", "table": "table:1.0", "text": "text:1.0"}
    spaces = "".join(f' xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{rest}"' for name, rest in names.items())
    tables = "".join(f'<table:table table:name="{title}">{rows}</table:table>' for title, rows in sheets.items())
    return zipped(
        mimetype="application/vnd.oasis.opendocument.spreadsheet",
        content_xml=f'<office:document-content{spaces} xmlns:calcext="urn:org:documentfoundation:names:experimental:'
        f'calc:xmlns:calcext:1.0"><office:body><office:spreadsheet>{tables}</office:spreadsheet></office:body>'
        "</office:document-content>",
        **{"META-INF__manifest_xml": '<manifest xmlns="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"/>'},
    )


def open_rows(*values: str) -> str:
    """Rows of one cell, `KIND:VALUE` each."""
    forms = {
        "text": '<table:table-cell office:value-type="string"><text:p>{}</text:p></table:table-cell>',
        "time": '<table:table-cell office:value-type="time" office:time-value="{}"/>',
        "error": '<table:table-cell office:value-type="string" office:string-value="" calcext:value-type="error">'
        "<text:p>{}</text:p></table:table-cell>",
    }
    split = (value.split(":", 1) for value in values)
    return "".join(f"<table:table-row>{forms[kind].format(value)}</table:table-row>" for kind, value in split)


def encrypted(path: Path) -> None:
    """A workbook with a password, as Excel keeps it: in a container with other members than those of old workbooks."""
    book = BytesIO()
    old = xlwt.Workbook()
    old.add_sheet("Data").write(0, 0, "x")
    old.save(book)
    name, other = "Workbook".encode("utf-16-le"), "EncryptedPackage".encode("utf-16-le")
    content = bytearray(book.getvalue())
    at = content.index(name)
    content[at : at + len(other)] = other
    content[at + 64 : at + 66] = struct.pack("<H", len(other) + 2)
    path.write_bytes(bytes(content))
