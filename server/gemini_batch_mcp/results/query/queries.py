"""SQL over result tables: one read-only statement, answered in a process of its own, within time and memory.

Three walls stand behind each other: `_statement` has a list of what may stand in a statement, `_database` shuts and
locks everything in the engine but the files of the table, and `_process` keeps the engine in a process of its own,
`_worker`, which has no environment, may write nothing, and is killed when it does not stop.
"""

import base64
import zlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

from gemini_batch_mcp.domain import ChosenRows
from gemini_batch_mcp.errors import BatchError, StorageError, UsageError
from gemini_batch_mcp.results.query._condition import Condition
from gemini_batch_mcp.results.query._problems import crash_problem, memory_problem, time_problem
from gemini_batch_mcp.results.query._process import Cause, ProcessEnded, ProcessPool, Stop
from gemini_batch_mcp.results.query._statement import RELATION
from gemini_batch_mcp.results.query._worker import Query, QueryAnswer

__all__ = ["RELATION", "QueryAnswer", "QueryEngine", "Stop"]

MAX_ANSWER_ROWS: Final = 1000
#: Each may take a processor and its memory limit; a third query waits.
MAX_PROCESSES: Final = 2
#: How long a process that nobody uses, and that takes 60 MB, is kept for the next query.
IDLE_SECONDS: Final = 300.0
#: How long a statement may take whose rows are saved: it reads all of them, and nobody waits for the first page.
SAVING_SECONDS: Final = 120.0
#: How long after its limit a query is killed that the engine does not interrupt.
_GRACE_SECONDS: Final = 1.0


class QueryEngine:
    """Answers queries, in at most `max_processes` processes; may be used from several threads. Close it at the end."""

    def __init__(self, *, max_processes: int = MAX_PROCESSES, idle_seconds: float = IDLE_SECONDS) -> None:
        self._pool = ProcessPool(max_processes=max_processes, idle_seconds=idle_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all processes; queries that are running fail."""
        self._pool.close()

    def prepare(self) -> None:
        """Start a process now, so that the first query need not wait for it; it takes 0.2 s.

        Raises:
            StorageError: it cannot be started, or the engine is closed.
        """
        self._pool.prepare()

    def query_table(self, table: Path, sql: str, **limits: Any) -> QueryAnswer:
        """Answer one SELECT over the relation `results`; see `query_tables`."""
        return self.query_tables({RELATION: table}, sql, **limits)

    def query_tables(
        self,
        tables: Mapping[str, Path],
        sql: str,
        *,
        limit: int = 100,
        time_limit_seconds: float = 20.0,
        memory_limit_bytes: int = 512 << 20,
        max_cell_chars: int = 2000,
        max_chars: int = 17_000,
        stop: Stop | None = None,
    ) -> QueryAnswer:
        """Answer one SELECT over `tables`: the Parquet file at each path, or all in that folder.

        At most `limit` rows come back, and as many as take at most `max_chars` characters as compact JSON, the names of
        the columns included. Values are JSON: numbers, booleans, null, and text, in which hidden characters are written
        out and cuts are marked. Dates and times are ISO text, in UTC; numbers that JSON readers would change are text;
        lists and structs are JSON text; of more than 16 numbers in a list, and of more than 64 bytes, only the count is
        told.

        The call takes at most twice `time_limit_seconds` and some seconds, as it may have to wait for other queries.
        `stop`, set in another thread, ends it at once; what it then raises is for nobody.

        Raises:
            UsageError: the statement is refused, wrong, or needs more time or memory than it may have.
            NotReady: other queries are running.
            StorageError: a table is missing or damaged, or no process can be started.
        """
        if not 1 <= limit <= MAX_ANSWER_ROWS:
            raise UsageError(f"limit is {limit}.", f"Give a number from 1 to {MAX_ANSWER_ROWS}.")
        query = Query({}, sql, limit, time_limit_seconds, memory_limit_bytes, max_cell_chars, max_chars)
        reply = self._ask(tables, query, stop or Stop())
        rows = tuple(map(tuple, reply["rows"]))
        return QueryAnswer(tuple(reply["columns"]), rows, len(rows), reply["truncated"])

    def choose_rows(
        self,
        table: Path,
        where: str,
        *,
        number: str,
        is_text: bool,
        time_limit_seconds: float = 30.0,
        memory_limit_bytes: int = 512 << 20,
    ) -> ChosenRows:
        """Return the rows of the Parquet file at `table`, or of all in that folder, that meet a condition in SQL.

        `number` is the column that numbers them from 1. With `is_text` all others are texts; one in which only numbers
        stand is compared as numbers. The condition is judged, and run, as a whole query is.

        Raises:
            as `query_tables`.
        """
        condition = Condition({}, where, number, is_text, time_limit_seconds, memory_limit_bytes)
        reply = self._ask({RELATION: table}, condition, Stop())
        return ChosenRows(zlib.decompress(base64.b64decode(reply["bits"])), reply["chosen"], reply["total"])

    def save_selected(
        self,
        tables: Mapping[str, Path],
        sql: str,
        destination: Path,
        *,
        time_limit_seconds: float = SAVING_SECONDS,
        memory_limit_bytes: int = 512 << 20,
    ) -> int:
        """Write all rows of one SELECT over `tables` to `destination` as Parquet; return how many they are.

        The statement is judged and run as a question is. Integers that Parquet cannot hold exactly become decimals of
        38 digits; a name that stands twice gets a number.

        Raises:
            UsageError, NotReady, StorageError: as `query_tables` does.
            OSError: the file cannot be written.
        """
        query = Query({}, sql, 0, time_limit_seconds, memory_limit_bytes, 0, 0, is_to_save=True)
        with destination.open("xb") as file:
            return int(self._ask(tables, query, Stop(), file)["saved"])

    def _ask(
        self, tables: Mapping[str, Path], question: Query | Condition, stop: Stop, into: BinaryIO | None = None
    ) -> dict[str, Any]:
        try:
            with self._pool.slot(question.time_limit_seconds, stop):
                return self._answer(tables, question, stop, into)
        except ProcessEnded as ended:
            raise _problem(ended, question) from ended

    def _answer(
        self, tables: Mapping[str, Path], question: Query | Condition, stop: Stop, into: BinaryIO | None
    ) -> dict[str, Any]:
        try:
            paths = {name: str(table.resolve(strict=True)) for name, table in tables.items()}
        except (OSError, RuntimeError) as error:  # a loop of symbolic links
            raise StorageError("There is no result table yet.", "Call get_results first.") from error
        seconds = question.time_limit_seconds + _GRACE_SECONDS
        return _read(self._pool.ask(asdict(replace(question, tables=paths)), seconds, stop, into))


def _read(reply: dict[str, Any]) -> dict[str, Any]:
    if problem := reply.get("usage_error"):
        raise UsageError(*problem)
    if problem := reply.get("storage_error"):
        raise StorageError(*problem)
    return reply


def _problem(ended: ProcessEnded, query: Query | Condition) -> BatchError:
    if ended.cause is Cause.LATE:
        return time_problem(query.time_limit_seconds)
    if ended.cause is Cause.TOO_LARGE:
        return memory_problem(query.memory_limit_bytes)
    return crash_problem()
