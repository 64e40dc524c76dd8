"""Rows spread over a source by a stable hash: the same ones each time, wherever in the source they stand.

A row is chosen by a digest of its own content, or of its key where the order names a column of keys. So the same rows
of the same source are chosen whatever the prompt is, and in whatever order they come.
"""

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import nsmallest
from typing import Final

from gemini_batch_mcp.domain import ChosenRows, Order

#: Hexadecimal digits of MD5 that place a row.
DIGEST_CHARS: Final = 16
#: Stands for what is no row: a blank line.
NO_ROW: Final = -1
_TOP: Final = 1 << (4 * DIGEST_CHARS - 1)


@dataclass(frozen=True, slots=True)
class Spread:
    """How many rows are taken, and the column whose cells decide which; without one all cells of a row do."""

    rows: int
    key_column: str = ""


def spread_of(order: Order) -> Spread | None:
    """Return the spread that an order asks for, None where it takes rows as they come."""
    return Spread(order.sample_rows, order.key_column) if order.sample_rows else None


def placed(lines: Iterable[str]) -> Iterator[int]:
    """Yield the numbers that rows are placed by, for a file with `DIGEST_CHARS` hexadecimal digits for each of them."""
    return (int(line, 16) % _TOP for line in lines)


def digest(content: bytes) -> int:
    """Return the number that a row of that content is placed by."""
    return int(hashlib.md5(content, usedforsecurity=False).hexdigest()[:DIGEST_CHARS], 16) % _TOP


def chosen(digests: Iterable[int], count: int) -> ChosenRows:
    """Return the `count` rows with the lowest numbers, in eight bytes of memory a row; of equal ones the first.

    `digests` has a number for each row, `NO_ROW` for what is none: it keeps its place and is not counted.
    """
    numbers = array("q", digests)
    total = len(numbers) - numbers.count(NO_ROW)
    taken = min(count, total)
    bits = bytearray((len(numbers) + 7) // 8)
    if taken:
        lowest = nsmallest(taken, (number for number in numbers if number != NO_ROW))
        last, left = lowest[-1], taken
        left_at_last = lowest.count(last)
        for row, number in enumerate(numbers):
            if number == NO_ROW or number > last:
                continue
            if number == last:
                if not left_at_last:
                    continue
                left_at_last -= 1
            bits[row >> 3] |= 0x80 >> (row & 7)
            left -= 1
            if not left:
                break
    return ChosenRows(bytes(bits), taken, total)


def has(rows: ChosenRows, row: int) -> bool:
    """Return whether the row of that number, from 1, is chosen."""
    return bool(rows.bits[(row - 1) >> 3] & (0x80 >> ((row - 1) & 7)))


def told(rows: ChosenRows, name: str, unit: str = "row") -> str:
    """Return the sentence that says how many rows were taken."""
    return f"`sample_rows` took {rows.count:,} of {rows.total:,} {unit}s of {name}, spread over all of it."
