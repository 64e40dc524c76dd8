"""What a call costs beside a long one: check_status while a large upload runs, against the same when nothing does.

By itself: PYTHONPATH=tests python -m bench.beside_bench --megabytes 1000. Gemini receives an upload on machines of its
own, over a wire that is slower than a disk; the service here receives it on the same processors as everything else, as
fast as these allow (200 MB/s), and they are too few for both. So there is a wire before the service, of the speed that
many offices have, and that figure has the bound. The other one, without it, says what is left for a call on a machine
whose processors are all taken. Lower priority for the service would not do instead: the looks ask it, too.

The service, the server and this client share the processors with whatever else runs there: beside each figure stands
how busy it was, and what the same looks take while as many processes as there are processors do nothing but compute.
"""

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import anyio
from mcp.client import Client

from bench.orders_bench import MEGABITS, throttled
from bench.parties import MEGABYTE, Figure, call, our_server, service, write_requests

#: Below this many looks beside the upload there is no 99th of a hundred.
_LEAST_LOOKS: Final = 100
_IDLE_LOOKS: Final = 200


async def measure_beside(base_url: str, work: Path, source: Path) -> list[Figure]:
    """check_status of a batch that is there, while create_batch reads, checks and uploads `source`."""
    with throttled(base_url, MEGABITS) as slow:
        figures = await _measure_at(slow, work / "wire", source, f" on {MEGABITS} Mbit/s", bound=3)
    return [*figures, *await _measure_at(base_url, work / "beside", source, "", bound=math.inf)]


async def _measure_at(base_url: str, work: Path, source: Path, wire: str, *, bound: float) -> list[Figure]:
    work.mkdir()
    small = work / "small.jsonl"
    small.write_text('{"key":"a","request":{"contents":[{"parts":[{"text":"hello"}]}]}}\n', encoding="utf-8")
    async with our_server(base_url, work / "home", source.parent) as client:
        batch = (await call(client, "create_batch", source=str(small)))["batch_id"]
        await anyio.sleep(3)
        others = os.getloadavg()[0]
        idle = [await _look(client, batch) for _ in range(_IDLE_LOOKS)]
        with _busy_processors():
            busy = [await _look(client, batch) for _ in range(_IDLE_LOOKS)]
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
    detail += f"{_percentile(idle, 0.99) * 1000:.0f} ms; load before it {others:.1f}"
    usual_busy = statistics.median(busy)
    busy_detail = f"p50 {usual_busy * 1000:.0f} ms, p99 {_percentile(busy, 0.99) * 1000:.0f} ms"
    bound = bound if len(beside) >= _LEAST_LOOKS else math.inf
    return [
        Figure(f"check_status beside an upload{wire}, p99 against idle p50", slowest / usual, bound, "×", detail),
        Figure("the same, against p50 on busy processors", slowest / usual_busy, math.inf, "×", busy_detail),
    ]


@contextmanager
def _busy_processors() -> Iterator[None]:
    """Keep every processor busy."""
    burning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in burning:
            process.kill()
            process.wait()


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


async def _measure(megabytes: int) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="gemini-batch-bench-") as name:
        work = Path(name)
        source = work / "requests.jsonl"
        write_requests(source, megabytes, megabytes * 1000)
        with service(work / "orders", seconds_per_job=1_000_000) as base_url:
            return await measure_beside(base_url, work, source)


def main() -> None:
    """Measure this alone, and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000, help="size of the request file")
    for figure in anyio.run(_measure, parser.parse_args().megabytes):
        print(f"{figure.name}: {figure.value:.1f} {figure.unit} ({figure.detail})")  # noqa: T201 - its output


if __name__ == "__main__":
    main()
