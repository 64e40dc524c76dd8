"""Corners of the batches room that a conversation seldom reaches, and that must hold all the same."""

import json
from dataclasses import replace
from pathlib import Path

import anyio
import httpx2
import pytest

from gemini_batch_mcp.batches.ledger.entries import Stage
from gemini_batch_mcp.batches.ledger.ledger import Ledger
from gemini_batch_mcp.batches.opening import lazy_desk
from gemini_batch_mcp.domain import JobState, Order
from gemini_batch_mcp.errors import BatchError, StorageError
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import SandboxConfig
from gemini_batch_mcp.settings import Settings
from support.conversation import Conversation, converse, line, request_file
from support.extent import few, long
from support.services import Gate, is_finalize

pytestmark = pytest.mark.anyio


async def test_an_upload_that_takes_longer_than_a_call_may_goes_on_and_is_followed(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    source = request_file(data)
    sandbox.delay_next("files.finalize", 0.3)
    async with lazy_desk(settings, sandbox.transport) as lazy:
        desk = await lazy.get()
        await desk.preview(Order(source=source))
        placed = await desk.place_order(Order(source=source), wait_seconds=0.05)
        assert placed.status.state is JobState.QUEUED
        assert "being sent to Gemini" in placed.status.advice
        status = placed.status
        while status.state is JobState.QUEUED:
            status = await desk.status(placed.status.batch.id, wait_seconds=0.05)
        assert status.state is JobState.PENDING
    assert sandbox.creates == 1


async def test_cancelling_while_the_requests_are_on_their_way_submits_nothing(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    sandbox.delay_next("files.start", 5)
    async with lazy_desk(settings, sandbox.transport) as lazy:
        desk = await lazy.get()
        await desk.preview(Order(source=request_file(data)))
        placed = await desk.place_order(Order(source=request_file(data)), wait_seconds=0.05)
        cancelled = await desk.cancel(placed.status.batch.id)
        assert cancelled.state is JobState.CANCELLED
        again = await desk.status(placed.status.batch.id)
        assert again.state is JobState.CANCELLED
    assert sandbox.creates == 0


async def test_a_failure_that_comes_after_the_call_is_shown_by_check_status(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    body = {"error": {"code": 400, "message": "Error on line 2: no such field", "status": "INVALID_ARGUMENT"}}
    sandbox.delay_next("files.finalize", 0.2)
    sandbox.fail_next("batches.create", status=400, body=body)
    async with lazy_desk(settings, sandbox.transport) as lazy:
        desk = await lazy.get()
        await desk.preview(Order(source=request_file(data)))
        placed = await desk.place_order(Order(source=request_file(data)), wait_seconds=0.05)
        status = placed.status
        while status.state in (JobState.QUEUED, JobState.UNSPECIFIED):
            status = await desk.status(placed.status.batch.id, wait_seconds=0.05)
        assert status.state is JobState.FAILED
        assert "Error on line 2" in status.advice


async def test_answers_that_take_long_to_fetch_are_fetched_in_the_background(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    from gemini_batch_mcp.domain import ResultQuery
    from gemini_batch_mcp.errors import StillCollecting

    async with lazy_desk(settings, sandbox.transport) as lazy:
        desk = await lazy.get()
        batch = (await desk.place_order(Order(source=request_file(data)))).status.batch
        sandbox.finish(batch.jobs[0].name)
        sandbox.delay_next("files.download", 0.3)
        with pytest.raises(StillCollecting, match="still being fetched"):
            await desk.results(batch.id, ResultQuery(), wait_seconds=0.05)
        results = await desk.results(batch.id, ResultQuery(), wait_seconds=30)
        assert results.summary.succeeded == 3
    assert sum(request.route == "files.download" for request in sandbox.requests) == 1


async def test_an_order_that_died_before_its_upload_is_taken_up_by_the_same_order(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    """As if the process had been killed at each stage: the ledger is put there by hand."""
    source = request_file(data)
    async with converse(settings, sandbox) as talk:
        first = await talk.call("create_batch", source=source)
    for stage, uploaded in ((Stage.RESERVED, ""), (Stage.UPLOADED, "files/gone12345678"), (Stage.UNKNOWN, "")):
        ledger = Ledger.open(settings.home / "ledger.sqlite3")
        batch = ledger.batch(first["batch_id"])
        assert batch is not None
        # No create of it has left but where its outcome is unknown.
        sent = {} if stage is Stage.UNKNOWN else {"sent_at": None}
        ledger.update_job(
            batch.jobs[0].id, stage=stage, uploaded_file=uploaded, name=None, state=JobState.QUEUED, **sent
        )
        ledger.close()
        creates = sandbox.creates
        async with converse(settings, sandbox) as talk:
            again = await talk.call("create_batch", source=source)
        assert again["batch_id"] == first["batch_id"]
        assert again["state"] == "JOB_STATE_PENDING"
        # An unknown outcome is found in Gemini's list; the other two never had a job.
        assert sandbox.creates == creates + (0 if stage is Stage.UNKNOWN else 1)


async def test_a_damaged_table_and_lost_answers_are_made_again(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    created = await talk.call("create_batch", source=request_file(data))
    sandbox.finish(created["jobs"][0]["name"])
    await talk.call("get_results", batch=created["batch_id"])
    directory = talk.settings.home / "batches" / created["batch_id"]
    (directory / "results.json").write_bytes(b"not a table")
    assert (await talk.call("get_results", batch=created["batch_id"]))["summary"]["succeeded"] == 3
    for path in directory.glob("answers-*.jsonl"):
        path.unlink()

    assert (await talk.call("get_results", batch=created["batch_id"]))["summary"]["succeeded"] == 3
    assert sum(request.route == "files.download" for request in sandbox.requests) == 2


@long
async def test_an_inline_order_that_is_too_large_says_to_use_a_file(talk: Conversation, sandbox: Sandbox) -> None:
    requests = [{"key": f"k{number}", "prompt": "x" * 1_000_000} for number in range(21)]
    sentence = await talk.refusal("create_batch", requests=requests, delivery="inline")

    assert "delivery='file'" in sentence
    assert sandbox.creates == 0


async def test_a_list_of_models_that_cannot_be_had_leaves_the_decision_to_gemini(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    sandbox.fail_next("models.list", status=503, times=50)
    created = await talk.call("create_batch", source=request_file(data))

    assert created["state"] == "JOB_STATE_PENDING"


async def test_a_malformed_model_name_is_refused_before_anything_is_asked(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    assert "not a model name" in await talk.refusal("create_batch", source=request_file(data), model="../x y")
    assert sandbox.requests == ()


async def test_jobs_made_elsewhere_page_after_those_of_the_ledger(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    async with converse(replace(settings, home=settings.home / "other"), sandbox) as other:
        for number in range(3):
            name = f"elsewhere {number}"
            await other.call("create_batch", source=request_file(data, number + 1), display_name=name)
    async with converse(settings, sandbox) as talk:
        mine = await talk.call("create_batch", source=request_file(data, 9), display_name="mine")
        seen: list[str] = []
        cursor = ""
        while True:
            page = await talk.call("list_jobs", limit=1, cursor=cursor)
            seen += [entry["display_name"] for entry in page["jobs"]]
            if not (cursor := page["next_cursor"]):
                break
        assert seen == ["mine", "elsewhere 2", "elsewhere 1", "elsewhere 0"]
        assert "mine" in await talk.text("list_jobs", search=mine["batch_id"])
        assert "No jobs match." in await talk.text("list_jobs", search="nothing like it")
        found = await talk.call("list_jobs", search="elsewhere 1")
        assert [entry["display_name"] for entry in found["jobs"]] == ["elsewhere 1"]
        sandbox.fail_next("batches.list", status=503, times=50)
        assert "Jobs made elsewhere are not shown" in await talk.text("list_jobs")


async def test_two_jobs_of_one_name_made_elsewhere_are_told_apart_by_their_job_names(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    async with converse(replace(settings, home=settings.home / "other"), sandbox) as other:
        for number in (1, 2):
            await other.call("create_batch", source=request_file(data, number), display_name="twin")
    async with converse(settings, sandbox) as talk:
        sentence = await talk.refusal("check_status", batch="twin")
        assert "2 jobs are named 'twin'" in sentence
        assert "batches/" in sentence
        assert "No batch was given" in await talk.refusal("check_status", batch=" ")


async def test_a_running_batch_is_cancelled_before_it_is_deleted(
    tmp_path: Path, settings: Settings, data: Path
) -> None:
    with Sandbox(tmp_path / "quick", SandboxConfig()) as service:
        async with converse(settings, service) as talk:
            created = await talk.call("create_batch", source=request_file(data))
            deletion = await talk.call("delete_batch", batch=created["batch_id"], confirm=True)
            assert deletion["deleted"]["local"] is True
            routes = [request.route for request in service.requests]
            assert routes.index("batches.cancel") < routes.index("batches.delete")


async def test_a_batch_whose_job_gemini_has_forgotten_can_still_be_deleted(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    created = await talk.call("create_batch", source=request_file(data))
    sandbox.forget_job(created["jobs"][0]["name"])

    status = await talk.call("check_status", batch=created["batch_id"])
    assert status["state"] == "JOB_STATE_PENDING"
    assert "no longer knows" in status["advice"]
    deletion = await talk.call("delete_batch", batch=created["batch_id"], confirm=True)
    assert deletion["deleted"]["local"] is True


async def test_a_job_that_gemini_will_not_delete_stays_known(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    created = await talk.call("create_batch", source=request_file(data))
    sandbox.finish(created["jobs"][0]["name"])
    body = {"error": {"code": 400, "message": "Not now.", "status": "FAILED_PRECONDITION"}}
    sandbox.fail_next("batches.delete", status=400, body=body)
    text = await talk.text("delete_batch", batch=created["batch_id"], confirm=True)

    assert "Not deleted" in text
    assert (await talk.call("check_status", batch=created["batch_id"]))["done"]


async def test_an_old_job_is_advised_upon(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    """The ledger's clock is moved back: what counts is when Gemini says that the job was made."""
    from datetime import UTC, datetime, timedelta

    from gemini_batch_mcp.batches.jobs.tracking import describe

    created = await talk.call("create_batch", source=request_file(data))
    ledger = Ledger.open(talk.settings.home / "ledger.sqlite3")
    batch = ledger.batch(created["batch_id"])
    assert batch is not None
    old = replace(batch.jobs[0], created_at=datetime.now(UTC) - timedelta(hours=30))
    status = describe(replace(batch, jobs=(old,)))
    ledger.close()

    assert "past the 24-hour target" in status.advice
    assert "about 17 hours" in status.advice or "about 18 hours" in status.advice


@few(4)
@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (("RUNNING", "SUCCEEDED"), "RUNNING"),
        (("PENDING", "SUCCEEDED"), "RUNNING"),
        (("PENDING", "QUEUED"), "PENDING"),
        (("SUCCEEDED", "FAILED"), "PARTIALLY_SUCCEEDED"),
        (("EXPIRED", "FAILED"), "FAILED"),
        (("CANCELLING", "RUNNING"), "CANCELLING"),
        (("SUCCEEDED", "SUCCEEDED"), "SUCCEEDED"),
    ],
)
async def test_one_state_sums_up_several_jobs(
    talk: Conversation, data: Path, states: tuple[str, str], expected: str
) -> None:
    from gemini_batch_mcp.batches.jobs.rows import batch_state

    created = await talk.call("create_batch", source=request_file(data))
    ledger = Ledger.open(talk.settings.home / "ledger.sqlite3")
    batch = ledger.batch(created["batch_id"])
    ledger.close()
    assert batch is not None
    jobs = tuple(replace(batch.jobs[0], state=JobState(f"JOB_STATE_{state}")) for state in states)

    assert batch_state(replace(batch, jobs=jobs)) is JobState(f"JOB_STATE_{expected}")


async def test_a_state_directory_that_cannot_be_used_is_a_sentence_of_each_call(
    settings: Settings, sandbox: Sandbox, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    async with converse(replace(settings, home=tmp_path / "file" / "home"), sandbox) as talk:
        assert "GEMINI_BATCH_HOME" in await talk.refusal("list_jobs")
        assert len((await talk.client.list_tools()).tools) == 10


async def test_warming_up_opens_the_desk_and_survives_a_state_directory_that_cannot_be_used(
    settings: Settings, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gemini_batch_mcp.batches.opening._WARM_UP_AFTER_SECONDS", 0.0)
    async with lazy_desk(settings, sandbox.transport, warm_up=True) as lazy:
        await lazy.warm_up()
        assert (await lazy.get()) is (await lazy.get())
    (tmp_path / "file").touch()
    async with lazy_desk(replace(settings, home=tmp_path / "file" / "x"), sandbox.transport, warm_up=True) as lazy:
        await lazy.warm_up()
        with pytest.raises(StorageError):
            await lazy.get()


async def test_an_error_that_nobody_foresaw_gives_away_neither_its_text_nor_a_traceback(
    talk: Conversation, sandbox: Sandbox, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_arguments: object, **_named: object) -> None:
        raise KeyError("AIzaSecret")

    monkeypatch.setattr("gemini_batch_mcp.batches.desk.list_jobs", broken)
    sentence = await talk.refusal("list_jobs")

    assert "unexpected error (KeyError in broken" in sentence
    assert "AIza" not in sentence + caplog.text
    assert "Traceback" not in caplog.text


async def test_a_row_that_a_person_wrote_into_a_job_made_elsewhere_without_keys_is_read(
    talk: Conversation, sandbox: Sandbox
) -> None:
    """Uploaded and created by hand: bare lines without keys, as the guide's REST section shows them."""
    headers = {"x-goog-api-key": "k"}
    async with httpx2.AsyncClient(transport=sandbox.transport(), base_url="http://sandbox", headers=headers) as http:
        requests = [{"request": {"contents": [{"parts": [{"text": "one"}]}]}}]
        body = {"batch": {"displayName": "by hand", "inputConfig": {"requests": {"requests": requests}}}}
        reply = await http.post("/v1beta/models/gemini-3-flash-preview:batchGenerateContent", json=body)
        job = reply.json()["name"]
    sandbox.finish(job)
    results = await talk.call("get_results", batch="by hand", view="rows")

    assert results["summary"]["expected"] == 1
    assert len(results["rows"]) == 1


async def test_numbers_in_requests_given_in_the_call_reach_gemini_as_they_are(talk: Conversation) -> None:
    request = json.loads(line("k", "x", generationConfig={"temperature": 0.25, "maxOutputTokens": 64}))["request"]
    created = await talk.call("create_batch", requests=[{"key": "k", "request": request}])
    sent = (talk.settings.home / "batches" / created["batch_id"] / "requests.jsonl").read_text(encoding="utf-8")

    assert json.loads(sent)["request"] == request


async def test_a_cancel_in_another_process_stops_an_order_that_is_on_its_way(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    """Two desks on one state directory stand for two processes."""
    gate = Gate(sandbox, is_finalize)
    async with (
        lazy_desk(settings, lambda: gate) as first,
        lazy_desk(settings, sandbox.transport) as second,
    ):
        ordering, other = await first.get(), await second.get()
        await ordering.preview(Order(source=request_file(data)))
        placed = await ordering.place_order(Order(source=request_file(data)), wait_seconds=0.1)
        await gate.has_come.wait()
        cancelled = await other.cancel(placed.status.batch.id)
        assert cancelled.state is JobState.CANCELLED
        gate.is_open.set()
        with pytest.raises(BatchError, match="was changed while it was being submitted"):
            await ordering.app.work.run(f"submit {placed.status.batch.id}", anyio.lowlevel.checkpoint, wait_seconds=10)
    assert sandbox.creates == 0
