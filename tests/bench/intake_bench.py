"""What happens before anything is sent, against the plain way over the same file: lines checked, tables rendered.

Both ways run in turns, each in a process of its own, so that peak memory is each one's own. `bench.py` prints these
figures among its own; this file alone prints them too. `--megabytes 1000 --rows 1000000` is the size that the bounds
are stated for.
"""

import argparse
import base64
import csv
import importlib
import json
import multiprocessing
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.intake.compose import write_rows
from gemini_batch_mcp.intake.requests.reader import CHUNK_BYTES, CheckedReader
from gemini_batch_mcp.settings import MAX_FILE_BYTES

PROMPT: Final = "Classify this review: {{text}}\nIt was rated {{rating}}. Answer with one word."
MEGABYTE: Final = 1000**2
#: Keys for each row of the other files: ten million at the size of the bounds.
KEYS_PER_ROW: Final = 10
#: Less base64 than this is over before the decoders, 10 ms of work, are built.
LEAST_BASE64_BYTES: Final = 200 * MEGABYTE
#: With fewer rows, making and removing the scratch directory and the engine's connection is most of the work.
LEAST_TABLE_ROWS: Final = 100_000
_WORDS: Final = [
    "kettle",
    "boils",
    "fast",
    "and",
    "stays",
    "cool",
    "for",
    "its",
    "price",
    "über",
    "alles",
    "fine",
    "arrives",
    "late",
]


class Row(NamedTuple):
    """One figure in the order of `bench.Figure`. The bound is an upper one."""

    name: str
    value: float
    bound: float
    unit: str
    detail: str


class Run(NamedTuple):
    """What one way took. Loading modules is not counted."""

    rows: int
    seconds: float
    peak_bytes: int


def write_requests(path: Path, size_bytes: int, rows: int) -> None:
    """Write plain text requests."""
    choose = random.Random(5)
    frame = '{{"key":"row-{0:08d}","request":{{"contents":[{{"role":"user","parts":[{{"text":"{1}"}}]}}]}}}}\n'
    words = " ".join(choose.choices(_WORDS, k=max(1, size_bytes // rows - 90) // 5))
    with path.open("w", encoding="utf-8", buffering=MEGABYTE) as file:
        for number in range(rows):
            start = number % 50
            file.write(frame.format(number, words[start:] + words[:start]))


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


def parse(source: Path) -> int:
    """Parse each line and check nothing."""
    rows = 0
    with source.open("rb") as file:
        for line in file:
            json.loads(line)
            rows += 1
    return rows


def check(source: Path, known_sha256: str = "known") -> int:
    """Check each line, as a preview does; the hash is known then from finding the order's identity."""
    with CheckedReader(
        source,
        task="generate",
        keys_path=source.with_suffix(".keys"),
        max_file_bytes=MAX_FILE_BYTES,
        known_sha256=known_sha256,
    ) as reader:
        while reader.read(CHUNK_BYTES):
            pass
        return reader.finish().count


def check_and_hash(source: Path) -> int:
    """Check each line, and hash the file as well."""
    return check(source, "")


def replace(source: Path) -> int:
    """Render the prompt row by row, as a script would."""
    count = 0
    with (
        source.open(encoding="utf-8", newline="") as file,
        source.with_suffix(".plain").open("w", encoding="utf-8") as output,
    ):
        for count, row in enumerate(csv.DictReader(file), 1):
            prompt = PROMPT.replace("{{text}}", row["text"]).replace("{{rating}}", row["rating"])
            request = {"contents": [{"role": "user", "parts": [{"text": prompt}]}]}
            output.write(json.dumps({"key": f"row-{count:06d}", "request": request}) + "\n")
    return count


def render(source: Path) -> int:
    """Render the same prompt with `write_rows`."""
    keys_path = source.with_suffix(".keys")
    return write_rows(source, source.with_suffix(".ours"), order=Order(prompt=PROMPT), keys_path=keys_path).count


def run(way: Callable[[Path], int], source: Path) -> Run:
    """Go one way in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (way, source))


def _measured(way: Callable[[Path], int], source: Path) -> Run:
    if way is render:
        # The engine is loaded on first use; a server does that once. The plain way's modules are here already.
        importlib.import_module("duckdb")
    started = time.perf_counter()
    rows = way(source)
    return Run(rows, time.perf_counter() - started, _peak_bytes())


def _peak_bytes() -> int:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except OSError:
        # Elsewhere the figure may include the parent's, from before the new program was loaded; macOS counts in bytes.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def in_turns(source: Path, repeats: int, *ways: Callable[[Path], int]) -> list[list[Run]]:
    """Go each way so many times, in turns; every way must find the same number of rows."""
    turns = [[run(way, source) for way in ways] for _ in range(repeats)]
    assert len({found.rows for turn in turns for found in turn}) == 1
    return [list(runs) for runs in zip(*turns, strict=True)]


def _ratio(ours: list[Run], plain: list[Run]) -> float:
    return statistics.median(one.seconds / other.seconds for one, other in zip(ours, plain, strict=True))


def _seconds(runs: list[Run]) -> float:
    return statistics.median(found.seconds for found in runs)


def _megabytes(runs: list[Run]) -> float:
    return max(found.peak_bytes for found in runs) / MEGABYTE


def measure_checking(name: str, source: Path, repeats: int) -> Row:
    """Every line checked, against `json.loads` of every line."""
    plain, ours, hashed = in_turns(source, repeats, parse, check, check_and_hash)
    detail = (
        f"{_seconds(ours):.2f} s against {_seconds(plain):.2f} s for {source.stat().st_size / MEGABYTE:.0f} MB; "
        f"with the file's hash {_ratio(hashed, plain):.2f} ×"
    )
    return Row(f"checking {name}, against json.loads", _ratio(ours, plain), 1.0, "×", detail)


def measure_keys(source: Path) -> Row:
    """Memory for checking very many short lines, each key compared with all others."""
    found = run(check_and_hash, source)
    return Row("checking, peak memory", found.peak_bytes / MEGABYTE, 200, "MB", f"{found.rows:,} keys")


def measure_rendering(source: Path, repeats: int) -> list[Row]:
    """A table to checked requests, against csv, str.replace and json.dumps."""
    plain, ours = in_turns(source, repeats, replace, render)
    with source.with_suffix(".plain").open("rb") as one, source.with_suffix(".ours").open("rb") as other:
        assert all(json.loads(a)["request"] == json.loads(b)["request"] for a, b in zip(one, other, strict=True))
    ratio = _ratio(ours, plain)
    detail = f"{_seconds(ours):.2f} s against {_seconds(plain):.2f} s for {ours[0].rows:,} rows: {1 / ratio:.1f} times"
    peak = f"plain: {_megabytes(plain):.0f} MB"
    return [
        Row("CSV to requests, against csv and json", ratio, 1 / 3, "×", detail),
        Row("CSV to requests, peak memory", _megabytes(ours), 200, "MB", peak),
    ]


def measure(work: Path, *, megabytes: int, rows: int, repeats: int) -> list[Row]:
    """Measure everything; files are made in `work`, about twice `megabytes` at a time."""
    figures = []
    source = work / "texts.jsonl"
    write_requests(source, megabytes * MEGABYTE, rows)
    figures.append(measure_checking("text lines", source, repeats))
    write_pictures(source, max(megabytes * MEGABYTE, LEAST_BASE64_BYTES))
    figures.append(measure_checking("base64 lines", source, repeats))
    write_requests(source, 0, rows * KEYS_PER_ROW)
    figures.append(measure_keys(source))
    source.unlink()
    source = work / "reviews.csv"
    write_table(source, max(rows, LEAST_TABLE_ROWS))
    return [*figures, *measure_rendering(source, repeats)]


def main() -> int:
    """Measure, print, and with --strict return 1 when a bound was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=100, help="size of the request files")
    parser.add_argument("--rows", type=int, default=100_000, help="rows in them, and in the table")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each way; medians are compared")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a bound is missed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gemini-batch-bench-") as name:
        figures = measure(Path(name), megabytes=arguments.megabytes, rows=arguments.rows, repeats=arguments.repeats)
    for row in figures:
        verdict = "met" if row.value <= row.bound else "MISSED"
        sys.stdout.write(f"{row.name}: {row.value:.2f} {row.unit} (bound {row.bound:.2f}, {verdict}); {row.detail}\n")
    return int(arguments.strict and any(row.value > row.bound for row in figures))


if __name__ == "__main__":
    raise SystemExit(main())
