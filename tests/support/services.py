"""What the sandbox's tests share: clients that reach it in process or on a port, request lines, and a clock."""

import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import anyio
import httpx2
from google import genai
from google.genai import types

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import NANOSECONDS, OnCommand, SandboxConfig

MODEL = "gemini-3.8-flash"
EMBEDDING_MODEL = "gemini-embedding-2"
IN_PROCESS = "http://sandbox"

Way = Literal["process", "port"]


class MovedClock:
    """The time of day, as far ahead (or behind) as a test has moved it."""

    def __init__(self) -> None:
        self._ahead_ns = 0

    def __call__(self) -> int:
        return time.time_ns() + self._ahead_ns

    def move(self, seconds: float) -> None:
        self._ahead_ns += round(seconds * NANOSECONDS)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now_ns: int = 1_795_338_000_104_882_317) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        return self.now_ns

    def pass_seconds(self, seconds: float) -> None:
        self.now_ns += round(seconds * NANOSECONDS)


@asynccontextmanager
async def reach(sandbox: Sandbox, way: Way) -> AsyncIterator[tuple[str, httpx2.AsyncClient]]:
    """Give the base URL of a sandbox, and an HTTP client that reaches it with a key."""
    async with AsyncExitStack() as stack:
        headers = {"x-goog-api-key": "test-key"}
        if way == "port":
            base_url = stack.enter_context(sandbox.listening())
            http = httpx2.AsyncClient(base_url=base_url, headers=headers, timeout=20)
        else:
            base_url = IN_PROCESS
            http = httpx2.AsyncClient(transport=sandbox.transport(), base_url=base_url, headers=headers, timeout=20)
        yield base_url, await stack.enter_async_context(http)


@asynccontextmanager
async def sdk(sandbox: Sandbox, way: Way = "process") -> AsyncIterator[genai.client.AsyncClient]:
    """Give Google's own client on a sandbox."""
    async with reach(sandbox, way) as (base_url, http):
        options = types.HttpOptions(api_version="v1beta", base_url=base_url, httpx_async_client=http)
        client = genai.Client(api_key="test-key", http_options=options)
        try:
            yield client.aio
        finally:
            client.close()


def raw(sandbox: Sandbox, key: str = "test-key") -> httpx2.AsyncClient:
    """Return a plain HTTP client on a sandbox in process."""
    headers = {"x-goog-api-key": key} if key else {}
    return httpx2.AsyncClient(transport=sandbox.transport(), base_url=IN_PROCESS, headers=headers, timeout=20)


class Gate(httpx2.AsyncBaseTransport):
    """The way to a sandbox, on which the first request of a kind is held until it is let through."""

    def __init__(self, sandbox: Sandbox, is_held: Callable[[httpx2.Request], bool]) -> None:
        self._way = sandbox.transport()
        self._is_held = is_held
        #: The request has come, but not to the sandbox; it may go on.
        self.has_come, self.is_open = anyio.Event(), anyio.Event()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self._is_held(request):
            self.has_come.set()
            await self.is_open.wait()
        return await self._way.handle_async_request(request)

    async def aclose(self) -> None:
        await self._way.aclose()


def is_create(request: httpx2.Request) -> bool:
    return request.url.path.endswith(":batchGenerateContent")


def is_finalize(request: httpx2.Request) -> bool:
    return "finalize" in request.headers.get("x-goog-upload-command", "")


def generate_line(key: str, text: str = "Sort this note.", **members: Any) -> bytes:
    """Return one request line without its LF."""
    request = {"contents": [{"role": "user", "parts": [{"text": text}]}], **members}
    return json.dumps({"key": key, "request": request}, ensure_ascii=False).encode()


def generate_lines(count: int) -> bytes:
    """Return that many request lines with different keys and texts."""
    return b"".join(generate_line(f"row-{number}", f"Note {number}") + b"\n" for number in range(count))


async def upload(http: httpx2.AsyncClient, data: bytes, **start_headers: str) -> str:
    """Upload in one chunk, as clients do it; returns the file's name."""
    session = await start_upload(http, len(data), **start_headers)
    headers = {"X-Goog-Upload-Command": "upload, finalize", "X-Goog-Upload-Offset": "0"}
    reply = await http.post(session, content=data, headers=headers)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["file"]["name"])


async def start_upload(http: httpx2.AsyncClient, size_bytes: int, **more_headers: str) -> str:
    """Open a session; returns its URL."""
    headers = {
        "X-Goog-Upload-Protocol": "resumable",
        "X-Goog-Upload-Command": "start",
        "X-Goog-Upload-Header-Content-Length": str(size_bytes),
        "X-Goog-Upload-Header-Content-Type": "jsonl",
    } | more_headers
    reply = await http.post("/upload/v1beta/files", headers=headers, json={"file": {"display_name": "in.jsonl"}})
    assert reply.status_code == 200, reply.text
    return reply.headers["x-goog-upload-url"]


async def create(http: httpx2.AsyncClient, file_name: str, **batch: Any) -> dict[str, Any]:
    """Create a generate batch from a file; returns the operation."""
    body = {"batch": {"displayName": "test", "inputConfig": {"fileName": file_name}, **batch}}
    reply = await http.post(f"/v1beta/models/{MODEL}:batchGenerateContent", json=body)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


async def create_from(http: httpx2.AsyncClient, data: bytes, **batch: Any) -> str:
    """Upload request lines and create a batch from them; returns the job's name."""
    return str((await create(http, await upload(http, data), **batch))["name"])


async def get_json(http: httpx2.AsyncClient, path: str) -> dict[str, Any]:
    """Get a resource that must be there."""
    reply = await http.get(f"/v1beta/{path}")
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


async def download_lines(http: httpx2.AsyncClient, operation: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parsed lines of a finished job's result file."""
    data = await download(http, operation["metadata"]["output"]["responsesFile"])
    return parse_lines(data)


async def download(http: httpx2.AsyncClient, file_name: str) -> bytes:
    """Return the bytes of a result file."""
    reply = await http.get(f"/v1beta/{file_name}:download?alt=media")
    assert reply.status_code == 200, reply.text
    return reply.content


def parse_lines(data: bytes) -> list[dict[str, Any]]:
    """Return the objects of a result file whose lines are all whole."""
    assert data.endswith(b"\n") or not data
    return [json.loads(line) for line in data.split(b"\n")[:-1]]


def texts(lines: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Return each key's answer."""
    return {line["key"]: line["response"]["candidates"][0]["content"]["parts"][0]["text"] for line in lines}


#: Members that a reply may have beyond a sample's.
OPTIONAL = {"promptTokensDetails", "candidatesTokensDetails", "modelVersion", "responseId"}


class Stage:
    """A sandbox for one sample, and a client on it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def open(self, **config: Any) -> Sandbox:
        self.sandbox = Sandbox(self.directory, SandboxConfig(pace=OnCommand(), clock_ns=Clock(), **config))
        self.http = raw(self.sandbox)
        return self.sandbox

    async def job(self, rows: int = 1000, **batch: Any) -> str:
        return await create_from(self.http, generate_lines(rows), **batch)

    async def close(self) -> None:
        await self.http.aclose()
        self.sandbox.close()


def assert_same_shape(ours: Any, sample: Any, path: str = "") -> None:
    """Compare members and types, level by level."""
    assert type(ours) is type(sample), f"{path}: {ours!r} for {sample!r}"
    if isinstance(sample, dict):
        missing = sample.keys() - ours.keys()
        assert not missing, f"{path} lacks {missing}"
        extra = ours.keys() - sample.keys() - OPTIONAL
        assert not extra, f"{path} has {extra} besides"
        for name, item in sample.items():
            assert_same_shape(ours[name], item, f"{path}.{name}")
    elif isinstance(sample, list):
        assert bool(ours) == bool(sample), path
        for mine, theirs in zip(ours, sample, strict=False):
            assert_same_shape(mine, theirs, f"{path}[]")
    elif isinstance(sample, str):
        assert re.fullmatch(_form(sample), ours), f"{path}: {ours!r} for {sample!r}"


def _form(sample: str) -> str:
    """Return what a string has to look like: exactly the same for names, the same form for times and numbers."""
    if sample.startswith(("BATCH_STATE_", "type.googleapis.com/")) or sample in ("ACTIVE", "UPLOADED", "GENERATED"):
        return re.escape(sample)
    if time := re.fullmatch(r"[\d-]+T[\d:]+\.(\d+)Z", sample):
        return rf"[\d-]+T[\d:]+\.\d{{{len(time[1])}}}Z"
    if sample.isdecimal():
        return r"\d+"
    if name := re.fullmatch(r"(batches/|files/batch-)\w{36}", sample):
        return rf"{name[1]}\w{{36}}"
    return r"(?s).+"


async def embed_job(stage: Stage, input_config: dict[str, Any]) -> str:
    body = {"batch": {"display_name": "embed", "input_config": input_config}}
    reply = await stage.http.post(f"/v1beta/models/{EMBEDDING_MODEL}:asyncBatchEmbedContent", json=body)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["name"])
