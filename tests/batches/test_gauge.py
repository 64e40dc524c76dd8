"""Work that several callers wait for is read on the gauge of each of them."""

import anyio
import pytest

from gemini_batch_mcp.batches.gauge import Doing, Gauge, Progress
from gemini_batch_mcp.batches.work import Work

pytestmark = pytest.mark.anyio


async def test_whoever_joins_work_reads_how_far_it_is_while_it_runs_and_when_it_has_ended() -> None:
    first, second, may_end = Gauge(), Gauge(), anyio.Event()

    async def work() -> None:
        first.show(Progress(Doing.UPLOADING, 5, 10))
        await may_end.wait()
        first.show(Progress(Doing.UPLOADING, 10, 10))

    async with anyio.create_task_group() as tasks:
        shared = Work(tasks)
        assert not await shared.run("a", work, wait_seconds=0, gauge=first)
        await anyio.wait_all_tasks_blocked()
        second.show(Progress(Doing.CHECKING, 3))
        async with anyio.create_task_group() as waiting:

            async def join() -> None:
                assert await shared.run("a", work, wait_seconds=None, gauge=second)

            waiting.start_soon(join)
            await anyio.wait_all_tasks_blocked()
            assert list(map(str, second.readings())) == ["Checking: 3 lines", "Uploading: 5 of 10 bytes"]
            may_end.set()
    assert list(map(str, second.readings())) == ["Checking: 3 lines", "Uploading: 10 of 10 bytes"]


def test_the_stage_at_work_is_read_last() -> None:
    gauge = Gauge()
    for doing in (Doing.COLLECTING, Doing.DOWNLOADING, Doing.COLLECTING):
        gauge.show(Progress(doing, 1))

    assert [reading.doing for reading in gauge.readings()] == [Doing.DOWNLOADING, Doing.COLLECTING]


@pytest.mark.parametrize(
    ("reading", "message", "next_step"),
    [
        (
            Progress(Doing.READING, 120_000, 200_000),
            "while this machine was at work (Reading: 120,000 of 200,000 files).",
            "The work continues in the background: make the same call again in half a minute.",
        ),
        (
            Progress(Doing.READING, 9, 9),
            "(Reading: 9 of 9 files); Gemini may be slow to answer, or this",
            "call list_jobs",
        ),
        (Progress(Doing.UPLOADING, 5, 10), "(Uploading: 5 of 10 bytes); Gemini may be slow", "call list_jobs"),
        (None, "was stopped; Gemini may be slow to answer, or this machine busy.", "call list_jobs"),
    ],
)
def test_a_call_that_took_too_long_says_what_was_at_work_then(
    reading: Progress | None, message: str, next_step: str
) -> None:
    gauge = Gauge()
    if reading is not None:
        gauge.show(reading)

    stopped = gauge.stopped("preview_batch", 49)

    assert stopped.message.startswith("preview_batch took 49 seconds and was stopped")
    assert message in stopped.message and next_step in stopped.next_step
