"""Parts made to agree: a field that has become text is text in the parts that were written before, too."""

# ruff: noqa: S608 - queries consist of our own names, of numbers, and of literals made by `quoted`

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gemini_batch_mcp.domain import Column
from gemini_batch_mcp.results.engine import execute_widening, identifier, listed, quoted, rows_of
from gemini_batch_mcp.results.table._parts import PART_FORMAT
from gemini_batch_mcp.results.table.layout import Layout, Named

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_TEXT = "VARCHAR"


def with_texts(layout: Layout, places: Collection[int]) -> Layout:
    """Return a layout in which the fields at these places are text."""
    return replace(
        layout,
        fields=tuple(
            Named(named.origin, Column(named.column.name, _TEXT)) if place in places else named
            for place, named in enumerate(layout.fields)
        ),
    )


def agree(connection: "DuckDBPyConnection", part: Path, layout: Layout, memory_limit_bytes: int) -> None:
    """Write a part anew where it has numbers in a field that is text in `layout`.

    They are taken from the answer's JSON. Its type holds each of them, so that the engine reads it as it was answered.
    """
    types = {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE FROM {rows_of(part)}").fetchall()}
    anew = [
        f"json_extract_string(json, {listed([quoted(member_pointer(named.origin))])})[1] AS {identifier(name)}"
        for named in layout.fields
        if named.column.type == _TEXT and types[name := named.column.name] != _TEXT
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
