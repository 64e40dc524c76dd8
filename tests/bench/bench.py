"""Ratios against the plain way, both in one run on one machine; the Gemini service is a process of its own.

`make bench` runs a small size; BENCH_ARGS="--megabytes 1000 --rows 1000000" is the size that the bounds are stated for.
A bound that is missed is printed as missed; with --strict the exit code says so too.
"""

import argparse
import base64
import json
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from rich.console import Console
from rich.table import Table

from bench import beside_bench, orders_bench, results_bench
from bench.parties import HERE, MEGABYTE, Figure, call, our_server, peak_bytes, plain, service, write_requests


async def results_when_there(client: Client, batch: str, **arguments: Any) -> dict[str, Any]:
    """Call get_results until the answers have been fetched."""
    while True:
        result = await client.call_tool("get_results", {"batch": batch, **arguments})
        if not result.is_error and result.structured_content is not None:
            return dict(result.structured_content)
        assert "still being fetched" in str(result.content), result.content


async def time_to_tools(command: list[str]) -> float:
    """Seconds from starting a server process to its list of tools."""
    started = time.perf_counter()
    async with Client(
        stdio_client(StdioServerParameters(command=command[0], args=command[1:])), mode="legacy"
    ) as client:
        await client.list_tools()
        return time.perf_counter() - started


async def measure_start(repeats: int) -> Figure:
    """Start to tools/list, in turns with a bare server."""
    bare, ours = [], []
    for _ in range(repeats):
        bare.append(await time_to_tools([sys.executable, str(HERE / "bare_server.py")]))
        ours.append(await time_to_tools([sys.executable, "-m", "gemini_batch_mcp"]))
    plain_seconds, our_seconds = statistics.median(bare), statistics.median(ours)
    detail = f"{our_seconds:.2f} s against {plain_seconds:.2f} s, medians of {repeats}"
    return Figure("start to tools/list", our_seconds / plain_seconds, 1.15, "×", detail)


async def measure_results(base_url: str, work: Path, job: str, rows: int, repeats: int) -> list[Figure]:
    """get_results against download, splitlines and json.loads."""
    plain_seconds, our_seconds, page_seconds, peaks, plain_peaks = [], [], [], [], []
    size_bytes = 0
    async with our_server(base_url, work / "warm", work) as client:
        # The service writes its result file when somebody looks at a finished job; that is nobody's time.
        while not (await call(client, "check_status", batch=job, wait_seconds=45))["done"]:
            pass
    for repeat in range(repeats):
        unindexed = plain("results", base_url, job)
        assert unindexed["rows"] == rows, unindexed["rows"]
        size_bytes = unindexed["bytes"]
        plain_seconds.append(unindexed["seconds"])
        plain_peaks.append(unindexed["peak_bytes"])
        async with our_server(base_url, work / f"results-{repeat}", work) as client:
            await anyio.sleep(3)
            started = time.perf_counter()
            page = await results_when_there(client, job, view="rows", limit=20)
            our_seconds.append(time.perf_counter() - started)
            assert page["summary"]["returned"] == rows
            cursor = _moved(page["next_cursor"], rows * 9 // 10)
            started = time.perf_counter()
            later = await results_when_there(client, job, view="rows", limit=20, cursor=cursor)
            page_seconds.append(time.perf_counter() - started)
            assert later["rows"]
            peaks.append(peak_bytes())
    whole = statistics.median(plain_seconds)
    ours, later_page = statistics.median(our_seconds), statistics.median(page_seconds)
    what = f"{size_bytes / MEGABYTE:.0f} MB, {rows:,} rows"
    return [
        Figure(
            "get_results, summary and first page", ours / whole, 1.5, "×", f"{ours:.2f} s against {whole:.2f} s; {what}"
        ),
        Figure(
            "get_results, peak memory", max(peaks) / MEGABYTE, 300, "MB", f"plain: {max(plain_peaks) / MEGABYTE:.0f} MB"
        ),
        Figure("get_results, a page near the end", later_page / whole, 0.01, "×", f"{later_page * 1000:.0f} ms"),
    ]


def _moved(cursor: str, row: int) -> str:
    """Return the cursor of the same query at another row: walking there page by page would take the bench minutes."""
    query, _ = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    return base64.urlsafe_b64encode(json.dumps([query, row]).encode()).decode().rstrip("=")


async def measure(arguments: argparse.Namespace, console: Console) -> list[Figure]:
    """Run everything once."""
    with tempfile.TemporaryDirectory(prefix="gemini-batch-bench-") as name:
        work = Path(name)
        source = work / "requests.jsonl"
        write_requests(source, arguments.megabytes, arguments.rows)
        console.print(f"{source.stat().st_size / MEGABYTE:.0f} MB of requests in {arguments.rows:,} rows")
        figures = [await measure_start(arguments.starts)]
        # Jobs that never move, so that no answers are written while orders are measured.
        with service(work / "orders", seconds_per_job=1_000_000) as base_url:
            sizes = {"megabytes": arguments.megabytes, "rows": arguments.rows, "repeats": arguments.repeats}
            ordered = await orders_bench.measure_orders(base_url, work, source, **sizes)
            ordered += await beside_bench.measure_beside(base_url, work, source)
        with service(work / "results", seconds_per_job=0) as base_url:
            job = plain("create", base_url, str(source))["job"]
            read = await measure_results(base_url, work, job, arguments.rows, arguments.repeats)
        return [*figures, *ordered, *read]


def main() -> None:
    """Measure, print a table, and with --strict fail when a bound was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=100, help="size of the request file")
    parser.add_argument("--rows", type=int, default=100_000, help="request lines in it")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each side; medians are compared")
    parser.add_argument("--starts", type=int, default=7, help="starts of each server")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a bound is missed")
    arguments = parser.parse_args()
    console = Console(width=150 if not sys.stdout.isatty() else None)
    figures = anyio.run(measure, arguments, console)
    sizes = {"megabytes": arguments.megabytes, "rows": arguments.rows, "repeats": arguments.repeats}
    with tempfile.TemporaryDirectory() as name:
        figures += [Figure(*row) for row in results_bench.measure(Path(name), **sizes)]
    table = Table("what", "measured", "bound", "", "detail")
    for figure in figures:
        verdict = "[green]met[/]" if figure.met else "[red]missed[/]"
        digits = 4 if figure.value < 0.1 else 2
        measured, bound = f"{figure.value:.{digits}f} {figure.unit}", f"≤ {figure.bound:g} {figure.unit}"
        if math.isinf(figure.bound):
            bound, verdict = "for larger files", ""
        table.add_row(figure.name, measured, bound, verdict, figure.detail)
    console.print(table)
    if arguments.strict and not all(figure.met for figure in figures):
        sys.exit(1)


if __name__ == "__main__":
    main()
