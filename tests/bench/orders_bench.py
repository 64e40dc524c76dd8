"""Orders before anything is paid, as whole tools through the protocol: preview_batch and create_batch.

Against `json.loads` over every line, against csv and json for a table, and against upload and create with google-genai;
in turns, each way in a process of its own, so that peak memory is each one's own.
"""

import base64
import csv
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import anyio

from bench.parties import HERE, MEGABYTE, Figure, call, our_server, peak_bytes, plain, plain_peak

PROMPT: Final = "Classify this review: {{text}}\nIt was rated {{rating}}. Answer with one word."
#: Less base64 than this is over before the decoders, 10 ms of work, are built.
LEAST_BASE64_BYTES: Final = 200 * MEGABYTE
#: Keys for each row of the short lines: ten million at the size of the bounds.
KEYS_PER_ROW: Final = 10
#: A line of this speed is what many offices have.
MEGABITS: Final = 100
_WORDS: Final = ("kettle", "boils", "fast", "and", "stays", "cool", "for", "its", "price", "über", "arrives", "late")


def write_pictures(path: Path, size_bytes: int) -> None:
    """Write requests with a picture each, of 4 KB to 4 MB as base64: as many bytes in small ones as in large ones."""
    choose = random.Random(6)
    encoded = base64.b64encode(choose.randbytes(3_000_000)).decode()
    frame = (
        '{{"key":"picture-{0}","request":{{"contents":[{{"role":"user","parts":[{{"inlineData":'
        '{{"mimeType":"image/png","data":"{1}"}}}},{{"text":"What is this?"}}]}}]}}}}\n'
    )
    sizes = [size for power in range(6) for size in [4096 * 4**power] * 4 ** (5 - power)]
    choose.shuffle(sizes)
    number = written = 0
    with path.open("w", encoding="ascii", buffering=MEGABYTE) as file:
        while written < size_bytes:
            written += file.write(frame.format(number, encoded[: sizes[number % len(sizes)]]))
            number += 1


def write_table(path: Path, rows: int) -> None:
    """Write reviews with quotes, commas and letters beyond ASCII; about 110 bytes a row."""
    choose = random.Random(7)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["id", "text", "rating", "date"])
        for number in range(rows):
            text = " ".join(choose.choices(_WORDS, k=14))
            # Every fifth text has a comma and quotes, so that its cell is quoted.
            text = text if number % 5 else f'"{text}", says my neighbour'
            table.writerow([number, text, number % 5, f"2026-01-{number % 28 + 1:02d}"])


async def measure_preview(base_url: str, work: Path, source: Path, repeats: int, **bounds: Any) -> list[Figure]:
    """preview_batch of ready lines, against `json.loads` of each."""
    what = bounds.pop("what")
    ours, theirs, peaks = [], [], []
    for repeat in range(repeats):
        theirs.append(plain("parse", base_url, str(source))["seconds"])
        async with our_server(base_url, work / f"preview-{what}-{repeat}".replace(" ", "-"), work) as client:
            await anyio.sleep(3)  # Past the warm-up: the plain way's imports are not counted either.
            started = time.perf_counter()
            seen = await call(client, "preview_batch", source=str(source))
            ours.append(time.perf_counter() - started)
            assert seen["ok"], seen["problems"]
            peaks.append(peak_bytes())
    return [
        _ratio(f"preview_batch of {what}, against json.loads", ours, theirs, bounds["ratio"], source),
        Figure(f"preview_batch of {what}, peak memory", max(peaks) / MEGABYTE, bounds["megabytes"], "MB", ""),
    ]


async def measure_table(base_url: str, work: Path, source: Path, repeats: int) -> list[Figure]:
    """preview_batch of a table, against csv, str.replace and json.dumps."""
    ours, theirs, peaks, plain_peaks = [], [], [], []
    for repeat in range(repeats):
        rendered = plain("render", PROMPT, str(source))
        theirs.append(rendered["seconds"])
        plain_peaks.append(rendered["peak_bytes"])
        async with our_server(base_url, work / f"table-{repeat}", work) as client:
            await anyio.sleep(3)
            started = time.perf_counter()
            seen = await call(client, "preview_batch", source=str(source), prompt=PROMPT)
            ours.append(time.perf_counter() - started)
            assert seen["request_count"] == rendered["rows"]
            peaks.append(peak_bytes())
    return [
        _ratio("preview_batch of a table, against csv and json", ours, theirs, 1.0, source),
        Figure("preview_batch of a table, peak memory", max(peaks) / MEGABYTE, 350, "MB", plain_peak(plain_peaks)),
    ]


async def measure_order(
    base_url: str, work: Path, source: Path, repeats: int, *, wire: str = "", bound: float, is_previewed: bool
) -> list[Figure]:
    """create_batch against upload and create; every line is checked and bounded."""
    ours, theirs, peaks, plain_peaks = [], [], [], []
    for repeat in range(repeats):
        unchecked = plain("create", base_url, str(source))
        theirs.append(unchecked["seconds"])
        plain_peaks.append(unchecked["peak_bytes"])
        home = work / f"home-{repeat}-{int(is_previewed)}-{len(wire)}"
        async with our_server(base_url, home, work) as client:
            await anyio.sleep(3)
            if is_previewed:
                await call(client, "preview_batch", source=str(source))
            started = time.perf_counter()
            while True:
                result = await client.call_tool("create_batch", {"source": str(source)})
                if not result.is_error:
                    break
                assert "still" in str(result.content) or "being written" in str(result.content), result.content
            batch = dict(result.structured_content or {})
            while batch["state"] == "JOB_STATE_QUEUED":
                # Short looks: a job that is there never ends here, and a long one would wait for that.
                batch = await call(client, "check_status", batch=batch["batch_id"], wait_seconds=0.5)
            ours.append(time.perf_counter() - started)
            peaks.append(peak_bytes())
    how = " after its preview" if is_previewed else ""
    name = f"create_batch{how}{wire}"
    return [
        _ratio(f"{name}, against upload and create", ours, theirs, bound, source),
        Figure(f"{name}, peak memory", max(peaks) / MEGABYTE, 250, "MB", plain_peak(plain_peaks)),
    ]


@contextmanager
def throttled(base_url: str, megabits: float) -> Iterator[str]:
    """Put a slow wire in front of the service; yields its address."""
    port = base_url.rsplit(":", 1)[1].strip("/")
    process = subprocess.Popen(
        [sys.executable, str(HERE / "wire.py"), port, str(megabits)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def _ratio(name: str, ours: list[float], theirs: list[float], bound: float, source: Path) -> Figure:
    """Compare in turns: the machine may be slower in one than in another."""
    ratio = statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
    megabytes = source.stat().st_size / MEGABYTE
    seconds = f"{statistics.median(ours):.2f} s against {statistics.median(theirs):.2f} s"
    return Figure(name, ratio, bound, "×", f"{seconds}; {megabytes:.0f} MB, medians of {len(ours)}")


async def measure_orders(
    base_url: str, work: Path, source: Path, *, megabytes: int, rows: int, repeats: int
) -> list[Figure]:
    """Measure everything; files are made in `work`, about `megabytes` at a time. `source` holds text lines."""
    figures = await measure_preview(base_url, work, source, repeats, what="text lines", ratio=0.9, megabytes=250)
    for is_previewed in (False, True):
        figures += await measure_order(base_url, work, source, repeats, bound=1.4, is_previewed=is_previewed)
    with throttled(base_url, MEGABITS) as slow:
        wire = f" on {MEGABITS} Mbit/s"
        figures += await measure_order(slow, work, source, 1, wire=wire, bound=1.05, is_previewed=False)
    other = work / "other.jsonl"
    write_pictures(other, max(megabytes * MEGABYTE, LEAST_BASE64_BYTES))
    figures += await measure_preview(base_url, work, other, repeats, what="base64 lines", ratio=0.9, megabytes=400)
    write_short(other, rows * KEYS_PER_ROW)
    figures += await measure_preview(base_url, work, other, 1, what="short lines", ratio=1.5, megabytes=250)
    other.unlink()
    table = work / "reviews.csv"
    write_table(table, max(rows, 100_000))
    return [*figures, *await measure_table(base_url, work, table, repeats)]


def write_short(path: Path, rows: int) -> None:
    """Write very many short lines."""
    with path.open("w", encoding="utf-8", buffering=MEGABYTE) as file:
        for number in range(rows):
            file.write(f'{{"key":"row-{number:08d}","request":{{"contents":[{{"parts":[{{"text":"hi"}}]}}]}}}}\n')
