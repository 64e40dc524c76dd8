"""Rows sent again: exactly those asked for, from the requests as they were stored, merged under the same batch."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import OnCommand, SandboxConfig
from gemini_batch_mcp.settings import Settings
from support.conversation import Conversation, converse, line, newest, request_file, write_lines
from support.extent import few

pytestmark = pytest.mark.anyio

MODEL = "gemini-3-flash-preview"


def _marked(data: Path, **marks: str) -> str:
    """Ten rows k0 … k9, some with a marker for the sandbox in their text."""
    return write_lines(data / "rows.jsonl", [line(f"k{n}", f"row {n} {marks.get(f'k{n}', '')}") for n in range(10)])


async def _ended(talk: Conversation, sandbox: Sandbox, source: str) -> str:
    created = await talk.call("create_batch", source=source)
    sandbox.finish(newest(sandbox))
    return str(created["batch_id"])


def _sent_keys(settings: Settings, batch: str, attempt: int) -> list[str]:
    path = settings.home / "batches" / batch / f"keys-{attempt}.jsonl"
    return [json.loads(row) for row in path.read_text(encoding="utf-8").splitlines()]


async def test_failed_and_missing_rows_are_sent_again_and_the_answers_are_merged(
    settings: Settings, sandbox: Sandbox, data: Path, era: str
) -> None:
    source = _marked(data, k2="[[sandbox:error:13]]", k5="[[sandbox:dropped]]")
    async with converse(settings, sandbox, era) as talk:
        batch = await _ended(talk, sandbox, source)
        again = await talk.call("retry_failed", batch=batch)
        assert again["batch_id"] == batch
        assert again["reused"] is False
        assert _sent_keys(settings, batch, 2) == ["k2", "k5"]
        assert sandbox.creates == 2
        assert (await talk.call("retry_failed", batch=batch))["reused"] is True
        assert sandbox.creates == 2
        sandbox.finish(newest(sandbox))
        after = await talk.call("get_results", batch=batch, view="rows")
    assert after["summary"]["expected"] == 10
    assert len(after["rows"]) == 10
    assert [row["key"] for row in after["rows"]] == [f"k{n}" for n in range(10)]


async def test_lines_are_sent_again_byte_for_byte(settings: Settings, sandbox: Sandbox, data: Path) -> None:
    source = _marked(data, k2="[[sandbox:error:13]]", k7="[[sandbox:error:14]]")
    lines = Path(source).read_bytes().splitlines(keepends=True)
    async with converse(settings, sandbox) as talk:
        batch = await _ended(talk, sandbox, source)
        await talk.call("retry_failed", batch=batch)
    sent = (settings.home / "batches" / batch / "requests-2.jsonl").read_bytes()
    assert sent == lines[2] + lines[7]


async def test_failures_that_the_same_request_meets_again_are_left_out_unless_asked_for(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    source = _marked(data, k1="[[sandbox:error:3]]", k2="[[sandbox:error:13]]")
    batch = await _ended(talk, sandbox, source)
    await talk.call("retry_failed", batch=batch)
    assert _sent_keys(talk.settings, batch, 2) == ["k2"]
    sandbox.finish(newest(sandbox))
    await talk.call("retry_failed", batch=batch, include=["failed"])
    assert _sent_keys(talk.settings, batch, 3) == ["k1", "k2"]


async def test_when_only_permanent_failures_are_left_that_is_said(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    batch = await _ended(talk, sandbox, _marked(data, k1="[[sandbox:error:3]]"))
    assert "include=['failed']" in await talk.refusal("retry_failed", batch=batch)
    assert sandbox.creates == 1


@few(2)
@pytest.mark.parametrize(
    ("include", "marker"),
    [("blocked", "blocked"), ("truncated", "max_tokens"), ("empty", "empty"), ("missing", "dropped")],
)
async def test_rows_of_one_kind_are_sent_again(
    settings: Settings, sandbox: Sandbox, data: Path, include: str, marker: str
) -> None:
    source = _marked(data, k4=f"[[sandbox:{marker}]]", k6="[[sandbox:error:13]]")
    async with converse(settings, sandbox) as talk:
        batch = await _ended(talk, sandbox, source)
        await talk.call("retry_failed", batch=batch, include=[include])
    assert _sent_keys(settings, batch, 2) == ["k4"]


async def test_with_nothing_to_send_again_nothing_is_sent(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    batch = await _ended(talk, sandbox, request_file(data))
    assert "has no rows that are failed or missing" in await talk.refusal("retry_failed", batch=batch)
    assert sandbox.creates == 1
    (data / "cut.csv").write_text("id,text\n1,a [[sandbox:max_tokens]]\n2,b\n", encoding="utf-8")
    created = await talk.call("create_batch", source="cut.csv", prompt="{{text}}", key_column="id")
    sandbox.finish(newest(sandbox))
    refusal = await talk.refusal("retry_failed", batch=created["batch_id"])
    assert "has no rows that are failed or missing; it has 1 truncated." in refusal
    assert "include=['truncated'] resends them as they are." in refusal
    cut = created["batch_id"]
    assert f"create_batch with like='{cut}', source='{cut}', where=\"status = 'truncated'\" and gen" in refusal
    anew = {"like": created["batch_id"], "generation_config": {"maxOutputTokens": 2000}}
    assert (await talk.call("create_batch", **anew))["send_count"] == 2


async def test_another_model_may_be_asked(settings: Settings, sandbox: Sandbox, data: Path) -> None:
    async with converse(settings, sandbox) as talk:
        batch = await _ended(talk, sandbox, _marked(data, k2="[[sandbox:error:13]]"))
        await talk.call("retry_failed", batch=batch, model="gemini-2.5-flash")
    assert {record.model for record in sandbox.create_records} == {MODEL, "gemini-2.5-flash"}


async def test_a_running_batch_is_not_retried(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    created = await talk.call("create_batch", source=request_file(data))
    assert "has not ended" in await talk.refusal("retry_failed", batch=created["batch_id"])
    assert sandbox.creates == 1


async def test_an_expired_batch_sends_only_what_is_missing(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    created = await talk.call("create_batch", source=request_file(data, 5))
    sandbox.finish(newest(sandbox), "EXPIRED")
    status = await talk.call("check_status", batch=created["batch_id"])
    assert status["state"] == "JOB_STATE_EXPIRED"
    assert "retry_failed" in status["advice"]
    again = await talk.call("retry_failed", batch=created["batch_id"], include=["missing"])
    assert again["reused"] is False
    sandbox.finish(newest(sandbox))
    results = await talk.call("get_results", batch=created["batch_id"])
    assert results["summary"]["succeeded"] == 5
    assert results["state"] == "JOB_STATE_SUCCEEDED"
    assert sandbox.creates == 2


async def test_a_cancelled_batch_keeps_its_rows_and_sends_the_others(
    settings: Settings, tmp_path: Path, data: Path
) -> None:
    config = SandboxConfig(pace=OnCommand(), keeps_cancelled_rows=True)
    with Sandbox(tmp_path / "keeps", config) as sandbox:
        async with converse(settings, sandbox) as talk:
            created = await talk.call("create_batch", source=request_file(data, 10))
            batch, name = created["batch_id"], newest(sandbox)
            await talk.call("cancel_batch", batch=batch)
            sandbox.finish(name, "CANCELLED", answered_rows=4)
            assert (await talk.call("get_results", batch=batch))["summary"]["succeeded"] == 4
            await talk.call("retry_failed", batch=batch)
            assert _sent_keys(settings, batch, 2) == [f"k{n}" for n in range(5, 11)]
            sandbox.finish(newest(sandbox))
            merged = await talk.call("get_results", batch=batch)
    assert merged["summary"]["succeeded"] == 10
    assert merged["integrity_ok"]


async def test_a_source_that_changed_is_named_and_nothing_is_sent(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    source = _marked(data, k2="[[sandbox:error:13]]")
    batch = await _ended(talk, sandbox, source)
    Path(source).write_text(Path(source).read_text(encoding="utf-8").replace("row", "now"), encoding="utf-8")
    assert "rows.jsonl" in await talk.refusal("retry_failed", batch=batch)
    Path(source).unlink()
    assert "is gone" in await talk.refusal("retry_failed", batch=batch)
    assert sandbox.creates == 1


async def test_a_job_made_elsewhere_cannot_be_retried(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    first = await talk.call("create_batch", source=request_file(data))
    name = first["jobs"][0]["name"]
    sandbox.finish(name)
    async with converse(replace(talk.settings, home=talk.settings.home / "other"), sandbox) as other:
        assert "made elsewhere" in await other.refusal("retry_failed", batch=name)


async def test_a_status_that_cannot_be_retried_is_refused(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    batch = await _ended(talk, sandbox, request_file(data))
    assert "include" in await talk.refusal("retry_failed", batch=batch, include=["ok"])


async def test_a_retry_whose_create_is_refused_leaves_the_batch_as_it_was(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    batch = await _ended(talk, sandbox, _marked(data, k2="[[sandbox:error:13]]"))
    body = {"error": {"code": 400, "message": "No such thing.", "status": "INVALID_ARGUMENT"}}
    sandbox.fail_next("batches.create", status=400, body=body)
    assert "No such thing" in await talk.refusal("retry_failed", batch=batch)
    status = await talk.call("check_status", batch=batch)
    assert status["state"] == "JOB_STATE_PARTIALLY_SUCCEEDED"
    await talk.call("retry_failed", batch=batch)
    assert sandbox.creates == 2


async def test_a_retry_whose_reply_was_lost_is_found(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    batch = await _ended(talk, sandbox, _marked(data, k2="[[sandbox:error:13]]"))
    sandbox.cut_next("batches.create", when="after")
    again = await talk.call("retry_failed", batch=batch)
    assert again["state"] in ("JOB_STATE_PENDING", "JOB_STATE_RUNNING")
    assert sandbox.creates == 2


async def test_a_retry_that_never_arrived_is_sent_when_it_is_asked_for_again(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    batch = await _ended(talk, sandbox, _marked(data, k2="[[sandbox:error:13]]"))
    sandbox.cut_next("batches.create", when="before")
    lost = await talk.call("retry_failed", batch=batch)
    assert "stage unknown" in lost["jobs"][1]["error"]
    assert sandbox.creates == 1
    await talk.call("check_status", batch=batch)
    assert sandbox.creates == 1
    again = await talk.call("retry_failed", batch=batch)
    assert again["jobs"][1]["state"] == "JOB_STATE_PENDING"
    assert sandbox.creates == 2
