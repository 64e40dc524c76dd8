"""A result table as JSON lines for a person's own tools: complete, and with nothing made visible or cut."""

# ruff: noqa: S608 - queries consist of our own names, of numbers, and of literals made by `quoted`

import tempfile
import uuid
from array import array
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import msgspec

from gemini_batch_mcp.domain import SavedFile
from gemini_batch_mcp.errors import StorageError
from gemini_batch_mcp.results.database import connect, storage_errors
from gemini_batch_mcp.results.lines import line_offsets, raw_response
from gemini_batch_mcp.results.merge import rows_of
from gemini_batch_mcp.results.summary import RawFile, TableFacts

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_MEMORY_LIMIT_BYTES: Final = 1 << 30
#: How much of the table is held at a time.
_CHUNK_BYTES: Final = 8 << 20
_MAX_CHUNK_ROWS: Final = 4096
_NULL: Final = msgspec.Raw(b"null")


class _Error(msgspec.Struct):
    code: int | None
    message: str


class _Line(msgspec.Struct):
    key: str
    status: str
    text: str
    error: _Error | None
    finish_reason: str
    model_version: str
    input_tokens: int
    output_tokens: int
    thoughts_tokens: int
    response: msgspec.Raw


class _RawAnswers:
    """Random access to the raw answer lines of a table, by file and line."""

    def __init__(self, table: Path, raw_files: tuple[RawFile, ...], stack: ExitStack) -> None:
        self._files: list[IO[bytes]] = []
        self._offsets: list[array[int]] = []
        for raw_file in raw_files:
            path = table.parent / raw_file.path
            if not path.is_file() or path.stat().st_size != raw_file.size_bytes:
                raise StorageError(f"{path} is missing or was changed.", "Collect the batch again.")
            offsets = line_offsets(path)
            offsets.append(raw_file.size_bytes)
            if len(offsets) != raw_file.line_count + 1:
                raise StorageError(f"{path} was changed.", "Collect the batch again.")
            self._offsets.append(offsets)
            self._files.append(stack.enter_context(path.open("rb")))

    def line(self, file: int, line: int) -> bytes:
        """Return one line; blank lines may follow it."""
        start, end = self._offsets[file][line - 1], self._offsets[file][line]
        self._files[file].seek(start)
        return self._files[file].read(end - start)


def write_jsonl(table: Path, facts: TableFacts, destination: Path) -> SavedFile:
    """Write every row as `{"key", "status", "text", "error", "finish_reason", …, "response"}`, in request order.

    `error` is null or `{"code", "message"}`; `response` is the whole response as Gemini sent it, with images,
    embeddings and further candidates, null where there was none. The file appears in one step.

    Raises:
        StorageError: the table or its raw answers cannot be read, or the file cannot be written.
    """
    with (
        storage_errors(f"{destination} could not be written"),
        ExitStack() as stack,
        _replacing(destination) as file,
    ):
        raw_answers = _RawAnswers(table, facts.files, stack)
        connection = connect(_MEMORY_LIMIT_BYTES, Path(tempfile.gettempdir()))
        stack.callback(connection.close)
        encoder = msgspec.json.Encoder()
        raw_bytes = sum(raw_file.size_bytes for raw_file in facts.files)
        chunk_rows = max(1, min(_MAX_CHUNK_ROWS, _CHUNK_BYTES * facts.rows // max(raw_bytes, 1)))
        for first in range(1, facts.rows + 1, chunk_rows):
            rows = _read(connection, table, first, first + chunk_rows - 1)
            file.write(b"".join(encoder.encode(_line(row, raw_answers)) + b"\n" for row in rows))
    return SavedFile(destination, "jsonl", facts.rows, destination.stat().st_size)


def _read(connection: "DuckDBPyConnection", table: Path, first: int, last: int) -> list[tuple[Any, ...]]:
    return connection.execute(
        f"""SELECT file, line, key, status, text, error_code, error_message, finish_reason, model_version,
                   input_tokens, output_tokens, thoughts_tokens
            FROM {rows_of(table)} WHERE row BETWEEN {first} AND {last} ORDER BY row"""
    ).fetchall()


def _line(row: tuple[Any, ...], raw_answers: _RawAnswers) -> _Line:
    (file, line, key, status, text, error_code, error_message, *members) = row
    finish_reason, model_version, input_tokens, output_tokens, thoughts_tokens = members
    return _Line(
        key=key,
        status=status,
        text=text,
        error=_Error(error_code, error_message) if error_code is not None or error_message else None,
        finish_reason=finish_reason,
        model_version=model_version,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        thoughts_tokens=thoughts_tokens,
        response=_NULL if file is None else raw_response(raw_answers.line(file, line)),
    )


@contextmanager
def _replacing(destination: Path) -> Iterator[IO[bytes]]:
    """Open a file that becomes `destination` when the block ends well, and goes away when it does not."""
    partial = destination.with_name(f".results-{uuid.uuid4().hex}.part")
    try:
        with partial.open("xb") as file:
            yield file
        partial.replace(destination)
    finally:
        partial.unlink(missing_ok=True)
