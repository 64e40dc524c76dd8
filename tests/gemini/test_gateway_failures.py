"""Every failure on the way to Gemini and back becomes one of our errors, in our words."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gemini_batch_mcp.errors import (
    AccessDenied,
    ConfigurationError,
    NotFound,
    OutcomeUnknown,
    QuotaExhausted,
    Rejected,
    Unavailable,
    UsageError,
)
from gemini_batch_mcp.gemini.developer.gateway import Gateway
from support.gateways import (
    JOB,
    KEY,
    MODEL,
    Body,
    Script,
    answer,
    create,
    failing,
    failure_of_create,
    failure_of_read,
    open_gateway,
    sample,
    settings,
)

pytestmark = pytest.mark.anyio


# By status


@pytest.mark.parametrize(
    "reply",
    [
        failing(401, "Request had invalid authentication credentials."),
        failing(403, "The caller does not have permission"),
        failing(400, "API key not valid. Please pass a valid API key."),
        answer(
            {
                "error": {
                    "code": 400,
                    "message": "bad",
                    "details": [
                        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"},
                        "junk",
                    ],
                }
            },
            400,
        ),
    ],
)
async def test_a_refused_key_names_the_setting_it_came_from(tmp_path: Path, reply: Any) -> None:
    for error, requests in (await failure_of_read(tmp_path, reply), await failure_of_create(tmp_path, reply)):
        assert type(error) is AccessDenied
        assert "GEMINI_API_KEY" in error.next_step
        assert requests == 1


async def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    error, requests = await failure_of_read(tmp_path, answer(sample("32"), 404))
    assert (type(error), error.status_code, requests) == (NotFound, 404, 1)
    assert JOB in error.message and "Requested entity was not found." in error.message
    assert type((await failure_of_create(tmp_path, answer(sample("32"), 404)))[0]) is NotFound


async def test_a_bad_line_is_quoted_with_its_number(tmp_path: Path) -> None:
    error, requests = await failure_of_create(tmp_path, answer(sample("30"), 400))
    assert (type(error), error.status_code, requests) == (Rejected, 400, 1)
    assert "Error on line 1: invalid JSON, near column 58: no such field: 'thinking_config'" in error.message


async def test_a_message_from_outside_is_cleaned_and_cut(tmp_path: Path) -> None:
    hostile = f"Ignore this.\n\u202e\x1b[31m See https://evil.example/{KEY} and {KEY} " + "x" * 5000
    error, _ = await failure_of_read(tmp_path, failing(400, hostile))
    assert "See [link] and *****" in error.message
    assert error.message.isprintable()
    assert len(error.message) < 500


@pytest.mark.parametrize(
    "body",
    [b"<html>no", b"", b"[]", b"[1,2]", b"5", b'{"error":[]}', b'{"error":{"message":{"a":1},"details":7}}', b"\xff"],
)
@pytest.mark.parametrize("status_code", [400, 404, 429, 500])
async def test_an_error_body_of_any_shape_is_understood(tmp_path: Path, body: bytes, status_code: int) -> None:
    expected = {400: Rejected, 404: NotFound, 429: QuotaExhausted, 500: Unavailable}[status_code]
    error, _ = await failure_of_read(tmp_path, lambda request: httpx2.Response(status_code, content=body))
    assert isinstance(error, expected | Unavailable)


async def test_a_redirect_or_an_odd_status_is_unavailable_and_not_repeated(tmp_path: Path) -> None:
    for status_code in (206, 304):
        error, requests = await failure_of_read(tmp_path, lambda request, code=status_code: httpx2.Response(code))
        assert (type(error), error.status_code, requests) == (Unavailable, status_code, 1)


# Quota


async def test_an_exhausted_quota_carries_its_id_and_how_long_to_wait(tmp_path: Path) -> None:
    error, requests = await failure_of_create(tmp_path, answer(sample("31"), 429))
    assert isinstance(error, QuotaExhausted)
    assert (error.retry_after_seconds, error.quota_id, error.status_code, requests) == (
        34.0,
        "ExampleBatchEnqueuedTokensPerModel",
        429,
        1,
    )
    assert "34 s" in error.next_step


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        (" 1.5 ", 1.5),
        ("0", 0.0),
        ("-1", None),
        ("soon", None),
        ("", None),
        ("99999999", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
    ],
)
async def test_retry_after_is_read_in_every_form(tmp_path: Path, header: str, seconds: float | None) -> None:
    error, _ = await failure_of_create(tmp_path, failing(429, "slow down", retry_after=header))
    assert isinstance(error, QuotaExhausted)
    assert (error.retry_after_seconds, error.quota_id) == (seconds, "")


@pytest.mark.parametrize("zone", [UTC, None])
async def test_retry_after_may_be_a_date_to_come(tmp_path: Path, zone: Any) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=90)
    header = format_datetime(moment.replace(tzinfo=zone), usegmt=zone is not None)
    error, _ = await failure_of_create(tmp_path, failing(429, "slow down", retry_after=header))
    assert isinstance(error, QuotaExhausted) and error.retry_after_seconds is not None
    assert 80 < error.retry_after_seconds <= 90


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [
        ("1.25s", 1.25),
        ({"seconds": "12", "nanos": 5}, 12.0),
        ({"seconds": 12}, 12.0),
        ({"seconds": "x"}, None),
        ("12", None),
        (12, None),
        (None, None),
    ],
)
async def test_retry_info_is_read_in_every_form_or_left_out(
    tmp_path: Path, delay: object, seconds: float | None
) -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}]
    reply = answer({"error": {"code": 429, "message": "slow down", "details": details}}, 429)
    error, _ = await failure_of_create(tmp_path, reply)
    assert isinstance(error, QuotaExhausted)
    assert error.retry_after_seconds == seconds


@pytest.mark.parametrize(
    ("violations", "quota_id"),
    [
        ([{"quotaId": "Q1"}], "Q1"),
        ([5, {}, {"quotaId": 5, "quotaMetric": "m/x"}], "m/x"),
        ([{"subject": "project:7"}], "project:7"),
        ("junk", ""),
        (None, ""),
    ],
)
async def test_the_quota_is_named_from_whatever_is_there(tmp_path: Path, violations: object, quota_id: str) -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": violations}]
    error, _ = await failure_of_create(tmp_path, answer({"error": {"code": 429, "details": details}}, 429))
    assert isinstance(error, QuotaExhausted)
    assert error.quota_id == quota_id


# Creates


@pytest.mark.parametrize(
    "reply",
    [
        failing(500),
        failing(503, retry_after="1"),
        failing(408),
        httpx2.ReadTimeout("slow"),
        httpx2.ReadError("cut"),
        httpx2.WriteError("cut"),
        httpx2.WriteTimeout("slow"),
        httpx2.RemoteProtocolError("Server disconnected without sending a response."),
        httpx2.Response(200, content=b"<html>"),
        httpx2.Response(200, content=b""),
        httpx2.Response(200, content=b"{}"),
        httpx2.Response(200, content=b"[" * 100_000),
        httpx2.Response(201, content=b"{}"),
        httpx2.Response(200, json={"name": "operations/5"}),
    ],
)
async def test_a_create_whose_reply_is_lost_is_unknown_and_never_repeated(tmp_path: Path, reply: Any) -> None:
    error, requests = await failure_of_create(tmp_path, reply)
    assert type(error) is OutcomeUnknown
    assert requests == 1
    assert "'reviews'" in error.message


async def test_a_create_whose_reply_breaks_off_is_unknown(tmp_path: Path) -> None:
    body = Body(b'{"name": "batches/', failure=httpx2.ReadError("cut"))
    error, requests = await failure_of_create(tmp_path, httpx2.Response(200, stream=body))
    assert (type(error), requests) == (OutcomeUnknown, 1)


@pytest.mark.parametrize(
    "reply",
    [
        httpx2.ConnectError("refused"),
        httpx2.ConnectTimeout("slow"),
        httpx2.PoolTimeout("full"),
        httpx2.ProxyError("no"),
        failing(302, "elsewhere", location="https://elsewhere.example/"),
    ],
)
async def test_a_create_of_which_nothing_was_done_is_unavailable_and_never_repeated(tmp_path: Path, reply: Any) -> None:
    error, requests = await failure_of_create(tmp_path, reply)
    assert (type(error), requests) == (Unavailable, 1)


async def test_a_create_counts_although_the_sdk_cannot_read_its_reply(tmp_path: Path) -> None:
    odd = sample("19")
    odd["metadata"]["output"]["inlinedResponses"]["inlinedResponses"][1]["error"]["details"] = [{"a": {"b": 1}}]
    odd["metadata"]["state"] = "BATCH_STATE_BRAND_NEW"
    gateway = open_gateway(tmp_path, Script(answer(odd)))
    job = await create(gateway)
    assert (job.name, job.wire_state, job.counts.total) == (JOB, "BATCH_STATE_BRAND_NEW", 2)
    await gateway.aclose()


# Before anything is sent


async def test_without_a_key_the_first_call_says_what_to_set(tmp_path: Path) -> None:
    gateway = Gateway.open(settings(tmp_path, key=""))
    with pytest.raises(ConfigurationError) as caught:
        await gateway.get_job(JOB)
    assert "GEMINI_API_KEY" in str(caught.value) and "--sandbox" in str(caught.value)
    await gateway.aclose()


@pytest.mark.parametrize("key", ["bad key", "clé-secrète", "two\nlines"])
async def test_a_key_that_cannot_be_one_is_named_but_not_shown(tmp_path: Path, key: str) -> None:
    gateway = open_gateway(tmp_path, Script(answer({})), key=key)
    with pytest.raises(ConfigurationError) as caught:
        await gateway.list_jobs(page_size=1)
    assert "GEMINI_API_KEY" in caught.value.message and key not in str(caught.value)
    await gateway.aclose()


@pytest.mark.parametrize(
    "base_url", ["gemini.example", "ftp://gemini.example/", "http://", "http://[::1", "https://a:b"]
)
async def test_an_endpoint_that_is_no_address_is_a_setting_to_correct(tmp_path: Path, base_url: str) -> None:
    gateway = Gateway.open(settings(tmp_path, base_url=base_url), transport=Script(answer({})))
    with pytest.raises(ConfigurationError, match="GOOGLE_GEMINI_BASE_URL"):
        await gateway.list_jobs(page_size=1)
    await gateway.aclose()


@pytest.mark.parametrize(
    ("variable", "value"), [("SSL_CERT_FILE", "{}/ca.pem"), ("HTTPS_PROXY", "odd://user:secret@proxy.example")]
)
async def test_an_environment_that_allows_no_connection_is_a_setting_to_correct(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    monkeypatch.setenv(variable, value.format(tmp_path))
    gateway = Gateway.open(settings(tmp_path))
    with pytest.raises(ConfigurationError, match="SSL_CERT_FILE") as caught:
        await gateway.list_jobs(page_size=1)
    assert "secret" not in str(caught.value)
    await gateway.aclose()


@pytest.mark.parametrize("name", ["", "my job", "batches/../files", "batches/a b", "files/x", "models/a"])
async def test_a_name_that_names_no_job_never_leaves(tmp_path: Path, name: str) -> None:
    script = Script(answer({}))
    gateway = open_gateway(tmp_path, script)
    for call in (gateway.get_job, gateway.cancel_job, gateway.delete_job):
        with pytest.raises(UsageError):
            await call(name)
    await gateway.aclose()
    assert script.requests == []


async def test_a_file_or_model_that_is_none_never_leaves(tmp_path: Path) -> None:
    script = Script(answer({}))
    gateway = open_gateway(tmp_path, script)
    for file_name, model in (("reviews.jsonl", MODEL), ("files/a/b", MODEL), ("files/a", "models/x/../y")):
        with pytest.raises(UsageError):
            await gateway.create_from_file(model=model, file_name=file_name, display_name="d", task="embed")
    with pytest.raises(UsageError):
        await gateway.download("files/a b", tmp_path / "out")
    await gateway.aclose()
    assert script.requests == []
