"""A desk on the sandbox, and batches that end when the test says so: for tests of collecting and saving."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio

from conversation import line, write_lines
from gemini_batch_mcp.batches.app import open_app
from gemini_batch_mcp.batches.desk import Desk
from gemini_batch_mcp.batches.opening import lazy_desk
from gemini_batch_mcp.batches.work import Work
from gemini_batch_mcp.domain import Order, ResultQuery
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings

ROWS = ResultQuery(view="rows", limit=200)


@asynccontextmanager
async def desk_of(settings: Settings, sandbox: Sandbox) -> AsyncIterator[Desk]:
    async with lazy_desk(settings, sandbox.transport) as lazy:
        yield await lazy.get()


@asynccontextmanager
async def hooked_desk(settings: Settings, sandbox: Sandbox, hook: Callable[[str], None]) -> AsyncIterator[Desk]:
    """A desk that announces each of its effects to `hook`."""
    settings.home.mkdir(exist_ok=True)
    async with anyio.create_task_group() as tasks:
        app = open_app(settings, Work(tasks), sandbox.transport(), hook=hook)
        try:
            yield Desk(app)
        finally:
            await app.aclose()


async def ended(desk: Desk, sandbox: Sandbox, source: str) -> str:
    """Order a file and let its jobs end; returns the batch id."""
    placement = await desk.place_order(Order(source=source))
    for record in sandbox.create_records:
        sandbox.finish(record.name)
    return placement.status.batch.id


def downloads(sandbox: Sandbox) -> int:
    return sum(request.route == "files.download" for request in sandbox.requests)


def answers_of(settings: Settings, batch: str) -> list[Path]:
    return sorted((settings.home / "batches" / batch).glob("answers-*.jsonl"))


def sharded(settings: Settings, data: Path) -> tuple[Settings, str]:
    """An order of 30 rows that becomes three jobs of ten rows."""
    rows = [line(f"k{number:02}", f"row {number:02} " + "x" * 500) for number in range(30)]
    return replace(settings, max_file_bytes=10 * (len(rows[0]) + 1)), write_lines(data / "rows.jsonl", rows)


def created(sandbox: Sandbox) -> list[str]:
    """Return the names of all jobs, the first one first."""
    return [record.name for record in sorted(sandbox.create_records, key=lambda record: record.create_ns)]
