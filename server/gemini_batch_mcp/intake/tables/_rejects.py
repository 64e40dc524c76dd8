"""Rows that the engine refused, or may have left out, told with their lines: what is wrong, and how to put it right."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final

from gemini_batch_mcp.errors import BatchError, Problem, RequestProblems, UnreadableRows, UsageError, storage_errors
from gemini_batch_mcp.intake.opened import SourceFile
from gemini_batch_mcp.intake.tables._csv import CsvTable, Record, Survey, count_records, misfits
from gemini_batch_mcp.intake.tables.memory import EFFORTS, Effort, MoreEffort
from gemini_batch_mcp.intake.tables.text_files import BLOCK_BYTES, COPY_FAILED, line_at
from gemini_batch_mcp.intake.validator.corrections import shown
from gemini_batch_mcp.settings import MAX_LINE_BYTES

_MAX_REPORTED: Final = 20
#: Of rows that do not fit, and that whoever wants goes on without: with more of them the table is read wrongly.
MAX_UNREADABLE: Final = 100_000
_FIX_SHAPE: Final = (
    "Give every row as many cells as the header has; put cells that contain the delimiter or line ends in "
    "double quotes."
)


def check_size(name: str, seen: Survey, effort: Effort) -> None:
    """Compare the largest record with what the engine's buffers hold: one that is larger may be left out silently.

    Raises:
        MoreEffort: larger buffers are needed.
        UsageError: there are none that are large enough.
    """
    if seen.most_record_bytes <= effort.record_bytes:
        return
    if effort is EFFORTS[0]:
        raise MoreEffort
    # It is known to within two blocks.
    if seen.most_record_bytes - 2 * BLOCK_BYTES > effort.record_bytes:
        raise UsageError(
            f"{name} has a row of more than {effort.record_bytes:,} bytes, or a quote that is not closed.",
            f"Shorten it: a request has at most {MAX_LINE_BYTES:,} bytes.",
        )


def check_count(name: str, count: int, expected: int, csv: CsvTable, effort: Effort) -> None:
    """Compare the engine's number of rows with an independent one.

    Raises:
        MoreEffort: they differ, which may come from a large record.
        UsageError: they differ.
    """
    if count == expected or (len(csv.columns) == 1 and not csv.is_spool):
        return
    # Quotes inside of cells without quotes mislead the quick count; walking every cell does not.
    expected = expected if csv.is_spool else count_records(csv)
    if count == expected:
        return
    if effort is EFFORTS[0]:
        raise MoreEffort
    raise UsageError(
        f"{name} cannot be read reliably: {count:,} rows were read, {expected:,} counted.",
        "Put cells with quotes or line ends in double quotes, or convert the table to Parquet.",
    )


def ragged(
    name: str, rows: Sequence[tuple[int, str, str]], count: int, *, is_uncertain: bool = False
) -> RequestProblems:
    """Return the error for rows that do not fit; each has a line, what is wrong, and how to put it right.

    `is_uncertain` says that it is not clear where rows end.
    """
    why = "; skip_invalid can't leave them out, because an open quote hides where a row ends" if is_uncertain else ""
    problems = [Problem(line, "", message, fix or _FIX_SHAPE) for line, message, fix in rows]
    plural = "" if count == 1 else "s"
    return RequestProblems(
        problems,
        count,
        f"{name} has {count:,} row{plural} that cannot be read; nothing was submitted.",
        f"Correct them, then submit the order again{why}.",
    )


def described(record: Record, width: int, most_bytes: int) -> tuple[str, str]:
    """Return what is wrong with a row, and how to put it right where that is special.

    `width` is how many cells the header has, `most_bytes` what the engine takes of one row.
    """
    if record.has_open_quote:
        cell = record.open_cell.decode("utf-8", "replace")
        fix = 'Double the quotes inside a cell: "".'
        if record.cells == width and cell.endswith('"') and len(cell) > 1:
            # The row has its cells, so that this one ends where its last quote stands.
            right = '"' + cell[1:-1].replace('"', '""') + '"'
            fix = f"Write {shown(right, 2 * len(cell))} in place of {shown(cell, len(cell))}."
        return "A quote is not closed, or text follows the closing quote.", fix
    if record.size_bytes > most_bytes:
        return f"The row has more than {most_bytes:,} bytes.", "A quote may be open; or shorten the row."
    plural = "" if record.cells == 1 else "s"
    return f"The row has {record.cells:,} cell{plural}; the header has {width:,}.", ""


def unreadable_rows(name: str, csv: CsvTable, width: int, most_bytes: int) -> BatchError:
    """Return the error that names the rows of a table which the engine refused; see `described` for the figures.

    They are looked for here: the engine keeps a note for each cell too many, each with the whole row.
    """
    first: list[Record] = []
    rows: dict[int, Problem] = {}
    count, is_certain = 0, True
    for record in () if csv.is_spool else misfits(csv, most_bytes):
        count += 1
        is_certain &= not record.has_open_quote and record.size_bytes <= most_bytes
        if count <= _MAX_REPORTED:
            first.append(record)
        if is_certain and count <= MAX_UNREADABLE:
            rows[record.number] = Problem(record.number, "", described(record, width, most_bytes)[0], _FIX_SHAPE)
    if not count:
        return UsageError(f"{name} cannot be read as CSV.", "Save it as CSV in UTF-8, or as Parquet.")
    told = [(line_at(csv.path, record.position), *described(record, width, most_bytes)) for record in first]
    error = ragged(name, told, count, is_uncertain=not is_certain)
    return UnreadableRows(error, rows) if is_certain and count == len(rows) else error


def emptied(csv: CsvTable, rows: Collection[int], workspace: Path) -> CsvTable:
    """Return a copy of a CSV file in which some rows, by their numbers, are empty: all others keep their places.

    Raises:
        PathError: the file cannot be read.
        StorageError: the copy cannot be written.
    """
    wanted = frozenset(rows)
    empty = csv.delimiter.encode() * (len(csv.columns) - 1) or b'""'
    copy = workspace / f"{csv.path.stem[:40]}.fitting{csv.path.suffix}"
    with storage_errors(COPY_FAILED), SourceFile(csv.path) as file, copy.open("wb") as output:
        at = 0
        for record in misfits(csv, 1 << 62):
            if record.number in wanted:
                _take(file, record.position - at, output)
                row = _take(file, record.size_bytes, None)
                output.write(empty + row[len(row.rstrip(b"\r\n")) :])
                at = record.position + record.size_bytes
        _take(file, 1 << 62, output)
    return replace(csv, path=copy)


def _take(file: BinaryIO | SourceFile, size_bytes: int, output: BinaryIO | None) -> bytes:
    """Copy so many bytes, as far as there are any; return the last block of them."""
    last = b""
    while size_bytes and (block := file.read(min(size_bytes, BLOCK_BYTES))):
        size_bytes -= len(block)
        last = (last + block)[-BLOCK_BYTES:]
        if output is not None:
            output.write(block)
    return last
