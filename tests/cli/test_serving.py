"""The commands that keep running: MCP over HTTP, and the embedded service on a port."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import httpx2
import pytest
from google import genai
from google.genai import types
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from gemini_batch_mcp.assistant.server import build_server
from gemini_batch_mcp.assistant.transports.http import listen, over_http
from gemini_batch_mcp.assistant.transports.visitors import Visitors
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import process_env, request_file
from support.extent import long

pytestmark = pytest.mark.anyio


@contextmanager
def running(*arguments: str, home: Path, cwd: Path, **variables: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "gemini_batch_mcp", *arguments],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=process_env(GEMINI_BATCH_HOME=str(home), GEMINI_BATCH_POLL_SECONDS="0.1", **variables),
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=90)


TOKEN = "a long text that nobody guesses"


async def test_mcp_over_http_serves_several_clients_and_only_those_who_may_come_in(tmp_path: Path, data: Path) -> None:
    arguments = ("serve", "--transport", "http", "--port", "0", "--sandbox", "--allowed-host", "batch.example")
    with running(*arguments, home=tmp_path / "home", cwd=data, GEMINI_BATCH_HTTP_TOKEN=TOKEN) as process:
        assert process.stderr is not None
        url = process.stderr.readline().split()[5].rstrip(".")
        configured = json.loads(process.stderr.readline().partition(": ")[2])["mcpServers"]["gemini-batch"]
        assert configured["url"] == url
        assert TOKEN not in str(configured)
        port = int(url.rpartition(":")[2].partition("/")[0])
        knows = {"Authorization": f"Bearer {TOKEN}"}
        source = request_file(data)

        async def converse_in(era: str) -> None:
            async with (
                httpx2.AsyncClient(headers=knows, timeout=60) as http,
                Client(streamable_http_client(url, http_client=http), mode=era) as client,
            ):
                assert len((await client.list_tools()).tools) == 10
                created = await client.call_tool("create_batch", {"source": source, "display_name": era})
                assert created.structured_content is not None, created.content
                # No page of this machine for those who may come from another one, through the proxy.
                elsewhere = await client.call_tool("preview_batch", {"source": "sandbox:/mnt/data/x.csv"})
                assert "Save the file in" in str(elsewhere.content)

        async with anyio.create_task_group() as clients:
            for era in ("legacy", "auto", "legacy", "auto"):
                clients.start_soon(converse_in, era)

        async with httpx2.AsyncClient() as http:
            health = await http.get(url.replace("/mcp", "/health"))
            assert (health.status_code, health.json()) == (200, {"status": "ok"})
            for headers, status in (
                ({}, 401),
                ({"Authorization": "Bearer wrong"}, 401),
                ({"Authorization": TOKEN}, 401),
                (knows | {"Host": "evil.example"}, 421),
                (knows | {"Host": f"localhost:{port}.evil.example"}, 421),
                (knows | {"Host": "127.0.0.1.evil.example"}, 421),
                (knows | {"Origin": "http://localhost.evil.example"}, 403),
                (knows | {"Origin": f"http://localhost:{port}.evil.example"}, 403),
                (knows | {"Origin": "null"}, 403),
                (knows | {"Host": "batch.example", "Origin": "https://batch.example"}, 400),
                (knows | {"Host": f"localhost:{port}", "Origin": f"http://localhost:{port}"}, 400),
            ):
                answer = await http.post(url, json={}, headers=headers)
                assert answer.status_code == status, (headers, answer.text)
                if status == 401:
                    assert answer.headers["www-authenticate"].startswith("Bearer ")
            assert (await http.get(url.replace("/mcp", "/health"), headers={"Host": "evil.example"})).status_code == 421
        second = await anyio.run_process(
            [sys.executable, "-m", "gemini_batch_mcp", "serve", "--transport", "http", "--port", str(port)],
            env=process_env(GEMINI_BATCH_HOME=str(tmp_path / "home")),
            check=False,
        )
        assert second.returncode == 1
        assert second.stderr.decode().startswith(f"Port {port} of 127.0.0.1 is in use. Choose another port with --port")
        assert process.poll() is None
        process.terminate()
        assert process.communicate(timeout=90)[1] == ""


def test_the_embedded_service_says_where_it_is_and_serves_the_sdk(tmp_path: Path, data: Path) -> None:
    with running("sandbox", "--port", "0", "--seconds-per-job", "0", home=tmp_path / "home", cwd=data) as process:
        assert process.stderr is not None
        address = process.stderr.readline().split()[-1]
        client = genai.Client(api_key="any", http_options=types.HttpOptions(api_version="v1beta", base_url=address))
        uploaded = client.files.upload(file=request_file(data), config={"mime_type": "jsonl"})
        job = client.batches.create(model="gemini-3-flash-preview", src=uploaded.name or "")
        assert client.batches.get(name=job.name or "").state == types.JobState.JOB_STATE_SUCCEEDED


@long
async def test_who_has_been_silent_longer_than_clients_keep_a_connection_is_answered_on_it(
    settings: Settings, sandbox: Sandbox
) -> None:
    listening = listen("127.0.0.1", 0)
    async with anyio.create_task_group() as server:
        server.start_soon(over_http, build_server(settings), listening, Visitors())
        with sandbox.listening() as service:
            async with anyio.create_task_group() as clients:
                clients.start_soon(_answered_after_silence, listening.url, "/health")
                clients.start_soon(_answered_after_silence, service, "/v1beta/models")
        server.cancel_scope.cancel()


async def _answered_after_silence(url: str, path: str) -> None:
    """Ask twice over one connection; in between are more seconds than httpx and uvicorn's own setting allow (5)."""
    address = httpx2.URL(url)
    async with await anyio.connect_tcp(address.host, address.port or 0) as connection:
        for silent_seconds in (7, 0):
            await connection.send(f"GET {path} HTTP/1.1\r\nHost: {address.host}:{address.port}\r\n\r\n".encode())
            assert (await connection.receive()).startswith(b"HTTP/1.1 ")
            # If it is closed meanwhile, this raises EndOfStream.
            with anyio.move_on_after(silent_seconds):
                while True:
                    await connection.receive()


@pytest.mark.anyio
async def test_a_server_that_is_told_to_end_while_it_starts_ends_and_gives_its_port_back(settings: Settings) -> None:
    listening = listen("127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(over_http, build_server(settings), listening, Visitors())
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    for taken in listen("127.0.0.1", port).sockets:
        taken.close()
