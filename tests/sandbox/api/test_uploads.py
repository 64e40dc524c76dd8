"""Uploads and files, request by request: offsets, sizes, sessions, names, limits, time."""

import base64
import hashlib
from pathlib import Path

import httpx2
import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import LIFETIME_SECONDS, SandboxConfig
from support.services import MODEL, Clock, create_from, generate_lines, get_json, raw, start_upload, upload

pytestmark = pytest.mark.anyio

CHUNK = 8 * 1024**2


async def send(
    http: httpx2.AsyncClient, session: str, command: str, offset: int = 0, data: bytes = b""
) -> httpx2.Response:
    headers = {"X-Goog-Upload-Command": command, "X-Goog-Upload-Offset": str(offset)}
    return await http.post(session, content=data, headers=headers)


async def test_an_interrupted_upload_goes_on_where_a_query_says(sandbox: Sandbox) -> None:
    data = b"x" * CHUNK + b"y" * 100
    async with raw(sandbox) as http:
        session = await start_upload(http, len(data))
        await send(http, session, "upload", 0, data[:CHUNK])
        query = await send(http, session, "query")
        assert query.headers["x-goog-upload-status"] == "active"
        received = int(query.headers["x-goog-upload-size-received"])
        assert received == CHUNK
        final = await send(http, session, "upload, finalize", received, data[received:])
        assert final.headers["x-goog-upload-status"] == "final"
        file = final.json()["file"]
        assert file["sizeBytes"] == str(len(data))
        assert base64.b64decode(file["sha256Hash"]).decode() == hashlib.sha256(data).hexdigest()
        assert (await send(http, session, "query")).headers["x-goog-upload-status"] == "final"


async def test_a_session_may_be_finalized_without_more_bytes(sandbox: Sandbox) -> None:
    async with raw(sandbox) as http:
        session = await start_upload(http, CHUNK)
        await send(http, session, "upload", 0, b"x" * CHUNK)
        assert (await send(http, session, "finalize")).json()["file"]["sizeBytes"] == str(CHUNK)


@pytest.mark.parametrize(
    ("offset", "size", "command", "says"),
    [
        (5, 10, "upload, finalize", "offset 5 does not match the 0 bytes"),
        (0, 100, "upload", "not a multiple of 8388608"),
        (0, 101, "upload, finalize", "More than the 100 bytes"),
        (0, 2 * 1024**2, "upload, finalize", "More than the 100 bytes"),
    ],
)
async def test_a_chunk_that_does_not_fit_is_refused_and_changes_nothing(
    sandbox: Sandbox, offset: int, size: int, command: str, says: str
) -> None:
    async with raw(sandbox) as http:
        session = await start_upload(http, 100)
        reply = await send(http, session, command, offset, b"x" * size)
        assert reply.status_code == 400
        assert says in reply.json()["error"]["message"]
        assert reply.headers["x-goog-upload-status"] == "active"
        assert reply.headers["x-goog-upload-size-received"] == "0"
        assert (await send(http, session, "upload, finalize", 0, b"y" * 100)).status_code == 200


async def test_a_wrong_size_at_finalize_ends_the_session(sandbox: Sandbox) -> None:
    async with raw(sandbox) as http:
        session = await start_upload(http, 100)
        reply = await send(http, session, "upload, finalize", 0, b"x" * 99)
        assert reply.status_code == 400
        assert "99 bytes received, 100 declared" in reply.json()["error"]["message"]
        again = await send(http, session, "upload, finalize", 99, b"x")
        assert again.status_code == 400
        assert "is final" in again.json()["error"]["message"]
        assert "files" not in await get_json(http, "files")


async def test_a_cancelled_session_takes_nothing_more(sandbox: Sandbox) -> None:
    async with raw(sandbox) as http:
        session = await start_upload(http, 100)
        assert (await send(http, session, "cancel")).headers["x-goog-upload-status"] == "cancelled"
        assert (await send(http, session, "upload, finalize", 0, b"x" * 100)).status_code == 400
        assert list((sandbox.state.directory / "uploads").iterdir()) == []


async def test_a_size_need_not_be_declared(sandbox: Sandbox) -> None:
    async with raw(sandbox) as http:
        session = await start_upload(http, -1)
        assert (await send(http, session, "upload, finalize", 0, b"x" * 50)).json()["file"]["sizeBytes"] == "50"


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"X-Goog-Upload-Protocol": "multipart"}, "Only resumable"),
        ({"X-Goog-Upload-Command": "upload"}, "begins with the command start"),
        ({"X-Goog-Upload-Header-Content-Length": "many"}, "Invalid content length"),
        ({"X-Goog-Upload-Header-Content-Type": ""}, "MIME type"),
        ({"X-Goog-Upload-Header-Content-Length": "2000000001"}, "over the limit of 2000000000"),
    ],
)
async def test_a_start_that_makes_no_sense_is_refused(sandbox: Sandbox, headers: dict[str, str], says: str) -> None:
    usual = {
        "X-Goog-Upload-Protocol": "resumable",
        "X-Goog-Upload-Command": "start",
        "X-Goog-Upload-Header-Content-Length": "10",
        "X-Goog-Upload-Header-Content-Type": "jsonl",
    }
    async with raw(sandbox) as http:
        reply = await http.post("/upload/v1beta/files", headers=usual | headers, json={})
    assert reply.status_code == 400
    assert says in reply.json()["error"]["message"]


@pytest.mark.parametrize("file", ["text", {"displayName": 5}])
async def test_a_file_member_of_the_wrong_type_is_refused(sandbox: Sandbox, file: object) -> None:
    headers = {"X-Goog-Upload-Protocol": "resumable", "X-Goog-Upload-Command": "start"}
    async with raw(sandbox) as http:
        reply = await http.post("/upload/v1beta/files", headers=headers, json={"file": file})
    assert reply.status_code == 400


@pytest.mark.parametrize("command", ["", "jump"])
async def test_an_unknown_command_to_a_session_is_refused(sandbox: Sandbox, command: str) -> None:
    async with raw(sandbox) as http:
        session = await start_upload(http, 10)
        reply = await send(http, session, command)
        assert "Unknown upload command" in reply.json()["error"]["message"]
        assert (await send(http, session, "upload", "x")).status_code == 400  # type: ignore[arg-type]  # no number
        lost = session.replace("upload_id=", "upload_id=0")
        assert (await send(http, lost, "query")).status_code == 404


async def test_a_name_can_be_chosen_once(sandbox: Sandbox) -> None:
    headers = {
        "X-Goog-Upload-Protocol": "resumable",
        "X-Goog-Upload-Command": "start",
        "X-Goog-Upload-Header-Content-Length": "1",
    }
    async with raw(sandbox) as http:

        async def start(name: str) -> httpx2.Response:
            body = {"file": {"name": name, "mimeType": "text/plain"}}
            return await http.post("/upload/v1beta/files", headers=headers, json=body)

        opened = await start("files/my-file-1")
        reply = await send(http, opened.headers["x-goog-upload-url"], "upload, finalize", 0, b"x")
        assert reply.json()["file"]["name"] == "files/my-file-1"
        assert reply.json()["file"]["mimeType"] == "text/plain"
        assert (await start("files/my-file-1")).status_code == 409
        for bad in ("Upper", "-a", "a-", "a_b", "a" * 41, "é"):
            assert (await start(bad)).status_code == 400


async def test_chunk_requests_need_no_key_and_every_other_request_does(sandbox: Sandbox) -> None:
    async with raw(sandbox) as http, raw(sandbox, key="") as keyless:
        session = await start_upload(http, 1)
        assert (await send(keyless, session, "upload, finalize", 0, b"x")).status_code == 200
        assert (await keyless.get("/v1beta/files")).status_code == 403
        assert (await keyless.get("/v1beta/files?key=in-the-query")).status_code == 200
        assert sandbox.requests[-1].query == "key=***"


@pytest.mark.parametrize(
    ("key", "status", "name"),
    [
        ("", 403, "PERMISSION_DENIED"),
        ("forbidden-key", 403, "PERMISSION_DENIED"),
        ("unauthorized-key", 401, "UNAUTHENTICATED"),
        ("invalid-key", 400, "INVALID_ARGUMENT"),
    ],
)
async def test_a_key_that_is_no_good_is_refused_as_google_does(
    sandbox: Sandbox, key: str, status: int, name: str
) -> None:
    async with raw(sandbox, key) as http:
        reply = await http.get("/v1beta/models")
    assert reply.status_code == status
    assert reply.json()["error"]["status"] == name
    assert (status == 400) == ("API_KEY_INVALID" in reply.text)


async def test_only_configured_keys_are_accepted(tmp_path: Path) -> None:
    with Sandbox(tmp_path, SandboxConfig(accepted_keys=frozenset({"good"}))) as sandbox:
        async with raw(sandbox, "good") as http:
            assert (await http.get("/v1beta/models")).status_code == 200
        async with raw(sandbox, "bad") as http:
            assert (await http.get("/v1beta/models")).status_code == 400
        assert "good" not in repr(sandbox.requests)


async def test_uploads_vanish_after_48_hours_and_make_room(tmp_path: Path) -> None:
    clock = Clock()
    with Sandbox(tmp_path, SandboxConfig(clock_ns=clock, max_stored_bytes=150)) as sandbox:
        async with raw(sandbox) as http:
            name = await upload(http, b"x" * 100)
            headers = {
                "X-Goog-Upload-Protocol": "resumable",
                "X-Goog-Upload-Command": "start",
                "X-Goog-Upload-Header-Content-Length": "100",
                "X-Goog-Upload-Header-Content-Type": "jsonl",
            }
            full = await http.post("/upload/v1beta/files", headers=headers, json={})
            assert full.status_code == 429
            clock.pass_seconds(LIFETIME_SECONDS - 1)
            assert (await get_json(http, name))["expirationTime"]
            clock.pass_seconds(1)
            assert (await http.get(f"/v1beta/{name}")).status_code == 404
            assert await get_json(http, "files") == {}
            assert (await http.delete(f"/v1beta/{name}")).status_code == 404
            body = {"batch": {"inputConfig": {"fileName": name}}}
            refused = await http.post(f"/v1beta/models/{MODEL}:batchGenerateContent", json=body)
            assert refused.status_code == 404
            await upload(http, b"y" * 100)
            assert len(list((tmp_path / "files").iterdir())) == 1


async def test_a_file_limit_can_be_configured(tmp_path: Path) -> None:
    with Sandbox(tmp_path, SandboxConfig(max_file_bytes=10)) as sandbox:
        async with raw(sandbox) as http:
            session = await start_upload(http, -1)
            assert (await send(http, session, "upload, finalize", 0, b"x" * 11)).status_code == 400


async def test_uploaded_files_cannot_be_downloaded_and_result_files_can_on_both_paths(sandbox: Sandbox) -> None:
    async with raw(sandbox) as http:
        uploaded = await upload(http, generate_lines(2))
        assert (await http.get(f"/v1beta/{uploaded}:download?alt=media")).status_code == 403
        job = await create_from(http, generate_lines(2))
        sandbox.finish(job)
        result = f"files/batch-{job.removeprefix('batches/')}"
        one = await http.get(f"/v1beta/{result}:download?alt=media")
        other = await http.get(f"/download/v1beta/{result}:download?alt=media", headers={"Range": "bytes=5-"})
        assert one.content == other.content
        assert int(one.headers["content-length"]) == len(one.content)
        assert other.status_code == 200
        assert (await http.get(f"/v1beta/{result}:download")).status_code == 400
        sandbox.expire_file(result)
        assert (await http.get(f"/v1beta/{result}:download?alt=media")).status_code == 404
        with pytest.raises(Exception, match="not found"):
            sandbox.expire_file(result)


@pytest.mark.parametrize("query", ["pageSize=x", "pageSize=-1", "pageToken=%21", "pageToken=bm9uc2Vuc2U="])
async def test_a_page_that_makes_no_sense_is_refused(sandbox: Sandbox, query: str) -> None:
    async with raw(sandbox) as http:
        for path in ("files", "batches", "models"):
            assert (await http.get(f"/v1beta/{path}?{query}")).status_code == 400


async def test_any_api_version_is_accepted_and_recorded(sandbox: Sandbox) -> None:
    async with raw(sandbox) as http:
        assert (await http.get("/v7/files?page_size=3")).status_code == 200
    (request,) = sandbox.requests
    assert (request.version, request.route, request.status) == ("v7", "files.list", 200)
    assert request.headers["x-goog-api-key"] == "***"
