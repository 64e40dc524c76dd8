"""What was spent: one figure wherever it is said, at every step of a batch that is retried and deleted."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from gemini_batch_mcp.text import dollars
from support.conversation import Conversation, converse, desk_of, line, newest, request_file, write_lines
from support.extent import long

pytestmark = pytest.mark.anyio

_CUT = "[[sandbox:max_tokens]] [[sandbox:once]]"


def _rows(data: Path) -> str:
    return write_lines(data / "rows.jsonl", [line(f"k{n}", f"row {n} {_CUT if n < 4 else ''}") for n in range(10)])


async def _said(talk: Conversation, batch: str) -> tuple[Mapping[str, Any], Any]:
    """What list_jobs says of a batch, and of all of them."""
    listed = await talk.call("list_jobs")
    (job,) = [job for job in listed["jobs"] if job["batch_id"] == batch]
    return job, listed["spent"]


async def _agreed(talk: Conversation, settings: Settings, sandbox: Sandbox, batch: str) -> float:
    """What a batch has cost, by everybody who says it."""
    results = await talk.call("get_results", batch=batch)
    usd = float(results["usage"]["cost_usd"])
    job, _ = await _said(talk, batch)
    assert job["cost_usd"] == usd
    assert (await talk.call("get_results", batch=batch, view="order"))["order"]["cost_usd"] == usd
    # Not rounded by the row, where the figure of a batch is rounded to a millionth for each attempt.
    ((total,),) = (await talk.call("query_results", batch=batch, sql="SELECT sum(cost_usd) FROM results"))["rows"]
    assert total == pytest.approx(usd, abs=1e-6)
    async with desk_of(settings, sandbox) as desk:
        for by in ("month", "model", "batch"):
            spending = await desk.spending(by)
            assert sum(group.cost_usd for group in spending.groups) == pytest.approx(spending.total.cost_usd, abs=1e-9)
        (own,) = [group for group in spending.groups if group.name == batch]
        assert own.cost_usd == pytest.approx(usd, abs=1e-9)
        saved = await desk.report(batch, "report.html")
    assert dollars(usd) in saved.path.read_text(encoding="utf-8")
    return usd


@long
async def test_every_figure_agrees_at_every_step_of_a_batch_with_a_retry_and_a_delete(
    settings: Settings, sandbox: Sandbox, data: Path, era: str
) -> None:
    async with converse(settings, sandbox, era) as talk:
        batch = (await talk.call("create_batch", source=_rows(data)))["batch_id"]
        job, spent = await _said(talk, batch)
        assert job["cost_usd"] is None
        assert spent is None
        sandbox.finish(newest(sandbox))

        first = await _agreed(talk, settings, sandbox, batch)

        await talk.call("retry_failed", batch=batch, include=["truncated"], model="gemini-3.1-pro-preview")
        assert await _agreed(talk, settings, sandbox, batch) == first
        sandbox.finish(newest(sandbox))
        both = await _agreed(talk, settings, sandbox, batch)
        assert both > first
        # A row that was sent again has cost both times.
        query = "SELECT attempt, min(cost_usd) > 0, count(*) FROM results GROUP BY ALL ORDER BY 1"
        counted = (await talk.call("query_results", batch=batch, sql=query))["rows"]
        assert counted == [[1, True, 6], [2, True, 4]]
        other = (await talk.call("create_batch", source=request_file(data)))["batch_id"]
        sandbox.finish(newest(sandbox))
        more = await _agreed(talk, settings, sandbox, other)
        await talk.call("delete_batch", batch=batch, confirm=True)
        _, spent = await _said(talk, other)
    assert spent["batches"] == 2
    assert spent["cost_usd"] == pytest.approx(both + more, abs=1e-9)
    async with desk_of(settings, sandbox) as desk:
        spending = await desk.spending("batch")
        models = await desk.spending("model")
    by_name = {group.name: group for group in spending.groups}
    deleted = by_name[f"{batch} (deleted)"]
    assert deleted.cost_usd == pytest.approx(both, abs=1e-9)
    assert deleted.retries_usd == pytest.approx(both - first, abs=1e-9)
    # Four of ten rows were cut off at first.
    assert 0 < deleted.wasted_usd < first
    assert {group.name for group in models.groups} == {"gemini-3-flash-preview", "gemini-3.1-pro-preview"}


async def test_what_nobody_knows_the_tokens_of_is_said_and_not_counted_as_nothing(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    async with converse(settings, sandbox) as talk:
        known = (await talk.call("create_batch", source=request_file(data)))["batch_id"]
        sandbox.finish(newest(sandbox))
        await talk.call("get_results", batch=known)
        lost = (await talk.call("create_batch", source=_rows(data)))["batch_id"]
        sandbox.finish(newest(sandbox), "CANCELLED", answered_rows=0)
        await talk.call("check_status", batch=lost)
        said = await talk.text("list_jobs")
        assert f"Not counted: 10 rows of {lost}, whose tokens are not known" in said
        await talk.call("delete_batch", batch=lost, confirm=True)
        assert f"10 rows of {lost}" in await talk.text("list_jobs")


async def test_a_ledger_of_an_earlier_version_says_what_is_unknown_until_it_is_read_again(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    """Before the sixteenth migration nothing was noted of what is billed."""
    async with converse(settings, sandbox) as talk:
        batch = (await talk.call("create_batch", source=request_file(data)))["batch_id"]
        sandbox.finish(newest(sandbox))
        usd = (await talk.call("get_results", batch=batch))["usage"]["cost_usd"]
    ledger = sqlite3.connect(settings.home / "ledger.sqlite3")
    ledger.execute("ALTER TABLE batches DROP COLUMN charges")
    ledger.execute("DROP TABLE deleted_batches")
    ledger.execute("DELETE FROM migrations WHERE name = '_m016_charges'")
    ledger.commit()
    ledger.close()

    async with desk_of(settings, sandbox) as desk:
        before = await desk.spending("batch")
        assert before.groups == ()
        assert batch in before.notes[0]
    async with converse(settings, sandbox) as talk:
        job, spent = await _said(talk, batch)
    assert job["cost_usd"] == spent["cost_usd"] == usd
