"""What the engine says about a query, in sentences of ours.

While a statement is parsed and bound, no row has been read: the engine's words are about the query, and their first
line is shown. What it says afterwards may hold the content of a row, and is replaced.
"""

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from gemini_batch_mcp.errors import BatchError, StorageError, UsageError
from gemini_batch_mcp.results.sql_names import OLD_NAMES
from gemini_batch_mcp.text import safe_text

if TYPE_CHECKING:
    import duckdb

#: The names of tables, and of the columns of each.
Tables = Mapping[str, Sequence[str]]

_MAX_NAME_CHARS: Final = 60
_MAX_LIST_CHARS: Final = 1500
_MAX_MESSAGE_CHARS: Final = 300
_PLAIN_NAME: Final = re.compile(r"[a-z_][a-z0-9_]*")
#: The ways in which the engine says that a column is missing.
_NO_COLUMN: Final = (
    re.compile(r'Referenced column "(.+?)" not found'),
    re.compile(r'does not have a column named "(.+?)"'),
    re.compile(r'Column "(.+?)" in \w+ list not found'),
)
_NO_TABLE: Final = re.compile(r'Referenced table "(.+?)" not found')
#: The engine adds no texts up, and columns of a source are text.
_TEXT_AS_NUMBER: Final = re.compile(r"No function matches the given name and argument types '([^'(]+)\([^']*VARCHAR")
#: Nor does it compare them with numbers (`<=`, BETWEEN, coalesce, greatest).
_TEXT_WITH_NUMBER: Final = re.compile(r"Cannot (?:compare|mix|combine) (?:values of )?types? .*\bVARCHAR\b")
_AS_NUMBER: Final = "TRY_CAST(column AS DOUBLE)"
_STORAGE: Final = frozenset({"IOException", "HTTPException", "SerializationException"})
_LIMITS: Final = frozenset({"InterruptException", "OutOfMemoryException", "PermissionException"})
_RUN_SENTENCES: Final = {
    "ConversionException": (
        "A value cannot be converted to the type that the query asks for.",
        "Use TRY_CAST, or filter such rows out first.",
    ),
    "OutOfRangeException": ("A value is out of the range of its type.", "Cast to a larger type, or use TRY(…)."),
    "InvalidInputException": (
        "A function cannot be applied to a value in the table.",
        "Use TRY(…), or filter such rows out first.",
    ),
    "PermissionException": ("The query needs a feature that is switched off.", "Read only the tables that are given."),
}


def time_problem(time_limit_seconds: float) -> UsageError:
    """Return what to say when a query was stopped."""
    return UsageError(
        f"The query did not finish within {time_limit_seconds:g} seconds and was stopped.",
        "Filter with WHERE, aggregate with GROUP BY, avoid joins without a condition, or add a LIMIT.",
    )


def stuck_problem() -> UsageError:
    """Return what to say when the engine waited for itself."""
    return UsageError(
        "The engine got stuck on this query, as it can on a LIMIT over a subquery joined with itself.",
        "Leave out the LIMIT (answers are bounded anyway), or add an ORDER BY.",
    )


def memory_problem(memory_limit_bytes: int) -> UsageError:
    """Return what to say when a query ran into its memory limit."""
    return UsageError(
        f"The query needs more than the {memory_limit_bytes / (1 << 20):,.0f} MiB of memory that it may use.",
        "Select fewer columns, filter with WHERE, or aggregate without collecting whole texts.",
    )


def storage_problem() -> StorageError:
    """Return what to say when the file of the table is missing or damaged."""
    return StorageError("The result table could not be read.", "Call get_results to collect the batch again.")


def crash_problem() -> UsageError:
    """Return what to say when the process ended in the middle of a query."""
    return UsageError(
        "The engine ended during this query, as it does when a query is too large or too deeply nested.",
        "Simplify it.",
    )


def is_about_statement(error: "duckdb.Error") -> bool:
    """True when an error before the run is one of the statement itself, not of a limit or of the file."""
    return type(error).__name__ not in _STORAGE | _LIMITS


def statement_problem(error: "duckdb.Error", tables: Tables) -> UsageError:
    """Return what to say when the statement could not be parsed or bound; `tables` are those that it may read."""
    message = _message(error)
    for pattern in _NO_COLUMN:
        if found := pattern.search(message):
            return _no_column(found[1], tables)
    if found := _NO_TABLE.search(message):
        return UsageError(f"There is no table {shown_name(found[1])} here.", "Use the alias given in FROM.")
    said = safe_text(message.split("\n", 1)[0], _MAX_MESSAGE_CHARS).rstrip(".:!")
    if type(error).__name__ == "ParserException":
        return UsageError(f"The SQL cannot be parsed: {said}.", f"Write it in DuckDB's dialect. {table_advice(tables)}")
    if found := _TEXT_AS_NUMBER.search(message):
        # A sign stands between two values.
        number = f"{found[1].lower()}(TRY_CAST(column AS DOUBLE))" if found[1].isidentifier() else _AS_NUMBER
        return UsageError(f"The query is invalid: {said}.", _cast_advice(number) + column_advice(tables))
    if _TEXT_WITH_NUMBER.search(message):
        return UsageError(f"The query is invalid: {said}.", _cast_advice(_AS_NUMBER) + column_advice(tables))
    return UsageError(f"The query is invalid: {said}.", column_advice(tables))


def _cast_advice(number: str) -> str:
    return f"Columns of the source are text: {number}, for example. "


def run_problem(error: "duckdb.Error", file_names: Iterable[str]) -> BatchError:
    """Return what to say when a query failed while it ran. Nothing of the engine's own text is in it."""
    kind = type(error).__name__
    # Of a damaged file the engine says that its content is invalid, and names it.
    if kind in _STORAGE or any(name in str(error) for name in file_names):
        return storage_problem()
    message, next_step = _RUN_SENTENCES.get(kind, ("The query cannot be computed.", "Simplify it."))
    return UsageError(message, next_step)


def table_advice(tables: Iterable[str]) -> str:
    """Return a sentence that names the tables, as they have to be written in SQL."""
    names = sorted(map(_written, tables))
    return f"The only table is {names[0]}." if not names[1:] else f"The tables are {', '.join(names)}."


def column_advice(tables: Tables) -> str:
    """Return a sentence for each table that lists its columns, cut when it becomes long."""
    return " ".join(_columns_of(table, columns, _MAX_LIST_CHARS // len(tables)) for table, columns in tables.items())


def _columns_of(table: str, columns: Sequence[str], max_chars: int) -> str:
    listed: list[str] = []
    length = 0
    for column in columns:
        name = _written(column)
        length += len(name) + 2
        if length > max_chars:
            break
        listed.append(name)
    more = len(columns) - len(listed)
    rest = f" and {more:,} more (DESCRIBE {_written(table)} lists all)" if more else ""
    return f"The columns of {_written(table)} are {', '.join(listed)}{rest}."


def shown_name(name: str) -> str:
    """Return a name out of the query or the table as it may stand in a sentence."""
    return safe_text(name, _MAX_NAME_CHARS)


def _no_column(name: str, tables: Tables) -> UsageError:
    by_lower_case = {column.lower(): column for columns in tables.values() for column in columns}
    by_lower_case |= {old: new for old, new in OLD_NAMES.items() if new in by_lower_case}
    near = difflib.get_close_matches(name.lower(), list(by_lower_case), n=1, cutoff=0.6)
    advice = f"Did you mean {_written(by_lower_case[near[0]])}? " if near else ""
    return UsageError(f"There is no column {shown_name(name)}.", advice + column_advice(tables))


def _written(column: str) -> str:
    """Return a column name as it has to be written in SQL."""
    name = shown_name(column)
    return name if _PLAIN_NAME.fullmatch(name) else '"' + name.replace('"', '""') + '"'


def _message(error: "duckdb.Error") -> str:
    """Return the engine's message without its class and without the piece of the query below it."""
    text = str(error)
    start = text.find("{")
    try:
        return str(json.loads(text[start:])["exception_message"])
    except (ValueError, KeyError, TypeError):
        return text.removeprefix(f"{text.partition(': ')[0]}: ").split("\n\n", 1)[0]
