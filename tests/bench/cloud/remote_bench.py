"""What passes through this machine for an order over a table in BigQuery, and what memory it takes, by its rows.

`PYTHONPATH=tests python -m bench.cloud.remote_bench 1000 10000000` prints a line for each size. The server lives in a
process of its own, whose memory is read; Google's side is the sandbox in this one, which gives every row one answer.
"""

import asyncio
import multiprocessing
import re
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gemini_batch_mcp.batches.app import open_app
from gemini_batch_mcp.batches.desk import Desk
from gemini_batch_mcp.batches.work import Work
from gemini_batch_mcp.domain import Order, ResultQuery
from gemini_batch_mcp.errors import Unavailable
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import ByReads, SandboxConfig
from gemini_batch_mcp.settings import Settings
from support.cloud.places import cloud_env, table

MOST_BYTES: Final = 10 * 1000**2
MOST_MEGABYTES: Final = 200
#: Calls that ask whether something has ended: their number goes with the time that it takes.
_LOOKS: Final = ("queries.get", "jobs.get")


@dataclass(frozen=True)
class Passed:
    """What one order took. `bytes` went over the wire in both directions; `looks` asked whether something had ended."""

    rows: int
    calls: int
    looks: int
    bytes: int
    megabytes: float
    seconds: float


def measured(rows: int) -> Passed:
    """Preview, order, follow, read and ask one table of so many rows."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        with Sandbox(place / "service", SandboxConfig(pace=ByReads(2), answers_tables_at_once=True)) as sandbox:
            select = (
                f"SELECT 'k' || n AS id, 'Review number ' || n || ' says: fine.' AS review FROM range({rows}) AS t(n)"
            )
            source = table(sandbox, "reviews", select)
            with sandbox.listening() as url:
                began = time.monotonic()
                peaks = multiprocessing.get_context("spawn")
                queue: Any = peaks.Queue()
                process = peaks.Process(target=_live, args=(url, str(place), source, queue))
                process.start()
                megabytes = queue.get(timeout=3600)
                process.join()
            sent = sum(request.request_bytes + request.response_bytes for request in sandbox.requests)
            looks = sum(request.route in _LOOKS for request in sandbox.requests)
            calls = len(sandbox.requests) - looks
            return Passed(rows, calls, looks, sent, megabytes, time.monotonic() - began)


def _live(url: str, place: str, source: str, queue: Any) -> None:
    asyncio.run(_order(url, Path(place), source))
    # Not by getrusage, which counts what the process was before it became this one.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    queue.put(int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1000)


async def _order(url: str, place: Path, source: str) -> None:
    import anyio

    env = {
        "GEMINI_BATCH_HOME": str(place / "home"),
        "GEMINI_BATCH_POLL_SECONDS": "0.2",
        "GEMINI_BATCH_CONFIRM_ABOVE_USD": "1000000000",
        "GOOGLE_GENAI_USE_ENTERPRISE": "1",
        **cloud_env(url, place),
    }
    settings = Settings.from_env(env, working_directory=place, user_home=place)
    settings.home.mkdir(parents=True, exist_ok=True)
    async with anyio.create_task_group() as tasks:
        app = open_app(settings, Work(tasks))
        desk = Desk(app)
        order = Order(source=source, prompt="Is this positive? {{review}}", key_column="id")
        await desk.preview(order)
        batch = (await desk.place_order(order)).status.batch.id
        is_done = False
        while not is_done:
            # The service makes all answers while somebody waits for its reply.
            with suppress(Unavailable):
                is_done = (await desk.status(batch, wait_seconds=5)).done
        await desk.results(batch, ResultQuery(view="rows", limit=50))
        await desk.query(batch, "SELECT status, COUNT(*) AS n FROM results GROUP BY status", limit=10)
        tasks.cancel_scope.cancel()
        await app.aclose()


def main(sizes: list[int], say: Callable[[str], object] = print) -> None:
    """Print a line for each size."""
    for size in sizes:
        passed = measured(size)
        say(
            f"{passed.rows:>12,} rows: {passed.calls} calls and {passed.looks} looks, {passed.bytes:,} bytes, "
            f"{passed.megabytes:.0f} MB of memory, {passed.seconds:.1f} s"
        )


if __name__ == "__main__":
    main([int(text.replace("_", "")) for text in sys.argv[1:]] or [1_000, 100_000])
