"""A question in SQL to all answers of a batch."""

from gemini_batch_mcp.batches.answers.reading import read_results
from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.domain import ResultQuery
from gemini_batch_mcp.results.query.queries import QueryAnswer, Stop
from gemini_batch_mcp.results.store import ResultTable
from gemini_batch_mcp.threads import in_stoppable_thread


async def ask_results(
    app: App, reference: str, sql: str, *, limit: int, wait_seconds: float | None = None
) -> QueryAnswer:
    """Collect a batch if that has not been done, and answer one SELECT over its result table; a cancel ends it at once.

    Raises:
        NotReady: there is nothing to read yet, or ever.
        StillCollecting: fetching the answers takes longer than `wait_seconds`; it goes on in the background.
        UsageError: the statement is none that may be asked, or takes too long.
    """
    results = await read_results(app, reference, ResultQuery(), wait_seconds=wait_seconds)

    stop = Stop()

    def ask(table: ResultTable) -> QueryAnswer:
        return app.queries.query_table(table.folder, sql, limit=limit, stop=stop)

    return await in_stoppable_thread(stop.set, results.table.while_there, ask)
