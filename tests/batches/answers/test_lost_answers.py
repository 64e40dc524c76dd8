"""Answers that nobody fetched in time: their rows can be sent again, and those of other jobs are not lost with them."""

from dataclasses import replace
from pathlib import Path

import pytest

from gemini_batch_mcp.batches.ledger.ledger import Ledger
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import converse, newest, request_file
from support.services import MovedClock

pytestmark = pytest.mark.anyio


def _result_file(settings: Settings, batch_id: str) -> str:
    """Return the result file of the batch's first job."""
    ledger = Ledger.open(settings.home / "ledger.sqlite3")
    try:
        batch = ledger.batch(batch_id)
    finally:
        ledger.close()
    assert batch is not None
    return batch.jobs[0].responses_file


async def test_rows_whose_answers_are_gone_are_sent_again_and_the_others_are_kept(
    settings: Settings, sandbox: Sandbox, service_clock: MovedClock, data: Path, era: str
) -> None:
    service_clock.move(-7200)
    source = request_file(data, 30)
    limited = replace(settings, max_file_bytes=Path(source).stat().st_size // 3 + 40)
    async with converse(limited, sandbox, era) as talk:
        created = await talk.call("create_batch", source=source)
        batch = created["batch_id"]
        assert len(created["jobs"]) == 3
        for job in created["jobs"]:
            sandbox.finish(job["name"])
        await talk.call("check_status", batch=batch)
        sandbox.expire_file(_result_file(settings, batch))
        assert "is gone from Gemini" in await talk.refusal("get_results", batch=batch)

        again = await talk.call("retry_failed", batch=batch)

        assert again["request_count"] == created["jobs"][0]["request_count"]
        sandbox.finish(newest(sandbox))
        results = await talk.call("get_results", batch=batch)
    assert results["summary"]["succeeded"] == 30
    assert results["integrity_ok"]
    assert sandbox.creates == 4


async def test_answers_that_another_key_cannot_see_are_not_taken_for_lost(
    settings: Settings, sandbox: Sandbox, service_clock: MovedClock, data: Path
) -> None:
    service_clock.move(-7200)
    async with converse(settings, sandbox) as talk:
        batch = (await talk.call("create_batch", source=request_file(data)))["batch_id"]
        sandbox.finish(newest(sandbox))
        await talk.call("check_status", batch=batch)
        sandbox.fail_next("files.download", status=404, times=20)
        sandbox.fail_next("batches.get", status=404, times=20)
        assert "gone" in await talk.refusal("retry_failed", batch=batch)
        sandbox.faults.clear()
        assert (await talk.call("get_results", batch=batch))["summary"]["succeeded"] == 3
    assert sandbox.creates == 1
