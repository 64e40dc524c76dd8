"""The user's own columns: written with the lines, from one look at the source, and never read again for the answers."""

import csv
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.orders.appraising import stage_lines
from gemini_batch_mcp.batches.orders.preparing import identify_for
from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.errors import StorageError
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import Conversation, desk_of, hooked_desk, newest
from support.extent import few

pytestmark = pytest.mark.anyio

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(200))
ROWS = [{"id": f"r{number:02d}", "review": f"text of r{number:02d}", "file": "a.png"} for number in range(50)]
ORDER = Order(source="t.csv", prompt="Mood of {{review}}?", key_column="id")
WITH_FILES = replace(ORDER, attach="file")


def write_table(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, ["id", "review", "file"])
        table.writeheader()
        table.writerows(rows)


@pytest.fixture
def table(data: Path) -> Path:
    (data / "a.png").write_bytes(PNG)
    write_table(data / "t.csv", ROWS)
    return data / "t.csv"


async def answers(talk: Conversation, sandbox: Sandbox, batch: str) -> dict[str, Any]:
    sandbox.finish(newest(sandbox))
    return await talk.call("get_results", batch=batch, save_to="out.csv")


def saved(data: Path) -> list[dict[str, str]]:
    with (data / "out.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


async def test_a_table_that_is_reversed_after_its_order_costs_no_row_its_columns(
    talk: Conversation, sandbox: Sandbox, data: Path, table: Path
) -> None:
    placed = await talk.call("create_batch", source="t.csv", prompt="Mood of {{review}}?", key_column="id")
    write_table(table, ROWS[::-1])
    read = await answers(talk, sandbox, placed["batch_id"])

    assert not read["warnings"]
    found = saved(data)
    assert len(found) == 50
    assert all(row["review"] == f"text of {row['id']}" for row in found)
    sql = "SELECT count(*) FROM results WHERE id = key AND review = 'text of ' || key"
    assert (await talk.call("query_results", batch=placed["batch_id"], sql=sql))["rows"] == [[50]]


@few(3)
@pytest.mark.parametrize("order", [ORDER, WITH_FILES, replace(ORDER, limit_rows=20)])
@pytest.mark.parametrize("uploaded", [True, False])
async def test_a_table_that_is_reversed_while_its_lines_travel_costs_no_row_its_columns(
    settings: Settings, sandbox: Sandbox, table: Path, order: Order, uploaded: bool
) -> None:
    """Also where the files are uploaded first, and the lines are written only then."""
    count = order.limit_rows or 50

    def reverse(step: str) -> None:
        # A file that is uploaded first is not the lines yet.
        if step == "create:before":
            write_table(table, ROWS[::-1])

    limited = replace(settings, max_file_bytes=6000) if uploaded and order.attach else settings
    async with hooked_desk(limited, sandbox, reverse) as desk:
        placed = await desk.place_order(order)
        directory = desk.app.files(placed.status.batch.id)
        keys = directory.keys().read_text(encoding="utf-8").split()
        kept = duckdb.execute(f"SELECT id, review FROM '{directory.source_columns}' ORDER BY row").fetchall()

    assert [f'"{name}"' for name, _ in kept] == keys == [f'"{row["id"]}"' for row in ROWS[:count]]
    assert all(text == f"text of {name}" for name, text in kept)


async def test_a_table_that_changes_while_its_files_are_uploaded_is_refused_before_its_lines_are_written(
    settings: Settings, sandbox: Sandbox, table: Path
) -> None:
    def reverse(step: str) -> None:
        if step == "upload:before":
            write_table(table, ROWS[::-1])

    async with hooked_desk(replace(settings, max_file_bytes=6000), sandbox, reverse) as desk:
        with pytest.raises(StorageError, match="changed while it was read"):
            await desk.place_order(WITH_FILES)
        assert not list((settings.home / "batches").rglob("source.parquet"))
    assert sandbox.creates == 0


def disturbed(data: Path, what: str) -> Order:
    """An order, and what it names."""
    if what == "folder":
        (data / "docs").mkdir()
        for number in range(3):
            (data / "docs" / f"{number}.txt").write_text(f"text {number}", encoding="utf-8")
        return Order(source="docs", prompt="{{text}}")
    if what == "ready":
        (data / "r.jsonl").write_text('{"key":"a","request":{"contents":[{"parts":[{"text":"x"}]}]}}\n' * 1, "utf-8")
        return Order(source="r.jsonl")
    return ORDER


@few(6)
@pytest.mark.parametrize("what", ["table", "folder", "ready"])
@pytest.mark.parametrize("how", ["written", "replaced", "ragged", "gone"])
async def test_a_source_that_changes_between_its_digest_and_its_lines_is_refused(
    settings: Settings, sandbox: Sandbox, data: Path, table: Path, what: str, how: str
) -> None:
    """However it changes: the same length and the same time of the last write do not hide it."""
    order = disturbed(data, what)
    async with desk_of(settings, sandbox) as desk:
        app: App = desk.app
        identified = identify_for(app, order)
        path = {"table": table, "folder": data / "docs" / "1.txt", "ready": data / "r.jsonl"}[what]
        before, status = path.read_bytes(), path.stat()
        changed = before.replace(b"x", b"y") if how != "ragged" else b'a,b\n1,2\n3\n"'
        if how in ("replaced", "gone"):
            path.unlink()
        if how != "gone":
            path.write_bytes(changed)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

        with pytest.raises(StorageError, match=r"changed while it was read; nothing was submitted"):
            stage_lines(app, identified)

        assert not list((settings.home / "staged").rglob("facts.json"))
        if how != "gone":
            path.write_bytes(before)
            assert stage_lines(app, identify_for(app, order)).count
    assert sandbox.creates == 0


async def test_answers_of_a_table_without_kept_columns_say_so_and_have_none(
    talk: Conversation, sandbox: Sandbox, data: Path, table: Path
) -> None:
    """As an older version left it, which read the columns only after the upload and did not come to it."""
    placed = await talk.call("create_batch", source="t.csv", prompt="Mood of {{review}}?", key_column="id")
    (talk.settings.home / "batches" / placed["batch_id"] / "source.parquet").unlink()
    write_table(table, ROWS[::-1])
    read = await answers(talk, sandbox, placed["batch_id"])

    assert read["integrity_ok"]
    assert any("t.csv were not kept" in warning for warning in read["warnings"])
    assert len(saved(data)) == 50
    assert "id" not in saved(data)[0] and "key" in saved(data)[0]


async def test_a_batch_without_a_table_has_no_columns_and_nothing_to_say_about_it(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    placed = await talk.call("create_batch", requests=[{"key": "a", "prompt": "x"}])
    read = await answers(talk, sandbox, placed["batch_id"])

    assert not read["warnings"]
    assert not (talk.settings.home / "batches" / placed["batch_id"] / "source.parquet").exists()
