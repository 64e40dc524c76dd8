"""Creates of the sandbox: what their bodies may say, which models and quotas they meet, and their files."""

import json
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import ByTime, OnCommand, SandboxConfig
from support.services import (
    EMBEDDING_MODEL,
    MODEL,
    Clock,
    create,
    create_from,
    download_lines,
    generate_line,
    generate_lines,
    get_json,
    raw,
    upload,
)

pytestmark = pytest.mark.anyio

METHOD = f"/v1beta/models/{MODEL}:batchGenerateContent"
REQUEST = {"contents": [{"parts": [{"text": "hi"}]}]}
ONE_INLINE = {"requests": {"requests": [{"request": REQUEST}]}}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "needs one of file_name and requests"),
        ({"batch": {}}, "needs one of file_name and requests"),
        ({"batch": []}, "Invalid value at 'batch'"),
        ({"batch": {"inputConfig": {"fileName": "files/a", "requests": {}}}}, "needs one of"),
        ({"batch": {"inputConfig": {"fileName": 5}}}, "batch.input_config.file_name"),
        ({"batch": {"inputConfig": {"fileUri": "files/a"}}}, "Unknown name \"fileUri\" at 'batch.input_config'"),
        ({"requests": []}, 'Unknown name "requests"'),
        ({"batch": {"inputConfig": {"requests": {"requests": []}}}}, "at least one inlined request"),
        ({"batch": {"inputConfig": {"requests": {"requests": [{"request": {}}]}}}}, "missing field: 'contents'"),
        ({"batch": {"inputConfig": {"requests": {"requests": [{"request": 5}]}}}}, "expected an object"),
        (
            {"batch": {"inputConfig": {"requests": {"requests": [{"request": REQUEST, "metadata": "a"}]}}}},
            "requests[0].metadata",
        ),
        (
            {"batch": {"inputConfig": {"requests": {"requests": [{"request": REQUEST, "key": "a"}]}}}},
            "Unknown name \"key\" at 'batch.input_config.requests.requests[0]'",
        ),
        (
            {"batch": {"priority": "high", "inputConfig": {"requests": {"requests": [{"request": REQUEST}]}}}},
            "priority",
        ),
        ({"batch": {"priority": True, "inputConfig": ONE_INLINE}}, "priority"),
        ({"batch": {"displayName": 5, "inputConfig": {"fileName": "files/a"}}}, "batch.display_name"),
        ({"batch": {"webhookConfig": {"url": "x"}, "inputConfig": {"fileName": "files/a"}}}, 'Unknown name "url"'),
    ],
)
async def test_a_create_with_a_bad_body_is_refused_with_the_place(
    sandbox: Sandbox, body: dict[str, Any], says: str
) -> None:
    async with raw(sandbox) as http:
        reply = await http.post(METHOD, json=body)
    assert reply.status_code == 400
    assert says in reply.json()["error"]["message"]
    assert sandbox.creates == 0


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff"])
async def test_a_body_that_is_no_json_object_is_refused(sandbox: Sandbox, body: bytes) -> None:
    async with raw(sandbox) as http:
        assert (await http.post(METHOD, content=body)).status_code == 400


async def test_both_spellings_mean_the_same_at_every_level(sandbox: Sandbox) -> None:
    camel = {
        "batch": {
            "displayName": "a",
            "priority": 7,
            "inputConfig": {
                "requests": {"requests": [{"request": {**REQUEST, "generationConfig": {"maxOutputTokens": 5}}}]}
            },
        }
    }
    snake = {
        "batch": {
            "display_name": "a",
            "priority": "7",
            "input_config": {
                "requests": {"requests": [{"request": {**REQUEST, "generation_config": {"max_output_tokens": "5"}}}]}
            },
        }
    }
    async with raw(sandbox) as http:
        operations = [(await http.post(METHOD, json=body)).json() for body in (camel, snake)]
        for operation in operations:
            sandbox.finish(operation["name"])
        metadata = [(await get_json(http, operation["name"]))["metadata"] for operation in operations]
    assert [one["displayName"] for one in metadata] == ["a", "a"]
    assert [one["priority"] for one in metadata] == ["7", "7"]
    finishes = [one["output"]["inlinedResponses"]["inlinedResponses"][0] for one in metadata]
    assert [one["response"]["candidates"][0]["finishReason"] for one in finishes] == ["MAX_TOKENS", "MAX_TOKENS"]


@pytest.mark.parametrize("model", ["unknown", EMBEDDING_MODEL, "gemini-live-sandbox"])
async def test_a_model_that_cannot_do_it_is_not_found(sandbox: Sandbox, model: str) -> None:
    async with raw(sandbox) as http:
        name = await upload(http, generate_lines(1))
        body = {"batch": {"inputConfig": {"fileName": name}}}
        reply = await http.post(f"/v1beta/models/{model}:batchGenerateContent", json=body)
        assert reply.status_code == 404
        assert (await http.get("/v1beta/models/unknown")).status_code == 404


async def test_an_inline_body_at_the_limit_is_refused(tmp_path: Path) -> None:
    body = json.dumps({"batch": {"inputConfig": ONE_INLINE}}).encode()
    with Sandbox(tmp_path, SandboxConfig(max_inline_bytes=len(body))) as sandbox:
        async with raw(sandbox) as http:
            reply = await http.post(METHOD, content=body)
            assert reply.status_code == 400
            assert "exceeds the limit" in reply.json()["error"]["message"]
    with Sandbox(tmp_path, SandboxConfig(max_inline_bytes=len(body) + 1)) as sandbox:
        async with raw(sandbox) as http:
            assert (await http.post(METHOD, content=body)).status_code == 200


async def test_the_first_bad_line_rejects_the_whole_create(sandbox: Sandbox) -> None:
    data = generate_lines(3) + b'{"key":"x","request":{"contents":[],"config":{}}}\n' + generate_lines(2)
    async with raw(sandbox) as http:
        body = {"batch": {"inputConfig": {"fileName": await upload(http, data)}}}
        reply = await http.post(METHOD, json=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["message"].startswith("Error on line 4: invalid JSON, near column ")
    assert sandbox.creates == 0


async def test_the_hundred_and_first_active_job_is_refused_until_one_ends(tmp_path: Path) -> None:
    with Sandbox(tmp_path, SandboxConfig(pace=OnCommand(), max_active_jobs=3)) as sandbox:
        async with raw(sandbox) as http:
            file_name = await upload(http, generate_lines(1))
            names = [(await create(http, file_name))["name"] for _ in range(3)]
            body = {"batch": {"inputConfig": {"fileName": file_name}}}
            refused = await http.post(METHOD, json=body)
            assert refused.status_code == 429
            assert refused.json()["error"]["status"] == "RESOURCE_EXHAUSTED"
            sandbox.finish(names[0])
            await create(http, file_name)
            assert sandbox.creates == 4


async def test_enqueued_tokens_are_held_until_the_job_ends(tmp_path: Path) -> None:
    data = generate_lines(10)
    limit = {MODEL: len(data) // 4}
    with Sandbox(tmp_path, SandboxConfig(pace=OnCommand(), max_enqueued_tokens=limit)) as sandbox:
        async with raw(sandbox) as http:
            first = await create_from(http, data)
            body = {"batch": {"inputConfig": {"fileName": await upload(http, data)}}}
            assert (await http.post(METHOD, json=body)).status_code == 429
            other_model = METHOD.replace(MODEL, "gemini-3.7-flash")
            assert (await http.post(other_model, json=body)).status_code == 200
            sandbox.finish(first)
            assert (await http.post(METHOD, json=body)).status_code == 200


async def test_a_new_create_finds_the_places_of_jobs_whose_time_is_over(tmp_path: Path) -> None:
    clock = Clock()
    config = SandboxConfig(pace=ByTime(10), clock_ns=clock, max_active_jobs=1)
    with Sandbox(tmp_path, config) as sandbox:
        async with raw(sandbox) as http:
            file_name = await upload(http, generate_lines(1))
            await create(http, file_name)
            clock.pass_seconds(11)
            await create(http, file_name)
            assert sandbox.creates == 2


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"contents": "hi"},
        {"contents": [], "generateContentRequest": {}},
        {"generateContentRequest": 5},
        {"generate_content_request": {"contents": [{"parts": [{"txt": "hi"}]}]}},
    ],
)
async def test_tokens_are_counted_of_right_requests_only(sandbox: Sandbox, body: dict[str, Any]) -> None:
    async with raw(sandbox) as http:
        assert (await http.post(f"/v1beta/models/{MODEL}:countTokens", json=body)).status_code == 400
        assert (await http.post("/v1beta/models/unknown:countTokens", json=body)).status_code == 404


async def test_other_requests_are_answered_while_a_large_file_is_read(sandbox: Sandbox) -> None:
    data = b"\n".join([generate_line("k", "x" * 200, generationConfig={"seed": number}) for number in range(3000)])
    order: list[str] = []
    async with raw(sandbox) as http:
        file_name = await upload(http, data)

        async def long_create() -> None:
            await create(http, file_name)
            order.append("create")

        async def short_read() -> None:
            await get_json(http, "models?pageSize=1")
            order.append("read")

        async with anyio.create_task_group() as group:
            group.start_soon(long_create)
            while sandbox.requests[-1].route != "batches.create":
                await anyio.lowlevel.checkpoint()
            group.start_soon(short_read)
    assert order == ["read", "create"]


async def test_rows_are_copied_where_files_cannot_be_linked(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    async with raw(sandbox) as http:
        name = await create_from(http, generate_lines(3))
        sandbox.finish(name)
        assert len(await download_lines(http, await get_json(http, name))) == 3
