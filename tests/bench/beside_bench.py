"""What a call costs beside a long one: check_status while a large upload runs, against the same when nothing does."""

import math
import statistics
import time
from pathlib import Path
from typing import Any, Final

import anyio
from mcp.client import Client

from bench.parties import MEGABYTE, Figure, call, our_server

#: Below this many looks beside the upload there is no 99th of a hundred.
_LEAST_LOOKS: Final = 100
_IDLE_LOOKS: Final = 200


async def measure_beside(base_url: str, work: Path, source: Path) -> list[Figure]:
    """check_status of a batch that is there, while create_batch reads, checks and uploads `source`."""
    small = work / "small.jsonl"
    small.write_text('{"key":"a","request":{"contents":[{"parts":[{"text":"hello"}]}]}}\n', encoding="utf-8")
    async with our_server(base_url, work / "beside", work) as client:
        batch = (await call(client, "create_batch", source=str(small)))["batch_id"]
        await anyio.sleep(3)
        idle = [await _look(client, batch) for _ in range(_IDLE_LOOKS)]
        beside: list[float] = []
        started = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            done = anyio.Event()

            async def order() -> None:
                try:
                    await _ordered(client, source)
                finally:
                    done.set()

            tasks.start_soon(order)
            while not done.is_set():
                beside.append(await _look(client, batch))
        seconds = time.perf_counter() - started
    usual, slowest = statistics.median(idle), _percentile(beside, 0.99)
    size = f"{source.stat().st_size / MEGABYTE:.0f} MB in {seconds:.1f} s"
    detail = f"{slowest * 1000:.0f} ms of {len(beside)} looks beside {size}; idle {usual * 1000:.0f} ms, its p99 "
    detail += f"{_percentile(idle, 0.99) * 1000:.0f} ms"
    bound = 3 if len(beside) >= _LEAST_LOOKS else math.inf
    return [Figure("check_status beside an upload, p99 against idle p50", slowest / usual, bound, "×", detail)]


async def _ordered(client: Client, source: Path) -> None:
    result: dict[str, Any] = await call(client, "create_batch", source=str(source), confirm=True)
    while not any(job["name"] for job in result["jobs"]):
        result = await call(client, "check_status", batch=result["batch_id"], wait_seconds=20)


async def _look(client: Client, batch: str) -> float:
    started = time.perf_counter()
    await call(client, "check_status", batch=batch)
    return time.perf_counter() - started


def _percentile(seconds: list[float], share: float) -> float:
    return sorted(seconds)[min(len(seconds) - 1, int(len(seconds) * share))]
