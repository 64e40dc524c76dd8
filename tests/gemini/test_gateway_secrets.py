"""Keys, addresses and upload ids stay out of errors, logs and other hosts."""

import json
import logging
import traceback
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gemini_batch_mcp.errors import BatchError
from support.gateways import (
    JOB,
    KEY,
    UPLOAD_ID,
    Script,
    answer,
    create,
    failing,
    open_gateway,
    sample,
)

pytestmark = pytest.mark.anyio


SECRET_URL = f"https://upload.example/upload/v1beta/files?upload_id={UPLOAD_ID}&key={KEY}"


@pytest.mark.parametrize(
    "reply",
    [
        failing(400, f"bad {SECRET_URL} {KEY}"),
        failing(401, f"bad {SECRET_URL} {KEY}"),
        failing(404, f"bad {SECRET_URL} {KEY}"),
        failing(429, f"bad {SECRET_URL} {KEY}"),
        failing(500, f"bad {SECRET_URL} {KEY}"),
        failing(302, "moved", location=SECRET_URL),
        httpx2.ConnectError(f"cannot connect to {SECRET_URL}"),
        httpx2.UnsupportedProtocol(f"odd {SECRET_URL}"),
        httpx2.ReadTimeout(f"{SECRET_URL}"),
        OSError(5, f"{SECRET_URL}"),
        ValueError(f"{SECRET_URL} {KEY}"),
        httpx2.Response(200, content=f"{SECRET_URL} {KEY}".encode()),
    ],
)
async def test_no_error_and_no_log_line_shows_a_key_or_an_address(
    tmp_path: Path, reply: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown = []
    started = httpx2.Response(200, headers={"x-goog-upload-url": SECRET_URL, "x-goog-upload-status": "active"})
    for replies in ([reply], [started, reply]):
        gateway = open_gateway(tmp_path, Script(*replies))
        (tmp_path / "in.jsonl").write_bytes(b"{}\n")
        for call in (
            gateway.upload(tmp_path / "in.jsonl", size_bytes=3, display_name="in.jsonl"),
            gateway.get_job(JOB),
            create(gateway),
            gateway.download("files/batch-x", tmp_path / "out"),
        ):
            try:
                await call
            except BatchError as error:
                shown += [str(error), repr(error), *traceback.format_exception(error)]
        await gateway.aclose()
    assert len(shown) >= 5
    text = "\n".join([*shown, caplog.text])
    for secret in (KEY, UPLOAD_ID, "upload.example", "generativelanguage", "https://"):
        assert secret not in text


async def test_a_logger_set_up_to_say_less_stays_that_way(tmp_path: Path) -> None:
    logger = logging.getLogger("httpcore2")
    before = logger.level
    try:
        logger.setLevel(logging.ERROR)
        await open_gateway(tmp_path, Script(answer({}))).aclose()
        assert logger.level == logging.ERROR
        logger.setLevel(logging.NOTSET)
        await open_gateway(tmp_path, Script(answer({}))).aclose()
        assert logger.level == logging.WARNING
    finally:
        logger.setLevel(before)


async def test_the_key_is_sent_to_its_own_endpoint_only(tmp_path: Path) -> None:
    content = json.dumps(sample("06")).encode()
    script = Script(
        httpx2.Response(302, headers={"location": "/v1beta/moved"}),
        httpx2.Response(302, headers={"location": "https://elsewhere.example/x"}),
        httpx2.Response(200, content=content),
    )
    gateway = open_gateway(tmp_path, script)
    await gateway.get_job(JOB)
    assert [request.headers.get("x-goog-api-key") for request in script.requests] == [KEY, KEY, None]
    await gateway.aclose()
