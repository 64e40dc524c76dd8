"""Collecting: fetched once, kept whatever happens, built again when something is new, and told when it is gone."""

import shutil
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from gemini_batch_mcp.batches.answers.collecting import collect_batch
from gemini_batch_mcp.batches.desk import Desk
from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.errors import GeminiError, NotFound, StorageError
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import (
    ROWS,
    answers_of,
    created,
    desk_of,
    downloads,
    ended,
    line,
    newest,
    request_file,
    sharded,
    write_lines,
)
from support.services import MovedClock

pytestmark = pytest.mark.anyio


async def test_a_batch_is_collected_once(settings: Settings, sandbox: Sandbox, data: Path) -> None:
    async with desk_of(settings, sandbox) as desk:
        batch = await ended(desk, sandbox, request_file(data))
        await desk.status(batch)

        assert await collect_batch(desk.app, batch) is True
        assert await collect_batch(desk.app, batch) is False
        await desk.results(batch, ROWS)
    assert downloads(sandbox) == 1


async def test_two_processes_that_collect_at_once_fetch_once(settings: Settings, sandbox: Sandbox, data: Path) -> None:
    async with desk_of(settings, sandbox) as first, desk_of(settings, sandbox) as second:
        batch = await ended(first, sandbox, request_file(data))
        await first.status(batch)
        found: list[bool] = []

        async def collect(desk: Desk) -> None:
            found.append(await collect_batch(desk.app, batch))

        async with anyio.create_task_group() as tasks:
            for desk in (first, second):
                tasks.start_soon(collect, desk)
    assert sorted(found) == [False, True]
    assert downloads(sandbox) == 1


async def test_what_has_ended_can_be_read_while_the_rest_runs(settings: Settings, sandbox: Sandbox, data: Path) -> None:
    settings, source = sharded(settings, data)
    async with desk_of(settings, sandbox) as desk:
        batch = (await desk.place_order(Order(source=source))).status.batch.id
        jobs = created(sandbox)
        sandbox.finish(jobs[1])
        results = await desk.results(batch, replace(ROWS, limit=4))
        assert results.page is not None
        assert [row.key for row in results.page.rows] == ["k10", "k11", "k12", "k13"]
        assert (results.summary.expected, results.summary.pending, results.summary.missing) == (10, 20, 0)
        assert results.summary.is_partial

        seen = [row.key for row in results.page.rows]
        sandbox.finish(jobs[0])
        while cursor := results.page.next_cursor:
            results = await desk.results(batch, replace(ROWS, limit=4, cursor=cursor))
            assert results.page is not None
            seen += [row.key for row in results.page.rows]
        assert seen == [f"k{number:02}" for number in [*range(10, 20), *range(10)]]

        sandbox.finish(jobs[2])
        results = await desk.results(batch, ROWS)
        assert results.page is not None
        assert [row.key for row in results.page.rows] == [f"k{number:02}" for number in range(30)]
        assert (results.summary.pending, results.summary.integrity_ok) == (0, True)
    assert downloads(sandbox) == 3


async def test_a_job_that_failed_leaves_its_rows_missing_beside_the_others(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    settings, source = sharded(settings, data)
    async with desk_of(settings, sandbox) as desk:
        batch = (await desk.place_order(Order(source=source))).status.batch.id
        first, second, third = created(sandbox)
        sandbox.finish(first)
        assert (await desk.results(batch, ROWS)).summary.pending == 20
        sandbox.finish(second, state="FAILED", error={"code": 13, "message": "broken"})
        sandbox.finish(third)
        summary = (await desk.results(batch, ROWS)).summary
    assert (summary.expected, summary.succeeded, summary.missing, summary.pending) == (30, 20, 10, 0)


async def test_a_table_of_an_earlier_version_is_built_again_from_the_answers_that_were_kept(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    """It was one Parquet file, whose facts stood beside it under the number of its build."""
    async with desk_of(settings, sandbox) as desk:
        batch = await ended(desk, sandbox, request_file(data))
        rows = (await desk.results(batch, ROWS)).page
        directory = settings.home / "batches" / batch
        (directory / "results.json").replace(directory / f"results.{'0' * 32}.json")
        (folder,) = directory.glob("results-*")
        (part,) = folder.glob("*.parquet")
        part.replace(directory / "results.parquet")
        shutil.rmtree(folder)

        assert (await desk.results(batch, ROWS)).page == rows
        left = {path.name for path in directory.glob("results*")}
        assert len(left) == 2 and left - {"results.json"} == {path.name for path in directory.glob("results-*")}
    assert downloads(sandbox) == 1


@pytest.mark.parametrize("damage", ["removed", "changed", "touched"])
async def test_answers_that_are_not_as_they_were_are_noticed(
    settings: Settings, sandbox: Sandbox, data: Path, damage: str
) -> None:
    async with desk_of(settings, sandbox) as desk:
        batch = await ended(desk, sandbox, request_file(data))
        await desk.results(batch, ROWS)
        (path,) = answers_of(settings, batch)
        content = path.read_bytes()
        if damage == "removed":
            path.unlink()
        else:
            path.write_bytes(content.replace(b"sandbox", b"forgery") if damage == "changed" else content)
        results = await desk.results(batch, ROWS)
        await desk.results(batch, ROWS)

    assert path.read_bytes() == content
    assert results.page is not None and not any("forgery" in row.text for row in results.page.rows)
    assert results.warnings == ()
    assert downloads(sandbox) == (1 if damage == "touched" else 2)


async def test_answers_that_nobody_has_any_more_are_named_and_the_table_is_still_read(
    settings: Settings, sandbox: Sandbox, service_clock: MovedClock, data: Path
) -> None:
    service_clock.move(-7200)
    async with desk_of(settings, sandbox) as desk:
        batch = await ended(desk, sandbox, request_file(data))
        await desk.results(batch, ROWS)
        (path,) = answers_of(settings, batch)
        path.unlink()
        sandbox.expire_file((await desk.status(batch)).batch.jobs[0].responses_file)

        results = await desk.results(batch, ROWS)
        assert results.page is not None and len(results.page.rows) == 3
        (warning,) = results.warnings
        assert str(path) in warning and "Gemini no longer has it" in warning
        with pytest.raises(StorageError, match="removed or changed"):
            await collect_batch(desk.app, batch)


async def test_a_result_file_that_is_gone_before_it_was_fetched_is_said(
    settings: Settings, sandbox: Sandbox, service_clock: MovedClock, data: Path
) -> None:
    service_clock.move(-7200)
    async with desk_of(settings, sandbox) as desk:
        batch = await ended(desk, sandbox, request_file(data))
        job = (await desk.status(batch)).batch.jobs[0]
        sandbox.expire_file(job.responses_file)
        with pytest.raises(NotFound, match="is gone from Gemini"):
            await desk.results(batch, ROWS)


async def test_a_table_that_cannot_be_built_costs_no_answers(settings: Settings, sandbox: Sandbox, data: Path) -> None:
    async with desk_of(settings, sandbox) as desk:
        batch = await ended(desk, sandbox, request_file(data))
        (settings.home / "batches" / batch / "results.json").mkdir()
        with pytest.raises(StorageError, match="could not be"):
            await desk.results(batch, ROWS)
        (path,) = answers_of(settings, batch)
        assert len(path.read_bytes().splitlines()) == 3
        (settings.home / "batches" / batch / "results.json").rmdir()

        assert (await desk.results(batch, ROWS)).summary.succeeded == 3
        assert sorted(entry.name for entry in path.parent.iterdir() if entry.name.startswith(".")) == []
    assert downloads(sandbox) == 1


async def test_keys_that_are_damaged_cost_no_answers(settings: Settings, sandbox: Sandbox, data: Path) -> None:
    async with desk_of(settings, sandbox) as desk:
        batch = await ended(desk, sandbox, request_file(data))
        keys = settings.home / "batches" / batch / "keys.jsonl"
        content = keys.read_bytes()
        keys.write_bytes(b'"cut\n')
        with pytest.raises(StorageError, match="Key 1 in"):
            await desk.results(batch, ROWS)
        keys.write_bytes(content)
        assert (await desk.results(batch, ROWS)).summary.integrity_ok


@pytest.mark.parametrize("times", [1, 5])
async def test_a_download_that_is_cut_goes_on_or_starts_again(
    settings: Settings, sandbox: Sandbox, data: Path, times: int
) -> None:
    """One cut is bridged within the download; five take a second attempt, from the start."""
    async with desk_of(settings, sandbox) as desk:
        batch = await ended(desk, sandbox, request_file(data, 200))
        sandbox.cut_next("files.download", at_byte=5000, times=times)
        summary = (await desk.results(batch, ROWS)).summary

        assert (summary.succeeded, summary.integrity_ok) == (200, True)
        (path,) = answers_of(settings, batch)
        assert [entry.name for entry in path.parent.iterdir() if ".part" in entry.name] == []


async def test_what_cannot_be_fetched_does_not_hide_what_was(settings: Settings, sandbox: Sandbox, data: Path) -> None:
    settings, source = sharded(settings, data)
    async with desk_of(settings, sandbox) as desk:
        batch = (await desk.place_order(Order(source=source))).status.batch.id
        first, second, _ = created(sandbox)
        sandbox.finish(first)
        await desk.results(batch, ROWS)
        sandbox.finish(second)
        sandbox.fail_next("files.download", status=403, times=1)
        results = await desk.results(batch, ROWS)
        assert (results.summary.succeeded, results.summary.pending) == (10, 20)
        assert results.warnings[0].startswith("Showing what was collected earlier:")
        assert (await desk.results(batch, ROWS)).summary.succeeded == 20


async def test_a_first_fetch_that_fails_is_an_error(settings: Settings, sandbox: Sandbox, data: Path) -> None:
    async with desk_of(settings, sandbox) as desk:
        batch = await ended(desk, sandbox, request_file(data))
        sandbox.fail_next("files.download", status=403, times=1)
        with pytest.raises(GeminiError):
            await desk.results(batch, ROWS)


async def test_answers_of_many_slices_are_staged_while_they_arrive(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    rows = [line(f"k{number}", f"[[sandbox:chars:1000000]] {number}") for number in range(70)]
    async with desk_of(settings, sandbox) as desk:
        batch = await ended(desk, sandbox, write_lines(data / "long.jsonl", rows))
        results = await desk.results(batch, replace(ROWS, keys=("k49",)))

        assert (results.summary.succeeded, results.summary.integrity_ok) == (70, True)
        assert results.page is not None and results.page.rows[0].text.endswith("1,000,000 characters in all]")


async def test_inlined_answers_with_half_characters_are_kept(settings: Settings, sandbox: Sandbox, data: Path) -> None:
    rows = tuple({"key": f"k{number}", "prompt": f"row {number} [[sandbox:surrogate]]"} for number in range(3))
    async with desk_of(settings, sandbox) as desk:
        placement = await desk.place_order(Order(requests=rows, delivery="inline"))
        sandbox.finish(newest(sandbox))
        results = await desk.results(placement.status.batch.id, ROWS)

    assert results.page is not None
    assert [row.status for row in results.page.rows] == ["ok"] * 3
    assert all("\ufffd" in row.text for row in results.page.rows)
