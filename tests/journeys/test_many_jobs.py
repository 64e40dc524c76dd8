"""One batch as several jobs: cut by size and by tokens, held back for quota, and one batch for the user."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gemini_batch_mcp.batches.opening import lazy_desk
from gemini_batch_mcp.domain import JobState, Order
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import ByReads, OnCommand, SandboxConfig
from gemini_batch_mcp.settings import Settings
from support.conversation import Conversation, converse, line, newest, request_file, write_lines

pytestmark = pytest.mark.anyio

MODEL = "gemini-3-flash-preview"


def _finish_all(sandbox: Sandbox) -> None:
    for record in sandbox.create_records:
        sandbox.finish(record.name)


async def _look_until(talk: Conversation, batch: str, sandbox: Sandbox, *, creates: int) -> None:
    for _ in range(50):
        await talk.call("check_status", batch=batch, wait_seconds=0.2)
        if sandbox.creates >= creates:
            return


async def test_an_order_over_the_file_limit_becomes_three_jobs_and_stays_one_batch(
    settings: Settings, sandbox: Sandbox, data: Path, era: str
) -> None:
    """5 GB at 2 GB a file, turned down: 250 lines of which 100 fit one file."""
    rows = [line(f"k{number}", f"row {number} " + "x" * 1000) for number in range(250)]
    source = write_lines(data / "large.jsonl", rows)
    limit = 100 * (len(rows[-1]) + 1)
    async with converse(replace(settings, max_file_bytes=limit), sandbox, era) as talk:
        preview = await talk.call("preview_batch", source=source)
        assert preview["shard_count"] == 3
        created = await talk.call("create_batch", source=source)
        assert len(created["jobs"]) == 3
        assert created["request_count"] == 250
        assert sum(job["request_count"] for job in created["jobs"]) == 250
        assert sandbox.creates == 3
        _finish_all(sandbox)
        status = await talk.call("check_status", batch=created["batch_id"])
        assert status["state"] == "JOB_STATE_SUCCEEDED"
        assert status["counts"] == {"total": 250, "succeeded": 250, "failed": 0, "pending": 0}
        results = await talk.call("get_results", batch=created["batch_id"], view="rows", limit=200)
        assert results["summary"]["succeeded"] == 250
        assert results["integrity_ok"]
        assert [row["key"] for row in results["rows"][:3]] == ["k0", "k1", "k2"]
        assert (await talk.call("create_batch", source=source))["reused"]
    assert sandbox.creates == 3


async def test_jobs_that_pass_the_enqueued_tokens_wait_and_follow_as_others_end(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    source = write_lines(data / "large.jsonl", [line(f"k{n}", "word " * 100) for n in range(40)])
    async with converse(replace(settings, max_enqueued_tokens=2000), sandbox) as talk:
        created = await talk.call("create_batch", source=source)
        batch = created["batch_id"]
        count = len(created["jobs"])
        assert count >= 3
        assert sandbox.creates == 1
        assert created["state"] == "JOB_STATE_PENDING"
        assert "wait here" in created["advice"]
        assert "enqueued" in created["advice"]
        for submitted in range(1, count):
            sandbox.finish(newest(sandbox))
            await _look_until(talk, batch, sandbox, creates=submitted + 1)
            assert sandbox.creates == submitted + 1
        sandbox.finish(newest(sandbox))
        await talk.comes_to(batch, "JOB_STATE_SUCCEEDED")
        results = await talk.call("get_results", batch=batch)
        assert results["summary"]["succeeded"] == 40


async def test_a_project_that_may_enqueue_less_is_found_out_and_the_job_is_cut_smaller(
    settings: Settings, tmp_path: Path, data: Path
) -> None:
    """The built-in limit is the highest tier's; this project's is the lowest one's, turned down by the price table."""
    prices = {
        "priced_on": "2026-11-01",
        "models": {MODEL: {"rates": [{"input": 0.25, "output": 1.5}], "enqueued_tokens": [2000, 3000, 1000000]}},
    }
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(prices), encoding="utf-8")
    config = SandboxConfig(pace=OnCommand(), max_enqueued_tokens={MODEL: 2600}, quota_retry_seconds=0)
    source = write_lines(data / "large.jsonl", [line(f"k{n}", "word " * 100) for n in range(40)])
    with Sandbox(tmp_path / "small-project", config) as sandbox:
        async with converse(replace(settings, prices_path=path), sandbox) as talk:
            created = await talk.call("create_batch", source=source)
            assert created["state"] == "JOB_STATE_QUEUED"
            assert sandbox.creates == 0
            for _ in range(30):
                await talk.call("check_status", batch=created["batch_id"], wait_seconds=0.3)
                _finish_all(sandbox)
                status = await talk.call("check_status", batch=created["batch_id"])
                if status["done"]:
                    break
            assert status["done"]
            assert len(status["jobs"]) > 2
            results = await talk.call("get_results", batch=created["batch_id"])
        assert results["summary"]["succeeded"] == 40
        assert results["integrity_ok"]
        assert sandbox.creates == len(status["jobs"])


async def test_a_job_that_gemini_refuses_does_not_hold_back_the_others(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    rows = [line(f"k{number}", f"row {number} " + "x" * 1000) for number in range(30)]
    source = write_lines(data / "large.jsonl", rows)
    limit = 10 * (len(rows[-1]) + 1)
    body = {"error": {"code": 400, "message": "No such thing.", "status": "INVALID_ARGUMENT"}}
    sandbox.fail_next("batches.create", status=400, body=body, skip=1)
    async with converse(replace(settings, max_file_bytes=limit), sandbox) as talk:
        created = await talk.call("create_batch", source=source)
        states = [job["state"] for job in created["jobs"]]
        assert states == ["JOB_STATE_PENDING", "JOB_STATE_FAILED", "JOB_STATE_PENDING"]
        assert "No such thing" in created["jobs"][1]["error"]
        _finish_all(sandbox)
        results = await talk.call("get_results", batch=created["batch_id"])
        assert results["state"] == "JOB_STATE_PARTIALLY_SUCCEEDED"
        assert results["summary"]["succeeded"] == 20
        assert results["summary"]["missing"] == 10
        await talk.call("retry_failed", batch=created["batch_id"])
        _finish_all(sandbox)
        results = await talk.call("get_results", batch=created["batch_id"])
    assert results["summary"]["succeeded"] == 30
    assert results["integrity_ok"]
    assert sandbox.creates == 3


async def test_a_shard_whose_lines_changed_after_the_order_is_named_and_not_sent(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    rows = [line(f"k{n}", "word " * 100) for n in range(40)]
    source = write_lines(data / "large.jsonl", rows)
    async with converse(replace(settings, max_enqueued_tokens=2000), sandbox) as talk:
        created = await talk.call("create_batch", source=source)
        write_lines(data / "large.jsonl", [row.replace("word", "text") for row in rows])
        sandbox.finish(sandbox.create_records[0].name)
        while "changed" not in json.dumps(await talk.call("check_status", batch=created["batch_id"], wait_seconds=0.2)):
            pass
    assert sandbox.creates == 1


async def test_two_processes_send_each_job_of_a_batch_once(settings: Settings, sandbox: Sandbox, data: Path) -> None:
    rows = [line(f"k{number}", f"row {number} " + "x" * 1000) for number in range(50)]
    order = Order(source=write_lines(data / "large.jsonl", rows))
    limited = replace(settings, max_file_bytes=10 * (len(rows[-1]) + 1))
    async with lazy_desk(limited, sandbox.transport) as one, lazy_desk(limited, sandbox.transport) as other:
        first, second = await one.get(), await other.get()
        await first.preview(order)
        await first.place_order(order, wait_seconds=0.0)
        await second.place_order(order, wait_seconds=0.0)
        placed = await first.place_order(order)
    assert placed.status.state is JobState.PENDING
    assert sandbox.creates == 5


async def test_a_pilot_takes_the_first_rows_and_the_whole_order_is_another_batch(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    source = request_file(data, 30)
    pilot = await talk.call("create_batch", source=source, limit_rows=5)
    whole = await talk.call("create_batch", source=source)

    assert (pilot["request_count"], whole["request_count"]) == (5, 30)
    assert pilot["batch_id"] != whole["batch_id"]
    assert sandbox.creates == 2


@pytest.mark.parametrize("is_previewed", [True, False])
async def test_an_order_of_any_number_of_rows_takes_start_chunks_and_one_create(
    settings: Settings, tmp_path: Path, data: Path, is_previewed: bool
) -> None:
    """And what it is priced by: twenty lines are counted, once."""
    source = request_file(data, 2000)
    with Sandbox(tmp_path / "counting", SandboxConfig(pace=ByReads())) as sandbox:
        async with converse(settings, sandbox) as talk:
            if is_previewed:
                await talk.call("preview_batch", source=source)
            await talk.call("create_batch", source=source)
        routes = [
            request.route for request in sandbox.requests if request.route not in ("models.list", "files.finalize")
        ]
    assert routes == ["countTokens"] * 20 + ["files.start", "batches.create"]


async def test_a_preview_of_any_number_of_rows_takes_at_most_25_calls(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    source = request_file(data, 5000)
    async with converse(settings, sandbox) as talk:
        preview = await talk.call("preview_batch", source=source)
        assert preview["ok"]
    assert len(sandbox.requests) <= 25
    assert {request.route for request in sandbox.requests} == {"models.list", "countTokens"}
