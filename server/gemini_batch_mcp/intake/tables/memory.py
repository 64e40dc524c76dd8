"""How much memory reading a table may take: little at first, more for rows that need it."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

from gemini_batch_mcp.settings import ENGINE_MEMORY_BYTES, MAX_LINE_BYTES

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Effort:
    """What reading may cost: the engine's memory, and the largest record, for which it keeps buffers.

    Rows of a Parquet file are held in memory until their group is complete.
    """

    memory_megabytes: int
    record_bytes: int
    row_group_rows: int


#: To be tried in turn: the first is enough for rows of ordinary size. A cell that consists of quotes needs two bytes
#: for each one of the line that it becomes.
EFFORTS: Final = (
    Effort(96, 1 << 21, 1 << 14),
    Effort(ENGINE_MEMORY_BYTES >> 21, 2 * MAX_LINE_BYTES, 1 << 12),
    Effort(ENGINE_MEMORY_BYTES >> 20, 2 * MAX_LINE_BYTES, 1 << 11),
)


class MoreEffort(Exception):
    """The rows are too large for the effort that was allowed."""


def with_effort(work: Callable[[Effort], T]) -> T:
    """Do what reads a table, with as little effort as is enough."""
    for effort in EFFORTS[:-1]:
        with suppress(MoreEffort):
            return work(effort)
    return work(EFFORTS[-1])
