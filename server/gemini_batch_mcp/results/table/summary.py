"""What is known about a result table without opening it: counts, and where its raw answers are.

It stands as JSON beside the table, under a name that the table's own footer gives. So both change in one rename, and a
table is never read with the counts of another.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from gemini_batch_mcp.domain import Column, ResultSummary
from gemini_batch_mcp.errors import StorageError
from gemini_batch_mcp.results.parquet.files import footer_bytes
from gemini_batch_mcp.results.table.inputs import TABLE_VERSION

#: Written into the Parquet footer as the value of this key.
FOOTER_KEY: Final = "gemini_batch_mcp.build"
_FOOTER_VALUE: Final = re.compile(rb"build:([0-9a-f]{32})")


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

    `identity` says which batch the table belongs to and stays when it is built again. `plan` is the digest of what it
    was built from. `vector_size` is the length of every vector in the column `embedding`, 0 where they differ.
    """

    build: str
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


def footer_value(build: str) -> str:
    """Return the text that marks a table's footer."""
    return f"build:{build}"


def facts_path(table: Path, build: str) -> Path:
    """Return where the facts about that build of `table` are."""
    return table.with_name(f"{table.stem}.{build}.json")


def other_facts(table: Path, build: str) -> list[Path]:
    """Return the facts about other builds of `table`."""
    own_name = re.compile(re.escape(table.stem) + r"\.[0-9a-f]{32}\.json")
    current = facts_path(table, build)
    return [path for path in table.parent.iterdir() if own_name.fullmatch(path.name) and path != current]


def read_facts(table: Path) -> TableFacts:
    """Return the facts about the table at `table`, by its footer.

    Raises:
        StorageError: the table is missing, damaged, or was not written by us.
    """
    try:
        return _read_facts(table)
    except FileNotFoundError as first:
        # Another process may have put a new table in place between the two reads; then the second look agrees.
        try:
            return _read_facts(table)
        except FileNotFoundError:
            raise StorageError(f"There is no result table at {table}.", "Collect the batch again.") from first


def _read_facts(table: Path) -> TableFacts:
    try:
        with table.open("rb") as file:
            found = _FOOTER_VALUE.search(footer_bytes(file))
        if found is None:
            raise StorageError(f"The result table {table} was not written by this server.", "Collect the batch again.")
        content = facts_path(table, found[1].decode()).read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StorageError(f"The result table {table} could not be read: {reason}.", "Collect it again.") from error
    except ValueError:
        raise StorageError(f"The result table {table} is damaged.", "Collect the batch again.") from None
    try:
        # A table of another version is no damage, but what is known about it does not fit either.
        if msgspec.json.decode(content, type=_Version).version != TABLE_VERSION:
            raise StorageError(f"The result table {table} was made by another version.", "Collect the batch again.")
        return msgspec.json.decode(content, type=TableFacts)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StorageError(f"The facts about {table} are damaged.", "Collect the batch again.") from error
