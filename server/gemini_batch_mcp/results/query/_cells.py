"""Values of a query as JSON can carry them and an assistant may read them: numbers, booleans, bounded text, null.

The engine itself cuts what is long, so that a cell of 100 MB never becomes a Python value.
"""

import json
import math
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from gemini_batch_mcp.results.visible import visible_cell

if TYPE_CHECKING:
    from duckdb.sqltypes import DuckDBPyType

Cell = bool | int | float | str | None

#: Beyond these, a reader that keeps numbers as IEEE doubles would change them; RFC 8259, section 6.
_MAX_EXACT_INTEGER: Final = 2**53
_MAX_EXACT_DIGITS: Final = 15
#: A list with more numbers than this is an embedding or the like: its length says more than its members.
_MAX_LISTED_NUMBERS: Final = 16
#: The same for bytes, which tell an assistant nothing.
_MAX_SHOWN_BYTES: Final = 64
_MIN_CELL_CHARS: Final = 24

_AS_IS: Final = frozenset(
    {"boolean", "tinyint", "smallint", "integer", "bigint", "utinyint", "usmallint", "uinteger", "ubigint", "hugeint"}
    | {"uhugeint", "double", "decimal"}
)
_NUMBERS: Final = (_AS_IS - {"boolean"}) | {"float"}
_NESTED: Final = frozenset({"list", "array", "struct", "map", "union", "tuple", "variant"})


def cell_columns(position: int, kind: "DuckDBPyType", max_cell_chars: int) -> tuple[str, str]:
    """Return two SQL expressions for the column `c<position>`: its shortened value, and its length where it is text."""
    column = f"c{position}"
    if kind.id in _AS_IS:
        return column, "NULL"
    if kind.id == "float":
        # By way of text, as 0.1 would otherwise become 0.10000000149011612.
        return f"CAST(CAST({column} AS VARCHAR) AS DOUBLE)", "NULL"
    text = f"CAST({column} AS VARCHAR)"
    if kind.id in _NESTED:
        text = f"CAST(to_json({column}) AS VARCHAR)"
        if _holds_numbers(kind):
            text = _counted(f"len({column})", _MAX_LISTED_NUMBERS, "numbers", text)
    elif kind.id == "blob":
        text = _counted(f"octet_length({column})", _MAX_SHOWN_BYTES, "bytes", text)
    elif kind.id.startswith("timestamp"):
        text = f"replace({text}, ' ', 'T')"
    return f"left({text}, {max_cell_chars + 1})", f"length({text})"


def shown_row(values: Sequence[Any], lengths: Sequence[int | None], max_cell_chars: int) -> tuple[Cell, ...]:
    """Return one row as cells; where `values` holds only the start of a text, `lengths` has the length of the whole."""
    return tuple(_shown(value, length, max_cell_chars) for value, length in zip(values, lengths, strict=True))


def json_chars(value: object) -> int:
    """Return how many characters `value` takes as compact JSON."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def fitted_row(
    values: Sequence[Any], lengths: Sequence[int | None], max_cell_chars: int, max_chars: int, *, may_shorten: bool
) -> tuple[Cell, ...] | None:
    """Return the row if it takes at most `max_chars` characters, with its cells cut further if they may be."""
    while True:
        row = shown_row(values, lengths, max_cell_chars)
        if json_chars(row) <= max_chars:
            return row
        if not may_shorten or max_cell_chars <= _MIN_CELL_CHARS:
            return None
        max_cell_chars = max(max_cell_chars // 2, _MIN_CELL_CHARS)


def _holds_numbers(kind: "DuckDBPyType") -> bool:
    return kind.id in ("list", "array") and getattr(kind.children[0][1], "id", "") in _NUMBERS


def _counted(count: str, most: int, what: str, text: str) -> str:
    """Return SQL for `text`, or for how much there is of it when that is more than `most`."""
    return f"CASE WHEN {count} > {most} THEN '[' || {count} || ' {what}]' ELSE {text} END"


def _shown(value: Any, length: int | None, max_cell_chars: int) -> Cell:
    if isinstance(value, str):
        return visible_cell(value, max_cell_chars, full_length=length)
    if isinstance(value, Decimal):
        exact = value.is_finite() and len(value.as_tuple().digits) <= _MAX_EXACT_DIGITS
        return float(value) if exact else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, int) and abs(value) > _MAX_EXACT_INTEGER:
        return str(value)
    assert value is None or isinstance(value, int), "every other type is made text by `cell_columns`"
    return value
