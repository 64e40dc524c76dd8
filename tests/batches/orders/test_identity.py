"""What an order is: everything that its lines are made of, and nothing else; also across versions of this program."""

import hashlib
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.batches.orders.preparing import identify_for
from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import Conversation, converse, desk_of, line, request_file
from support.extent import few

pytestmark = pytest.mark.anyio

#: Endings that are read in different ways, and others that are read like one of them.
ENDINGS = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".parquet")
SAME = ((".csv", ".CSV"), (".jsonl", ".ndjson"), (".txt", ".Txt"))
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(200))

#: Bytes that are a table with the column `text` under both endings, and how many rows they have.
BOTH = (
    (".csv", ".txt", "text\nx\ny\n", 2, 3),
    (".tsv", ".txt", "text\nx\ny\n", 2, 3),
    (".csv", ".tsv", "text,a\ttext\nx,b\ty\n", 1, 1),
    (".json", ".txt", '[{"text": "x"},\n{"text": "y"},\n{"text": "z"}]\n\n', 3, 3),
    (".json", ".txt", '[\n{"text": "x"}\n]\n', 1, 3),
    (".jsonl", ".txt", '{"text": "x"}\n{"text": "y"}\n', 2, 2),
)


async def fingerprints(settings: Settings, sandbox: Sandbox, *orders: Order) -> list[str]:
    async with desk_of(settings, sandbox) as desk:
        return [identify_for(desk.app, order).sha256 for order in orders]


@pytest.mark.parametrize(("one", "other"), [*combinations(ENDINGS, 2), *SAME])
async def test_the_ending_is_part_of_an_order_where_it_is_read_in_another_way(
    settings: Settings, sandbox: Sandbox, data: Path, one: str, other: str
) -> None:
    for number, ending in enumerate((one, other)):
        (data / f"{number}{ending}").write_bytes(b'{"text": "x"}\n')
    orders = [Order(source=f"{number}{ending}", prompt="{{text}}") for number, ending in enumerate((one, other))]

    found = await fingerprints(settings, sandbox, *orders)

    assert (found[0] == found[1]) == ((one, other) in SAME)


@few(3)
@pytest.mark.parametrize(("one", "other", "text", "rows", "other_rows"), BOTH)
async def test_the_same_bytes_under_another_ending_are_another_order_and_each_is_sent_as_it_was_previewed(
    talk: Conversation, sandbox: Sandbox, data: Path, one: str, other: str, text: str, rows: int, other_rows: int
) -> None:
    for ending, count in ((one, rows), (other, other_rows)):
        (data / f"x{ending}").write_text(text, encoding="utf-8")
        order: dict[str, Any] = {"source": f"x{ending}", "prompt": "Mood of {{text}}?"}
        previewed = await talk.call("preview_batch", **order)
        placed = await talk.call("create_batch", **order)

        sent = (talk.settings.home / "batches" / placed["batch_id"] / "requests.jsonl").read_text(encoding="utf-8")
        assert not placed["reused"]
        assert previewed["request_count"] == placed["request_count"] == sent.count("\n") == count
        assert previewed["sample"] == [json.loads(row) for row in sent.splitlines()[:2]]
    assert sandbox.creates == 2


async def test_a_copy_under_another_name_and_with_an_ending_that_is_read_alike_is_the_same_order(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    (data / "sub").mkdir()
    for name in ("a.jsonl", "b.jsonl", "sub/c.NDJSON"):
        (data / name).write_text('{"text": "x"}\n', encoding="utf-8")
    placed = [
        await talk.call("create_batch", source=name, prompt="{{text}}")
        for name in ("a.jsonl", "b.jsonl", "sub/c.NDJSON")
    ]

    assert [one["reused"] for one in placed] == [False, True, True]
    assert sandbox.creates == 1


def schema(*names: str) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {"type": "string"} for name in names}}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Order(response_schema=schema("why", "mood")), Order(response_schema=schema("mood", "why"))),
        (Order(generation_config={"topK": 1, "seed": 2}), Order(generation_config={"seed": 2, "topK": 1})),
        (Order(generation_config={"temperature": 1}), Order(generation_config={"temperature": 1.0})),
        (Order(key_column="text"), Order()),
        (Order(limit_rows=1), Order()),
        (Order(task="embed"), Order()),
        (Order(system_instruction="Be brief."), Order()),
    ],
)
async def test_whatever_lines_are_written_from_is_part_of_an_order(
    settings: Settings, sandbox: Sandbox, data: Path, one: Order, other: Order
) -> None:
    (data / "t.csv").write_text("text\nx\n", encoding="utf-8")
    first, second, again = await fingerprints(
        settings,
        sandbox,
        *(replace(order, source="t.csv", prompt="{{text}}") for order in (one, other)),
        replace(one, source="t.csv", prompt="{{text}}", display_name="another name", delivery="inline"),
    )

    assert first != second
    assert first == again


async def test_how_files_are_attached_is_part_of_an_order(settings: Settings, sandbox: Sandbox, data: Path) -> None:
    """Inside the lines or uploaded: a setting decides that, and the lines differ."""
    (data / "a.png").write_bytes(PNG)
    (data / "t.csv").write_text("file,copy\na.png,a.png\n", encoding="utf-8")
    order = Order(source="t.csv", prompt="What is in {{file}}?", attach="file")

    (inside,) = await fingerprints(settings, sandbox, order)
    written, other_column = await fingerprints(
        settings, sandbox, replace(order, attach="{{ file }}"), replace(order, attach="copy")
    )
    (uploaded,) = await fingerprints(replace(settings, max_file_bytes=300), sandbox, order)

    assert inside == written
    assert len({inside, other_column, uploaded}) == 3


async def test_requests_given_in_the_call_are_an_order_by_what_they_say(settings: Settings, sandbox: Sandbox) -> None:
    with_schema = [
        {"request": {"contents": [{"parts": [{"text": "x"}]}], "generationConfig": {"responseSchema": schema(*names)}}}
        for names in (("a", "b"), ("b", "a"), ("a", "b"))
    ]
    found = await fingerprints(settings, sandbox, *(Order(requests=(request,)) for request in with_schema))

    assert found[0] == found[2] != found[1]


def order_1(order: Order, content: str) -> str:
    """The fingerprint of the version before, which knew nothing of endings."""
    names = ("prompt", "system_instruction", "response_schema", "generation_config", "key_column", "limit_rows")
    parts = ["order-1", content, order.model, order.task, *(getattr(order, name) for name in names)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


async def as_an_older_version_left_it(settings: Settings, sandbox: Sandbox, order: Order) -> None:
    """Put the ledger, which has one batch, back to before the ending was part of an order."""
    async with desk_of(settings, sandbox) as desk:
        identified = identify_for(desk.app, replace(order, model=order.model or settings.model))
    with closing(sqlite3.connect(settings.home / "ledger.sqlite3")) as connection, connection:
        connection.execute("DELETE FROM migrations WHERE name = '_m007_kinds_of_files'")
        before = order_1(identified.order, identified.content_sha256)
        assert connection.execute("UPDATE batches SET order_sha256 = ?", [before]).rowcount == 1
    connection.close()


def a_table(data: Path) -> Order:
    (data / "t.csv").write_text("text\nx\n", encoding="utf-8")
    return Order(source="t.csv", prompt="{{text}}", key_column="text", limit_rows=1, response_schema=schema("b", "a"))


def a_request_file(data: Path) -> Order:
    return Order(source=request_file(data))


def a_glob(data: Path) -> Order:
    a_table(data)
    return Order(source="*.csv", prompt="{{text}}")


def a_directory_that_is_called_like_a_file(data: Path) -> Order:
    (data / "parts.json").mkdir()
    (data / "parts.json" / "a.txt").write_text("x", encoding="utf-8")
    return Order(source="parts.json", prompt="{{text}}")


def attached_files(data: Path) -> Order:
    (data / "a.png").write_bytes(PNG)
    (data / "t.csv").write_text("file\na.png\n", encoding="utf-8")
    return Order(source="t.csv", prompt="What is this?", attach="file")


def in_the_call(data: Path) -> Order:
    return Order(requests=({"key": "a", "prompt": "x"},), generation_config={"topK": 1, "seed": 2})


OLD = (a_table, a_request_file, a_glob, a_directory_that_is_called_like_a_file, attached_files, in_the_call)


@few(3)
@pytest.mark.parametrize("make", OLD)
async def test_an_order_that_stands_in_an_older_ledger_goes_on_standing(
    settings: Settings, sandbox: Sandbox, data: Path, make: Callable[[Path], Order]
) -> None:
    order = make(data)
    async with desk_of(settings, sandbox) as desk:
        first = await desk.place_order(order)
    await as_an_older_version_left_it(settings, sandbox, order)
    async with desk_of(settings, sandbox) as desk:
        again = await desk.place_order(order)
        changed = await desk.place_order(replace(order, model="gemini-2.5-flash"))

    assert again.reused and again.status.batch.id == first.status.batch.id
    assert not changed.reused
    assert sandbox.creates == 2


async def test_the_same_bytes_under_another_ending_are_not_what_stands_in_an_older_ledger(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    orders = [Order(source=name, prompt="{{text}}") for name in ("x.csv", "x.txt")]
    for order in orders:
        (data / order.source).write_text("text\nx\ny\n", encoding="utf-8")
    async with desk_of(settings, sandbox) as desk:
        await desk.place_order(orders[0])
    await as_an_older_version_left_it(settings, sandbox, orders[0])
    async with desk_of(settings, sandbox) as desk:
        other = await desk.place_order(orders[1])
        copied = await desk.place_order(orders[0])

    assert (other.reused, other.request_count) == (False, 3)
    assert (copied.reused, copied.request_count) == (True, 2)


async def test_a_job_made_elsewhere_stays_without_an_order_in_an_older_ledger(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    async with converse(settings, sandbox) as talk:
        placed = await talk.call("create_batch", source=request_file(data))
    name = placed["jobs"][0]["name"]
    elsewhere = replace(settings, home=settings.home.with_name("another"))
    async with converse(elsewhere, sandbox) as talk:
        await talk.call("check_status", batch=name)
    with closing(sqlite3.connect(elsewhere.home / "ledger.sqlite3")) as connection, connection:
        connection.execute("DELETE FROM migrations WHERE name = '_m007_kinds_of_files'")
    connection.close()
    async with converse(elsewhere, sandbox) as talk:
        await talk.call("check_status", batch=name)
    with closing(sqlite3.connect(elsewhere.home / "ledger.sqlite3")) as connection, connection:
        assert connection.execute("SELECT order_sha256 FROM batches").fetchall() == [("",)]
    connection.close()


async def test_another_request_in_the_file_is_another_order(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    for text in ("one", "two"):
        (data / "r.jsonl").write_text(line("a", text) + "\n", encoding="utf-8")
        assert not (await talk.call("create_batch", source="r.jsonl"))["reused"]
    assert sandbox.creates == 2
