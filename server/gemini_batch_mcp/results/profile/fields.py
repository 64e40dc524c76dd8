"""What each field of the answers holds: values counted, numbers spread, texts by length, lists by entry.

Rows that are not ok have no part in it. A million rows are read in a few passes over single columns, whatever stands in
them: how many fields, values and columns of the source are looked at is bounded.
"""

# ruff: noqa: S608 - queries consist of our own names, of numbers, and of literals made by `quoted`

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from gemini_batch_mcp.results.profile._columns import MAX_VALUE_CHARS, Column, measured, ok_rows, split_columns
from gemini_batch_mcp.results.profile.crossing import Coded, Crossing, by_numbers, by_values
from gemini_batch_mcp.results.profile.spread import Spread, spread_of
from gemini_batch_mcp.results.visible import visible_cell

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MAX_FIELDS: Final = 20
MAX_VALUES: Final = 10
#: Columns of the source that are looked at, and those of few values that answers are laid against.
_MAX_SOURCE: Final = 60
_MAX_GROUPINGS: Final = 12
#: What few values are: of a column of the source, and of numbers.
MAX_GROUPS: Final = 12
_FEW_NUMBERS: Final = 12
#: Texts are values where so many at most are different, or where each occurs so often on average.
_FEW_TEXTS: Final = 12
_MANY_TEXTS: Final = 2000
_REPEATS: Final = 5
_SHORT_CHARS: Final = 30
#: With fewer rows a group says nothing.
_LEAST_ROWS: Final = 20
_LEAST_GROUP_ROWS: Final = 3
#: Lengths are laid against a column only where they vary with it.
_LEAST_LENGTH_STRENGTH: Final = 0.1
_NAME_CHARS: Final = 80
NOTHING: Final = "(nothing)"
OTHERS: Final = "others"

Kind = Literal["values", "numbers", "lengths", "entries"]


@dataclass(frozen=True, slots=True)
class Value:
    """An answer, and how many rows have it."""

    name: str
    rows: int


@dataclass(frozen=True, slots=True)
class Field:
    """One field of the answers. `kind` says which of `values` and `spread` is there, and what is counted or measured.

    `filled` counts the rows that have a value, of all that are ok; `different` the different ones, `is_about` where it
    is an estimate. `others` is how many values are not in `values`, `other_rows` how many rows have one.
    """

    name: str
    kind: Kind
    filled: int
    different: int
    is_about: bool = False
    values: tuple[Value, ...] = ()
    others: int = 0
    other_rows: int = 0
    spread: Spread | None = None
    crossing: Crossing | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """The fields of all rows that are ok. `left_out` names further fields, `groupings` all columns of few values."""

    rows: int
    fields: tuple[Field, ...]
    left_out: tuple[str, ...]
    groupings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    """A field with its column, and the values that were counted as they are."""

    column: Column
    field: Field
    raw: tuple[str, ...] = ()


def read_answers(connection: "DuckDBPyConnection", table: Path) -> Answers:
    """Look at the answers of a table. Leaves the temporary table `codes`."""
    source, fields = split_columns(connection, table)
    left_out = tuple(visible_cell(column.name, _NAME_CHARS) for column in fields[MAX_FIELDS:])
    fields, source = fields[:MAX_FIELDS], source[:_MAX_SOURCE]
    rows, known = measured(connection, table, [*fields, *source])
    found = [_field(connection, table, column) for column in known[: len(fields)] if column.filled]
    if fields and fields[0].name == "text":
        # Without fields, the length of the answers is told elsewhere.
        found = [one for one in found if one.field.kind == "values"]
    groupings = _groupings(connection, table, known[len(fields) :], rows) if found else []
    crossed = tuple(_crossed(connection, table, found, groupings)) if groupings else tuple(one.field for one in found)
    names = tuple(visible_cell(column.name, _NAME_CHARS) for column, _ in groupings)
    return Answers(rows, crossed, left_out, names)


def _field(connection: "DuckDBPyConnection", table: Path, column: Column) -> _Found:
    name = visible_cell(column.name, _NAME_CHARS)
    if 2 * column.arrays > column.filled:
        return _entries(connection, table, column, name)
    if column.is_number:
        is_few = column.different <= _FEW_NUMBERS + 2 and (2 * column.different <= column.filled or column.filled < 9)
    else:
        is_few = 2 * column.objects <= column.filled and _are_values(column.filled, column.different, column.longest)
    if is_few:
        counted, raw, different, other_rows = _counted(
            connection, f"(SELECT {column.text} AS v {ok_rows(table)})", is_number=column.is_number
        )
        if not column.is_number or different <= _FEW_NUMBERS:
            others = different - len(counted)
            field = Field(name, "values", column.filled, different, False, counted, others, other_rows)
            return _Found(column, field, raw)
    spread = spread_of(
        connection, f"(SELECT {column.number} AS n {ok_rows(table)})", is_whole=column.is_whole or not column.is_number
    )
    kind: Kind = "numbers" if column.is_number else "lengths"
    return _Found(column, Field(name, kind, column.filled, column.different, column.different > 50, spread=spread))


def _entries(connection: "DuckDBPyConnection", table: Path, column: Column, name: str) -> _Found:
    """Count the entries of lists where they are few, else how many a list has."""
    entries = f"(SELECT unnest({column.entries}) AS v {ok_rows(table)})"
    filled, different, longest = connection.execute(
        f"SELECT count(v), least(approx_count_distinct(v), count(v)), coalesce(max(length(v)), 0) FROM {entries}"
    ).fetchall()[0]
    if filled and _are_values(filled, different, longest):
        counted, raw, different, other_rows = _counted(connection, entries, is_number=False)
        others = different - len(counted)
        return _Found(column, Field(name, "entries", column.arrays, different, False, counted, others, other_rows), raw)
    spread = spread_of(
        connection,
        f"(SELECT CAST(json_array_length({column.text}) AS DOUBLE) AS n {_lists(column, table)})",
        is_whole=True,
    )
    return _Found(column, Field(name, "entries", column.arrays, different, different > 50, spread=spread))


def _lists(column: Column, table: Path) -> str:
    return f"{ok_rows(table)} AND {column.entries} IS NOT NULL"


def _are_values(filled: int, different: int, longest: int) -> bool:
    """Whether texts are values to be counted: short ones that repeat themselves, or are few."""
    if longest > MAX_VALUE_CHARS:
        return False
    if different <= _FEW_TEXTS:
        return 2 * different <= filled or longest <= _SHORT_CHARS
    return different <= _MANY_TEXTS and _REPEATS * different <= filled


def _counted(
    connection: "DuckDBPyConnection", relation: str, *, is_number: bool
) -> tuple[tuple[Value, ...], tuple[str, ...], int, int]:
    """Return the commonest values of the column `v`, as shown and as they are, the count of all, rows of the others."""
    found = connection.execute(
        f"""SELECT v, uses, count(*) OVER (), sum(uses) OVER ()
            FROM (SELECT v, count(*) AS uses FROM {relation} WHERE v IS NOT NULL GROUP BY v)
            ORDER BY uses DESC, v LIMIT {_FEW_NUMBERS if is_number else MAX_VALUES}"""
    ).fetchall()
    rows = int(found[0][3]) - sum(uses for _, uses, _, _ in found) if found else 0
    different = found[0][2] if found else 0
    if is_number:
        found.sort(key=lambda one: float(one[0]))
    values = tuple(Value(shown_value(value), uses) for value, uses, _, _ in found)
    return values, tuple(value for value, *_ in found), different, rows


def shown_value(value: str) -> str:
    """Return a value as people read it."""
    return visible_cell(value, _NAME_CHARS) or "(empty)"


def _groupings(
    connection: "DuckDBPyConnection", table: Path, source: Sequence[Column], rows: int
) -> list[tuple[Column, list[str]]]:
    """Return the columns of the source that have few values, with these values."""
    if rows < _LEAST_ROWS:
        return []
    few: list[tuple[Column, list[str]]] = []
    for column in source:
        if len(few) == _MAX_GROUPINGS:
            break
        if not 2 <= column.different <= MAX_GROUPS + 2 or column.longest > MAX_VALUE_CHARS or 2 * column.filled < rows:
            continue
        found = connection.execute(
            f"""SELECT DISTINCT v FROM (SELECT {column.text} AS v {ok_rows(table)}) WHERE v IS NOT NULL
                ORDER BY v LIMIT {MAX_GROUPS + 1}"""
        ).fetchall()
        if 2 <= len(found) <= MAX_GROUPS and _LEAST_GROUP_ROWS * len(found) <= rows:
            few.append((column, [value for (value,) in found]))
    return few


def _crossed(
    connection: "DuckDBPyConnection",
    table: Path,
    found: Sequence[_Found],
    groupings: Sequence[tuple[Column, list[str]]],
) -> list[Field]:
    """Return the fields with the column that each varies with most. Bytes are grouped ten times as fast as texts."""
    # Values are handed over as parameters: a statement takes no NUL.
    parts = [f"{_code(column.text, values)} AS g{place}" for place, (column, values) in enumerate(groupings)]
    parts += [_answer_code(one, place) for place, one in enumerate(found)]
    lists = [*(values for _, values in groupings), *(list(one.raw) for one in found if one.field.spread is None)]
    connection.execute(f"CREATE TEMP TABLE codes AS SELECT {', '.join(parts)} {ok_rows(table)}", lists)
    columns = [
        Coded(visible_cell(column.name, _NAME_CHARS), f"g{place}", (NOTHING, *map(shown_value, values)))
        for place, (column, values) in enumerate(groupings)
    ]
    return [
        replace(one.field, crossing=_crossing(connection, one.field, f"a{place}", columns))
        for place, one in enumerate(found)
    ]


def _crossing(connection: "DuckDBPyConnection", field: Field, place: str, columns: Sequence[Coded]) -> Crossing | None:
    if field.filled < _LEAST_ROWS:
        return None
    if field.spread is not None:
        if not field.spread.bars:
            return None
        crossing = by_numbers(connection, place, columns)
        is_weak = crossing is None or (field.kind != "numbers" and crossing.strength < _LEAST_LENGTH_STRENGTH)
        return None if is_weak else crossing
    heads = [value.name for value in field.values]
    if field.kind == "entries":
        groups = ", ".join(column.place for column in columns)
        relation = f"(SELECT {groups}, unnest({place}) - 1 AS answer FROM codes)"
        return by_values(connection, relation, heads, columns, is_shared=False)
    heads += [OTHERS] if field.others else []
    groups = ", ".join(column.place for column in columns)
    relation = f"(SELECT {groups}, nullif({place}, 0) - 1 AS answer FROM codes)"
    return by_values(connection, relation, heads, columns, is_shared=True)


def _answer_code(one: _Found, place: int) -> str:
    column, field = one.column, one.field
    if field.spread is not None:
        number = f"CAST(json_array_length({column.text}) AS DOUBLE)" if field.kind == "entries" else column.number
        return f"{number} AS a{place}"
    if field.kind == "entries":
        positions = f"list_transform({column.entries}, lambda v: list_position(?::VARCHAR[], v)::UTINYINT)"
        return f"list_filter({positions}, lambda p: p IS NOT NULL) AS a{place}"
    return f"{_code(column.text, one.raw)} AS a{place}"


def _code(text: str, values: Sequence[str]) -> str:
    """Return the SQL of a value's place among those that stand for `?`: from 1; behind all for others, 0 for none."""
    place = f"coalesce(list_position(?::VARCHAR[], {text}), {len(values) + 1})"
    return f"CAST(CASE WHEN {text} IS NULL THEN 0 ELSE {place} END AS UTINYINT)"
