"""The most memory that the worst input of each kind takes: server, service and client together, in its own process.

`PYTHONPATH=tests python -m bench.memory` prints a table of all of them, with what the call was answered with.
"""

import gzip
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Final

import anyio
import httpx2
import psutil
from mcp.client import Client
from mcp_types import CallToolResult

from gemini_batch_mcp.assistant.server import build_server
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import OnCommand, SandboxConfig
from gemini_batch_mcp.settings import Settings
from support.answers import answer
from support.conversation import Conversation, created, spoken
from support.gateways import Body
from support.services import MovedClock

MOST_MEGABYTES: Final = 700
_MEGABYTE: Final = 1000**2
_TWO_DAYS: Final = 2 * 86_400.0
_HEAD, _TAIL = b'{"key":"odd","response":{"candidates":[{"content":{"parts":[', b']},"finishReason":"STOP"}]}}\n'
_PIECE: Final = 1 << 20

Pieces = Iterable[bytes]


@dataclass(frozen=True)
class Peak:
    """What one input took, and how the call about it was answered."""

    name: str
    megabytes: float
    answer: str


@dataclass(frozen=True)
class _Source:
    """A table to be previewed."""

    name: str
    content: Callable[[], Pieces]
    prompt: str


@dataclass(frozen=True)
class _Answers:
    """An answer line among two good ones, to be collected, read and saved."""

    line: Callable[[], Pieces]


@dataclass(frozen=True)
class _Reply:
    """What the service says to `tool`."""

    tool: str
    content: Callable[[], bytes]


def _csv(rows: int, cell_bytes: int) -> Callable[[], Pieces]:
    def content() -> Iterator[bytes]:
        yield b"id,a\n"
        for number in range(rows):
            yield f"{number},".encode() + b"abcdefghi " * (cell_bytes // 10) + b"\n"

    return content


def _filled(head: bytes, piece: bytes, size_bytes: int, tail: bytes) -> Callable[[], Pieces]:
    def content() -> Iterator[bytes]:
        yield head
        many = piece * max(1, _PIECE // len(piece))
        yield from repeat(many, size_bytes // len(many))
        yield tail

    return content


def _packed(*parts: bytes | tuple[bytes, int]) -> Callable[[], bytes]:
    """Return what packs these parts, each as it is or so many times, a piece at a time."""

    def content() -> bytes:
        packed = io.BytesIO()
        with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as file:
            for part in parts:
                piece, times = (part, 1) if isinstance(part, bytes) else part
                many = max(1, min(times, _PIECE // len(piece)))
                for _ in range(times // many):
                    file.write(piece * many)
        return packed.getvalue()

    return content


_JOB: Final = b'{"name":"batches/x","metadata":{"state":"BATCH_STATE_RUNNING","x":'
_LISTED_JOB: Final = (
    b'{"name":"batches/j","metadata":{"state":"BATCH_STATE_RUNNING","batchStats":{"requestCount":"5"}}}'
)


#: The worst of each kind, by its name.
INPUTS: Final[dict[str, _Source | _Answers | _Reply]] = {
    "a column of 15 kB named 100 times": _Source("t.csv", _csv(200, 15_000), "{{a}}" * 100),
    "a column of 15 kB named 1,000 times": _Source("t.csv", _csv(20, 15_000), "{{a}}" * 1000),
    "a column of 15 kB named 100,000 times": _Source("t.csv", _csv(3, 15_000), "{{a}}" * 100_000),
    "a column of 100 kB named 4 times": _Source("t.csv", _csv(500, 100_000), "{{a}}" * 4),
    "a prompt of 2 MB": _Source("t.csv", _csv(60, 10), "x" * 2_000_000 + "{{id}}"),
    "rows of 10 MB": _Source("t.csv", _csv(20, 10_000_000), "{{a}}"),
    "a line of 200 MB in CSV": _Source("t.csv", _filled(b"id,a\n1,", b"x", 200 * _MEGABYTE, b"\n2,b\n"), "{{a}}"),
    "a line of 200 MB in JSON lines": _Source(
        "t.jsonl", _filled(b'{"a":"', b"x", 200 * _MEGABYTE, b'"}\n{"a":"b"}\n'), "{{a}}"
    ),
    "a line of 200 MB in text": _Source("t.txt", _filled(b"", b"x", 200 * _MEGABYTE, b"\nb\n"), "{{text}}"),
    "an item of 200 MB in a JSON list": _Source(
        "t.json", _filled(b'[{"a":"', b"x", 200 * _MEGABYTE, b'"},{"a":"b"}]'), "{{a}}"
    ),
    "an answer of 20,000 parts": _Answers(_filled(_HEAD, b'{"text":"x"},', 260_000, b'{"text":"y"}' + _TAIL)),
    "an answer of 315,000 parts": _Answers(_filled(_HEAD, b'{"text":"x"},', 4_095_000, b'{"text":"y"}' + _TAIL)),
    "an answer of 600,000 parts": _Answers(_filled(_HEAD, b'{"text":"x"},', 7_800_000, b'{"text":"y"}' + _TAIL)),
    "an answer of 8 MB of brackets": _Answers(
        _filled(b'{"key":"odd","response":{"x":[', b"[],", 8 * _MEGABYTE, b"[]]}}\n")
    ),
    "an answer of 48 MB of text": _Answers(_filled(_HEAD + b'{"text":"', b"x", 48 * _MEGABYTE, b'"}' + _TAIL)),
    "an answer of 48 MB to be mended": _Answers(
        _filled(_HEAD + b'{"text":"\\ud800', b"\\n", 48 * _MEGABYTE, b'"}' + _TAIL)
    ),
    "an answer of 48 MB of image": _Answers(
        _filled(_HEAD + b'{"inlineData":{"mimeType":"image/png","data":"', b"AAAA", 48 * _MEGABYTE, b'"}}' + _TAIL)
    ),
    "an answer of 200 MB": _Answers(_filled(_HEAD + b'{"text":"', b"x", 200 * _MEGABYTE, b'"}' + _TAIL)),
    "a packed reply of 1 GB": _Reply("check_status", _packed(_JOB + b'"', (b" ", 1000 * _MEGABYTE), b'"}}')),
    "a job of 45 MB of text": _Reply("check_status", _packed(_JOB + b'"', (b"x", 45 * _MEGABYTE), b'"}}')),
    "a job of 298,000 objects": _Reply("check_status", _packed(_JOB + b"[", (b'{"a":{}},', 149_000), b"1]}}")),
    "a job of 2,900,000 numbers": _Reply("check_status", _packed(_JOB + b"[", (b"1.25,", 2_900_000), b"1]}}")),
    "a page of 90,000 jobs": _Reply("list_jobs", _packed(b'{"operations":[', (_LISTED_JOB + b",", 90_000), b"{}]}")),
    "a page of a million jobs": _Reply("list_jobs", _packed(b'{"operations":[', (_LISTED_JOB + b",", 10**6), b"{}]}")),
}


class _Replying(httpx2.AsyncBaseTransport):
    """The way to a sandbox whose reads are answered with one reply, once there is one."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._way = sandbox.transport()
        self.reply = b""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self.reply and request.method == "GET" and "/batches" in request.url.path:
            return httpx2.Response(200, headers={"content-encoding": "gzip"}, stream=Body(self.reply))
        return await self._way.handle_async_request(request)


async def _previewed(source: _Source, directory: Path) -> str:
    with (directory / source.name).open("wb") as file:
        for piece in source.content():
            file.write(piece)
    async with _served(directory) as (talk, _, _, _):
        result = await _called(talk, "preview_batch", source=source.name, prompt=source.prompt)
        return _answer(result.is_error, spoken(result))


async def _collected(answers: _Answers, directory: Path) -> str:
    rows = "".join(f'{key},"x"\n' for key in ("good-1", "odd", "good-2"))
    (directory / "t.csv").write_text(f"id,a\n{rows}", encoding="utf-8")
    async with _served(directory) as (talk, sandbox, clock, _):
        batch = await _ordered(talk)
        clock.move(-_TWO_DAYS)
        (name,) = created(sandbox)
        sandbox.finish(name)
        record = sandbox.state.file(f"files/batch-{name.removeprefix('batches/')}")
        assert record is not None
        path = sandbox.state.file_path(record.name)
        with path.open("wb") as file:
            file.write(answer("good-1"))
            for piece in answers.line():
                file.write(piece)
            file.write(answer("good-2"))
        sandbox.state.save(replace(record, size_bytes=path.stat().st_size))
        clock.move(_TWO_DAYS)
        for name in ("rows.jsonl", "rows.csv", "rows.parquet"):
            result = await _called(talk, "get_results", batch=batch, view="rows", save_to=name)
            assert result.structured_content is not None, spoken(result)
        shown = {row["key"]: row for row in result.structured_content["rows"]}
        assert shown["good-1"]["text"] == shown["good-2"]["text"] == "fine"
        return f"{shown['odd']['status']}. {shown['odd']['error']}"


async def _replied(reply: _Reply, directory: Path) -> str:
    (directory / "t.csv").write_text("id,a\n1,x\n", encoding="utf-8")
    async with _served(directory) as (talk, _, _, way):
        batch = await _ordered(talk)
        way.reply = reply.content()
        result = await talk.raw(reply.tool, **({"batch": batch} if reply.tool == "check_status" else {}))
        return _answer(result.is_error, spoken(result))


async def _ordered(talk: Conversation) -> str:
    result = await _called(talk, "create_batch", source="t.csv", prompt="{{a}}", key_column="id")
    assert result.structured_content is not None, spoken(result)
    return str(result.structured_content["batch_id"])


async def _called(talk: Conversation, tool: str, **arguments: str) -> CallToolResult:
    """Call a tool until its work is done, on a machine that may be busy with something else."""
    while True:
        result = await talk.raw(tool, **arguments)
        if "again in half a minute" not in spoken(result) and "way continues: call" not in spoken(result):
            return result


def _answer(is_refusal: bool | None, text: str) -> str:
    return " ".join(text.split())[:300] if is_refusal else f"answered. {' '.join(text.split())[:60]}"


@asynccontextmanager
async def _served(directory: Path) -> AsyncIterator[tuple[Conversation, Sandbox, MovedClock, _Replying]]:
    settings = Settings(
        home=directory / "home", files=directory / "home" / "files", roots=(directory,), working_directory=directory,
        sandbox=True, poll_seconds=0.01,
    )  # fmt: skip
    clock = MovedClock()
    with Sandbox(directory / "service", SandboxConfig(pace=OnCommand(), clock_ns=clock)) as sandbox:
        way = _Replying(sandbox)
        async with Client(build_server(settings, transport=lambda: way)) as client:
            yield Conversation(client, settings), sandbox, clock, way


def _run(name: str) -> str:
    """Give one input to a server in this process; returns how it was answered."""
    worst = INPUTS[name]
    with tempfile.TemporaryDirectory() as directory:
        match worst:
            case _Source():
                return anyio.run(_previewed, worst, Path(directory))
            case _Answers():
                return anyio.run(_collected, worst, Path(directory))
            case _:
                return anyio.run(_replied, worst, Path(directory))


def peak_of(name: str) -> Peak:
    """Measure one input in a process of its own, those that it starts included."""
    command = [sys.executable, "-m", "bench.memory", name]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env, stdin=subprocess.DEVNULL)
    tree, peak_bytes = psutil.Process(process.pid), 0
    while process.poll() is None:
        try:
            resident = sum(each.memory_info().rss for each in (tree, *tree.children(recursive=True)))
            peak_bytes = max(peak_bytes, resident)
        except psutil.Error:
            pass
        try:
            process.wait(0.02)
        except subprocess.TimeoutExpired:
            continue
    assert process.stdout is not None
    said = process.stdout.read().strip()
    assert process.returncode == 0, said
    return Peak(name, peak_bytes / _MEGABYTE, said)


def main() -> None:
    """Print the table, or how one input is answered."""
    if sys.argv[1:]:
        sys.stdout.write(f"{_run(sys.argv[1])}\n")
        return
    peaks = []
    sys.stdout.write("| worst input | MB at the most | what is answered |\n| --- | ---: | --- |\n")
    for name in INPUTS:
        peaks.append(peak_of(name))
        sys.stdout.write(f"| {name} | {peaks[-1].megabytes:,.0f} | {peaks[-1].answer} |\n")
        sys.stdout.flush()
    if above := [peak.name for peak in peaks if peak.megabytes > MOST_MEGABYTES]:
        sys.exit(f"More than {MOST_MEGABYTES} MB: {', '.join(above)}")


if __name__ == "__main__":
    main()
