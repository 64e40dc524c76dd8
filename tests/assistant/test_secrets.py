"""A service that repeats the key in everything it says: nothing that leaves or stays here holds it."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.client import Client
from mcp_types import CallToolResult

from gemini_batch_mcp.assistant.server import build_server
from gemini_batch_mcp.batches.ledger.ledger import Ledger
from gemini_batch_mcp.redaction import Secrets
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Secret, Settings
from support.conversation import Conversation, line, process_env, write_lines
from support.extent import in_part, part, some
from support.keys import KEYS, complaint, traces

pytestmark = pytest.mark.anyio

Reply = Callable[[httpx2.Request], httpx2.Response | None]


@dataclass
class Gossip(httpx2.AsyncBaseTransport):
    """The way to a sandbox that lies about the key in the next replies to a kind of request, or in what passes."""

    way: httpx2.AsyncBaseTransport
    key: str
    refused: str = ""
    status: int = 403

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        said = complaint(self.key)
        if self.refused and self.refused in f"{request.method} {request.url.path}":
            if self.status == 0:
                raise httpx2.ConnectError(said)
            body: Any = {"error": {"code": self.status, "message": said, "status": "PERMISSION_DENIED"}}
            if self.status == 418:
                return httpx2.Response(418, content=f"<html>{said}</html>".encode(), request=request)
            return httpx2.Response(self.status, json=body, request=request)
        response = await self.way.handle_async_request(request)
        content = await response.aread()
        is_download = request.url.path.endswith(":download")
        if is_download:
            content = content.replace(b'"message":"', b'"message":"GOSSIP ').replace(b'"text":"', b'"text":"GOSSIP ')
        if b"GOSSIP" not in content:
            return httpx2.Response(response.status_code, headers=response.headers, content=content, request=request)
        # As a JSON string has it, since that is where the word stands.
        content = content.replace(
            b"GOSSIP", json.dumps(complaint(self.key, with_header=not is_download))[1:-1].encode()
        )
        headers = {name: value for name, value in response.headers.items() if name != "content-length"}
        return httpx2.Response(response.status_code, headers=headers, content=content, request=request)

    async def aclose(self) -> None:
        await self.way.aclose()


@in_part
@pytest.mark.parametrize("key", some(part(KEYS, 17), 1))
async def test_no_byte_that_leaves_or_stays_holds_the_key(
    settings: Settings, sandbox: Sandbox, data: Path, caplog: pytest.LogCaptureFixture, key: str
) -> None:
    # What a process writes; and there it is cleaned once more.
    caplog.set_level(logging.WARNING)
    gossip = Gossip(sandbox.transport(), key)
    settings = replace(settings, api_key=Secret(key, "GEMINI_API_KEY"))
    rows = [line(f"k{number}", f"row {number} {mark}") for number, mark in enumerate(("", "[[sandbox:error]]"))]
    source = write_lines(data / "rows.jsonl", rows)
    seen: list[str] = []

    async with Client(build_server(settings, transport=lambda: gossip), mode="auto") as client:

        async def tell(tool: str, **arguments: Any) -> CallToolResult:
            result = await client.call_tool(tool, arguments)
            seen.append(result.model_dump_json())
            return result

        async def refused(what: str, tool: str, *statuses: int, **arguments: Any) -> None:
            for gossip.status in statuses:
                gossip.refused = what
                await tell(tool, **arguments)
                gossip.refused = ""

        await refused("POST /upload", "create_batch", 403, 0, source=source)
        await refused("batchGenerateContent", "create_batch", 403, 400, 429, source=source, confirm=True)
        await refused("batchGenerateContent", "create_batch", 500, source=source, confirm=True)
        await refused("GET /v1beta/batches", "list_jobs", 403, 404, 500, 418, 0)
        created = await tell("create_batch", source=source, display_name="GOSSIP", confirm=True)
        batch = (created.structured_content or {})["batch_id"]
        await refused("GET /v1beta/batches/", "check_status", 403, 404, 418, 500, 0, batch=batch)
        await refused(":cancel", "cancel_batch", 403, batch=batch, confirm=True)
        await tell("list_jobs")
        for record in sandbox.create_records:
            sandbox.finish(record.name)
        await refused(":download", "get_results", 403, 404, 0, batch=batch)
        await tell("get_results", batch=batch)
        await tell("get_results", batch=batch, view="rows", save_to="out.jsonl")
        await tell("get_results", batch=batch, view="failures", save_to="out.csv")
        answer = await tell("query_results", batch=batch, sql="SELECT * FROM results")
        assert "****" in answer.model_dump_json()
        await tell("query_results", batch=batch, sql=f"SELECT no_such, '{key}' FROM results")
        await refused("DELETE ", "delete_batch", 403, 500, batch=batch, confirm=True)
        # What a person or an assistant gives by mistake comes back to nobody, either.
        for name in ("batch", "sql", "save_to", "model"):
            for tool in ("check_status", "query_results", "get_results", "retry_failed"):
                await tell(tool, **{"batch": batch, "sql": "SELECT 1", name: key})

    assert len(seen) > 30
    assert any("[secret]" in text or "****" in text for text in seen)
    assert traces("\n".join([*seen, caplog.text]), key) == []
    kept = [path for path in (*settings.home.rglob("*"), *data.rglob("*")) if path.is_file()]
    assert len(kept) > 5
    for path in kept:
        assert traces(path.read_bytes().decode("utf-8", "replace"), key) == [], path


async def test_a_ledger_that_an_earlier_version_wrote_is_cleaned_when_it_is_opened(
    settings: Settings, sandbox: Sandbox, data: Path, talk: Conversation
) -> None:
    key = KEYS[2]
    created = await talk.call("create_batch", source=write_lines(data / "rows.jsonl", [line("k")]))
    batch = created["batch_id"]
    path = settings.home / "ledger.sqlite3"
    old = Ledger.open(path)
    for number in range(20):
        old.update_batch(batch, failure=f"{number}: {complaint(key)}" * 30)
    stored = old.batch(batch)
    assert stored is not None
    old.update_job(stored.jobs[0].id, wait_reason=complaint(key))
    old.close()

    cleaned = Ledger.open(path, None, Secrets.of([key]))
    found = cleaned.batch(batch)
    assert found is not None
    assert cleaned.was_cleaned
    assert "[secret]" in found.failure
    assert "[secret]" in found.jobs[0].wait_reason
    # The order is the user's own, and stands.
    assert found.order == stored.order
    cleaned.close()
    for file in settings.home.glob("ledger.sqlite3*"):
        assert traces(file.read_bytes().decode("utf-8", "replace"), key) == [], file
    again = Ledger.open(path, None, Secrets.of([key]))
    assert not again.was_cleaned
    again.close()


def test_standard_error_holds_no_secret_no_traceback_and_no_path(tmp_path: Path, data: Path) -> None:
    """Whoever writes there: a warning of the SDK, a thread that fails, a record of a library, a wrong setting."""
    key = KEYS[13]
    code = (
        "import logging, sys, threading, warnings\n"
        "from gemini_batch_mcp.cli import main as cli\n"
        "def speak():\n"
        f"    key = {key!r}\n"
        "    warnings.warn(f'experimental, says {key}')\n"
        "    logging.getLogger('some.library').error('refused %s', key)\n"
        "    try:\n"
        "        raise ValueError(key)\n"
        "    except ValueError:\n"
        "        logging.getLogger('other').exception('failed with %s', key)\n"
        "    thread = threading.Thread(target=lambda: int(key)); thread.start(); thread.join()\n"
        "    print('out', key); print('err', key, file=sys.stderr)\n"
        "cli._run_commands, run = lambda: (speak(), run()), cli._run_commands\n"
        "sys.argv = ['gemini-batch-mcp', 'list-jobs']\n"
        "cli.main()\n"
    )
    env = process_env(GEMINI_BATCH_HOME=str(tmp_path / "home"), GEMINI_API_KEY=key, GEMINI_BATCH_POLL_SECONDS=key)
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=data, capture_output=True, text=True, timeout=90)
    assert done.returncode == 1
    assert done.stdout == "out [secret]\n"
    assert traces(done.stderr, key) == []
    for words in ("Traceback", "File ", "site-packages", ".py", str(Path(__file__).parents[2])):
        assert words not in done.stderr, done.stderr
    for words in (
        "UserWarning: experimental, says [secret]",
        "refused [secret]",
        "(ValueError in speak",
        "err [secret]",
    ):
        assert words in done.stderr, done.stderr
    assert "GEMINI_BATCH_POLL_SECONDS is" in done.stderr
