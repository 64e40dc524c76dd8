"""A row whose answer is anything at all costs no other row its answer, no call its reply, and no server its time."""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.domain import RowStatus
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from results.mutations import SCHEMA, answer_line, mutated, structured
from support.conversation import Conversation, answers_of, converse, created, desk_of, spoken
from support.extent import IS_FULL, in_part, tries
from support.services import MovedClock

pytestmark = pytest.mark.anyio

#: One in so many lines is mutated; the others are good.
NEIGHBOURS = 50
#: What a call may take of the processor, the service's part and the test's included.
MOST_SECONDS = 2.0
TWO_DAYS = 2 * 86_400.0
#: Where the seeds of the four runs begin.
SEEDS = {("legacy", False): 0, ("legacy", True): 10**6, ("auto", False): 2 * 10**6, ("auto", True): 3 * 10**6}
STATUSES = [status.value for status in RowStatus]


@dataclass
class Calls:
    """Calls tools, and keeps how many seconds of the processor each kind took at the most."""

    talk: Conversation
    slowest: dict[str, float] = field(default_factory=dict)

    async def __call__(self, name: str, tool: str, **arguments: Any) -> dict[str, Any]:
        start = time.process_time()
        result = await self.talk.raw(tool, **arguments)
        while "Make the same call again in half a minute." in spoken(result):  # a machine that is busy with others
            result = await self.talk.raw(tool, **arguments)
        seconds = time.process_time() - start
        self.slowest[name] = max(seconds, self.slowest.get(name, 0.0))
        assert seconds < MOST_SECONDS or not IS_FULL, f"{name} took {seconds:.1f} s"
        assert not result.is_error, spoken(result)
        assert len(spoken(result)) < 20_000
        assert result.structured_content is not None
        return dict(result.structured_content)


@dataclass(frozen=True)
class Order:
    """A batch that has ended, whose answers can be given again and again."""

    batch: str
    keys: list[str]
    has_schema: bool

    def good(self, number: int) -> str:
        return structured(number) if self.has_schema else f"fine {number} \u2028 \U0001f600"


def deliver(sandbox: Sandbox, settings: Settings, order: Order, lines: list[bytes]) -> None:
    """Let Gemini have these answers, and the server none."""
    for path in answers_of(settings, order.batch):
        path.unlink()
    (name,) = created(sandbox)
    result = sandbox.state.file(f"files/batch-{name.removeprefix('batches/')}")
    assert result is not None
    content = b"".join(lines)
    sandbox.state.file_path(result.name).write_bytes(content)
    sandbox.state.save(replace(result, size_bytes=len(content)))


def lines_for(order: Order, seeds: Iterator[int]) -> list[bytes]:
    """Return the answers in order: every so many-th is mutated, each at another place among its neighbours."""
    lines = []
    for number, key in enumerate(order.keys):
        if key.startswith("odd"):
            lines.append(mutated(next(seeds), key) + b"\n")
        else:
            lines.append(answer_line(key, {"text": order.good(number)}) + b"\n")
    return lines


def saved_rows(path: str) -> dict[str, dict[str, Any]]:
    rows = [json.loads(text) for text in Path(path).read_text(encoding="utf-8").split("\n")[:-1]]
    assert len({row["key"] for row in rows}) == len(rows)
    return {row["key"]: row for row in rows}


async def look(call: Calls, order: Order, data: Path) -> None:
    """Collect the batch and read it in the ways that are quick; the good rows are as they were sent."""
    summary = (await call("collect", "get_results", batch=order.batch))["summary"]
    odd = [key for key in order.keys if key.startswith("odd")]
    assert summary["expected"] == len(order.keys)
    assert summary["succeeded"] >= len(order.keys) - len(odd)
    saved = await call("jsonl", "get_results", batch=order.batch, save_to=str(data / "rows.jsonl"))
    rows = saved_rows(saved["saved"]["path"])
    assert list(rows) == order.keys
    for number, key in enumerate(order.keys):
        if key not in odd:
            assert (rows[key]["status"], rows[key]["text"], rows[key]["error"]) == ("ok", order.good(number), None), key
            assert not order.has_schema or rows[key]["json"] == json.loads(order.good(number))
        else:
            assert rows[key]["status"] in STATUSES
            assert rows[key]["status"] != "failed" or rows[key]["error"], key
    for path in data.glob("rows*"):
        path.unlink()


async def look_closely(call: Calls, order: Order, data: Path, settings: Settings, sandbox: Sandbox) -> None:
    """Read the batch in every way there is."""
    batch = order.batch
    cursor, shown = "", 0
    for view in ("failures", "rows"):
        while True:
            page = await call(view, "get_results", batch=batch, view=view, limit=200, cursor=cursor)
            shown += len(page["rows"])
            if not (cursor := page["next_cursor"]):
                break
    assert shown >= len(order.keys)
    odd = [key for key in order.keys if key.startswith("odd")]
    await call("keys", "get_results", batch=batch, view="rows", keys=odd[:50])
    for file_format in ("csv", "parquet"):
        path = data / f"rows.{file_format}"
        await call(file_format, "get_results", batch=batch, save_to=str(path), format=file_format)
        path.unlink()
    counted = await call("query", "query_results", batch=batch, sql="SELECT count(*) FROM results WHERE status = 'ok'")
    assert counted["rows"][0][0] >= len(order.keys) - len(odd)
    await call("query all", "query_results", batch=batch, sql="SELECT * FROM results WHERE key LIKE 'odd%'", limit=200)
    await call("status", "check_status", batch=batch)
    await call("list", "list_jobs")
    async with desk_of(settings, sandbox) as desk:
        report = await desk.report(batch, str(data / "report.html"))
        report.path.unlink()


async def ordered(talk: Conversation, sandbox: Sandbox, data: Path, groups: int, has_schema: bool) -> Order:
    """Order groups of neighbours, one odd row in each, which stands at another place each time; let the job end."""
    keys = [
        f"{'odd' if number % NEIGHBOURS == number // NEIGHBOURS * 7 % NEIGHBOURS else 'good'}-{number:05}"
        for number in range(groups * NEIGHBOURS)
    ]
    (data / "requests.csv").write_text("id\n" + "".join(f"{key}\n" for key in keys), encoding="utf-8")
    order = {"source": "requests.csv", "prompt": "{{id}}", "key_column": "id"}
    schema = {"response_schema": SCHEMA} if has_schema else {}
    batch = (await Calls(talk)("create", "create_batch", **order, **schema))["batch_id"]
    (name,) = created(sandbox)
    sandbox.finish(name)
    return Order(batch, keys, has_schema)


@in_part
@pytest.mark.timeout(20_000)
@pytest.mark.parametrize("has_schema", [False, True], ids=["plain", "schema"])
async def test_whatever_an_answer_is_the_other_rows_are_right_and_every_call_is_answered(
    settings: Settings, sandbox: Sandbox, service_clock: MovedClock, data: Path, era: str, has_schema: bool
) -> None:
    """Of a job that ended two days ago, what came is taken for all that there is, unreadable lines among it."""
    groups, rounds = tries(20, 4), tries(1250, 2)
    service_clock.move(-TWO_DAYS)
    async with converse(settings, sandbox, era) as talk:
        call = Calls(talk)
        order = await ordered(talk, sandbox, data, groups, has_schema)
        seeds = iter(range(SEEDS[era, has_schema], sys.maxsize))
        for number in range(rounds):
            deliver(sandbox, settings, order, lines_for(order, seeds))
            await look(call, order, data)
            if number % tries(25, 2) == 0:
                await look_closely(call, order, data, settings, sandbox)
                if IS_FULL:
                    sys.stdout.write(f"{(number + 1) * groups:,} ")
                    sys.stdout.flush()
    if IS_FULL:
        slowest = max(call.slowest, key=lambda name: call.slowest[name])
        sys.stdout.write(f"\n{rounds * groups:,} answers; slowest: {slowest}, {call.slowest[slowest]:.2f} s\n")
