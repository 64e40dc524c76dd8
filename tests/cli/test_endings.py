"""A process ends when it is told to, and a query with its caller: a moment later nothing of ours runs.

The next start then goes on. Linux only, as it is asked there which processes there are.
"""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import ByTime, SandboxConfig
from gemini_batch_mcp.settings import Secret, Settings
from support.conversation import converse, process_env, request_file
from support.extent import IS_FULL, in_part, long, some
from support.servers import STALL, ServerProcess, eventually, is_alive, server_process

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

#: The promise is a second; the rest is for a machine that has other things to do.
SECONDS: Final = 1.0 if IS_FULL else 10.0
ENDLESS: Final = "SELECT count(*) FROM range(1000000000000)"
KEY: Final = "test-key-do-not-show"

Ways = Callable[[ServerProcess, int], None]


def _cancel(server: ServerProcess, call: int) -> None:
    server.tell("notifications/cancelled", {"requestId": call})


def _close(server: ServerProcess, call: int) -> None:
    assert server.process.stdin is not None
    server.process.stdin.close()


def _send(number: int) -> Ways:
    return lambda server, call: server.process.send_signal(number)


WAYS: Final[dict[str, Ways]] = {
    "cancelled call": _cancel,
    "closed stdin": _close,
    "SIGTERM": _send(signal.SIGTERM),
    "SIGINT": _send(signal.SIGINT),
    "SIGKILL": _send(signal.SIGKILL),
}
WORKS: Final = ("query", "download", "upload", "build")
#: Of the grid, what is run every time: each way and each work, and both ways in which a query outlived its server.
EVERY_TIME: Final = {
    ("cancelled call", "query"),
    ("closed stdin", "query"),
    ("SIGTERM", "upload"),
    ("SIGINT", "build"),
    ("SIGKILL", "query"),
    ("SIGTERM", "download"),
}
GRID: Final = [(way, work) for way in WAYS for work in WORKS if IS_FULL or (way, work) in EVERY_TIME]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[Sandbox, str]]:
    with (
        Sandbox(tmp_path / "service", SandboxConfig(pace=ByTime(0))) as sandbox,
        sandbox.listening() as base_url,
    ):
        yield sandbox, base_url


@in_part
@pytest.mark.parametrize(("way", "work"), some(GRID, 1))
async def test_nothing_runs_a_moment_later_and_the_next_start_goes_on(
    tmp_path: Path, data: Path, service: tuple[Sandbox, str], way: str, work: str
) -> None:
    sandbox, base_url = service
    home, source, stalled = tmp_path / "home", request_file(data), tmp_path / "stalled"
    env = {"GEMINI_API_KEY": KEY, "GOOGLE_GEMINI_BASE_URL": base_url, "GEMINI_BATCH_CONFIRM_ABOVE_USD": "1000"}
    if work == "build":
        env[STALL] = str(stalled)
    with server_process(home, data, env) as server:
        call = _begin(server, sandbox, work, source)
        busy = server.busy_child() if work == "query" else 0
        if work == "build":
            eventually(stalled.exists)
        elif work != "query":
            route = "files.download" if work == "download" else "files.start"
            eventually(lambda: any(request.route == route for request in sandbox.requests))
        family = server.family
        assert len(family) > 1 or work != "query"

        WAYS[way](server, call)
        if way == "cancelled call":
            # The server goes on, and what it does for a batch by itself goes on with it.
            eventually(lambda: not is_alive(busy), SECONDS)
            assert server.ask("tools/list", {})["result"]["tools"]
        else:
            eventually(lambda: not any(map(is_alive, family)), SECONDS)
            assert server.process.wait() == {"closed stdin": 0, "SIGKILL": -9}.get(way, 128 + _number(way))
    assert b"Traceback" not in server.errors, server.errors

    settings = Settings(
        home=home,
        files=home / "files",
        roots=(data,),
        working_directory=data,
        api_key=Secret(KEY, "GEMINI_API_KEY"),
        base_url=base_url,
        poll_seconds=0.05,
    )
    async with converse(settings, None) as talk:
        created = await talk.call("create_batch", source=source)
        await talk.call("check_status", batch=created["batch_id"], wait_seconds=30)
        answer = await talk.call("query_results", batch=created["batch_id"], sql="SELECT count(*) FROM results")
        assert answer["rows"] == [[3]]
    assert sandbox.creates == 1


def _begin(server: ServerProcess, sandbox: Sandbox, work: str, source: str) -> int:
    """Have the server do something that takes very long; returns the call."""
    if work == "upload":
        sandbox.delay_next("files.start", 20, times=1)
        return server.begin("tools/call", {"name": "create_batch", "arguments": {"source": source}})
    if work == "download":
        sandbox.delay_next("files.download", 20, times=1)
    batch = server.call("create_batch", source=source)["batch_id"]
    arguments: dict[str, Any] = {"batch": batch}
    if work == "query":
        server.call("check_status", batch=batch, wait_seconds=30)
        server.call("get_results", batch=batch)
        arguments["sql"] = ENDLESS
    else:
        server.call("check_status", batch=batch, wait_seconds=0)
    name = "query_results" if work == "query" else "get_results"
    return server.begin("tools/call", {"name": name, "arguments": arguments})


def _number(way: str) -> int:
    return int(getattr(signal, way)) if way.startswith("SIG") else 0


@pytest.mark.parametrize("transport", ["stdio", "http"])
@long
def test_ctrl_c_on_a_terminal_ends_a_server_at_the_first_press_and_says_so(
    tmp_path: Path, data: Path, transport: str
) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "gemini_batch_mcp", "--sandbox", "serve", "--transport", transport, "--port", "0"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=data,
        env=process_env(GEMINI_BATCH_HOME=str(tmp_path / "home")),
        start_new_session=True,
        # The terminal is this process's own: its keys reach it as they reach a person's command.
        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    )
    os.close(theirs)
    shown = b""
    try:
        # The ledger is there once all is loaded: the start warms up.
        eventually(lambda: (tmp_path / "home" / "sandbox" / "ledger.sqlite3").exists())
        os.write(ours, b"\x03")
        eventually(lambda: process.poll() is not None, SECONDS)
        while True:
            try:
                piece = os.read(ours, 65_536)
            except OSError:
                break
            shown += piece
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert process.returncode == 128 + signal.SIGINT
    said = [line for line in shown.splitlines() if not line.startswith((b"Serving MCP", b"For your client"))]
    assert b"".join(said).replace(b"^C", b"").replace(b"\x1b[?25h", b"").strip() == b"Interrupted.", shown


def test_a_server_whose_answers_nobody_reads_any_more_ends_as_after_its_input(tmp_path: Path) -> None:
    """A host that was killed closes both ends, the one that is read from perhaps first: that is no bug to tell of."""
    env = process_env(GEMINI_BATCH_SANDBOX="1", GEMINI_BATCH_HOME=str(tmp_path))
    command = [sys.executable, "-m", "gemini_batch_mcp"]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, env=env, cwd=tmp_path, **pipes) as server:
        assert server.stdin is not None and server.stdout is not None and server.stderr is not None
        server.stdout.close()
        server.stdin.write(b"not a message\n")
        server.stdin.flush()
        assert (server.wait(30), server.stderr.read()) == (0, b"")
