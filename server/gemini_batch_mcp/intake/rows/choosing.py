"""The rows of a table that a condition chooses, in the order of the source.

The condition is never run in this room. The rows, as Parquet, are shown to somebody who judges it and says which it
chooses; these are then read by their numbers.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from gemini_batch_mcp.domain import ChosenRows
from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.text import share

#: What the numbers of the rows are called, where no column of the source is.
_NUMBER: Final = "row"


class Choose(Protocol):
    """Says which rows of a table a condition chooses."""

    def __call__(self, table: Path, where: str, *, number: str, is_text: bool) -> ChosenRows:
        """Return the rows of the Parquet file at `table`, or of all in that folder.

        `number` is the column that numbers them from 1; with `is_text` all others are texts.

        Raises:
            UsageError: the condition is refused, wrong, or takes too long.
        """


def number_column(columns: Sequence[str], name: str = _NUMBER) -> str:
    """Return a name for the rows' numbers that no column has."""
    taken = {column.casefold() for column in columns}
    while name.casefold() in taken:
        name += "_number"
    return name


def effect(chosen: ChosenRows, name: str) -> str:
    """Return the sentence that says how many rows a condition chose.

    Raises:
        UsageError: it chose none.
    """
    if not chosen.count:
        raise UsageError(
            f"No row of {name} meets `where` (0 of {chosen.total:,}).",
            "Check how the values are written: comparisons are case-sensitive.",
        )
    return f"`where` chose {share(chosen.count, chosen.total, 'row')} of {name}."
