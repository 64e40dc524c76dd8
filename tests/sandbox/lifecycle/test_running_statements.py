"""A statement that runs in the sandbox's BigQuery keeps nobody waiting, be it for a table or for the sandbox's end."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.cloud.routes import TOKEN_PREFIX
from gemini_batch_mcp.sandbox.config import SandboxConfig
from support.cloud.places import DATASET, PROJECT, table
from support.services import raw

pytestmark = pytest.mark.anyio

#: It would count a quadrillion rows.
ENDLESS = "SELECT COUNT(*) AS n FROM " + ", ".join(f"UNNEST(GENERATE_ARRAY(1, 100000)) AS {name}" for name in "abc")


def query(sql: str, *, dry_run: bool = False) -> dict[str, object]:
    return {"configuration": {"query": {"query": sql, "useLegacySql": False}, "dryRun": dry_run}}


@contextlib.asynccontextmanager
async def running(home: Path, sql: str) -> AsyncIterator[httpx2.AsyncClient]:
    """Yield a client of a sandbox in which a statement runs."""
    with Sandbox(home / "service", SandboxConfig()) as sandbox:
        table(sandbox, "reviews", "SELECT unnest(range(3)) AS id")
        async with raw(sandbox, key="") as http:
            http.headers["Authorization"] = f"Bearer {TOKEN_PREFIX}test"
            http.base_url = http.base_url.join(f"/bigquery/v2/projects/{PROJECT}/")
            reply = await http.post("jobs", json=query(sql))
            assert reply.status_code == 200, reply.text
            assert reply.json()["status"]["state"] == "RUNNING", reply.text
            yield http


async def test_a_statement_that_is_running_does_not_keep_a_sandbox_open(tmp_path: Path) -> None:
    async with running(tmp_path, ENDLESS):
        pass


async def test_tables_are_told_of_measured_changed_and_deleted_while_a_statement_runs(tmp_path: Path) -> None:
    reviews = f"datasets/{DATASET}/tables/reviews"
    async with running(tmp_path, ENDLESS) as http:
        told = await http.get(reviews)
        assert told.json()["numRows"] == "3", told.text
        measured = await http.post("jobs", json=query(f"SELECT id FROM {DATASET}.reviews", dry_run=True))
        assert measured.json()["status"]["state"] == "DONE", measured.text
        changed = await http.patch(reviews, json={"labels": {"batch": "one"}})
        assert changed.json()["labels"] == {"batch": "one"}, changed.text
        deleted = await http.delete(reviews)
        assert deleted.status_code == 204, deleted.text
