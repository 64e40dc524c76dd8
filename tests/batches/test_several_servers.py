"""Three servers on one state directory, asked for different things at once: no job is lost, no answer is untrue."""

import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp_types import CallToolResult

from gemini_batch_mcp.batches.ledger.ledger import Ledger
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import ByTime, SandboxConfig
from support.conversation import line, process_env, spoken, until, write_lines
from support.extent import in_part, long, tries

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(1800), in_part]

SCHEDULES = tries(200, 1)
SERVERS = 3
_TAG = re.compile(r"\[[^\[\]]+\]$")
#: What is not a sentence of ours.
_BROKEN = ("unexpected error", "Traceback", "unforeseen", "Error executing", "sqlite3", "contradicts another one")

ACTIONS = ("order", "retry", "cancel", "delete", "collect", "save", "query")


@dataclass(frozen=True)
class Asked:
    """One call and its answer, with the times by a clock that all share."""

    action: str
    batch: str
    answer: CallToolResult
    began: float
    ended: float

    @property
    def content(self) -> dict[str, Any]:
        return dict(self.answer.structured_content or {})


class Place:
    """The service, the state directory and the servers of all schedules."""

    def __init__(self, service: Sandbox, data: Path, home: Path, servers: list[Client]) -> None:
        self.service, self.data, self.home, self.servers = service, data, home, servers

    async def ask(self, server: int, action: str, batch: str, source: str) -> Asked:
        tool, arguments = self._call(action, batch, source)
        began = anyio.current_time()
        answer = await self.servers[server].call_tool(tool, arguments)
        return Asked(action, batch, answer, began, anyio.current_time())

    def _call(self, action: str, batch: str, source: str) -> tuple[str, dict[str, Any]]:
        match action:
            case "order":
                return "create_batch", {"source": source}
            case "retry":
                return "retry_failed", {"batch": batch, "include": ["failed"]}
            case "cancel":
                return "cancel_batch", {"batch": batch}
            case "delete":
                return "delete_batch", {"batch": batch, "confirm": True}
            case "collect":
                return "get_results", {"batch": batch}
            case "save":
                return "get_results", {"batch": batch, "save_to": f"{batch}.csv"}
            case _:
                return "query_results", {"batch": batch, "sql": "SELECT status, count(*) FROM results GROUP BY 1"}

    def ledger_jobs(self) -> dict[str, list[str]]:
        """The names of the jobs at Gemini by batch."""
        ledger = Ledger.open(self.home / "ledger.sqlite3")
        try:
            found = {batch_id: ledger.batch(batch_id) for batch_id in ledger.batch_ids(limit=100_000)}
        finally:
            ledger.close()
        return {batch_id: [job.name for job in batch.jobs] for batch_id, batch in found.items() if batch is not None}

    def unaccounted(self) -> list[str]:
        """The jobs at Gemini that the ledger does not have."""
        known = {name for names in self.ledger_jobs().values() for name in names}
        return [
            record.display_name
            for record in self.service.create_records
            if self.service.state.job(record.name) is not None and record.name not in known
        ]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Sandbox]:
    config = SandboxConfig(pace=ByTime(0.4), quota_retry_seconds=0, cancel_seconds=0.05)
    with Sandbox(tmp_path / "service", config) as found:
        yield found
        assert found.unknown_requests == ()


@long
async def test_whatever_three_servers_are_asked_at_once_no_job_is_lost_and_no_answer_is_untrue(
    tmp_path: Path, data: Path, service: Sandbox
) -> None:
    home = tmp_path / "home"
    with service.listening() as base_url:
        env = process_env(
            GEMINI_API_KEY="test-key-do-not-show",
            GOOGLE_GEMINI_BASE_URL=base_url,
            GEMINI_BATCH_HOME=str(home),
            GEMINI_BATCH_POLL_SECONDS="0.05",
            GEMINI_BATCH_RECONCILE_SECONDS="0.2",
            GEMINI_BATCH_CONFIRM_ABOVE_USD="1000",
        )
        server = StdioServerParameters(command=sys.executable, args=["-m", "gemini_batch_mcp"], env=env, cwd=data)
        async with AsyncExitStack() as stack:
            clients = [Client(stdio_client(server), mode="auto") for _ in range(SERVERS)]
            place = Place(service, data, home, [await stack.enter_async_context(client) for client in clients])
            for seed in range(SCHEDULES):
                await _live_through(place, seed)


async def _live_through(place: Place, seed: int) -> None:
    chance = random.Random(seed)
    texts = ["hello", "hello [[sandbox:error:13]] [[sandbox:once]]", "hello [[sandbox:error:13]]"]
    source = write_lines(
        place.data / f"rows-{seed}.jsonl", [line(f"k{n}", f"{text} {seed}") for n, text in enumerate(texts)]
    )
    first = await place.ask(0, "order", "", source)
    assert not first.answer.is_error, spoken(first.answer)
    batch = first.content["batch_id"]
    if chance.random() < 0.7:
        await place.servers[0].call_tool("check_status", {"batch": batch, "wait_seconds": 20})
    if chance.random() < 0.5:
        await place.servers[1].call_tool("get_results", {"batch": batch})
    for _ in range(2):
        _disturb(place.service, chance)
        asked: list[Asked] = []

        async def ask(number: int, action: str, asked: list[Asked] = asked) -> None:
            asked.append(await place.ask(number, action, batch, source))

        # Every pair comes up, in every order; the third one is whatever chance says.
        async with anyio.create_task_group() as tasks:
            for number, action in enumerate(chance.sample(ACTIONS, SERVERS)):
                tasks.start_soon(ask, number, action)
        place.service.faults.clear()
        await _check(place, seed, asked)


def _disturb(service: Sandbox, chance: random.Random) -> None:
    for route in (
        "batches.create",
        "batches.get",
        "batches.cancel",
        "batches.delete",
        "batches.list",
        "files.download",
    ):
        if chance.random() < 0.3:
            service.delay_next(route, chance.uniform(0.01, 0.3))
    if chance.random() < 0.2:
        service.fail_next("batches.create", status=chance.choice([400, 429, 500]), when="after")
    if chance.random() < 0.1:
        service.cut_next("batches.create", when=chance.choice(["before", "after"]))


async def _check(place: Place, seed: int, asked: list[Asked]) -> None:
    def told() -> str:
        return "\n".join([f"seed {seed}", *(f"{one.action} {one.batch}: {spoken(one.answer)}" for one in asked)])

    for one in asked:
        assert not any(word in spoken(one.answer) for word in _BROKEN), told()
    # What is in the air comes down by itself: a create on its way, a look that is due.
    with anyio.move_on_after(15):
        await until(lambda: not place.unaccounted())
    assert not place.unaccounted(), told()
    tags = Counter(_TAG.search(record.display_name)[0] for record in place.service.create_records)  # type: ignore[index]  # each of our creates carries its tag
    assert not [tag for tag, times in tags.items() if times > 1], told()
    kept = place.ledger_jobs()
    deleted = {one.batch for one in asked if one.action == "delete" and one.content.get("deleted", {}).get("local")}
    for one in asked:
        if one.answer.is_error:
            continue
        if one.action == "delete" and one.batch in deleted:
            assert one.batch not in kept, told()
            assert not (place.home / "batches" / one.batch).exists(), told()
            assert not [
                record
                for record in place.service.create_records
                if f"[{one.batch}/" in record.display_name and place.service.state.job(record.name) is not None
            ], told()
            continue
        batch = one.content.get("batch_id", one.batch)
        assert batch in kept or batch in deleted, told()
        if one.action in ("order", "retry") and batch in kept:
            assert {job["name"] for job in one.content["jobs"] if job["name"]} <= set(kept[batch]), told()
        if one.action == "order" and one.content["reused"] and batch in deleted:
            (delete,) = (other for other in asked if other.action == "delete")
            assert one.began < delete.ended, told()
        if one.action in ("collect", "save"):
            assert one.content["integrity_ok"], told()
            assert one.content["summary"]["missing"] == 0, told()
