"""A question in SQL to all answers of a batch, and of others beside it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

from gemini_batch_mcp.batches.answers.reading import Results, read_results
from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.work import deadline_after, seconds_left
from gemini_batch_mcp.domain import ResultQuery
from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.results.query.queries import RELATION, QueryAnswer, Stop
from gemini_batch_mcp.results.store import ResultTable
from gemini_batch_mcp.threads import in_stoppable_thread

T = TypeVar("T")
#: Batches beside the one that is asked: each is collected first, and its parts are opened for the query.
MAX_ALSO: Final = 10


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

    Its table is `results`; those of the batches in `also` go by their ids, see `table_name`.

    Raises:
        NotReady: there is nothing to read yet, or ever.
        StillCollecting: fetching the answers takes longer than `wait_seconds`; it goes on in the background.
        UsageError: the statement is none that may be asked, or takes too long.
    """
    deadline = deadline_after(wait_seconds)
    results = await read_results(app, reference, ResultQuery(), wait_seconds=wait_seconds)
    tables = {RELATION: results.table}
    for other in await read_also(app, also, deadline):
        tables[table_name(other.status.batch.id)] = other.table

    stop = Stop()

    def ask(folders: Mapping[str, Path]) -> QueryAnswer:
        return app.queries.query_tables(folders, sql, limit=limit, stop=stop)

    return await in_stoppable_thread(stop.set, with_tables, tables, ask)


async def read_also(app: App, also: Sequence[str], deadline: float | None) -> tuple[Results, ...]:
    """Collect further batches that a statement may read, each once.

    Raises:
        NotReady, StillCollecting: as `read_results` does, about the first that cannot be read.
        UsageError: there are too many.
    """
    if len(also) > MAX_ALSO:
        raise UsageError(f"also names {len(also):,} batches.", f"Name at most {MAX_ALSO}.")
    read = [
        await read_results(app, other, ResultQuery(), wait_seconds=seconds_left(deadline))
        for other in dict.fromkeys(also)
    ]
    return tuple(read)


def table_name(batch_id: str) -> str:
    """Return the name of a batch's table in SQL. Ids have no underscores, so that no two have the same name."""
    return batch_id.replace("-", "_")


def with_tables(tables: Mapping[str, ResultTable], work: Callable[[Mapping[str, Path]], T]) -> T:
    """Do work with the folders of several tables, again with those that took the place of one that went away.

    Raises:
        StorageError: a table cannot be read, or what `work` raises.
    """
    if not tables:
        return work({})
    (name, table), *others = tables.items()
    return table.while_there(
        lambda there: with_tables(dict(others), lambda folders: work({name: there.folder, **folders}))
    )
