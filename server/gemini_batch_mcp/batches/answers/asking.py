"""A question in SQL to all answers of a batch, and of others beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from gemini_batch_mcp.batches.answers._saving import with_tables
from gemini_batch_mcp.batches.answers.reading import read_also, read_results
from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.remote.reading import ask_remote
from gemini_batch_mcp.batches.work import deadline_after, seconds_left
from gemini_batch_mcp.domain import ResultQuery
from gemini_batch_mcp.results.query.queries import RELATION, QueryAnswer, Stop
from gemini_batch_mcp.threads import in_stoppable_thread


async def ask_results(
    app: App,
    reference: str,
    sql: str,
    *,
    limit: int,
    also: Sequence[str] = (),
    wait_seconds: float | None = None,
) -> QueryAnswer:
    """Collect a batch if that has not been done, and answer one SELECT over its result table; a cancel ends it at once.

    Its table is `results`; those of the batches in `also` go by their ids, see `read_also`.

    Raises:
        NotReady: there is nothing to read yet, or ever.
        StillCollecting: fetching the answers takes longer than `wait_seconds`; it goes on in the background.
        UsageError: the statement is none that may be asked, or takes too long.
    """
    deadline = deadline_after(wait_seconds)
    results = await read_results(app, reference, ResultQuery(), wait_seconds=wait_seconds)
    if results.remote is not None:
        others = [await read_results(app, other, ResultQuery(), wait_seconds=seconds_left(deadline)) for other in also]
        return await ask_remote(app, [found.status.batch for found in (results, *others)], sql, limit=limit)
    tables = {RELATION: results.table} | await read_also(app, also, deadline)

    stop = Stop()

    def ask(folders: Mapping[str, Path]) -> QueryAnswer:
        return app.queries.query_tables(folders, sql, limit=limit, stop=stop)

    return await in_stoppable_thread(stop.set, with_tables, tables, ask)
