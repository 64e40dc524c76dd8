"""A connection cut at each step: nothing is created twice, nothing is lost, nothing is left half."""

from pathlib import Path

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from support.conversation import Conversation, request_file
from support.extent import few

pytestmark = pytest.mark.anyio


async def test_a_create_whose_reply_was_lost_is_found_and_not_repeated(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    sandbox.cut_next("batches.create", when="after")
    created = await talk.call("create_batch", source=request_file(data))

    assert created["state"] == "JOB_STATE_PENDING"
    assert created["jobs"][0]["name"] == sandbox.create_records[0].name
    assert sandbox.creates == 1


async def test_a_server_error_after_the_create_took_effect_is_recognised(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    sandbox.fail_next("batches.create", status=500, when="after")
    created = await talk.call("create_batch", source=request_file(data))

    assert created["jobs"][0]["name"] == sandbox.create_records[0].name
    assert sandbox.creates == 1


async def test_a_create_that_never_arrived_stays_unknown_until_the_order_is_given_again(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    source = request_file(data)
    sandbox.cut_next("batches.create", when="before")
    first = await talk.call("create_batch", source=source)
    assert first["state"] == "JOB_STATE_UNSPECIFIED"
    assert "reply to the create call was lost" in first["advice"]
    assert "stage unknown" in first["jobs"][0]["error"]
    assert sandbox.creates == 0

    waiting = await talk.call("check_status", batch=first["batch_id"])
    assert waiting["state"] == "JOB_STATE_UNSPECIFIED"
    assert sandbox.creates == 0

    again = await talk.call("create_batch", source=source)
    assert again["batch_id"] == first["batch_id"]
    assert again["state"] == "JOB_STATE_PENDING"
    assert sandbox.creates == 1


async def test_a_lost_create_that_shows_up_late_is_adopted_by_the_next_look(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    sandbox.cut_next("batches.create", when="after")
    sandbox.fail_next("batches.list", status=500, times=50)
    first = await talk.call("create_batch", source=request_file(data))
    assert first["state"] == "JOB_STATE_UNSPECIFIED"
    sandbox.faults.clear()

    status = await talk.call("check_status", batch=first["batch_id"])

    assert status["state"] == "JOB_STATE_PENDING"
    assert sandbox.creates == 1


@few(3)
@pytest.mark.parametrize("route", ["files.start", "files.chunk", "files.finalize"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_upload_that_is_cut_is_repeated_and_created_once(
    talk: Conversation, sandbox: Sandbox, data: Path, route: str, when: str
) -> None:
    rows = 20_000 if route == "files.chunk" else 3
    source = request_file(data, rows, mark="x" * 9_000_000 if route == "files.chunk" else "")
    sandbox.cut_next(route, when="before" if when == "before" else "after")
    created = await talk.call("create_batch", source=source)

    assert created["request_count"] == rows
    assert sandbox.creates == 1


@pytest.mark.parametrize("route", ["files.start", "files.finalize"])
async def test_an_upload_that_keeps_failing_ends_in_a_sentence_and_leaves_nothing(
    talk: Conversation, sandbox: Sandbox, data: Path, route: str
) -> None:
    sandbox.cut_next(route, when="before", times=20)
    await talk.refusal("create_batch", source=request_file(data))

    assert sandbox.creates == 0
    assert (await talk.call("list_jobs"))["jobs"] == []


@pytest.mark.parametrize("route", ["batches.get", "batches.list", "models.list"])
async def test_a_cut_read_is_repeated(talk: Conversation, sandbox: Sandbox, data: Path, route: str) -> None:
    sandbox.cut_next(route, when="after")
    created = await talk.call("create_batch", source=request_file(data))

    assert (await talk.call("check_status", batch=created["batch_id"]))["state"] == "JOB_STATE_PENDING"
    assert len((await talk.call("list_jobs"))["jobs"]) == 1


@few(2)
@pytest.mark.parametrize("at_byte", [0, 1, 200])
async def test_a_cut_download_is_taken_up_again_and_whole(
    talk: Conversation, sandbox: Sandbox, data: Path, at_byte: int
) -> None:
    created = await talk.call("create_batch", source=request_file(data, 50))
    sandbox.finish(created["jobs"][0]["name"])
    sandbox.cut_next("files.download", when="after", at_byte=at_byte)
    results = await talk.call("get_results", batch=created["batch_id"], view="rows", limit=50)

    assert len(results["rows"]) == 50
    assert results["integrity_ok"]


async def test_a_download_that_keeps_failing_leaves_nothing_and_can_be_repeated(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    created = await talk.call("create_batch", source=request_file(data, 50))
    sandbox.finish(created["jobs"][0]["name"])
    sandbox.cut_next("files.download", when="after", at_byte=100, times=50)
    await talk.refusal("get_results", batch=created["batch_id"])
    left = [path.name for path in (talk.settings.home / "batches" / created["batch_id"]).iterdir()]
    assert not [name for name in left if "answers" in name or "results" in name]

    sandbox.faults.clear()
    assert (await talk.call("get_results", batch=created["batch_id"]))["integrity_ok"]


async def test_a_cancel_whose_reply_was_lost_is_repeated(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    created = await talk.call("create_batch", source=request_file(data))
    sandbox.cut_next("batches.cancel", when="after")
    cancelled = await talk.call("cancel_batch", batch=created["batch_id"])

    assert cancelled["batch_id"] == created["batch_id"]


async def test_a_well_formed_short_body_is_noticed_by_its_missing_rows_and_fetched_again(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    created = await talk.call("create_batch", source=request_file(data, 50))
    sandbox.finish(created["jobs"][0]["name"])
    sandbox.shorten_next("files.download", at_byte=3000)
    results = await talk.call("get_results", batch=created["batch_id"])

    assert results["summary"]["succeeded"] == 50
    assert results["integrity_ok"]


async def test_while_geminis_list_cannot_be_read_nothing_is_created_again(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    """An absence that was never seen is no absence: the first create did take effect here."""
    source = request_file(data)
    sandbox.cut_next("batches.create", when="after")
    sandbox.fail_next("batches.list", status=503, times=200)
    await talk.call("create_batch", source=source)

    assert "not created" in await talk.refusal("create_batch", source=source)
    assert sandbox.creates == 1
    sandbox.faults.clear()
    found = await talk.call("create_batch", source=source)
    assert found["jobs"][0]["name"] == sandbox.create_records[0].name
    assert sandbox.creates == 1
