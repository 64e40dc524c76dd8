"""The server as a process on stdio: nothing but the protocol on stdout, quick to start, clean to end."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from gemini_batch_mcp.assistant.strict import LONGEST_CALL_SECONDS
from support.conversation import process_env, request_file
from support.extent import few, long
from support.servers import server_process

pytestmark = pytest.mark.anyio

ENDLESS: Final = "SELECT count(*) FROM range(1000000000000)"
#: Lines that are no message: answered or left, and never the end.
NO_MESSAGES: Final = (b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"jsonrpc": "2.0"}', b'"text"', b"{" * 2000)
WRONG_REQUESTS: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("no/such/method", {}),
    ("tools/call", {}),
    ("tools/call", {"name": "no_such_tool", "arguments": {}}),
    ("tools/call", {"name": "list_jobs", "arguments": {"limit": 0}}),
    ("tools/call", {"name": "list_jobs", "arguments": {"limt": 5}}),
    ("tools/call", {"name": "create_batch", "arguments": {"source": "not-there.jsonl"}}),
    ("tools/call", {"name": "get_results", "arguments": {"batch": "unknown"}}),
    ("prompts/get", {"name": "no_such_prompt"}),
    ("resources/read", {"uri": "gemini-batch://batches/unknown"}),
    ("resources/read", {"uri": "nonsense"}),
)


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
        elsewhere = await client.call_tool("preview_batch", {"source": "/mnt/user-data/uploads/x.csv"})
        assert "Ask the user to open http://127.0.0.1:" in str(elsewhere.content)


@few(1, more=2)
@pytest.mark.parametrize("ending", ["end of input", "SIGTERM", "SIGINT"])
def test_stdout_is_the_protocol_alone_and_nobody_hears_of_a_good_conversation(
    tmp_path: Path, data: Path, at_port: dict[str, str], ending: str
) -> None:
    """From the start, past the warm-up and through whatever is wrong with what comes, to an end amid calls."""
    with server_process(tmp_path / "home", data, at_port, era="legacy") as server:
        server.ask("tools/list", {})
        batch = server.call("create_batch", source=request_file(data))["batch_id"]
        assert server.call("check_status", batch=batch, wait_seconds=30)["done"]
        assert server.call("get_results", batch=batch, save_to="out.jsonl")["saved"]["rows"] == 3
        server.call("query_results", batch=batch, sql="SELECT count(*) FROM results")
        server.ask("resources/read", {"uri": "gemini-batch://models"})
        server.ask("prompts/get", {"name": "triage_failures", "arguments": {"batch": batch}})
        assert server.errors == b""

        for line in NO_MESSAGES:
            server.send(line)
        for method, params in WRONG_REQUESTS:
            answer = server.ask(method, params)
            assert "error" in answer or answer["result"].get("isError"), (method, params, answer)
        assert b"Traceback" not in server.errors
        complaints = server.errors

        waiting = server.call("create_batch", source=request_file(data, 4, name="more.jsonl"))["batch_id"]
        server.begin("tools/call", {"name": "query_results", "arguments": {"batch": batch, "sql": ENDLESS}})
        server.begin("tools/call", {"name": "check_status", "arguments": {"batch": waiting, "wait_seconds": 50}})
        server.ask("ping", {})
        if ending == "end of input":
            assert server.process.stdin is not None
            server.process.stdin.close()
        else:
            server.process.send_signal(getattr(signal, ending))
        code = server.ended()

        assert code == (0 if ending == "end of input" else 128 + getattr(signal, ending))
        for line in server.output:
            assert json.loads(line)["jsonrpc"] == "2.0", line
        assert server.errors == complaints


def test_starting_loads_neither_the_gemini_client_nor_the_database() -> None:
    """What is loaded later is not paid for before the first answer; the bench has the figure."""
    code = (
        "import sys; import gemini_batch_mcp.cli.main; from gemini_batch_mcp.assistant.server import build_server; "
        "heavy = {'google.genai', 'google.cloud.storage', 'sqlalchemy', 'duckdb', 'msgspec', "
        "'gemini_batch_mcp.cli.console'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@long
async def test_two_servers_on_one_ledger_submit_one_order_once(tmp_path: Path, data: Path) -> None:
    """An assistant and an IDE, each with its own server process, give the same order at the same time."""
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


@long
async def test_a_hundred_calls_at_once_are_all_answered(tmp_path: Path, data: Path, at_port: dict[str, str]) -> None:
    """Fifty that only look come back while fifty queries without an end run, or wait for their turn to."""
    server = StdioServerParameters(
        command=sys.executable, args=["-m", "gemini_batch_mcp"], env=_env(tmp_path) | at_port, cwd=data
    )
    ended: list[Any] = []
    looks: list[tuple[str, dict[str, Any]]] = [("check_status", {}), ("get_results", {"view": "rows"})]
    async with Client(stdio_client(server), mode="auto") as client:
        created = await client.call_tool("create_batch", {"source": request_file(data)})
        assert created.structured_content is not None, created.content
        batch = {"batch": created.structured_content["batch_id"]}
        assert not (await client.call_tool("check_status", {**batch, "wait_seconds": 30})).is_error

        async def query() -> None:
            ended.append(await client.call_tool("query_results", {**batch, "sql": ENDLESS}))

        async def look(tool: str, arguments: dict[str, Any]) -> None:
            result = await client.call_tool(tool, {**batch, **arguments})
            assert not result.is_error, result.content

        with anyio.fail_after(LONGEST_CALL_SECONDS / 2):
            async with anyio.create_task_group() as queries:
                for _ in range(50):
                    queries.start_soon(query)
                async with anyio.create_task_group() as calls:
                    for number in range(50):
                        calls.start_soon(look, *looks[number % len(looks)])
                assert ended == []
                queries.cancel_scope.cancel()
