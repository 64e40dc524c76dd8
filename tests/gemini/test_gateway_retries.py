"""What may be repeated is repeated, for a bounded time; a create is not (see the failures)."""

from pathlib import Path
from time import monotonic
from typing import Any

import anyio
import httpx2
import pytest

from gemini_batch_mcp.errors import NotFound, QuotaExhausted, Rejected, Unavailable
from gemini_batch_mcp.gemini.developer.gateway import RetryPolicy, Timeouts
from support.gateways import (
    JOB,
    Script,
    answer,
    create,
    failing,
    failure_of_read,
    open_gateway,
    sample,
)

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "reply",
    [
        failing(408),
        failing(429),
        failing(500),
        failing(503),
        httpx2.ConnectError("refused"),
        httpx2.ReadTimeout("slow"),
        httpx2.RemoteProtocolError("cut"),
        httpx2.Response(200, content=b"<html>"),
        httpx2.Response(200, content=b'"odd"'),
    ],
)
async def test_reads_are_repeated_until_they_succeed(tmp_path: Path, reply: Any) -> None:
    script = Script(reply, reply, answer(sample("06")))
    gateway = open_gateway(tmp_path, script)
    assert (await gateway.get_job(JOB)).counts.succeeded == 612
    assert len(script.requests) == 3
    await gateway.aclose()


@pytest.mark.parametrize("reply", [failing(503), failing(429), httpx2.ReadError("cut")])
async def test_reads_end_after_the_policys_attempts(tmp_path: Path, reply: Any) -> None:
    error, requests = await failure_of_read(tmp_path, reply)
    assert isinstance(error, Unavailable | QuotaExhausted)
    assert requests == 3


async def test_advice_to_wait_is_followed_when_it_is_short_and_handed_on_when_it_is_long(tmp_path: Path) -> None:
    retry = RetryPolicy(attempts=3, initial_delay_seconds=0.001, max_delay_seconds=0.5, total_seconds=5.0)
    gateway = open_gateway(tmp_path, Script(failing(503, retry_after="0.2"), answer(sample("06"))), retry=retry)
    started = monotonic()
    await gateway.get_job(JOB)
    assert monotonic() - started >= 0.2
    await gateway.aclose()

    error, requests = await failure_of_read(tmp_path, failing(503, retry_after="30"), retry=retry)
    assert isinstance(error, Unavailable)
    assert (error.retry_after_seconds, requests) == (30.0, 1)


async def test_a_read_ends_within_its_total_time(tmp_path: Path) -> None:
    async def silence(request: httpx2.Request) -> httpx2.Response:
        await anyio.sleep_forever()
        raise AssertionError

    with anyio.fail_after(60):
        error, _ = await failure_of_read(tmp_path, silence, retry=RetryPolicy(3, 0.001, 0.01, total_seconds=0.05))
    assert type(error) is Unavailable
    assert "did not answer in time" in error.message


async def test_every_request_carries_our_timeouts_in_seconds(tmp_path: Path) -> None:
    script = Script(answer(sample("06")))
    gateway = open_gateway(tmp_path, script, timeouts=Timeouts(1.5, 2.5, 3.5, transfer_seconds=4.5))
    await gateway.get_job(JOB)
    await create(gateway)
    assert [request.extensions["timeout"] for request in script.requests] == [
        {"connect": 1.5, "pool": 1.5, "write": 4.5, "read": 2.5},
        {"connect": 1.5, "pool": 1.5, "write": 4.5, "read": 3.5},
    ]
    await gateway.aclose()


async def test_a_cancel_and_a_delete_are_repeated(tmp_path: Path) -> None:
    script = Script(failing(500), httpx2.ReadError("cut"), answer({}))
    gateway = open_gateway(tmp_path, script)
    await gateway.cancel_job(JOB)
    assert [request.url.path for request in script.requests] == [f"/v1beta/{JOB}:cancel"] * 3

    script = Script(httpx2.ReadError("cut"), failing(404))
    gateway = open_gateway(tmp_path, script)
    await gateway.delete_job(JOB)
    assert [request.method for request in script.requests] == ["DELETE"] * 2
    await gateway.aclose()


async def test_deleting_what_was_never_there_is_not_found(tmp_path: Path) -> None:
    gateway = open_gateway(tmp_path, Script(failing(404)))
    with pytest.raises(NotFound):
        await gateway.delete_file("files/in8w2k5x")
    with pytest.raises(NotFound):
        await gateway.delete_job(JOB)
    await gateway.aclose()


async def test_a_result_file_cannot_be_deleted_and_gemini_says_why(tmp_path: Path) -> None:
    gateway = open_gateway(tmp_path, Script(answer(sample("33"), 400)))
    with pytest.raises(Rejected, match="at most 40 characters"):
        await gateway.delete_file(f"files/batch-{JOB.removeprefix('batches/')}")
    await gateway.aclose()
