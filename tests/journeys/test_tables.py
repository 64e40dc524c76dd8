"""From a table and a prompt to answers, on the command line and through the desk: what is previewed is what is sent."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gemini_batch_mcp.batches.opening import lazy_desk
from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import Run, line, request_file, write_lines

pytestmark = pytest.mark.anyio

CSV = 'id;text;product\n007;"boils; ""fast""";kettle\n008;"two\nlines";mug\n009;{{id}};lid\n'
PROMPT = "Mood of {{text}} ({{product}})?"


@pytest.fixture
def table(data: Path) -> str:
    (data / "reviews.csv").write_text(CSV, encoding="utf-8")
    return "reviews.csv"


async def test_a_preview_shows_the_requests_that_are_sent_and_what_they_cost(
    settings: Settings, sandbox: Sandbox, table: str
) -> None:
    order = Order(
        source=table,
        prompt=PROMPT,
        key_column="id",
        response_schema={"type": "object", "properties": {"mood": {"type": "string"}}},
    )
    async with lazy_desk(settings, sandbox.transport) as lazy:
        desk = await lazy.get()
        preview = await desk.preview(order)
        assert sandbox.creates == 0
        assert not any(request.route.startswith("files.") for request in sandbox.requests)
        placed = await desk.place_order(order)
        sent = desk.app.files(placed.status.batch.id).requests().read_text(encoding="utf-8").splitlines()

    assert preview.request_count == 3
    assert [json.loads(row) for row in sent[:2]] == list(preview.sample)
    assert json.loads(sent[0])["key"] == "007"
    texts = [json.loads(row)["request"]["contents"][0]["parts"][0]["text"] for row in sent]
    assert texts == ['Mood of boils; "fast" (kettle)?', "Mood of two\nlines (mug)?", "Mood of {{id}} (lid)?"]
    assert preview.estimate is not None
    assert preview.estimate.cost_usd_low is not None
    assert preview.estimate.cost_usd_high is not None
    assert preview.estimate.cost_usd_low < preview.estimate.cost_usd_high
    assert sum(request.route == "countTokens" for request in sandbox.requests) <= 20
    assert sandbox.creates == 1


async def test_the_prompt_the_schema_and_the_keys_belong_to_the_orders_identity(
    settings: Settings, sandbox: Sandbox, table: str
) -> None:
    order = Order(source=table, prompt=PROMPT)
    async with lazy_desk(settings, sandbox.transport) as lazy:
        desk = await lazy.get()
        first = await desk.place_order(order)
        again = await desk.place_order(replace(order, display_name="another name"))
        other = await desk.place_order(replace(order, prompt="Else: {{text}}"))
        keyed = await desk.place_order(replace(order, key_column="id"))
        pilot = await desk.place_order(replace(order, limit_rows=1))

    assert again.reused
    assert again.status.batch.id == first.status.batch.id
    assert not other.reused
    assert not keyed.reused
    assert not pilot.reused
    assert pilot.status.batch.request_count == 1


async def test_a_preview_of_wrong_lines_lists_them_and_one_of_right_lines_counts_them(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    async with lazy_desk(settings, sandbox.transport) as lazy:
        desk = await lazy.get()
        wrong = await desk.preview(Order(source=write_lines(data / "wrong.jsonl", [line("a"), line("a")])))
        right = await desk.preview(Order(source=request_file(data)))
        mended = await desk.preview(Order(source=write_lines(data / "blank.jsonl", [line("a"), "", line("b")])))
        given = await desk.preview(Order(requests=({"prompt": "one"},), system_instruction="Be brief."))

    assert wrong.problem_count == 1
    assert wrong.problems[0].line == 2
    assert wrong.estimate is None
    assert right.request_count == 3
    assert mended.request_count == 2
    assert any("blank line" in warning for warning in mended.warnings)
    assert given.sample[0]["request"]["systemInstruction"]["parts"][0]["text"] == "Be brief."


@pytest.mark.parametrize("kind", ["table", "requests", "call"])
async def test_an_order_above_the_hard_cap_is_refused_and_nothing_leaves(
    settings: Settings, sandbox: Sandbox, data: Path, table: str, kind: str
) -> None:
    orders = {
        "table": Order(source=table, prompt=PROMPT),
        "requests": Order(source=request_file(data)),
        "call": Order(requests=({"prompt": "one"},)),
    }
    async with lazy_desk(replace(settings, max_cost_usd=0.000001), sandbox.transport) as lazy:
        desk = await lazy.get()
        with pytest.raises(UsageError, match="GEMINI_BATCH_MAX_COST_USD"):
            await desk.place_order(orders[kind])
        with pytest.raises(UsageError, match="cannot be priced"):
            await desk.place_order(Order(source="files/abc"), confirm=True)
    assert not any(request.route.startswith("files.") for request in sandbox.requests)
    async with lazy_desk(replace(settings, max_cost_usd=100.0), sandbox.transport) as lazy:
        assert not (await (await lazy.get()).place_order(orders[kind])).reused


@pytest.mark.parametrize(
    ("order", "words"),
    [
        (Order(source="reviews.csv"), "prompt"),
        (Order(source="reviews.csv", prompt="{{txt}}"), "text"),
        (Order(source="reviews.jsonl", prompt="{{text}}"), "does not go with prompt"),
        (Order(requests=({"prompt": "x"},), limit_rows=3), "does not go with limit_rows"),
        (Order(source="files/abc", prompt="x"), "does not go with prompt"),
        (Order(source="picture.png", prompt="x"), "is one image file, not a table of rows"),
    ],
)
async def test_parts_that_do_not_go_together_are_named(
    settings: Settings, sandbox: Sandbox, data: Path, table: str, order: Order, words: str
) -> None:
    request_file(data)
    (data / "picture.png").write_bytes(b"\x89PNG")
    async with lazy_desk(settings, sandbox.transport) as lazy:
        with pytest.raises(UsageError, match=words):
            await (await lazy.get()).place_order(order)
    assert sandbox.creates == 0


def test_a_csv_becomes_answers_on_the_command_line(run_at_port: Run, data: Path, table: str) -> None:
    (data / "schema.json").write_text('{"type":"object","properties":{"mood":{"enum":["good","bad"]}}}')
    options = ("--prompt", PROMPT, "--key-column", "id", "--schema", "schema.json")
    preview = run_at_port("preview", table, *options)
    assert preview.returncode == 0, preview.stderr
    assert "boils; " in preview.stdout
    assert "$" in preview.stdout
    created = run_at_port("create-batch", table, *options)
    assert created.returncode == 0, created.stderr
    assert run_at_port("check-status", created.stdout.strip(), "-w").returncode == 0
    results = run_at_port("get-results", created.stdout.strip(), "-o", "moods.jsonl")
    assert results.returncode == 0, results.stderr
    moods = [json.loads(row) for row in (data / "moods.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["key"] for row in moods] == ["007", "008", "009"]
    assert all(json.loads(row["text"])["mood"] in ("good", "bad") for row in moods)

    assert run_at_port("preview", table, "--prompt", PROMPT, "--schema", "nowhere.json").returncode == 2
    assert run_at_port("preview", table, "--prompt", PROMPT, "--config", "[1]").returncode == 2
    write_lines(data / "wrong.jsonl", [line("a"), line("a")])
    wrong = run_at_port("preview", "wrong.jsonl")
    assert wrong.returncode == 1
    assert "line 2" in wrong.stdout
