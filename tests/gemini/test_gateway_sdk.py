"""What we rely on in google-genai: these fail loudly when an upgrade changes it."""

import json
import logging
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gemini_batch_mcp.errors import OutcomeUnknown, Unavailable
from gemini_batch_mcp.gemini.developer.gateway import Gateway
from gemini_batch_mcp.gemini.wire import job_from_wire
from support.gateways import JOB, KEY, MODEL, Script, answer, open_gateway, sample, settings

pytestmark = pytest.mark.anyio


async def test_a_raw_read_keeps_what_the_typed_read_drops(tmp_path: Path) -> None:
    gateway = open_gateway(tmp_path, Script(answer(sample("11"))))
    job = await gateway.get_job(JOB)
    assert job == job_from_wire(sample("11"))
    assert (job.counts.failed, job.error is None) == (1000, False)
    await gateway.aclose()


async def test_a_list_goes_out_as_one_path_with_an_escaped_query(tmp_path: Path) -> None:
    script = Script(answer(sample("14")))
    gateway = open_gateway(tmp_path, script)
    await gateway.list_jobs(page_size=5000, page_token="a b&c=/+?#%é")
    url = script.requests[0].url
    assert (script.requests[0].method, url.path) == ("GET", "/v1beta/batches")
    assert dict(url.params) == {"pageSize": "1000", "pageToken": "a b&c=/+?#%é"}
    assert script.requests[0].content == b""
    await gateway.aclose()


async def test_only_our_settings_decide_where_requests_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name, value in {
        "GOOGLE_GENAI_API_VERSION": "v9",
        "GOOGLE_GEMINI_BASE_URL": "https://elsewhere.example",
        "GOOGLE_GENAI_USE_VERTEXAI": "true",
        "GOOGLE_GENAI_USE_ENTERPRISE": "true",
        "GOOGLE_API_KEY": "other-key-1",
        "GEMINI_API_KEY": "other-key-2",
    }.items():
        monkeypatch.setenv(name, value)
    script = Script(answer(sample("06")))
    gateway = open_gateway(tmp_path, script)
    await gateway.get_job(JOB)
    request = script.requests[0]
    assert str(request.url) == f"https://generativelanguage.googleapis.com/v1beta/{JOB}"
    assert request.headers["x-goog-api-key"] == KEY
    assert [record for record in caplog.records if record.name != "asyncio"] == []
    await gateway.aclose()


async def test_another_endpoint_gets_the_requests_below_its_own_path(tmp_path: Path) -> None:
    script = Script(answer(sample("06")))
    gateway = Gateway.open(settings(tmp_path, base_url="https://proxy.example/gemini/"), transport=script)
    await gateway.get_job(JOB)
    assert str(script.requests[0].url) == f"https://proxy.example/gemini/v1beta/{JOB}"
    await gateway.aclose()


async def test_without_a_key_a_transport_of_our_own_gets_a_stand_in(tmp_path: Path) -> None:
    script = Script(answer(sample("06")))
    gateway = open_gateway(tmp_path, script, key="")
    await gateway.get_job(JOB)
    assert script.requests[0].headers["x-goog-api-key"] == "sandbox"
    await gateway.aclose()


async def test_embedding_creates_say_nothing_about_being_experimental(tmp_path: Path) -> None:
    gateway = open_gateway(tmp_path, Script(answer(sample("05"))))
    with warnings.catch_warnings(record=True) as seen:
        await gateway.create_from_file(model="m-1", file_name="files/a", display_name="d", task="embed")
    assert [str(warning.message) for warning in seen] == []
    await gateway.aclose()


async def test_a_real_connection_that_is_refused_is_unavailable(tmp_path: Path) -> None:
    """No transport is given: this is the path that users take, up to the socket."""
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        base_url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        gateway = Gateway.open(settings(tmp_path, base_url=base_url))
        with pytest.raises(Unavailable, match="could not be reached"):
            await gateway.create_from_file(model=MODEL, file_name="files/a", display_name="d", task="generate")
        await gateway.aclose()


def run_python(code: str, *, path: Path | None = None) -> Any:
    """Run code in an interpreter of its own and return the JSON it prints last."""
    prefix = f"import sys; sys.path.insert(0, {str(path)!r})\n" if path else ""
    done = subprocess.run([sys.executable, "-c", prefix + code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


OPENING = """
import json, sys
from pathlib import Path
from gemini_batch_mcp.gemini.developer.gateway import Gateway
from gemini_batch_mcp.settings import Secret, Settings

here = Path.cwd()
settings = Settings(home=here, files=here, roots=(here,), working_directory=here, api_key=Secret("k", "GEMINI_API_KEY"))
"""


def test_opening_a_gateway_does_not_load_the_sdk_and_warming_up_does() -> None:
    seen = run_python(
        OPENING
        + """
import threading
gateway = Gateway.open(settings)
before = "google.genai" in sys.modules
gateway.warm_up()
[thread.join() for thread in threading.enumerate() if thread.daemon]
print(json.dumps([before, "google.genai" in sys.modules]))
"""
    )
    assert seen == [False, True]


def test_warming_up_without_the_sdk_says_nothing() -> None:
    seen = run_python(
        OPENING
        + """
import threading
sys.modules["google.genai"] = None
Gateway.open(settings).warm_up()
[thread.join() for thread in threading.enumerate() if thread.daemon]
print(json.dumps("quiet"))
"""
    )
    assert seen == "quiet"


def test_an_installation_without_the_sdk_is_said_to_be_broken() -> None:
    seen = run_python(
        OPENING
        + """
import anyio
from gemini_batch_mcp.errors import ConfigurationError

sys.modules["google.genai"] = None

async def main():
    try:
        await Gateway.open(settings).list_models()
    except ConfigurationError as error:
        print(json.dumps(str(error)))

anyio.run(main)
"""
    )
    assert "google-genai cannot be loaded" in seen


AIOHTTP = """
# Stands for an installed aiohttp: whatever the SDK does with it beyond naming its exceptions is counted.
used = []
class ClientConnectorError(Exception): pass
class ClientConnectorDNSError(Exception): pass
class ClientOSError(Exception): pass
class ServerDisconnectedError(Exception): pass
class ClientError(Exception): pass
class ServerTimeoutError(Exception): pass
class ClientResponse: pass
class ClientSession:
    def __init__(self, *args, **kwargs): used.append("ClientSession")
class TCPConnector:
    def __init__(self, *args, **kwargs): used.append("TCPConnector")
class ClientTimeout:
    def __init__(self, *args, **kwargs): used.append("ClientTimeout")
"""


def test_a_create_goes_out_once_and_over_our_transport_although_aiohttp_is_installed(tmp_path: Path) -> None:
    (tmp_path / "aiohttp.py").write_text(AIOHTTP)
    seen = run_python(
        OPENING
        + """
import anyio, httpx2, aiohttp
from google.genai import _api_client
from gemini_batch_mcp.errors import OutcomeUnknown

class Cut(httpx2.AsyncBaseTransport):
    requests = 0
    async def handle_async_request(self, request):
        Cut.requests += 1
        raise httpx2.ReadError("cut")

async def main():
    gateway = Gateway.open(settings, transport=Cut())
    try:
        await gateway.create_from_file(model="m", file_name="files/a", display_name="d", task="generate")
    except OutcomeUnknown:
        print(json.dumps([_api_client.has_aiohttp, Cut.requests, aiohttp.used]))

anyio.run(main)
""",
        path=tmp_path,
    )
    assert seen == [True, 1, []]


async def test_the_sdk_repeats_nothing_by_itself(tmp_path: Path) -> None:
    for reply in (httpx2.ReadTimeout("slow"), answer({"error": {"code": 503}}, 503)):
        script = Script(reply)
        gateway = open_gateway(tmp_path, script)
        with pytest.raises(OutcomeUnknown):
            await gateway.create_inline(
                model=MODEL, requests=[{"key": "a", "request": {}}], display_name="d", task="generate"
            )
        assert len(script.requests) == 1
        await gateway.aclose()
