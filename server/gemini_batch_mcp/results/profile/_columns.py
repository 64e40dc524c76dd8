"""Which columns of a table are the source's, which are fields of the answers, and what of each is looked at."""

# ruff: noqa: S608 - queries consist of our own names, of numbers, and of literals made by `quoted`

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gemini_batch_mcp.results.engine import identifier, rows_of
from gemini_batch_mcp.results.table.layout import ANSWER_COLUMNS, EMBEDDING, HISTORY, PLACE_COLUMNS

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_OURS: Final = frozenset(column.name for column in (*ANSWER_COLUMNS, EMBEDDING, HISTORY, *PLACE_COLUMNS))
_WHOLE: Final = frozenset({"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER"})
_BROKEN: Final = frozenset({"DOUBLE", "FLOAT"})
#: Texts longer than this are no values to count, but texts.
MAX_VALUE_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, and what is known of its values in rows that are ok.

    `different` is an estimate beyond some hundred. `arrays` counts lists in a column of JSON, `objects` its objects.
    """

    name: str
    type: str
    filled: int = 0
    different: int = 0
    longest: int = 0
    arrays: int = 0
    objects: int = 0

    @property
    def is_whole(self) -> bool:
        """True for whole numbers."""
        return self.type in _WHOLE

    @property
    def is_number(self) -> bool:
        """True for numbers."""
        return self.is_whole or self.type in _BROKEN or self.type.startswith("DECIMAL")

    @property
    def text(self) -> str:
        """The SQL of its value as text, NULL where there is none; JSON texts without their quotation marks."""
        column = f"t.{identifier(self.name)}"
        if self.type == "JSON":
            return f"CASE WHEN {column}::VARCHAR <> 'null' THEN {column} ->> '$' END"
        return f"CAST({column} AS VARCHAR)"

    @property
    def number(self) -> str:
        """The SQL of its number as DOUBLE, NULL where there is none; that of a text is its length in characters."""
        if self.is_number:
            number = f"CAST(t.{identifier(self.name)} AS DOUBLE)"
            return f"CASE WHEN isfinite({number}) THEN {number} END"
        return f"CAST(length({self.text}) AS DOUBLE)"

    @property
    def entries(self) -> str:
        """The SQL of a list's different entries, as texts; NULL for what is no list."""
        column = f"t.{identifier(self.name)}"
        return f"CASE WHEN json_type({column}) = 'ARRAY' THEN list_distinct(from_json({column}, '[\"VARCHAR\"]')) END"


def split_columns(connection: "DuckDBPyConnection", table: Path) -> tuple[list[Column], list[Column]]:
    """Return the columns of the source and the fields of the answers, in their order; nothing is known of them yet.

    A table without fields has the text of its answers as the only one.
    """
    described = connection.execute(f"DESCRIBE SELECT * FROM {rows_of(table)}").fetchall()
    columns = [Column(name, kind) for name, kind, *_ in described]
    names = [column.name for column in columns]
    source = [column for column in columns[: _place(names, "key")] if column.name not in _OURS]
    fields = [
        column
        for column in columns[_place(names, "json") : _place(names, "finish_reason")]
        if column.name not in _OURS and column not in source
    ]
    if not fields and EMBEDDING.name not in names:
        fields = [column for column in columns if column.name == "text"]
    return source, fields


def measured(connection: "DuckDBPyConnection", table: Path, columns: Sequence[Column]) -> tuple[int, list[Column]]:
    """Return how many rows are ok, and the columns with what is known of their values there, in one pass."""
    parts = []
    for column in columns:
        parts += [
            f"count({column.text})",
            # An estimate may be larger than what it is an estimate of.
            f"least(approx_count_distinct({column.text}), count({column.text}))",
            f"coalesce(max(length({column.text})), 0)",
        ]
        kind = f"json_type(t.{identifier(column.name)})"
        is_json = column.type == "JSON"
        parts += [f"count(*) FILTER ({kind} = {name})" if is_json else "0" for name in ("'ARRAY'", "'OBJECT'")]
    selected = ", ".join(["count(*)", *parts])
    rows, *found = connection.execute(f"SELECT {selected} {ok_rows(table)}").fetchall()[0]
    return rows, [
        Column(column.name, column.type, *found[5 * place : 5 * place + 5]) for place, column in enumerate(columns)
    ]


def ok_rows(table: Path) -> str:
    """Return the FROM of the rows that are ok, as `t`."""
    return f"FROM {rows_of(table)} t WHERE t.status = 'ok'"


def _place(names: Sequence[str], name: str) -> int:
    return names.index(name) if name in names else len(names)
