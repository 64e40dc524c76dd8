"""The commands that keep running: MCP over HTTP, and the embedded service on a port."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import httpx2
import pytest
from google import genai
from google.genai import types
from mcp.client import Client

from support.conversation import process_env, request_file

pytestmark = pytest.mark.anyio


@contextmanager
def running(*arguments: str, home: Path, cwd: Path) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "gemini_batch_mcp", *arguments],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=process_env(GEMINI_BATCH_HOME=str(home), GEMINI_BATCH_POLL_SECONDS="0.1"),
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=90)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _until_listening(port: int) -> None:
    with anyio.fail_after(90):
        while True:
            try:
                await (await anyio.connect_tcp("127.0.0.1", port)).aclose()
            except OSError:
                await anyio.sleep(0.05)
            else:
                return


async def test_mcp_over_http_serves_both_eras_and_refuses_foreign_hosts(tmp_path: Path, data: Path) -> None:
    port = _free_port()
    with running(
        "serve", "--transport", "http", "--port", str(port), "--sandbox", home=tmp_path / "home", cwd=data
    ) as process:
        await _until_listening(port)
        url = f"http://127.0.0.1:{port}/mcp"
        for era in ("legacy", "auto"):
            async with Client(url, mode=era) as client:
                assert len((await client.list_tools()).tools) == 9
                created = await client.call_tool("create_batch", {"source": request_file(data)})
                assert created.structured_content is not None, created.content
        async with httpx2.AsyncClient() as http:
            foreign = await http.post(url, json={}, headers={"Host": "evil.example"})
            assert foreign.status_code == 421
        assert process.poll() is None


def test_the_embedded_service_says_where_it_is_and_serves_the_sdk(tmp_path: Path, data: Path) -> None:
    with running("sandbox", "--port", "0", "--seconds-per-job", "0", home=tmp_path / "home", cwd=data) as process:
        assert process.stderr is not None
        address = process.stderr.readline().split()[-1]
        client = genai.Client(api_key="any", http_options=types.HttpOptions(api_version="v1beta", base_url=address))
        uploaded = client.files.upload(file=request_file(data), config={"mime_type": "jsonl"})
        job = client.batches.create(model="gemini-3-flash-preview", src=uploaded.name or "")
        assert client.batches.get(name=job.name or "").state == types.JobState.JOB_STATE_SUCCEEDED
