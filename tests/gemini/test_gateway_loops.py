"""A service that would keep us for ever: redirects in a circle, transfers that never move. All of it ends."""

import io
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import httpx2
import pytest

from gemini_batch_mcp.errors import GeminiError, Unavailable
from gemini_batch_mcp.gemini.developer.gateway import Gateway, Timeouts
from support.gateways import JOB, QUICK, Script, failing, open_gateway

pytestmark = pytest.mark.anyio

#: The most redirects that the HTTP client follows.
REDIRECTS = 20
ACTIVE = {"x-goog-upload-status": "active"}


def to_itself(request: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(302, headers={"location": str(request.url)})


def to_ever_new_places(request: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(302, headers={"location": f"{request.url.copy_with(query=None)}?n={id(request)}"})


def never_moving(request: httpx2.Request) -> httpx2.Response:
    """An upload of which nothing ever arrives: each chunk fails, each question is answered with 0 bytes."""
    match request.headers["x-goog-upload-command"]:
        case "start":
            return httpx2.Response(200, headers={**ACTIVE, "x-goog-upload-url": f"{request.url}?upload_id=x"})
        case "query":
            return httpx2.Response(200, headers={**ACTIVE, "x-goog-upload-size-received": "0"})
        case _:
            return httpx2.Response(503)


def never_final(request: httpx2.Request) -> httpx2.Response:
    """An upload of which all arrives and that is never finished."""
    url = f"{request.url}?upload_id=x" if request.headers["x-goog-upload-command"] == "start" else ""
    return httpx2.Response(200, headers={**ACTIVE, "x-goog-upload-url": url} if url else ACTIVE)


async def read(gateway: Gateway, _: Path) -> object:
    return await gateway.get_job(JOB)


async def download(gateway: Gateway, directory: Path) -> object:
    return await gateway.download("files/x", directory / "out")


async def upload(gateway: Gateway, _: Path) -> object:
    content = b"x" * (20 << 20)
    return await gateway.upload(io.BytesIO(content), size_bytes=len(content), display_name="in.jsonl")


@pytest.mark.parametrize(
    ("call", "reply", "most_requests"),
    [
        (read, to_itself, QUICK.attempts * (REDIRECTS + 1)),
        (read, to_ever_new_places, QUICK.attempts * (REDIRECTS + 1)),
        (download, to_itself, QUICK.attempts * (REDIRECTS + 1)),
        (download, to_ever_new_places, QUICK.attempts * (REDIRECTS + 1)),
        (upload, to_itself, 2),
        (upload, never_moving, 2 + 2 * QUICK.attempts),
        (upload, never_final, 5),
        (read, failing(503, retry_after=str(365 * 24 * 3600)), QUICK.attempts),
    ],
)
async def test_what_leads_nowhere_is_given_up_after_a_few_requests(
    tmp_path: Path, call: Callable[[Gateway, Path], Awaitable[object]], reply: Any, most_requests: int
) -> None:
    script = Script(reply)
    gateway = open_gateway(tmp_path, script)
    with anyio.fail_after(30), pytest.raises(GeminiError) as caught:
        await call(gateway, tmp_path)
    assert caught.value.next_step
    assert len(script.requests) <= most_requests
    await gateway.aclose()


class Drip(httpx2.AsyncByteStream):
    """A body that always says something, and next to nothing: in each step of a second so many bytes."""

    def __init__(self, clock: list[float], piece: bytes) -> None:
        self._clock, self._piece = clock, piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            self._clock[0] += 1
            await anyio.lowlevel.checkpoint()
            yield self._piece


@pytest.mark.parametrize("piece", [b"", b"x"])
async def test_a_body_that_says_nothing_for_ever_has_broken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: bytes
) -> None:
    clock, now = [0.0], anyio.current_time
    monkeypatch.setattr(anyio, "current_time", lambda: now() + clock[0])
    script = Script(lambda request: httpx2.Response(200, stream=Drip(clock, piece)))
    gateway = open_gateway(tmp_path, script, timeouts=Timeouts(stall_seconds=300))
    with anyio.fail_after(60), pytest.raises(Unavailable, match="did not answer in time"):
        await gateway.download("files/x", tmp_path / "out")
    assert len(script.requests) <= QUICK.attempts**2
    assert clock[0] <= QUICK.attempts**2 * 302
    assert list(tmp_path.iterdir()) == []
    await gateway.aclose()


async def test_a_slow_body_that_moves_is_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, now = [0.0], anyio.current_time
    monkeypatch.setattr(anyio, "current_time", lambda: now() + clock[0])

    class Slow(Drip):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for _ in range(2_000):
                clock[0] += 1
                yield b"x" * 1000

    gateway = open_gateway(tmp_path, Script(lambda request: httpx2.Response(200, stream=Slow(clock, b""))))
    assert (await gateway.download("files/x", tmp_path / "out")).size_bytes == 2_000_000
    await gateway.aclose()
