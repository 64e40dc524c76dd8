"""What a trial takes beyond its calls: rows answered now, four at a time, over what four at a time can reach.

    PYTHONPATH=tests python -m bench.now_bench [--rows 50] [--seconds 2.0]

A real server process, a real client, and the sandbox on a port, in which every call takes so many seconds. Measured is
from create_batch to the check_status that says that the batch has ended.
"""

import argparse
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import anyio

from bench.parties import call, our_server
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import SandboxConfig

CALLS_AT_ONCE: Final = 4
#: Of what four at a time can reach.
_BOUND: Final = 1.1


async def measure(base_url: str, work: Path, rows: int) -> float:
    """Order so many rows, answered now, and wait for their end; returns the seconds."""
    lines = [f'{number},"Review {number}"' for number in range(rows)]
    source = work / "reviews.csv"
    source.write_text("\n".join(["id,review", *lines, ""]), encoding="utf-8")
    async with our_server(base_url, work / "now", work) as client:
        # As in a conversation: what loads in the background is there by the time of an order.
        await call(client, "list_jobs")
        await anyio.sleep(3)
        began = time.perf_counter()
        order = {"source": str(source), "prompt": "Mood of {{review}}?", "key_column": "id", "delivery": "now"}
        status = await call(client, "create_batch", **order, confirm=True)
        while status["state"] != "JOB_STATE_SUCCEEDED":
            status = await call(client, "check_status", batch=status["batch_id"], wait_seconds=45)
        seconds = time.perf_counter() - began
        results = await call(client, "get_results", batch=status["batch_id"])
    assert results["summary"]["succeeded"] == rows, results["summary"]
    return seconds


def main() -> int:
    """Measure and print; 1 when it takes longer than it may."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=2.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        with (
            Sandbox(work / "service", SandboxConfig(call_seconds=given.seconds)) as sandbox,
            sandbox.listening() as base_url,
        ):
            seconds = anyio.run(measure, base_url, work, given.rows)
            assert len(sandbox.call_records) == given.rows
            assert sandbox.calls.most_open_calls <= CALLS_AT_ONCE
    reachable = math.ceil(given.rows / CALLS_AT_ONCE) * given.seconds
    ratio = seconds / reachable
    sys.stdout.write(
        f"{given.rows} rows at {given.seconds:g} s a call, four at a time: {seconds:.1f} s, {ratio:.3f} of "
        f"{reachable:g} s (at most {_BOUND})\n"
    )
    return 0 if ratio <= _BOUND else 1


if __name__ == "__main__":
    raise SystemExit(main())
