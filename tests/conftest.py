"""Fixtures that every test may use. Tests enter by the front door: a real MCP client, the real SDK, the sandbox."""

import atexit
import gc
import subprocess
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import hypothesis
import pytest

from gemini_batch_mcp.results.query import _process
from gemini_batch_mcp.results.query._process import QueryProcess
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import ByTime, OnCommand, SandboxConfig
from gemini_batch_mcp.settings import Secret, Settings
from support.commands import Commands
from support.conversation import Conversation, Run, converse, process_env
from support.extent import IS_FULL, IS_LONG, in_part, long
from support.loading import (
    share_compiled_sql,
    share_definitions,
    share_empty_ledgers,
    share_query_processes,
    share_reading,
)
from support.run.cost import Cost, measure_workers
from support.run.failures import Failures
from support.services import MovedClock

#: Both protocol eras: 2025-11-25 with its handshake, and 2026-07-28 without.
ERAS = ("legacy", "auto")

# How long an example takes says something of the machine and its other work, so nothing is judged by it.
# The same examples in every run: what chance finds belongs in the complete one, which may find something new.
hypothesis.settings.register_profile("in any time", deadline=None)
hypothesis.settings.register_profile("the same each time", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("in any time" if IS_FULL else "the same each time")

measure_workers()
share_compiled_sql()
share_definitions()
share_empty_ledgers()
share_reading()


def pytest_configure(config: pytest.Config) -> None:
    """Tell of failures at once, and at the end what the run has cost."""
    config.pluginmanager.register(Failures(config))
    config.pluginmanager.register(Cost())


def pytest_collection_finish() -> None:
    """Take what is loaded by now out of the garbage collector's sight: it stays, and to look through it takes 0.1 s."""
    # After tests of processes for queries have taken the class as it is by its name.
    share_query_processes()
    gc.collect()
    gc.freeze()
    # At the end it is the collector's again, as libraries look then for what they have left behind.
    atexit.register(gc.unfreeze)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out the cases that have their turn in the other era, and those beyond the few of a test marked so."""
    if not IS_FULL:
        items[:] = [item for item in items if not isinstance(item, pytest.Function) or _is_its_turn(item)]
    cases: defaultdict[tuple[Path, str], list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("few") is not None:
            item.add_marker(in_part)
            cases[item.path, item.name.partition("[")[0]].append(item)
    if not IS_FULL:
        left_out = {item for found in cases.values() for item in _beyond_the_few(found)}
        items[:] = [item for item in items if item not in left_out]
    if not IS_LONG:
        items[:] = [item for item in items if item.get_closest_marker("long") is None]


def _beyond_the_few(cases: list[pytest.Item]) -> set[pytest.Item]:
    """Return those that a run of a part leaves out; those of `make long` are marked."""
    (mark,) = cases[0].iter_markers("few")
    count, more = mark.args
    few, taken = _spread(cases, count), _spread(cases, more)
    for item in taken - few:
        item.add_marker(long)
    return set(cases) - few - taken


def _spread(cases: list[pytest.Item], count: int) -> set[pytest.Item]:
    return {cases[number * len(cases) // count] for number in range(count)}


def _is_its_turn(item: pytest.Function) -> bool:
    if item.get_closest_marker("both_eras") is None or not any(item.iter_markers("parametrize")):
        return True
    era = item.callspec.params.get("era")
    others = item.name.replace(str(era), "", 1)
    return era is None or era == ERAS[zlib.crc32(others.encode()) % len(ERAS)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give `era` to a test: both, where the protocol is what it is about; else one of them, by the test's name.

    The desk behind the protocol is the same in both eras, so that half of the tests hold each of them; and so do half
    of the cases of a test that is about the protocol, where it has cases. A journey in its other era is long,
    and what is marked so.
    """
    if "era" not in metafunc.fixturenames:
        return
    number = zlib.crc32(metafunc.definition.name.encode()) % len(ERAS)
    if mark := metafunc.definition.get_closest_marker("both_eras"):
        has_cases = any(metafunc.definition.iter_markers("parametrize"))
        is_long = "long" in mark.args or "journeys" in metafunc.definition.path.parts
        of_other = [in_part] if has_cases else [long] if is_long else []
        of_its_own = [in_part] if has_cases else []
        marks = {era: of_its_own if era == ERAS[number] else of_other for era in ERAS}
        metafunc.parametrize("era", [pytest.param(era, marks=marks[era]) for era in ERAS])
        return
    eras = ERAS if IS_FULL else ERAS[number : number + 1]
    metafunc.parametrize("era", [pytest.param(era, marks=in_part) for era in eras])


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
def fresh_query_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes for queries as a server has them: started for it, and ended with it."""
    monkeypatch.setattr(_process, "QueryProcess", QueryProcess)


@pytest.fixture
def service_clock() -> MovedClock:
    """The clock of the sandbox: moved back before a job ends, it ended that long ago."""
    return MovedClock()


@pytest.fixture
def sandbox(tmp_path: Path, service_clock: MovedClock) -> Iterator[Sandbox]:
    """A Gemini whose jobs move on command. A request that it does not know fails the test."""
    with Sandbox(tmp_path / "service", SandboxConfig(pace=OnCommand(), clock_ns=service_clock)) as service:
        yield service
        assert service.unknown_requests == ()


@pytest.fixture
async def talk(settings: Settings, sandbox: Sandbox, era: str) -> AsyncIterator[Conversation]:
    """An open conversation with a server on the sandbox."""
    async with converse(settings, sandbox, era) as conversation:
        yield conversation


@pytest.fixture
def at_port(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The variables of a process whose Gemini is on a port, where a job has ended when it is first looked at."""
    with (
        Sandbox(tmp_path / "prompt-service", SandboxConfig(pace=ByTime(0))) as service,
        service.listening() as base_url,
    ):
        yield {
            "GEMINI_API_KEY": "test-key-do-not-show",
            "GOOGLE_GEMINI_BASE_URL": base_url,
            "GEMINI_BATCH_CONFIRM_ABOVE_USD": "1000",
        }
        assert service.unknown_requests == ()


@pytest.fixture
def run_at_port(run: Run, at_port: dict[str, str]) -> Run:
    """Runs a command in the data directory, with a Gemini that lets nobody wait."""
    return partial(run, sandbox=False, env=at_port)


@pytest.fixture(scope="session")
def commands() -> Iterator[Commands]:
    """What runs command lines without loading the product for each of them."""
    found = Commands()
    yield found
    found.close()


@pytest.fixture
def run(tmp_path: Path, data: Path, commands: Commands) -> Run:
    """Runs a command in the data directory, as a person does, by default in the sandbox."""

    def command(
        *arguments: str, env: dict[str, str] | None = None, sandbox: bool = True
    ) -> subprocess.CompletedProcess[str]:
        flags = ["--sandbox"] if sandbox else []
        settings = process_env(GEMINI_BATCH_HOME=str(tmp_path / "home"), GEMINI_BATCH_POLL_SECONDS="0.2")
        return commands.run([*flags, *arguments], settings | (env or {}), data)

    return command
