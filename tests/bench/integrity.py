"""A large batch whose answers come back shuffled, with rows failed, dropped and duplicated: counted, retried, merged.

Every answer echoes the key of its request, so that a row under a wrong key would show. Run it with a size:
`PYTHONPATH=tests python tests/bench/integrity.py --rows 1000000`, and with `--cloud` on Google Cloud, where each job's
answers come in three objects. The exit code is 1 when anything is not exact.
"""

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio
import duckdb
from rich.console import Console

from gemini_batch_mcp.batches.desk import Desk
from gemini_batch_mcp.batches.opening import TransportFactory, lazy_desk
from gemini_batch_mcp.domain import Order, ResultQuery, ResultSummary
from gemini_batch_mcp.results.store import ResultTable
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import ByReads, FileFault, RowFault, SandboxConfig
from gemini_batch_mcp.settings import Secret, Settings
from support.cloud.places import on_cloud

#: One row in a hundred for each fault, by the last digits of its number.
FAULTS: Final = {7: RowFault.ERROR, 42: RowFault.DROPPED, 77: RowFault.DUPLICATED}
#: Of these, one in ten fails a second time.
STUBBORN: Final = 7


@dataclass
class Faults:
    """Which rows go wrong, and how often they have been asked for."""

    asked: dict[int, int] = field(default_factory=dict[int, int])

    def __call__(self, key: str) -> RowFault | None:
        """Return how the row of this key goes wrong this time."""
        number = int(key.removeprefix("k"))
        fault = FAULTS.get(number % 100)
        if fault is None:
            return None
        self.asked[number] = times = self.asked.get(number, 0) + 1
        often = 2 if number // 100 % 10 == STUBBORN and fault is not RowFault.DUPLICATED else 1
        return fault if times <= often else None


def write_rows(path: Path, rows: int) -> None:
    """Write `rows` short requests with keys k0, k1, …."""
    with path.open("w", encoding="utf-8", buffering=1 << 20) as file:
        for number in range(rows):
            file.write(f'{{"key":"k{number}","request":{{"contents":[{{"parts":[{{"text":"row {number}"}}]}}]}}}}\n')


async def run(desk: Desk, source: Path) -> tuple[str, ResultSummary, list[ResultSummary]]:
    """Order, collect, and retry until every row has an answer; return the batch and the summaries on the way."""
    placed = await desk.place_order(Order(source=str(source)))
    batch = placed.status.batch.id
    await desk.status(batch, wait_seconds=600)
    first = (await desk.results(batch, ResultQuery())).summary
    later: list[ResultSummary] = []
    while not later or later[-1].failed or later[-1].missing:
        await desk.retry(batch, ())
        await desk.status(batch, wait_seconds=600)
        later.append((await desk.results(batch, ResultQuery())).summary)
    return batch, first, later


def wrong_rows(table: Path, rows: int) -> dict[str, int]:
    """Return what is not as it must be in the merged table, counted."""
    parts = ResultTable.open(table).folder
    counts = duckdb.execute(
        f"""SELECT count(*), count(DISTINCT key), count(*) FILTER (status <> 'ok'),
                   count(*) FILTER (NOT suffix(text, 'key="' || key || '"')),
                   count(*) FILTER (key <> 'k' || (row - 1))
            FROM read_parquet('{parts}/*.parquet')"""
    ).fetchone()
    assert counts is not None
    return {
        "rows too many or too few": abs(counts[0] - rows),
        "keys that are there twice": counts[0] - counts[1],
        "rows without a good answer": counts[2],
        "rows under a wrong key": counts[3],
        "rows out of place": counts[4],
    }


def expected(rows: int) -> dict[str, int]:
    """Return what the first summary must say."""
    of = {fault: sum(number % 100 == digits for number in range(rows)) for digits, fault in FAULTS.items()}
    lost = of[RowFault.ERROR] + of[RowFault.DROPPED]
    return {
        "expected": rows,
        "succeeded": rows - lost,
        "failed": of[RowFault.ERROR],
        "missing": of[RowFault.DROPPED],
        "duplicate": of[RowFault.DUPLICATED],
        "unexpected": 0,
    }


@contextmanager
def _reached(
    settings: Settings, sandbox: Sandbox, *, is_cloud: bool
) -> Iterator[tuple[Settings, TransportFactory | None]]:
    if is_cloud:
        with on_cloud(settings, sandbox) as cloud:
            yield cloud, None
    else:
        yield settings, sandbox.transport


async def main() -> int:
    """Run once and print one JSON object; 1 when anything is not exact."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--cloud", action="store_true", help="on the sandbox's Google Cloud")
    options = parser.parse_args()
    rows: int = options.rows
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        write_rows(place / "rows.jsonl", rows)
        settings = Settings(
            home=place / "home",
            files=place / "home" / "files",
            roots=(place,),
            working_directory=place,
            api_key=Secret("bench", "GEMINI_API_KEY"),
            poll_seconds=0.05,
        )
        config = SandboxConfig(
            pace=ByReads(2), row_faults=Faults(), file_faults=frozenset({FileFault.SHUFFLED}), echoes_keys=True
        )
        with Sandbox(place / "service", config) as sandbox:
            with _reached(settings, sandbox, is_cloud=options.cloud) as (reached, transport):
                async with lazy_desk(reached, transport) as lazy:
                    desk = await lazy.get()
                    batch, first, later = await run(desk, place / "rows.jsonl")
                    wrong = wrong_rows(desk.app.files(batch).table, rows)
            creates = sandbox.creates
    wanted = expected(rows)
    jobs = math.ceil(rows / config.max_cloud_rows) if options.cloud else 1
    seen = {name: getattr(first, name) for name in wanted}
    Console().print_json(
        data={
            "rows": rows,
            "first": seen,
            "first_is_exact": seen == wanted,
            "retries": [{"failed": one.failed, "missing": one.missing} for one in later],
            "creates": creates,
            "wrong": wrong,
            "seconds": round(time.perf_counter() - started, 1),
        }
    )
    return int(seen != wanted or any(wrong.values()) or creates != jobs + len(later))


if __name__ == "__main__":
    sys.exit(anyio.run(main))
