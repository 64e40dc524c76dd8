"""Collecting when the machine itself is in the way: what was fetched stays, and nothing half is left behind."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gemini_batch_mcp.batches.answers.collecting import collect_batch
from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.errors import StorageError, Unavailable
from gemini_batch_mcp.paths import DRAFT_PREFIX
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import (
    ROWS,
    answers_of,
    desk_of,
    downloads,
    ended,
    hooked_desk,
    line,
    newest,
    request_file,
    write_lines,
)
from support.extent import long

pytestmark = pytest.mark.anyio


def losing_workspaces(settings: Settings) -> Callable[[str], None]:
    """Return a hook that once removes what a build needs while its answers are on their way."""
    lost: list[Path] = []

    def hook(step: str) -> None:
        if step == "download:before" and not lost:
            lost.extend(settings.home.glob(f"batches/*/{DRAFT_PREFIX}*"))
            for directory in lost:
                shutil.rmtree(directory)

    return hook


async def test_answers_that_could_not_be_staged_have_been_kept(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    async with hooked_desk(settings, sandbox, losing_workspaces(settings)) as desk:
        batch = await ended(desk, sandbox, request_file(data))
        with pytest.raises(StorageError, match="could not be made into"):
            await desk.results(batch, ROWS)
        (path,) = answers_of(settings, batch)
        assert len(path.read_bytes().splitlines()) == 3

        assert (await desk.results(batch, ROWS)).summary.integrity_ok
        assert [entry.name for entry in path.parent.iterdir() if entry.name.startswith(".")] == []
    assert downloads(sandbox) == 1


@long
async def test_answers_that_are_sent_anew_are_taken_from_the_whole_file(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    """Some were staged by then; none of them is in the table twice."""
    rows = [line(f"k{number:03}", f"[[sandbox:chars:1000000]] {number}") for number in range(150)]
    async with desk_of(settings, sandbox) as desk:
        batch = await ended(desk, sandbox, write_lines(data / "long.jsonl", rows))
        sandbox.cut_next("files.download", at_byte=140_000_000, times=6)
        results = await desk.results(batch, ROWS)

    assert results.summary.integrity_ok and results.summary.succeeded == 150
    assert downloads(sandbox) > 6


async def test_a_download_that_fails_for_good_leaves_nothing(settings: Settings, sandbox: Sandbox, data: Path) -> None:
    async with desk_of(settings, sandbox) as desk:
        batch = await ended(desk, sandbox, request_file(data, 100))
        sandbox.cut_next("files.download", at_byte=3000, times=100)
        with pytest.raises(Unavailable):
            await desk.results(batch, ROWS)

    left = {entry.name for entry in (settings.home / "batches" / batch).iterdir()}
    assert left <= {"batch.json", "identities.parquet", "keys.jsonl", "requests.jsonl"}


async def test_inlined_answers_that_cannot_be_written_are_a_sentence(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    async with desk_of(settings, sandbox) as desk:
        order = Order(requests=({"key": "a", "prompt": "hello"},), delivery="inline")
        batch = (await desk.place_order(order)).status.batch
        sandbox.finish(newest(sandbox))
        in_the_way = desk.app.files(batch.id).answers(batch.jobs[0].id)
        in_the_way.mkdir()
        with pytest.raises(StorageError, match="could not be written"):
            await desk.results(batch.id, ROWS)
        in_the_way.rmdir()

        assert (await desk.results(batch.id, ROWS)).summary.succeeded == 1


async def test_inlined_answers_that_were_removed_are_fetched_again(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    async with desk_of(settings, sandbox) as desk:
        order = Order(requests=({"key": "a", "prompt": "hello"},), delivery="inline")
        batch = (await desk.place_order(order)).status.batch.id
        sandbox.finish(newest(sandbox))
        await desk.results(batch, ROWS)
        (path,) = answers_of(settings, batch)
        path.unlink()

        assert (await desk.results(batch, ROWS)).summary.succeeded == 1
        assert path.is_file()


async def test_a_batch_that_runs_has_nothing_to_collect(settings: Settings, sandbox: Sandbox, data: Path) -> None:
    async with desk_of(settings, sandbox) as desk:
        batch = (await desk.place_order(Order(source=request_file(data)))).status.batch.id

        assert await collect_batch(desk.app, batch) is False


async def test_a_batch_whose_jobs_all_failed_has_a_table_of_missing_rows(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    """get_results has nothing to show then; a retry looks here for what to send again."""
    async with desk_of(settings, sandbox) as desk:
        batch = (await desk.place_order(Order(source=request_file(data)))).status.batch.id
        sandbox.finish(newest(sandbox), state="FAILED", error={"code": 13, "message": "broken"})
        await desk.status(batch)

        assert await collect_batch(desk.app, batch) is True
        assert await collect_batch(desk.app, batch) is False
        assert desk.app.files(batch).table.is_file()
    assert downloads(sandbox) == 0
