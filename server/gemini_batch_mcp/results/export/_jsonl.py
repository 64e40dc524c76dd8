"""Rows as JSON lines for a person's own tools: complete, and with nothing made visible or cut."""

# ruff: noqa: S608 - queries consist of our own names, of numbers, and of literals made by `quoted`

from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import msgspec

from gemini_batch_mcp.domain import Column
from gemini_batch_mcp.errors import StorageError
from gemini_batch_mcp.results.engine import identifier, rows_of
from gemini_batch_mcp.results.export._shape import Rows
from gemini_batch_mcp.results.table.layout import other_name
from gemini_batch_mcp.results.table.lines import line_offsets, plain_json, raw_response
from gemini_batch_mcp.results.table.summary import RawFile, TableFacts
from gemini_batch_mcp.settings import MAX_ANSWER_LINE_BYTES

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: How much of the table is held at a time.
_CHUNK_BYTES: Final = 8 << 20
_MAX_CHUNK_ROWS: Final = 4096
_NULL: Final = msgspec.Raw(b"null")
#: Python's form of it needs a library that is not here.
_ZONED: Final = "TIMESTAMP WITH TIME ZONE"
_AS_TEXT: Final = frozenset({"INTERVAL", "BLOB", "BIT", "UUID", "TIME", "TIME WITH TIME ZONE"})
#: The member that no column has: what Gemini sent.
_RESPONSE: Final = "response"
#: Columns that a line has in another form: in `error`, or as the whole `response`.
_TOLD_OTHERWISE: Final = frozenset({"error_code", "error_message", "embedding", "row", "file", "line"})


class _RawAnswers:
    """Random access to the raw answer lines of a table, by file and line."""

    def __init__(self, home: Path, raw_files: tuple[RawFile, ...], stack: ExitStack) -> None:
        self._files: list[IO[bytes] | None] = []
        self._offsets: list[array[int]] = []
        for raw_file in raw_files:
            if not raw_file.path:
                self._offsets.append(array("Q"))
                self._files.append(None)
                continue
            path = home / raw_file.path
            if not path.is_file() or path.stat().st_size != raw_file.size_bytes:
                raise StorageError(f"{path} is missing or was changed.", "Call get_results to collect the batch again.")
            offsets = line_offsets(path)
            offsets.append(raw_file.size_bytes)
            if len(offsets) != raw_file.line_count + 1:
                raise StorageError(f"{path} was changed.", "Call get_results to collect the batch again.")
            self._offsets.append(offsets)
            self._files.append(stack.enter_context(path.open("rb")))

    def line(self, file: int, line: int) -> bytes:
        """Return one line, nothing when it is longer than lines may be; blank lines may follow it."""
        start, end = self._offsets[file][line - 1], self._offsets[file][line]
        if end - start > MAX_ANSWER_LINE_BYTES:
            return b""
        answers = self._files[file]
        assert answers is not None, "the row came from it"
        answers.seek(start)
        return answers.read(end - start)


def write_jsonl(
    connection: "DuckDBPyConnection", rows: Rows, facts: TableFacts, columns: tuple[Column, ...], file: IO[bytes]
) -> None:
    """Write every row of a result table as one JSON object a line, in request order.

    Its members are the user's own columns, then `key`, `status`, `text`, the other columns given, `error` (null or
    `{"code", "message"}`), and `response`: the whole response as Gemini sent it, with images, embeddings and further
    candidates, null where there was none. A column with that name is called `source_response` or `answer_response`.

    Raises:
        StorageError: the raw answers are gone or were changed.
    """
    columns = tuple(column for column in columns if column.name not in _TOLD_OTHERWISE)
    with ExitStack() as stack:
        raw_answers = _RawAnswers(rows.home, facts.files, stack)
        encoder = msgspec.json.Encoder()
        names = _member_names(columns)
        for chunk in _chunks(connection, rows.parts, facts, columns):
            file.write(
                b"".join(encoder.encode(_line(row, columns, names, rows.home, raw_answers)) + b"\n" for row in chunk)
            )


def write_selected_jsonl(connection: "DuckDBPyConnection", rows: Rows, file: IO[bytes]) -> None:
    """Write rows that a statement has selected as one JSON object a line: its columns, under their names.

    Numbers keep all their digits; times are ISO text; what is no number is null.
    """
    encoder = msgspec.json.Encoder(decimal_format="number", enc_hook=str)
    names = [column.name for column in rows.columns]
    columns = ", ".join(map(_selected, rows.columns))
    connection.execute(f"SELECT {columns} FROM {rows_of(rows.parts)}")
    while chunk := connection.fetchmany(_MAX_CHUNK_ROWS):
        for values in chunk:
            cells = (_value(column, cell, rows.home) for column, cell in zip(rows.columns, values, strict=True))
            file.write(encoder.encode(dict(zip(names, cells, strict=True))) + b"\n")


def _selected(column: Column) -> str:
    """Return SQL for a value that becomes JSON: what Python has in a form of its own goes as the engine writes it."""
    name = identifier(column.name)
    if column.type == "FLOAT":
        return f"CAST(CAST({name} AS VARCHAR) AS DOUBLE)"
    if column.type == _ZONED:
        return f"replace(CAST({name} AS VARCHAR), ' ', 'T')"
    if _ZONED in column.type:
        return f"CAST(to_json({name}) AS VARCHAR)"
    return f"CAST({name} AS VARCHAR)" if column.type in _AS_TEXT else name


def _chunks(
    connection: "DuckDBPyConnection", table: Path, facts: TableFacts, columns: tuple[Column, ...]
) -> Iterator[list[tuple[Any, ...]]]:
    raw_bytes = sum(raw_file.size_bytes for raw_file in facts.files)
    chunk_rows = max(1, min(_MAX_CHUNK_ROWS, _CHUNK_BYTES * facts.rows // max(raw_bytes, 1)))
    names = ", ".join(identifier(column.name) for column in columns)
    for part in facts.ranges:
        for first in range(part.first, part.last + 1, chunk_rows):
            yield connection.execute(
                f"""SELECT file, line, error_code, error_message, {names} FROM {rows_of(table)}
                    WHERE row BETWEEN {first} AND {min(first + chunk_rows - 1, part.last)} ORDER BY row"""
            ).fetchall()


def _member_names(columns: tuple[Column, ...]) -> list[str]:
    """Return what each column is called in a line."""
    taken = {column.name.casefold() for column in columns}
    names, prefix = [], "source_"
    for column in columns:
        prefix = "answer_" if column.name == "key" else prefix
        is_taken = column.name.casefold() == _RESPONSE
        names.append(other_name(column.name, prefix, taken) if is_taken else column.name)
    return names


def _line(
    row: tuple[Any, ...], columns: tuple[Column, ...], names: list[str], home: Path, raw_answers: _RawAnswers
) -> dict[str, Any]:
    file, line, error_code, error_message, *cells = row
    members = {name: _value(column, cell, home) for name, column, cell in zip(names, columns, cells, strict=True)}
    is_error = error_code is not None or error_message
    members["error"] = {"code": error_code, "message": error_message} if is_error else None
    members[_RESPONSE] = _NULL if file is None else _on_one_line(raw_response(raw_answers.line(file, line)))
    return members


def _on_one_line(text: msgspec.Raw) -> msgspec.Raw:
    """Return JSON without line ends: models indent theirs, and a line here is a row."""
    content = bytes(text)
    return msgspec.Raw(msgspec.json.format(content, indent=-1)) if b"\n" in content or b"\r" in content else text


def _value(column: Column, cell: Any, home: Path) -> Any:
    if column.type == "JSON" or (_ZONED in column.type and column.type != _ZONED):
        return _NULL if cell is None else _on_one_line(plain_json(cell.encode()))
    if column.name == "files" and column.type == "VARCHAR[]" and cell is not None:
        return [str(home / name) for name in cell]
    return cell
