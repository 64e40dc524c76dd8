"""The inside of an .xlsx file: where its sheets are, what cells hold that the reader drops, large ones cut in parts.

The reader (calamine) takes a sheet whole, at some hundred bytes a cell. So a large sheet's rows are put behind the
file's other members as sheets of their own, which are read one after the other with its shared texts and styles.
"""

import re
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Final
from xml.etree import ElementTree  # expat bounds what entities grow to, and the process what all of it takes

_BLOCK_BYTES: Final = 1 << 20
_SHEET_DATA: Final = re.compile(rb"<((?:[A-Za-z_][\w.-]*:)?)sheetData\b[^>]*?(/?)>")
_MERGED: Final = re.compile(rb"<(?:\w+:)?mergeCell\s[^>]*?ref=[\"']([A-Z]+)(\d+):([A-Z]+)(\d+)[\"']")
#: A formula of a program that calculates nothing.
_NO_VALUE: Final = re.compile(rb"</(?:\w+:)?f>(?:<(?:\w+:)?v>\s*</(?:\w+:)?v>|<(?:\w+:)?v\s*/>|</(?:\w+:)?c>)")
#: What ends the name of a row's element: `<rowBreaks>` stands behind the rows.
_AFTER_ROW: Final = (b" ", b">", b"/", b"\t", b"\r", b"\n")
#: Most that may stand before the rows: views, columns, namespaces.
_MAX_HEAD_BYTES: Final = 1 << 24
_WORKBOOK: Final = "xl/workbook.xml"
_RELATIONS: Final = "xl/_rels/workbook.xml.rels"
_RELATIONS_END: Final = b"</Relationships>"
_OFFICE: Final = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_STRICT: Final = "http://purl.oclc.org/ooxml/officeDocument/relationships"
_MAIN: Final = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"

#: Rows and columns of a range, both ends included, from 0.
Merged = tuple[int, int, int, int]


@dataclass(slots=True)
class Seen:
    """What was seen in a sheet's XML while it was cut: the reader gives all of this as empty cells, or not at all."""

    errors: int = 0
    formulas_without_value: int = 0
    merged: tuple[Merged, ...] = ()


def sheet_members(book: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the member of each worksheet by its name; empty where the file is built in a way that is not known."""
    try:
        relations = {
            element.get("Id"): element.get("Target", "")
            for element in ElementTree.fromstring(book.read(_RELATIONS))  # noqa: S314 - see the import
        }
        found = {}
        for element in ElementTree.fromstring(book.read(_WORKBOOK)).iter():  # noqa: S314 - see the import
            if not element.tag.endswith("}sheet"):
                continue
            target = relations.get(element.get(f"{{{_OFFICE}}}id") or element.get(f"{{{_STRICT}}}id"), "")
            place = PurePosixPath("/xl", target) if not target.startswith("/") else PurePosixPath(target)
            found[element.get("name", "")] = book.getinfo(str(place).lstrip("/"))
    except (KeyError, ElementTree.ParseError, zipfile.BadZipFile):
        return {}
    return found


def look(book: zipfile.ZipFile, member: zipfile.ZipInfo) -> Seen:
    """Read a sheet's XML for what its reader does not tell."""
    seen = Seen()
    with book.open(member) as file:
        for _ in _cut(file, _BLOCK_BYTES, seen):
            pass
    return seen


def cut_in_parts(path: Path, member_name: str, part_bytes: int) -> tuple[Seen, int]:
    """Add a sheet's rows to the file as sheets `1`, `2`, … of `part_bytes`, which take the place of all others.

    Returns what was seen of it, and how many there are; none where it cannot be cut.
    """
    seen, count = Seen(), 0
    with zipfile.ZipFile(path) as source:
        relations = source.read(_RELATIONS)
    if _RELATIONS_END not in relations:
        return seen, 0
    # Names that stand there already are replaced by what is behind them.
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(path) as source, zipfile.ZipFile(path, "a") as book:
        with source.open(member_name) as file:
            for count, part in enumerate(_cut(file, part_bytes, seen), 1):
                book.writestr(f"xl/worksheets/part{count}.xml", part)
        if count:
            sheets = "".join(
                f'<sheet name="{number}" sheetId="{number}" r:id="part{number}"/>' for number in range(1, count + 1)
            )
            old = source.read(_WORKBOOK)
            # Dates count from 1904 in some files.
            properties = re.search(rb"<(?:\w+:)?workbookPr\b[^>]*date1904=[\"'](?:1|true)[\"']", old)
            dates = '<workbookPr date1904="1"/>' if properties else ""
            book.writestr(
                _WORKBOOK,
                f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}">{dates}<sheets>{sheets}</sheets></workbook>',
            )
            more = "".join(
                f'<Relationship Id="part{number}" Type="{_OFFICE}/worksheet" Target="worksheets/part{number}.xml"/>'
                for number in range(1, count + 1)
            )
            book.writestr(_RELATIONS, relations.replace(_RELATIONS_END, more.encode() + _RELATIONS_END))
    return seen, count


def _cut(file: IO[bytes], part_bytes: int, seen: Seen) -> Iterator[bytes]:
    """Yield a sheet's XML in sheets of whole rows; nothing where it has none, or is not to be understood."""
    data = file.read(_BLOCK_BYTES)
    while not (start := _SHEET_DATA.search(data)):
        block = file.read(_BLOCK_BYTES)
        if not block or len(data) > _MAX_HEAD_BYTES:
            return
        data += block
    prefix = start[1]
    head, data = data[: start.end()], data[start.end() :]
    root = re.search(rb"<((?:[A-Za-z_][\w.-]*:)?worksheet)\b", head)
    if start[2] or root is None:
        seen.merged = ()
        return
    close, row = b"</" + prefix + b"sheetData>", b"<" + prefix + b"row"
    tail = close + b"</" + root[1] + b">"
    while (end := _end_of_rows(data, row, close)) < 0:
        # More each time where a row has more: what is there is looked through again.
        block = file.read(max(part_bytes, len(data)))
        if not block:
            return
        # A row's beginning may have been cut by the block, but the last whole one before it was not.
        if (at := data.rfind(row)) > 0 and len(data) >= part_bytes:
            yield _told(head + data[:at] + tail, seen)
            data = data[at:]
        data += block
    if data[:end].strip():
        yield _told(head + data[:end] + tail, seen)
    seen.merged = tuple(_merged(data[end:] + file.read()))


def _end_of_rows(data: bytes, row: bytes, close: bytes) -> int:
    """Return where the rows end, -1 while more may follow. Behind them there are none, so the last one is looked at."""
    at = data.rfind(row)
    is_row = at >= 0 and data[at + len(row) : at + len(row) + 1] in _AFTER_ROW
    return data.find(close, at if is_row else 0)


def _told(part: bytes, seen: Seen) -> bytes:
    # One letter is found thirty times as fast as a pattern, and most sheets have none of these.
    if b"f" in part and b"f>" in part:
        seen.formulas_without_value += len(_NO_VALUE.findall(part))
    seen.errors += part.count(b' t="e"')
    return part


def _merged(tail: bytes) -> Iterator[Merged]:
    for left, top, right, bottom in _MERGED.findall(tail):
        yield int(top) - 1, _column(left), int(bottom) - 1, _column(right)


def _column(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + letter - ord("A") + 1
    return number - 1
