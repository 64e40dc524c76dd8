"""Two keys on one state directory: another project's key proves nothing, changes nothing, and is told whose it is."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.batches.ledger.ledger import Ledger
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import OnCommand, SandboxConfig
from gemini_batch_mcp.settings import Secret, Settings
from support.conversation import converse, desk_of, line, newest, request_file, write_lines
from support.extent import few, in_part, pairs

pytestmark = pytest.mark.anyio


@pytest.fixture
def projects(tmp_path: Path) -> Iterator[Sandbox]:
    """A Gemini to which each key is a project of its own."""
    config = SandboxConfig(pace=OnCommand(), one_project_per_key=True, quota_retry_seconds=0)
    with Sandbox(tmp_path / "projects", config) as service:
        yield service
        assert service.unknown_requests == ()


@pytest.fixture
def foreign(settings: Settings) -> Settings:
    """The same state directory under the key of another project."""
    return replace(settings, api_key=Secret("test-key-do-not-show-2", "GOOGLE_API_KEY", hides="GEMINI_API_KEY"))


def _written(settings: Settings, batch_id: str) -> Any:
    ledger = Ledger.open(settings.home / "ledger.sqlite3")
    try:
        return ledger.batch(batch_id)
    finally:
        ledger.close()


def _mutations(service: Sandbox) -> list[str]:
    changing = ("batches.create", "batches.cancel", "batches.delete", "files.delete", "files.finalize")
    return [request.route for request in service.requests if request.route in changing]


def _rows(data: Path) -> str:
    return write_lines(data / "rows.jsonl", [line("a"), line("b", "hello [[sandbox:error:13]]")])


_CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "status": ("check_status", {"wait_seconds": 1}),
    "cancel": ("cancel_batch", {}),
    "delete": ("delete_batch", {"confirm": True}),
    "retry": ("retry_failed", {"confirm": True}),
    "results": ("get_results", {}),
}


@few(6)
@in_part
@pytest.mark.parametrize(("stage", "call"), pairs(("running", "unknown", "waiting", "ended", "collected"), _CALLS))
async def test_another_projects_key_changes_nothing_and_is_told_whose_it_is(
    settings: Settings, foreign: Settings, projects: Sandbox, data: Path, stage: str, call: str
) -> None:
    async with converse(settings, projects) as talk:
        if stage == "unknown":
            projects.cut_next("batches.create", when="after")
            projects.fail_next("batches.list", status=503, times=100)
        if stage == "waiting":
            projects.fail_next("batches.create", status=429, retry_after=0, when="after")
        batch = (await talk.call("create_batch", source=_rows(data)))["batch_id"]
        projects.faults.clear()
        if stage in ("ended", "collected"):
            projects.finish(newest(projects))
        if stage == "collected":
            await talk.call("get_results", batch=batch)
    before, done = _written(settings, batch), _mutations(projects)

    tool, arguments = _CALLS[call]
    async with converse(foreign, projects) as other:
        answer = await other.raw(tool, batch=batch, **arguments)
    said = " ".join(block.text for block in answer.content if block.type == "text")

    assert "made with another key, project or endpoint (GEMINI_API_KEY was in use then, GOOGLE_API_KEY is now)" in said
    assert _written(settings, batch) == before
    assert _mutations(projects) == done
    assert answer.is_error == (not (call == "status" or (call == "results" and stage == "collected")))


@few(3)
@pytest.mark.parametrize("stage", ["running", "unknown", "waiting", "refused", "collected"])
async def test_the_same_order_under_another_key_is_not_paid_twice_unless_that_is_wanted(
    settings: Settings, foreign: Settings, projects: Sandbox, data: Path, stage: str
) -> None:
    source = request_file(data)
    async with converse(settings, projects) as talk:
        if stage in ("unknown", "refused"):
            projects.fail_next("batches.create", status=500 if stage == "unknown" else 400, when="after")
            projects.fail_next("batches.list", status=503, times=100)
        if stage == "waiting":
            projects.fail_next("batches.create", status=429, when="after")
        await talk.raw("create_batch", source=source)
        projects.faults.clear()
        batch = (await talk.call("list_jobs"))["jobs"][0]["batch_id"] if stage != "refused" else ""
        if stage == "collected":
            projects.finish(newest(projects))
            await talk.call("get_results", batch=batch)
    creates = projects.creates

    async with desk_of(foreign, projects) as desk:
        await desk.collect()
    async with converse(foreign, projects) as other:
        again = await other.raw("create_batch", source=source)
        said = " ".join(block.text for block in again.content if block.type == "text")
        assert "made with another key" in said
        assert "resubmit=true" in said
        assert again.is_error == (stage == "refused")
        assert projects.creates == creates

        anew = await other.call("create_batch", source=source, resubmit=True)
        assert anew["batch_id"] != batch
        assert anew["state"] == "JOB_STATE_PENDING"
    assert projects.creates == creates + 1


async def test_an_order_of_which_nothing_was_sent_goes_out_with_the_key_that_it_is_given_again_with(
    settings: Settings, foreign: Settings, projects: Sandbox, data: Path
) -> None:
    source = request_file(data)
    async with converse(settings, projects) as talk:
        projects.fail_next("files.start", status=503, times=100)
        await talk.raw("create_batch", source=source)
        projects.faults.clear()
    async with desk_of(foreign, projects) as desk:
        await desk.collect()
        assert projects.creates == 0
    async with converse(foreign, projects) as other:
        assert (await other.call("create_batch", source=source))["state"] == "JOB_STATE_PENDING"
    assert projects.creates == 1


async def test_another_key_of_the_same_project_goes_on_with_everything(
    settings: Settings, foreign: Settings, sandbox: Sandbox, data: Path
) -> None:
    async with converse(settings, sandbox) as talk:
        shown = await talk.call("create_batch", source=_rows(data))
        sandbox.fail_next("batches.create", status=429, retry_after=0)
        waiting = await talk.call("create_batch", source=request_file(data))
    sandbox.finish(newest(sandbox))
    async with converse(foreign, sandbox) as other:
        assert (await other.call("get_results", batch=shown["batch_id"]))["summary"]["failed"] == 1
        await other.call("retry_failed", batch=shown["batch_id"])
        await other.comes_to(waiting["batch_id"], "JOB_STATE_PENDING")
    assert sandbox.creates == 3


@pytest.mark.parametrize("removed", [False, True])
async def test_what_an_earlier_version_wrote_down_belongs_to_whoever_gemini_shows_it_to(
    settings: Settings, foreign: Settings, projects: Sandbox, data: Path, removed: bool
) -> None:
    async with converse(settings, projects) as talk:
        batch = (await talk.call("create_batch", source=request_file(data)))["batch_id"]
    ledger = Ledger.open(settings.home / "ledger.sqlite3")
    ledger.update_job(_written(settings, batch).jobs[0].id, account="", key_origin="")
    ledger.close()
    async with converse(foreign, projects) as other:
        deleted = await other.raw("delete_batch", batch=batch, confirm=True)
        assert deleted.is_error
    assert _written(settings, batch).jobs[0].account == ""
    if removed:
        projects.forget_job(newest(projects))

    async with converse(settings, projects) as talk:
        shown = await talk.call("check_status", batch=batch)

    assert ("does not know" in shown["advice"]) == removed
    assert bool(_written(settings, batch).jobs[0].account) == (not removed)


async def test_no_file_of_the_state_directory_holds_a_key(settings: Settings, projects: Sandbox, data: Path) -> None:
    assert settings.api_key is not None
    async with converse(settings, projects) as talk:
        await talk.call("create_batch", source=request_file(data))
        files = [path.read_bytes() for path in settings.home.rglob("*") if path.is_file()]
    assert files
    assert not [content for content in files if settings.api_key.value.encode() in content]
