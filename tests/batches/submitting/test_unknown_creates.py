"""Creates whose outcome is unknown, while Gemini's list cannot be read either: never called failed, never repeated."""

from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from gemini_batch_mcp.batches.ledger.entries import Stage
from gemini_batch_mcp.batches.ledger.ledger import Ledger
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import Conversation, converse, newest, request_file, until
from support.extent import few

pytestmark = pytest.mark.anyio


@few(3)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
async def test_a_lost_reply_stays_unknown_however_the_list_is_refused(
    talk: Conversation, sandbox: Sandbox, data: Path, status: int
) -> None:
    source = request_file(data)
    sandbox.cut_next("batches.create", when="after")
    sandbox.fail_next("batches.list", status=status, times=50)
    first = await talk.call("create_batch", source=source)
    assert first["state"] == "JOB_STATE_UNSPECIFIED"
    sandbox.faults.clear()

    again = await talk.call("create_batch", source=source)

    assert again["batch_id"] == first["batch_id"]
    assert again["state"] == "JOB_STATE_PENDING"
    assert sandbox.creates == 1


@few(3)
@pytest.mark.parametrize("status", [400, 403, 404, 429, 500])
async def test_the_order_given_again_is_not_created_while_the_list_is_refused(
    settings: Settings, sandbox: Sandbox, data: Path, status: int
) -> None:
    source = request_file(data)
    async with converse(replace(settings, reconcile_seconds=0.0), sandbox) as talk:
        sandbox.cut_next("batches.create", when="after")
        sandbox.fail_next("batches.list", status=status, times=50)
        await talk.call("create_batch", source=source)
        await talk.refusal("create_batch", source=source)
        sandbox.faults.clear()
        assert (await talk.call("create_batch", source=source))["state"] == "JOB_STATE_PENDING"
    assert sandbox.creates == 1


async def test_a_slow_look_does_not_undo_what_was_collected_meanwhile(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    async with converse(settings, sandbox) as slow, converse(settings, sandbox) as quick:
        batch = (await slow.call("create_batch", source=request_file(data)))["batch_id"]
        sandbox.finish(newest(sandbox))
        sandbox.delay_next("batches.get", 2.0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: slow.call("check_status", batch=batch))
            await until(lambda: any(request.route == "batches.get" for request in sandbox.requests))
            await quick.call("get_results", batch=batch)
    ledger = Ledger.open(settings.home / "ledger.sqlite3")
    try:
        entry = ledger.batch(batch)
    finally:
        ledger.close()
    assert entry is not None
    assert [job.stage for job in entry.jobs] == [Stage.COLLECTED]
