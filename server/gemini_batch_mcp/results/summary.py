"""What is known about a result table without opening it: counts, and where its raw answers are.

It stands as JSON beside the table, under a name that the table's own footer gives. So both change in one rename, and a
table is never read with the counts of another.
"""

import re
from pathlib import Path
from typing import Final

import msgspec

from gemini_batch_mcp.domain import ResultSummary
from gemini_batch_mcp.errors import StorageError

#: Written into the Parquet footer as the value of this key.
FOOTER_KEY: Final = "gemini_batch_mcp.build"
_FOOTER_VALUE: Final = re.compile(rb"build:([0-9a-f]{32})")
_MAGIC: Final = b"PAR1"
#: Far above any footer we write (1.5 MB for a million rows); a larger one is a damaged file.
_MAX_FOOTER_BYTES: Final = 256 << 20


class RawFile(msgspec.Struct, frozen=True):
    """One raw answer file of a table. `path` is relative to the table's directory where it can be."""

    path: str
    size_bytes: int
    line_count: int
    attempt: int


class TableFacts(msgspec.Struct, frozen=True):
    """Everything stored about one build of a table. `rows` counts rows of the table, numbered from 1.

    `identity` says which batch the table belongs to and stays when it is built again.
    """

    build: str
    identity: str
    rows: int
    summary: ResultSummary
    files: tuple[RawFile, ...]
    version: int = 1


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
        found = _FOOTER_VALUE.search(_footer(table))
        if found is None:
            raise StorageError(f"The result table {table} was not written by this server.", "Collect the batch again.")
        build = found[1].decode()
        facts = msgspec.json.decode(facts_path(table, build).read_bytes(), type=TableFacts)
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StorageError(f"The result table {table} could not be read: {reason}.", "Collect it again.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StorageError(f"The facts about {table} are damaged.", "Collect the batch again.") from error
    return facts


def _footer(table: Path) -> bytes:
    """Return the Parquet footer: the last 8 bytes hold its length and the magic number."""
    with table.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - 8, 0))
        tail = file.read(8)
        length = int.from_bytes(tail[:4], "little")
        if len(tail) < 8 or tail[4:] != _MAGIC or length > min(size - 12, _MAX_FOOTER_BYTES):
            raise StorageError(f"The result table {table} is damaged.", "Collect the batch again.")
        file.seek(size - 8 - length)
        return file.read(length)
