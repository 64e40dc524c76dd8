"""What an assistant reads for "classify 10,000 reviews, count by label, show five failures": characters by tool."""

import argparse
import csv
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import anyio
from mcp.client import Client
from rich.console import Console
from rich.table import Table

from gemini_batch_mcp.assistant.server import build_server
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import ByReads, RowFault, SandboxConfig
from gemini_batch_mcp.settings import Secret, Settings

#: For the whole conversation (our choice: a small part of what an assistant can hold).
MAX_CHARS: Final = 12_000
ORDER: Final = {
    "prompt": "Is this review positive, negative or mixed? {{text}}",
    "key_column": "id",
    "response_schema": {
        "type": "object",
        "properties": {"label": {"type": "string", "enum": ["positive", "negative", "mixed"]}},
        "required": ["label"],
    },
    "generation_config": {"maxOutputTokens": 100},
}


def write_reviews(path: Path, rows: int) -> None:
    """Write a table of reviews with ids, products and texts of an ordinary length."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "product", "text"])
        for number in range(rows):
            text = (
                f"Bought it in week {number % 52}. "
                + "It boils fast and stays cool, but it is louder than I hoped. " * 4
            )
            table.writerow([f"r{number}", f"product {number % 7}", text])


async def converse(place: Path, rows: int) -> list[tuple[str, int]]:
    """Hold the conversation; return every call with the characters of its answer's text."""
    write_reviews(place / "reviews.csv", rows)
    settings = Settings(
        home=place / "home",
        files=place / "home" / "files",
        roots=(place,),
        working_directory=place,
        api_key=Secret("bench", "GEMINI_API_KEY"),
        poll_seconds=0.05,
    )
    read: list[tuple[str, int]] = []
    config = SandboxConfig(pace=ByReads(3), row_faults={RowFault.ERROR: 0.01, RowFault.BLOCKED: 0.005})
    with Sandbox(place / "service", config) as sandbox:
        async with Client(build_server(settings, transport=sandbox.transport), mode="auto") as client:

            async def call(tool: str, **arguments: Any) -> dict[str, Any]:
                result = await client.call_tool(tool, arguments)
                text = "".join(block.text for block in result.content if block.type == "text")
                if result.is_error or result.structured_content is None:
                    raise SystemExit(f"{tool}: {text}")
                read.append((tool, len(text)))
                return dict(result.structured_content)

            await call("preview_batch", source="reviews.csv", **ORDER)
            batch = (await call("create_batch", source="reviews.csv", **ORDER))["batch_id"]
            while not (await call("check_status", batch=batch, wait_seconds=45))["done"]:
                pass
            await call("get_results", batch=batch)
            await call(
                "query_results", batch=batch, sql="SELECT label, count(*) FROM results GROUP BY 1 ORDER BY 2 DESC"
            )
            await call("get_results", batch=batch, view="failures", limit=5)
    return read


def main() -> int:
    """Print the table; 1 when it is more than an assistant should have to read."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as name:
        read = anyio.run(converse, Path(name), rows)
    total = sum(count for _, count in read)
    table = Table("call", "characters read", title=f"classify {rows:,} reviews, count by label, show five failures")
    for tool, count in read:
        table.add_row(tool, f"{count:,}")
    table.add_row("[bold]all", f"[bold]{total:,} (bound {MAX_CHARS:,}: {'met' if total < MAX_CHARS else 'MISSED'})")
    Console().print(table)
    return int(total >= MAX_CHARS)


if __name__ == "__main__":
    sys.exit(main())
