"""Orders of many files: read once, in the background where that takes longer than a call, and again after a change."""

from dataclasses import replace
from pathlib import Path

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from gemini_batch_mcp.batches.desk import Desk
from gemini_batch_mcp.batches.orders.preparing import Preview, identify_for
from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.errors import StillPreparing
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import desk_of

pytestmark = pytest.mark.anyio

FILES = 600
TEXTS = Order(source="texts", prompt="Mood? {{text}}", model="gemini-3-flash-preview")
ATTACHED = replace(TEXTS, prompt="Mood?", attach="path")


@pytest.fixture
def texts(data: Path) -> Path:
    folder = data / "texts"
    folder.mkdir()
    for number in range(FILES):
        (folder / f"{number:03}.txt").write_text(f"text {number}", encoding="utf-8")
    return folder


async def until_it_is_there(desk: Desk, order: Order) -> tuple[list[str], Preview]:
    """Preview it in calls that wait for nothing, made again as their answers say."""
    said: list[str] = []
    with anyio.fail_after(60):
        while True:
            try:
                return said, await desk.preview(order, wait_seconds=0)
            except StillPreparing as answer:
                said.append(str(answer))
                await anyio.sleep(0.1)


@pytest.mark.parametrize("order", [TEXTS, ATTACHED], ids=["text", "attached"])
async def test_files_that_take_longer_than_a_call_are_read_in_the_background(
    settings: Settings, sandbox: Sandbox, texts: Path, order: Order
) -> None:
    async with desk_of(settings, sandbox) as desk:
        said, seen = await until_it_is_there(desk, order)
        assert seen.request_count == FILES
        assert said[0].startswith("The files of texts are still being read")
        assert all(answer.endswith(("in the background.", "in half a minute.")) for answer in said)
        assert {answer.partition(" are still being ")[0] for answer in said} <= {"The files of texts", "The requests"}
        assert (await desk.place_order(order)).status.batch.request_count == FILES


async def test_a_folder_is_read_again_when_a_file_of_it_changes_and_its_reading_ends_with_its_call(
    settings: Settings, sandbox: Sandbox, texts: Path
) -> None:
    async with desk_of(settings, sandbox) as desk:
        app = desk.app
        first = identify_for(app, TEXTS).content_sha256
        assert identify_for(app, TEXTS).content_sha256 == first
        assert str(app.gauge.readings()[-1]) == f"Reading: {FILES} of {FILES} files"
        (texts / "007.txt").write_text("text 8", encoding="utf-8")
        second = identify_for(app, TEXTS)
        assert second.content_sha256 != first
        assert second.place is not None and "1 file has the same contents as another file here." in str(second.place)
        (texts / "007.txt").rename(texts / "700.txt")
        assert identify_for(app, TEXTS).content_sha256 not in (first, second.content_sha256)
        # Nobody waits for what nobody wants any more.
        (texts / "700.txt").write_text("new", encoding="utf-8")
        scope, ended = anyio.CancelScope(), []

        def read() -> None:
            anyio.from_thread.run_sync(scope.cancel)
            identify_for(app, TEXTS)
            ended.append(True)

        with scope:
            await anyio.to_thread.run_sync(read)
        assert scope.cancelled_caught and not ended
