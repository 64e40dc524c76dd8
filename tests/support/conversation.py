"""A conversation with the server as an assistant has it, or with its desk; and the files it talks about."""

import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import anyio
from mcp.client import Client
from mcp.client.context import ClientRequestContext
from mcp.client.session import ElicitationFnT
from mcp_types import CallToolResult, ElicitRequestFormParams, ElicitRequestParams, ElicitResult

from gemini_batch_mcp.assistant.server import build_server
from gemini_batch_mcp.batches.app import open_app
from gemini_batch_mcp.batches.desk import Desk
from gemini_batch_mcp.batches.opening import lazy_desk
from gemini_batch_mcp.batches.work import Work
from gemini_batch_mcp.domain import Order, ResultQuery
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import KEYS_PAGE, Settings
from support.loading import share_output_schemas

#: How a reply ends whose work is not done yet.
_CONTINUES: Final = "ake the same call again in half a minute"
#: A command line, run to its end.
Run = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Conversation:
    """Calls tools by name. `client` is there for everything that is not a tool."""

    client: Client
    settings: Settings

    async def raw(self, tool: str, **arguments: Any) -> CallToolResult:
        return await self.client.call_tool(tool, arguments)

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool that must succeed; returns its structured result."""
        result = await self._done(tool, arguments)
        assert result.structured_content is not None
        return dict(result.structured_content)

    async def text(self, tool: str, **arguments: Any) -> str:
        """Call a tool that must succeed; returns the text that an assistant reads."""
        return spoken(await self._done(tool, arguments))

    async def comes_to(self, batch: str, state: str) -> dict[str, Any]:
        """Look at a batch until it is in that state; returns what is shown then."""
        while (status := await self.call("check_status", batch=batch, wait_seconds=0.5))["state"] != state:
            assert not status["done"], status
        return status

    async def _done(self, tool: str, arguments: dict[str, Any]) -> CallToolResult:
        """Make a call until it is done, as an assistant does: on a busy machine it may continue in the background."""
        while _CONTINUES in spoken(result := await self.raw(tool, **arguments)):
            assert result.is_error
        assert not result.is_error, spoken(result)
        return result

    async def refusal(self, tool: str, **arguments: Any) -> str:
        """Call a tool that must refuse; returns its sentence, which must not give anything away."""
        result = await self.raw(tool, **arguments)
        assert result.is_error, result.structured_content
        sentence = spoken(result)
        for secret in ("test-key-do-not-show", "Traceback", "http://", "https://", "upload_id"):
            assert secret not in sentence.replace(KEYS_PAGE, "")
        return sentence


def process_env(**variables: str) -> dict[str, str]:
    """The environment of a server process: few variables, as hosts give them, and what measures coverage."""
    measuring = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE")}
    return {"PATH": "/usr/bin:/bin", **measuring, **variables}


def spoken(result: CallToolResult) -> str:
    return "\n".join(block.text for block in result.content if block.type == "text")


class Person:
    """The user of a client that can ask: answers its questions, and remembers them."""

    def __init__(self, action: str = "accept", *, ticks: bool = True) -> None:
        self.action = action
        self.ticks = ticks
        self.questions: list[str] = []
        self.forms: list[dict[str, Any]] = []

    async def __call__(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        assert isinstance(params, ElicitRequestFormParams)
        self.questions.append(params.message)
        self.forms.append(params.requested_schema)
        boxes: dict[str, Any] = params.requested_schema["properties"]
        content = dict.fromkeys(boxes, self.ticks) if self.action == "accept" else None
        return ElicitResult(action=self.action, content=content)  # type: ignore[arg-type]  # one of the three words


@asynccontextmanager
async def converse(
    settings: Settings, sandbox: Sandbox | None, era: str = "legacy", person: ElicitationFnT | None = None
) -> AsyncIterator[Conversation]:
    """Open a conversation; without a sandbox the server is left to the network, which tests do not have.

    With a person the client can ask them; without one it cannot ask.
    """
    server = build_server(settings, transport=sandbox.transport if sandbox is not None else None)
    async with Client(server, mode=era, elicitation_callback=person) as client:
        share_output_schemas(client)
        yield Conversation(client, settings)


def line(key: str, text: str = "hello", **request: Any) -> str:
    """One request line."""
    return json.dumps({"key": key, "request": {"contents": [{"parts": [{"text": text}]}], **request}})


def write_lines(path: Path, lines: Sequence[str]) -> str:
    """Write a request file and return its path as a person would give it."""
    path.write_text("".join(entry + "\n" for entry in lines), encoding="utf-8")
    return str(path)


def request_file(directory: Path, count: int = 3, *, name: str = "reviews.jsonl", mark: str = "") -> str:
    """A request file with keys k1, k2, …; `mark` goes into the text of the second row."""
    rows = [line(f"k{number}", f"row {number}{mark if number == 2 else ''}") for number in range(1, count + 1)]
    return write_lines(directory / name, rows)


def sent(talk: Conversation, batch: str) -> list[dict[str, Any]]:
    """The request lines that a batch keeps, as objects."""
    path = talk.settings.home / "batches" / batch / "requests.jsonl"
    return [json.loads(row) for row in path.read_text(encoding="utf-8").splitlines()]


async def until(condition: Callable[[], object]) -> None:
    """Wait until something has come true, for a minute at most: a machine may be busy."""
    with anyio.fail_after(60):
        while True:
            if condition():
                return
            await anyio.sleep(0.01)


def newest(sandbox: Sandbox) -> str:
    """The name of the job that was created last."""
    return max(sandbox.create_records, key=lambda record: record.create_ns).name


ROWS = ResultQuery(view="rows", limit=200)


@asynccontextmanager
async def desk_of(settings: Settings, sandbox: Sandbox) -> AsyncIterator[Desk]:
    async with lazy_desk(settings, sandbox.transport) as lazy:
        yield await lazy.get()


@asynccontextmanager
async def hooked_desk(settings: Settings, sandbox: Sandbox, hook: Callable[[str], None]) -> AsyncIterator[Desk]:
    """A desk that announces each of its effects to `hook`."""
    settings.home.mkdir(exist_ok=True)
    app = None
    try:
        async with anyio.create_task_group() as tasks:
            app = open_app(settings, Work(tasks), sandbox.transport(), hook=hook)
            try:
                yield Desk(app)
            finally:
                tasks.cancel_scope.cancel()
    finally:
        # Not before all work has ended: what is in use does not close.
        if app is not None:
            await app.aclose()


async def ended(desk: Desk, sandbox: Sandbox, source: str) -> str:
    """Order a file and let its jobs end; returns the batch id."""
    placement = await desk.place_order(Order(source=source))
    for record in sandbox.create_records:
        sandbox.finish(record.name)
    return placement.status.batch.id


def answered(sandbox: Sandbox, name: str, content: bytes) -> None:
    """Let a job that has ended have these answer lines in place of its own."""
    result = sandbox.state.file(f"files/batch-{name.removeprefix('batches/')}")
    assert result is not None
    sandbox.state.file_path(result.name).write_bytes(content)
    sandbox.state.save(replace(result, size_bytes=len(content)))


def downloads(sandbox: Sandbox) -> int:
    return sum(request.route == "files.download" for request in sandbox.requests)


def answers_of(settings: Settings, batch: str) -> list[Path]:
    return sorted((settings.home / "batches" / batch).glob("answers-*.jsonl"))


def sharded(settings: Settings, data: Path) -> tuple[Settings, str]:
    """An order of 30 rows that becomes three jobs of ten rows."""
    rows = [line(f"k{number:02}", f"row {number:02} " + "x" * 500) for number in range(30)]
    return replace(settings, max_file_bytes=10 * (len(rows[0]) + 1)), write_lines(data / "rows.jsonl", rows)


def created(sandbox: Sandbox) -> list[str]:
    """Return the names of all jobs, the first one first."""
    return [record.name for record in sorted(sandbox.create_records, key=lambda record: record.create_ns)]
