"""The staging area: one order written once however many ask, nothing half-written taken, nothing left for ever."""

import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock
import pytest
import time_machine

from gemini_batch_mcp.batches.app import App, BatchFiles
from gemini_batch_mcp.batches.opening import lazy_desk
from gemini_batch_mcp.batches.orders.appraising import discard_staged_lines, stage_lines, take_staged_lines
from gemini_batch_mcp.batches.orders.preparing import identify_for
from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.errors import StorageError
from gemini_batch_mcp.intake.request_files import RequestFile
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings

pytestmark = pytest.mark.anyio

DAY_SECONDS = 24 * 3600
ORDER = Order(source="t.csv", prompt="Mood of {{a}}?")
WRITTEN = {
    "lock",
    "facts.json",
    "sample.json",
    "requests.jsonl",
    "keys.jsonl",
    "columns.parquet",
}


@pytest.fixture
async def app(settings: Settings, sandbox: Sandbox, data: Path) -> AsyncIterator[App]:
    (data / "t.csv").write_text("a,b\n" + "".join(f"text {number},x\n" for number in range(500)), encoding="utf-8")
    async with lazy_desk(settings, sandbox.transport) as lazy:
        yield (await lazy.get()).app


def staged(app: App, order: Order = ORDER) -> RequestFile:
    return stage_lines(app, identify_for(app, order))


def place(app: App, order: Order = ORDER) -> Path:
    return app.settings.home / "staged" / identify_for(app, order).staged_as


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def age(path: Path, seconds: float) -> None:
    moment = path.stat().st_mtime - seconds
    os.utime(path, (moment, moment))


async def test_many_that_stage_one_order_at_once_get_the_same_lines(app: App) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: staged(app), range(8)))

    assert all(one == found[0] for one in found)
    assert names(place(app)) == WRITTEN
    assert found[0].path.read_bytes().count(b"\n") == found[0].count == 500


async def test_of_many_that_take_an_order_at_once_each_gets_all_of_its_lines(app: App, tmp_path: Path) -> None:
    identified = identify_for(app, ORDER)
    expected = staged(app).path.read_bytes()

    def take(number: int) -> RequestFile:
        files = BatchFiles(tmp_path / str(number))
        files.make_directory()
        return take_staged_lines(app, identified, files)

    with ThreadPoolExecutor(6) as pool:
        taken = list(pool.map(take, range(6)))

    assert [one.path.read_bytes() for one in taken] == [expected] * 6
    assert [one.keys_path.read_bytes().count(b"\n") for one in taken] == [500] * 6
    assert [one.columns_path for one in taken] == [tmp_path / str(number) / "source.parquet" for number in range(6)]
    assert len({one.columns_path.read_bytes() for one in taken if one.columns_path is not None}) == 1
    assert names(place(app)) == {"lock"}


async def test_what_a_killed_preview_left_is_neither_taken_nor_kept(app: App) -> None:
    """Whatever it was: also files of a clock that was ahead, and lines that were written but not described."""
    directory = place(app)
    expected = staged(app).path.read_bytes()
    (directory / "facts.json").write_bytes(b'{"path": "requ')
    (directory / "requests.jsonl").write_bytes(expected[:100])
    (directory / "requests.jsonl.part").write_bytes(b"half a li")
    (directory / "requests.jsonl.whole").write_bytes(b"half a li")
    (directory / "facts.json.part").write_bytes(b"{")
    (directory / "table-x").mkdir()
    (directory / "table-x" / "rows.csv").write_bytes(b"a")
    for path in directory.iterdir():
        age(path, -2 * DAY_SECONDS)

    assert staged(app).path.read_bytes() == expected
    assert names(directory) == WRITTEN


async def test_a_preview_killed_in_the_middle_lets_the_next_one_in(app: App, data: Path) -> None:
    directory = place(app)
    directory.mkdir(parents=True)
    script = (
        "import filelock, os, sys; from pathlib import Path; place = Path(sys.argv[1]);"
        "filelock.FileLock(place / 'lock').acquire(); (place / 'requests.jsonl.part').write_text('half');"
        "print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(  # noqa: ASYNC220 - nothing else is under way here
        [sys.executable, "-c", script, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(staged, app)
            other.kill()

            assert waiting.result().count == 500
    assert names(directory) == WRITTEN


@pytest.mark.parametrize("days", [400, -400])
async def test_a_clock_that_is_wrong_removes_nothing_that_is_new(app: App, days: int) -> None:
    other = Order(source="t.csv", prompt="Another {{b}}?")
    staged(app, other)
    with time_machine.travel(time.time() + days * DAY_SECONDS):
        assert staged(app).count == 500

        assert names(place(app)) == WRITTEN
        assert names(place(app, other)) == WRITTEN


@pytest.mark.parametrize("days", [2, -2])
async def test_what_was_staged_long_ago_is_removed_and_so_is_what_a_wrong_clock_dated(app: App, days: int) -> None:
    old, left = place(app).with_name("0" * 64), app.settings.home / "attach-x"
    for directory in (old, left):
        directory.mkdir(parents=True)
        (directory / "requests.jsonl").write_bytes(b"x")
        age(directory, days * DAY_SECONDS)
    staged(app)

    assert not old.exists() and not left.exists()


async def test_what_somebody_is_still_writing_is_not_swept_however_old(app: App) -> None:
    held, own = place(app).with_name("0" * 64), place(app)
    for directory in (held, own):
        directory.mkdir(parents=True)
    with filelock.FileLock(held / "lock"):
        age(held, 2 * DAY_SECONDS)
        age(own, 2 * DAY_SECONDS)

        assert staged(app).count == 500
        assert names(held) == {"lock"}
    assert names(own) == WRITTEN


async def test_what_is_discarded_leaves_only_the_lock(app: App) -> None:
    identified = identify_for(app, ORDER)
    discard_staged_lines(app, identified)
    staged(app)
    discard_staged_lines(app, identified)

    assert names(place(app)) == {"lock"}
    assert staged(app).count == 500


async def test_a_staging_area_that_cannot_be_used_is_said(app: App) -> None:
    app.settings.home.mkdir(exist_ok=True)
    (app.settings.home / "staged").write_bytes(b"")

    with pytest.raises(StorageError, match="could not be read or written"):
        staged(app)


async def test_facts_and_lines_that_cannot_be_put_in_place_are_said(app: App, tmp_path: Path) -> None:
    identified = identify_for(app, ORDER)
    with pytest.raises(StorageError, match="could not be written down"):
        take_staged_lines(app, identified, BatchFiles(tmp_path / "none"))
    assert staged(app).count == 500
