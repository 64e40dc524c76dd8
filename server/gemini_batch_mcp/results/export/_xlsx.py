"""Rows as a workbook that people open: typed cells, a header that stays in sight, and nothing that is run.

Written by XlsxWriter row by row, so that its memory does not grow with the table. Limits are Excel's own
("Excel specifications and limits").
"""

# ruff: noqa: S608 - queries consist of our own names, of numbers, and of literals made by `quoted`

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.results.engine import rows_of
from gemini_batch_mcp.results.export._shape import Cell
from gemini_batch_mcp.text import plain_text

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from xlsxwriter import Workbook
    from xlsxwriter.worksheet import Worksheet

MAX_SHEET_ROWS: Final = 1_048_576
MAX_COLUMNS: Final = 16_384
#: Of a cell, in UTF-16 units.
MAX_CELL_UNITS: Final = 32_767
#: Excel keeps numbers as IEEE doubles and shows 15 digits: a column with a longer one is text.
_MAX_EXACT: Final = 10**15 - 1
_MAX_NAME_CHARS: Final = 31
#: Widths go by this many rows, in characters of the usual font.
_LOOKED_AT_ROWS: Final = 200
_MIN_WIDTH: Final = 8
_MAX_WIDTH: Final = 60
#: Above this the archive needs the form for large files, at which some programs warn.
_LARGE_BYTES: Final = 2 << 30
#: An integer, a decimal with its digits behind the point: types of cells that may be numbers.
_INTEGERS: Final = frozenset({"BIGINT", "UBIGINT", "HUGEINT", "UHUGEINT", "BIGNUM"})
_SMALL: Final = frozenset({"TINYINT", "SMALLINT", "INTEGER", "UTINYINT", "USMALLINT", "UINTEGER"})
_TIMES: Final = frozenset({"DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"})
_ZONED: Final = "TIMESTAMP WITH TIME ZONE"
#: Excel counts days from here.
_FIRST_DAY: Final = date(1900, 1, 1)
_NOT_IN_NAMES: Final = re.compile(r"[\[\]:*?/\\\x00-\x1f\x7f]")
_FETCHED_ROWS: Final = 2048


class _Cuts:
    """How many cells were too long."""

    def __init__(self) -> None:
        self.count = 0


_Put = Callable[[int, int, Any], object]


def write_xlsx(
    connection: "DuckDBPyConnection", parts: Path, cells: Sequence[Cell], destination: Path, *, name: str, scratch: Path
) -> tuple[str, ...]:
    """Write rows as a workbook, and return sentences about what does not stand in it as it is.

    Text is never a formula, a link or a number, whatever it looks like. A column of numbers of which one has more than
    15 digits is text; times with a zone are UTC; dates before 1900 are text. Rows that one sheet cannot hold follow on
    further ones.

    Raises:
        UsageError: there are more columns than a sheet has.
    """
    # Imported here: most servers never write a workbook, and it takes 40 ms.
    from xlsxwriter import Workbook

    if len(cells) > MAX_COLUMNS:
        raise UsageError(
            f"A sheet has {MAX_COLUMNS:,} columns at most, this has {len(cells):,}.", "Save it as csv instead."
        )
    kinds, characters = _kinds(connection, parts, cells)
    cuts = _Cuts()
    options = {
        "constant_memory": True,
        "tmpdir": str(scratch),
        "strings_to_formulas": False,
        "strings_to_urls": False,
        "strings_to_numbers": False,
    }
    sheet_names = _sheet_names(name)
    written = 0
    with Workbook(str(destination), options) as workbook:
        if characters > _LARGE_BYTES:
            workbook.use_zip64()
        columns = ", ".join(_value(cell, kind) for cell, kind in zip(cells, kinds, strict=True))
        connection.execute(f"SELECT {columns} FROM {rows_of(parts)}")
        chunk = connection.fetchmany(_FETCHED_ROWS)
        widths = _widths(cells, chunk[:_LOOKED_AT_ROWS])
        sheets = 0
        while chunk or not sheets:
            sheet, puts = _sheet(workbook, next(sheet_names), cells, kinds, widths, cuts)
            sheets += 1
            at = 1
            while chunk and at < MAX_SHEET_ROWS:
                fitting = chunk[: MAX_SHEET_ROWS - at]
                for row, values in enumerate(fitting, at):
                    for column, value in enumerate(values):
                        if value is not None:
                            puts[column](row, column, value)
                at += len(fitting)
                written += len(fitting)
                chunk = chunk[len(fitting) :] or connection.fetchmany(_FETCHED_ROWS)
            sheet.autofilter(0, 0, at - 1, len(cells) - 1)
    return tuple(_notes(cuts.count, sheets, written))


def _notes(cut_count: int, sheets: int, rows: int) -> Iterator[str]:
    if cut_count:
        cells = "1 cell was" if cut_count == 1 else f"{cut_count:,} cells were"
        yield f"{cells} cut to the {MAX_CELL_UNITS:,} characters that Excel allows; csv, parquet and jsonl keep all."
    if sheets > 1:
        yield f"The {rows:,} rows are on {sheets} sheets, as a sheet has room for {MAX_SHEET_ROWS:,}."


def _kinds(connection: "DuckDBPyConnection", parts: Path, cells: Sequence[Cell]) -> tuple[list[str], int]:
    """Return how each column is written, and about how many characters there are, in one look at all of them."""
    looks = [
        f"coalesce(max(abs({cell.sql})), 0) > {_MAX_EXACT}"
        if cell.type in _INTEGERS or cell.type.startswith("DECIMAL")
        # Bytes: never fewer than UTF-16 units.
        else f"coalesce(max(strlen({cell.sql})), 0) > {MAX_CELL_UNITS}"
        if cell.type == "VARCHAR"
        else "true"
        for cell in cells
    ]
    lengths = [f"coalesce(sum(strlen({cell.sql})), 0)" for cell in cells if cell.type == "VARCHAR"]
    found = connection.execute(
        f"SELECT {' + '.join([f'count(*) * {64 * len(cells)}', *lengths])}, {', '.join(looks)} FROM {rows_of(parts)}"
    ).fetchone()
    assert found is not None, "an aggregate has a row"
    return [_kind(cell.type, is_long=is_long) for cell, is_long in zip(cells, found[1:], strict=True)], int(found[0])


def _kind(type: str, *, is_long: bool) -> str:
    if type in _INTEGERS or type.startswith("DECIMAL"):
        return "text" if is_long else "number"
    if type in _SMALL:
        return "number"
    if type in ("DOUBLE", "FLOAT"):
        return type.lower()
    if type == "BOOLEAN":
        return "boolean"
    if type in _TIMES:
        return "date" if type == "DATE" else "time"
    if type == "VARCHAR" and not is_long:
        return "short"
    return "zoned" if type == _ZONED else "text"


def _value(cell: Cell, kind: str) -> str:
    if kind == "number" and cell.type.startswith("DECIMAL"):
        return f"CAST({cell.sql} AS DOUBLE)"
    if kind == "float":
        # By way of text, as 0.1 would otherwise become 0.10000000149011612.
        return f"CAST(CAST({cell.sql} AS VARCHAR) AS DOUBLE)"
    if kind == "zoned":
        # Without a zone, which Python's form of the type would need a library for.
        return f"make_timestamp(epoch_us({cell.sql}))"
    if kind not in ("text", "short") or cell.type == "VARCHAR":
        return cell.sql
    if cell.name == "files" and cell.type == "VARCHAR[]":
        return f"array_to_string({cell.sql}, '; ')"
    nested = cell.type.endswith("]") or cell.type.startswith(("STRUCT", "MAP", "UNION"))
    return f"CAST({f'to_json({cell.sql})' if nested else cell.sql} AS VARCHAR)"


def _sheet(
    workbook: "Workbook",
    name: str,
    cells: Sequence[Cell],
    kinds: Sequence[str],
    widths: Sequence[int],
    cuts: _Cuts,
) -> tuple["Worksheet", list[_Put]]:
    sheet = workbook.add_worksheet(name)
    header = workbook.add_format({"bold": True})
    for column, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        sheet.set_column(column, column, width)
        sheet.write_string(0, column, _cut(cell.name), header)
    sheet.freeze_panes(1, 0)
    return sheet, [_put(workbook, sheet, kind, cuts) for kind in kinds]


def _put(workbook: "Workbook", sheet: "Worksheet", kind: str, cuts: _Cuts) -> _Put:
    """Return what writes one cell of a column."""

    def text(row: int, column: int, value: str) -> None:
        # Most are far below; what no character outside the first plane can make too long is not counted.
        if len(value) * 2 > MAX_CELL_UNITS and (fitting := _cut(value)) != value:
            cuts.count += 1
            value = fitting
        sheet.write_string(row, column, value)

    def number(row: int, column: int, value: float) -> None:
        if value - value == 0:
            sheet.write_number(row, column, value)
        else:  # a sheet knows neither infinity nor what is no number
            sheet.write_string(row, column, str(value))

    def moment(row: int, column: int, value: object) -> None:
        day = value.date() if isinstance(value, datetime) else value
        if not isinstance(day, date) or day < _FIRST_DAY:
            sheet.write_string(row, column, str(value))
        else:
            sheet.write_datetime(row, column, value, style)

    style = workbook.add_format({"num_format": "yyyy-mm-dd" if kind == "date" else "yyyy-mm-dd hh:mm:ss"})
    if kind == "boolean":
        return lambda row, column, value: sheet.write_boolean(row, column, value)
    if kind in ("date", "time", "zoned"):
        return moment
    if kind in ("double", "float"):
        return number
    # What cannot be too long, or no number, goes straight there: half of the time is spent on calls.
    direct: dict[str, _Put] = {"short": sheet.write_string, "number": sheet.write_number}
    return direct.get(kind, text)


def _cut(value: str) -> str:
    """Return a text that a cell can hold: whole, or its beginning with a mark at the end."""
    if len(value) + sum(character > "\uffff" for character in value) <= MAX_CELL_UNITS:
        return value
    start = value.encode("utf-16-le", "replace")[: 2 * (MAX_CELL_UNITS - 1)]
    return start.decode("utf-16-le", "ignore") + "…"


def _widths(cells: Sequence[Cell], rows: Sequence[Sequence[Any]]) -> list[int]:
    """Return for each column a width in which most of its first rows can be read."""
    widths = []
    for column, cell in enumerate(cells):
        longest = max((len(str(row[column])) for row in rows if row[column] is not None), default=0)
        widths.append(min(max(longest, len(cell.name) + 3, _MIN_WIDTH), _MAX_WIDTH))
    return widths


def _sheet_names(name: str) -> Iterator[str]:
    """Yield names as Excel takes them, for the first sheet and those that follow."""
    cleaned = plain_text(_NOT_IN_NAMES.sub(" ", name), 200).strip(" '")
    # "History" is a name that Excel keeps for itself.
    stem = cleaned if cleaned and cleaned.casefold() != "history" else f"{cleaned} answers".strip()
    number = 1
    while True:
        end = f" {number}" if number > 1 else ""
        yield _units(stem, _MAX_NAME_CHARS - len(end)).strip(" '") + end
        number += 1


def _units(text: str, limit: int) -> str:
    return text.encode("utf-16-le", "replace")[: 2 * limit].decode("utf-16-le", "ignore")
