"""The parts of a table while it is built: Parquet files in a folder of their own, in the order of their names.

Whoever reads a table reads its parts as one, so that nobody has to put them together: a part stays as it was written.
"""

# ruff: noqa: S608 - queries consist of our own names, and of literals made by `quoted`

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gemini_batch_mcp.results.engine import execute_widening, identifier, listed, parts_of, quoted, rows_of
from gemini_batch_mcp.results.table.layout import Layout

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: Row groups are what a page has to unpack, and each takes its place in a footer that every reader reads: measured at
#: a million rows, a page takes twice as long with 2,000 rows or with 40,000. By bytes where rows are wide. Snappy: on
#: 1 GB of prose a quarter less time than zstd, for half as much space again.
PART_FORMAT: Final = "FORMAT parquet, COMPRESSION snappy, ROW_GROUP_SIZE 12288, ROW_GROUP_SIZE_BYTES 16777216"
#: A query holds every part open, once for each time that it names the table, and macOS lets a process open 256 files.
MAX_PARTS: Final = 48


class Parts:
    """A folder that grows by whole parts, all with the same columns."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self.folder = folder
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, part: Path) -> Path:
        """Put a finished part behind the others; returns where it is now."""
        place = self._place(self._count)
        part.replace(place)
        self._count += 1
        return place

    def cut(self, count: int) -> None:
        """Forget every part behind the first `count`."""
        for number in range(count, self._count):
            self._place(number).unlink(missing_ok=True)
        self._count = min(count, self._count)

    def join(self, connection: "DuckDBPyConnection", memory_limit_bytes: int) -> None:
        """Write neighbours anew as one until there are `MAX_PARTS`; nothing can be added or cut any more.

        Measured: 4 s of a processor for 1.2 GB of text, where making its parts under a response schema takes 12. Such a
        batch has more than `MAX_PARTS` from 3 GB of answers on, one without a schema from 48 GB on.
        """
        parts = parts_of(self.folder)
        bounds = [place * len(parts) // MAX_PARTS for place in range(MAX_PARTS + 1)]
        joined = self.folder.with_name("joined.parquet")
        for group in (parts[first:last] for first, last in pairwise(bounds) if last - first > 1):
            statement = f"COPY (FROM {rows_of(*group)}) TO {quoted(joined)} ({PART_FORMAT})"
            execute_widening(connection, statement, memory_limit_bytes)
            for part in group:
                part.unlink()
            joined.replace(group[0])

    def _place(self, number: int) -> Path:
        return self.folder / f"{number:06d}.parquet"


def agree(connection: "DuckDBPyConnection", part: Path, layout: Layout, memory_limit_bytes: int) -> None:
    """Write a part anew where it has numbers in a field that is text in `layout`.

    They are taken from the answer's JSON. Its type holds each of them, so that the engine reads it as it was answered.
    """
    types = {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE FROM {rows_of(part)}").fetchall()}
    anew = [
        f"json_extract_string(json, {listed([quoted(member_pointer(named.origin))])})[1] AS {identifier(name)}"
        for named in layout.fields
        if named.column.type == "VARCHAR" and types[name := named.column.name] != "VARCHAR"
    ]
    if not anew:
        return
    draft = part.with_name(f"{part.name}.draft")
    statement = f"COPY (SELECT * REPLACE ({', '.join(anew)}) FROM {rows_of(part)}) TO {quoted(draft)} ({PART_FORMAT})"
    execute_widening(connection, statement, memory_limit_bytes)
    draft.replace(part)


def member_pointer(name: str) -> str:
    """Return the JSON pointer (RFC 6901) to a member of an object."""
    return "/" + name.replace("~", "~0").replace("/", "~1")
