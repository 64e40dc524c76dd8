"""Rows that the engine refused, or may have left out, told with their lines: what is wrong, and how to put it right."""

from collections.abc import Sequence
from typing import Final

from gemini_batch_mcp.errors import BatchError, Problem, RequestProblems, UsageError
from gemini_batch_mcp.intake.tables._csv import CsvTable, Record, Survey, count_records, misfits
from gemini_batch_mcp.intake.tables.memory import EFFORTS, Effort, MoreEffort
from gemini_batch_mcp.intake.tables.text_files import BLOCK_BYTES, line_at
from gemini_batch_mcp.settings import MAX_LINE_BYTES

_MAX_REPORTED: Final = 20
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


def ragged(name: str, rows: Sequence[tuple[int, str, str]], count: int) -> RequestProblems:
    """Return the error for rows that do not fit; each has a line, what is wrong, and how to put it right."""
    problems = [Problem(line, "", message, fix or _FIX_SHAPE) for line, message, fix in rows]
    plural = "" if count == 1 else "s"
    return RequestProblems(
        problems,
        count,
        f"{name} has {count:,} row{plural} that cannot be read; nothing was submitted.",
        "Correct them, then submit the order again.",
    )


def described(record: Record, width: int, most_bytes: int) -> tuple[str, str]:
    """Return what is wrong with a row, and how to put it right where that is special.

    `width` is how many cells the header has, `most_bytes` what the engine takes of one row.
    """
    if record.has_open_quote:
        return "A quote is not closed, or text follows the closing quote.", 'Double the quotes inside a cell: "".'
    if record.size_bytes > most_bytes:
        return f"The row has more than {most_bytes:,} bytes.", "A quote may be open; or shorten the row."
    plural = "" if record.cells == 1 else "s"
    return f"The row has {record.cells:,} cell{plural}; the header has {width:,}.", ""


def unreadable_rows(name: str, csv: CsvTable, width: int, most_bytes: int) -> BatchError:
    """Return the error that names the rows of a table which the engine refused; see `described` for the figures.

    They are looked for here: the engine keeps a note for each cell too many, each with the whole row.
    """
    first: list[Record] = []
    count = 0
    for record in () if csv.is_spool else misfits(csv, most_bytes):
        count += 1
        if count <= _MAX_REPORTED:
            first.append(record)
    if not count:
        return UsageError(f"{name} cannot be read as CSV.", "Save it as CSV in UTF-8, or as Parquet.")
    return ragged(
        name, [(line_at(csv.path, record.position), *described(record, width, most_bytes)) for record in first], count
    )
