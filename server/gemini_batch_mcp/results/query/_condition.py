"""A condition over the rows of a table, judged as a whole statement is, and the rows that it chooses.

The condition stands behind WHERE in a statement of ours, which must come out of the parser as that one statement: what
closes our bracket, adds a clause, or is a second query makes another tree. What is inside is judged like every part of
a statement. It chooses the same rows whenever it is asked: nothing in it may look at the clock or at chance.
"""

# ruff: noqa: S608 - statements consist of our own names, and of a condition that is judged before it runs

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.results.query._problems import is_about_statement, shown_name, statement_problem
from gemini_batch_mcp.results.query._statement import RELATION, checked_statement, parsed_tree

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: The rows as they are stored; no condition can name it.
STORED: Final = "stored rows"
_FETCHED_ROWS: Final = 1 << 16
#: Functions whose answer is another one at another time.
_CHANGING: Final = frozenset(
    {"age", "current_date", "current_localtime", "current_localtimestamp", "get_current_time", "get_current_timestamp"}
    | {"gen_random_uuid", "now", "random", "reservoir_quantile", "today", "transaction_timestamp", "uuid", "uuidv4"}
    | {"uuidv7"}
)
#: The same as words without brackets, where no column has that name.
_CLOCK: Final = frozenset({"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"})
#: Where in the text a part stands says nothing about what it is.
_PLACES: Final = frozenset({"query_location", "query_location_length"})
_WHOLE: Final = r"-?(0|[1-9][0-9]{0,17})"
_NUMBER: Final = rf"{_WHOLE}(\.[0-9]+)?([eE][+-]?[0-9]{{1,3}})?"


@dataclass(frozen=True, slots=True)
class Condition:
    """What is asked, and its limits. `tables` has the path of the one table, resolved.

    `number` is the column that numbers its rows from 1. `is_text` says that every other column holds texts, as a CSV
    does: one in which only numbers stand, or only true and false, is compared as what it holds.
    """

    tables: Mapping[str, str]
    where: str
    number: str
    is_text: bool
    time_limit_seconds: float
    memory_limit_bytes: int


@dataclass(frozen=True, slots=True)
class Choice:
    """The rows: bit n-1 of `bits`, from the highest bit of the first byte on, stands for row n. `total` counts all."""

    bits: bytes
    chosen: int
    total: int


def choose(connection: "DuckDBPyConnection", condition: Condition) -> Choice:
    """Return the rows that a condition chooses; the database has the view `STORED`.

    Raises:
        UsageError: the condition is refused or wrong.
        duckdb.Error: it cannot be computed.
    """
    described = [name for name, *_ in connection.execute(f'DESCRIBE "{STORED}"').fetchall()]
    columns = [name for name in described if not (condition.is_text and name == condition.number)]
    _show(connection, {})
    total, last = connection.execute(
        f'SELECT count(*), coalesce(max({_name(condition.number)}), 0) FROM "{STORED}"'
    ).fetchall()[0]
    _read(connection, condition, columns)
    bits = bytearray(-(-last // 8))
    chosen = 0
    while numbers := connection.fetchmany(_FETCHED_ROWS):
        chosen += len(numbers)
        for (number,) in numbers:
            place = number - 1
            bits[place >> 3] |= 0x80 >> (place & 7)
    return Choice(bytes(bits), chosen, total)


def _read(connection: "DuckDBPyConnection", condition: Condition, columns: Sequence[str]) -> None:
    """Have the connection read the numbers of the chosen rows."""
    import duckdb

    statement = _statement(condition.number, condition.where)
    try:
        parsed = checked_statement(connection, statement, (RELATION,)).parsed
        inside = _inside(connection, condition, statement)
        _refuse_changing(inside, columns)
        kinds = _kinds(connection, _named(inside), columns) if condition.is_text else {}
        if kinds:
            _show(connection, kinds)
            try:
                connection.execute(parsed)
                return
            except (duckdb.InterruptException, duckdb.OutOfMemoryException):
                raise
            except duckdb.Error:
                # What is meant is the text: `phone LIKE '49%'`.
                _show(connection, {})
        connection.execute(parsed)
    except UsageError as error:
        raise _about(error) from None
    except duckdb.ConversionException:
        raise UsageError(
            "`where` compares values of different types, or is not a condition.",
            "Compare texts with texts in quotes, and cells that are not all numbers by TRY_CAST(column AS DOUBLE).",
        ) from None
    except duckdb.Error as error:
        if is_about_statement(error):
            raise _about(statement_problem(error, {RELATION: columns})) from None
        raise


def _statement(number: str, where: str) -> str:
    # On lines of its own, so that a comment in it ends before our bracket does.
    return f"SELECT {_name(number)} FROM {RELATION} WHERE (\n{where}\n)"


def _inside(connection: "DuckDBPyConnection", condition: Condition, statement: str) -> Any:
    """Return the condition as a tree.

    Raises:
        UsageError: it is more than one condition.
    """
    tree, frame = (
        _without_places(parsed_tree(connection, text)) for text in (statement, _statement(condition.number, "true"))
    )
    inside = tree["node"].pop("where_clause", None)
    frame["node"].pop("where_clause")
    if tree != frame or inside is None:
        raise UsageError(
            "It is more than one condition.",
            "Give what would stand behind WHERE, such as country = 'DE' AND stars < 3.",
        )
    return inside


def _without_places(part: Any) -> Any:
    if isinstance(part, dict):
        return {name: _without_places(member) for name, member in part.items() if name not in _PLACES}
    return [_without_places(member) for member in part] if isinstance(part, list) else part


def _parts(part: Any) -> Iterator[Mapping[str, Any]]:
    waiting = [part]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


def _refuse_changing(inside: Any, columns: Sequence[str]) -> None:
    known = {column.lower() for column in columns}
    for part in _parts(inside):
        names = [str(part.get("function_name", "")).lower()]
        if part.get("class") == "COLUMN_REF" and len(part["column_names"]) == 1:
            word = part["column_names"][0].lower()
            names += [word] if word in _CLOCK and word not in known else []
        for name in names:
            if name in _CHANGING | _CLOCK:
                raise UsageError(
                    f"{shown_name(name)} gives another answer at another time, and an order has the same rows whenever "
                    "it is given.",
                    "Write the date or the value itself.",
                )


def _named(inside: Any) -> set[str]:
    """Return every name in a condition that may be a column, in lower case."""
    return {
        str(name).lower()
        for part in _parts(inside)
        if part.get("class") == "COLUMN_REF"
        for name in part["column_names"]
    }


def _kinds(connection: "DuckDBPyConnection", named: set[str], columns: Sequence[str]) -> dict[str, str]:
    """Return what the texts of the columns that are named are all of; a text with leading zeros stays one."""
    wanted = [column for column in columns if column.lower() in named]
    if not wanted:
        return {}
    looks = ", ".join(
        f"bool_or({cell} <> ''), bool_and({cell} IN ('', 'true', 'false')), "
        f"bool_and({cell} = '' OR regexp_full_match({cell}, '{_WHOLE}')), "
        f"bool_and({cell} = '' OR regexp_full_match({cell}, '{_NUMBER}'))"
        for cell in map(_name, wanted)
    )
    found = connection.execute(f'SELECT {looks} FROM "{STORED}"').fetchall()[0]
    kinds: dict[str, str] = {}
    for place, column in enumerate(wanted):
        is_filled, is_logical, is_whole, is_number = found[4 * place : 4 * place + 4]
        kind = "BOOLEAN" if is_logical else "BIGINT" if is_whole else "DOUBLE" if is_number else ""
        if is_filled and kind:
            kinds[column] = kind
    return kinds


def _show(connection: "DuckDBPyConnection", kinds: Mapping[str, str]) -> None:
    """Make the view that a condition sees. An empty cell of a column of numbers is NULL."""
    changed = ", ".join(
        f"TRY_CAST(nullif({_name(column)}, '') AS {kind}) AS {_name(column)}" for column, kind in kinds.items()
    )
    replaced = f" REPLACE ({changed})" if changed else ""
    connection.execute(f'CREATE OR REPLACE VIEW {RELATION} AS SELECT *{replaced} FROM "{STORED}"')


def _about(error: UsageError) -> UsageError:
    step = error.next_step.replace(f"The columns of {RELATION} are", "The columns are")
    return UsageError(f"`where` cannot be used: {error.message[:1].lower()}{error.message[1:]}", step)


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'
