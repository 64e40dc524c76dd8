"""The rows that a report carries: a bounded number of them, with cells cut, as JSON that can stand in a page."""

# ruff: noqa: S608 - queries consist of our own names, of numbers, and of literals made by `quoted`

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gemini_batch_mcp.results.engine import left_out as left_out_of
from gemini_batch_mcp.results.engine import rows_of
from gemini_batch_mcp.results.report._figures import reason_of
from gemini_batch_mcp.results.visible import error_of, visible, visible_cell
from gemini_batch_mcp.text import safe_text

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MAX_SHOWN_ROWS: Final = 2000
#: So many of them may be rows that are not ok; the rest is an even sample of those that are.
_MAX_NOT_OK: Final = 1500
#: The size of the rows as JSON. Cells are cut shorter until they fit; what still does not is left out evenly.
MAX_BYTES: Final = 6 << 20
_CELL_CHARS: Final = (2000, 1000, 500, 200)
#: The width of cells that are no answer, as a part of the width of those that are.
_SIDE_PART: Final = 4
_ERROR_CHARS: Final = 300
_NAME_CHARS: Final = 80
MAX_EXTRA_COLUMNS: Final = 30

#: Columns that a report shows in a form of its own, or that only say where a row came from.
_OWN_COLUMNS: Final = frozenset(
    {"row", "key", "status", "text", "finish_reason", "error_code", "error_message", "file", "line"}
)
#: Types that hold no text for people: media, and vectors.
_UNREADABLE: Final = re.compile(r"BLOB|BIT|(?:FLOAT|DOUBLE|REAL|DECIMAL\([\d,]*\))(?:\[\d*\])+")
#: Columns of the table that say little in a list; they are told with the single row.
_ASIDE: Final = frozenset(
    {"json", "model_version", "input_tokens", "output_tokens", "thoughts_tokens", "cost_usd", "attempt", "history"}
)


class _Column(msgspec.Struct):
    """A column for the page; `is_aside` keeps it out of the list until it is asked for."""

    name: str
    is_aside: bool


class _Payload(msgspec.Struct):
    """What the page's script reads. A row is its number, the number of its reason or 0, its status, and its cells."""

    columns: list[_Column]
    rows: list[list[int | str]]


@dataclass(frozen=True, slots=True)
class ShownRows:
    """The rows for a page. `json` is ASCII-safe for a script element: it holds no `<`, `>` or `&`."""

    json: str
    rows: int
    max_cell_chars: int
    left_out_columns: tuple[str, ...]


def shown_rows(connection: "DuckDBPyConnection", table: Path, *, max_bytes: int = MAX_BYTES) -> ShownRows:
    """Choose and read the rows of a page: those that are not ok first, then an even sample of the others.

    Needs the temporary tables of `read_figures`. At most `MAX_SHOWN_ROWS` rows and `max_bytes` bytes of JSON.
    """
    extra, left_out = _extra_columns(connection, table)
    connection.execute("CREATE TEMP TABLE chosen (row BIGINT)")
    connection.execute("INSERT INTO chosen " + _even_sample("status <> 'ok'", _MAX_NOT_OK))
    not_ok = connection.execute("SELECT count(*) FROM chosen").fetchall()[0][0]
    connection.execute("INSERT INTO chosen " + _even_sample("status = 'ok'", MAX_SHOWN_ROWS - not_ok))
    cells = _read(connection, table, list(extra.values()))
    names = ("key", "text", "error", "finish_reason", *extra)
    columns = [_Column(visible_cell(name, _NAME_CHARS), name in _ASIDE) for name in names]
    for max_cell_chars in _CELL_CHARS:
        payload = _Payload(columns, [_row(row, max_cell_chars) for row in cells])
        encoded = _encoded(payload)
        if len(encoded) <= max_bytes:
            break
    while len(encoded) > max_bytes and len(payload.rows) > 1:
        payload.rows = payload.rows[::2]
        encoded = _encoded(payload)
    return ShownRows(encoded.decode(), len(payload.rows), max_cell_chars, left_out)


def _extra_columns(connection: "DuckDBPyConnection", table: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the columns to show besides the answer's own, each with its text as SQL, and the names of all others."""
    described = connection.execute(f"DESCRIBE SELECT * FROM {rows_of(table)}").fetchall()
    hidden = _OWN_COLUMNS | left_out_of(table)
    others = {name: kind for name, kind, *_ in described if name not in hidden}
    readable = [name for name, kind in others.items() if not _UNREADABLE.fullmatch(kind)]
    # The source's columns and the fields of the answers come before what Gemini tells about them.
    shown = [name for name in readable if name not in _ASIDE][:MAX_EXTRA_COLUMNS]
    shown += [name for name in readable if name in _ASIDE]
    left_out = tuple(visible_cell(name, _NAME_CHARS) for name in others if name not in shown)
    return {name: _as_text(name, others[name]) for name in shown}, left_out


def _as_text(name: str, kind: str) -> str:
    column = 'answers."' + name.replace('"', '""') + '"'
    if kind.startswith(("STRUCT(", "MAP(", "UNION(")) or kind.endswith("]"):
        return f"coalesce(nullif(CAST(to_json({column}) AS VARCHAR), '[]'), '')"
    return f"coalesce(CAST({column} AS VARCHAR), '')"


def _even_sample(condition: str, limit: int) -> str:
    """Return the query of up to `limit` row numbers, spread evenly over the rows that meet the condition."""
    return f"""
        SELECT row FROM (SELECT row, row_number() OVER (ORDER BY row) AS place, count(*) OVER () AS total
                         FROM measures WHERE {condition})
        WHERE place * {limit} // greatest(total, {limit}) > (place - 1) * {limit} // greatest(total, {limit})"""


def _read(connection: "DuckDBPyConnection", table: Path, extra: Sequence[str]) -> list[tuple[Any, ...]]:
    width = _CELL_CHARS[0] + 1
    side_width = _CELL_CHARS[0] // _SIDE_PART + 1
    cells = "".join(f", left({cell}, {side_width}), length({cell})" for cell in extra)
    return connection.execute(
        f"""SELECT answers.row, coalesce(reasons.place, 0), answers.status,
                   left(answers.key, {side_width}), length(answers.key), left(answers."text", {width}),
                   length(answers."text"), answers.error_code, left(answers.error_message, {8 * _ERROR_CHARS}),
                   left(answers.finish_reason, {side_width}), length(answers.finish_reason){cells}
            FROM {rows_of(table)} answers
            SEMI JOIN chosen ON chosen.row = answers.row
            LEFT JOIN reasons ON {reason_of("answers")}
            ORDER BY answers.status = 'ok', answers.row"""
    ).fetchall()


def _row(cells: tuple[Any, ...], max_chars: int) -> list[int | str]:
    number, reason, status, key, key_length, text, text_length, error_code, error_message, *others = cells
    side_chars = max_chars // _SIDE_PART
    error = error_of(error_code, error_message)
    return [
        number,
        reason,
        status,
        visible_cell(key, side_chars, full_length=key_length),
        visible_cell(text, max_chars, full_length=text_length),
        safe_text(visible(error), _ERROR_CHARS),
        *(
            visible_cell(cell, side_chars, full_length=length)
            for cell, length in zip(others[::2], others[1::2], strict=True)
        ),
    ]


def _encoded(payload: _Payload) -> bytes:
    """Return JSON in which nothing can end a script element or start a comment or an entity."""
    encoded = msgspec.json.encode(payload)
    return encoded.replace(b"<", b"\\u003c").replace(b">", b"\\u003e").replace(b"&", b"\\u0026")
