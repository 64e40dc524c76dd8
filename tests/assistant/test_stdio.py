"""The server as a process on stdio: nothing but the protocol on stdout, quick to start, clean to end."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from support.conversation import process_env, request_file

pytestmark = pytest.mark.anyio


def _env(tmp_path: Path) -> dict[str, str]:
    return process_env(GEMINI_BATCH_HOME=str(tmp_path / "home"), GEMINI_BATCH_POLL_SECONDS="0.1")


async def test_a_whole_conversation_over_a_real_process(
    tmp_path: Path, data: Path, at_port: dict[str, str], era: str
) -> None:
    server = StdioServerParameters(
        command=sys.executable, args=["-m", "gemini_batch_mcp"], env=_env(tmp_path) | at_port, cwd=data
    )
    async with Client(stdio_client(server), mode=era) as client:
        created = await client.call_tool("create_batch", {"source": request_file(data)})
        assert created.structured_content is not None, created.content
        batch = created.structured_content["batch_id"]
        status = await client.call_tool("check_status", {"batch": batch, "wait_seconds": 30})
        assert status.structured_content is not None
        assert status.structured_content["state"] == "JOB_STATE_SUCCEEDED"
        results = await client.call_tool("get_results", {"batch": batch, "save_to": "out.jsonl"})
        assert results.structured_content is not None
        assert (data / "out.jsonl").exists()


def test_every_line_on_stdout_is_a_message_of_the_protocol(tmp_path: Path, data: Path) -> None:
    """Until the end of input, tracebacks, logs and warm-up included."""
    messages: list[dict[str, Any]] = [
        {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "initialize",
            "params": {
                "protocolVersion": "2025-11-25",
                "capabilities": {},
                "clientInfo": {"name": "t", "version": "1"},
            },
        },
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
        {
            "jsonrpc": "2.0",
            "id": 3,
            "method": "tools/call",
            "params": {"name": "create_batch", "arguments": {"source": request_file(data)}},
        },
        {"jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": {"name": "list_jobs", "arguments": {"limit": 0}}},
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "gemini_batch_mcp", "--sandbox"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=data,
        env=_env(tmp_path),
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    answers = {}
    for message in messages:
        process.stdin.write(json.dumps(message) + "\n")
        process.stdin.flush()
        if "id" in message:
            answer = json.loads(process.stdout.readline())
            answers[answer["id"]] = answer
    out, errors = process.communicate(timeout=90)

    for row in out.splitlines():
        assert json.loads(row)["jsonrpc"] == "2.0"
    assert answers[3]["result"]["structuredContent"]["state"] == "JOB_STATE_PENDING"
    assert answers[4]["result"]["isError"]
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert "upload_id" not in errors


def test_starting_loads_neither_the_gemini_client_nor_the_database() -> None:
    """What is loaded later is not paid for before the first answer; the bench has the figure."""
    code = (
        "import sys; import gemini_batch_mcp.cli.main; from gemini_batch_mcp.assistant.server import build_server; "
        "heavy = {'google.genai', 'sqlalchemy', 'duckdb', 'msgspec', 'gemini_batch_mcp.cli.console'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_two_servers_on_one_ledger_submit_one_order_once(tmp_path: Path, data: Path) -> None:
    """An assistant and an IDE, each with its own server process, give the same order at the same time."""
    import anyio

    source = request_file(data, 50)
    parameters = StdioServerParameters(
        command=sys.executable, args=["-m", "gemini_batch_mcp", "--sandbox"], env=_env(tmp_path), cwd=data
    )
    answers: list[dict[str, Any]] = []

    async def order() -> None:
        async with Client(stdio_client(parameters), mode="legacy") as client:
            result = await client.call_tool("create_batch", {"source": source})
            assert result.structured_content is not None, result.content
            answers.append(result.structured_content)

    with anyio.fail_after(120):
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(order)
            task_group.start_soon(order)

    assert len({answer["batch_id"] for answer in answers}) == 1
    assert sorted(bool(answer["reused"]) for answer in answers) == [False, True]
