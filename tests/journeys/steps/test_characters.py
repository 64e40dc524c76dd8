"""How much an assistant reads for a whole errand: label 500 reviews, apologise for the negative ones, look at it.

And for the errands that follow: the same from another model, a file of two columns, what was spent.
"""

import csv
import sys
from pathlib import Path

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from support.conversation import Conversation, newest
from support.extent import long

pytestmark = [pytest.mark.anyio, pytest.mark.both_eras]

#: What both steps and their one file may take to read (our choice), and what each errand that follows may.
MOST_CHARACTERS = 9_000
MOST_AFTERWARDS = 5_000
ROWS = 500
SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string", "enum": ["negative", "positive"]}},
    "required": ["label"],
}


@long
async def test_filter_and_apologise_is_two_steps_and_one_file_in_few_characters(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    with (data / "reviews.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "product", "text"])
        writer.writerows([f"r{n:03}", f"p{n % 7}", f"It arrived late, order {n}"] for n in range(ROWS))
    read: list[str] = []

    async def told(tool: str, **arguments: object) -> None:
        read.append(await talk.text(tool, **arguments))

    first = {
        "source": "reviews.csv",
        "prompt": "Label: {{text}}",
        "key_column": "id",
        "response_schema": SCHEMA,
        "display_name": "labels",
    }
    await told("preview_batch", **first)
    await told("create_batch", **first)
    sandbox.finish(newest(sandbox))
    await told("check_status", batch="labels")
    await told("get_results", batch="labels")
    second = {
        "source": "labels",
        "where": "label = 'negative'",
        "prompt": "Apologise in one sentence to the buyer of {{product}}: {{source_text}}",
        "display_name": "apologies",
    }
    await told("preview_batch", **second)
    await told("create_batch", **second)
    sandbox.finish(newest(sandbox))
    await told("check_status", batch="apologies")
    await told("get_results", batch="apologies", save_to="apologies.csv")
    characters = sum(map(len, read))
    sys.stderr.write(f"\nfilter and apologise: {characters:,} characters in {len(read)} replies\n")
    assert characters < MOST_CHARACTERS
    with (data / "apologies.csv").open(encoding="utf-8-sig", newline="") as file:
        saved = list(csv.DictReader(file))
    assert 0 < len(saved) < ROWS
    assert {row["label"] for row in saved} == {"negative"}
    assert {"id", "product", "source_text", "label", "text"} <= saved[0].keys()

    errands: dict[str, list[tuple[str, dict[str, object]]]] = {
        "another model, and where it differs": [
            ("preview_batch", {"like": "labels", "model": "gemini-2.5-flash-lite"}),
            ("create_batch", {"like": "labels", "model": "gemini-2.5-flash-lite", "display_name": "cheap"}),
            ("check_status", {"batch": "cheap"}),
            ("compare_results", {"batch": "cheap", "other": "labels"}),
        ],
        "two columns": [
            ("get_results", {"batch": "labels", "save_to": "two.csv", "sql": "SELECT id, label FROM results"}),
        ],
        "what was spent": [
            ("list_jobs", {}),
            ("query_results", {"batch": "labels", "sql": "SELECT status, sum(cost_usd) FROM results GROUP BY 1"}),
        ],
    }
    for errand, calls in errands.items():
        read.clear()
        for tool, arguments in calls:
            await told(tool, **arguments)
            if tool == "create_batch":
                sandbox.finish(newest(sandbox))
        characters = sum(map(len, read))
        sys.stderr.write(f"{errand}: {characters:,} characters in {len(read)} replies\n")
        assert characters < MOST_AFTERWARDS, errand
    assert (data / "two.csv").read_text(encoding="utf-8-sig").splitlines()[0] == "id,label"
