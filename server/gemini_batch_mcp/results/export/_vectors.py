"""Embeddings as a matrix that numpy opens, and the keys of its rows."""

# ruff: noqa: S608 - queries consist of our own names, of numbers, and of literals made by `quoted`

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import msgspec

from gemini_batch_mcp.results.engine import rows_of
from gemini_batch_mcp.results.table.merge import count
from gemini_batch_mcp.results.table.summary import TableFacts

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: Numbers held at a time, as Python objects.
_CHUNK_NUMBERS: Final = 1 << 18
#: The head of a file of version 1.0 is a multiple of this long (numpy.lib.format).
_HEAD_BYTES: Final = 64
_MAGIC: Final = b"\x93NUMPY\x01\x00"


def write_vectors(connection: "DuckDBPyConnection", table: Path, facts: TableFacts, file: IO[bytes]) -> int:
    """Write the vectors of all rows that have one, in request order, as `.npy`: float32, one row each."""
    rows = count(connection, f"{rows_of(table)} WHERE embedding IS NOT NULL")
    shape = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {facts.vector_size}), }}"
    padding = -(len(_MAGIC) + 2 + len(shape) + 1) % _HEAD_BYTES
    head = (shape + " " * padding + "\n").encode("ascii")
    file.write(_MAGIC + len(head).to_bytes(2, "little") + head)
    pack = struct.Struct(f"<{facts.vector_size}f").pack
    for chunk in _chunks(connection, table, facts, "embedding"):
        for (vector,) in chunk:
            file.write(pack(*vector))
    return rows


def write_keys(connection: "DuckDBPyConnection", table: Path, facts: TableFacts, file: IO[bytes]) -> int:
    """Write the keys of all rows that have a vector, in the same order, as one JSON string a line."""
    encode = msgspec.json.Encoder().encode
    rows = 0
    for chunk in _chunks(connection, table, facts, "key"):
        file.write(b"".join(encode(key) + b"\n" for (key,) in chunk))
        rows += len(chunk)
    return rows


def _chunks(
    connection: "DuckDBPyConnection", table: Path, facts: TableFacts, column: str
) -> Iterator[list[tuple[Any, ...]]]:
    chunk_rows = max(1, _CHUNK_NUMBERS // facts.vector_size)
    for part in facts.ranges:
        for first in range(part.first, part.last + 1, chunk_rows):
            yield connection.execute(
                f"""SELECT {column} FROM {rows_of(table)} WHERE embedding IS NOT NULL
                    AND row BETWEEN {first} AND {min(first + chunk_rows - 1, part.last)} ORDER BY row"""
            ).fetchall()
