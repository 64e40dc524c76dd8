"""Faults that wait for requests, in process and on a port: what a client sees, and what has happened behind it."""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import httpx2
import pytest

from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.sandbox.api.faults import ROUTES
from gemini_batch_mcp.sandbox.api.guard import RequestLog
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import OnCommand, SandboxConfig
from support.extent import few
from support.services import (
    MODEL,
    Way,
    create_from,
    download,
    generate_line,
    generate_lines,
    get_json,
    raw,
    reach,
    start_upload,
    upload,
)

pytestmark = pytest.mark.anyio

#: What a client of httpx2 raises when a peer goes away.
BROKEN = (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError)
METHOD = f"/v1beta/models/{MODEL}:batchGenerateContent"


@pytest.fixture(params=["process", "port"])
def way(request: pytest.FixtureRequest) -> Way:
    return "port" if request.param == "port" else "process"


async def finished_file(sandbox: Sandbox, http: httpx2.AsyncClient, rows: int = 20) -> str:
    """Return the result file of a job that has ended."""
    name = await create_from(http, generate_lines(rows))
    sandbox.finish(name)
    return f"files/batch-{name.removeprefix('batches/')}"


async def test_a_refusal_comes_without_effect_or_after_it(sandbox: Sandbox, way: Way) -> None:
    async with reach(sandbox, way) as (_, http):
        body = {"batch": {"inputConfig": {"fileName": await upload(http, generate_lines(1))}}}
        sandbox.fail_next("batches.create", status=429, retry_after=7)
        refused = await http.post(METHOD, json=body)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "7")
        assert refused.json()["error"]["status"] == "RESOURCE_EXHAUSTED"
        assert sandbox.creates == 0
        sandbox.fail_next("batches.create", status=500, when="after")
        assert (await http.post(METHOD, json=body)).status_code == 500
        assert sandbox.creates == 1
        assert (await http.post(METHOD, json=body)).status_code == 200
    assert [request.status for request in sandbox.requests if request.route == "batches.create"] == [429, 500, 200]


async def test_a_refusal_may_be_any_body_for_some_requests_in_a_row(sandbox: Sandbox) -> None:
    async with raw(sandbox) as http:
        sandbox.fail_next("models.list", status=418, body={"tea": "pot"}, headers={"x-kind": "odd"}, skip=1, times=2)
        replies = [await http.get("/v1beta/models") for _ in range(4)]
    assert [reply.status_code for reply in replies] == [200, 418, 418, 200]
    assert replies[1].json() == {"tea": "pot"}
    assert replies[1].headers["x-kind"] == "odd"


async def test_a_chunk_can_be_refused_as_if_it_had_been_taken(sandbox: Sandbox) -> None:
    async with raw(sandbox) as http:
        session = await start_upload(http, 3)
        sandbox.fail_next("files.finalize", status=503, headers={"x-goog-upload-status": "active"})
        headers = {"X-Goog-Upload-Command": "upload, finalize", "X-Goog-Upload-Offset": "0"}
        lost = await http.post(session, content=b"abc", headers=headers)
        assert (lost.status_code, lost.headers["x-goog-upload-status"]) == (503, "active")
        query = await http.post(session, headers={"X-Goog-Upload-Command": "query"})
        assert query.headers["x-goog-upload-size-received"] == "0"


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_cut_create_has_no_effect_or_all_of_it(sandbox: Sandbox, way: Way, when: str) -> None:
    async with reach(sandbox, way) as (_, http):
        body = {"batch": {"inputConfig": {"fileName": await upload(http, generate_lines(1))}}}
        sandbox.cut_next("batches.create", "before" if when == "before" else "after")
        with pytest.raises(BROKEN):
            await http.post(METHOD, json=body)
        assert sandbox.creates == (when == "after")
        assert (await http.post(METHOD, json=body)).status_code == 200
    assert sandbox.requests[-2].status == 0


@pytest.mark.parametrize("at_byte", [0, 1, 1000])
async def test_a_download_can_be_cut_at_any_byte(sandbox: Sandbox, way: Way, at_byte: int) -> None:
    async with reach(sandbox, way) as (_, http):
        name = await finished_file(sandbox, http)
        whole = await download(http, name)
        sandbox.cut_next("files.download", at_byte=at_byte)
        received = b""
        with pytest.raises(BROKEN):
            async with http.stream("GET", f"/v1beta/{name}:download?alt=media") as reply:
                assert reply.headers["content-length"] == str(len(whole))
                async for piece in reply.aiter_bytes():
                    received += piece
        assert received == whole[:at_byte]
        assert await download(http, name) == whole


async def test_a_download_can_end_early_although_http_says_it_is_whole(sandbox: Sandbox, way: Way) -> None:
    async with reach(sandbox, way) as (_, http):
        name = await finished_file(sandbox, http)
        whole = await download(http, name)
        sandbox.shorten_next("files.download", at_byte=777)
        assert await download(http, name) == whole[:777]
        sandbox.shorten_next("files.download", at_byte=10**9)
        assert await download(http, name) == whole


@few(5)
@pytest.mark.parametrize(("at_line", "at_byte"), [(0, 0), (7, 0), (7, 25), (20, 0), (99, 5)])
async def test_a_download_can_end_early_at_a_line_or_inside_one(
    sandbox: Sandbox, way: Way, at_line: int, at_byte: int
) -> None:
    async with reach(sandbox, way) as (_, http):
        name = await finished_file(sandbox, http)
        lines = (await download(http, name)).splitlines(keepends=True)
        sandbox.shorten_next("files.download", at_line=at_line, at_byte=at_byte)
        assert await download(http, name) == b"".join(lines[:at_line]) + b"".join(lines[at_line:])[:at_byte]
        assert await download(http, name) == b"".join(lines)


async def test_a_page_can_come_in_place_of_a_reply(sandbox: Sandbox, way: Way) -> None:
    async with reach(sandbox, way) as (_, http):
        name = await finished_file(sandbox, http)
        sandbox.page_next("files.download", "<p>Sign in</p>", times=2)
        for _ in range(2):
            reply = await http.get(f"/v1beta/{name}:download?alt=media")
            assert (reply.status_code, reply.text) == (200, "<p>Sign in</p>")
            assert reply.headers["content-type"].startswith("text/html")
        assert (await download(http, name)).startswith(b"{")


async def test_an_output_and_counts_can_be_left_out_of_a_reply(sandbox: Sandbox, way: Way) -> None:
    async with reach(sandbox, way) as (_, http):
        name = (await finished_file(sandbox, http)).replace("files/batch-", "batches/")
        sandbox.omit_next("batches.get", "output", "response")
        sandbox.omit_next("batches.list", "batchStats")
        bare = await get_json(http, name)
        assert (bare["done"], "response" in bare, "output" in bare["metadata"]) == (True, False, False)
        (listed,) = (await get_json(http, "batches"))["operations"]
        assert "batchStats" not in listed["metadata"]
        assert (
            listed["response"]["responsesFile"] == (await get_json(http, name))["metadata"]["output"]["responsesFile"]
        )


async def test_a_chunk_can_be_cut_in_the_middle_and_sent_again(sandbox: Sandbox, way: Way) -> None:
    data = b"x" * 5_000_000
    async with reach(sandbox, way) as (_, http):
        session = await start_upload(http, len(data))
        headers = {"X-Goog-Upload-Command": "upload, finalize", "X-Goog-Upload-Offset": "0"}
        sandbox.cut_next("files.finalize", "before", at_byte=1_000_000)
        with pytest.raises(BROKEN):
            await http.post(session, content=data, headers=headers)
        query = await http.post(session, headers={"X-Goog-Upload-Command": "query"})
        assert query.headers["x-goog-upload-size-received"] == "0"
        assert (await http.post(session, content=data, headers=headers)).status_code == 200


async def test_a_lost_finalize_leaves_a_file(sandbox: Sandbox, way: Way) -> None:
    async with reach(sandbox, way) as (_, http):
        session = await start_upload(http, 3)
        headers = {"X-Goog-Upload-Command": "upload, finalize", "X-Goog-Upload-Offset": "0"}
        sandbox.cut_next("files.finalize")
        with pytest.raises(BROKEN):
            await http.post(session, content=b"abc", headers=headers)
        query = await http.post(session, headers={"X-Goog-Upload-Command": "query"})
        assert query.headers["x-goog-upload-status"] == "final"
        (file,) = (await get_json(http, "files"))["files"]
        assert file["sizeBytes"] == "3"


async def test_a_client_that_gives_up_does_not_undo_a_create(sandbox: Sandbox, way: Way) -> None:
    async with reach(sandbox, way) as (_, http):
        body = {"batch": {"inputConfig": {"fileName": await upload(http, generate_lines(1))}}}
        sandbox.delay_next("batches.create", 0.2)
        with pytest.raises(httpx2.ReadTimeout):
            await http.post(METHOD, json=body, timeout=0.05)
        assert sandbox.creates == 0
        with anyio.fail_after(60):
            while sandbox.creates == 0:
                await get_json(http, "models")


async def test_a_delay_is_only_a_delay(sandbox: Sandbox) -> None:
    async with raw(sandbox) as http:
        sandbox.delay_next("models.list", 0.05)
        start = anyio.current_time()
        assert (await http.get("/v1beta/models")).status_code == 200
        assert anyio.current_time() - start >= 0.05


async def test_a_cancelled_request_leaves_a_body_alone_and_the_service_alive(sandbox: Sandbox) -> None:
    async with raw(sandbox) as http:
        name = await finished_file(sandbox, http, rows=5000)
        async with http.stream("GET", f"/v1beta/{name}:download?alt=media") as reply:
            async for _ in reply.aiter_raw():
                break
        assert len(await download(http, name)) > 1_000_000


async def test_a_large_download_waits_for_its_reader(sandbox: Sandbox) -> None:
    lines = b"".join(generate_line(f"r{n}", "[[sandbox:chars:1000000]]") + b"\n" for n in range(30))
    async with raw(sandbox) as http:
        job = await create_from(http, lines)
        sandbox.finish(job)
        path = f"/v1beta/files/batch-{job.removeprefix('batches/')}:download?alt=media"
        async with http.stream("GET", path) as reply:
            pieces = reply.aiter_raw()
            first = await anext(pieces)
            await anyio.wait_all_tasks_blocked()
            assert sandbox.requests[-1].response_bytes < 10 * len(first) < int(reply.headers["content-length"])
            assert sum([len(piece) async for piece in pieces]) + len(first) == int(reply.headers["content-length"])


async def test_a_broken_upload_body_changes_nothing(sandbox: Sandbox) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"x" * 2_000_000
        raise RuntimeError("the reader failed")

    async with raw(sandbox) as http:
        session = await start_upload(http, 3_000_000)
        headers = {"X-Goog-Upload-Command": "upload, finalize", "X-Goog-Upload-Offset": "0"}
        with pytest.raises(RuntimeError, match="the reader failed"):
            await http.post(session, content=body(), headers=headers)
        query = await http.post(session, headers={"X-Goog-Upload-Command": "query"})
        assert query.headers["x-goog-upload-size-received"] == "0"
        data = b"y" * 3_000_000
        assert (await http.post(session, content=data, headers=headers)).status_code == 200


async def test_a_client_that_disconnects_in_a_chunk_changes_nothing(sandbox: Sandbox) -> None:
    async with reach(sandbox, "port") as (base_url, http):
        session = await start_upload(http, 3_000_000)
        host, port = base_url.removeprefix("http://").split(":")
        path = session.removeprefix(base_url)
        stream = await anyio.connect_tcp(host, int(port))
        async with stream:
            head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 3000000\r\n"
            head += "X-Goog-Upload-Command: upload, finalize\r\nX-Goog-Upload-Offset: 0\r\n\r\n"
            await stream.send(head.encode() + b"x" * 1_500_000)
        query = await http.post(session, headers={"X-Goog-Upload-Command": "query"})
        assert query.headers["x-goog-upload-size-received"] == "0"
        headers = {"X-Goog-Upload-Command": "upload, finalize", "X-Goog-Upload-Offset": "0"}
        assert (await http.post(session, content=b"y" * 3_000_000, headers=headers)).status_code == 200


async def _cloud_replies(http: httpx2.AsyncClient) -> list[httpx2.Response]:
    place = "/v1beta1/projects/p/locations/global"
    objects = "/storage/v1/b/bucket/o"
    project = "/bigquery/v2/projects/p"
    table = f"{project}/datasets/d/tables/t"
    return [
        await http.post(f"{place}/batchPredictionJobs"),
        await http.get(f"{place}/batchPredictionJobs/1"),
        await http.get(f"{place}/batchPredictionJobs"),
        await http.post(f"{place}/batchPredictionJobs/1:cancel"),
        await http.delete(f"{place}/batchPredictionJobs/1"),
        await http.get("/v1beta1/publishers/google/models"),
        await http.post(f"{place}/publishers/google/models/a:countTokens"),
        await http.get("/storage/v1/b/bucket"),
        await http.get("/storage/v1/b/bucket/iam/testPermissions"),
        await http.post(f"/upload{objects}"),
        await http.put(f"/upload{objects}"),
        await http.get(f"{objects}/a/b"),
        await http.get(f"/download{objects}/a/b"),
        await http.get(objects),
        await http.delete(f"{objects}/a/b"),
        await http.post(f"{project}/jobs"),
        await http.get(f"{project}/jobs/1"),
        await http.get(f"{project}/queries/1"),
        await http.get(table),
        await http.patch(table),
        await http.delete(table),
    ]


async def test_every_route_can_be_hit_by_name(sandbox: Sandbox) -> None:
    for route in ROUTES:
        sandbox.fail_next(route, status=503)
    async with raw(sandbox) as http:
        session = "/upload/v1beta/files?upload_id=x"
        replies = [
            await http.post("/upload/v1beta/files"),
            await http.post(session, headers={"X-Goog-Upload-Command": "upload"}),
            await http.post(session, headers={"X-Goog-Upload-Command": "finalize, upload"}),
            await http.post(session, headers={"X-Goog-Upload-Command": "query"}),
            await http.post(session, headers={"X-Goog-Upload-Command": "cancel"}),
            await http.get("/v1beta/files/a"),
            await http.get("/v1beta/files"),
            await http.delete("/v1beta/files/a"),
            await http.get("/v1beta/files/a:download"),
            await http.post(METHOD),
            await http.get("/v1beta/batches/a"),
            await http.get("/v1beta/batches"),
            await http.post("/v1beta/batches/a:cancel"),
            await http.delete("/v1beta/batches/a"),
            await http.patch("/v1beta/batches/a:updateEmbedContentBatch"),
            await http.get("/v1beta/models"),
            await http.get("/v1beta/models/a"),
            await http.post("/v1beta/models/a:countTokens"),
            await http.post("/v1beta/models/a:generateContent"),
            await http.post("/v1beta/models/a:batchEmbedContents"),
            *await _cloud_replies(http),
        ]
    assert [reply.status_code for reply in replies] == [503] * len(ROUTES)
    assert [request.route for request in sandbox.requests] == list(ROUTES)
    assert sandbox.faults.waiting == ()


def test_a_fault_that_cannot_happen_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(UsageError, match="no sandbox route 'files'"):
        sandbox.delay_next("files", 1)
    with pytest.raises(UsageError, match="cannot come 'later'"):
        sandbox.cut_next("files.get", "later")  # type: ignore[arg-type]  # on purpose


async def test_a_server_that_cannot_cut_says_so(sandbox: Sandbox) -> None:
    sandbox.cut_next("models.list")
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(sandbox.app),
        base_url="http://sandbox",
        headers={"x-goog-api-key": "k"},
    ) as http:
        with pytest.raises(ConnectionAbortedError):
            await http.get("/v1beta/models")


async def test_a_fault_of_our_own_is_loud_in_process(tmp_path: Path) -> None:
    def broken() -> int:
        raise LookupError("a clock that fails")

    with Sandbox(tmp_path, SandboxConfig(pace=OnCommand(), clock_ns=broken)) as sandbox:
        async with raw(sandbox) as http:
            with pytest.raises(LookupError, match="a clock that fails"):
                await http.get("/v1beta/files")


async def test_a_transport_can_be_closed_while_requests_wait(sandbox: Sandbox) -> None:
    sandbox.delay_next("models.list", 60)
    http = raw(sandbox)
    with pytest.raises(httpx2.ReadTimeout):
        await http.get("/v1beta/models", timeout=0.01)
    with anyio.fail_after(60):
        await http.aclose()


def test_the_record_of_requests_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gemini_batch_mcp.sandbox.api.guard._MAX_RECORDED", 3)
    log = RequestLog()
    for number in range(5):
        scope = {"method": "GET", "path": f"/{number}", "query_string": b"", "headers": []}
        log.add(scope, "models.list")
    assert [request.path for request in log.requests] == ["/2", "/3", "/4"]
