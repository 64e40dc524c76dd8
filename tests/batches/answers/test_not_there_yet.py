"""Ended is not delivered: what an assistant is told while answers are late or came short, and that nothing is lost."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from gemini_batch_mcp.digests import file_digest
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import Conversation, answers_of, converse, created, downloads, newest, request_file, sharded
from support.extent import few, in_part, long, pairs
from support.services import MovedClock

pytestmark = pytest.mark.anyio

ROWS = 20


async def placed(talk: Conversation, data: Path, **order: object) -> str:
    placement = await talk.call("create_batch", source=request_file(data, ROWS), **order)
    return str(placement["batch_id"])


async def late(talk: Conversation, sandbox: Sandbox, data: Path, lag_seconds: float, **order: object) -> str:
    """Order rows whose output comes so long after their end, and let them end."""
    batch = await placed(talk, data, display_name=f"late [[sandbox:output-lag:{lag_seconds}]]", **order)
    sandbox.finish(newest(sandbox))
    return batch


@in_part
@pytest.mark.parametrize(("delivery", "lag_seconds"), pairs(("file", "inline"), (6, 600)))
async def test_answers_that_come_after_the_end_are_waited_for(
    talk: Conversation, sandbox: Sandbox, service_clock: MovedClock, data: Path, delivery: str, lag_seconds: float
) -> None:
    batch = await late(talk, sandbox, data, lag_seconds, delivery=delivery)

    status = await talk.call("check_status", batch=batch)
    assert (status["state"], status["done"], status["results_ready"]) == ("JOB_STATE_SUCCEEDED", True, False)
    assert "not there yet" in status["advice"] and "get_results" in status["advice"]
    assert "retry_failed" not in status["advice"]
    refusal = await talk.refusal("get_results", batch=batch)
    assert f"The answers of {ROWS} rows are not there yet: Gemini shows" in refusal
    assert "the next look is at" in refusal and "again in a minute" in refusal
    assert "not there yet" in await talk.refusal("retry_failed", batch=batch, include=["missing"])
    assert (
        await talk.call(
            "create_batch",
            source=request_file(data, ROWS),
            display_name=f"late [[sandbox:output-lag:{lag_seconds}]]",
            delivery=delivery,
        )
    )["reused"]

    service_clock.move(lag_seconds)
    assert (await talk.call("check_status", batch=batch))["results_ready"]
    results = await talk.call("get_results", batch=batch)
    assert (results["summary"]["succeeded"], results["integrity_ok"]) == (ROWS, True)
    assert sandbox.creates == 1


async def test_a_day_without_answers_is_said_and_what_comes_then_is_still_taken(
    talk: Conversation, sandbox: Sandbox, service_clock: MovedClock, data: Path
) -> None:
    service_clock.move(-25 * 3600)
    batch = await late(talk, sandbox, data, 25 * 3600)
    service_clock.move(25 * 3600 - 60)

    refusal = await talk.refusal("get_results", batch=batch)
    assert "still not there, 25 hours after Gemini ended" in refusal
    assert "retry_failed resends these rows" in refusal and "charged for them again" in refusal
    assert not (await talk.call("check_status", batch=batch))["results_ready"]

    service_clock.move(60)
    assert (await talk.call("get_results", batch=batch))["summary"]["succeeded"] == ROWS
    assert sandbox.creates == 1


async def test_rows_that_were_not_delivered_in_a_day_can_be_sent_again(
    talk: Conversation, sandbox: Sandbox, service_clock: MovedClock, data: Path
) -> None:
    service_clock.move(-25 * 3600)
    batch = await placed(talk, data)
    sandbox.finish(newest(sandbox))
    sandbox.omit_next("batches.get", "output", "response", times=50)

    again = await talk.call("retry_failed", batch=batch)
    assert again["request_count"] == ROWS
    sandbox.faults.clear()
    sandbox.finish(newest(sandbox))
    assert (await talk.call("get_results", batch=batch))["summary"]["succeeded"] == ROWS
    assert sandbox.creates == 2


def short(at_line: int, at_byte: int = 0) -> Callable[[Sandbox], None]:
    return lambda sandbox: sandbox.shorten_next("files.download", at_line=at_line, at_byte=at_byte)


#: What comes in place of the answers, and what an assistant is told of it.
BODIES = [
    ("empty", short(0), "holds no answers"),
    ("inside the first line", short(0, 40), "holds no answers"),
    ("at a line", short(7), "7 answers came"),
    ("inside a line", short(19, 10), "in the middle of a line after 19 answers"),
    ("portal", lambda sandbox: sandbox.page_next("files.download"), "holds no answers"),
    ("late file", lambda sandbox: sandbox.fail_next("files.download", status=404), "cannot be downloaded so far (404)"),
]


@few(3)
@pytest.mark.parametrize(("disturb", "said"), [body[1:] for body in BODIES], ids=[body[0] for body in BODIES])
async def test_a_body_that_is_not_what_gemini_counts_is_no_result(
    settings: Settings, sandbox: Sandbox, data: Path, disturb: Callable[[Sandbox], None], said: str, era: str
) -> None:
    """In one process nothing is waited for, so that what is said after one look is seen; another one goes on."""
    slow = replace(settings, poll_seconds=60)
    async with converse(slow, sandbox, era) as talk:
        batch = await placed(talk, data)
        sandbox.finish(newest(sandbox))
        await talk.call("check_status", batch=batch)
        disturb(sandbox)
        assert said in await talk.refusal("get_results", batch=batch)
        asked = downloads(sandbox)
        status = await talk.call("check_status", batch=batch)
        assert said in status["advice"] and not status["results_ready"]
        assert said in await talk.refusal("retry_failed", batch=batch)
        assert downloads(sandbox) == asked, "it is not fetched again before its time"


@few(3)
@pytest.mark.parametrize(("disturb", "said"), [body[1:] for body in BODIES], ids=[body[0] for body in BODIES])
async def test_a_body_that_is_not_what_gemini_counts_is_fetched_again(
    settings: Settings, sandbox: Sandbox, data: Path, disturb: Callable[[Sandbox], None], said: str
) -> None:
    async with converse(settings, sandbox) as talk:
        batch = await placed(talk, data)
        sandbox.finish(newest(sandbox))
        disturb(sandbox)
        results = await talk.call("get_results", batch=batch)
    assert (results["summary"]["succeeded"], results["summary"]["missing"], results["warnings"]) == (ROWS, 0, [])
    assert (sandbox.creates, downloads(sandbox)) == (1, 2)


async def test_the_same_short_body_twice_is_said_to_be_geminis_loss(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    batch = await placed(talk, data)
    sandbox.finish(newest(sandbox))
    sandbox.shorten_next("files.download", at_line=18, times=2)
    results = await talk.call("get_results", batch=batch)

    assert (results["summary"]["succeeded"], results["summary"]["missing"]) == (18, 2)
    assert any("counts 2 more rows" in warning and "lost at Gemini" in warning for warning in results["warnings"])
    await talk.call("get_results", batch=batch)
    assert downloads(sandbox) == 2
    assert (await talk.call("retry_failed", batch=batch))["request_count"] == 2


@long
async def test_no_page_and_no_torn_line_is_taken_for_a_loss_however_often_it_comes(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    batch = await placed(talk, data)
    sandbox.finish(newest(sandbox))
    for disturb in (short(12, 9), lambda sandbox: sandbox.page_next("files.download")):
        sandbox.faults.clear()
        for _ in range(30):
            disturb(sandbox)
        for _ in range(2):
            assert "not there yet" in await talk.refusal("get_results", batch=batch)
    sandbox.faults.clear()
    service_status = await talk.call("check_status", batch=batch)
    assert "retry_failed" not in service_status["advice"]


async def test_a_page_takes_no_answers_away_that_came_before(
    talk: Conversation, sandbox: Sandbox, data: Path, service_clock: MovedClock
) -> None:
    batch = await placed(talk, data)
    service_clock.move(-7200)
    sandbox.finish(newest(sandbox))
    sandbox.shorten_next("files.download", at_line=12)
    sandbox.page_next("files.download")
    sandbox.fail_next("files.download", status=404, times=20)
    summary = (await talk.call("get_results", batch=batch))["summary"]
    assert (summary["succeeded"], summary["missing"]) == (12, ROWS - 12)


async def test_rows_of_a_late_job_are_pending_beside_those_of_others(
    settings: Settings, sandbox: Sandbox, data: Path, era: str
) -> None:
    settings, source = sharded(replace(settings, poll_seconds=60), data)
    async with converse(settings, sandbox, era) as talk:
        batch = (await talk.call("create_batch", source=source))["batch_id"]
        for name in created(sandbox):
            sandbox.finish(name)
        sandbox.omit_next("batches.get", "output", "response", times=2)
        results = await talk.call("get_results", batch=batch)
        summary = results["summary"]
        assert (summary["succeeded"], summary["missing"]) == (10, 0)
        assert any("20 rows are not there yet" in warning for warning in results["warnings"])
        whole = await talk.call("get_results", batch=batch)
    assert (whole["summary"]["succeeded"], whole["warnings"]) == (30, [])
    assert sandbox.creates == 3


@pytest.mark.parametrize("times", [1, 9])
async def test_without_counts_as_many_answers_are_expected_as_rows_were_sent(
    talk: Conversation, sandbox: Sandbox, data: Path, times: int
) -> None:
    batch = await placed(talk, data)
    sandbox.finish(newest(sandbox))
    sandbox.omit_next("batches.get", "batchStats", times=20)
    sandbox.shorten_next("files.download", at_line=15, times=times)
    summary = (await talk.call("get_results", batch=batch))["summary"]
    assert (summary["succeeded"], summary["missing"]) == ((ROWS, 0) if times == 1 else (15, 5))


def as_an_older_version_left_it(settings: Settings, batch: str, lines: int) -> None:
    """Leave of the answers so many lines, recorded as collected, as a version did that did not count them."""
    (answers,) = answers_of(settings, batch)
    answers.write_bytes(b"".join(answers.read_bytes().splitlines(keepends=True)[:lines]))
    with closing(sqlite3.connect(settings.home / "ledger.sqlite3")) as connection, connection:
        connection.execute("DELETE FROM migrations WHERE name = '_m006_delivery'")
        for column in ("lack", "looks", "look_again_at", "seen_digest", "answer_count"):
            connection.execute(f"ALTER TABLE jobs DROP COLUMN {column}")
        connection.execute("UPDATE jobs SET responses_file = '', answers_digest = ?", [file_digest(answers)])
    connection.close()


@in_part
@pytest.mark.parametrize(("lines", "is_gone"), pairs((0, 13), (False, True)))
async def test_what_an_older_version_took_for_whole_is_looked_at_once_more(
    settings: Settings, sandbox: Sandbox, data: Path, lines: int, is_gone: bool
) -> None:
    async with converse(settings, sandbox) as talk:
        batch = await placed(talk, data)
        sandbox.finish(newest(sandbox))
        await talk.call("get_results", batch=batch)
    as_an_older_version_left_it(settings, batch, lines)
    asked = downloads(sandbox)
    async with converse(settings, sandbox) as talk:
        if is_gone:
            sandbox.fail_next("files.download", status=404, times=9)
        for _ in range(2):
            summary = (await talk.call("get_results", batch=batch))["summary"]
            assert summary["succeeded"] == (lines if is_gone else ROWS)
            assert summary["succeeded"] + summary["missing"] == ROWS
    assert downloads(sandbox) == asked + 1
    assert sandbox.creates == 1
