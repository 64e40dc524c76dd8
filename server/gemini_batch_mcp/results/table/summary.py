"""What is known about a result table without opening it: its parts, its counts, and where its raw answers are.

It stands as JSON in one file, whose path is that of the table. The parts are in a folder beside it, which bears the
number of the build that wrote them and never changes afterwards. A table is replaced by replacing that one file: it is
never read with the parts or the counts of another, and who is still reading the older parts either has them all open or
finds that they are gone.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from gemini_batch_mcp.domain import Column, ResultSummary
from gemini_batch_mcp.errors import StorageError
from gemini_batch_mcp.results.engine import parts_of
from gemini_batch_mcp.results.table.inputs import TABLE_VERSION

#: Tables of the last version lack columns that answers seldom fill, and nothing else: they are built again where
#: their answers are there, and read as they are where not.
_READABLE: Final = (TABLE_VERSION, 8)
#: How every Parquet file ends.
_END: Final = b"PAR1"


class RawFile(msgspec.Struct, frozen=True):
    """One raw answer file of a table. `path` is relative to the table's directory where it can be."""

    path: str
    size_bytes: int
    modified_ns: int
    line_count: int
    attempt: int


class RowRange(NamedTuple):
    """Rows with the numbers `first` to `last` that are in the table since the build with the number `since`, from 1."""

    first: int
    last: int
    since: int


class TableFacts(msgspec.Struct, frozen=True):
    """Everything stored about one build of a table. `rows` counts its rows; `ranges` has their numbers, in order.

    `parts` are the sizes of its parts in bytes, in their order; `folder_of` says where they are. `identity` says which
    batch the table belongs to and stays when it is built again. `plan` is the digest of what it was built from.
    `vector_size` is the length of every vector in the column `embedding`, 0 where they differ.
    """

    build: str
    parts: tuple[int, ...]
    identity: str
    plan: str
    rows: int
    ranges: tuple[RowRange, ...]
    columns: tuple[Column, ...]
    vector_size: int
    #: A response schema was ordered.
    has_schema: bool
    summary: ResultSummary
    files: tuple[RawFile, ...]
    version: int = 0

    @property
    def generation(self) -> int:
        """The number of the build that brought the latest rows."""
        return max((part.since for part in self.ranges), default=1)


def dated_ranges(ranges: Sequence[tuple[int, int]], before: Sequence[RowRange]) -> tuple[RowRange, ...]:
    """Return row ranges with the build since which they are there: as `before` says, or else a new one."""
    latest = max((part.since for part in before), default=0) + 1
    dated: list[RowRange] = []
    for first, last in ranges:
        here = [part for part in before if part.first <= last and part.last >= first]
        for part in here:
            if part.first > first:
                dated.append(RowRange(first, part.first - 1, latest))
            dated.append(RowRange(max(part.first, first), min(part.last, last), part.since))
            first = part.last + 1
        if first <= last:
            dated.append(RowRange(first, last, latest))
    return tuple(dated)


class _Version(msgspec.Struct):
    version: int


def folder_of(table: Path, build: str) -> Path:
    """Return the folder with the parts of that build of `table`."""
    return table.with_name(f"{table.stem}-{build}")


def older_files(table: Path, build: str) -> list[Path]:
    """Return what other builds of `table` have left, those of earlier versions included.

    They had the whole table in one Parquet file, and its facts in `<table>.<build>.json`.
    """
    parts, facts = (re.compile(re.escape(table.stem) + end) for end in (r"-[0-9a-f]{32}", r"\.[0-9a-f]{32}\.json"))
    names = sorted(path.name for path in table.parent.iterdir())
    older = [name for name in names if parts.fullmatch(name) and name != folder_of(table, build).name]
    if of_earlier_versions := [name for name in names if facts.fullmatch(name)]:
        # The table goes first: its facts are what tells it from a file of somebody else.
        older += [name for name in names if name == f"{table.stem}.parquet" != table.name] + of_earlier_versions
    return [table.with_name(name) for name in older]


def read_facts(table: Path) -> TableFacts:
    """Return the facts about the table at `table`, whose parts are there as they were written, as far as sizes tell.

    Raises:
        StorageError: the table is missing, damaged, or was not written by us.
    """
    facts = _read(table)
    while not _is_whole(table, facts):
        # Another process may have put a new table in place between the two looks.
        latest = _read(table)
        if latest.build == facts.build:
            raise StorageError(f"The result table {table} is damaged.", "Call get_results to collect the batch again.")
        facts = latest
    return facts


def _read(table: Path) -> TableFacts:
    try:
        content = table.read_bytes()
    except FileNotFoundError:
        raise StorageError(
            f"There is no result table at {table}.", "Call get_results to collect the batch again."
        ) from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StorageError(
            f"The result table {table} could not be read: {reason}.", "Call get_results to collect the batch again."
        ) from error
    try:
        # A table of another version is no damage, but what is known about it does not fit either.
        if msgspec.json.decode(content, type=_Version).version not in _READABLE:
            raise StorageError(
                f"The result table {table} was written by another version.",
                "Call get_results to collect the batch again.",
            )
        return msgspec.json.decode(content, type=TableFacts)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StorageError(
            f"The result table {table} is damaged.", "Call get_results to collect the batch again."
        ) from error


def _is_whole(table: Path, facts: TableFacts) -> bool:
    """True when the parts are those that were written. A system that went down may have left a file without content."""
    try:
        parts = parts_of(folder_of(table, facts.build))
        return [_whole_bytes(part) for part in parts] == list(facts.parts)
    except OSError:
        return False


def _whole_bytes(part: Path) -> int:
    """Return the size of a Parquet file, 0 when it does not end as one."""
    with part.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - len(_END), 0))
        return size if file.read() == _END else 0
