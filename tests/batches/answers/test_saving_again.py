"""Results saved where a killed process, another process or another program has been before."""

import hashlib
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

import anyio
import pytest

from gemini_batch_mcp.batches.answers._saving import publish_saved
from gemini_batch_mcp.batches.desk import Desk
from gemini_batch_mcp.domain import FileFormat, ResultQuery
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import ROWS, answers_of, created, desk_of, downloads, ended, hooked_desk, request_file
from support.extent import few

pytestmark = pytest.mark.anyio


class Killed(BaseException):
    """Stands for the end of the process: nothing of ours runs after it."""


class Hook:
    """Does something once, at the `nth` time from now that an effect is announced."""

    def __init__(self) -> None:
        self._step = ""
        self._left = 0
        self._deed: Callable[[], object] = die

    def at(self, step: str, nth: int, deed: Callable[[], object]) -> None:
        self._step, self._left, self._deed = step, nth, deed

    def __call__(self, step: str) -> None:
        if step == self._step:
            self._left -= 1
            if self._left == 0:
                self._deed()


def die() -> None:
    raise Killed


def visible_names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if not path.name.startswith("."))


@few(3)
@pytest.mark.parametrize("step", ["ledger.record_saved:before", "ledger.record_saved:after"])
@pytest.mark.parametrize(("is_there", "nth"), [(False, 1), (False, 2), (True, 1)])
async def test_a_file_that_a_killed_process_of_ours_wrote_is_ours(
    settings: Settings, sandbox: Sandbox, data: Path, step: str, is_there: bool, nth: int
) -> None:
    hook = Hook()
    async with hooked_desk(settings, sandbox, hook) as desk:
        batch = await ended(desk, sandbox, request_file(data))
        destination, draft, written = data / "out.jsonl", data / ".draft", b'{"key":"r1"}\n'
        if is_there:  # an older version of it, from before more answers came
            draft.write_bytes(b"{}\n")
            publish_saved(desk.app, batch, draft, destination)
        draft.write_bytes(written)
        hook.at(step, nth, die)
        with suppress(Killed):
            publish_saved(desk.app, batch, draft, destination)
        draft.write_bytes(written)

        assert publish_saved(desk.app, batch, draft, destination) == destination
        saved = (await desk.results(batch, ResultQuery(save_to=str(destination)))).saved
        assert saved is not None and saved.path == destination
    assert visible_names(data) == ["out.jsonl", "reviews.jsonl"]


@few(2)
@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet", "html"])
async def test_processes_that_save_the_same_to_one_path_at_once_leave_one_file(
    settings: Settings, sandbox: Sandbox, data: Path, format: FileFormat | Literal["html"]
) -> None:
    """Pages differ by the time at which they were written, and take each other's place."""
    destination = data / f"out.{format}"
    async with (
        desk_of(settings, sandbox) as one,
        desk_of(settings, sandbox) as two,
        desk_of(settings, sandbox) as three,
    ):
        batch = await ended(one, sandbox, request_file(data))
        await one.results(batch, ROWS)
        paths: list[Path] = []

        async def save(desk: Desk) -> None:
            if format == "html":
                paths.append((await desk.report(batch, str(destination))).path)
                return
            saved = (await desk.results(batch, ResultQuery(save_to=str(destination), format=format))).saved
            assert saved is not None
            paths.append(saved.path)

        async with anyio.create_task_group() as tasks:
            for desk in (one, two, three, one, two, three)[: 3 if format == "html" else 6]:
                tasks.start_soon(save, desk)
    assert set(paths) == {destination}
    assert visible_names(data) == [destination.name, "reviews.jsonl"]


async def test_two_ledgers_that_save_the_same_bytes_to_one_path_leave_one_file(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    """What stands there is told by its bytes, wherever it was written down."""
    other_home = replace(settings, home=settings.home.with_name("other"))
    async with desk_of(settings, sandbox) as one, desk_of(other_home, sandbox) as other:
        batch = await ended(one, sandbox, request_file(data))
        name = created(sandbox)[0]
        (data / "out.jsonl").write_text("mine", encoding="utf-8")
        query = ResultQuery(save_to=str(data / "out.jsonl"))
        paths = []
        for desk, reference in ((one, batch), (other, name)):
            saved = (await desk.results(reference, query)).saved
            assert saved is not None
            paths.append(saved.path)
    assert paths == [data / "out-2.jsonl"] * 2
    assert visible_names(data) == ["out-2.jsonl", "out.jsonl", "reviews.jsonl"]


async def test_a_page_and_results_never_take_each_others_place(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    async with desk_of(settings, sandbox) as desk:
        batch = await ended(desk, sandbox, request_file(data))
        await desk.results(batch, ResultQuery(save_to=str(data / "out")))
        page = await desk.report(batch, str(data / "out"))
        saved = (await desk.results(batch, ResultQuery(save_to=str(data / "out-2")))).saved
    assert page.path == data / "out-2"
    assert saved is not None and saved.path == data / "out-2-2"
    assert (data / "out").read_bytes().startswith(b'{"key"')


@pytest.mark.parametrize(("content", "name"), [("theirs", "a-2.jsonl"), ("ours", "a.jsonl")])
async def test_a_name_that_is_taken_in_the_last_moment_stays_theirs_unless_it_holds_the_same(
    settings: Settings, sandbox: Sandbox, data: Path, content: str, name: str
) -> None:
    hook, wanted = Hook(), data / "a.jsonl"
    async with hooked_desk(settings, sandbox, hook) as desk:
        batch = await ended(desk, sandbox, request_file(data))
        (data / "draft").write_text("ours", encoding="utf-8")
        hook.at("ledger.record_saved:after", 1, lambda: wanted.write_text(content, encoding="utf-8"))

        assert publish_saved(desk.app, batch, data / "draft", wanted) == data / name
        assert wanted.read_text(encoding="utf-8") == content
    assert visible_names(data) == sorted({"a.jsonl", name, "reviews.jsonl"})


def as_an_older_version_left_it(ledger: Path, answers: Path, saved: Path) -> None:
    """Put a ledger back to before digests were tagged: SHA-256 as bare hex."""
    with closing(sqlite3.connect(ledger)) as connection, connection:
        connection.execute("DELETE FROM migrations WHERE name = '_m005_tagged_digests'")
        connection.execute("ALTER TABLE jobs RENAME COLUMN answers_digest TO answers_sha256")
        connection.execute("ALTER TABLE saved_files RENAME COLUMN digest TO sha256")
        for query, path in (
            ("UPDATE jobs SET answers_sha256 = ?", answers),
            ("UPDATE saved_files SET sha256 = ?", saved),
        ):
            connection.execute(query, [hashlib.sha256(path.read_bytes()).hexdigest()])
    connection.close()


async def test_what_an_older_version_fetched_and_wrote_is_still_known(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    query = replace(ROWS, save_to="out.csv", format="csv")
    async with desk_of(settings, sandbox) as desk:
        batch = await ended(desk, sandbox, request_file(data))
        await desk.results(batch, query)
    (answers,) = answers_of(settings, batch)
    as_an_older_version_left_it(settings.home / "ledger.sqlite3", answers, data / "out.csv")
    for table in answers.parent.glob("results.*"):
        table.unlink()
    async with desk_of(settings, sandbox) as desk:
        results = await desk.results(batch, query)

    assert results.summary.integrity_ok
    assert downloads(sandbox) == 1
    assert visible_names(data) == ["out.csv", "reviews.jsonl"]
