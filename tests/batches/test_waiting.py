"""Jobs that wait here for Gemini: they go on whatever the clock, the quota or Gemini's memory does."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from time_machine import travel

from gemini_batch_mcp.batches.ledger.ledger import Ledger
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import Conversation, converse, line, request_file, write_lines

pytestmark = pytest.mark.anyio


@contextmanager
def _changed(settings: Settings, batch_id: str, **values: Any) -> Iterator[None]:
    """Set columns of a batch's one job, as an earlier process may have left them."""
    ledger = Ledger.open(settings.home / "ledger.sqlite3")
    try:
        batch = ledger.batch(batch_id)
        assert batch is not None
        ledger.update_job(batch.jobs[0].id, **values)
        yield
    finally:
        ledger.close()


async def _refused(talk: Conversation, sandbox: Sandbox, data: Path, retry_after: float) -> str:
    sandbox.fail_next("batches.create", status=429, retry_after=retry_after)
    created = await talk.call("create_batch", source=request_file(data))
    assert created["state"] == "JOB_STATE_QUEUED"
    return str(created["batch_id"])


async def test_a_wait_that_a_wrong_clock_has_set_does_not_last_for_years(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    batch = await _refused(talk, sandbox, data, 60)
    with _changed(talk.settings, batch, wait_until=datetime.now(UTC) + timedelta(days=3650)):
        await talk.call("check_status", batch=batch)
        await talk.comes_to(batch, "JOB_STATE_PENDING")
    assert sandbox.creates == 1


async def test_a_wait_of_days_is_tried_again_within_the_hour(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    batch = await _refused(talk, sandbox, data, 5 * 24 * 3600)
    await talk.call("check_status", batch=batch)
    assert sandbox.creates == 0
    with travel(datetime.now(UTC) + timedelta(minutes=61), tick=True):
        await talk.call("check_status", batch=batch)
        await talk.comes_to(batch, "JOB_STATE_PENDING")
    assert sandbox.creates == 1


async def test_a_job_that_was_told_to_wait_ten_thousand_times_waits_once_more(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    source = request_file(data)
    sandbox.fail_next("batches.create", status=429, times=2)
    batch = (await talk.call("create_batch", source=source))["batch_id"]
    with _changed(talk.settings, batch, waits=10_000, wait_until=None):
        assert (await talk.call("create_batch", source=source))["state"] == "JOB_STATE_QUEUED"
    with _changed(talk.settings, batch, wait_until=None):
        assert (await talk.call("create_batch", source=source))["state"] == "JOB_STATE_PENDING"
    assert sandbox.creates == 1


async def test_a_job_that_gemini_has_forgotten_does_not_keep_others_waiting_for_ever(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    def large(name: str) -> str:
        return write_lines(data / name, [line(f"k{n}", f"{name} " + "word " * 100) for n in range(10)])

    async with converse(replace(settings, max_enqueued_tokens=2000), sandbox) as talk:
        with travel(datetime.now(UTC) - timedelta(days=3), tick=True):
            old = await talk.call("create_batch", source=large("old.jsonl"))
        sandbox.forget_job(old["jobs"][0]["name"])
        assert "delete_batch removes" in (await talk.call("check_status", batch=old["batch_id"]))["advice"]
        new = await talk.call("create_batch", source=large("new.jsonl"))
    assert new["state"] == "JOB_STATE_PENDING"
    assert sandbox.creates == 2
