"""An order of a million rows, 30 % of them repeats and 50 % answered before: what reuse adds to a preview, and whether
it holds.

Each preview is in a process of its own, with its processor time and its peak memory: with `reuse="never"`, which takes
no identities, and with the default, in turns. Then the order is placed and answered by the embedded service: exactly
the distinct new requests are on its record, and every row has the answer to its own request.

    PYTHONPATH=tests python -m bench.reuse_bench [--rows 1000000]
"""

import argparse
import csv
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import anyio

from gemini_batch_mcp.batches.opening import lazy_desk
from gemini_batch_mcp.domain import Order, ResultQuery
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import ByTime, SandboxConfig
from gemini_batch_mcp.settings import Secret, Settings

#: Bounds (our choice): of a preview with reuse to one without, and of its memory.
MAX_ADDED: Final = 0.15
MAX_MEGABYTES: Final = 300
#: Previews of each kind, of which the quickest counts: the machine may do other things.
_TURNS: Final = 3
_REPEATS: Final = 0.30
_ANSWERED: Final = 0.50
_SCHEMA: Final[dict[str, Any]] = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
_WORDS: Final = ("kettle", "boils", "fast", "and", "stays", "cool", "for", "its", "price", "arrives", "late", "again")


def order_of(source: Path, reuse: Any) -> Order:
    """The order of a table, as it is given each time."""
    prompt = "Classify this review: {{text}}\nAnswer with one label."
    return Order(
        source=str(source),
        prompt=prompt,
        key_column="id",
        response_schema=_SCHEMA,
        generation_config={"maxOutputTokens": 100},
        model="gemini-3-flash-preview",
        reuse=reuse,
    )


def settings_of(place: Path, base_url: str) -> Settings:
    """A server on the service at that address."""
    return Settings(
        home=place / "home",
        files=place / "home" / "files",
        roots=(place,),
        working_directory=place,
        api_key=Secret("bench-key", "GEMINI_API_KEY"),
        base_url=base_url,
        poll_seconds=0.5,
    )


def text_of(number: int) -> str:
    """The text with that number: about 90 characters, like no other one."""
    choose = random.Random(number)
    return f"{number} {' '.join(choose.choices(_WORDS, k=14))}"


def write_table(path: Path, numbers: Sequence[int]) -> None:
    """Write a table of texts by their numbers."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["id", "text"])
        for place, number in enumerate(numbers):
            table.writerow([f"r{place}", text_of(number)])


def plan(rows: int) -> tuple[list[int], list[int]]:
    """Return the texts of an earlier order, all different, and those of the order that is measured, shuffled."""
    choose = random.Random(11)
    distinct = round(rows * (1 - _REPEATS))
    numbers = [*range(distinct), *(choose.randrange(distinct) for _ in range(rows - distinct))]
    # Repeats are of answered and of new ones alike, so that this share of the distinct ones answers half of the rows.
    answered = round(distinct * _ANSWERED)
    choose.shuffle(numbers)
    return list(range(answered)), numbers


async def _preview(place: Path, base_url: str, way: str) -> dict[str, Any]:
    settings = settings_of(place, base_url)
    async with lazy_desk(settings) as lazy:
        desk = await lazy.get()
        # What a server has loaded long before is not counted.
        await desk.preview(order_of(place / "small.csv", "never"))
        before = _seconds()
        seen = await desk.preview(order_of(place / "new.csv", "auto" if way == "auto" else "never"))
        seconds = _seconds() - before
    counts = [seen.request_count, seen.send_count, seen.reused_count, seen.identical_count]
    return {"seconds": seconds, "peak_mb": _peak_megabytes(), "counts": counts}


async def _place(place: Path, base_url: str, name: str) -> dict[str, Any]:
    """Place an order, wait for its answers, and look at every row."""
    settings = settings_of(place, base_url)
    async with lazy_desk(settings) as lazy:
        desk = await lazy.get()
        started = _seconds()
        placement = await desk.place_order(order_of(place / name, "auto"))
        placed, batch = _seconds() - started, placement.status.batch.id
        while not (await desk.status(batch, wait_seconds=20)).done:
            pass
        results = await desk.results(batch, ResultQuery(save_to=str(place / f"{batch}.parquet")))
        summary = results.summary
    return {
        "batch": batch,
        "placed_seconds": placed,
        "peak_mb": _peak_megabytes(),
        "sent": placement.send_count,
        "reused": placement.reused_count,
        "ok": summary.succeeded,
        "expected": summary.expected,
        "saved": str(results.saved.path) if results.saved is not None else "",
    }


def _seconds() -> float:
    spent = [resource.getrusage(kind) for kind in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _run(way: str, place: Path, base_url: str, name: str = "") -> dict[str, Any]:
    # What an earlier one has staged would be taken.
    shutil.rmtree(place / "home" / "staged", ignore_errors=True)
    done = subprocess.run(
        [sys.executable, "-m", "bench.reuse_bench", "--only", way, str(place), base_url, name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def wrong_rows(first: str, second: str, batch: str, answered: int) -> dict[str, int]:
    """Count the rows that do not have what they should: the answer to their own text, one for all that ask the same."""
    import duckdb

    def of(path: str) -> str:
        return f"(SELECT *, split_part(source_text, ' ', 1)::BIGINT AS number FROM read_parquet('{path}'))"

    connection = duckdb.connect()
    columns = [row[0] for row in connection.execute(f"DESCRIBE FROM read_parquet('{second}')").fetchall()]
    text = "source_text" if "source_text" in columns else "text"
    before, now = (of(path).replace("source_text", text) for path in (first, second))
    checks = {
        "not ok": f"{now} WHERE status <> 'ok'",
        "taken and not answered before": f"{now} WHERE (answered_by = '{batch}') <> (number < {answered})",
        "paid and taken": f"{now} WHERE answered_by <> '' AND cost_usd <> 0",
        "another answer than before": f"{now} now JOIN {before} before USING (number) WHERE now.json <> before.json",
        "other answers to the same": f"(SELECT number FROM {now} GROUP BY number HAVING count(DISTINCT json) <> 1)",
        "not paid once": f"(SELECT number FROM {now} WHERE number >= {answered} GROUP BY number "
        "HAVING count(*) FILTER (cost_usd > 0) <> 1)",
    }
    return {
        name: int(connection.execute(f"SELECT count(*) FROM {what}").fetchall()[0][0]) for name, what in checks.items()
    }


def main() -> None:
    """Print the figures of all previews and of the order, or be one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--only", nargs=4, metavar=("WAY", "PLACE", "URL", "NAME"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        way, place, base_url, name = options.only
        work = (_place, Path(place), base_url, name) if way == "place" else (_preview, Path(place), base_url, way)
        sys.stdout.write(json.dumps(anyio.run(*work)) + "\n")
        return
    earlier, numbers = plan(options.rows)
    new = len(set(numbers) - set(earlier))
    reused = sum(number < len(earlier) for number in numbers)
    with tempfile.TemporaryDirectory(prefix="gemini-batch-reuse-") as name:
        place = Path(name).resolve()
        write_table(place / "small.csv", range(5))
        write_table(place / "old.csv", earlier)
        write_table(place / "new.csv", numbers)
        with (
            Sandbox(place / "service", SandboxConfig(pace=ByTime(0))) as service,
            service.listening() as base_url,
        ):
            first = _run("place", place, base_url, "old.csv")
            assert (first["ok"], first["sent"]) == (len(earlier), len(earlier)), first
            seen = [_run(way, place, base_url) for _ in range(_TURNS) for way in ("never", "auto")]
            assert seen[1]["counts"] == [len(numbers), new, reused, len(numbers) - new - reused], seen
            second = _run("place", place, base_url, "new.csv")
            assert second["sent"] == max(service.create_records, key=lambda one: one.create_ns).row_count == new, second
        wrong = wrong_rows(first["saved"], second["saved"], first["batch"], len(earlier))
    never, auto = (min(one["seconds"] for one in seen[start::2]) for start in (0, 1))
    added, peak = auto / never - 1, max(one["peak_mb"] for one in seen[1::2])
    sys.stdout.write(
        f"{len(numbers):,} rows, {len(earlier):,} distinct ones answered before: {new:,} sent, {reused:,} taken, "
        f"{len(numbers) - new - reused:,} repeats of what is sent\n"
        f"preview: {never:.2f} s of a processor with reuse='never', {auto:.2f} s with reuse "
        f"({added:+.1%}, ≤ {MAX_ADDED:.0%})\n"
        f"memory: {max(one['peak_mb'] for one in seen[::2]):.0f} MB with reuse='never', {peak:.0f} MB with reuse "
        f"(≤ {MAX_MEGABYTES}), {second['peak_mb']:.0f} MB for the whole order with its table\n"
        f"order: {second['placed_seconds']:.1f} s of a processor until it was placed; rows wrong: {wrong}\n"
    )
    sys.exit(any(wrong.values()))


if __name__ == "__main__":
    main()
