"""Embeddings as a matrix that numpy opens, and the keys of its rows."""

# ruff: noqa: S608 - queries consist of our own names, of numbers, and of literals made by `quoted`

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import msgspec

from gemini_batch_mcp.results.engine import rows_of
from gemini_batch_mcp.results.export._shape import Rows, is_vector
from gemini_batch_mcp.results.table.merge import count

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: Numbers held at a time, as Python objects.
_CHUNK_NUMBERS: Final = 1 << 18
#: The head of a file of version 1.0 is a multiple of this long (numpy.lib.format).
_HEAD_BYTES: Final = 64
_MAGIC: Final = b"\x93NUMPY\x01\x00"


def vector_size(connection: "DuckDBPyConnection", rows: Rows) -> int:
    """Return how many numbers every vector has, 0 where there are none, or of several lengths."""
    if rows.facts is not None:
        return rows.facts.vector_size
    if not any(column.name == "embedding" and is_vector(column) for column in rows.columns):
        return 0
    query = f"SELECT min(len(embedding)), max(len(embedding)) FROM {rows_of(rows.parts)}"
    least, most = connection.execute(query).fetchall()[0]
    return int(least or 0) if least == most else 0


def write_vectors(connection: "DuckDBPyConnection", parts: Path, size: int, file: IO[bytes]) -> int:
    """Write the vectors of all rows that have one, in their order, as `.npy`: float32, one row each of `size`."""
    rows = count(connection, f"{rows_of(parts)} WHERE embedding IS NOT NULL")
    shape = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {size}), }}"
    padding = -(len(_MAGIC) + 2 + len(shape) + 1) % _HEAD_BYTES
    head = (shape + " " * padding + "\n").encode("ascii")
    file.write(_MAGIC + len(head).to_bytes(2, "little") + head)
    pack = struct.Struct(f"<{size}f").pack
    for chunk in _chunks(connection, parts, size, "embedding"):
        for (vector,) in chunk:
            file.write(pack(*vector))
    return rows


def write_keys(connection: "DuckDBPyConnection", parts: Path, size: int, file: IO[bytes]) -> int:
    """Write the keys of all rows that have a vector, in the same order, as one JSON string a line."""
    encode = msgspec.json.Encoder().encode
    rows = 0
    for chunk in _chunks(connection, parts, size, "key"):
        file.write(b"".join(encode(key) + b"\n" for (key,) in chunk))
        rows += len(chunk)
    return rows


def _chunks(connection: "DuckDBPyConnection", parts: Path, size: int, column: str) -> Iterator[list[tuple[Any, ...]]]:
    """Yield a column of the rows that have a vector as the engine comes by them: some of them at a time."""
    connection.execute(f"SELECT {column} FROM {rows_of(parts)} WHERE embedding IS NOT NULL")
    while chunk := connection.fetchmany(max(1, _CHUNK_NUMBERS // size)):
        yield chunk
