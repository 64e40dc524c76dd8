"""What an earlier process left unfinished is gone on with: at the start, for cron, and never by two at once."""

import logging
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from gemini_batch_mcp.batches.opening import LazyDesk, lazy_desk
from gemini_batch_mcp.domain import JobState, Order, ResultQuery
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import newest, request_file, until

pytestmark = pytest.mark.anyio


async def _place(settings: Settings, sandbox: Sandbox, data: Path, *, rows: int = 3) -> str:
    async with lazy_desk(settings, sandbox.transport) as lazy:
        placed = await (await lazy.get()).place_order(Order(source=request_file(data, rows)))
    return placed.status.batch.id


async def _until_settled(lazy: LazyDesk) -> None:
    ledger = (await lazy.get()).app.ledger
    await until(lambda: not ledger.unsettled_ids())


async def test_collect_fetches_what_has_ended_and_then_has_nothing_to_do(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    batch = await _place(settings, sandbox, data)
    async with lazy_desk(settings, sandbox.transport) as lazy:
        desk = await lazy.get()
        (running,) = await desk.collect()
        assert running.status is not None
        assert running.status.state is JobState.PENDING
        sandbox.finish(newest(sandbox))
        (ended,) = await desk.collect()
        assert ended.batch_id == batch
        assert desk.app.files(batch).table.is_file()
        assert await desk.collect() == ()
        before = len(sandbox.requests)
        results = await desk.results(batch, ResultQuery())
        assert results.summary.succeeded == 3
        assert len(sandbox.requests) == before


async def test_a_server_goes_on_by_itself_after_its_start(
    settings: Settings, sandbox: Sandbox, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gemini_batch_mcp.batches.opening._WARM_UP_AFTER_SECONDS", 0.0)
    batch = await _place(settings, sandbox, data)
    sandbox.finish(newest(sandbox))
    async with lazy_desk(settings, sandbox.transport, warm_up=True, lives_on=True) as lazy:
        await _until_settled(lazy)
        assert (await lazy.get()).app.files(batch).table.is_file()


async def test_a_half_submitted_batch_is_finished_after_a_restart(
    settings: Settings, sandbox: Sandbox, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gemini_batch_mcp.batches.opening._WARM_UP_AFTER_SECONDS", 0.0)
    source = request_file(data, 30)
    limited = replace(settings, max_file_bytes=Path(source).stat().st_size // 3 + 100)
    sandbox.delay_next("files.start", 30, skip=1)
    async with lazy_desk(limited, sandbox.transport) as lazy:
        await (await lazy.get()).preview(Order(source=source))
        placed = await (await lazy.get()).place_order(Order(source=source), wait_seconds=0)
        await until(lambda: [request.route for request in sandbox.requests].count("files.start") == 2)
    assert sandbox.creates == 1
    async with lazy_desk(limited, sandbox.transport, warm_up=True, lives_on=True) as lazy:
        await until(lambda: sandbox.creates == 3)
        for record in sandbox.create_records:
            sandbox.finish(record.name)
        await _until_settled(lazy)
        results = await (await lazy.get()).results(placed.status.batch.id, ResultQuery())
    assert results.summary.succeeded == 30
    assert sandbox.creates == 3


async def test_an_unknown_create_is_looked_for_and_never_repeated_without_the_user(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    sandbox.cut_next("batches.create", when="before")
    batch = await _place(settings, sandbox, data)
    async with lazy_desk(settings, sandbox.transport) as lazy:
        for _ in range(3):
            (advanced,) = await (await lazy.get()).collect()
            assert advanced.batch_id == batch
    assert sandbox.creates == 0


async def test_one_batch_that_fails_does_not_keep_the_others_back(
    settings: Settings, sandbox: Sandbox, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = await _place(settings, sandbox, data, rows=2)
    second = await _place(settings, sandbox, data, rows=4)
    for record in sandbox.create_records:
        sandbox.finish(record.name)
    sandbox.fail_next("files.download", status=403, times=1)
    with caplog.at_level(logging.ERROR):
        async with lazy_desk(settings, sandbox.transport) as lazy:
            advanced = await (await lazy.get()).collect()
    assert [entry.batch_id for entry in advanced] == [first, second]
    assert [bool(entry.failure) for entry in advanced] == [True, False]


async def test_two_processes_collect_a_batch_once(settings: Settings, sandbox: Sandbox, data: Path) -> None:
    await _place(settings, sandbox, data, rows=50)
    sandbox.finish(newest(sandbox))
    async with lazy_desk(settings, sandbox.transport) as one, lazy_desk(settings, sandbox.transport) as other:
        first, second = await one.get(), await other.get()
        async with anyio.create_task_group() as group:
            group.start_soon(first.collect)
            group.start_soon(second.collect)
    assert sum(request.route == "files.download" for request in sandbox.requests) == 1


async def test_a_read_only_server_goes_on_with_nothing(
    settings: Settings, sandbox: Sandbox, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gemini_batch_mcp.batches.opening._WARM_UP_AFTER_SECONDS", 0.0)
    await _place(settings, sandbox, data)
    sandbox.finish(newest(sandbox))
    before = len(sandbox.requests)
    async with lazy_desk(replace(settings, read_only=True), sandbox.transport, warm_up=True) as lazy:
        await lazy.look_after()
    assert len(sandbox.requests) == before
