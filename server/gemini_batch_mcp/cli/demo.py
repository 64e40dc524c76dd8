"""A whole batch conversation, the way an assistant has it: a real MCP client, a real server process, a user's table.

In the sandbox some rows are made to fail on purpose, because failures are what one wants to have seen before paying.
"""

import csv
import io
import itertools
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import anyio
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.syntax import Syntax
from rich.table import Table

from gemini_batch_mcp.cli.console import output, rows_table
from gemini_batch_mcp.errors import BatchError
from gemini_batch_mcp.text import dollars
from gemini_batch_mcp.threads import in_thread

_REVIEWS = (
    "The kettle boils fast and the handle stays cool.",
    "Arrived with a cracked lid, and nobody answers my emails.",
    "It does what it should. Nothing more, nothing less.",
    "I have now bought three: my parents and my sister have one, too.",
    "The manual is only in a language I cannot read.",
    "Loud, but the coffee is excellent.",
    "Stopped working after two weeks; refund was quick.",
    "Colour differs from the picture, size is right.",
)
#: Rows that the sandbox answers as Gemini sometimes does.
_TROUBLE = {3: "blocked", 7: "error:8", 11: "max_tokens", 17: "dropped"}
#: How often the demo looks whether late answers are there, and how many times.
_LOOK_SECONDS: Final = 0.5
_MAX_LATE_LOOKS: Final = 120
_PRODUCTS = ("kettle", "mug", "lamp")
_ORDER = {
    "prompt": "Classify this review of a {{product}}: {{text}}",
    "key_column": "id",
    "response_schema": {
        "type": "object",
        "properties": {
            "label": {"type": "string", "enum": ["positive", "negative", "mixed"]},
            "reason": {"type": "string"},
        },
        "required": ["label", "reason"],
    },
    "generation_config": {"maxOutputTokens": 200},
}
_QUESTION = "SELECT product, label, count(*) AS reviews FROM results WHERE status = 'ok' GROUP BY ALL ORDER BY ALL"


async def run_demo(directory: Path, rows: int, live: bool, env: Mapping[str, str]) -> None:
    """Hold the conversation and print it. `directory` receives `reviews.csv` and the results; state is thrown away.

    What lies there is left as it is: beside another `reviews.csv`, the table is called `reviews-2.csv`.

    Raises:
        BatchError: a tool answered with an error.
    """
    console = output()
    source = await in_thread(_write_input, directory, rows, with_trouble=not live)
    arguments = ["-m", "gemini_batch_mcp", *([] if live else ["--sandbox"])]
    with tempfile.TemporaryDirectory(prefix="gemini-batch-demo-") as state:
        server_env = dict(env) | {"GEMINI_BATCH_HOME": state, "GEMINI_BATCH_ROOTS": str(directory)}
        if not live:
            server_env["GEMINI_BATCH_POLL_SECONDS"] = "0.3"
        server = StdioServerParameters(command=sys.executable, args=arguments, env=server_env, cwd=directory)
        async with Client(stdio_client(server), mode="legacy") as client:
            await _show_tools(console, client)
            await in_thread(_show_input, console, source)
            await _preview(console, client, source)
            batch_id = await _order(console, client, source)
            await _follow(console, client, batch_id)
            await _show_results(console, client, batch_id)


def _write_input(directory: Path, rows: int, *, with_trouble: bool) -> Path:
    """Write the table under a name that is free, or that the same table has from an earlier demo; returns its path."""
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(["id", "product", "text"])
    for number in range(1, rows + 1):
        mark = f" [[sandbox:{_TROUBLE[number]}]]" if with_trouble and number in _TROUBLE else ""
        review = f"{_REVIEWS[number % len(_REVIEWS)]}{mark}"
        table.writerow([f"review-{number:04d}", _PRODUCTS[number % len(_PRODUCTS)], review])
    content = text.getvalue().encode()
    directory.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        path = directory / (f"reviews-{number}.csv" if number > 1 else "reviews.csv")
        try:
            with path.open("xb") as file:
                file.write(content)
            return path
        except FileExistsError:
            if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
                return path
    raise AssertionError("some number is free")


async def _call(client: Client, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    text = "\n".join(block.text for block in result.content if block.type == "text")
    if result.is_error or result.structured_content is None:
        raise BatchError(f"The demo stopped at {tool}: {text}")
    answer: dict[str, Any] = result.structured_content
    return answer


def _heading(console: Console, number: int, text: str, call: str = "") -> None:
    console.print()
    console.print(f"[bold]{number}. {escape(text)}[/]" + (f"  [dim]{escape(call)}[/]" if call else ""))


async def _show_tools(console: Console, client: Client) -> None:
    _heading(console, 1, "The server's tools", "tools/list")
    table = Table("tool", "what it does")
    for tool in (await client.list_tools()).tools:
        table.add_row(tool.name, escape((tool.description or "").split(". ")[0].rstrip(".") + "."))
    console.print(table)


def _show_input(console: Console, source: Path) -> None:
    _heading(console, 2, "The input", str(source))
    with source.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    table = Table(*header)
    for row in rows[:4]:
        table.add_row(*map(escape, row))
    console.print(table)
    console.print(f"{len(rows)} rows in all.")


async def _preview(console: Console, client: Client, source: Path) -> None:
    _heading(console, 3, "See the cost first", f"preview_batch source={source.name} prompt={_ORDER['prompt']!r} …")
    preview = await _call(client, "preview_batch", {"source": str(source), **_ORDER})
    console.print("The first request:")
    console.print(
        Syntax(json.dumps(preview["sample"][0], indent=2), "json", word_wrap=True, background_color="default")
    )
    estimate = preview["estimate"]
    low, high = dollars(estimate["cost_usd_low"]), dollars(estimate["cost_usd_high"])
    console.print(f"{preview['request_count']} requests, {low} to {high} at the prices of {estimate['priced_on']}.")


async def _order(console: Console, client: Client, source: Path) -> str:
    _heading(console, 4, "Submit it", f"create_batch source={source.name} …")
    created = await _call(client, "create_batch", {"source": str(source), "display_name": "demo reviews", **_ORDER})
    job = created["jobs"][0]
    console.print(f"{created['request_count']} requests ordered as {created['batch_id']}: {job['name']} {job['state']}")
    again = await _call(client, "create_batch", {"source": str(source), **_ORDER})
    console.print(
        f"The same order again: reused={again['reused']}, still {again['batch_id']}; nothing is charged twice."
    )
    return str(created["batch_id"])


async def _follow(console: Console, client: Client, batch_id: str) -> None:
    _heading(console, 5, "Follow it", f"check_status batch={batch_id} wait_seconds=0.5")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("waiting", total=None)
        seen, late_looks = "", 0
        while True:
            status = await _call(client, "check_status", {"batch": batch_id, "wait_seconds": 0.5})
            counts = status["counts"]
            done = counts["succeeded"] + counts["failed"]
            progress.update(bar, description=status["state"], total=counts["total"] or None, completed=done)
            line = f"{status['state']}: {counts['succeeded']} ok, {counts['failed']} failed of {counts['total']}"
            if line != seen:
                progress.console.print(line)
                seen = line
            if status["done"] and (status["results_ready"] or not _may_still_come(status, late_looks)):
                break
            if status["done"]:
                # One row of the demo gets no answer: a look at the same bytes once more tells that none will come.
                late_looks += 1
                await anyio.sleep(_LOOK_SECONDS)
    console.print(escape(status["advice"]))
    if not status["results_ready"]:
        raise BatchError(f"The demo's batch ended as {status['state']}.", status["advice"])


def _may_still_come(status: dict[str, Any], late_looks: int) -> bool:
    """True while a job that went well shows fewer answers than it counts: they may be late."""
    return status["state"] in ("JOB_STATE_SUCCEEDED", "JOB_STATE_PARTIALLY_SUCCEEDED") and late_looks < _MAX_LATE_LOOKS


async def _show_results(console: Console, client: Client, batch_id: str) -> None:
    _heading(console, 6, "Read the answers", f"get_results batch={batch_id} view=rows limit=5 save_to=results.jsonl")
    arguments = {"batch": batch_id, "view": "rows", "limit": 5, "save_to": "results.jsonl"}
    results = await _call(client, "get_results", arguments)
    summary = results["summary"]
    counts = Table(*(name for name, count in summary.items() if count or name == "missing"))
    counts.add_row(*(str(count) for name, count in summary.items() if count or name == "missing"))
    console.print(counts)
    console.print(rows_table([(row["key"], row["status"], row["text"] or row["error"]) for row in results["rows"]]))
    usage = results["usage"]
    console.print(f"{usage['input_tokens']} tokens in, {usage['output_tokens']} out.")
    _heading(console, 7, "Query all of them", f"query_results sql={_QUESTION}")
    answer = await _call(client, "query_results", {"batch": batch_id, "sql": _QUESTION})
    table = Table(*answer["columns"])
    for row in answer["rows"]:
        table.add_row(*(escape(str(cell)) for cell in row))
    console.print(table)
    _heading(console, 8, "See what failed", f"get_results batch={batch_id} view=failures")
    failures = await _call(client, "get_results", {"batch": batch_id, "view": "failures"})
    shown = [(row["key"], row["status"], row["error"] or row["finish_reason"]) for row in failures["rows"]]
    console.print(rows_table(shown))
    console.print("retry_failed would resend those rows, and only those.")
    arguments = {"batch": batch_id, "save_to": "results.csv", "format": "csv"}
    saved = (await _call(client, "get_results", arguments))["saved"]
    console.print()
    console.print(f"All {saved['rows']} rows are in {escape(saved['path'])}, beside your own columns.", soft_wrap=True)
