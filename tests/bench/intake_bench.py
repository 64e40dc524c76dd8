"""A table to a checked request file, against `csv.DictReader` + `str.replace` + `json.dumps` over the same file.

Both run in processes of their own, one after the other, so that peak memory is each one's own. `--rows 1000000` is
the size that the bounds are stated for. A bound that is missed is printed as missed; with --strict the exit code says
so too.
"""

import argparse
import csv
import json
import multiprocessing
import random
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.intake.compose import write_rows

PROMPT: Final = "Classify this review: {{text}}\nIt was rated {{rating}}. Answer with one word."
FASTER: Final = 3.0
PEAK_MEGABYTES: Final = 200
_WORDS: Final = (
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
)


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


def plain(source: Path, destination: Path) -> int:
    """Render the prompt row by row, as a script would; return the number of rows."""
    count = 0
    with source.open(encoding="utf-8", newline="") as file, destination.open("w", encoding="utf-8") as output:
        for count, row in enumerate(csv.DictReader(file), 1):
            prompt = PROMPT.replace("{{text}}", row["text"]).replace("{{rating}}", row["rating"])
            request = {"contents": [{"role": "user", "parts": [{"text": prompt}]}]}
            output.write(json.dumps({"key": f"row-{count:06d}", "request": request}) + "\n")
    return count


def ours(source: Path, destination: Path) -> int:
    """Render the same prompt with `write_rows`; return the number of rows."""
    keys_path = destination.with_suffix(".keys")
    return write_rows(source, destination, order=Order(prompt=PROMPT), keys_path=keys_path).count


def _measured(way: str, source: Path, destination: Path) -> tuple[int, float, float]:
    started = time.perf_counter()
    count = (ours if way == "ours" else plain)(source, destination)
    seconds = time.perf_counter() - started
    # Linux counts in KiB, macOS in bytes.
    unit = 1000**2 if sys.platform == "darwin" else 1000**2 / 1024
    return count, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def run(way: str, source: Path, destination: Path) -> tuple[int, float, float]:
    """Return rows, seconds (loading the engine included) and peak megabytes of one run in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (way, source, destination))


def same_texts(left: Path, right: Path) -> bool:
    """True when both files hold the same requests in the same order."""
    with left.open("rb") as one, right.open("rb") as other:
        return all(json.loads(a)["request"] == json.loads(b)["request"] for a, b in zip(one, other, strict=True))


def main() -> int:
    """Measure, print, and return the exit code."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=200_000)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--strict", action="store_true")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        source = directory / "reviews.csv"
        write_table(source, chosen.rows)
        ratios, peaks = [], []
        for _ in range(chosen.repeats):
            counts, seconds = [], []
            for way in ("plain", "ours"):
                count, elapsed, peak = run(way, source, directory / f"{way}.jsonl")
                counts.append(count)
                seconds.append(elapsed)
            assert counts == [chosen.rows, chosen.rows], counts
            ratios.append(seconds[0] / seconds[1])
            peaks.append(peak)
            sys.stdout.write(
                f"plain {seconds[0]:.2f} s, ours {seconds[1]:.2f} s: {ratios[-1]:.1f} times, {peak:.0f} MB\n"
            )
        assert same_texts(directory / "plain.jsonl", directory / "ours.jsonl")
    ratio, peak = statistics.median(ratios), max(peaks)
    met = ratio >= FASTER and peak < PEAK_MEGABYTES
    sys.stdout.write(
        f"{chosen.rows:,} rows: {ratio:.1f} times as fast (bound: {FASTER:.0f}), peak {peak:.0f} MB "
        f"(bound: {PEAK_MEGABYTES}): {'met' if met else 'MISSED'}\n"
    )
    return 0 if met or not chosen.strict else 1


if __name__ == "__main__":
    raise SystemExit(main())
