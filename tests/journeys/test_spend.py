"""Money: a batch stays below its cap over all its retries, is priced as it was asked, and is not paid twice."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from mcp.client import Client
from mcp.client.context import ClientRequestContext
from mcp_types import ElicitRequestParams, ElicitResult
from time_machine import travel

from gemini_batch_mcp.assistant.server import build_server
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from gemini_batch_mcp.text import dollars
from support.conversation import Conversation, converse, line, newest, request_file, write_lines
from support.sources import pdf

pytestmark = pytest.mark.anyio


def _truncated(data: Path) -> str:
    """Ten rows of which five come back truncated: they are paid, and may be asked for again."""
    rows = [
        line(
            f"k{n}", f"row {n}{' [[sandbox:max_tokens]]' if n < 5 else ''}", generationConfig={"maxOutputTokens": 1000}
        )
        for n in range(10)
    ]
    return write_lines(data / "rows.jsonl", rows)


async def test_the_cap_of_a_batch_holds_over_all_its_retries(
    settings: Settings, sandbox: Sandbox, data: Path, era: str
) -> None:
    async with converse(settings, sandbox, era) as talk:
        priced = (await talk.call("preview_batch", source=_truncated(data)))["estimate"]["cost_usd_high"]
    async with converse(replace(settings, max_cost_usd=priced * 1.001), sandbox, era) as talk:
        batch = (await talk.call("create_batch", source=_truncated(data)))["batch_id"]
        for _ in range(50):
            sandbox.finish(newest(sandbox))
            spent = (await talk.call("get_results", batch=batch))["usage"]["cost_usd"]
            assert spent <= priced
            result = await talk.raw("retry_failed", batch=batch, include=["truncated"])
            if result.is_error:
                break
        refusal = await talk.refusal("retry_failed", batch=batch, include=["truncated"], confirm=True)
        assert "GEMINI_BATCH_MAX_COST_USD" in refusal
        assert "so far" in refusal


@pytest.mark.parametrize(
    ("ending", "is_paid"),
    [("CANCELLED", True), ("EXPIRED", True), ("FAILED", False)],
)
async def test_rows_whose_tokens_nobody_reported_count_at_their_estimate_under_the_cap(
    settings: Settings, sandbox: Sandbox, data: Path, ending: str, is_paid: bool
) -> None:
    """Gemini bills what a cancelled or expired job has answered, and tells no usage of it; a failed one is free."""
    async with converse(settings, sandbox) as talk:
        priced = (await talk.call("preview_batch", source=_truncated(data)))["estimate"]["cost_usd_high"]
    async with converse(replace(settings, max_cost_usd=priced * 1.5), sandbox) as talk:
        batch = (await talk.call("create_batch", source=_truncated(data)))["batch_id"]
        sandbox.finish(newest(sandbox), ending, answered_rows=0)
        seen = await talk.call("check_status", batch=batch)
        again = await talk.raw("retry_failed", batch=batch, confirm=True)
        (listed,) = (await talk.call("list_jobs"))["jobs"]
        if is_paid:
            # The same before its table was made and afterwards; what is not known is not nothing.
            assert seen["counts"] == listed["counts"] == {"total": 10, "succeeded": 0, "failed": 10, "pending": 0}
            assert listed["cost_usd"] is None
    if is_paid:
        assert again.is_error
        assert f"{dollars(priced)} so far" in str(again.content)
        assert sandbox.creates == 1
    else:
        assert not again.is_error
        assert sandbox.creates == 2


async def test_a_retry_of_files_costs_no_more_than_all_of_them_did(
    settings: Settings, sandbox: Sandbox, data: Path, era: str
) -> None:
    """The stored lines name files by URI, behind which there may be anything for all that they say."""
    for number in range(3):
        (data / f"bill{number}.pdf").write_bytes(pdf() + b"%" * 4000)
    order = {
        "source": "*.pdf",
        "attach": "path",
        "prompt": "[[sandbox:max_tokens]] Sum of {{name}}?",
        "generation_config": {"maxOutputTokens": 100},
    }
    small = replace(settings, max_file_bytes=3000)
    async with converse(small, sandbox, era) as talk:
        priced = (await talk.call("preview_batch", **order))["estimate"]["cost_usd_high"]
    async with converse(replace(small, max_cost_usd=priced * 2), sandbox, era) as talk:
        batch = (await talk.call("create_batch", **order))["batch_id"]
        sandbox.finish(newest(sandbox))
        assert (await talk.call("get_results", batch=batch))["summary"]["truncated"] == 3
        again = await talk.call("retry_failed", batch=batch, include=["truncated"])
    assert again["request_count"] == 3
    assert again["estimate"]["cost_usd_high"] <= priced


async def test_a_retry_is_priced_by_the_model_that_it_asked(settings: Settings, sandbox: Sandbox, data: Path) -> None:
    async with converse(settings, sandbox) as talk:
        batch = (await talk.call("create_batch", source=_truncated(data)))["batch_id"]
        sandbox.finish(newest(sandbox))
        first = (await talk.call("get_results", batch=batch))["usage"]
        await talk.call("retry_failed", batch=batch, include=["truncated"], model="gemini-3.1-pro-preview")
        sandbox.finish(newest(sandbox))
        both = (await talk.call("get_results", batch=batch))["usage"]
    tokens = {name: both[name] - first[name] for name in ("input_tokens", "output_tokens", "thoughts_tokens")}
    dearer = tokens["input_tokens"] * 1.0e-6 + (tokens["output_tokens"] + tokens["thoughts_tokens"]) * 6.0e-6
    assert both["cost_usd"] - first["cost_usd"] == pytest.approx(dearer, abs=2e-6)


async def test_another_model_is_not_taken_for_the_retry_that_is_under_way(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    batch = (await talk.call("create_batch", source=_truncated(data)))["batch_id"]
    sandbox.finish(newest(sandbox))
    await talk.call("retry_failed", batch=batch, include=["truncated"])

    refusal = await talk.refusal("retry_failed", batch=batch, include=["truncated"], model="gemini-3.1-pro-preview")

    assert "gemini-3-flash-preview is under way" in refusal
    same = await talk.call("retry_failed", batch=batch, model="models/gemini-3-flash-preview")
    assert same["reused"] is True
    assert sandbox.creates == 2


async def test_an_old_quote_is_no_agreement_to_an_order_that_changed(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    asking = replace(settings, confirm_above_usd=0.0)
    with travel(datetime.now(UTC) + timedelta(days=-3), tick=True):
        async with converse(asking, sandbox) as talk:
            await talk.call("preview_batch", source=request_file(data, 3))
    async with converse(asking, sandbox) as talk:
        refusal = await talk.refusal("create_batch", source=request_file(data, 300), confirm=True)
    assert "has changed since an order of the same source was priced" in refusal
    assert sandbox.creates == 0


async def test_a_resubmission_asked_for_twice_while_it_is_on_its_way_is_one(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    source = request_file(data)
    await talk.call("create_batch", source=source)
    sandbox.cut_next("batches.create", when="after")
    sandbox.fail_next("batches.list", status=500, times=50)
    again = await talk.call("create_batch", source=source, resubmit=True)
    assert again["state"] == "JOB_STATE_UNSPECIFIED"
    sandbox.faults.clear()

    repeated = await talk.call("create_batch", source=source, resubmit=True)

    assert repeated["batch_id"] == again["batch_id"]
    assert sandbox.creates == 2


async def test_an_order_that_changes_while_the_user_is_asked_is_not_submitted_on_that_answer(
    settings: Settings, sandbox: Sandbox, data: Path, era: str
) -> None:
    questions: list[str] = []

    async def person(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        questions.append(params.message)
        if len(questions) == 1:
            request_file(data, 3000, name="rows.jsonl")
        return ElicitResult(action="accept", content={"submit": True})

    server = build_server(replace(settings, confirm_above_usd=0.0), transport=sandbox.transport)
    async with Client(server, mode=era, elicitation_callback=person) as client:
        result = await Conversation(client, settings).raw("create_batch", source=_truncated(data))
    # The older era is refused, the newer one is asked a second time.
    assert result.is_error or len(set(questions)) == 2
    assert sandbox.creates == len(questions) - 1
