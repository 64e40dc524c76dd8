"""SQL as text: literals, the expressions of cells, and the query whose rows are the lines. Knows no engine."""

# ruff: noqa: S608 - statements consist of our own names, of numbers, and of literals made by `quoted`

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from gemini_batch_mcp.domain import ChosenRows
from gemini_batch_mcp.intake.template import Column, Template

#: The form of a file whose lines are written without a change: no character that would be quoted occurs in JSON.
AS_IT_IS: Final = (
    "FORMAT csv, HEADER false, USE_TMP_FILE false, "
    "QUOTE e'\\x02', ESCAPE e'\\x02', DELIMITER e'\\x01', COMMENT e'\\x03'"
)
#: Stands in a table's definition for the options that `buffers` returns. No path and no literal holds a NUL.
BUFFERS: Final = "\0buffers"
#: Stands before and after a cell that is to be replaced; JSON never holds it.
MARK: Final = b"\x04"
_MARK: Final = "chr(4)"
_NESTED: Final = ("STRUCT", "MAP", "UNION", "JSON", "VARIANT")
#: Control characters that have no short escape in JSON. The engine writes their digits in capital letters.
_CONTROL: Final = re.compile("[\x00-\x07\x0b\x0e-\x1f]")
#: What stands for each character that JSON does not take as it is, as the engine writes it, by code point.
JSON_ESCAPES: Final[Mapping[int, str]] = MappingProxyType(
    {code: json.dumps(chr(code))[1:-1] for code in (*range(32), 34, 92)}
    | {code: f"\\u{code:04X}" for code in range(32) if _CONTROL.match(chr(code))}
)


@dataclass(frozen=True, slots=True)
class RowKey:
    """The key of a row without one: `row-000001-3f2a9c1d`, from its place and the content of these columns."""

    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Marked:
    """A cell as JSON between two marks: somebody who reads the lines puts something else in its place."""

    column: str


#: What a line is made of: JSON as it stands, texts to be escaped, keys to be made, cells to be replaced.
Piece = str | Template | RowKey | Marked
LineForm = Sequence[Piece]


def line_query(form: LineForm, relation: str, cells: Mapping[str, str], limit_rows: int) -> str:
    """Return the query whose rows are the lines. `cells` holds the expression of each column; 0 rows is no limit."""
    used: dict[str, str] = {}
    for piece in form:
        for column in _columns(piece):
            used.setdefault(column, f"v{len(used)}")
    rows = _numbered({alias: cells[name] for name, alias in used.items()}, relation, limit_rows)
    return f"SELECT {_line(form, used)} FROM ({rows})"


def value_query(column: str, relation: str, cells: Mapping[str, str], limit_rows: int) -> str:
    """Return the query for the values of one column: a JSON list of value, rows that have it, and the first of them."""
    rows = _numbered({"v": cells[column]}, relation, limit_rows)
    counted = f"SELECT v, count(*) AS uses, min(n) AS first FROM ({rows}) GROUP BY v ORDER BY first"
    return f"SELECT concat('[', to_json(v), ',', uses, ',', first, ']') FROM ({counted})"


def digest_query(columns: Sequence[str], relation: str, cells: Mapping[str, str], chars: int) -> str:
    """Return the query for a digest of each row's cells, `chars` hexadecimal digits of it, in order."""
    # Of the digests of cells: long ones are not copied.
    content = ", ".join(f"md5(coalesce({cells[column]}, ''))" for column in columns)
    return f"SELECT left(md5(concat({content})), {chars}) FROM {relation}"


def cell_query(columns: Sequence[str], relation: str, cells: Mapping[str, str], limit_rows: int) -> str:
    """Return the query for the cells of these columns, empty where there is nothing."""
    values = ", ".join(f"coalesce({cells[column]}, '')" for column in columns) or "''"
    return f"SELECT {values} FROM {relation}" + (f" LIMIT {limit_rows}" if limit_rows else "")


def longest_query(columns: Sequence[str], relation: str, cells: Mapping[str, str], limit_rows: int) -> str:
    """Return the query for the bytes of the longest cell among these columns."""
    longest = ", ".join(f"max(strlen({cells[column]}))" for column in columns)
    rows = f"(SELECT * FROM {relation} LIMIT {limit_rows})" if limit_rows else relation
    return f"SELECT greatest(0, {longest}) FROM {rows}"


def column_query(
    names: Mapping[str, str], relation: str, cells: Mapping[str, str], limit_rows: int, number: str = "row"
) -> str:
    """Return the query for rows under other names, after their numbers; `names` leads from ours to theirs."""
    aliases = {f"v{number}": cells[column] for number, column in enumerate(names)}
    named = ", ".join(f"{alias} AS {column_name(new)}" for alias, new in zip(aliases, names.values(), strict=True))
    return f"SELECT n AS {column_name(number)}, {named} FROM ({_numbered(aliases, relation, limit_rows)})"


def chosen_rows(relation: str, number: str, chosen: ChosenRows) -> str:
    """Return the relation with the chosen rows of another one, which the column `number` numbers from 1."""
    # A constant of the engine: a bit is looked up in no time, and rows stay in their order, which a join may change.
    bits = f"CAST(from_hex('{chosen.bits.hex()}') AS BIT)"
    return f"(SELECT * FROM {relation} WHERE get_bit({bits}, CAST({column_name(number)} - 1 AS INTEGER)) = 1)"


def numbered_rows(relation: str, number: str) -> str:
    """Return a relation with its rows numbered from 1, by a column of that name."""
    return f"(SELECT row_number() OVER () AS {column_name(number)}, * FROM {relation})"


def as_text(column: str, kind: str) -> str:
    """Return the expression of a Parquet column's cell as text; nested values become JSON."""
    name = column_name(column)
    if kind == "VARCHAR":
        return name
    if kind.startswith(_NESTED) or kind.endswith("]"):
        return f"CAST(to_json({name}) AS VARCHAR)"
    return f"base64({name})" if kind == "BLOB" else f"CAST({name} AS VARCHAR)"


def buffers(record_bytes: int) -> str:
    """Return the options for reading records of that size; the engine's own choice is several times as large."""
    return f"max_line_size={record_bytes}, buffer_size={2 * record_bytes}"


def json_inside(text: str) -> str:
    """Return what stands between the quotation marks of a JSON text, as the engine writes it."""
    return text.translate(JSON_ESCAPES) if _CONTROL.search(text) else json.dumps(text, ensure_ascii=False)[1:-1]


def quoted(text: str) -> str:
    """Return text as a SQL literal."""
    literal = "'" + text.replace("'", "''") + "'"
    return "(" + literal.replace("\0", "' || chr(0) || '") + ")" if "\0" in text else literal


def file_literal(path: Path) -> str:
    """Return a file's path as a SQL literal in which no character is a wildcard."""
    return quoted(re.sub(r"[*?\[]", r"[\g<0>]", str(path)))


def _columns(piece: Piece) -> Sequence[str]:
    match piece:
        case str():
            return ()
        case Marked():
            return (piece.column,)
        case _:
            return piece.columns


def _line(form: LineForm, used: Mapping[str, str]) -> str:
    """Return the expression of a line: one `concat` of as few texts as there can be, since each costs a copy."""
    arguments: list[str] = []
    constant = ""
    for part in (part for piece in form for part in _expressions(piece, used)):
        if isinstance(part, _Constant):
            constant += part.text
            continue
        if constant:
            arguments.append(quoted(constant))
            constant = ""
        arguments.append(part)
    return f"concat({', '.join([*arguments, quoted(constant)])})"


@dataclass(frozen=True, slots=True)
class _Constant:
    """Text that is the same in every line."""

    text: str


def _expressions(piece: Piece, used: Mapping[str, str]) -> Iterator[str | _Constant]:
    match piece:
        case str():
            yield _Constant(piece)
        case Marked():
            yield from (_MARK, f"CAST(to_json({used[piece.column]}) AS VARCHAR)", _MARK)
        case RowKey():
            content = ", chr(31), ".join(used[column] for column in piece.columns) or "''"
            yield _Constant('"row-')
            # Twice as fast as `printf`, and unlike `lpad` alone it cuts no number off.
            yield "CASE WHEN n < 1000000 THEN lpad(CAST(n AS VARCHAR), 6, '0') ELSE CAST(n AS VARCHAR) END"
            yield _Constant("-")
            yield f"left(md5(concat({content})), 8)"
            yield _Constant('"')
        case Template():
            texts = [used[part.name] if isinstance(part, Column) else quoted(part) for part in piece.pieces]
            yield f"CAST(to_json(concat({', '.join(texts) or quoted('')})) AS VARCHAR)"


def _numbered(cells: Mapping[str, str], relation: str, limit_rows: int) -> str:
    """Return the query for cells under their aliases, empty where there is nothing, numbered from 1 as `n`."""
    values = "".join(f", coalesce({cell}, '') AS {alias}" for alias, cell in cells.items())
    limit = f" LIMIT {limit_rows}" if limit_rows else ""
    return f"SELECT row_number() OVER () AS n{values} FROM {relation}{limit}"


def column_name(column: str) -> str:
    """Return a column's name as SQL takes it, whatever it is."""
    return '"' + column.replace('"', '""') + '"'


def distinct_names(columns: Sequence[str], row: str = "row") -> tuple[str, ...]:
    """Return the names that columns have beside `row`, which numbers rows; each once, whatever its capital letters."""
    taken = {row.casefold(), *(column.casefold() for column in columns)}
    seen = {row.casefold()}
    names = []
    for column in columns:
        name, number = column, 1
        while name.casefold() in seen or (number > 1 and name.casefold() in taken):
            number += 1
            name = f"{column}_{number}"
        seen.add(name.casefold())
        names.append(name)
    return tuple(names)
