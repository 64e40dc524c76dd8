"""One truth about rows: the same counts in every place, through retries, and advice that can be followed."""

import re
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import OnCommand, RowFault, SandboxConfig
from gemini_batch_mcp.settings import Settings
from support.commands import Commands
from support.conversation import Conversation, converse, line, newest, process_env, request_file, sharded, write_lines
from support.extent import IS_FULL, IS_LONG, in_part

pytestmark = pytest.mark.anyio

TROUBLES = {
    "k1": RowFault.ERROR,
    "k2": RowFault.BLOCKED,
    "k3": RowFault.EMPTY,
    "k4": RowFault.MAX_TOKENS,
    "k5": RowFault.DROPPED,
    "k6": RowFault.SAFETY,
}
ALL_KINDS = ["failed", "missing", "blocked", "truncated", "empty"]


@pytest.fixture
def faults() -> dict[str, RowFault]:
    """What happens to rows, by their keys; may be changed between jobs."""
    return dict(TROUBLES)


@pytest.fixture
def sandbox(tmp_path: Path, faults: dict[str, RowFault]) -> Iterator[Sandbox]:
    with Sandbox(tmp_path / "service", SandboxConfig(pace=OnCommand(), row_faults=faults.get)) as service:
        yield service


@asynccontextmanager
async def elsewhere(talk: Conversation, sandbox: Sandbox) -> AsyncIterator[Conversation]:
    """Another machine with the same key."""
    async with converse(replace(talk.settings, home=talk.settings.home / "other"), sandbox) as other:
        yield other


def _ten_rows(data: Path) -> str:
    return write_lines(data / "rows.jsonl", [line(f"k{n}", f"row {n}") for n in range(10)])


def _as_counts(rows: dict[str, int], pending: int = 0) -> dict[str, int]:
    """The counts that go with a status for each row: failed is every row without a good answer."""
    failed = sum(count for name, count in rows.items() if name != "ok")
    return {"total": rows["ok"] + failed + pending, "succeeded": rows["ok"], "failed": failed, "pending": pending}


def _rows(**counts: int) -> dict[str, int]:
    return dict.fromkeys(("ok", "failed", "blocked", "truncated", "empty", "missing"), 0) | counts


async def _says_everywhere(
    talk: Conversation,
    commands: Commands | None,
    base_url: str,
    batch: str,
    data: Path,
    rows: dict[str, int],
    state: str,
) -> None:
    """Compare what tools say about a batch, and with `commands` the report and the command line, too."""
    results = await talk.call("get_results", batch=batch)
    summary = {name: results["summary"][name] for name in rows if name != "ok"}
    assert {"ok": results["summary"]["succeeded"], **summary} == rows
    status = await talk.call("check_status", batch=batch)
    assert (status["rows"], status["counts"]) == (rows, _as_counts(rows))
    (listed,) = (await talk.call("list_jobs"))["jobs"]
    assert listed["counts"] == _as_counts(rows)
    assert {results["state"], status["state"], listed["state"]} == {state}

    if commands is None:
        return
    page = data / "report.html"
    env = process_env(
        GEMINI_API_KEY="test-key-do-not-show",
        GOOGLE_GEMINI_BASE_URL=base_url,
        GEMINI_BATCH_HOME=str(talk.settings.home),
        GEMINI_BATCH_ROOTS=str(data),
    )

    def command(*arguments: str) -> str:
        done = commands.run(arguments, env, data)
        assert done.returncode == 0, done.stderr
        return done.stdout

    not_ok = _as_counts(rows)["failed"]
    said = await anyio.to_thread.run_sync(command, "check-status", batch)
    assert f"{rows['ok']} ok, {not_ok} failed, 0 pending of 10" in said and state in said
    assert not not_ok or ", ".join(f"{rows[name]} {name}" for name in rows if name != "ok") in said
    said = await anyio.to_thread.run_sync(command, "list-jobs")
    assert re.search(rf"{batch} +{state} +{rows['ok']} +{not_ok} +10 ", said)
    said = await anyio.to_thread.run_sync(command, "get-results", batch)
    assert f"{rows['ok']} succeeded, " + ", ".join(f"{rows[name]} {name}" for name in rows if name != "ok") in said
    await anyio.to_thread.run_sync(command, "report", batch, "-o", str(page))
    html = re.sub(r"<[^>]+>", " ", page.read_text(encoding="utf-8"))
    names = {"ok": "OK", **{name: name.capitalize() for name in rows if name != "ok"}}
    legend = html[html.index("Outcomes") : html.index("Progress by job")]
    for name, count in rows.items():
        assert re.search(rf" {names[name]} +[A-Za-z ]+ {count} ", legend), (name, legend)


@in_part
async def test_all_places_say_the_same_counts_through_three_retries(
    talk: Conversation, commands: Commands, sandbox: Sandbox, data: Path, faults: dict[str, RowFault]
) -> None:
    batch = (await talk.call("create_batch", source=_ten_rows(data)))["batch_id"]
    # But for a complete run, the command line and the report are asked when the rows come to this for the first time,
    # and in the shortest run only of what has more than one kind of failure.
    said_before: list[object] = []
    with sandbox.listening() as base_url:

        async def all_say(rows: dict[str, int], state: str = "JOB_STATE_PARTIALLY_SUCCEEDED") -> None:
            is_asked = IS_FULL or (rows not in said_before and (IS_LONG or not said_before))
            asked = commands if is_asked else None
            said_before.append(rows)
            await _says_everywhere(talk, asked, base_url, batch, data, rows, state)

        status = await talk.call("check_status", batch=batch)
        assert (status["rows"], status["counts"]) == (None, _as_counts(_rows(), pending=10))
        sandbox.finish(newest(sandbox))
        troubled = _rows(ok=4, failed=1, blocked=2, truncated=1, empty=1, missing=1)
        await all_say(troubled)

        await talk.call("retry_failed", batch=batch, include=ALL_KINDS)
        await all_say(troubled, "JOB_STATE_RUNNING")
        sandbox.finish(newest(sandbox))
        await all_say(troubled)
        status = await talk.call("check_status", batch=batch)
        sentence = "The last retry sent 6 rows and improved none of them. 6 of 10 rows have no usable answer"
        assert status["advice"].startswith(sentence)
        assert "include=['blocked'] and another model" in status["advice"]
        assert any(sentence in warning for warning in (await talk.call("get_results", batch=batch))["warnings"])

        for name in ("k1", "k2", "k5"):
            del faults[name]
        await talk.call("retry_failed", batch=batch, include=ALL_KINDS, model="gemini-2.5-flash")
        await all_say(troubled, "JOB_STATE_RUNNING")
        sandbox.finish(newest(sandbox))
        await all_say(_rows(ok=7, blocked=1, truncated=1, empty=1))
        assert "last retry" not in (await talk.call("check_status", batch=batch))["advice"]
        assert (await talk.call("get_results", batch=batch))["warnings"] == []

        faults.clear()
        await talk.call("retry_failed", batch=batch, include=ALL_KINDS)
        sandbox.finish(newest(sandbox))
        await all_say(_rows(ok=10), "JOB_STATE_SUCCEEDED")
        assert (await talk.call("check_status", batch=batch))["advice"] == "Call get_results."


async def test_a_batch_of_several_jobs_is_counted_by_its_table_while_some_still_run(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    settings, source = sharded(settings, data)
    async with converse(settings, sandbox) as talk:
        created = await talk.call("create_batch", source=source)
        sandbox.finish(created["jobs"][0]["name"])
        summary = (await talk.call("get_results", batch=created["batch_id"]))["summary"]
        status = await talk.call("check_status", batch=created["batch_id"])
    assert (summary["succeeded"], summary["pending"]) == (10, 20)
    assert status["counts"] == _as_counts(_rows(ok=10), pending=20)
    assert status["rows"] == _rows(ok=10)


async def test_a_list_says_the_counts_without_opening_a_table(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    batch = (await talk.call("create_batch", source=_ten_rows(data)))["batch_id"]
    sandbox.finish(newest(sandbox))
    await talk.call("get_results", batch=batch)
    (talk.settings.home / "batches" / batch / "results.json").unlink()
    (listed,) = (await talk.call("list_jobs"))["jobs"]
    assert listed["counts"] == {"total": 10, "succeeded": 4, "failed": 6, "pending": 0}


@pytest.mark.parametrize("left", ["", '{"ok": 1, "failed": 9}'])
async def test_a_table_that_the_ledger_does_not_know_of_is_counted_all_the_same(
    settings: Settings, sandbox: Sandbox, data: Path, left: str
) -> None:
    """Collected by an older version, or by a process that was killed between the table and the ledger."""
    async with converse(settings, sandbox) as talk:
        batch = (await talk.call("create_batch", source=_ten_rows(data)))["batch_id"]
        sandbox.finish(newest(sandbox))
        await talk.call("get_results", batch=batch)
    with closing(sqlite3.connect(settings.home / "ledger.sqlite3")) as ledger, ledger:
        ledger.execute("UPDATE batches SET rows_json = ?", (left,))
    async with converse(settings, sandbox) as talk:
        if left:
            await talk.call("get_results", batch=batch)
        status = await talk.call("check_status", batch=batch)
    assert status["counts"] == {"total": 10, "succeeded": 4, "failed": 6, "pending": 0}


async def test_embeddings_are_counted_by_their_table(
    talk: Conversation, sandbox: Sandbox, data: Path, faults: dict[str, RowFault]
) -> None:
    faults["k2"] = RowFault.EMPTY
    order = {"task": "embed", "model": "gemini-embedding-2"}
    created = await talk.call("create_batch", requests=[{"key": f"k{n}", "prompt": f"x{n}"} for n in range(4)], **order)
    sandbox.finish(newest(sandbox))
    await talk.call("get_results", batch=created["batch_id"])
    status = await talk.call("check_status", batch=created["batch_id"])
    assert status["rows"] == _rows(ok=1, failed=1, empty=2)


async def test_rows_that_a_running_retry_does_not_send_are_named(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    batch = (await talk.call("create_batch", source=_ten_rows(data)))["batch_id"]
    sandbox.finish(newest(sandbox))
    await talk.call("retry_failed", batch=batch)
    assert (await talk.call("retry_failed", batch=batch))["warnings"] == []
    again = await talk.call("retry_failed", batch=batch, include=["blocked", "failed", "empty"])
    assert again["reused"] and sandbox.creates == 2
    assert again["warnings"] == [
        "2 blocked and 1 empty rows were not sent: a retry of 2 other rows is under way, and only one can run. When "
        "check_status says that it has ended, call retry_failed again with include=['blocked', 'empty']."
    ]
    sandbox.finish(newest(sandbox))
    sent = await talk.call("retry_failed", batch=batch, include=["blocked", "empty"])
    assert (sent["reused"], sent["request_count"]) == (False, 3)


async def test_rows_that_meet_the_same_error_again_are_not_advised_to_be_retried(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    source = write_lines(data / "wrong.jsonl", [line("a", "fine"), line("b", "[[sandbox:error:3]]")])
    batch = (await talk.call("create_batch", source=source))["batch_id"]
    sandbox.finish(newest(sandbox))
    await talk.call("get_results", batch=batch)
    advice = (await talk.call("check_status", batch=batch))["advice"]
    assert "1 failed for a reason that resending does not change: correct them and submit them as a new order" in advice
    assert "retry_failed" not in advice


async def test_a_job_made_elsewhere_is_shown_as_such_with_its_own_times(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    created = await talk.call("create_batch", source=_ten_rows(data))
    (name,) = (job["name"] for job in created["jobs"])
    own = await talk.call("check_status", batch=created["batch_id"])
    assert (own["made_elsewhere"], own["ended_at"]) == (False, None)
    made_at = (await talk.call("list_jobs"))["jobs"][0]["created_at"]
    async with elsewhere(talk, sandbox) as other:
        (before,) = (await other.call("list_jobs"))["jobs"]
        seen = await other.call("check_status", batch=name)
        (after,) = (await other.call("list_jobs"))["jobs"]
        assert before["made_elsewhere"] and after["made_elsewhere"] and seen["made_elsewhere"]
        assert before["created_at"] == after["created_at"] == seen["created_at"] != made_at
        sandbox.finish(name)
        assert (await other.call("get_results", batch=name))["summary"]["missing"] == 1
        ended = await other.call("check_status", batch=name)
        assert ended["ended_at"] > ended["created_at"]
        assert ended["counts"] == {"total": 10, "succeeded": 4, "failed": 6, "pending": 0}
        assert "retry_failed" not in ended["advice"] and "submit these rows again" in ended["advice"]
        text = await other.text("check_status", batch=name)
        assert re.search(r", ran \d+ s, made elsewhere at ", text) and " old" not in text


@pytest.mark.parametrize("state", ["EXPIRED", "FAILED", "CANCELLED"])
async def test_nobody_is_advised_to_retry_what_is_not_kept_here(
    talk: Conversation, sandbox: Sandbox, data: Path, state: str
) -> None:
    created = await talk.call("create_batch", source=_ten_rows(data))
    (name,) = (job["name"] for job in created["jobs"])
    sandbox.finish(name, state)
    async with elsewhere(talk, sandbox) as other:
        assert "retry_failed" not in (await other.call("check_status", batch=name))["advice"]


async def test_a_late_job_made_elsewhere_is_not_advised_to_be_cancelled(
    talk: Conversation, sandbox: Sandbox, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = await talk.call("create_batch", source=_ten_rows(data))
    (name,) = (job["name"] for job in created["jobs"])
    monkeypatch.setattr("gemini_batch_mcp.batches.jobs.advice.TARGET", timedelta(0))
    assert "cancel_batch and then retry_failed" in (await talk.call("check_status", batch=name))["advice"]
    async with elsewhere(talk, sandbox) as other:
        advice = (await other.call("check_status", batch=name))["advice"]
    assert "cancel_batch" not in advice and "retry_failed" not in advice
    assert "could not be resent after a cancel" in advice


async def _cancel_asks_first(talk: Conversation, sandbox: Sandbox, batch: str, why: str) -> None:
    refusal = await talk.refusal("cancel_batch", batch=batch)
    assert "Nothing was cancelled" in refusal and why in refusal and "would be lost" in refusal
    assert not any(request.route == "batches.cancel" for request in sandbox.requests)
    assert (await talk.call("cancel_batch", batch=batch, confirm=True))["state"] == "JOB_STATE_CANCELLING"
    assert (await talk.call("cancel_batch", batch=batch))["state"] == "JOB_STATE_CANCELLING"


async def test_a_cancel_of_a_job_made_elsewhere_asks_first(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    created = await talk.call("create_batch", source=_ten_rows(data))
    async with elsewhere(talk, sandbox) as other:
        await _cancel_asks_first(other, sandbox, created["jobs"][0]["name"], "it was made elsewhere")


async def test_a_cancel_of_an_order_from_an_uploaded_file_asks_first(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    first = await talk.call("create_batch", source=_ten_rows(data))
    with closing(sqlite3.connect(talk.settings.home / "ledger.sqlite3")) as ledger, ledger:
        query = "SELECT uploaded_file FROM jobs WHERE batch_id = ?"
        (source,) = ledger.execute(query, (first["batch_id"],)).fetchone()
    async with elsewhere(talk, sandbox) as other:
        assert "cannot be read back" in await other.refusal("create_batch", source=source)
        created = await other.call("create_batch", source=source, confirm=True)
        await _cancel_asks_first(other, sandbox, created["batch_id"], "from a file uploaded earlier")


@pytest.mark.parametrize("change", ["changed", "gone"])
async def test_a_cancel_asks_first_where_the_request_file_is_not_as_it_was(
    talk: Conversation, sandbox: Sandbox, data: Path, change: str
) -> None:
    source = Path(_ten_rows(data))
    batch = (await talk.call("create_batch", source=str(source)))["batch_id"]
    if change == "gone":
        source.unlink()
        assert "cancel_batch" not in (await talk.call("check_status", batch=batch))["advice"]
    else:
        source.write_text(source.read_text(encoding="utf-8").replace("row", "now"), encoding="utf-8")
    await _cancel_asks_first(talk, sandbox, batch, change)


async def test_jobs_are_listed_by_whether_they_have_ended(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    first = await talk.call("create_batch", source=request_file(data, name="first.jsonl"))
    sandbox.finish(newest(sandbox))
    second = await talk.call("create_batch", source=_ten_rows(data))
    ids: dict[str, Any] = {}
    for state in ("active", "ended"):
        ids[state] = [job["batch_id"] for job in (await talk.call("list_jobs", state=state))["jobs"]]
    assert ids == {"active": [second["batch_id"]], "ended": [first["batch_id"]]}
    assert "active, ended, JOB_STATE_" in await talk.refusal("list_jobs", state="open")
