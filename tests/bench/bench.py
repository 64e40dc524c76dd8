"""Ratios against the plain way, both in one run on one machine; the Gemini service is a process of its own.

`make bench` runs a small size; BENCH_ARGS="--megabytes 1000 --rows 1000000" is the size that the bounds are stated for.
A bound that is missed is printed as missed; with --strict the exit code says so too.
"""

import argparse
import base64
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import psutil
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from rich.console import Console
from rich.table import Table

from bench import intake_bench, results_bench

HERE: Final = Path(__file__).parent
MODEL: Final = "gemini-3-flash-preview"
MEGABYTE: Final = 1000**2


@dataclass(frozen=True)
class Figure:
    """One measured figure and the bound it is held to. `bound` is an upper one."""

    name: str
    value: float
    bound: float
    unit: str
    detail: str

    @property
    def met(self) -> bool:
        return self.value <= self.bound


def write_requests(path: Path, megabytes: int, rows: int) -> None:
    """Write `rows` plain text requests that fill about `megabytes`; the answers come out about as long."""
    size = max(200, megabytes * MEGABYTE // rows)
    answer = f"[[sandbox:chars:{max(50, size - 450)}]]"
    frame = '{{"key":"row-{0:08d}","request":{{"contents":[{{"role":"user","parts":[{{"text":"{1}{2}"}}]}}]}}}}\n'
    padding = size - len(frame.format(0, answer, ""))
    words = ("classify this review of a kettle that boils fast and stays cool " * (padding // 60 + 1))[
        : max(0, padding)
    ]
    with path.open("w", encoding="utf-8", buffering=MEGABYTE) as file:
        for number in range(rows):
            file.write(frame.format(number, answer, words))


@contextmanager
def service(directory: Path, *, seconds_per_job: int) -> Iterator[str]:
    """Run the sandbox on a port; yields its address."""
    command = [
        sys.executable,
        "-m",
        "gemini_batch_mcp",
        "sandbox",
        "--port",
        "0",
        "--seconds-per-job",
        str(seconds_per_job),
    ]
    process = subprocess.Popen(
        [*command, "--directory", str(directory)], stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
    )
    assert process.stderr is not None
    try:
        yield process.stderr.readline().split()[-1].strip()
    finally:
        process.terminate()
        process.wait(timeout=30)


def plain(what: str, base_url: str, argument: str) -> dict[str, Any]:
    """Run the plain way in a process of its own."""
    command = [sys.executable, str(HERE / "plain.py"), what, base_url, argument, MODEL]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@asynccontextmanager
async def our_server(base_url: str, home: Path, root: Path) -> AsyncIterator[Client]:
    """Run our server as a client does, on stdio."""
    env = {
        "GEMINI_API_KEY": "bench",
        "GOOGLE_GEMINI_BASE_URL": base_url,
        "GEMINI_BATCH_HOME": str(home),
        "GEMINI_BATCH_ROOTS": str(root),
        "GEMINI_BATCH_POLL_SECONDS": "0.05",
    }
    server = StdioServerParameters(command=sys.executable, args=["-m", "gemini_batch_mcp"], env=env)
    async with Client(stdio_client(server), mode="legacy") as client:
        yield client


def peak_bytes() -> int:
    """Return the highest resident size so far of our server, the one child that is not the service."""
    children = [child for child in psutil.Process().children() if "sandbox" not in child.cmdline()]
    statuses = [Path(f"/proc/{child.pid}/status").read_text(encoding="ascii").splitlines() for child in children]
    return max(int(row.split()[1]) * 1024 for status in statuses for row in status if row.startswith("VmHWM"))


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool that must succeed."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error and result.structured_content is not None, result.content
    return dict(result.structured_content)


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
    return Figure("start to tools/list", our_seconds / plain_seconds, 1.2, "×", detail)


async def measure_order(base_url: str, work: Path, source: Path, repeats: int) -> list[Figure]:
    """create_batch against upload and create."""
    plain_seconds, our_seconds, peaks, plain_peaks = [], [], [], []
    for repeat in range(repeats):
        unchecked = plain("create", base_url, str(source))
        plain_seconds.append(unchecked["seconds"])
        plain_peaks.append(unchecked["peak_bytes"])
        async with our_server(base_url, work / f"home-{repeat}", work) as client:
            await anyio.sleep(3)  # Past the warm-up: the plain way's imports are not counted either.
            started = time.perf_counter()
            batch = await call(client, "create_batch", source=str(source), confirm=True)
            while batch["state"] == "JOB_STATE_QUEUED":
                batch = await call(client, "check_status", batch=batch["batch_id"], wait_seconds=45)
            our_seconds.append(time.perf_counter() - started)
            peaks.append(peak_bytes())
    ratio = statistics.median(our_seconds) / statistics.median(plain_seconds)
    seconds = f"{statistics.median(our_seconds):.2f} s against {statistics.median(plain_seconds):.2f} s"
    return [
        Figure("create_batch, every line checked", ratio, 1.5, "×", seconds),
        Figure(
            "create_batch, peak memory",
            max(peaks) / MEGABYTE,
            250,
            "MB",
            f"plain: {max(plain_peaks) / MEGABYTE:.0f} MB",
        ),
    ]


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


def _plain_peak(peaks: list[int]) -> str:
    return f"plain: {max(peaks) / MEGABYTE:.0f} MB"


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
            ordered = await measure_order(base_url, work, source, arguments.repeats)
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
    with tempfile.TemporaryDirectory() as name:
        sizes = {"megabytes": arguments.megabytes, "rows": arguments.rows, "repeats": arguments.repeats}
        figures += [Figure(*row) for row in intake_bench.measure(Path(name), **sizes)]
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
