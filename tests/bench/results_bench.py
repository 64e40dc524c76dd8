"""From a finished job to its result table and what is read from it, against the plain way, in one run on one machine.

The Gemini service is a small HTTP server of its own that has the answers ready, so that nobody waits for anything but
bytes. Every way runs in a process of its own, in turns, so that peak memory is each one's own. This file alone prints
the figures; `--megabytes 1000 --rows 1000000` is the size that the bounds are stated for.
"""

import argparse
import csv
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio
import psutil
from google import genai
from google.genai import types
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

MEGABYTE: Final = 1000**2
JOB: Final = "batches/bench"
FILE: Final = "files/batch-bench"
#: Below this much, what is measured are fixed costs, and no bound says anything.
LEAST_BYTES: Final = 200 * MEGABYTE
#: As long as a real one, so that what comes in is searched for it.
KEY: Final = "AIzaSyBench0123456789abcdefghijklmnopqr"
_TEXT: Final = (
    "the kettle boils fast and quiet, its lid is steel; money came back after weeks and still it works quickly, "
    "customer service replaced the dented base, the cord is short, the light is blue and the water tastes of plastic; "
)
_SQL: Final = "SELECT status, finish_reason, count(*) FROM results GROUP BY ALL"


class Row(NamedTuple):
    """One figure in the order of `bench.Figure`. The bound is an upper one."""

    name: str
    value: float
    bound: float
    unit: str
    detail: str


def write_answers(path: Path, *, megabytes: int, rows: int) -> None:
    """Write an answer file of `rows` rows of prose that fill about `megabytes`."""
    frame = (
        '{{"key":"row-{0:08d}","response":{{"candidates":[{{"content":{{"parts":[{{"text":"{1} {0}"}}],'
        '"role":"model"}},"finishReason":"STOP","index":0}}],"usageMetadata":{{"promptTokenCount":14,"candidatesTokenCount":12,'
        '"totalTokenCount":71,"thoughtsTokenCount":45}},"modelVersion":"gemini-3.8-flash","responseId":"i{0}"}}}}\n'
    )
    chars = max(10, megabytes * MEGABYTE // rows - len(frame.format(0, "")))
    words = _TEXT.split()
    chance = random.Random(1)
    texts = [" ".join(chance.choices(words, k=chars // 4))[:chars] for _ in range(1000)]
    with path.open("w", encoding="utf-8", buffering=MEGABYTE) as file:
        for number in range(rows):
            file.write(frame.format(number, texts[number % 1000]))


def serve(path: str, rows: str) -> None:
    """Be a Gemini service with one finished job; prints its address."""
    import socket

    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import FileResponse, JSONResponse, Response
    from starlette.routing import Route

    metadata = {
        "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
        "model": "models/gemini-3.8-flash",
        "displayName": "bench",
        "output": {"responsesFile": FILE},
        "state": "BATCH_STATE_SUCCEEDED",
        "name": JOB,
        "createTime": "2026-11-22T09:00:01Z",
        "batchStats": {"requestCount": rows, "successfulRequestCount": rows},
    }

    async def job(_: Request) -> Response:
        return JSONResponse({"name": JOB, "done": True, "metadata": metadata})

    async def answers(_: Request) -> Response:
        return FileResponse(path)

    app = Starlette(routes=[Route("/v1beta/batches/{name}", job), Route("/v1beta/files/{name}", answers)])
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        sys.stdout.write(f"http://127.0.0.1:{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


def plain_download(base_url: str, destination: str) -> None:
    """The SDK's streamed download to the disk."""
    client = _client(base_url)  # Held: it closes its connection when nobody does.
    client.files.download(file=FILE, destination=destination)


def plain_count(path: str, _: str) -> None:
    """json.loads over the file, and counters."""
    counts: Counter[tuple[str, str]] = Counter()
    page: list[str] = []
    with Path(path).open(encoding="utf-8") as file:
        for row in file:
            answer = json.loads(row)
            candidate = answer["response"]["candidates"][0]
            counts["ok" if "response" in answer else "failed", candidate["finishReason"]] += 1
            if len(page) < 20:
                page.append(candidate["content"]["parts"][0]["text"])


def plain_csv(path: str, destination: str) -> None:
    """json.loads lines into csv.DictWriter."""
    with Path(path).open(encoding="utf-8") as file, Path(destination).open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, ["key", "status", "text", "finish_reason", "model_version", "tokens"])
        writer.writeheader()
        for row in file:
            answer = json.loads(row)
            response = answer["response"]
            candidate = response["candidates"][0]
            writer.writerow(
                {
                    "key": answer["key"],
                    "status": "ok",
                    "text": candidate["content"]["parts"][0]["text"],
                    "finish_reason": candidate["finishReason"],
                    "model_version": response["modelVersion"],
                    "tokens": response["usageMetadata"]["candidatesTokenCount"],
                }
            )


def seed(base_url: str, destination: str) -> None:
    """What the seed skill's script does: all in memory, as text, and written out again."""
    client = _client(base_url)
    content = client.files.download(file=FILE).decode("utf-8")
    Path(destination).write_text(content, encoding="utf-8")
    answers = [json.loads(row) for row in content.splitlines() if row.strip()]
    Counter("response" in answer for answer in answers)


PLAIN_WAYS: Final[dict[str, Callable[[str, str], None]]] = {
    "serve": serve,
    "download": plain_download,
    "count": plain_count,
    "csv": plain_csv,
    "seed": seed,
}


def measure(directory: Path, *, megabytes: int, rows: int, repeats: int) -> list[Row]:
    """Measure both ways in turns and return the figures."""
    return anyio.run(_measure, directory, megabytes, rows, repeats)


async def _measure(directory: Path, megabytes: int, rows: int, repeats: int) -> list[Row]:
    answers = directory / "answers.jsonl"
    write_answers(answers, megabytes=megabytes, rows=rows)
    plain: dict[str, list[float]] = {name: [] for name in ("download", "count", "csv")}
    names = ("table", "collecting", "page", "first query", "query", "csv", "peak")
    ours: dict[str, list[float]] = {name: [] for name in names}
    with _service(answers, rows) as base_url:
        for repeat in range(repeats):
            copy = directory / "copy"
            plain["download"].append(_run("download", base_url, str(copy))["seconds"])
            plain["count"].append(_run("count", str(answers), "")["seconds"])
            plain["csv"].append(_run("csv", str(answers), str(copy))["seconds"])
            copy.unlink()
            for name, value in (await _ours(base_url, directory, rows, repeat)).items():
                ours[name].append(value)
        seeds = _run("seed", base_url, str(directory / "copy"))
    median = {name: statistics.median(values) for name, values in plain.items()}
    mine = {name: statistics.median(values) for name, values in ours.items()}
    size = answers.stat().st_size
    what = f"{size / MEGABYTE:.0f} MB, {rows:,} rows; the seed's way: {seeds['seconds']:.1f} s"

    def ratio(name: str, seconds: float, plain_seconds: float, bound: float, detail: str = "") -> Row:
        # Three digits, since some of these are hundredths of a second.
        told = f"{seconds:.3f} s against {plain_seconds:.2f} s"
        return Row(
            name,
            seconds / plain_seconds,
            bound if size >= LEAST_BYTES else float("inf"),
            "×",
            f"{told}; {detail}" if detail else told,
        )

    return [
        ratio("download to result table", mine["table"], median["download"], 2.0, what),
        Row("the same, peak memory", max(ours["collecting"]), 400, "MB", f"the seed's way: {seeds['peak_mb']:.0f} MB"),
        ratio("summary and first page, once collected", mine["page"], median["count"], 1 / 100),
        ratio("count(*) GROUP BY over all rows", mine["query"], median["count"], 1 / 50),
        ratio("the same, the first question at all", mine["first query"], median["count"], 1 / 50),
        ratio("CSV export", mine["csv"], median["csv"], 1 / 5),
        Row("all of these, peak memory", max(ours["peak"]), 400, "MB", "one server"),
    ]


async def _ours(base_url: str, directory: Path, rows: int, repeat: int) -> dict[str, float]:
    """Do it all with one server, as a client on stdio does."""
    seconds: dict[str, float] = {}
    async with _our_server(base_url, directory / f"home-{repeat}", directory) as client:
        await anyio.sleep(3)  # Past the warm-up: the plain way's imports are not counted either.
        started = time.perf_counter()
        summary = (await _until_there(client))["summary"]
        seconds["table"] = time.perf_counter() - started
        seconds["collecting"] = _peak_megabytes()
        assert summary["succeeded"] == rows, summary
        started = time.perf_counter()
        assert len((await _until_there(client, view="rows", limit=20))["rows"]) == 20
        seconds["page"] = time.perf_counter() - started
        for name in ("first query", "query"):
            started = time.perf_counter()
            result = await client.call_tool("query_results", {"batch": JOB, "sql": _SQL})
            seconds[name] = time.perf_counter() - started
            assert not result.is_error, result.content
        started = time.perf_counter()
        await _until_there(client, save_to=str(directory / f"out-{repeat}.csv"), format="csv")
        seconds["csv"] = time.perf_counter() - started
        seconds["peak"] = _peak_megabytes()
    return seconds


async def _until_there(client: Client, **arguments: Any) -> dict[str, Any]:
    """Call get_results until nothing goes on in the background any more."""
    while True:
        result = await client.call_tool("get_results", {"batch": JOB, **arguments})
        if not result.is_error and result.structured_content is not None:
            return dict(result.structured_content)
        assert "The answers are still being" in str(result.content), result.content


@asynccontextmanager
async def _our_server(base_url: str, home: Path, root: Path) -> AsyncIterator[Client]:
    env = {
        "GEMINI_API_KEY": KEY,
        "GOOGLE_GEMINI_BASE_URL": base_url,
        "GEMINI_BATCH_HOME": str(home),
        "GEMINI_BATCH_ROOTS": str(root),
    }
    server = StdioServerParameters(command=sys.executable, args=["-m", "gemini_batch_mcp"], env=env)
    async with Client(stdio_client(server), mode="legacy") as client:
        yield client


@contextmanager
def _service(answers: Path, rows: int) -> Iterator[str]:
    process = subprocess.Popen([*_command("serve"), str(answers), str(rows)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(timeout=30)


def _run(way: str, *arguments: str) -> dict[str, float]:
    """Run a plain way in a process of its own; returns its seconds and peak megabytes."""
    done = subprocess.run([*_command(way), *arguments], capture_output=True, text=True, check=True)
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def _command(way: str) -> list[str]:
    return [sys.executable, __file__, f"--way={way}"]


def _peak_megabytes() -> float:
    """Return the highest resident size so far of our server, without the processes that it started itself."""
    servers = [child for child in psutil.Process().children() if "--way=serve" not in child.cmdline()]
    statuses = [Path(f"/proc/{server.pid}/status").read_text(encoding="ascii").splitlines() for server in servers]
    return (
        max(int(row.split()[1]) * 1024 for status in statuses for row in status if row.startswith("VmHWM")) / MEGABYTE
    )


def _client(base_url: str) -> genai.Client:
    return genai.Client(api_key=KEY, http_options=types.HttpOptions(api_version="v1beta", base_url=base_url))


def main() -> None:
    """Print the figures, or be one of the plain ways."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=300, help="size of the answer file")
    parser.add_argument("--rows", type=int, default=300_000, help="answers in it")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each side; medians are compared")
    parser.add_argument("--way", choices=PLAIN_WAYS, help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        started = time.perf_counter()
        PLAIN_WAYS[arguments.way](*arguments.arguments)
        seconds = time.perf_counter() - started
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEGABYTE
        json.dump({"seconds": seconds, "peak_mb": peak_mb}, sys.stdout)
        return
    with tempfile.TemporaryDirectory(prefix="gemini-batch-results-") as name:
        sizes = {"megabytes": arguments.megabytes, "rows": arguments.rows, "repeats": arguments.repeats}
        for row in measure(Path(name), **sizes):
            verdict = "met" if row.value <= row.bound else "MISSED"
            sys.stdout.write(f"{row.name}: {row.value:.3g} {row.unit} (≤ {row.bound:g}, {verdict}); {row.detail}\n")


if __name__ == "__main__":
    main()
