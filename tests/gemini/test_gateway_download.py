"""A result file arrives here whole, or not at all."""

import errno
import gzip
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
import xxhash

from gemini_batch_mcp.errors import BatchError, NotFound, StorageError, Unavailable
from gemini_batch_mcp.gemini.developer.gateway import Download, Gateway, RetryPolicy
from gemini_batch_mcp.gemini.http import Exchange
from gemini_batch_mcp.gemini.transfers import Incoming
from gemini_batch_mcp.redaction import Secrets
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import OnCommand, SandboxConfig
from support.gateways import QUICK, Body, Script, failing, open_gateway, request_lines

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with Sandbox(tmp_path / "sandbox", SandboxConfig(pace=OnCommand())) as sandbox:
        yield sandbox
        assert sandbox.unknown_requests == ()


def digest_of(content: bytes) -> str:
    return f"xxh3_128:{xxhash.xxh3_128(content).hexdigest()}"


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def result_file(gateway: Gateway, sandbox: Sandbox, rows: int, text: str = "hello") -> str:
    content = request_lines(rows, text)
    uploaded = await gateway.upload(io.BytesIO(content), size_bytes=len(content), display_name="in.jsonl")
    job = await gateway.create_from_file(
        model="gemini-3-flash-preview", file_name=uploaded.name, display_name="d", task="generate"
    )
    sandbox.finish(job.name)
    return (await gateway.get_job(job.name)).responses_file


async def test_a_download_appears_whole_with_its_size_and_hash(tmp_path: Path, sandbox: Sandbox) -> None:
    gateway = open_gateway(tmp_path, sandbox.transport())
    name = await result_file(gateway, sandbox, 5000)
    seen: list[tuple[int, int | None]] = []
    target = tmp_path / "out" / "results.jsonl"
    target.parent.mkdir()
    done = await gateway.download(name, target, on_progress=lambda done, total: seen.append((done, total)))
    content = target.read_bytes()
    assert content.count(b"\n") == 5000
    assert done == Download(len(content), digest_of(content))
    assert seen[-1] == (len(content), len(content))
    assert len(seen) >= len(content) // MIB
    assert names(target.parent) == ["results.jsonl"]
    await gateway.aclose()


@pytest.mark.parametrize(
    "fault",
    [
        lambda sandbox: sandbox.cut_next("files.download", when="after", at_byte=MIB + 17),
        lambda sandbox: sandbox.cut_next("files.download", when="after", at_byte=0),
        lambda sandbox: sandbox.cut_next("files.download", when="before"),
        lambda sandbox: sandbox.fail_next("files.download", status=503),
        lambda sandbox: (
            sandbox.cut_next("files.download", when="after", at_byte=100),
            sandbox.fail_next("files.download", status=503),
            sandbox.cut_next("files.download", when="after", at_byte=200),
        ),
    ],
)
async def test_a_cut_download_is_completed(
    tmp_path: Path, sandbox: Sandbox, fault: Callable[[Sandbox], object]
) -> None:
    gateway = open_gateway(tmp_path, sandbox.transport())
    name = await result_file(gateway, sandbox, 5000)
    whole = await gateway.download(name, tmp_path / "whole")
    fault(sandbox)
    assert await gateway.download(name, tmp_path / "out") == whole
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()
    await gateway.aclose()


async def test_a_download_that_keeps_failing_leaves_nothing_and_touches_nothing(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    gateway = open_gateway(tmp_path, sandbox.transport())
    name = await result_file(gateway, sandbox, 100)
    target = tmp_path / "out" / "results.jsonl"
    target.parent.mkdir()
    target.write_text("older results")
    sandbox.cut_next("files.download", when="after", at_byte=50, times=99)
    with pytest.raises(Unavailable, match="closed the connection early"):
        await gateway.download(name, target)
    sandbox.fail_next("files.download", status=404, times=99)
    with pytest.raises(BatchError):
        await gateway.download("files/batch-gone", target)
    assert names(target.parent) == ["results.jsonl"]
    assert target.read_text() == "older results"
    await gateway.aclose()


CONTENT = bytes(range(256)) * 8192  # 2 MiB


def serve(*cuts: int, ranges: bool = True, **headers: str) -> Callable[[httpx2.Request], httpx2.Response]:
    """Return a download that breaks off after each of `cuts` bytes in turn, and then not any more."""
    left = list(cuts)

    def reply(request: httpx2.Request) -> httpx2.Response:
        start = int(request.headers.get("range", "bytes=0-")[len("bytes=") : -1]) if ranges else 0
        body = CONTENT[start:]
        sent = {"content-length": str(len(body)), **{name.replace("_", "-"): value for name, value in headers.items()}}
        if start:
            sent.setdefault("content-range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        cut = left.pop(0) if left else None
        stream = Body(body) if cut is None else Body(body[:cut], failure=httpx2.ReadError("cut"))
        return httpx2.Response(206 if start else 200, headers=sent, stream=stream)

    return reply


async def download_from(directory: Path, *replies: Any, retry: RetryPolicy = QUICK) -> tuple[Any, Script]:
    """Download CONTENT from a scripted Gemini → the result or the error, and what was asked."""
    script = Script(*replies)
    gateway = open_gateway(directory, script, retry=retry)
    try:
        result: Any = await gateway.download("files/batch-abc", directory / "out")
    except BatchError as error:
        result = error
    await gateway.aclose()
    assert set(names(directory)) <= {"out"}
    return result, script


def asked_ranges(script: Script) -> list[str]:
    return [request.headers.get("range", "") for request in script.requests]


WHOLE = Download(len(CONTENT), digest_of(CONTENT))


async def test_a_cut_download_asks_for_the_rest_only(tmp_path: Path) -> None:
    done, script = await download_from(tmp_path, serve(MIB + 5, 7))
    assert done == WHOLE
    assert asked_ranges(script) == ["", f"bytes={MIB + 5}-", f"bytes={MIB + 12}-"]
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert {request.headers["accept-encoding"] for request in script.requests} == {"identity"}
    assert {request.url.query for request in script.requests} == {b"alt=media"}


async def test_a_server_that_knows_no_ranges_is_read_again_from_the_start(tmp_path: Path) -> None:
    done, script = await download_from(tmp_path, serve(MIB + 5, 7, ranges=False))
    assert done == WHOLE
    assert len(script.requests) == 3


async def test_a_body_that_ends_before_its_stated_length_is_completed(tmp_path: Path) -> None:
    short = httpx2.Response(200, headers={"content-length": str(len(CONTENT))}, stream=Body(CONTENT[:MIB]))
    done, script = await download_from(tmp_path, short, serve())
    assert (done, asked_ranges(script)) == (WHOLE, ["", f"bytes={MIB}-"])


async def test_progress_between_cuts_counts_and_none_ends_the_download(tmp_path: Path) -> None:
    two = RetryPolicy(attempts=2, initial_delay_seconds=0.001, max_delay_seconds=0.01)
    done, script = await download_from(tmp_path, serve(MIB, MIB), retry=two)
    assert (done, len(script.requests)) == (WHOLE, 3)
    error, script = await download_from(tmp_path, serve(*[10] * 99), retry=two)
    assert type(error) is Unavailable
    assert asked_ranges(script) == ["", "bytes=10-", "", "bytes=10-"]


@pytest.mark.parametrize(
    "rest",
    [
        serve(content_range="bytes 0-5/6"),
        serve(content_range=f"bytes {MIB}-{len(CONTENT)}/77"),
        serve(content_range="odd"),
        serve(etag="other"),
        serve(ranges=False, content_length="5"),
        failing(416),
    ],
)
async def test_a_rest_that_does_not_fit_is_not_joined(tmp_path: Path, rest: Any) -> None:
    done, script = await download_from(tmp_path, serve(MIB), rest, serve())
    assert done == WHOLE
    assert len(script.requests) == 3


async def test_a_rest_of_unknown_total_is_joined_when_it_starts_in_the_right_place(tmp_path: Path) -> None:
    done, script = await download_from(tmp_path, serve(MIB), serve(content_range=f"bytes {MIB}-{len(CONTENT) - 1}/*"))
    assert (done, len(script.requests)) == (WHOLE, 2)


async def test_a_download_of_unstated_length_is_taken_as_it_ends(tmp_path: Path) -> None:
    totals: list[int | None] = []
    gateway = open_gateway(tmp_path, Script(httpx2.Response(200, stream=Body(b"abc", b"def"))))
    done = await gateway.download("files/x", tmp_path / "out", on_progress=lambda _, total: totals.append(total))
    assert (done.size_bytes, totals) == (6, [None])
    await gateway.aclose()


async def test_a_compressed_download_is_unpacked(tmp_path: Path) -> None:
    packed = Body(gzip.compress(CONTENT))
    reply = httpx2.Response(200, headers={"content-encoding": "gzip"}, stream=packed)
    done, _ = await download_from(tmp_path, reply)
    assert done == WHOLE


async def test_a_result_file_that_is_gone_is_not_found(tmp_path: Path) -> None:
    error, script = await download_from(tmp_path, failing(404, "Requested entity was not found."))
    assert (type(error), len(script.requests)) == (NotFound, 1)


async def test_a_download_larger_than_the_disk_is_refused_before_it_fills_it(tmp_path: Path) -> None:
    huge = httpx2.Response(200, headers={"content-length": str(10**16)}, stream=Body(CONTENT))
    error, script = await download_from(tmp_path, huge)
    assert type(error) is StorageError
    assert "bytes are free, 10,000,000,000,000,000 are needed" in error.message
    assert len(script.requests) == 1


async def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    gateway = open_gateway(tmp_path, Script(serve()))
    with pytest.raises(StorageError, match=r"missing.*cannot be written to \(No such file or directory\)"):
        await gateway.download("files/x", tmp_path / "missing" / "out")
    (tmp_path / "taken").mkdir()
    with pytest.raises(StorageError, match="Is a directory"):
        await gateway.download("files/x", tmp_path / "taken")
    assert names(tmp_path) == ["taken"]
    await gateway.aclose()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full disk to write to")
def test_a_full_disk_is_named_with_what_is_free(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb", buffering=0) as file:
        incoming = Incoming(file, tmp_path, lambda done, total: None, Secrets())
        with pytest.raises(StorageError, match=r"is full: [\d,]+ bytes are free\. Free some space") as caught:
            incoming.write(b"x" * 2_000_000)
        assert incoming.refusal is caught.value
        incoming.follow(Exchange(1.0, total_bytes=100))
        with pytest.raises(StorageError, match=r"is full: [\d,]+ bytes are free, 100 are needed"):
            incoming.finish()


async def test_a_fault_in_the_callers_own_progress_passes_unchanged(tmp_path: Path) -> None:
    def progress(done: int, total: int | None) -> None:
        raise OSError(errno.EPIPE, "the terminal is gone")

    script = Script(serve())
    gateway = open_gateway(tmp_path, script)
    with pytest.raises(BrokenPipeError):
        await gateway.download("files/x", tmp_path / "out", on_progress=progress)
    await gateway.aclose()
    assert names(tmp_path) == []


async def test_a_cancelled_download_leaves_nothing(tmp_path: Path) -> None:
    gateway = open_gateway(tmp_path, Script(serve()))
    with anyio.CancelScope() as scope:
        await gateway.download("files/x", tmp_path / "out", on_progress=lambda done, total: scope.cancel())
    assert scope.cancelled_caught
    assert names(tmp_path) == []
    await gateway.aclose()
