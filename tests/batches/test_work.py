"""Work that outlives the call that started it."""

import logging

import anyio
import pytest

from gemini_batch_mcp.batches.work import Work
from gemini_batch_mcp.errors import UsageError

pytestmark = pytest.mark.anyio


async def test_a_caller_that_does_not_wait_leaves_the_work_running() -> None:
    gate = anyio.Event()
    ends: list[str] = []

    async def job() -> None:
        await gate.wait()
        ends.append("done")

    async with anyio.create_task_group() as task_group:
        work = Work(task_group)
        assert await work.run("a", job, wait_seconds=0) is False
        assert work.is_running("a")
        gate.set()
        assert await work.run("a", job, wait_seconds=5) is True

    assert ends == ["done"]


async def test_two_callers_of_one_name_share_one_task_and_its_failure() -> None:
    gate = anyio.Event()
    starts: list[str] = []
    failures: list[str] = []

    async def job() -> None:
        starts.append("started")
        await gate.wait()
        raise UsageError("wrong", "do better")

    async with anyio.create_task_group() as task_group:
        work = Work(task_group)

        async def ask() -> None:
            try:
                await work.run("a", job, wait_seconds=None)
            except UsageError as error:
                failures.append(str(error))

        async with anyio.create_task_group() as callers:
            callers.start_soon(ask)
            callers.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            gate.set()

    assert starts == ["started"]
    assert failures == ["wrong do better"] * 2


@pytest.mark.parametrize(("failure", "logged"), [(UsageError("wrong"), "a: wrong"), (KeyError("secret"), "KeyError")])
async def test_a_failure_that_nobody_waits_for_is_logged_without_its_insides(
    caplog: pytest.LogCaptureFixture, failure: Exception, logged: str
) -> None:
    gate = anyio.Event()

    async def job() -> None:
        await gate.wait()
        raise failure

    with caplog.at_level(logging.WARNING):
        async with anyio.create_task_group() as task_group:
            assert not await Work(task_group).run("a", job, wait_seconds=0)
            gate.set()

    assert logged in caplog.text
    assert "secret" not in caplog.text


async def test_cancelled_work_has_let_go_when_cancel_returns() -> None:
    ends: list[str] = []

    async def job() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ends.append("let go")

    async with anyio.create_task_group() as task_group:
        work = Work(task_group)
        await work.run("a", job, wait_seconds=0)
        await anyio.wait_all_tasks_blocked()
        await work.cancel("a")
        await work.cancel("a")

    assert ends == ["let go"]


async def test_what_work_found_is_handed_to_who_waits_for_it_or_else_to_who_asks_next_once() -> None:
    begun: list[int] = []
    may_end = anyio.Event()

    async def work() -> str:
        begun.append(len(begun))
        await may_end.wait()
        return f"found {len(begun)}"

    async with anyio.create_task_group() as tasks:
        shared = Work(tasks)
        assert await shared.result("a", work, wait_seconds=0) is None
        may_end.set()
        await anyio.wait_all_tasks_blocked()
        assert not shared.is_running("a")
        assert await shared.result("a", work, wait_seconds=0) == "found 1"
        assert await shared.result("a", work, wait_seconds=None) == "found 2"
        assert await shared.result("a", work, wait_seconds=None) == "found 3"
