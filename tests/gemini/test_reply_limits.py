"""Replies that are larger than replies may be: said so, not read, and not asked for again."""

import gzip
import tracemalloc
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

import httpx2
import pytest

from gemini_batch_mcp.errors import GeminiError, OutcomeUnknown, Unavailable
from gemini_batch_mcp.settings import MAX_REPLY_BYTES
from support.gateways import JOB, Body, Script, failure_of_create, failure_of_read, open_gateway

pytestmark = pytest.mark.anyio

TOO_LARGE = (
    "Gemini's answer has {much} when asked to describe batches/q7m2k9x4c1v8b5n3z6l0p2w4t8r1y5u7d3e9, so the rest was "
    "not read. If GOOGLE_GEMINI_BASE_URL is set, check it; otherwise order fewer rows at once, or from a file."
)


@cache
def bomb() -> bytes:
    """A reply that is larger than replies may be."""
    return b'{"name":"' + JOB.encode() + b'","metadata":{"x":"' + b" " * (MAX_REPLY_BYTES + 1)


@cache
def small_bomb() -> bytes:
    """The same, packed: made once, and not while tests are collected."""
    return gzip.compress(bomb(), 1)


def packed(content: bytes, encoding: str = "gzip", status_code: int = 200) -> httpx2.Response:
    return httpx2.Response(status_code, headers={"content-encoding": encoding}, stream=Body(content))


REPLIES: Final[dict[str, Callable[[], httpx2.Response]]] = {
    "gzip": lambda: packed(small_bomb()),
    "deflate": lambda: packed(zlib.compress(bomb(), 1), "deflate"),
    "in an error": lambda: packed(small_bomb(), status_code=503),
    "plain": lambda: httpx2.Response(200, stream=Body(bomb())),
    "in a redirect": lambda: httpx2.Response(
        302, headers={"location": "/other", "content-encoding": "gzip"}, stream=Body(small_bomb())
    ),
}


@pytest.mark.parametrize("name", REPLIES)
async def test_a_reply_beyond_the_limit_is_not_read(tmp_path: Path, name: str) -> None:
    reply = REPLIES[name]()
    tracemalloc.start()
    error, requests = await failure_of_read(tmp_path, reply)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (type(error), requests) == (Unavailable, 1)
    assert str(error) == TOO_LARGE.format(much="more than 50,331,648 bytes")
    assert peak_bytes < 3 * MAX_REPLY_BYTES


@pytest.mark.parametrize(
    ("item", "count", "much"),
    [(b"{}", 300_001, "more than 300,000 objects and lists"), (b"1", 3_000_001, "more than 3,000,000 values")],
    ids=["objects", "numbers"],
)
async def test_a_reply_that_would_take_many_times_its_size_is_not_parsed(
    tmp_path: Path, item: bytes, count: int, much: str
) -> None:
    content = b"[" + (item + b",") * count + item + b"]"
    error, requests = await failure_of_read(tmp_path, httpx2.Response(200, stream=Body(content)))
    assert (str(error), requests) == (TOO_LARGE.format(much=much), 1)


async def test_a_reply_to_a_create_that_is_too_large_leaves_its_outcome_unknown(tmp_path: Path) -> None:
    error, requests = await failure_of_create(tmp_path, packed(small_bomb()))
    assert (type(error), requests) == (OutcomeUnknown, 1)
    assert "the reply has more than 50,331,648 bytes" in str(error)


async def test_a_reply_that_is_not_packed_as_it_says_is_not_understood(tmp_path: Path) -> None:
    for content in (b"no gzip", small_bomb()[:500] + b"\0" * 500):
        error, _ = await failure_of_read(tmp_path, *[packed(content) for _ in range(3)])
        assert "could not be understood" in str(error)


async def test_a_reply_packed_as_nobody_asked_for_is_not_unpacked(tmp_path: Path) -> None:
    error, _ = await failure_of_read(tmp_path, *[packed(b"\x00" * 100, "br") for _ in range(3)])
    assert "could not be understood (DecodingError)" in str(error)


async def test_a_packed_download_of_any_size_goes_to_the_disk_piece_by_piece(tmp_path: Path) -> None:
    content = b"\0" * (100 << 20)
    bomb = gzip.compress(content)
    gateway = open_gateway(tmp_path, Script(packed(bomb)))
    tracemalloc.start()
    done = await gateway.download("files/x", tmp_path / "out")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    await gateway.aclose()
    assert done.size_bytes == len(content)
    assert peak_bytes < 32 << 20


async def test_only_what_can_be_unpacked_within_bounds_is_asked_for(tmp_path: Path) -> None:
    script = Script(httpx2.Response(404, json={}))
    gateway = open_gateway(tmp_path, script)
    with pytest.raises(GeminiError):
        await gateway.get_job(JOB)
    await gateway.aclose()
    assert script.requests[0].headers["accept-encoding"] == "gzip, deflate"
