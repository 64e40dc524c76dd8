"""Each limit of the guide's table is reached by a call, and told in the words of the table; nothing is half done."""

import gzip
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import duckdb
import httpx2
import pytest
from mcp.client import Client

from gemini_batch_mcp.assistant.server import build_server
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import (
    ENGINE_MEMORY_BYTES,
    LIMITS,
    MAX_ANSWER_FILES,
    MAX_ANSWER_LINE_BYTES,
    MAX_ANSWER_VALUES,
    MAX_JUDGED_CHARS,
    MAX_LINE_BYTES,
    MAX_REPLY_BYTES,
    MAX_REPLY_OBJECTS,
    MAX_REPLY_VALUES,
    MAX_UNPACKED_RATIO,
    MAX_UNSEEN_UNPACKED_BYTES,
    SHEET_MEMORY_BYTES,
    Limit,
    Settings,
)
from intake.workbooks.writers import by_hand, cells
from support.answers import answer
from support.conversation import Conversation, converse, newest, spoken
from support.extent import IS_FULL, long
from support.gateways import Body
from support.services import MovedClock

pytestmark = pytest.mark.anyio

TWO_DAYS: Final = 2 * 86_400.0
SCHEMA: Final = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
GOOD: Final = '{"name": "fine"}'
HEAD, TAIL = b'{"key":"odd","response":{"candidates":[{"content":{"parts":[', b']},"finishReason":"STOP"}]}}\n'


@dataclass(frozen=True)
class Source:
    """A source that is too much for an order; `shown` is the part of the limit that the refusal names.

    `is_long` has its turn in complete runs only; `lowered` are limits beyond what any run can reach.
    """

    name: str
    write: Callable[[Path], object]
    shown: str
    is_long: bool = False
    lowered: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """An answer line that is too much, beside good ones; `files` is how many of its files are written."""

    line: Callable[[], bytes]
    shown: str
    schema: dict[str, Any] | None = None
    files: int = 0


@dataclass(frozen=True)
class Reply:
    """What the service says of a job, packed."""

    content: Callable[[], bytes]
    shown: str


def wide_csv(path: Path) -> None:
    path.write_bytes(b"a\nx\n" + b"y" * MAX_LINE_BYTES + b"\n")


def wide_parquet(path: Path) -> None:
    """Twice as much as an engine may take, in cells that a request would hold; it reads them all at once."""
    rows = 2 * ENGINE_MEMORY_BYTES // 12_000_000
    cells = f"SELECT n || repeat('x', 12000000) AS a FROM range({rows}) numbers(n)"
    duckdb.sql(f"COPY ({cells}) TO '{path}' (FORMAT parquet, ROW_GROUP_SIZE 2048)")


def bomb(size_bytes: int, path: Path) -> None:
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(b"a\n" + b"x\n" * (size_bytes // 2))


def one_far_cell(path: Path) -> None:
    """A sheet of two cells, which is read as one of seventeen thousand million."""
    by_hand(cells("a", "x") + '<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>')(path)


def carrying_files() -> bytes:
    part = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
    return answer("odd", candidates=[{"content": {"parts": [part] * (MAX_ANSWER_FILES + 1)}, "finishReason": "STOP"}])


JOB: Final = b'{"name":"batches/x","metadata":{"state":"BATCH_STATE_RUNNING","x":['

#: By how the subject of a limit begins: what reaches it, once for each of its amounts and for each sentence about it.
CASES: Final[dict[str, list[Source | Answer | Reply]]] = {
    "Memory of the database engine": [
        Source("t.parquet", wide_parquet, f"({ENGINE_MEMORY_BYTES >> 20} MB)", is_long=True),
        Answer(lambda: HEAD + b"{}," * 1_200_000 + b"{}" + TAIL, "OutOfMemoryException"),
    ],
    "A request, and a line of a source": [Source("t.csv", wide_csv, f"{MAX_LINE_BYTES:,}")],
    "A packed source": [
        Source("t.csv.gz", partial(bomb, MAX_UNSEEN_UNPACKED_BYTES), f"{MAX_UNPACKED_RATIO:,} times its", is_long=True),
        # 20 GB would not be written for a test.
        Source("t.csv.gz", partial(bomb, 4_000_000), "3,000,000 bytes", lowered={"MAX_UNPACKED_BYTES": 3_000_000}),
    ],
    "Memory of the process that reads a spreadsheet": [
        Source("t.xlsx", one_far_cell, f"({SHEET_MEMORY_BYTES >> 20:,} MB)"),
    ],
    "A line of answers": [
        Answer(lambda: HEAD + b'{"text":"' + b"x" * MAX_ANSWER_LINE_BYTES + b'"}' + TAIL, f"{MAX_ANSWER_LINE_BYTES:,}")
    ],
    "Values in a line of answers": [
        Answer(lambda: HEAD + b"{}," * 4 * MAX_ANSWER_VALUES + b"{}" + TAIL, f"{MAX_ANSWER_VALUES:,}")
    ],
    "JSON of an answer": [
        Answer(lambda: answer("odd", json.dumps({"name": "x" * MAX_JUDGED_CHARS})), f"{MAX_JUDGED_CHARS:,}", SCHEMA)
    ],
    "Images and sound": [Answer(carrying_files, f"{MAX_ANSWER_FILES:,}", files=MAX_ANSWER_FILES)],
    "A reply from Gemini": [
        Reply(lambda: JOB + b" " * MAX_REPLY_BYTES + b"]}}", f"{MAX_REPLY_BYTES:,} bytes"),
        Reply(lambda: JOB + b"1," * MAX_REPLY_VALUES + b"1,1]}}", f"{MAX_REPLY_VALUES:,} values"),
        Reply(lambda: JOB + b"{}," * MAX_REPLY_OBJECTS + b"1]}}", f"{MAX_REPLY_OBJECTS:,} objects and lists"),
    ],
}
EACH: Final = [
    (limit, case)
    for begin, cases in CASES.items()
    for limit in LIMITS
    if limit.subject.startswith(begin)
    for case in cases
]
SOURCES: Final = [(limit, case) for limit, case in EACH if isinstance(case, Source)]
ANSWERS: Final = [(limit, case) for limit, case in EACH if isinstance(case, Answer)]
REPLIES: Final = [(limit, case) for limit, case in EACH if isinstance(case, Reply)]


def sentences(limit: Limit) -> list[str]:
    """Return what the table says is said, as regular expressions; an ellipsis stands for anything."""
    told = re.findall(r"`([^`]+)`", limit.said)
    return [".*".join(map(re.escape, sentence.split("…"))) for sentence in told]


def is_told(limit: Limit, text: str) -> bool:
    return any(re.search(sentence, text) for sentence in sentences(limit))


class Replying(httpx2.AsyncBaseTransport):
    """The way to a sandbox; once there is a reply, that is the answer to whatever is asked about jobs."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._way = sandbox.transport()
        self.reply = b""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self.reply and request.method == "GET" and "/batches" in request.url.path:
            return httpx2.Response(200, headers={"content-encoding": "gzip"}, stream=Body(self.reply))
        return await self._way.handle_async_request(request)


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.subject)
def test_every_amount_and_every_sentence_of_the_table_has_a_case(limit: Limit) -> None:
    cases = [cases for begin, cases in CASES.items() if limit.subject.startswith(begin)]
    assert len(cases) == 1, "a limit is stated that no test reaches"
    assert sentences(limit)
    assert len(cases[0]) >= max(len(sentences(limit)), len(limit.amount.split("; ")))


def test_no_case_is_of_a_limit_that_is_gone() -> None:
    assert [begin for begin in CASES if not any(limit.subject.startswith(begin) for limit in LIMITS)] == []


@pytest.mark.parametrize(("limit", "case"), [pair for pair in SOURCES if IS_FULL or not pair[1].is_long])
async def test_a_source_beyond_a_limit_is_refused_in_the_words_of_the_table(
    talk: Conversation, data: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, limit: Limit, case: Source
) -> None:
    for name, amount in case.lowered.items():
        monkeypatch.setattr(f"gemini_batch_mcp.intake.unpacked.{name}", amount)
    case.write(data / case.name)
    order = {"source": case.name, "prompt": "{{a}}"}
    await talk.call("list_jobs")
    before = kept(talk.settings)
    shown = spoken(await talk.raw("preview_batch", **order))
    refused = await talk.refusal("create_batch", **order)
    for text in (shown, refused):
        assert is_told(limit, text), text
        assert case.shown in text
    assert kept(talk.settings) == before
    assert (await talk.call("list_jobs"))["jobs"] == []
    assert not sandbox.create_records


def kept(settings: Settings) -> list[str]:
    """Return what files with something in them the state directory has, except for the database itself."""
    return sorted(
        str(path.relative_to(settings.home))
        for path in settings.home.rglob("*")
        if path.is_file() and path.stat().st_size and not path.name.startswith("ledger")
    )


@long
async def test_an_answer_beyond_a_limit_is_a_failed_row_in_the_words_of_the_table_and_costs_no_other(
    settings: Settings, sandbox: Sandbox, service_clock: MovedClock, data: Path, era: str
) -> None:
    service_clock.move(-TWO_DAYS)
    async with converse(settings, sandbox, era) as talk:
        for schema in (None, SCHEMA):
            cases = {f"odd{n}": pair for n, pair in enumerate(ANSWERS) if pair[1].schema == schema}
            keys = ["good-first", *(name for key in cases for name in (key, f"good-{key}"))]
            (data / "t.csv").write_text("id\n" + "".join(f"{key}\n" for key in keys), encoding="utf-8")
            order = {"source": "t.csv", "prompt": "{{id}}", "key_column": "id"}
            batch = (await talk.call("create_batch", **order, **({"response_schema": schema} if schema else {})))[
                "batch_id"
            ]
            deliver(
                sandbox,
                [
                    cases[key][1].line().replace(b'"odd"', f'"{key}"'.encode(), 1)
                    if key in cases
                    else answer(key, GOOD)
                    for key in keys
                ],
            )
            saved = await talk.call("get_results", batch=batch, save_to="rows.jsonl")
            rows = {row["key"]: row for row in map(json.loads, Path(saved["saved"]["path"]).read_bytes().splitlines())}
            assert list(rows) == keys
            for key, row in rows.items():
                if key not in cases:
                    assert (row["status"], row["text"]) == ("ok", GOOD)
                    continue
                limit, case = cases[key]
                assert row["status"] == "failed"
                error = row["error"]["message"]
                assert is_told(limit, error), error
                assert case.shown in error
                assert len(row.get("files") or []) == case.files
                told = await talk.text("get_results", batch=batch, view="rows", keys=[key])
                assert case.shown in told


def deliver(sandbox: Sandbox, lines: list[bytes]) -> None:
    """Let the newest job end with these answers."""
    name = newest(sandbox)
    sandbox.finish(name)
    result = sandbox.state.file(f"files/batch-{name.removeprefix('batches/')}")
    assert result is not None
    sandbox.state.file_path(result.name).write_bytes(b"".join(lines))
    sandbox.state.save(replace(result, size_bytes=sum(map(len, lines))))


@asynccontextmanager
async def replying(settings: Settings, sandbox: Sandbox) -> AsyncIterator[tuple[Conversation, Replying]]:
    way = Replying(sandbox)
    async with Client(build_server(settings, transport=lambda: way)) as client:
        yield Conversation(client, settings), way


async def test_a_reply_beyond_a_limit_is_told_in_the_words_of_the_table_and_changes_nothing(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    (data / "t.csv").write_text("a\nx\n", encoding="utf-8")
    async with replying(settings, sandbox) as (talk, way):
        batch = (await talk.call("create_batch", source="t.csv", prompt="{{a}}"))["batch_id"]
        for limit, case in REPLIES:
            way.reply = gzip.compress(case.content(), 1)
            told = spoken(await talk.raw("check_status", batch=batch))
            assert is_told(limit, told), told
            assert case.shown in told
            way.reply = b""
        assert not (await talk.call("check_status", batch=batch))["done"]
        sandbox.finish(newest(sandbox))
        assert (await talk.call("check_status", batch=batch))["done"]
