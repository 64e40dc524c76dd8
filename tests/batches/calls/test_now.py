"""Rows that are answered now: one call each at the flex tier, a batch like any other, and nothing called twice."""

from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import Conversation, converse, line, request_file, until, write_lines

pytestmark = pytest.mark.anyio

MODEL = "gemini-3-flash-preview"


def _reviews(data: Path, rows: int = 20, **marks: str) -> str:
    """A table of reviews r0, r1, …; a mark is put into the text of its row."""
    lines = [f'r{number},"Review {number} {marks.get(f"r{number}", "")}"' for number in range(rows)]
    (data / "reviews.csv").write_text("\n".join(["id,review", *lines, ""]), encoding="utf-8")
    return str(data / "reviews.csv")


def _order(data: Path, rows: int = 20, **marks: str) -> dict[str, Any]:
    source = _reviews(data, rows, **marks)
    return {"source": source, "prompt": "Classify: {{review}}", "key_column": "id", "delivery": "now"}


def _calls(sandbox: Sandbox) -> Counter[str]:
    """How often each row was answered, by its text."""
    return Counter(
        record.request["contents"][0]["parts"][0]["text"].partition("Review ")[2].partition(" ")[0]
        for record in sandbox.call_records
    )


def _once(rows: int) -> Counter[str]:
    return Counter({str(number): 1 for number in range(rows)})


async def test_a_trial_of_twenty_rows_is_ordered_answered_and_read_like_any_batch(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    order = _order(data)
    preview = await talk.call("preview_batch", **order)
    assert (preview["request_count"], preview["shard_count"]) == (20, 1)
    assert "20 calls, four at a time, at the flex tier" in " ".join(preview["warnings"])
    assert "Flex prices" in preview["estimate"]["basis"]

    created = await talk.call("create_batch", **order)
    assert created["state"] == "JOB_STATE_SUCCEEDED", created
    assert created["estimate"] == preview["estimate"]
    assert _calls(sandbox) == _once(20)
    assert {record.tier for record in sandbox.call_records} == {"flex"}
    assert sandbox.calls.most_open_calls <= 4
    assert sandbox.creates == 0

    batch = created["batch_id"]
    status = await talk.call("check_status", batch=batch)
    assert status["done"] and status["results_ready"]
    assert status["counts"] == {"total": 20, "succeeded": 20, "failed": 0, "pending": 0}
    results = await talk.call("get_results", batch=batch, view="rows", limit=50, save_to="answers.csv")
    assert results["integrity_ok"]
    assert [row["key"] for row in results["rows"]] == [f"r{number}" for number in range(20)]
    assert {row["status"] for row in results["rows"]} == {"ok"}
    assert results["usage"]["cost_usd"] > 0
    assert "Review 3" in Path(results["saved"]["path"]).read_text(encoding="utf-8-sig")

    asked = await talk.call("query_results", batch=batch, sql="SELECT count(*) FROM results WHERE status = 'ok'")
    assert asked["rows"] == [[20]]
    listed = await talk.call("list_jobs", search=batch)
    assert [job["batch_id"] for job in listed["jobs"]] == [batch]
    assert listed["spent"]["cost_usd"] == pytest.approx(results["usage"]["cost_usd"])
    compared = await talk.call("compare_results", batch=batch, other=batch)
    assert (compared["compared"], compared["share"]) == (20, 1.0)

    again = await talk.call("create_batch", **order)
    assert again["reused"] and again["batch_id"] == batch
    assert _calls(sandbox) == _once(20)
    # To be answered in a batch is another order.
    bulk = await talk.call("create_batch", like=batch)
    assert bulk["batch_id"] != batch and sandbox.creates == 1
    deleted = await talk.call("delete_batch", batch=batch, confirm=True)
    assert deleted["deleted"]["local"] and deleted["deleted"]["jobs"] == []


async def test_calls_that_are_turned_away_are_made_again_when_gemini_says_so(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    sandbox.fail_next("generateContent", status=503, retry_after=0.05, times=3)
    sandbox.fail_next("generateContent", status=429, retry_after=0.05, times=2)
    created = await talk.call("create_batch", **_order(data, 6))
    assert created["state"] == "JOB_STATE_SUCCEEDED"
    assert _calls(sandbox) == _once(6)
    assert sum(request.route == "generateContent" for request in sandbox.requests) == 6 + 5


async def test_a_lost_reply_is_unknown_and_only_retry_failed_makes_the_call_again(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    sandbox.cut_next("generateContent", when="after")
    sandbox.fail_next("generateContent", status=500, when="after")
    sandbox.fail_next("generateContent", status=400)
    created = await talk.call("create_batch", **_order(data, 8))
    batch = created["batch_id"]
    assert sandbox.calls.records and len(_calls(sandbox)) == 7

    results = await talk.call("get_results", batch=batch, view="failures")
    assert results["summary"]["missing"] == 2 and results["summary"]["failed"] == 1
    lost = [row for row in results["rows"] if row["status"] == "missing"]
    assert len(lost) == 2
    assert all("may have been answered and charged" in row["error"] for row in lost)
    status = await talk.call("check_status", batch=batch)
    assert "2 missing rows are ones whose reply was lost" in status["advice"]
    assert "2 rows" in (await talk.text("list_jobs"))

    again = await talk.call("retry_failed", batch=batch, include=["missing"])
    assert (again["request_count"], again["state"]) == (2, "JOB_STATE_SUCCEEDED"), again
    after = await talk.call("get_results", batch=batch, view="rows", keys=[lost[0]["key"]])
    assert after["summary"]["missing"] == 0
    assert after["rows"][0]["status"] == "ok"
    assert sorted(_calls(sandbox).values()) == [1, 1, 1, 1, 1, 2, 2]
    assert (await talk.call("retry_failed", batch=batch, include=["failed"]))["state"] == "JOB_STATE_SUCCEEDED"
    assert {record.tier for record in sandbox.call_records} == {"flex"}


async def test_a_cancel_midway_keeps_the_rest_from_being_called(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    sandbox.fail_next("generateContent", status=503, retry_after=30, times=50, skip=5)
    order = _order(data, 20)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(talk.raw, "create_batch", **order))
        await until(lambda: sum(record.status == 503 for record in sandbox.requests))
        (job,) = (await talk.call("list_jobs"))["jobs"]
        status = await talk.call("check_status", batch=job["batch_id"])
        # The service knows of its 503 before the caller does.
        while "Gemini turned calls away (503), next try at" not in status["advice"]:
            status = await talk.call("check_status", batch=job["batch_id"])
        assert status["state"] == "JOB_STATE_RUNNING"
        assert status["counts"]["succeeded"] == 5
        await talk.call("cancel_batch", batch=job["batch_id"])
    status = await talk.call("check_status", batch=job["batch_id"], wait_seconds=5)
    assert (status["state"], status["done"]) == ("JOB_STATE_CANCELLED", True)
    results = await talk.call("get_results", batch=job["batch_id"])
    assert results["summary"]["succeeded"] == 5 and results["summary"]["missing"] == 15
    sandbox.faults.clear()
    again = await talk.call("retry_failed", batch=job["batch_id"])
    assert again["request_count"] == 15
    assert (await talk.call("get_results", batch=job["batch_id"]))["state"] == "JOB_STATE_SUCCEEDED"
    assert _calls(sandbox) == _once(20)


async def test_a_delete_midway_stops_the_calls_and_leaves_nothing(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    sandbox.delay_next("generateContent", 60, times=2, skip=3)
    async with converse(settings, sandbox) as talk:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(talk.raw, "create_batch", **_order(data, 9)))
            await until(lambda: len(sandbox.call_records) == 7)
            (job,) = (await talk.call("list_jobs"))["jobs"]
            said = await talk.refusal("delete_batch", batch=job["batch_id"])
            assert "The job has not ended and would be cancelled first" in said
            deleted = await talk.call("delete_batch", batch=job["batch_id"], confirm=True)
            assert deleted["deleted"]["local"] and deleted["not_deleted"] == []
        assert not list((settings.home / "batches").glob("*"))
        # What had left is charged, or may be, and that is said beside what is known.
        other = await talk.call("create_batch", requests=[{"prompt": "One more."}], delivery="now")
        await talk.call("get_results", batch=other["batch_id"])
        assert f"Not counted: 9 rows of {job['batch_id']}" in await talk.text("list_jobs")


async def test_standard_prices_and_embeddings_cost_twice_what_a_batch_costs(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    order = _order(data, 5)
    async with converse(settings, sandbox) as talk:
        flex = await talk.call("preview_batch", **order)
        texts = [{"key": f"t{number}", "prompt": f"Text {number}"} for number in range(5)]
        embed = {"requests": texts, "task": "embed", "model": "gemini-embedding-2"}
        batch = await talk.call("preview_batch", **embed)
        now = await talk.call("preview_batch", **embed, delivery="now")
        assert now["estimate"]["cost_usd_high"] == pytest.approx(2 * batch["estimate"]["cost_usd_high"], abs=2e-6)
        assert "embeddings have no flex tier" in " ".join(now["warnings"])
        created = await talk.call("create_batch", **embed, delivery="now")
        assert created["state"] == "JOB_STATE_SUCCEEDED"
        vectors = await talk.call("get_results", batch=created["batch_id"], view="rows")
        assert {row["status"] for row in vectors["rows"]} == {"ok"}
        assert vectors["rows"][0]["text"].startswith("embedding of")
        assert vectors["usage"]["input_tokens"] > 0
    async with converse(replace(settings, now_tier="standard"), sandbox) as talk:
        standard = await talk.call("preview_batch", **order)
        assert standard["estimate"]["cost_usd_high"] == pytest.approx(2 * flex["estimate"]["cost_usd_high"], abs=2e-6)
        assert "at the standard price, 2 times that of a batch" in " ".join(standard["warnings"])
        created = await talk.call("create_batch", **order)
        assert created["estimate"] == standard["estimate"]
        assert sandbox.call_records[-1].tier == "standard"
        dear = (await talk.call("get_results", batch=created["batch_id"]))["usage"]
    # What was paid for at one price keeps it, whatever the setting is later.
    async with converse(settings, sandbox) as talk:
        assert (await talk.call("get_results", batch=created["batch_id"]))["usage"] == dear
        cheap = await talk.call("create_batch", **{**order, "display_name": "flex"}, resubmit=True)
        usage = (await talk.call("get_results", batch=cheap["batch_id"]))["usage"]
    assert dear["cost_usd"] == pytest.approx(2 * usage["cost_usd"], abs=2e-6)


async def test_what_cannot_be_answered_now_is_refused_with_what_to_do(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    for tool in ("preview_batch", "create_batch"):
        said = await talk.refusal(tool, **_order(data, 201))
        assert "takes up to 200 rows" in said and "limit_rows=200" in said
    assert "has no rows to call" in await talk.refusal("create_batch", source="files/abc", delivery="now")
    assert not sandbox.call_records
    sandbox.fail_next("generateContent", status=403, times=50)
    said = await talk.refusal("create_batch", **_order(data, 10))
    assert "Check the key" in said
    assert sum(request.route == "generateContent" for request in sandbox.requests) <= 7
    assert (await talk.call("list_jobs"))["jobs"] == []
    sandbox.faults.clear()
    assert (await talk.call("create_batch", **_order(data, 10)))["state"] == "JOB_STATE_SUCCEEDED"
    assert _calls(sandbox) == _once(10)


async def test_two_servers_on_one_directory_call_each_row_once(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    order = _order(data, 20)
    sandbox.delay_next("generateContent", 0.02, times=20)
    async with converse(settings, sandbox) as one, converse(settings, sandbox) as other:
        for talk in (one, other):
            await talk.call("list_jobs")
        async with anyio.create_task_group() as tasks:
            for talk in (one, other):
                tasks.start_soon(partial(talk.call, "create_batch", **order))
        (job,) = (await one.call("list_jobs"))["jobs"]
        for talk in (one, other):
            assert (await talk.call("check_status", batch=job["batch_id"], wait_seconds=20))["done"]
            assert (await talk.call("get_results", batch=job["batch_id"]))["summary"]["succeeded"] == 20
    assert _calls(sandbox) == _once(20)


async def test_a_server_that_ends_midway_leaves_open_calls_unknown_and_the_next_one_makes_the_others(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    source = write_lines(data / "rows.jsonl", [line(f"r{number}", f"Review {number} .") for number in range(12)])
    sandbox.delay_next("generateContent", 60, times=2, skip=3)
    async with converse(settings, sandbox) as talk:
        with anyio.move_on_after(1.5):
            await talk.raw("create_batch", source=source, delivery="now")
            raise AssertionError("two calls do not come back")
    assert len(sandbox.call_records) == 10

    async with converse(replace(settings, read_only=True), sandbox) as talk:
        (job,) = (await talk.call("list_jobs"))["jobs"]
        assert job["state"] == "JOB_STATE_RUNNING"
        assert (await talk.call("check_status", batch=job["batch_id"]))["counts"]["succeeded"] == 10
    async with converse(settings, sandbox) as talk:
        status = await talk.call("check_status", batch=job["batch_id"], wait_seconds=10)
        assert status["done"]
        results = await talk.call("get_results", batch=job["batch_id"], view="failures")
        assert results["summary"]["missing"] == 2
        assert all("process that made the call ended" in row["error"] for row in results["rows"])
        assert len(sandbox.call_records) == 10
        assert (await talk.call("retry_failed", batch=job["batch_id"]))["state"] == "JOB_STATE_SUCCEEDED"
    assert _calls(sandbox) == _once(12)


async def test_attached_files_and_structured_answers_go_the_same_way(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    for number in range(3):
        (data / f"note-{number}.txt").write_text(f"Note {number}", encoding="utf-8")
    created = await talk.call(
        "create_batch",
        source=str(data / "note-*.txt"),
        prompt="Sort {{name}}",
        attach="path",
        response_schema={"type": "object", "properties": {"kind": {"type": "string", "enum": ["a", "b"]}}},
        delivery="now",
    )
    assert created["state"] == "JOB_STATE_SUCCEEDED"
    assert len(sandbox.call_records[0].request["contents"][0]["parts"]) == 2
    asked = await talk.call("query_results", batch=created["batch_id"], sql="SELECT kind FROM results")
    assert {row[0] for row in asked["rows"]} <= {"a", "b"}


async def test_the_journal_holds_no_key_and_a_request_file_that_changed_is_not_called_any_further(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    source = request_file(data, 6)
    sandbox.fail_next("generateContent", status=503, retry_after=30, times=50, skip=2)
    async with converse(settings, sandbox) as talk:
        with anyio.move_on_after(1.0):
            await talk.raw("create_batch", source=source, delivery="now")
    (journal,) = (settings.home / "batches").glob("*/calls-*.jsonl")
    assert settings.api_key is None or settings.api_key.value not in journal.read_text(encoding="utf-8")
    sandbox.faults.clear()
    Path(source).write_text(Path(source).read_text(encoding="utf-8").replace("row 6", "row 7"), encoding="utf-8")
    async with converse(settings, sandbox) as talk:
        batch = journal.parent.name
        status = await talk.call("check_status", batch=batch, wait_seconds=5)
        assert status["done"], status
        results = await talk.call("get_results", batch=batch)
        assert results["summary"]["succeeded"] == 2 and results["summary"]["missing"] == 4
    assert len(sandbox.call_records) == 2


async def test_a_model_of_another_kind_is_refused_before_any_call(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    said = await talk.refusal("create_batch", **{**_order(data, 3), "model": "gemini-embedding-2"})
    assert "gemini-embedding-2" in said
    assert not sandbox.call_records
