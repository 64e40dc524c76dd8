"""A request file arrives at Gemini whole, or not at all."""

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gemini_batch_mcp.domain import UploadedFile
from gemini_batch_mcp.errors import BatchError, NotFound, Rejected, StorageError, Unavailable
from gemini_batch_mcp.gemini.developer.gateway import Gateway, Timeouts
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import OnCommand, SandboxConfig
from support.gateways import UPLOAD_ID, Script, answer, failing, open_gateway, request_lines

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
CHUNK = 8 * MIB


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with Sandbox(tmp_path / "sandbox", SandboxConfig(pace=OnCommand())) as sandbox:
        yield sandbox
        assert sandbox.unknown_requests == ()


class Reader:
    """Hands out its bytes in small pieces and can be read only once; `refuse` is raised at the end or at a position."""

    def __init__(self, content: bytes, *, piece: int = 10**9, refuse: Exception | None = None, refuse_at: int = -1):
        self._content = io.BytesIO(content)
        self._piece = piece
        self._refuse = refuse
        self._refuse_at = refuse_at

    def read(self, size: int = -1, /) -> bytes:
        chunk = self._content.read(min(size, self._piece))
        if self._refuse and (not chunk if self._refuse_at < 0 else self._content.tell() >= self._refuse_at):
            raise self._refuse
        return chunk


def commands(sandbox: Sandbox) -> list[tuple[str, str, int]]:
    return [
        (
            request.headers["x-goog-upload-command"],
            request.headers.get("x-goog-upload-offset", ""),
            request.request_bytes,
        )
        for request in sandbox.requests
        if "x-goog-upload-command" in request.headers
    ]


def routes(sandbox: Sandbox) -> list[str]:
    return [request.route for request in sandbox.requests]


async def upload(gateway: Gateway, source: Any, content: bytes, **options: Any) -> UploadedFile:
    digest = hashlib.sha256(content).hexdigest()
    return await gateway.upload(
        source, **{"size_bytes": len(content), "display_name": "in.jsonl", "sha256": digest, **options}
    )


@pytest.mark.parametrize("make", [Path, io.BytesIO, Reader])
async def test_a_file_of_several_chunks_arrives_whole(
    tmp_path: Path, sandbox: Sandbox, make: Callable[[Any], Any]
) -> None:
    content = b"x" * (2 * CHUNK + 5)
    (tmp_path / "in.jsonl").write_bytes(content)
    source = make(tmp_path / "in.jsonl") if make is Path else make(content)
    gateway = open_gateway(tmp_path, sandbox.transport())
    uploaded = await upload(gateway, source, content)
    assert (uploaded.size_bytes, uploaded.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert await gateway.get_file(uploaded.name) == uploaded
    assert commands(sandbox)[1:] == [
        ("upload", "0", CHUNK),
        ("upload", str(CHUNK), CHUNK),
        ("upload, finalize", str(2 * CHUNK), 5),
    ]
    await gateway.aclose()


class _Pieces(httpx2.AsyncBaseTransport):
    """The way to a sandbox; notes how large the pieces are in which bodies leave."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._way = sandbox.transport()
        self.sizes: list[int] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        assert isinstance(request.stream, httpx2.AsyncByteStream)
        self.sizes += [len(piece) async for piece in request.stream]
        return await self._way.handle_async_request(request)


async def test_a_chunk_leaves_in_slices_between_which_others_have_their_turn(tmp_path: Path, sandbox: Sandbox) -> None:
    way, content = _Pieces(sandbox), bytes(range(256)) * (5 * MIB // 256) + b"x"
    gateway = open_gateway(tmp_path, way)
    uploaded = await upload(gateway, io.BytesIO(content), content)
    assert uploaded.sha256 == hashlib.sha256(content).hexdigest()
    assert sum(way.sizes) >= len(content)
    assert max(way.sizes) <= MIB
    await gateway.aclose()


async def test_a_reader_that_hands_out_little_still_fills_whole_chunks(tmp_path: Path, sandbox: Sandbox) -> None:
    content = request_lines(20_000)[: CHUNK + 1000] + b"x" * CHUNK
    gateway = open_gateway(tmp_path, sandbox.transport())
    asked: list[str] = []

    def digest() -> str:
        asked.append("asked")
        return hashlib.sha256(content).hexdigest().upper()

    await upload(gateway, Reader(content, piece=3 * MIB + 1), content, sha256=digest)
    assert [size for command, _, size in commands(sandbox) if command == "upload"] == [CHUNK] * (len(content) // CHUNK)
    assert asked == ["asked"]
    await gateway.aclose()


async def test_an_empty_file_arrives(tmp_path: Path, sandbox: Sandbox) -> None:
    gateway = open_gateway(tmp_path, sandbox.transport())
    assert (await upload(gateway, io.BytesIO(), b"")).size_bytes == 0
    await gateway.aclose()


@pytest.mark.parametrize("refuse_at", [-1, 1, CHUNK + 1])
async def test_what_a_reader_raises_passes_unchanged_and_nothing_is_finalized(
    tmp_path: Path, sandbox: Sandbox, refuse_at: int
) -> None:
    class LinesRefused(Exception):
        pass

    content = b"x" * (CHUNK + 100)
    refusal = LinesRefused("line 7")
    gateway = open_gateway(tmp_path, sandbox.transport())
    with pytest.raises(LinesRefused) as caught:
        await upload(gateway, Reader(content, refuse=refusal, refuse_at=refuse_at), content)
    assert caught.value is refusal
    assert "files.finalize" not in routes(sandbox)
    assert routes(sandbox)[-1] == "files.cancel"
    await gateway.aclose()


async def test_a_refusal_stays_itself_even_when_the_upload_cannot_be_cancelled(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    sandbox.cut_next("files.cancel", when="before", times=9)
    gateway = open_gateway(tmp_path, sandbox.transport())
    with pytest.raises(OSError, match="mine"):
        await upload(gateway, Reader(b"abc", refuse=OSError("mine")), b"abc")
    await gateway.aclose()


@pytest.mark.parametrize("difference", [-1, 1])
async def test_a_file_that_changes_while_it_is_sent_is_not_finalized(
    tmp_path: Path, sandbox: Sandbox, difference: int
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"x" * 1000)
    gateway = open_gateway(tmp_path, sandbox.transport())
    with pytest.raises(StorageError, match="changed while it was being sent"):
        await gateway.upload(path, size_bytes=1000 - difference, display_name="in.jsonl")
    assert "files.finalize" not in routes(sandbox)
    await gateway.aclose()


async def test_a_file_that_is_not_there_is_named(tmp_path: Path, sandbox: Sandbox) -> None:
    gateway = open_gateway(tmp_path, sandbox.transport())
    with pytest.raises(StorageError, match=r"gone\.jsonl.*No such file"):
        await gateway.upload(tmp_path / "gone.jsonl", size_bytes=1, display_name="gone.jsonl")
    with pytest.raises(StorageError, match="Is a directory"):
        await gateway.upload(tmp_path, size_bytes=1, display_name="d")
    assert sandbox.requests == ()
    await gateway.aclose()


@pytest.mark.parametrize(
    "fault",
    [
        lambda sandbox: sandbox.cut_next("files.chunk", when="before", at_byte=3 * MIB),
        lambda sandbox: sandbox.cut_next("files.chunk", when="before", at_byte=3 * MIB, times=1, skip=1),
        lambda sandbox: sandbox.cut_next("files.chunk", when="after", at_byte=0),
        lambda sandbox: sandbox.fail_next("files.chunk", status=503, headers={"x-goog-upload-status": "active"}),
        lambda sandbox: sandbox.fail_next("files.chunk", status=503, when="after"),
        lambda sandbox: sandbox.fail_next("files.chunk", status=429),
        lambda sandbox: sandbox.cut_next("files.finalize", when="before", at_byte=2),
        lambda sandbox: (
            sandbox.cut_next("files.chunk", when="before", at_byte=MIB),
            sandbox.cut_next("files.query", when="before"),
        ),
    ],
)
async def test_a_broken_chunk_goes_on_where_it_broke(
    tmp_path: Path, sandbox: Sandbox, fault: Callable[[Sandbox], object]
) -> None:
    content = bytes(range(256)) * (2 * CHUNK // 256) + b"the end"
    fault(sandbox)
    gateway = open_gateway(tmp_path, sandbox.transport())
    uploaded = await upload(gateway, Reader(content), content)
    assert uploaded.sha256 == hashlib.sha256(content).hexdigest()
    assert routes(sandbox).count("files.start") == 1
    assert "files.query" in routes(sandbox)
    await gateway.aclose()


async def test_a_reader_gets_one_upload_and_a_path_three(tmp_path: Path, sandbox: Sandbox) -> None:
    sandbox.fail_next("files.finalize", status=500, times=99)
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"abc")
    gateway = open_gateway(tmp_path, sandbox.transport())
    for source, starts in ((io.BytesIO(b"abc"), 1), (path, 4)):
        with pytest.raises(Unavailable, match="500"):
            await upload(gateway, source, b"abc")
        assert routes(sandbox).count("files.start") == starts
    await gateway.aclose()


async def test_a_path_is_sent_again_when_its_finalize_is_lost(tmp_path: Path, sandbox: Sandbox) -> None:
    sandbox.cut_next("files.finalize", when="after", at_byte=0)
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"abc")
    gateway = open_gateway(tmp_path, sandbox.transport())
    assert (await upload(gateway, path, b"abc")).size_bytes == 3
    await gateway.aclose()


async def test_a_cut_connection_ends_an_upload_as_unavailable(tmp_path: Path, sandbox: Sandbox) -> None:
    sandbox.cut_next("files.finalize", when="before", times=99)
    sandbox.cut_next("files.query", when="before", times=99)
    gateway = open_gateway(tmp_path, sandbox.transport())
    with pytest.raises(Unavailable, match="closed the connection early"):
        await upload(gateway, io.BytesIO(b"abc"), b"abc")
    await gateway.aclose()


# Uploads to an odd Gemini


def started(url: str = f"https://upload.example/x?upload_id={UPLOAD_ID}") -> httpx2.Response:
    return httpx2.Response(200, headers={"x-goog-upload-url": url, "x-goog-upload-status": "active"})


def finalized(**members: object) -> Callable[[httpx2.Request], httpx2.Response]:
    return answer({"file": {"name": "files/abc", "sizeBytes": "3", **members}}, x_goog_upload_status="final")


FILE = {"name": "files/abc", "sizeBytes": "3", "state": "ACTIVE"}


async def upload_to(directory: Path, *replies: Any, source: Any = None, **options: Any) -> tuple[Any, Script]:
    """Upload three bytes to a scripted Gemini → the file or the error, and what was asked."""
    script = Script(*replies)
    gateway = open_gateway(directory, script, timeouts=options.pop("timeouts", None))
    try:
        result: Any = await gateway.upload(source or Reader(b"abc"), size_bytes=3, display_name="in.jsonl", **options)
    except BatchError as error:
        result = error
    await gateway.aclose()
    return result, script


def methods(script: Script) -> list[str]:
    return [
        f"{request.method} {request.headers.get('x-goog-upload-command', request.url.path)}"
        for request in script.requests
    ]


@pytest.mark.parametrize(
    ("members", "options"),
    [
        ({"sizeBytes": "2"}, {}),
        ({"sizeBytes": None}, {}),
        ({"sha256Hash": hashlib.sha256(b"abd").hexdigest()}, {"sha256": hashlib.sha256(b"abc").hexdigest()}),
    ],
)
async def test_a_damaged_file_is_deleted_and_said_to_be_damaged(
    tmp_path: Path, members: dict[str, Any], options: dict[str, Any]
) -> None:
    error, script = await upload_to(tmp_path, started(), finalized(**members), answer({}), **options)
    assert type(error) is Unavailable and "damaged on the way" in error.message
    assert methods(script) == ["POST start", "POST upload, finalize", "DELETE /v1beta/files/abc"]


async def test_a_damaged_file_that_cannot_be_deleted_is_still_said_to_be_damaged(tmp_path: Path) -> None:
    error, _ = await upload_to(tmp_path, started(), finalized(sizeBytes="2"), failing(403))
    assert "damaged on the way" in error.message


async def test_a_matching_hash_outweighs_a_size_that_is_not_stated(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"abc").hexdigest()
    uploaded, _ = await upload_to(tmp_path, started(), finalized(sizeBytes=None, sha256Hash=digest), sha256=digest)
    assert uploaded.name == "files/abc"


async def test_a_file_counts_although_the_sdk_cannot_read_its_description(tmp_path: Path) -> None:
    uploaded, _ = await upload_to(tmp_path, started(), finalized(state={"odd": 1}, createTime=5))
    assert uploaded.name == "files/abc"


async def test_a_file_in_processing_is_waited_for(tmp_path: Path) -> None:
    processing = answer({**FILE, "state": "PROCESSING"})
    uploaded, script = await upload_to(
        tmp_path, started(), finalized(state="PROCESSING"), processing, processing, answer(FILE)
    )
    assert uploaded.state == "ACTIVE"
    assert methods(script)[2:] == ["GET /v1beta/files/abc"] * 3


async def test_a_file_that_fails_or_never_ends_processing_is_refused(tmp_path: Path) -> None:
    error, _ = await upload_to(tmp_path, started(), finalized(state="PROCESSING"), answer({**FILE, "state": "FAILED"}))
    assert type(error) is Rejected and "could not process files/abc" in error.message
    error, _ = await upload_to(
        tmp_path,
        started(),
        finalized(state="PROCESSING"),
        answer({**FILE, "state": "PROCESSING"}),
        timeouts=Timeouts(processing_seconds=0.02),
    )
    assert type(error) is Unavailable and "still being processed" in error.message


@pytest.mark.parametrize(
    "replies",
    [
        [httpx2.Response(200)],
        [started(), httpx2.Response(200, headers={"x-goog-upload-status": "active"})],
        [started(), httpx2.Response(200, headers={"x-goog-upload-status": "final"})],
        [started(), answer({"file": {}}, x_goog_upload_status="final")],
        [started(), answer({"odd": 1}, x_goog_upload_status="final")],
        [started(), answer([], x_goog_upload_status="final")],
    ],
)
async def test_an_upload_that_gemini_does_not_confirm_is_unavailable(tmp_path: Path, replies: list[Any]) -> None:
    error, script = await upload_to(tmp_path, *replies)
    assert type(error) is Unavailable
    assert methods(script)[-1] in ("POST start", "POST cancel")


async def test_a_chunk_whose_reply_states_nothing_is_not_sent_blindly_again(tmp_path: Path) -> None:
    error, script = await upload_to(tmp_path, started(), httpx2.Response(200))
    assert type(error) is Unavailable
    assert methods(script) == ["POST start", "POST upload, finalize", "POST cancel"]


async def test_a_session_that_is_gone_ends_the_upload(tmp_path: Path) -> None:
    error, script = await upload_to(tmp_path, started(), httpx2.ReadError("cut"), failing(404))
    assert type(error) is NotFound
    assert methods(script) == ["POST start", "POST upload, finalize", "POST query", "POST cancel"]


async def test_a_final_state_with_the_file_in_it_ends_a_lost_finalize(tmp_path: Path) -> None:
    uploaded, script = await upload_to(tmp_path, started(), httpx2.ReadError("cut"), finalized())
    assert uploaded.name == "files/abc"
    assert methods(script)[2] == "POST query"


async def test_an_upload_whose_bytes_all_arrived_is_finalized_without_them(tmp_path: Path) -> None:
    state = httpx2.Response(200, headers={"x-goog-upload-status": "active", "x-goog-upload-size-received": "3"})
    uploaded, script = await upload_to(tmp_path, started(), httpx2.ReadError("cut"), state, finalized())
    last = script.requests[-1]
    assert uploaded.name == "files/abc"
    assert (last.headers["x-goog-upload-offset"], last.content) == ("3", b"")


MIME_REFUSED = failing(400, "Unsupported MIME type: jsonl")


async def test_a_refused_mime_type_is_tried_once_more_under_the_other_name(tmp_path: Path) -> None:
    uploaded, script = await upload_to(tmp_path, MIME_REFUSED, started(), finalized())
    assert uploaded.name == "files/abc"
    types = [request.headers["x-goog-upload-header-content-type"] for request in script.requests[:2]]
    assert types == ["jsonl", "application/jsonl"]
    assert json.loads(script.requests[1].content)["file"]["mime_type"] == "application/jsonl"


async def test_a_mime_type_refused_late_is_tried_again_only_with_bytes_that_can_be_read_again(tmp_path: Path) -> None:
    replies = (started(), MIME_REFUSED, answer({}), started(), finalized())
    uploaded, _ = await upload_to(tmp_path, *replies, source=io.BytesIO(b"abc"))
    assert uploaded.name == "files/abc"
    error, script = await upload_to(tmp_path, *replies)
    assert type(error) is Rejected and "could be read only once" in error.next_step
    assert methods(script) == ["POST start", "POST upload, finalize", "POST cancel"]


@pytest.mark.parametrize(
    ("reply", "options"), [(MIME_REFUSED, {"mime_type": "text/plain"}), (failing(400, "no such quota project"), {})]
)
async def test_other_refusals_of_an_upload_are_final(tmp_path: Path, reply: Any, options: dict[str, Any]) -> None:
    error, script = await upload_to(tmp_path, reply, **options)
    assert type(error) is Rejected
    assert len(script.requests) == 1
