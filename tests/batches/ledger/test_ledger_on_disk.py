"""The ledger that one writes to is the one on the disk: what is lost of it is noticed before anything is sent."""

import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gemini_batch_mcp.cli.doctor import examine
from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import ROWS, converse, desk_of, line, newest, request_file, write_lines
from support.extent import few

pytestmark = pytest.mark.anyio


def _remove(home: Path) -> None:
    shutil.rmtree(home)


def _replace(home: Path) -> None:
    copy = home.with_name("copy")
    subprocess.run(["cp", "-a", str(home), str(copy)], check=True)
    shutil.rmtree(home)
    copy.rename(home)


def _new_ledger(home: Path) -> None:
    for path in home.glob("ledger.sqlite3*"):
        path.unlink()
    (home / "ledger.sqlite3").touch()


def _empty(home: Path) -> None:
    database = sqlite3.connect(home / "ledger.sqlite3")
    for table in ("saved_files", "attachments", "jobs", "batches", "quotes"):
        database.execute(f"DELETE FROM {table}")
    database.commit()
    database.close()


async def test_a_look_that_finds_nothing_new_does_not_wait_for_the_disk(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    async with converse(settings, sandbox) as talk:
        batch = (await talk.call("create_batch", source=request_file(data)))["batch_id"]
        await talk.call("check_status", batch=batch)
        onlooker = sqlite3.connect(settings.home / "ledger.sqlite3")

        def version() -> int:
            return int(onlooker.execute("PRAGMA data_version").fetchone()[0])

        before = version()
        await talk.call("check_status", batch=batch)
        assert version() == before
        sandbox.finish(newest(sandbox))
        assert (await talk.call("check_status", batch=batch))["done"]
        assert version() != before
        onlooker.close()


@few(2)
@pytest.mark.parametrize("lose", [_remove, _replace, _new_ledger, _empty])
async def test_a_ledger_that_is_lost_under_a_running_server_is_named_before_anything_is_sent(
    settings: Settings, sandbox: Sandbox, data: Path, lose: Callable[[Path], None]
) -> None:
    source = request_file(data)
    async with converse(settings, sandbox) as talk:
        first = await talk.call("create_batch", source=source)
        lose(settings.home)
        again = await talk.refusal("create_batch", source=source)
        other = await talk.refusal("create_batch", source=request_file(data, 5, name="other.jsonl"))
    for sentence in (again, other):
        assert "GEMINI_BATCH_HOME" in sentence
        assert "restart this server" in sentence.lower()
    assert sandbox.creates == 1
    if lose is _remove:
        return
    async with converse(settings, sandbox) as talk:
        found = await talk.call("create_batch", source=source)
        assert found["reused"]
        assert found["batch_id"] == first["batch_id"]
        assert [job["name"] for job in found["jobs"]] == [newest(sandbox)]
    assert sandbox.creates == 1


@pytest.mark.parametrize("lose", [_new_ledger, _empty])
async def test_a_batch_that_is_taken_back_is_all_there(
    settings: Settings, sandbox: Sandbox, data: Path, lose: Callable[[Path], None]
) -> None:
    source = write_lines(data / "rows.jsonl", [line("a"), line("b", "hello [[sandbox:error:13]] [[sandbox:once]]")])
    async with desk_of(settings, sandbox) as desk:
        batch = (await desk.place_order(Order(source=source))).status.batch.id
        sandbox.finish(newest(sandbox))
        before = await desk.results(batch, ROWS)
    lose(settings.home)

    async with desk_of(settings, sandbox) as desk:
        assert desk.app.taken_back == (batch,)
        after = await desk.results(batch, ROWS)
        assert after.summary == before.summary
        assert after.page == before.page
        await desk.retry(batch, ())
        sandbox.finish(newest(sandbox))
        assert (await desk.results(batch, ROWS)).summary.succeeded == 2
    assert sandbox.creates == 2


async def test_jobs_that_have_other_numbers_now_keep_their_answers(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    """The emptied ledger has counted anew meanwhile, and somebody has looked at the lost job as one made elsewhere."""
    async with desk_of(settings, sandbox) as desk:
        lost = (await desk.place_order(Order(source=request_file(data)))).status.batch
        sandbox.finish(newest(sandbox))
        await desk.results(lost.id, ROWS)
    directory = settings.home / "batches" / lost.id
    shutil.move(directory, data / "aside")
    _new_ledger(settings.home)
    async with desk_of(settings, sandbox) as desk:
        await desk.status(lost.jobs[0].name or newest(sandbox))
        await desk.place_order(Order(source=request_file(data, 5, name="other.jsonl")))
    shutil.move(data / "aside", directory)

    async with desk_of(settings, sandbox) as desk:
        assert desk.app.taken_back == (lost.id,)
        results = await desk.results(lost.id, ROWS)
    assert results.summary.succeeded == 3
    assert sum(request.route == "files.download" for request in sandbox.requests) == 1


async def test_doctor_says_what_was_taken_back_and_what_cannot_be(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    async with desk_of(settings, sandbox) as desk:
        batch = (await desk.place_order(Order(source=request_file(data)))).status.batch.id
    _empty(settings.home)
    (settings.home / "batches" / "old-abc234").mkdir()

    report = await examine(settings, sandbox.transport, data, {})
    (state,) = [check for check in report.checks if check.name == "state"]

    assert not state.ok
    assert f"the ledger had lost {batch}: just restored" in state.finding
    assert "the ledger has no record of old-abc234" in state.finding


async def test_a_batch_that_was_deleted_is_not_taken_back(settings: Settings, sandbox: Sandbox, data: Path) -> None:
    async with converse(settings, sandbox) as talk:
        batch = (await talk.call("create_batch", source=request_file(data)))["batch_id"]
        sandbox.finish(newest(sandbox))
        await talk.call("delete_batch", batch=batch, confirm=True)
    async with desk_of(settings, sandbox) as desk:
        assert desk.app.taken_back == ()
        assert desk.app.unknown_directories() == ()
