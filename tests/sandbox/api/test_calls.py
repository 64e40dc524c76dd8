"""Calls that are answered at once, by Google's own client: tiers, latency, refusals, and what is charged."""

import time
from pathlib import Path

import anyio
import pytest
from google.genai import errors, types

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import SandboxConfig
from support.services import EMBEDDING_MODEL, MODEL, raw, sdk

pytestmark = pytest.mark.anyio


async def test_the_sdk_has_a_text_answered_at_the_flex_tier_and_a_text_embedded(tmp_path: Path) -> None:
    with Sandbox(tmp_path) as sandbox:
        async with sdk(sandbox) as client:
            answered = await client.models.generate_content(
                model=MODEL, contents="Sort this note.", config={"service_tier": types.ServiceTier.FLEX}
            )
            assert answered.text is not None and "[sandbox]" in answered.text
            assert answered.usage_metadata is not None
            assert answered.usage_metadata.traffic_type == types.TrafficType.ON_DEMAND_FLEX
            embedded = await client.models.embed_content(
                model=EMBEDDING_MODEL, contents="A text.", config={"output_dimensionality": 8}
            )
            assert embedded.embeddings is not None and len(embedded.embeddings[0].values or []) == 8
        assert [(record.task, record.tier) for record in sandbox.call_records] == [
            ("generate", "flex"),
            ("embed", "standard"),
        ]
        assert not sandbox.unknown_requests


async def test_calls_take_their_time_side_by_side(tmp_path: Path) -> None:
    with Sandbox(tmp_path, SandboxConfig(call_seconds=0.1)) as sandbox:
        async with sdk(sandbox) as client:

            async def call() -> None:
                await client.models.generate_content(model=MODEL, contents="Hello.")

            began = time.monotonic()
            async with anyio.create_task_group() as tasks:
                for _ in range(4):
                    tasks.start_soon(call)
        assert time.monotonic() - began >= 0.1
        assert sandbox.calls.most_open_calls == 4
        assert sandbox.calls.open_calls == 0


async def test_refused_calls_are_free_and_lost_ones_are_not(tmp_path: Path) -> None:
    body = {"contents": [{"parts": [{"text": "Hello."}]}]}
    marked = {"contents": [{"parts": [{"text": "Hello. [[sandbox:dropped]]"}]}]}
    failing = {"contents": [{"parts": [{"text": "Hello. [[sandbox:error:8]]"}]}]}
    with Sandbox(tmp_path) as sandbox:
        sandbox.fail_next("generateContent", status=503, retry_after=2)
        async with raw(sandbox) as http:
            path = f"/v1beta/models/{MODEL}:generateContent"
            shed = await http.post(path, json=body)
            assert (shed.status_code, shed.headers["retry-after"]) == (503, "2")
            for refused, status in (
                ({"contents": []}, 400),
                ({"contents": body["contents"], "nonsense": 1}, 400),
                ({**body, "serviceTier": "first"}, 400),
                (failing, 429),
            ):
                assert (await http.post(path, json=refused)).status_code == status
            assert (await http.post("/v1beta/models/gemini-none:generateContent", json=body)).status_code == 404
            assert not sandbox.calls.records
            assert (await http.post(path, json=marked)).status_code == 504
            assert [record.request for record in sandbox.call_records] == [marked]
        async with sdk(sandbox) as client:
            with pytest.raises(errors.ClientError):
                await client.models.embed_content(model=MODEL, contents="A text.")
