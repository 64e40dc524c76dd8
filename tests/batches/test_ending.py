"""Cancelling and deleting what is half at Gemini: all of it stops, and nothing that may run is forgotten."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import ByTime, SandboxConfig
from gemini_batch_mcp.settings import Settings
from support.conversation import Conversation, converse, request_file
from support.extent import few

pytestmark = pytest.mark.anyio


@pytest.fixture
def timed(tmp_path: Path) -> Iterator[Sandbox]:
    """A Gemini whose jobs take a minute, and whose cancels take effect by themselves."""
    with Sandbox(tmp_path / "timed", SandboxConfig(pace=ByTime(60.0))) as service:
        yield service


def _in_three_jobs(settings: Settings, data: Path) -> tuple[Settings, str]:
    source = request_file(data, 30)
    return replace(settings, max_file_bytes=Path(source).stat().st_size // 3 + 40), source


def _cancelled(sandbox: Sandbox) -> set[str]:
    return {request.path for request in sandbox.requests if request.route == "batches.cancel"}


async def test_a_batch_that_gemini_never_got_is_deleted_once_the_whole_list_was_read(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    source = request_file(data)
    sandbox.cut_next("batches.create", when="before")
    batch = (await talk.call("create_batch", source=source))["batch_id"]

    sandbox.fail_next("batches.list", status=500, times=50)
    kept = await talk.call("delete_batch", batch=batch, confirm=True)
    assert kept["deleted"]["local"] is False
    assert "unknown" in kept["not_deleted"][0]["reason"]

    sandbox.faults.clear()
    deletion = await talk.call("delete_batch", batch=batch, confirm=True)
    assert deletion["deleted"]["local"] is True
    assert len(deletion["deleted"]["files"]) == 1
    assert (await talk.call("create_batch", source=source))["reused"] is False
    assert sandbox.creates == 1


async def test_a_lost_job_that_shows_up_is_cancelled_before_its_batch_is_deleted(
    settings: Settings, timed: Sandbox, data: Path
) -> None:
    timed.cut_next("batches.create", when="after")
    timed.fail_next("batches.list", status=500, times=50)
    async with converse(settings, timed) as talk:
        batch = (await talk.call("create_batch", source=request_file(data)))["batch_id"]
        timed.faults.clear()
        deletion = await talk.call("delete_batch", batch=batch, confirm=True)
    assert len(_cancelled(timed)) == 1
    assert len(deletion["deleted"]["jobs"]) == 1


async def test_a_batch_that_gemini_never_got_is_cancelled_once_the_whole_list_was_read(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    sandbox.cut_next("batches.create", when="before")
    batch = (await talk.call("create_batch", source=request_file(data)))["batch_id"]
    sandbox.fail_next("batches.list", status=500, times=50)
    assert "was not cancelled" in await talk.refusal("cancel_batch", batch=batch)
    sandbox.faults.clear()

    assert (await talk.call("cancel_batch", batch=batch))["state"] == "JOB_STATE_CANCELLED"


@few(2)
@pytest.mark.parametrize("status", [400, 404, 500])
async def test_a_cancel_that_fails_for_one_job_stops_the_others(
    settings: Settings, sandbox: Sandbox, data: Path, status: int
) -> None:
    settings, source = _in_three_jobs(settings, data)
    async with converse(settings, sandbox) as talk:
        created = await talk.call("create_batch", source=source)
        assert len(created["jobs"]) == 3
        sandbox.fail_next("batches.cancel", status=status, times=5 if status == 500 else 1)
        await talk.refusal("cancel_batch", batch=created["batch_id"])
        states = [job["state"] for job in (await talk.call("check_status", batch=created["batch_id"]))["jobs"]]
    assert len(_cancelled(sandbox)) == 3
    assert sum("CANCEL" in state for state in states) == 2


async def test_a_job_whose_create_is_unknown_does_not_keep_the_others_running(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    settings, source = _in_three_jobs(settings, data)
    async with converse(settings, sandbox) as talk:
        sandbox.cut_next("batches.create", when="before")
        created = await talk.call("create_batch", source=source)
        assert sandbox.creates == 2
        sandbox.fail_next("batches.list", status=500, times=50)
        await talk.refusal("cancel_batch", batch=created["batch_id"])
    assert len(_cancelled(sandbox)) == 2


async def test_jobs_beside_a_forgotten_one_are_cancelled_before_they_are_deleted(
    settings: Settings, timed: Sandbox, data: Path
) -> None:
    settings, source = _in_three_jobs(settings, data)
    async with converse(settings, timed) as talk:
        created = await talk.call("create_batch", source=source)
        timed.forget_job(created["jobs"][0]["name"])
        await talk.call("delete_batch", batch=created["batch_id"], confirm=True)
    assert {path.rpartition("/")[2].partition(":")[0] for path in _cancelled(timed)} >= {
        job["name"].rpartition("/")[2] for job in created["jobs"][1:]
    }
