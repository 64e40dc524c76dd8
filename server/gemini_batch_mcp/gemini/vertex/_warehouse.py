"""BigQuery as the other rooms see it: the calls of `gemini.warehouse.Warehouse`, each announced as an effect."""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import anyio

from gemini_batch_mcp.errors import BatchError
from gemini_batch_mcp.gemini.service import Finding
from gemini_batch_mcp.gemini.session import Session
from gemini_batch_mcp.gemini.vertex import _looking as looking
from gemini_batch_mcp.gemini.vertex._access import CloudAccess, Connection
from gemini_batch_mcp.gemini.vertex._bigquery import BigQuery
from gemini_batch_mcp.gemini.warehouse import Rows, Statement, StoredTable, Taker
from gemini_batch_mcp.threads import in_thread

if TYPE_CHECKING:
    from google.cloud.bigquery import QueryJob

T = TypeVar("T")

#: Pauses between two looks at a query that runs: a part of the time for which it has run, so that their number hardly
#: grows with that. Short queries end in the first.
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 60.0
_PART: Final = 0.25


class CloudWarehouse:
    """What `gemini.warehouse.Warehouse` describes. The client is made at the first call."""

    def __init__(self, session: Session[Connection], access: CloudAccess) -> None:
        self._session = session
        self._access = access
        self._lock = anyio.Lock()
        self._made: BigQuery | None = None

    async def describe(self, name: str) -> StoredTable | None:
        """Return what a table is; None where there is none."""
        return await self._effect("bq_describe", f"describe {name}", lambda client: client.describe(name))

    async def measure(self, statement: Statement) -> int:
        """Return the bytes that a statement would read."""
        return await self._effect("bq_measure", "price a statement", lambda client: client.measure(statement))

    async def ask(self, statement: Statement, *, most_rows: int) -> Rows:
        """Run a SELECT and return its first rows."""
        job = await self._run("bq_ask", statement)
        return await self._effect("bq_rows", "send the rows of a query", lambda client: client.rows(job, most_rows))

    async def read(self, statement: Statement, taker: Taker) -> int:
        """Run a SELECT and hand all of its rows on."""
        job = await self._run("bq_ask", statement)
        return await self._effect("bq_rows", "send the rows of a query", lambda client: client.pages(job, taker))

    async def write(self, statement: Statement, to: str, *, expires_at: datetime | None = None) -> int:
        """Run a statement that makes a table, once."""
        assert statement.once, "what is written runs once"
        await self._run("bq_write", statement)
        return await self._effect(
            "bq_mark", f"describe {to}", lambda client: client.mark(to, statement.labels, expires_at)
        )

    async def findings(self, *, is_used: bool) -> tuple[Finding, ...]:
        """Look whether statements can run, and at the datasets that the settings name."""
        project, datasets = self._access.cloud.project, looking.datasets_of(self._access.settings.addresses)
        member = looking.member_of((await self._session.connection()).credentials)
        try:
            await self.measure(Statement("SELECT 1", "", 0))
        except BatchError as error:
            return (looking.cannot_run(error, project, member, is_used=is_used or bool(datasets)),)
        found = [looking.can_run(project, has_datasets=bool(datasets))]
        for of_project, dataset in datasets:
            name = f"{of_project}.{dataset}"
            try:
                location = await self._effect(
                    "bq_dataset", f"describe {name}", partial(BigQuery.location, dataset=name)
                )
            except BatchError as error:
                found.append(looking.not_found(error, of_project, dataset, member))
            else:
                found.append(looking.found(of_project, dataset, location))
        return tuple(found)

    async def delete(self, name: str) -> None:
        """Delete a table."""
        await self._effect("bq_delete", f"delete {name}", lambda client: client.delete(name))

    async def _run(self, step: str, statement: Statement) -> "QueryJob":
        job = await self._effect(step, "begin a query", lambda client: client.start(statement))
        client, begun_at = await self._client(), anyio.current_time()
        while not await in_thread(client.look, job):
            ran_seconds = anyio.current_time() - begun_at
            await anyio.sleep(min(max(_FIRST_PAUSE_SECONDS, ran_seconds * _PART), _LONGEST_PAUSE_SECONDS))
        return job

    async def _effect(self, step: str, what: str, call: Callable[[BigQuery], T]) -> T:
        client = await self._client()
        async with self._session.effect(step, what):
            return await in_thread(call, client)

    async def _client(self) -> BigQuery:
        connection = await self._session.connection()
        async with self._lock:
            if self._made is None:
                self._made = await in_thread(self._access.bigquery, connection)
            return self._made
