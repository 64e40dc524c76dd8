"""Rows that the engine refused, told with their lines: what is wrong with each, and how to put it right."""

from collections.abc import Sequence
from typing import Final

from gemini_batch_mcp.errors import Problem, RequestProblems
from gemini_batch_mcp.intake.tables._csv import Record

_FIX_SHAPE: Final = (
    "Give every row as many cells as the header has; put cells that contain the delimiter or line ends in "
    "double quotes."
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
