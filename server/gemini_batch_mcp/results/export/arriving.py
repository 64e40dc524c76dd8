"""Rows that come from elsewhere piece by piece, kept as Parquet on their way, and written as files like any table's.

Each piece stands as JSON lines for a moment and becomes a part of a table, so that neither memory nor the disk holds
all of them as text. Types are those that the columns are given, whatever JSON has for them.
"""

# ruff: noqa: S608 - queries consist of our own names, of numbers, and of literals made by `quoted`

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec

from gemini_batch_mcp.domain import Column, ResultSummary, SavedFile
from gemini_batch_mcp.results.engine import connect, execute_widening, identifier, quoted, rows_of, table_errors
from gemini_batch_mcp.results.export._sql import PARQUET_OPTIONS
from gemini_batch_mcp.results.export.formats import Format, export_selected, export_table
from gemini_batch_mcp.results.table.merge import count
from gemini_batch_mcp.results.table.summary import RowRange, TableFacts

_MEMORY_LIMIT_BYTES: Final = 208 << 20
#: Of JSON lines that make one part; more where one piece alone has more.
_PART_BYTES: Final = 64 << 20
#: The least that the engine takes as its longest line.
_LINE_BYTES: Final = 1 << 20
#: What JSON lines have as text, and the engine reads from it.
_AS_TEXT: Final[Mapping[str, str]] = {
    "BLOB": "from_base64({})",
    # What the engine does not read as JSON is kept as one JSON text.
    "JSON": "CASE WHEN json_valid({0}) THEN CAST({0} AS JSON) ELSE to_json({0}) END",
}


class ArrivingRows:
    """Takes rows of these columns, in their order, and keeps them in `folder`; types are DuckDB's.

    A BLOB is given as base64, JSON as text, times as ISO text, and what is no finite number as its name.
    """

    def __init__(self, folder: Path, columns: Sequence[Column]) -> None:
        self.columns = tuple(columns)
        self.rows = 0
        self._folder = folder
        self._parts = folder / "parts"
        self._lines = folder / "arriving.jsonl"
        self._bytes = 0
        self._longest = _LINE_BYTES
        self._names = [column.name for column in columns]
        self._encode = msgspec.json.Encoder().encode
        folder.mkdir()
        self._parts.mkdir()

    def take(self, rows: Iterable[Sequence[Any]]) -> None:
        """Take the next rows: values that JSON has.

        Raises:
            StorageError: they cannot be kept.
        """
        with table_errors("The rows could not be kept", self._folder), self._lines.open("ab") as file:
            for row in rows:
                line = self._encode(dict(zip(self._names, row, strict=True)))
                self._longest = max(self._longest, len(line))
                self._bytes += file.write(line) + file.write(b"\n")
                self.rows += 1
        if self._bytes >= _PART_BYTES:
            self._make_part()

    def export(
        self, destination: Path, format: Format, *, summary: ResultSummary | None, has_schema: bool = False, name: str
    ) -> SavedFile:
        """Write all rows to `destination`; `name` is what a sheet is called.

        Rows of a result table, whose `summary` is given then, are written as those of a table on this machine: see
        `formats.export_table`. Others as they were selected: see `formats.export_selected`.

        Raises:
            UsageError: they have nothing for this format.
            StorageError: the file cannot be written.
        """
        if self._bytes or not self.rows:
            self._make_part()
        if summary is None:
            return export_selected(self._parts, destination, format, home=self._folder, name=name)
        facts = TableFacts(
            build="",
            parts=(),
            identity="",
            plan="",
            rows=self.rows,
            ranges=(RowRange(1, self.rows, 1),),
            columns=self.columns,
            vector_size=0,
            has_schema=has_schema,
            summary=replace(summary, cleaned=self._cleaned()),
            files=(),
        )
        return export_table(self._parts, facts, destination, format, name=name)

    def _cleaned(self) -> int:
        if "cleaned" not in self._names:
            return 0
        with table_errors("The rows could not be read", self._folder), closing(self._connect()) as connection:
            return count(connection, f"{rows_of(self._parts)} WHERE cleaned")

    def _make_part(self) -> None:
        self._lines.touch()
        read = ", ".join(
            f"{quoted(column.name)}: {quoted('VARCHAR' if column.type in _AS_TEXT else column.type)}"
            for column in self.columns
        )
        cells = ", ".join(
            f"{_AS_TEXT.get(column.type, '{}').format(identifier(column.name))} AS {identifier(column.name)}"
            for column in self.columns
        )
        part = self._parts / f"{len(list(self._parts.iterdir())):08}.parquet"
        options = f"format = 'newline_delimited', columns = {{{read}}}, maximum_object_size = {self._longest + 1}"
        selected = f"SELECT {cells} FROM read_json({quoted(self._lines)}, {options})"
        with table_errors("The rows could not be kept", self._folder), closing(self._connect()) as connection:
            connection.execute("SET preserve_insertion_order = true")
            copy = f"COPY ({selected}) TO {quoted(part)} {PARQUET_OPTIONS}"
            execute_widening(connection, copy, _MEMORY_LIMIT_BYTES)
            self._lines.unlink()
        self._bytes = 0

    def _connect(self) -> Any:
        return connect(_MEMORY_LIMIT_BYTES, self._folder)
