"""A folder of many small text files as a source, through a real client on stdio: the time, processor and memory of it.

Each call is made again as its answer says until it has come to its end: a folder that takes longer than a call may is
no reason to give up.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import anyio
import psutil
from mcp.client import Client

from bench.parties import MEGABYTE, our_server, peak_bytes, service

FOLDERS: Final = 20
#: The longest that one call may take: clients give up at 60 seconds.
MOST_SECONDS: Final = 50.0
MOST_MB: Final = 400
AGAIN: Final = "Make the same call again in half a minute"


def write_files(folder: Path, count: int) -> None:
    for number in range(count):
        place = folder / f"{number % FOLDERS:02}"
        if number < FOLDERS:
            place.mkdir(parents=True)
        (place / f"review-{number:06}.txt").write_text(
            f"Bought it in week {number % 52}, number {number}. It boils fast and stays cool.\n", encoding="utf-8"
        )


def processor_seconds() -> float:
    """What our server has taken so far, of all its threads."""
    children = [child for child in psutil.Process().children() if child.cmdline()[1:] == ["-m", "gemini_batch_mcp"]]
    return sum(sum(child.cpu_times()[:2]) for child in children)


async def to_its_end(client: Client, tool: str, order: dict[str, Any]) -> dict[str, Any]:
    """Call until it is done; say how long each call took, and what it was answered with."""
    taken, used = [], processor_seconds()
    while True:
        started = time.perf_counter()
        result = await client.call_tool(tool, order)
        taken.append(time.perf_counter() - started)
        if not result.is_error:
            break
        said = str(result.content)
        assert AGAIN in said, said
        sys.stdout.write(f"  {taken[-1]:.1f} s: {said}\n")
        await anyio.sleep(5)
    calls = ", ".join(f"{seconds:.1f} s" for seconds in taken)
    used = processor_seconds() - used
    sys.stdout.write(f"{tool}: {calls}; {used:.1f} s of the processor, peak {peak_bytes() / MEGABYTE:.0f} MB\n")
    sys.stdout.flush()
    assert max(taken) < MOST_SECONDS, taken
    return dict(result.structured_content or {})


async def measure(count: int) -> None:
    with tempfile.TemporaryDirectory(prefix="gemini-batch-bench-") as name:
        work = Path(name)
        write_files(work / "reviews", count)
        with service(work / "service", seconds_per_job=1_000_000) as base_url:
            async with our_server(base_url, work / "home", work) as client:
                order = {"source": f"{work}/reviews/**", "prompt": "Mood? {{text}}"}
                seen = await to_its_end(client, "preview_batch", order)
                assert (seen["ok"], seen["request_count"]) == (True, count), seen
                made = await to_its_end(client, "create_batch", order)
                assert (made["request_count"], made["send_count"], made["reused"]) == (count, count, False), made
                again = await to_its_end(client, "create_batch", order)
                assert again["reused"] and again["batch_id"] == made["batch_id"], again
                assert peak_bytes() < MOST_MB * MEGABYTE


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--files", type=int, default=20_000)
    anyio.run(measure, arguments.parse_args().files)


if __name__ == "__main__":
    main()
