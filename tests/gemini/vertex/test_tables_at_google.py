"""BigQuery through its real client: statements measured, run once whatever happens to their replies, read, deleted."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from gemini_batch_mcp.errors import NotFound, Rejected
from gemini_batch_mcp.gemini.gateway import Gateway, RetryPolicy, open_gateway
from gemini_batch_mcp.gemini.warehouse import Statement, Warehouse
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.cloud.places import DATASET, PROJECT, on_cloud, table, tables
from support.conversation import newest

pytestmark = pytest.mark.anyio

_NAME = f"{PROJECT}.{DATASET}"
_ENOUGH = 1024**3


@pytest.fixture
async def gateway(settings: Settings, sandbox: Sandbox) -> AsyncIterator[Gateway]:
    with on_cloud(settings, sandbox) as cloud:
        opened = open_gateway(cloud, retry=RetryPolicy(initial_delay_seconds=0.01, max_delay_seconds=0.02))
        yield opened
        await opened.aclose()


@pytest.fixture
def warehouse(gateway: Gateway, sandbox: Sandbox) -> Warehouse:
    table(sandbox, "reviews", "SELECT * FROM (VALUES ('a', 1), ('b', 2), ('c', NULL)) AS t(id, stars)")
    assert gateway.warehouse is not None
    return gateway.warehouse


def said(sql: str, **members: Any) -> Statement:
    return Statement(sql.format(name=_NAME), "US", **({"most_bytes": _ENOUGH} | members))


async def test_a_table_is_described_measured_and_asked(warehouse: Warehouse) -> None:
    found = await warehouse.describe(f"bq://{_NAME}.reviews")
    assert found is not None
    assert (found.rows, [(column.name, column.type) for column in found.columns]) == (
        3,
        [("id", "STRING"), ("stars", "INTEGER")],
    )
    assert await warehouse.describe(f"bq://{_NAME}.none") is None
    question = said("SELECT id, stars FROM `{name}.reviews` ORDER BY id")
    assert await warehouse.measure(question) == found.size_bytes
    rows = await warehouse.ask(question, most_rows=2)
    assert (rows.rows, rows.total) == ((("a", 1), ("b", 2)), 3)
    assert rows.billed_bytes == 10 * 1024**2


async def test_many_rows_come_in_pages_in_their_order(warehouse: Warehouse, sandbox: Sandbox) -> None:
    table(sandbox, "many", "SELECT n, TIMESTAMP '2026-11-29' AS day FROM range(12000) AS t(n)")
    found = await warehouse.ask(
        said("SELECT n, TIMESTAMP(day) AS at FROM `{name}.many` ORDER BY n DESC"), most_rows=20_000
    )
    assert [row[0] for row in found.rows] == list(range(11_999, -1, -1))
    assert (found.total, found.columns[1].type) == (12_000, "TIMESTAMP")
    assert {row[1].isoformat() for row in found.rows} == {"2026-11-29T00:00:00+00:00"}


async def test_a_table_is_made_once_however_often_its_reply_is_lost(warehouse: Warehouse, sandbox: Sandbox) -> None:
    name = f"bq://{_NAME}.made"
    statement = said(
        "CREATE TABLE `{name}.made` AS SELECT id FROM `{name}.reviews`", once="made", labels={"gemini_batch": "x"}
    )
    sandbox.cut_next("queries.insert", when="after")
    assert await warehouse.write(statement, name) == 3
    # Whoever goes on after a kill asks for the same again.
    assert await warehouse.write(statement, name) == 3
    assert len(sandbox.cloud.bigquery.statements) == 1
    found = await warehouse.describe(name)
    assert found is not None
    assert found.labels == {"gemini_batch": "x"}
    await warehouse.delete(name)
    assert tables(sandbox) == ["reviews"]
    with pytest.raises(NotFound):
        await warehouse.delete(name)


async def test_a_statement_that_is_wrong_or_would_bill_more_than_it_may_is_refused(warehouse: Warehouse) -> None:
    with pytest.raises(Rejected, match="limit for bytes billed"):
        await warehouse.ask(said("SELECT id FROM `{name}.reviews`", most_bytes=1000), most_rows=1)
    with pytest.raises(Rejected, match="Syntax error"):
        await warehouse.measure(said("SELECT FROM WHERE"))
    with pytest.raises(Rejected, match="colour"):
        await warehouse.ask(said("SELECT colour FROM `{name}.reviews`"), most_rows=1)
    with pytest.raises(NotFound):
        await warehouse.ask(said("SELECT id FROM `{name}.none`"), most_rows=1)


async def test_a_job_reads_its_requests_from_a_table_and_writes_the_answers_beside_it(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    request = '{"contents":[{"role":"user","parts":[{"text":"hello"}]}]}'
    source = table(sandbox, "batch_1_requests", f"SELECT 'a' AS key, '{request}' AS request")
    created = await gateway.create_from_file(
        model="gemini-3-flash-preview", file_name=source, display_name="x [x-abc/1.1]", task="generate"
    )
    assert created.input_file == source
    sandbox.finish(newest(sandbox))
    job = await gateway.get_job(created.name)
    assert (job.responses_file, job.counts.succeeded) == (f"bq://{_NAME}.batch_1_answers", 1)
    (row,) = sandbox.cloud.tables.rows(DATASET, "batch_1_answers")
    assert (row["key"], row["request"], row["status"]) == ("a", request, "")
    assert "candidates" in row["response"]
