"""A sandbox that closes leaves nothing behind, and waits for nothing that nobody wants any more."""

from pathlib import Path

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.cloud.routes import TOKEN_PREFIX
from gemini_batch_mcp.sandbox.config import SandboxConfig
from support.services import raw

pytestmark = pytest.mark.anyio

#: It would count a quadrillion rows.
ENDLESS = "SELECT COUNT(*) AS n FROM " + ", ".join(f"UNNEST(GENERATE_ARRAY(1, 100000)) AS {name}" for name in "abc")


async def test_a_statement_that_is_running_does_not_keep_a_sandbox_open(tmp_path: Path) -> None:
    config = SandboxConfig()
    with Sandbox(tmp_path / "service", config) as sandbox:
        async with raw(sandbox, key="") as http:
            http.headers["Authorization"] = f"Bearer {TOKEN_PREFIX}test"
            query = {"configuration": {"query": {"query": ENDLESS, "useLegacySql": False}}}
            reply = await http.post(f"/bigquery/v2/projects/{config.cloud_project}/jobs", json=query)
            assert reply.status_code == 200, reply.text
            assert reply.json()["status"]["state"] == "RUNNING", reply.text
