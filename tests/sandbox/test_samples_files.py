"""The sandbox against the wire samples from 40 on: files, lines, tokens, and what is out of scope."""

import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from google import genai

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.lifecycle.lines import check_line
from support.samples import SAMPLES
from support.services import (
    EMBEDDING_MODEL,
    MODEL,
    Stage,
    assert_same_shape,
    create_from,
    download_lines,
    embed_job,
    generate_line,
    get_json,
    raw,
    sdk,
    start_upload,
    upload,
)

pytestmark = pytest.mark.anyio

#: Samples of services that the sandbox does not imitate; a request to them is a 404 that is remembered.
OUT_OF_SCOPE = {
    "46": "files:register reads buckets with a Google account; API keys cannot use it",
    "47": "reply of files:register",
    "60": "webhooks: nothing is delivered, and a local server has no public address",
    "61": "reply of webhooks.create",
    "62": "headers of webhook events",
    "63": "webhook event",
    "64": "webhook event",
    "65": "webhook event",
    "66": "webhook event",
    "76": "OpenAI-compatible batches are another API on the same host",
    "80": "Vertex AI",
    "81": "Vertex AI",
    "82": "Vertex AI",
    "83": "Vertex AI",
    "84": "Vertex AI",
    "85": "Vertex AI",
    "86": "Vertex AI",
}

Check = Callable[[Stage, Any], Awaitable[None]]


async def agrees_40(stage: Stage, sample: Any) -> None:
    stage.open()
    headers = sample["headers"] | {"x-goog-api-key": "test-key"}
    reply = await stage.http.request(sample["method"], sample["path"], headers=headers, json=sample["body"])
    assert reply.status_code == 200, reply.text


async def agrees_41(stage: Stage, sample: Any) -> None:
    stage.open()
    start = json.loads((SAMPLES / "40-upload-start.request.json").read_text(encoding="utf-8"))
    headers = start["headers"] | {"x-goog-api-key": "test-key"}
    reply = await stage.http.post(start["path"], headers=headers, json=start["body"])
    assert (reply.status_code, reply.text) == (sample["status"], sample["body"])
    for name in ("X-Goog-Upload-Status", "X-Goog-Upload-Chunk-Granularity"):
        assert reply.headers[name] == sample["headers"][name]
    expected = sample["headers"]["X-Goog-Upload-URL"].replace("https://generativelanguage.googleapis.com", "")
    assert re.fullmatch(
        re.escape(expected).replace("EXAMPLE", r"\w+"),
        reply.headers["X-Goog-Upload-URL"].removeprefix("http://sandbox"),
    )


async def upload_in_chunks(stage: Stage) -> dict[str, Any]:
    session = await start_upload(stage.http, 20 * 1024**2)
    chunks = json.loads((SAMPLES / "42-upload-chunks.requests.json").read_text(encoding="utf-8"))
    for chunk in chunks:
        reply = await stage.http.post(session, headers=chunk, content=b"x" * int(chunk["Content-Length"]))
        assert reply.status_code == 200, reply.text
        status = "final" if "finalize" in chunk["X-Goog-Upload-Command"] else "active"
        assert reply.headers["x-goog-upload-status"] == status
    return dict(reply.json())


async def agrees_42(stage: Stage, sample: Any) -> None:
    sandbox = stage.open()
    await upload_in_chunks(stage)
    assert [request.route for request in sandbox.requests[1:]] == ["files.chunk", "files.chunk", "files.finalize"]


async def agrees_43(stage: Stage, sample: Any) -> None:
    stage.open()
    file = await upload_in_chunks(stage)
    assert_same_shape(file, sample)
    assert file["file"]["sizeBytes"] == sample["file"]["sizeBytes"]


async def listed_files(stage: Stage) -> dict[str, Any]:
    sandbox = stage.open()
    sandbox.finish(await stage.job(2))
    return await get_json(stage.http, "files")


async def agrees_44(stage: Stage, sample: Any) -> None:
    (generated,) = [one for one in (await listed_files(stage))["files"] if one["source"] == "GENERATED"]
    assert_same_shape(generated, sample)


async def agrees_45(stage: Stage, sample: Any) -> None:
    page = await listed_files(stage)
    del sample["nextPageToken"]  # empty members are omitted in proto-JSON
    page["files"].sort(key=lambda one: one["source"], reverse=True)
    assert_same_shape(page, sample)


async def lines_accepted(stage: Stage, sample: bytes, task: str) -> None:
    stage.open()
    model, method = (
        (MODEL, "batchGenerateContent") if task == "generate" else (EMBEDDING_MODEL, "asyncBatchEmbedContent")
    )
    body = {"batch": {"input_config": {"file_name": await upload(stage.http, sample)}}}
    reply = await stage.http.post(f"/v1beta/models/{model}:{method}", json=body)
    assert reply.status_code == 200, reply.text
    assert reply.json()["metadata"]["batchStats"]["requestCount"] == str(sample.count(b"\n"))


async def generate_lines_accepted(stage: Stage, sample: bytes) -> None:
    await lines_accepted(stage, sample, "generate")


async def agrees_53(stage: Stage, sample: bytes) -> None:
    await lines_accepted(stage, sample, "embed")


async def agrees_54(stage: Stage, sample: bytes) -> None:
    stage.open()
    for line in sample.splitlines():
        assert check_line(line, "generate") is not None
        body = {"batch": {"input_config": {"file_name": await upload(stage.http, line)}}}
        reply = await stage.http.post(f"/v1beta/models/{MODEL}:batchGenerateContent", json=body)
        assert reply.status_code == 400
        assert reply.json()["error"]["message"].startswith("Error on line 1: invalid JSON, near column ")


async def agrees_55(stage: Stage, sample: bytes) -> None:
    sandbox = stage.open()
    schema = {"type": "OBJECT", "properties": {"label": {"type": "STRING"}}, "required": ["label"]}
    config = {"responseMimeType": "application/json", "responseSchema": schema}
    markers = ("", "[[sandbox:error:3]]", "[[sandbox:blocked]]", "[[sandbox:max_tokens]]", "[[sandbox:safety]]")
    lines = [
        generate_line(f"row-{number}", f"Note. {mark}", generationConfig=config) for number, mark in enumerate(markers)
    ]
    lines.append(generate_line("row-6", "[[sandbox:no_key]]"))
    name = await create_from(stage.http, b"\n".join(lines))
    sandbox.finish(name)
    ours = await download_lines(stage.http, await get_json(stage.http, name))
    samples = [json.loads(line) for line in sample.splitlines()]
    assert len(ours) == len(samples)
    for mine, theirs in zip(ours, samples, strict=True):
        assert_same_shape(mine, theirs)
    assert json.loads(ours[0]["response"]["candidates"][0]["content"]["parts"][0]["text"]).keys() == {"label"}
    assert list(ours[0]) == ["response", "key"]


async def agrees_56(stage: Stage, sample: bytes) -> None:
    sandbox = stage.open()
    requests = [
        {"key": key, "request": {"content": {"parts": [{"text": text}]}, "outputDimensionality": 3}}
        for key, text in (("e1", "ferry"), ("e2", "bus [[sandbox:error:3]]"))
    ]
    lines = b"\n".join(json.dumps(request).encode() for request in requests)
    name = await embed_job(stage, {"file_name": await upload(stage.http, lines)})
    sandbox.finish(name)
    ours = await download_lines(stage.http, await get_json(stage.http, name))
    for mine, theirs in zip(ours, map(json.loads, sample.splitlines()), strict=True):
        assert_same_shape(mine, theirs)


async def agrees_57(stage: Stage, sample: bytes) -> None:
    sandbox = stage.open()
    name = await create_from(stage.http, (SAMPLES / "52-input-image.jsonl").read_bytes())
    sandbox.finish(name)
    (ours,) = await download_lines(stage.http, await get_json(stage.http, name))
    del ours["response"]["usageMetadata"]["thoughtsTokenCount"]  # the sample's model did not think
    assert_same_shape(ours, json.loads(sample))


async def count_tokens(stage: Stage, sample: Any) -> dict[str, Any]:
    stage.open()
    reply = await stage.http.post(f"/v1beta/models/{MODEL}:countTokens", json=sample)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


async def agrees_70(stage: Stage, sample: Any) -> None:
    assert (await count_tokens(stage, sample))["totalTokens"] == 4


async def agrees_71(stage: Stage, sample: Any) -> None:
    assert (await count_tokens(stage, sample))["totalTokens"] == 10


async def agrees_72(stage: Stage, sample: Any) -> None:
    request = json.loads((SAMPLES / "70-count-tokens.request.json").read_text(encoding="utf-8"))
    assert_same_shape(await count_tokens(stage, request), sample)


async def agrees_75(stage: Stage, sample: bytes) -> None:
    stage.open()
    assert "no such field: 'custom_id'" in (check_line(sample.strip(), "generate") or "")


async def sdk_view(sandbox: Sandbox, name: str) -> genai.types.BatchJob:
    async with sdk(sandbox) as client:
        return await client.batches.get(name=name)


async def agrees_90(stage: Stage, sample: Any) -> None:
    sandbox = stage.open()
    name = await stage.job(10)
    sandbox.advance(name)
    assert_same_shape((await sdk_view(sandbox, name)).model_dump(mode="json", exclude_none=True), sample)


async def agrees_91(stage: Stage, sample: Any) -> None:
    sandbox = stage.open()
    name = await stage.job(10)
    sandbox.finish(name, "FAILED")
    assert_same_shape((await sdk_view(sandbox, name)).model_dump(mode="json", exclude_none=True), sample)


CHECKS: dict[str, Check] = {
    **{name.removeprefix("agrees_"): check for name, check in list(globals().items()) if name.startswith("agrees_")},
    "50": generate_lines_accepted,
    "51": generate_lines_accepted,
    "52": generate_lines_accepted,
}
NAMES = sorted(
    path.name for path in SAMPLES.iterdir() if "40" <= path.name < "INDEX" and path.name[:2] not in OUT_OF_SCOPE
)


def test_every_sample_out_of_scope_exists_and_is_checked_nowhere() -> None:
    numbers = {path.name[:2] for path in SAMPLES.iterdir()}
    assert numbers >= OUT_OF_SCOPE.keys()
    assert not OUT_OF_SCOPE.keys() & CHECKS.keys()


@pytest.mark.parametrize("name", NAMES)
async def test_the_sandbox_agrees_with_the_sample(name: str, tmp_path: Path) -> None:
    assert name[:2] in CHECKS, "a sample that is neither checked nor out of scope"
    path = SAMPLES / name
    text = path.read_bytes()
    stage = Stage(tmp_path / "service")
    try:
        await CHECKS[name[:2]](stage, json.loads(text) if path.suffix == ".json" else text)
        assert stage.sandbox.unknown_requests == ()
    finally:
        await stage.close()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1beta/files:register"),
        ("POST", "/v1/webhooks"),
        ("POST", "/v1beta/openai/batches"),
        ("POST", "/v1beta1/projects/p/locations/global/customJobs"),
        ("POST", f"/v1beta/models/{MODEL}:streamGenerateContent"),
    ],
)
async def test_services_out_of_scope_are_404_and_remembered(method: str, path: str, tmp_path: Path) -> None:
    with Sandbox(tmp_path) as sandbox:
        async with raw(sandbox) as http:
            reply = await http.request(method, path, json={})
        assert reply.status_code == 404
        assert reply.json()["error"]["status"] == "NOT_FOUND"
        assert [(request.method, request.path) for request in sandbox.unknown_requests] == [(method, path)]
