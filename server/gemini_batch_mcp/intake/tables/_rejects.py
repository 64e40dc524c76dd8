"""Rows that the engine refused, told with their lines: what is wrong with each, and how to put it right."""

from collections.abc import Sequence
from typing import Final

from gemini_batch_mcp.errors import Problem, RequestProblems
from gemini_batch_mcp.intake.validator.corrections import shown

_FIX_SHAPE: Final = (
    "Give every row as many cells as the header has; put cells that hold the delimiter or line ends in double quotes."
)


def ragged(name: str, rows: Sequence[tuple[int, str, str]], count: int) -> RequestProblems:
    """Return the error for rows that do not fit; each has a line, what is wrong, and how to put it right."""
    problems = [Problem(line, "", message, fix or _FIX_SHAPE) for line, message, fix in rows]
    plural = "" if count == 1 else "s"
    return RequestProblems(
        problems,
        count,
        f"{name} has {count:,} row{plural} that cannot be read; nothing was submitted.",
        "Correct them and give the order again.",
    )


def described(kind: str, message: str, most_bytes: int) -> tuple[str, str]:
    """Return what is wrong with a row, in our words, and how to put it right where that is special.

    `kind` and `message` are the engine's; `most_bytes` is what it takes of one row.
    """
    numbers = [word for word in message.split() if word.isdigit()]
    match kind:
        case "MISSING COLUMNS" | "TOO MANY COLUMNS" if len(numbers) == 2:
            plural = "" if numbers[1] == "1" else "s"
            return f"The row has {numbers[1]} cell{plural}; the header has {numbers[0]}.", ""
        case "UNQUOTED VALUE":
            return "A quote is not closed, or text follows the closing quote.", 'Write quotes inside a cell twice: "".'
        case "LINE SIZE OVER MAXIMUM":
            return f"The row has more than {most_bytes:,} bytes.", "A quote may be open; or shorten the row."
        case _:
            return f"The row cannot be read ({shown(str(kind).lower())}).", ""
