"""The process in which queries run, one after the other: a query a line on its input, an answer a line on its output.

It has no environment and no terminal, may write no file, and can be killed at any moment.
"""

import json
import os
import sys
from collections.abc import Iterable
from typing import Any, BinaryIO

from gemini_batch_mcp.errors import StorageError, UsageError
from gemini_batch_mcp.results.query._limits import MemoryFence, forbid_writing
from gemini_batch_mcp.results.query._run import Query, run_query


def main() -> None:
    """Answer the queries of the standard input on the standard output."""
    answers = os.fdopen(os.dup(1), "wb")
    # Whatever else writes to the standard output must not get among the answers.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    _warm_up()
    forbid_writing()
    serve(sys.stdin.buffer, answers, MemoryFence())


def serve(queries: Iterable[bytes], answers: BinaryIO, fence: MemoryFence) -> None:
    """Say that the process is ready, then answer queries until they end, or until the process has grown."""
    answers.write(b"{}\n")
    answers.flush()
    for line in queries:
        query = Query(**json.loads(line))
        fence.set(query.memory_limit_bytes)
        reply = answer(query)
        is_last = fence.has_grown()
        answers.write(json.dumps(reply | {"is_last": is_last}).encode() + b"\n")
        answers.flush()
        if is_last:
            return


def answer(query: Query) -> dict[str, Any]:
    """Return the answer to a query, or what is wrong with it, as JSON has it."""
    try:
        found = run_query(query)
    except UsageError as error:
        return {"usage_error": [error.message, error.next_step]}
    except StorageError as error:
        return {"storage_error": [error.message, error.next_step]}
    return {"columns": found.columns, "rows": found.rows, "truncated": found.truncated}


def _warm_up() -> None:
    """Load the engine, which takes longer than a query, and let it take the memory that it always takes."""
    import duckdb

    # As in `query_database`: every thread reserves address space.
    with duckdb.connect(config={"threads": 1, "async_threads": 1}) as connection:
        connection.execute("SELECT 1").fetchall()
