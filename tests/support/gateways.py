"""What the gateway's tests share: settings, a quick retry policy, a scripted Gemini, and request lines."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gemini_batch_mcp.domain import Job
from gemini_batch_mcp.errors import GeminiError
from gemini_batch_mcp.gemini.developer.gateway import Gateway, RetryPolicy, Timeouts
from gemini_batch_mcp.settings import Secret, Settings
from support.samples import SAMPLES

KEY = "AIzaSyTEST-0123456789abcdefghijklmnopq"
UPLOAD_ID = "ABPtcPqSecretUploadId"
JOB = "batches/q7m2k9x4c1v8b5n3z6l0p2w4t8r1y5u7d3e9"
QUICK = RetryPolicy(attempts=3, initial_delay_seconds=0.001, max_delay_seconds=0.01, total_seconds=60.0)
MODEL = "gemini-3-flash-preview"

Reply = httpx2.Response | Exception
Handler = Callable[[httpx2.Request], Reply | Awaitable[Reply]]


def sample(number: str) -> Any:
    """Return the content of one wire sample."""
    (path,) = SAMPLES.glob(f"{number}-*.json")
    return json.loads(path.read_text(encoding="utf-8"))


def settings(directory: Path, *, key: str = KEY, base_url: str = "") -> Settings:
    """Return settings with a key that came from GEMINI_API_KEY, or with none."""
    return Settings(
        files=directory / "files",
        home=directory,
        roots=(directory,),
        working_directory=directory,
        api_key=Secret(key, "GEMINI_API_KEY") if key else None,
        base_url=base_url,
    )


class Script(httpx2.AsyncBaseTransport):
    """A Gemini that answers by a list: each entry answers one request, the last one all that follow."""

    def __init__(self, *replies: Reply | Handler) -> None:
        self._replies = list(replies)
        self.requests: list[httpx2.Request] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await request.aread()
        self.requests.append(request)
        reply: Any = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        if callable(reply):
            reply = reply(request)
        if isinstance(reply, Awaitable):
            reply = await reply
        if isinstance(reply, Exception):
            raise reply
        assert isinstance(reply, httpx2.Response)
        return reply


def answer(content: object, status_code: int = 200, **headers: str) -> Callable[[httpx2.Request], httpx2.Response]:
    """Return a reply with this JSON, made anew for every request."""
    return lambda request: httpx2.Response(
        status_code, json=content, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


def failing(status_code: int, message: str = "it broke", **headers: str) -> Callable[[httpx2.Request], httpx2.Response]:
    """Return a google.rpc error reply."""
    return answer({"error": {"code": status_code, "message": message, "status": "X"}}, status_code, **headers)


class Body(httpx2.AsyncByteStream):
    """A reply body that breaks off with `failure` after its parts, or ends well-formed."""

    def __init__(self, *parts: bytes, failure: Exception | None = None) -> None:
        self._parts = parts
        self._failure = failure

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            yield part
        if self._failure is not None:
            raise self._failure


def open_gateway(
    directory: Path,
    transport: httpx2.AsyncBaseTransport,
    *,
    key: str = KEY,
    hook: Callable[[str], None] | None = None,
    retry: RetryPolicy = QUICK,
    timeouts: Timeouts | None = None,
) -> Gateway:
    """Return a gateway whose requests go to `transport`."""
    return Gateway.open(settings(directory, key=key), transport=transport, hook=hook, retry=retry, timeouts=timeouts)


def request_lines(count: int, text: str = "Say hello.") -> bytes:
    """Return `count` request lines under the keys row-0, row-1, …."""
    lines = (
        {"key": f"row-{number}", "request": {"contents": [{"role": "user", "parts": [{"text": text}]}]}}
        for number in range(count)
    )
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


async def create(gateway: Gateway) -> Job:
    """Create a job under the display name "reviews"."""
    return await gateway.create_from_file(
        model=MODEL, file_name="files/in8w2k5x", display_name="reviews", task="generate"
    )


async def failure_of_read(directory: Path, *replies: Any, retry: RetryPolicy = QUICK) -> tuple[GeminiError, int]:
    """Return the error of a get, and how many requests were made."""
    script = Script(*replies)
    gateway = open_gateway(directory, script, retry=retry)
    with pytest.raises(GeminiError) as caught:
        await gateway.get_job(JOB)
    await gateway.aclose()
    return caught.value, len(script.requests)


async def failure_of_create(directory: Path, *replies: Any) -> tuple[GeminiError, int]:
    """Return the error of a create, and how many requests were made."""
    script = Script(*replies)
    gateway = open_gateway(directory, script)
    with pytest.raises(GeminiError) as caught:
        await create(gateway)
    await gateway.aclose()
    return caught.value, len(script.requests)
