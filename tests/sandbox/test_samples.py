"""The sandbox against the wire samples 01 to 33: what it accepts, what it refuses, and the shape of its replies."""

import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gemini_batch_mcp.sandbox.config import RowFault
from support.samples import SAMPLES
from support.services import (
    EMBEDDING_MODEL,
    MODEL,
    Stage,
    assert_same_shape,
    embed_job,
    generate_line,
    generate_lines,
    get_json,
    upload,
)

pytestmark = pytest.mark.anyio


Check = Callable[[Stage, Any], Awaitable[None]]


async def create_accepts(stage: Stage, sample: Any, model: str, method: str, lines: bytes) -> None:
    stage.open()
    batch = sample["batch"]
    if "fileName" in batch["inputConfig"]:
        batch["inputConfig"]["fileName"] = await upload(stage.http, lines)
    reply = await stage.http.post(f"/v1beta/models/{model}:{method}", json=sample)
    assert reply.status_code == 200, reply.text
    metadata = reply.json()["metadata"]
    assert metadata["displayName"] == batch["displayName"]
    for member in ("priority", "webhookConfig"):
        assert metadata.get(member) == batch.get(member)


async def agrees_01(stage: Stage, sample: Any) -> None:
    await create_accepts(stage, sample, MODEL, "batchGenerateContent", generate_lines(2))


async def agrees_02(stage: Stage, sample: Any) -> None:
    await create_accepts(stage, sample, MODEL, "batchGenerateContent", b"")


async def agrees_03(stage: Stage, sample: Any) -> None:
    lines = (SAMPLES / "53-input-embed.jsonl").read_bytes()
    await create_accepts(stage, sample, EMBEDDING_MODEL, "asyncBatchEmbedContent", lines)


async def agrees_04(stage: Stage, sample: Any) -> None:
    await create_accepts(stage, sample, EMBEDDING_MODEL, "asyncBatchEmbedContent", b"")


async def agrees_05(stage: Stage, sample: Any) -> None:
    stage.open()
    assert_same_shape(await get_json(stage.http, await stage.job()), sample)


async def agrees_06(stage: Stage, sample: Any) -> None:
    sandbox = stage.open(row_faults={RowFault.ERROR: 0.01})
    name = await stage.job(priority="5")
    sandbox.advance(name)
    assert_same_shape(await get_json(stage.http, name), sample)


async def agrees_07(stage: Stage, sample: Any) -> None:
    sandbox = stage.open()
    name = await stage.job()
    sandbox.finish(name)
    operation = await get_json(stage.http, name)
    assert_same_shape(operation, sample)
    assert operation["response"]["responsesFile"] == operation["metadata"]["output"]["responsesFile"]
    assert operation["metadata"]["output"]["responsesFile"] == f"files/batch-{name.removeprefix('batches/')}"


async def agrees_08(stage: Stage, sample: Any) -> None:
    sandbox = stage.open(row_faults={RowFault.ERROR: 0.012})
    name = await stage.job()
    sandbox.finish(name)
    operation = await get_json(stage.http, name)
    assert_same_shape(operation, sample)
    stats = {member: int(count) for member, count in operation["metadata"]["batchStats"].items()}
    assert stats["successfulRequestCount"] + stats["failedRequestCount"] == stats["requestCount"] == 1000


async def inline_job(stage: Stage, *prompts: str) -> str:
    items = [
        {"request": {"contents": [{"parts": [{"text": prompt}]}]}, "metadata": {"key": f"row-{number}"}}
        for number, prompt in enumerate(prompts, 1)
    ]
    body = {"batch": {"displayName": "inline-demo", "inputConfig": {"requests": {"requests": items}}}}
    reply = await stage.http.post(f"/v1beta/models/{MODEL}:batchGenerateContent", json=body)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["name"])


async def agrees_09(stage: Stage, sample: Any) -> None:
    sandbox = stage.open()
    name = await inline_job(stage, "lovely staff", "late parcel [[sandbox:error]]")
    sandbox.finish(name)
    assert_same_shape(await get_json(stage.http, name), sample)


async def agrees_10(stage: Stage, sample: Any) -> None:
    sandbox = stage.open(output_in="response")
    name = await stage.job(2)
    sandbox.finish(name)
    assert_same_shape(await get_json(stage.http, name), sample)


async def agrees_11(stage: Stage, sample: Any) -> None:
    sandbox = stage.open()
    name = await stage.job()
    sandbox.finish(name, "FAILED", error=sample["error"])
    operation = await get_json(stage.http, name)
    assert_same_shape(operation, sample)
    assert operation["error"] == sample["error"]
    assert operation["metadata"]["batchStats"] == sample["metadata"]["batchStats"]


async def agrees_12(stage: Stage, sample: Any) -> None:
    sandbox = stage.open()
    name = await stage.job()
    sandbox.advance(name)
    await stage.http.post(f"/v1beta/{name}:cancel")
    sandbox.advance(name)
    operation = await get_json(stage.http, name)
    assert_same_shape(operation, sample)
    assert operation["error"]["code"] == sample["error"]["code"]


async def agrees_13(stage: Stage, sample: Any) -> None:
    sandbox = stage.open()
    name = await stage.job()
    sandbox.advance(name)
    sandbox.finish(name, "EXPIRED")
    operation = await get_json(stage.http, name)
    assert_same_shape(operation, sample)
    assert operation["error"]["code"] == sample["error"]["code"]


async def agrees_14(stage: Stage, sample: Any) -> None:
    sandbox = stage.open(output_in="metadata")
    finished, running = await stage.job(9), await stage.job()
    await stage.job()
    sandbox.finish(finished)
    sandbox.set_state(running, "RUNNING")
    page = await get_json(stage.http, "batches?pageSize=2")
    whole = await get_json(stage.http, "batches")
    by_name = {operation["name"]: operation for operation in whole["operations"]}
    assert_same_shape(by_name[running], sample["operations"][0])
    assert_same_shape(by_name[finished], sample["operations"][1])
    assert page.keys() == sample.keys()


async def agrees_15(stage: Stage, sample: Any) -> None:
    stage.open()
    reply = await stage.http.post(f"/v1beta/{await stage.job(1)}:cancel")
    assert (reply.status_code, reply.json()) == (200, sample)


async def agrees_16(stage: Stage, sample: Any) -> None:
    stage.open()
    reply = await stage.http.delete(f"/v1beta/{await stage.job(1)}")
    assert (reply.status_code, reply.json()) == (200, sample)


async def agrees_17(stage: Stage, sample: Any) -> None:
    stage.open()
    name = await stage.job(1)
    path = f"/v1beta/{name}:updateGenerateContentBatch?updateMask=priority"
    reply = await stage.http.patch(path, json=sample)
    assert reply.status_code == 200, reply.text
    assert reply.json()["metadata"]["priority"] == sample["priority"]
    assert reply.json()["metadata"]["displayName"] == "test"


async def agrees_18(stage: Stage, sample: Any) -> None:
    sandbox = stage.open()
    lines = (SAMPLES / "53-input-embed.jsonl").read_bytes()
    name = await embed_job(stage, {"file_name": await upload(stage.http, lines)})
    sandbox.finish(name)
    assert_same_shape(await get_json(stage.http, name), sample)


async def agrees_19(stage: Stage, sample: Any) -> None:
    sandbox = stage.open(output_in="metadata")
    items = [
        {"request": {"content": {"parts": [{"text": text}]}, "output_dimensionality": 3}, "metadata": {"key": key}}
        for key, text in (("e1", "ferry"), ("e2", "bus [[sandbox:error:3]]"))
    ]
    name = await embed_job(stage, {"requests": {"requests": items}})
    sandbox.finish(name)
    assert_same_shape(await get_json(stage.http, name), sample)


async def assert_refused(reply: httpx2.Response, sample: Any) -> None:
    assert reply.status_code == sample["error"]["code"]
    assert_same_shape(reply.json(), sample)
    assert reply.json()["error"]["status"] == sample["error"]["status"]


async def agrees_30(stage: Stage, sample: Any) -> None:
    stage.open()
    line = generate_line("row-1", thinking_config={"thinking_level": "LOW"})
    body = {"batch": {"inputConfig": {"fileName": await upload(stage.http, line)}}}
    reply = await stage.http.post(f"/v1beta/models/{MODEL}:batchGenerateContent", json=body)
    await assert_refused(reply, sample)
    without_column = re.escape(sample["error"]["message"]).replace("58", r"\d+")
    assert re.fullmatch(without_column, reply.json()["error"]["message"])


async def agrees_31(stage: Stage, sample: Any) -> None:
    stage.open(max_enqueued_tokens={MODEL: 10}, quota_retry_seconds=34)
    body = {"batch": {"inputConfig": {"fileName": await upload(stage.http, generate_lines(10))}}}
    reply = await stage.http.post(f"/v1beta/models/{MODEL}:batchGenerateContent", json=body)
    await assert_refused(reply, sample)
    assert reply.json()["error"]["details"][1] == sample["error"]["details"][1]
    assert reply.headers["retry-after"] == "34"


async def agrees_32(stage: Stage, sample: Any) -> None:
    stage.open()
    reply = await stage.http.get("/v1beta/batches/unknown")
    assert reply.json() == sample


async def agrees_33(stage: Stage, sample: Any) -> None:
    sandbox = stage.open()
    name = await stage.job(1)
    sandbox.finish(name)
    result_file = f"/v1beta/files/batch-{name.removeprefix('batches/')}"
    await assert_refused(await stage.http.delete(result_file), sample)
    await assert_refused(await stage.http.get(result_file), sample)


CHECKS: dict[str, Check] = {
    name.removeprefix("agrees_"): check for name, check in list(globals().items()) if name.startswith("agrees_")
}
NAMES = sorted(path.name for path in SAMPLES.iterdir() if path.name < "40")


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
