"""Two servers on one state directory, overlapping orders at once: what was answered is taken, what is new is sent."""

import csv
import json
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import ByTime, SandboxConfig
from support.conversation import process_env, spoken
from support.extent import in_part, long, tries

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(1800), in_part]

SCHEDULES: Final = tries(60, 1)
#: Orders of each server in a schedule, one after the other.
ROUNDS: Final = tries(3, 2)
SERVERS: Final = 2
#: Two fields, so that no two texts are answered alike.
SCHEMA: Final = {
    "type": "object",
    "properties": {"label": {"type": "string"}, "why": {"type": "string"}},
    "required": ["label", "why"],
}
ORDER: Final[dict[str, Any]] = {"prompt": "Label: {{text}}", "response_schema": SCHEMA, "key_column": "id"}
_ROWS: Final = "SELECT key, status, text, answered_by, cost_usd FROM results ORDER BY row"


@dataclass
class Place:
    """The service, where tables are written, the servers, and what was answered so far: each text with its answer."""

    service: Sandbox
    data: Path
    servers: list[Client]
    answers: dict[str, str] = field(default_factory=dict)
    #: For each text the batches that it was sent for.
    senders: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    async def call(self, server: int, tool: str, **arguments: Any) -> dict[str, Any]:
        answer = await self.servers[server].call_tool(tool, arguments)
        assert not answer.is_error, spoken(answer)
        return dict(answer.structured_content or {})

    def table(self, name: str, texts: Sequence[str]) -> str:
        with (self.data / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("id", "text"), *((f"r{n}", text) for n, text in enumerate(texts))])
        return name

    def sent(self, batch: str) -> list[str]:
        """What has come to the service as requests of a batch: the text of each."""
        found: list[str] = []
        for record in self.service.create_records:
            if f"[{batch}/" in record.display_name:
                job = self.service.state.job(record.name)
                assert job is not None
                lines = self.service.state.file_path(job.input_file).read_bytes().splitlines()
                texts = [json.loads(line)["request"]["contents"][-1]["parts"][-1]["text"] for line in lines]
                found += [text.removeprefix("Label: ") for text in texts]
        return found


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Sandbox]:
    with Sandbox(tmp_path / "service", SandboxConfig(pace=ByTime(0.2))) as found:
        yield found
        assert found.unknown_requests == ()


@long
async def test_overlapping_orders_of_two_servers_send_what_is_new_once_each_and_say_who_answered(
    tmp_path: Path, data: Path, service: Sandbox
) -> None:
    with service.listening() as base_url:
        env = process_env(
            GEMINI_API_KEY="test-key-do-not-show",
            GOOGLE_GEMINI_BASE_URL=base_url,
            GEMINI_BATCH_HOME=str(tmp_path / "home"),
            GEMINI_BATCH_POLL_SECONDS="0.1",
            GEMINI_BATCH_RECONCILE_SECONDS="0.2",
            GEMINI_BATCH_CONFIRM_ABOVE_USD="1000",
        )
        server = StdioServerParameters(command=sys.executable, args=["-m", "gemini_batch_mcp"], env=env, cwd=data)
        async with AsyncExitStack() as stack:
            clients = [Client(stdio_client(server), mode="auto") for _ in range(SERVERS)]
            place = Place(service, data, [await stack.enter_async_context(client) for client in clients])
            for seed in range(SCHEDULES):
                await _live_through(place, seed)


async def _live_through(place: Place, seed: int) -> None:
    chance = random.Random(seed)
    # Some texts were answered in schedules before, most are new.
    pool = [f"text {seed}.{n}" for n in range(16)] + chance.sample(sorted(place.answers), min(6, len(place.answers)))
    for round_number in range(ROUNDS):
        sizes = [chance.randrange(4, 12) for _ in range(SERVERS)]
        tables = [chance.choices(pool, k=size) for size in sizes]
        if chance.random() < 0.3:
            tables[1] = list(tables[0])
        names = [place.table(f"rows-{seed}-{round_number}-{n}.csv", texts) for n, texts in enumerate(tables)]
        for route in ("batches.create", "files.start", "batches.get", "files.download"):
            if chance.random() < 0.3:
                place.service.delay_next(route, chance.uniform(0.01, 0.3))
        before = set(place.answers)
        found: list[tuple[str, list[Any]]] = [("", [])] * SERVERS

        async def order(number: int, name: str, found: list[tuple[str, list[Any]]] = found) -> None:
            batch = (await place.call(number, "create_batch", source=name, **ORDER))["batch_id"]
            while not (await place.call(number, "check_status", batch=batch, wait_seconds=20))["done"]:
                pass
            read = await place.call(number, "get_results", batch=batch)
            assert read["integrity_ok"] and read["summary"]["missing"] == 0, read
            # Whoever asks, in whichever server.
            rows = (await place.call(1 - number, "query_results", batch=batch, sql=_ROWS))["rows"]
            found[number] = (batch, rows)

        async with anyio.create_task_group() as tasks:
            for number, name in enumerate(names):
                tasks.start_soon(order, number, name)
        place.service.faults.clear()
        for batch in {batch for batch, _ in found}:
            for text in place.sent(batch):
                place.senders[text].add(batch)
        for (batch, rows), texts in zip(found, tables, strict=True):
            _check(place, batch, rows, texts, before, f"seed {seed}, round {round_number}: {batch} {rows}")
        assert (found[0][0] == found[1][0]) == (tables[0] == tables[1])


def _check(place: Place, batch: str, rows: list[Any], texts: list[str], before: set[str], told: str) -> None:
    assert [row[0] for row in rows] == [f"r{n}" for n in range(len(texts))], told
    assert all(status == "ok" for _, status, *_ in rows), told
    taken = {text for text, (_, _, _, by, _) in zip(texts, rows, strict=True) if by}
    # What was answered before both orders is taken; while they stand side by side, either may be answered first.
    assert before & set(texts) <= taken, told
    assert Counter(place.sent(batch)) == Counter(set(texts) - taken), told
    paid = Counter[str]()
    for text, (_, _, answer, by, cost_usd) in zip(texts, rows, strict=True):
        assert place.answers.setdefault(text, answer) == answer, f"{text!r}: {told}"
        assert not by or by in place.senders[text] - {batch}, f"{text!r}: {told}"
        paid[text] += cost_usd > 0
    assert paid == {text: int(text not in taken) for text in texts}, told
    assert len(set(place.answers.values())) == len(place.answers), told
