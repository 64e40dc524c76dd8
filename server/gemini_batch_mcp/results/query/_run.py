"""One query from its text to its answer, in the process that calls it; `query` has it run in one of its own."""

# ruff: noqa: S608 - statements consist of our own names and of numbers

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.results.query._cells import Cell, cell_columns, fitted_row, json_chars
from gemini_batch_mcp.results.query._database import locked_database
from gemini_batch_mcp.results.query._limits import watched
from gemini_batch_mcp.results.query._problems import (
    is_about_statement,
    memory_problem,
    run_problem,
    statement_problem,
    stuck_problem,
    time_problem,
)
from gemini_batch_mcp.results.query._statement import checked_statement
from gemini_batch_mcp.results.visible import visible_cell

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

_MAX_NAME_CHARS = 200
#: More columns than fit into an answer; each takes two in the query that shortens them.
_MAX_COLUMNS = 1000


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked, and its limits. `table` is a path, resolved; the other members are those of `query_table`."""

    table: str
    sql: str
    limit: int
    time_limit_seconds: float
    memory_limit_bytes: int
    max_cell_chars: int
    max_chars: int


@dataclass(frozen=True, slots=True)
class QueryAnswer:
    """The rows a query gave. `truncated` says that there are more."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    row_count: int
    truncated: bool


def run_query(query: Query) -> QueryAnswer:
    """Run a query and return its answer.

    Raises:
        UsageError: the statement is refused, wrong, or needs more time or memory than it may have.
        StorageError: the table cannot be read.
    """
    import duckdb

    is_stuck = False
    table = Path(query.table)
    try:
        with (
            locked_database(table, query.memory_limit_bytes) as connection,
            watched(connection, query.time_limit_seconds) as watch,
        ):
            try:
                return _answer(connection, query)
            finally:
                is_stuck = watch.is_stuck
    except duckdb.InterruptException:
        raise stuck_problem() if is_stuck else time_problem(query.time_limit_seconds) from None
    except (duckdb.OutOfMemoryException, MemoryError):
        raise memory_problem(query.memory_limit_bytes) from None
    except duckdb.Error as error:
        raise run_problem(error, table.name) from error


def _answer(connection: "DuckDBPyConnection", query: Query) -> QueryAnswer:
    relation, is_open_ended = _bound(connection, query.sql)
    names = [visible_cell(name, _MAX_NAME_CHARS) for name in relation.columns]
    budget = query.max_chars - json_chars(names)
    if len(names) > _MAX_COLUMNS or budget < query.max_chars // 2:
        raise _too_wide(len(names))
    relation.create_view("page")
    pairs = [cell_columns(number, kind, query.max_cell_chars) for number, kind in enumerate(relation.types)]
    shortened = ", ".join(f"{value}, {length}" for value, length in pairs)
    # Positions instead of names, because names may repeat.
    positions = ", ".join(f"c{number}" for number in range(len(names)))
    # Rows are fetched as they come, and no more than are needed. Only a sort has to know how many that are, or it would
    # keep all rows; elsewhere a LIMIT can make the engine stop for ever (see `query_limits`).
    limit = f" LIMIT {query.limit + 1}" if is_open_ended else ""
    connection.execute(f"SELECT {shortened} FROM page AS page({positions}){limit}")
    found = connection.fetchmany(query.limit + 1)
    rows: list[tuple[Cell, ...]] = []
    for values in found[: query.limit]:
        # Only the first row is made to fit: a page of one shortened row is better than none.
        row = fitted_row(values[::2], values[1::2], query.max_cell_chars, budget, may_shorten=not rows)
        if row is None:
            if rows:
                break
            raise _too_wide(len(names))
        budget -= json_chars(row) + 1
        rows.append(row)
    return QueryAnswer(tuple(names), tuple(rows), len(rows), truncated=len(found) > len(rows))


def _bound(connection: "DuckDBPyConnection", sql: str) -> tuple["DuckDBPyRelation", bool]:
    """Return the statement, checked, as something that has columns and types but has not run."""
    import duckdb

    columns = [name for name, *_ in connection.execute("DESCRIBE results").fetchall()]
    try:
        statement = checked_statement(connection, sql)
        return connection.sql(statement.parsed), statement.is_open_ended
    except duckdb.Error as error:
        if is_about_statement(error):
            raise statement_problem(error, columns) from None
        raise


def _too_wide(column_count: int) -> UsageError:
    return UsageError(
        f"The answer has {column_count:,} columns, which are too many to show.",
        "Name the columns that you need; DESCRIBE results lists them.",
    )
