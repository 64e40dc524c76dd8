"""The process in which queries run, one after the other, seen from inside: what comes in, and a query to its answer.

A query is a line on its input, an answer a line on its output. It has no environment and no terminal, may write no
file, and can be killed at any moment.
"""

# ruff: noqa: S608 - statements consist of our own names and of numbers

import base64
import json
import os
import queue
import sys
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

from gemini_batch_mcp.errors import StorageError, UsageError
from gemini_batch_mcp.results.engine import identifier, quoted
from gemini_batch_mcp.results.query._cells import Cell, cell_columns, fitted_row, json_chars
from gemini_batch_mcp.results.query._condition import STORED, Choice, Condition, choose
from gemini_batch_mcp.results.query._database import locked_database
from gemini_batch_mcp.results.query._limits import MemoryFence, forbid_writing, watched
from gemini_batch_mcp.results.query._outlet import OUTLET, Outlet
from gemini_batch_mcp.results.query._problems import (
    is_about_statement,
    memory_problem,
    run_problem,
    statement_problem,
    stuck_problem,
    time_problem,
)
from gemini_batch_mcp.results.query._statement import RELATION, checked_statement
from gemini_batch_mcp.results.visible import visible_cell

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation
    from duckdb.sqltypes import DuckDBPyType

T = TypeVar("T")

_MAX_HEADER_CHARS: Final = 200
#: More columns than fit into an answer; each takes two in the query that shortens them.
_MAX_COLUMNS: Final = 1000
#: Of a file: those of a sheet.
_MAX_SAVED_COLUMNS: Final = 16_384
_PARQUET: Final = "(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 30720, ROW_GROUP_SIZE_BYTES 33554432)"


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked, and its limits. `tables` has their paths, resolved; the others are those of `query_tables`."""

    tables: Mapping[str, str]
    sql: str
    limit: int
    time_limit_seconds: float
    memory_limit_bytes: int
    max_cell_chars: int
    max_chars: int
    #: All of it is wanted, as Parquet in frames, instead of a page.
    is_to_save: bool = False


@dataclass(frozen=True, slots=True)
class QueryAnswer:
    """The rows a query gave. `truncated` says that there are more."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    row_count: int
    truncated: bool


def main() -> None:
    """Answer the queries of the standard input on the standard output."""
    answers = os.fdopen(os.dup(1), "wb")
    # Whatever else writes to the standard output must not get among the answers.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    queries = _arriving(sys.stdin.buffer)
    _warm_up()
    forbid_writing()
    serve(queries, answers, MemoryFence())
    # Past the thread that reads: at the end of an interpreter the two would wait for each other.
    os._exit(0)


def _arriving(source: BinaryIO) -> Iterable[bytes]:
    """Return the queries as they come. When no more can come, whoever asks is gone, and this process with it.

    A query that runs would not notice: the input is read in a thread. On every system a pipe ends when the process at
    its other end does, however that ends.
    """
    waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        for line in source:
            waiting.put(line)
        os._exit(0)

    threading.Thread(target=read, name="queries", daemon=True).start()
    return iter(waiting.get, None)


def serve(queries: Iterable[bytes], answers: BinaryIO, fence: MemoryFence) -> None:
    """Say that the process is ready, then answer queries until they end, or until the process has grown."""
    answers.write(b"{}\n")
    answers.flush()
    for line in queries:
        asked = json.loads(line)
        question = Condition(**asked) if "where" in asked else Query(**asked)
        fence.set(question.memory_limit_bytes)
        reply = answer(question, answers)
        is_last = fence.has_grown()
        answers.write(json.dumps(reply | {"is_last": is_last}).encode() + b"\n")
        answers.flush()
        if is_last:
            return


def answer(question: Query | Condition, answers: BinaryIO) -> dict[str, Any]:
    """Return the answer to a question, or what is wrong with it, as JSON has it; rows to be saved go to `answers`."""
    try:
        if isinstance(question, Condition):
            choice = run_condition(question)
            bits = base64.b64encode(zlib.compress(choice.bits)).decode()
            return {"bits": bits, "chosen": choice.chosen, "total": choice.total}
        if question.is_to_save:
            query = question
            return {
                "saved": _locked_in(query, query.tables, lambda connection: _save(connection, query), Outlet(answers))
            }
        found = run_query(question)
    except UsageError as error:
        return {"usage_error": [error.message, error.next_step]}
    except StorageError as error:
        return {"storage_error": [error.message, error.next_step]}
    return {"columns": found.columns, "rows": found.rows, "truncated": found.truncated}


def run_query(query: Query) -> QueryAnswer:
    """Run a query and return its answer.

    Raises:
        UsageError: the statement is refused, wrong, or needs more time or memory than it may have.
        StorageError: the table cannot be read.
    """
    return _locked_in(query, query.tables, lambda connection: _answer(connection, query))


def run_condition(condition: Condition) -> Choice:
    """Return the rows that a condition chooses. Raises as `run_query`."""
    return _locked_in(condition, {STORED: condition.tables[RELATION]}, lambda connection: choose(connection, condition))


def _locked_in(
    question: Query | Condition,
    tables: Mapping[str, str],
    work: Callable[["DuckDBPyConnection"], T],
    outlet: Outlet | None = None,
) -> T:
    """Do work in a database that can read `tables` and write an `outlet`, nothing else, within a question's limits."""
    import duckdb

    is_stuck = False
    paths = {name: Path(path) for name, path in tables.items()}
    try:
        with (
            locked_database(paths, question.memory_limit_bytes, outlet) as connection,
            watched(connection, question.time_limit_seconds) as watch,
        ):
            try:
                return work(connection)
            finally:
                is_stuck = watch.is_stuck
    except duckdb.InterruptException:
        raise stuck_problem() if is_stuck else time_problem(question.time_limit_seconds) from None
    except (duckdb.OutOfMemoryException, MemoryError):
        raise memory_problem(question.memory_limit_bytes) from None
    except duckdb.Error as error:
        raise run_problem(error, [path.name for path in paths.values()]) from error


def _answer(connection: "DuckDBPyConnection", query: Query) -> QueryAnswer:
    relation, is_open_ended = _bound(connection, query)
    names = [visible_cell(name, _MAX_HEADER_CHARS) for name in relation.columns]
    budget = query.max_chars - json_chars(names)
    if len(names) > _MAX_COLUMNS or budget < query.max_chars // 2:
        raise _too_wide(len(names))
    relation.create_view("page")
    pairs = [cell_columns(number, kind, query.max_cell_chars) for number, kind in enumerate(relation.types)]
    shortened = ", ".join(f"{value}, {length}" for value, length in pairs)
    # Positions instead of names, because names may repeat.
    positions = ", ".join(f"c{number}" for number in range(len(names)))
    # Rows are fetched as they come, and no more than are needed. Only a sort has to know how many that are, or it would
    # keep all rows; elsewhere a LIMIT can make the engine stop for ever (see `_limits`).
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


def _save(connection: "DuckDBPyConnection", query: Query) -> int:
    """Write all rows of a statement to the outlet as Parquet; return how many they are.

    A name that stands twice gets a number: a file has no two columns of one name.
    """
    relation, _ = _bound(connection, query)
    names = _apart(relation.columns)
    if len(names) > _MAX_SAVED_COLUMNS:
        raise _too_wide(len(names))
    relation.create_view("page")
    positions = ", ".join(f"c{number}" for number in range(len(names)))
    columns = ", ".join(
        f"{_exact(f'c{number}', kind)} AS {identifier(name)}"
        for number, (name, kind) in enumerate(zip(names, relation.types, strict=True))
    )
    selected = f"SELECT {columns} FROM page AS page({positions})"
    found = connection.execute(f"COPY ({selected}) TO {quoted(OUTLET)} {_PARQUET}").fetchone()
    return int(found[0]) if found is not None else 0


def _exact(column: str, kind: "DuckDBPyType") -> str:
    """Return SQL for a column as Parquet can hold it without a loss: the engine makes doubles of large integers."""
    if kind.id in ("hugeint", "uhugeint"):
        return f"CAST({column} AS DECIMAL(38, 0))"
    if kind.id in ("bignum", "bit", "union", "variant", "interval", "sqlnull"):
        return f"CAST({column} AS VARCHAR)"
    return column


def _apart(names: Sequence[str]) -> list[str]:
    """Return names of which no two are the same, whatever their letters' case."""
    taken = {name.casefold() for name in names}
    seen: set[str] = set()
    apart: list[str] = []
    for name in names:
        number = 1
        unique = name
        while unique.casefold() in seen or (number > 1 and unique.casefold() in taken):
            number += 1
            unique = f"{name}_{number}"
        seen.add(unique.casefold())
        apart.append(unique)
    return apart


def _bound(connection: "DuckDBPyConnection", query: Query) -> tuple["DuckDBPyRelation", bool]:
    """Return the statement, checked, as something that has columns and types but has not run."""
    import duckdb

    tables = {
        table: [name for name, *_ in connection.execute(f"DESCRIBE {identifier(table)}").fetchall()]
        for table in query.tables
    }
    try:
        statement = checked_statement(connection, query.sql, query.tables)
        return connection.sql(statement.parsed), statement.is_open_ended
    except duckdb.Error as error:
        if is_about_statement(error):
            raise statement_problem(error, tables) from None
        raise


def _too_wide(column_count: int) -> UsageError:
    return UsageError(
        f"The answer has {column_count:,} columns, which is too many to show.",
        "Select the columns that you need; DESCRIBE results lists them.",
    )


def _warm_up() -> None:
    """Load the engine, which takes longer than a query, and let it take the memory that it always takes."""
    import duckdb

    # As in `_database`: every thread reserves address space.
    with duckdb.connect(config={"threads": 1, "async_threads": 1}) as connection:
        connection.execute("SELECT 1").fetchall()
