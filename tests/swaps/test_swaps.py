"""Files and directories that become links outside of the roots, or pipes, while they are read, sent or written.

At every moment of choice, one after the other; and raced by another process. Nothing from outside is ever read into a
request, a reply or our state, and nothing outside is written.
"""

import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest

from gemini_batch_mcp.batches.answers._saving import draft_of, publish_saved, sweep_drafts
from gemini_batch_mcp.batches.desk import Desk
from gemini_batch_mcp.batches.jobs.lock import saving_lock
from gemini_batch_mcp.batches.orders.preparing import identify_for
from gemini_batch_mcp.batches.orders.rendering import write_lines
from gemini_batch_mcp.domain import Order, ResultQuery
from gemini_batch_mcp.errors import BatchError
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from gemini_batch_mcp.threads import in_thread
from support.conversation import desk_of, ended, request_file
from support.extent import IS_FULL, few, in_part, part, some, tries
from support.sources import png
from swaps.swapping import SECRET, SECRET_FORMS, Moments, Racer, exchange

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="swaps in one step, as Linux does them"),
]
MOMENTS: Final = Moments()
NAME: Final = "swapped"


@dataclass(frozen=True)
class Ground:
    """A directory of the user's with what is swapped in it, its double outside, and who works there."""

    desk: Desk
    sandbox: Sandbox
    batch: str
    outside: Path
    place: Path

    @property
    def directory(self) -> Path:
        return self.place / NAME


Act = Callable[[Ground, str], Awaitable[object]]


def lay_out(directory: Path, text: str) -> None:
    """Write what every act may read; `text` stands in all of it."""
    directory.mkdir(parents=True)
    (directory / f"{NAME}.csv").write_text(f"a\n{text}\n{text} 2\n", encoding="utf-8")
    (directory / f"{NAME}.jsonl").write_text(
        f'{{"key":"k","request":{{"contents":[{{"parts":[{{"text":"{text}"}}]}}]}}}}\n', encoding="utf-8"
    )
    (directory / f"{NAME}.txt").write_text(text, encoding="utf-8")
    (directory / f"{NAME}.png").write_bytes(png(1) + text.encode())
    (directory / f"{NAME}.mp3").write_bytes(b"ID3" + text.encode() + bytes(400_000))


async def order(ground: Ground, order: Order) -> None:
    await ground.desk.preview(order)
    await ground.desk.place_order(order, confirm=True)


async def read_table(ground: Ground, mark: str) -> None:
    await order(ground, Order(source=str(ground.directory / f"{NAME}.csv"), prompt=f"{mark} {{{{a}}}}"))


async def read_requests(ground: Ground, mark: str) -> None:
    await order(ground, Order(source=str(ground.directory / f"{NAME}.jsonl")))


async def read_folder(ground: Ground, mark: str) -> None:
    await order(ground, Order(source=f"{ground.directory}/*.txt", prompt=f"{mark} {{{{text}}}}"))


async def attach(ground: Ground, mark: str) -> None:
    await order(ground, attaching(ground, mark))


def attaching(ground: Ground, mark: str) -> Order:
    """One file that is sent inside the lines, and one that is too large for that."""
    rows = "".join(f"{NAME}/{NAME}.{kind}\n" for kind in ("png", "mp3", "mp3", "mp3", "mp3"))
    table = ground.place / "rows.csv"
    if not table.exists():
        table.write_text("file\n" + rows, encoding="utf-8")
    return Order(source=str(table), prompt=f"Describe. {mark}", attach="file")


async def save(ground: Ground, mark: str) -> None:
    path = str(ground.directory / f"{NAME}-{mark}.csv")
    await ground.desk.results(ground.batch, ResultQuery(save_to=path, format="csv"))


async def report(ground: Ground, mark: str) -> None:
    await ground.desk.report(ground.batch, str(ground.directory / f"{NAME}-{mark}.html"))


READING: Final[dict[str, Act]] = {
    "a table": read_table,
    "requests": read_requests,
    "a folder": read_folder,
    "an attached file": attach,
}
WRITING: Final[dict[str, Act]] = {"a saved file": save, "a report": report}
ACTS: Final = {**READING, **WRITING}


def swap_directory(ground: Ground) -> None:
    """Put a link to the directory outside in the place of the one inside."""
    link = ground.place / "link"
    link.symlink_to(ground.outside)
    exchange(ground.directory, link)


def swap_files(ground: Ground) -> None:
    """Put links to the files outside in the places of those inside, and of what is just being written there."""
    for path in list(ground.directory.iterdir()):
        bait = ground.outside / (path.name if (ground.outside / path.name).exists() else f"{NAME}.txt")
        path.unlink()
        path.symlink_to(bait)


def swap_for_pipes(ground: Ground) -> None:
    """Put pipes that nobody writes to in the places of the files."""
    for path in list(ground.directory.iterdir()):
        path.unlink()
        os.mkfifo(path)


SWAPS: Final = {"directory": swap_directory, "files": swap_files, "pipes": swap_for_pipes}


def snapshot(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {str(path): (path.read_bytes(), path.stat().st_nlink) for path in directory.iterdir()}


def spilled(*directories: Path) -> list[str]:
    """Return the files below directories that hold the secret; links are not followed."""
    found = []
    for directory in directories:
        for folder, _, names in os.walk(directory):
            for name in names:
                path = Path(folder, name)
                if path.is_symlink() or not path.is_file():
                    continue
                content = path.read_bytes()
                found += [str(path) for form in SECRET_FORMS if form in content]
    return found


async def acted(act: Act, ground: Ground, mark: str) -> str:
    """Do something, which may be refused in a sentence and in no other way; return the sentence."""
    try:
        await act(ground, mark)
    except BatchError as error:
        assert SECRET not in str(error)
        return str(error)
    return ""


@in_part
@pytest.mark.parametrize(
    ("what", "swap"),
    some([(what, swap) for what in ACTS for swap in SWAPS if IS_FULL or what == "a table" or swap == "directory"], 2),
)
async def test_whatever_is_swapped_at_whatever_moment_nothing_outside_is_read_or_written(
    settings: Settings, sandbox: Sandbox, data: Path, tmp_path: Path, what: str, swap: str
) -> None:
    outside = tmp_path / "outside"
    lay_out(outside, SECRET)
    before = snapshot(outside)
    async with desk_of(settings, sandbox) as desk:
        batch = await ended(desk, sandbox, request_file(data))
        await desk.results(batch, ResultQuery())

        async def run(number: int, moment: int) -> str:
            ground = Ground(desk, sandbox, batch, outside, data / f"g{number}")
            lay_out(ground.directory, f"inside {number}")
            with MOMENTS.at(moment, NAME, lambda: SWAPS[swap](ground)):
                return await acted(ACTS[what], ground, str(number))

        assert await run(0, 0) == ""
        count = MOMENTS.count
        assert count >= 2
        refused = 0
        for number in part(range(1, count + 1), -(-count // 3)):
            refused += bool(await run(number, number))
        # What is written finds its way whatever becomes of the files beside it.
        assert refused or what in WRITING, "no swap had any effect"
    assert snapshot(outside) == before
    assert spilled(settings.home, tmp_path / "service", data) == []


async def look_at_attached(ground: Ground, mark: str) -> None:
    """As `attach`, of which a twentieth is sent: a create takes longer than all that is read."""
    if int(mark.rpartition("-")[2]) % 20 == 0:
        await attach(ground, mark)
    else:
        render(ground, attaching(ground, mark))


def render(ground: Ground, order: Order) -> None:
    """Read an order's source as a preview does: found, known again, and rendered into the state directory."""
    home = ground.desk.app.settings.home / "rendered"
    home.mkdir(exist_ok=True)
    identified = identify_for(ground.desk.app, order)
    written = write_lines(identified, home / "requests.jsonl", home / "keys.jsonl", home / "columns.parquet")
    assert SECRET.encode() not in written.path.read_bytes()


async def look_at_table(ground: Ground, mark: str) -> None:
    render(ground, Order(source=str(ground.directory / f"{NAME}.csv"), prompt=f"{mark} {{{{a}}}}"))


async def look_at_folder(ground: Ground, mark: str) -> None:
    render(ground, Order(source=f"{ground.directory}/*.txt", prompt=f"{mark} {{{{text}}}}"))


async def publish_page(ground: Ground, mark: str) -> None:
    """As `report`, of which a hundredth is drawn: that takes seconds, and touches nothing of the user's."""
    if int(mark.rpartition("-")[2]) % 100 == 0:
        await report(ground, mark)
        return
    app = ground.desk.app
    path = app.guard.writable_file(str(ground.directory / f"{NAME}-{mark}.html"), default_name="x.html")

    def publish() -> None:
        sweep_drafts(app, path.parent)
        with saving_lock(app, ground.batch), draft_of(app, path) as draft:
            draft.write_text(f"<!doctype html>{mark}", encoding="utf-8")
            publish_saved(app, ground.batch, draft, path)

    await in_thread(publish)


RACED: Final[dict[str, Act]] = {
    "a table": look_at_table,
    "a folder": look_at_folder,
    "an attached file": look_at_attached,
    "a saved file": save,
    "a report": publish_page,
}


@few(3)
@in_part
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("what", RACED)
async def test_ten_thousand_acts_raced_by_another_process_read_and_write_nothing_outside(
    settings: Settings, sandbox: Sandbox, data: Path, tmp_path: Path, what: str
) -> None:
    acts = int(os.environ.get("ACTS", "0")) or tries(10_000, 6)
    outside = tmp_path / "outside"
    lay_out(outside, SECRET)
    before = snapshot(outside)
    ends: Counter[str] = Counter()
    swaps = 0
    started = time.monotonic()
    for round_ in range(-(-acts // 500)):
        # A new state every so often: what is asked here is not how long a ledger may become.
        home = tmp_path / f"home{round_}"
        async with desk_of(replace(settings, home=home), sandbox) as desk:
            batch = await ended(desk, sandbox, request_file(data, mark=str(round_)))
            await desk.results(batch, ResultQuery())
            ground = Ground(desk, sandbox, batch, outside, data / f"g{round_}")
            lay_out(ground.directory, f"inside {round_}")
            link = ground.place / "link"
            link.symlink_to(outside)
            racer = Racer(ground.directory, link, 0.002)
            try:
                for number in range(min(500, acts - 500 * round_)):
                    said = await acted(RACED[what], ground, f"{round_}-{number}")
                    ends[_end(said)] += 1
            finally:
                swaps += racer.stop()
        assert spilled(home, tmp_path / "service", data) == []
        shutil.rmtree(home)
    assert snapshot(outside) == before
    assert ends.total() == acts
    if IS_FULL or acts > 100:
        print(f"{what}: {acts:,} acts, {swaps:,} swaps, {time.monotonic() - started:.0f} s, {dict(ends)}")  # noqa: T201


def _end(said: str) -> str:
    """Return how an act ended, by what was said of it: the window is between the look and the open."""
    for word, end in (
        ("outside the directories", "refused at the look"),
        ("replaced by a link", "met the window"),
        ("changed", "changed meanwhile"),
        ("holds no file", "refused at the look"),
        ("There is no file", "refused at the look"),
        ("cannot be resolved", "refused at the look"),
    ):
        if word in said:
            return end
    return said or "done"
