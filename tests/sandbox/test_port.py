"""The sandbox on a port: control over HTTP, other languages, and the service as such."""

import json
import logging
import threading
from pathlib import Path

import httpx2
import pytest

from gemini_batch_mcp.sandbox.app import Sandbox, serve
from gemini_batch_mcp.sandbox.config import ByReads, SandboxConfig
from gemini_batch_mcp.sandbox.models import DEFAULT_MODELS
from support.npm import run_node
from support.services import create_from, download, generate_lines, get_json, reach

pytestmark = pytest.mark.anyio


async def test_everything_a_test_can_do_can_be_done_over_http(sandbox: Sandbox) -> None:
    async with reach(sandbox, "port") as (_, http):
        name = await create_from(http, generate_lines(4), displayName="mine")
        control = f"/sandbox/jobs/{name.removeprefix('batches/')}"
        assert (await http.post(f"{control}/advance")).json()["state"] == "BATCH_STATE_RUNNING"
        assert (await http.post(f"{control}/state", json={"state": "BATCH_STATE_ODD"})).json()[
            "state"
        ] == "BATCH_STATE_ODD"
        reply = await http.post(f"{control}/finish", json={"state": "CANCELLED", "answered_rows": 3})
        assert (reply.json()["state"], reply.json()["succeeded"]) == ("BATCH_STATE_CANCELLED", 3)

        fault = {"route": "batches.get", "status": 503, "times": 2}
        assert (await http.post("/sandbox/faults", json=fault)).json() == {}
        assert (await http.get(f"/v1beta/{name}")).status_code == 503
        shown = (await http.get("/sandbox/state")).json()
        assert shown["creates"] == 1
        assert shown["create_records"][0]["display_name"] == "mine"
        assert shown["faults"][0]["times"] == 1
        assert (await http.delete("/sandbox/faults")).json() == {}
        assert (await get_json(http, name))["done"] is True

        late = {"route": "batches.get", "without": ["output", "response"]}
        portal = {"route": "files.download", "page": "<p>Sign in</p>"}
        short = {"route": "files.download", "short_body": True, "at_line": 1, "at_byte": 9}
        for wanted in (late, portal, short):
            assert (await http.post("/sandbox/faults", json=wanted)).json() == {}
        assert "output" not in (await get_json(http, name))["metadata"]
        path = f"files/batch-{name.removeprefix('batches/')}"
        assert await download(http, path) == b"<p>Sign in</p>"
        assert (await download(http, path)).partition(b"\n")[2] == b'{"respons'

        requests = (await http.get("/sandbox/requests?route=batches.get")).json()["requests"]
        assert [request["status"] for request in requests] == [503, 200, 200]
        assert len((await http.get("/sandbox/requests")).json()["requests"]) == len(sandbox.requests) > 2

        result = f"batch-{name.removeprefix('batches/')}"
        assert (await http.post(f"/sandbox/files/{result}/expire")).status_code == 200
        assert (await http.post(f"/sandbox/files/{result}/expire")).status_code == 404
        assert (await http.post(f"{control}/forget")).status_code == 200
        assert (await http.post(f"{control}/forget")).status_code == 404
        assert (await http.get(f"/v1beta/{name}")).status_code == 404


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("faults", {"route": "nowhere"}),
        ("faults", {"route": "files.get", "when": "later"}),
        ("faults", {}),
        ("faults", []),
        ("jobs/x/finish", {"speed": 5}),
        ("jobs/x/state", {}),
    ],
)
async def test_control_refuses_what_makes_no_sense(sandbox: Sandbox, path: str, body: object) -> None:
    async with reach(sandbox, "process") as (_, http):
        reply = await http.post(f"/sandbox/{path}", json=body)
        assert reply.status_code == 400
        assert sandbox.requests == ()


def test_a_service_says_where_it_listens_and_logs_no_request(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with sandbox.listening() as first, sandbox.listening() as second:
        assert first != second
        for base_url in (first, second):
            assert httpx2.get(f"{base_url}/v1beta/models?key=very-secret").status_code == 200
    ours = [record for record in caplog.records if record.name.startswith(("uvicorn", "gemini_batch_mcp"))]
    assert not any("very-secret" in record.getMessage() for record in ours)
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{first}/v1beta/models")


def test_a_service_can_listen_on_ipv6(sandbox: Sandbox) -> None:
    try:
        with sandbox.listening("::1") as base_url:
            assert base_url.startswith("http://[::1]:")
            assert httpx2.get(f"{base_url}/v1beta/models?key=k").status_code == 200
    except OSError:
        pytest.skip("this machine has no IPv6")


def test_a_port_that_is_taken_is_an_error(sandbox: Sandbox) -> None:
    with sandbox.listening() as base_url, pytest.raises(OSError):
        serve(sandbox, port=int(base_url.rsplit(":", 1)[1]))


def test_serving_goes_on_until_it_is_stopped(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """`serve` blocks, so it runs in a thread here; uvicorn is told to stop as an interrupt tells it."""
    import uvicorn

    servers: list[uvicorn.Server] = []
    ready = threading.Event()
    urls: list[str] = []
    start = uvicorn.Server.startup

    async def startup(server: uvicorn.Server, sockets: object = None) -> None:
        servers.append(server)
        await start(server, sockets)  # type: ignore[arg-type]  # handed through

    def on_ready(url: str) -> None:
        urls.append(url)
        ready.set()

    monkeypatch.setattr(uvicorn.Server, "startup", startup)
    thread = threading.Thread(target=serve, args=(sandbox,), kwargs={"on_ready": on_ready})
    thread.start()
    assert ready.wait(10)
    assert httpx2.get(f"{urls[0]}/v1beta/models?key=k").status_code == 200
    servers[0].should_exit = True
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.npm
def test_the_javascript_sdk_goes_through_the_whole_life_of_a_batch(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    config = SandboxConfig(pace=ByReads(2))
    with Sandbox(tmp_path / "service", config) as sandbox, sandbox.listening() as base_url:
        printed = json.loads(run_node("sdk.mjs", base_url, str(work), "25"))
        counted = {"jobs": 4, "files": 4, "totalTokens": 4, "models": len(DEFAULT_MODELS)}
        assert printed == {"rows": printed["rows"], **counted}
        assert printed["rows"] > 2000
        assert sandbox.creates == 5
        assert sandbox.unknown_requests == ()
