"""A row whose answer is anything at all costs no other row its answer, no call its reply, and no server its time."""

import itertools
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from gemini_batch_mcp.domain import RowStatus
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from results.mutations import SCHEMA, TYPED_SCHEMA, answer_line, mutated, structured
from support.conversation import Conversation, answered, answers_of, converse, created, desk_of, spoken, until
from support.extent import IS_FULL, few, in_part, tries
from support.services import MovedClock

pytestmark = pytest.mark.anyio

#: One in so many lines is mutated; the others are good.
NEIGHBOURS = 50
#: What a call may take of the processor, the service's part and the test's included.
MOST_SECONDS = 2.0
TWO_DAYS = 2 * 86_400.0
#: What is said on a machine that has no time for this process: the same call goes on with it.
STARVED = ("again in half a minute", "Whatever was submitted or under way continues")
#: What answers are checked against: nothing, a schema that is checked by decoding, one that takes a slower judge.
SCHEMAS: Final[dict[str, dict[str, Any]]] = {"plain": {}, "typed": TYPED_SCHEMA, "judged": SCHEMA}
#: Where the seeds of each run begin.
SEEDS = {run: number * 10**6 for number, run in enumerate(itertools.product(("legacy", "auto"), SCHEMAS))}
STATUSES = [status.value for status in RowStatus]
SAVED_ROW = msgspec.json.Decoder(dict[str, Any])


@dataclass
class Calls:
    """Calls tools, and keeps how many seconds of the processor each kind took at the most."""

    talk: Conversation
    slowest: dict[str, float] = field(default_factory=dict)

    async def __call__(self, name: str, tool: str, **arguments: Any) -> dict[str, Any]:
        start = time.process_time()
        result = await self.talk.raw(tool, **arguments)
        while any(words in spoken(result) for words in STARVED):
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
    #: By key, what the good rows are to have: `text`, and `json` with a schema.
    good: dict[str, dict[str, Any]]
    #: By key, their lines.
    lines: dict[str, bytes]

    @property
    def odd(self) -> list[str]:
        return [key for key in self.keys if key not in self.good]


def deliver(sandbox: Sandbox, settings: Settings, order: Order, lines: list[bytes]) -> None:
    """Let Gemini have these answers, and the server none."""
    for path in answers_of(settings, order.batch):
        path.unlink()
    (name,) = created(sandbox)
    answered(sandbox, name, b"".join(lines))


def lines_for(order: Order, seeds: Iterator[int]) -> list[bytes]:
    """Return the answers in order: every so many-th is mutated, each at another place among its neighbours."""
    return [order.lines.get(key) or mutated(next(seeds), key) + b"\n" for key in order.keys]


def no_json(word: str) -> None:
    """Refuse what Python's reader takes, and JSON does not know."""
    raise AssertionError(word)


def saved_row(line: bytes) -> dict[str, Any]:
    """Read a line; a number beyond any double, kept as it was answered, is JSON too, in odd rows only."""
    try:
        return SAVED_ROW.decode(line)
    except msgspec.ValidationError:
        row: dict[str, Any] = json.loads(line, parse_constant=no_json, parse_int=float)
        assert row["key"].startswith("odd"), line
        return row


def saved_rows(path: str) -> dict[str, dict[str, Any]]:
    rows = [saved_row(line) for line in Path(path).read_bytes().split(b"\n")[:-1]]
    assert len({row["key"] for row in rows}) == len(rows)
    return {row["key"]: row for row in rows}


async def look(call: Calls, order: Order, data: Path) -> None:
    """Collect the batch and read it in the ways that are quick; the good rows are as they were sent."""
    summary = (await call("collect", "get_results", batch=order.batch))["summary"]
    assert summary["expected"] == len(order.keys)
    assert summary["succeeded"] >= len(order.good)
    saved = await call("jsonl", "get_results", batch=order.batch, save_to=str(data / "rows.jsonl"))
    rows = saved_rows(saved["saved"]["path"])
    assert list(rows) == order.keys
    wrong = [
        key
        for key, good in order.good.items()
        if rows[key]["status"] != "ok" or rows[key]["error"] or any(rows[key][name] != good[name] for name in good)
    ]
    assert not wrong, [rows[key] for key in wrong[:3]]
    for key in order.odd:
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
    await call("keys", "get_results", batch=batch, view="rows", keys=order.odd[:50])
    for file_format in ("csv", "parquet"):
        path = data / f"rows.{file_format}"
        await call(file_format, "get_results", batch=batch, save_to=str(path), format=file_format)
        path.unlink()
    counted = await call("query", "query_results", batch=batch, sql="SELECT count(*) FROM results WHERE status = 'ok'")
    assert counted["rows"][0][0] >= len(order.good)
    await call("query all", "query_results", batch=batch, sql="SELECT * FROM results WHERE key LIKE 'odd%'", limit=200)
    await call("status", "check_status", batch=batch)
    await call("list", "list_jobs")
    async with desk_of(settings, sandbox) as desk:
        report = await desk.report(batch, str(data / "report.html"))
        report.path.unlink()


async def ordered(talk: Conversation, sandbox: Sandbox, data: Path, groups: int, schema: dict[str, Any]) -> Order:
    """Order groups of neighbours, one odd row in each, which stands at another place each time; let the job end."""
    keys = [
        f"{'odd' if number % NEIGHBOURS == number // NEIGHBOURS * 7 % NEIGHBOURS else 'good'}-{number:05}"
        for number in range(groups * NEIGHBOURS)
    ]
    (data / "requests.csv").write_text("id\n" + "".join(f"{key}\n" for key in keys), encoding="utf-8")
    order = {"source": "requests.csv", "prompt": "{{id}}", "key_column": "id"}
    batch = (await Calls(talk)("create", "create_batch", **order, **({"response_schema": schema} if schema else {})))[
        "batch_id"
    ]
    await until(lambda: created(sandbox))  # what a call has begun goes on behind it where the machine is busy
    (name,) = created(sandbox)
    sandbox.finish(name)
    good: dict[str, dict[str, Any]] = {}
    for number, key in enumerate(keys):
        if key.startswith("good"):
            text = structured(number) if schema else f"fine {number} \u2028 \U0001f600"
            good[key] = {"text": text} | ({"json": SAVED_ROW.decode(text)} if schema else {})
    return Order(batch, keys, good, {key: answer_line(key, {"text": row["text"]}) + b"\n" for key, row in good.items()})


@few(1, more=2)
@in_part
@pytest.mark.timeout(20_000)
@pytest.mark.parametrize("schema", SCHEMAS)
async def test_whatever_an_answer_is_the_other_rows_are_right_and_every_call_is_answered(
    settings: Settings, sandbox: Sandbox, service_clock: MovedClock, data: Path, era: str, schema: str
) -> None:
    """Of a job that ended two days ago, what came is taken for all that there is, unreadable lines among it."""
    groups, rounds = tries(50 if schema == "judged" else 100, 4), tries(200, 2)
    service_clock.move(-TWO_DAYS)
    async with converse(settings, sandbox, era) as talk:
        call = Calls(talk)
        order = await ordered(talk, sandbox, data, groups, SCHEMAS[schema])
        seeds = iter(range(SEEDS[era, schema], sys.maxsize))
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
