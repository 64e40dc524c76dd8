"""Creates that were refused and took effect all the same: no job is created again before Gemini's list was searched."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from gemini_batch_mcp.batches.ledger.ledger import Ledger
from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import OnCommand, SandboxConfig
from gemini_batch_mcp.settings import Settings
from support.conversation import Conversation, converse, desk_of, line, newest, request_file, write_lines
from support.extent import few, in_part, pairs
from support.services import MODEL, create, generate_lines, raw, upload

pytestmark = pytest.mark.anyio


def _looks(sandbox: Sandbox) -> int:
    return sum(request.route == "batches.list" for request in sandbox.requests)


@few(3)
@in_part
@pytest.mark.parametrize(("status", "delivery"), pairs((400, 403, 404, 409, 429, 500), ("file", "inline")))
async def test_a_create_that_was_refused_after_it_took_effect_is_found(
    talk: Conversation, sandbox: Sandbox, data: Path, status: int, delivery: str
) -> None:
    sandbox.fail_next("batches.create", status=status, when="after")
    source = request_file(data)
    created = await talk.call("create_batch", source=source, delivery=delivery)
    again = await talk.call("create_batch", source=source, delivery=delivery)
    if status == 429:
        await talk.comes_to(created["batch_id"], "JOB_STATE_PENDING")
    shown = await talk.call("check_status", batch=created["batch_id"])

    assert again["batch_id"] == created["batch_id"]
    assert shown["state"] == "JOB_STATE_PENDING"
    assert [job["name"] for job in shown["jobs"]] == [newest(sandbox)]
    assert shown["jobs"][0]["error"] == ""
    assert sandbox.creates == 1


async def test_a_wait_for_quota_costs_one_look_at_the_list(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    sandbox.fail_next("batches.create", status=429)
    batch = (await talk.call("create_batch", source=request_file(data)))["batch_id"]
    assert _looks(sandbox) == 0

    await talk.comes_to(batch, "JOB_STATE_PENDING")

    assert _looks(sandbox) == 1
    assert sandbox.creates == 1


@pytest.mark.parametrize("status", [400, 429])
async def test_a_list_that_lags_is_read_again_before_the_second_create(
    settings: Settings, tmp_path: Path, data: Path, status: int
) -> None:
    source = request_file(data)
    config = SandboxConfig(pace=OnCommand(), list_lag_seconds=0.4, quota_retry_seconds=0)
    with Sandbox(tmp_path / "lagging", config) as sandbox:
        async with converse(replace(settings, reconcile_seconds=1.0), sandbox) as talk:
            sandbox.fail_next("batches.create", status=status, when="after")
            first = await talk.raw("create_batch", source=source)
            assert first.is_error == (status == 400)
            await talk.call("create_batch", source=source)
            listed = await talk.call("list_jobs")
            await talk.call("check_status", batch=listed["jobs"][0]["batch_id"], wait_seconds=3)
        assert sandbox.creates == 1


async def test_an_order_whose_refusal_was_looked_for_in_vain_is_created_anew(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    source = request_file(data)
    sandbox.fail_next("batches.create", status=400)
    await talk.refusal("create_batch", source=source)

    created = await talk.call("create_batch", source=source)

    assert created["state"] == "JOB_STATE_PENDING"
    assert sandbox.creates == 1


async def test_while_the_list_cannot_be_read_a_refused_order_is_not_created_again(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    source = request_file(data)
    sandbox.fail_next("batches.create", status=400, when="after")
    sandbox.fail_next("batches.list", status=503, times=200)
    await talk.refusal("create_batch", source=source)
    assert "not created" in await talk.refusal("create_batch", source=source)
    sandbox.faults.clear()

    found = await talk.call("create_batch", source=source)

    assert found["reused"]
    assert found["jobs"][0]["name"] == newest(sandbox)
    assert sandbox.creates == 1


async def test_the_next_process_looks_before_it_creates_what_waited(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    sandbox.fail_next("batches.create", status=429, when="after")
    async with desk_of(settings, sandbox) as desk:
        placement = await desk.place_order(Order(source=request_file(data)))
    async with desk_of(replace(settings, reconcile_seconds=0.0), sandbox) as desk:
        await desk.status(placement.status.batch.id, wait_seconds=2)
        await desk.collect()
    assert sandbox.creates == 1


async def test_a_job_that_would_be_cut_smaller_is_looked_for_first(
    settings: Settings, sandbox: Sandbox, tmp_path: Path, data: Path
) -> None:
    prices = tmp_path / "prices.json"
    prices.write_text(
        '{"priced_on": "2026-11-01", "models": {"gemini-3-flash-preview": '
        '{"rates": [{"input": 0.25, "output": 1.5}], "enqueued_tokens": [2000, 3000, 1000000]}}}'
    )
    source = write_lines(data / "large.jsonl", [line(f"k{number}", "word " * 100) for number in range(40)])
    sandbox.fail_next("batches.create", status=429, times=2)
    sandbox.fail_next("batches.create", status=429, when="after")
    async with converse(replace(settings, prices_path=prices), sandbox) as talk:
        batch = (await talk.call("create_batch", source=source))["batch_id"]
        shown = await talk.comes_to(batch, "JOB_STATE_PENDING")
        assert [job["name"] for job in shown["jobs"] if job["name"]]
    assert len({record.name for record in sandbox.create_records}) == sandbox.creates
    rows = sum(record.row_count for record in sandbox.create_records)
    assert rows <= 40


async def test_a_retry_looks_for_an_attempt_that_was_refused(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    rows = [line("a"), line("b", "hello [[sandbox:error:13]] [[sandbox:once]]")]
    batch = (await talk.call("create_batch", source=write_lines(data / "rows.jsonl", rows)))["batch_id"]
    sandbox.finish(newest(sandbox))
    sandbox.fail_next("batches.create", status=400, when="after")
    sandbox.fail_next("batches.list", status=503, times=200)
    await talk.refusal("retry_failed", batch=batch)
    sandbox.faults.clear()

    again = await talk.call("retry_failed", batch=batch)

    assert again["reused"]
    assert sandbox.creates == 2


async def test_a_cancel_of_a_refused_job_stops_it_when_it_is_there(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    sandbox.fail_next("batches.create", status=429, when="after", retry_after=3000)
    batch = (await talk.call("create_batch", source=request_file(data)))["batch_id"]

    await talk.call("cancel_batch", batch=batch)

    assert [request.route for request in sandbox.requests].count("batches.cancel") == 1


async def _strangers_job(sandbox: Sandbox, tag: str, kind: str) -> str:
    """Make a job with a tag of ours that differs in one thing; returns its name."""
    async with raw(sandbox, "test-key-do-not-show") as http:
        name = await upload(http, generate_lines(7 if kind == "rows" else 3))
        return str((await create(http, name, displayName=f"x {tag}"))["name"])


@pytest.mark.parametrize(("kind", "model"), [("rows", MODEL), ("model", "gemini-3-flash-preview")])
async def test_a_job_under_the_tag_that_does_not_fit_is_named_and_left_alone(
    settings: Settings, sandbox: Sandbox, data: Path, kind: str, model: str
) -> None:
    source = request_file(data)
    async with converse(replace(settings, model=model), sandbox) as talk:
        sandbox.cut_next("batches.create", when="before")
        batch = (await talk.call("create_batch", source=source))["batch_id"]
        ledger = Ledger.open(settings.home / "ledger.sqlite3")
        entry = ledger.batch(batch)
        ledger.close()
        assert entry is not None
        stranger = await _strangers_job(sandbox, entry.jobs[0].tag, kind)

        sentence = await talk.refusal("create_batch", source=source)
        shown = await talk.call("check_status", batch=batch)
        cancelled = await talk.call("cancel_batch", batch=batch)
        anew = await talk.call("create_batch", source=source)

    assert re.search(rf"{stranger} at Gemini carries the mark of a job of {batch} but is a different one", sentence)
    assert shown["state"] == "JOB_STATE_UNSPECIFIED"
    assert cancelled["state"] == "JOB_STATE_CANCELLED"
    assert anew["batch_id"] != batch
    assert not [request for request in sandbox.requests if request.route == "batches.cancel"]
    assert sandbox.creates == 2
