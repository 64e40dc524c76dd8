"""Fixtures that every test may use. Tests enter by the front door: a real MCP client, the real SDK, the sandbox."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import OnCommand, SandboxConfig
from gemini_batch_mcp.settings import Secret, Settings
from support.conversation import Conversation, Run, converse, process_env


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The one directory that the server may read and write."""
    directory = tmp_path / "data"
    directory.mkdir()
    return directory


@pytest.fixture
def settings(tmp_path: Path, data: Path) -> Settings:
    return Settings(
        home=tmp_path / "home",
        files=tmp_path / "home" / "files",
        roots=(data,),
        working_directory=data,
        api_key=Secret("test-key-do-not-show", "GEMINI_API_KEY"),
        poll_seconds=0.01,
        reconcile_seconds=0.05,
    )


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """A Gemini whose jobs move on command. A request that it does not know fails the test."""
    with Sandbox(tmp_path / "service", SandboxConfig(pace=OnCommand())) as service:
        yield service
        assert service.unknown_requests == ()


@pytest.fixture(params=["legacy", "auto"])
def era(request: pytest.FixtureRequest) -> str:
    """Both protocol eras: 2025-11-25 with its handshake, and 2026-07-28 without."""
    return str(request.param)


@pytest.fixture
async def talk(settings: Settings, sandbox: Sandbox, era: str) -> AsyncIterator[Conversation]:
    """An open conversation with a server on the sandbox."""
    async with converse(settings, sandbox, era) as conversation:
        yield conversation


@pytest.fixture
def run(tmp_path: Path, data: Path) -> Run:
    """Runs a command in the data directory, as a person does, by default in the sandbox."""

    def command(
        *arguments: str, env: dict[str, str] | None = None, sandbox: bool = True
    ) -> subprocess.CompletedProcess[str]:
        flags = ["--sandbox"] if sandbox else []
        settings = process_env(GEMINI_BATCH_HOME=str(tmp_path / "home"), GEMINI_BATCH_POLL_SECONDS="0.2")
        return subprocess.run(
            [sys.executable, "-m", "gemini_batch_mcp", *flags, *arguments],
            capture_output=True,
            text=True,
            cwd=data,
            env=settings | (env or {}),
            timeout=90,
            stdin=subprocess.DEVNULL,
        )

    return command
