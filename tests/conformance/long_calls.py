"""The suite's calls that take long, as tasks in the memory of one server: what it asks of the Tasks extension."""

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from mcp.server.context import CallNext, HandlerResult
from mcp.server.mcpserver import AcceptedElicitation, Context, Elicit, ElicitationResult, MCPServer, Resolve
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.server import require_client_extension
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, CallToolRequestParams, CallToolResult, TextContent
from pydantic import BaseModel

from gemini_batch_mcp.assistant.tasks.extension import TASKS_ID, Ctx, Task

#: The suite wants a description of everything that is listed.
SUITE: Final = "What the conformance suite calls by this name."
#: What a call asks of its user while it is under way, by the tool's name.
_QUESTIONS: Final = {"confirm_delete": ("confirm",), "multi_input": ("name", "confirm")}
#: Calls that are tasks from the beginning.
_LONG: Final = frozenset({"slow_compute", "failing_job", "protocol_error_job", *_QUESTIONS})


class Name(BaseModel):
    name: str


def add_long_calls(server: MCPServer[Any]) -> None:
    """Register the tools that the suite's task scenarios call."""

    @server.tool(structured_output=False, description=SUITE)
    async def greet(name: str) -> str:
        return f"Hello, {name}!"

    @server.tool(structured_output=False, description=SUITE)
    async def slow_compute(seconds: float, label: str = "") -> str:
        await asyncio.sleep(seconds)
        return f"{label}: computed for {seconds} s"

    @server.tool(structured_output=False, description=SUITE)
    async def failing_job(ctx: Context[Any]) -> str:
        require_client_extension(ctx.request_context, TASKS_ID)
        raise ToolError("This job always fails.")

    @server.tool(structured_output=False, description=SUITE)
    async def protocol_error_job() -> str:
        raise MCPError(INTERNAL_ERROR, "This job breaks the server.")

    @server.tool(structured_output=False, description=SUITE)
    async def confirm_delete(filename: str) -> str:
        return f"{filename} was deleted."

    @server.tool(structured_output=False, description=SUITE)
    async def multi_input() -> str:
        return "Both answers are here."

    async def ask_name() -> Elicit[Name]:
        return Elicit("Who are you?", Name)

    @server.tool(structured_output=False, description=SUITE)
    async def test_tool_with_task(said: Annotated[ElicitationResult[Name], Resolve(ask_name)]) -> str:
        return f"Hello, {said.data.name}!" if isinstance(said, AcceptedElicitation) else "Nobody said a name."


@dataclass
class _Running:
    task: Task
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    work: "asyncio.Task[None] | None" = None

    def move(self, **changes: Any) -> None:
        self.task = replace(self.task, updated_at=datetime.now(UTC), **changes)


class LongCalls:
    """Tasks of one server, as long as it lives."""

    def __init__(self) -> None:
        self._running: dict[str, _Running] = {}

    async def carry_out(self, params: CallToolRequestParams, ctx: Ctx, call_next: CallNext) -> HandlerResult | Task:
        """Answer a long call at once, and one that has asked its user before once that has been answered."""
        if params.name == "test_tool_with_task":
            result = await call_next(ctx)
            if not isinstance(result, CallToolResult):
                return result
            running = self._new()
            running.move(status="completed", result=result)
            return replace(running.task, status="working", result=None)
        if params.name not in _LONG:
            return await call_next(ctx)
        running = self._new()
        running.work = asyncio.create_task(self._carry_out(running, params, ctx, call_next))
        return running.task

    def _new(self) -> _Running:
        now = datetime.now(UTC)
        running = _Running(Task(secrets.token_urlsafe(16), "working", now, now, poll_seconds=0.2))
        self._running[running.task.id] = running
        return running

    async def _carry_out(self, running: _Running, params: CallToolRequestParams, ctx: Ctx, call_next: CallNext) -> None:
        try:
            if asked := _QUESTIONS.get(params.name):
                running.move(status="input_required", questions={name: _question(name) for name in asked})
                await running.answered.wait()
            result = await call_next(ctx)
        except MCPError as error:
            running.move(status="failed", error=error.error.model_dump(exclude_none=True))
        except asyncio.CancelledError:
            running.move(status="cancelled", questions=None)
        else:
            assert isinstance(result, CallToolResult)
            assert isinstance(result.content[0], TextContent)
            running.move(status="completed", result=result)

    async def look(self, ctx: Ctx, task_id: str) -> Task | None:
        """Return a task as it stands."""
        running = self._running.get(task_id)
        return running.task if running is not None else None

    async def answer(self, ctx: Ctx, task_id: str, answers: Mapping[str, Any]) -> bool:
        """Strike out the questions that are answered."""
        if (running := self._running.get(task_id)) is None:
            return False
        if running.task.questions is not None:
            left = {name: asked for name, asked in running.task.questions.items() if name not in answers}
            running.move(questions=left or None, status="input_required" if left else "working")
            if not left:
                running.answered.set()
        return True

    async def cancel(self, ctx: Ctx, task_id: str) -> bool:
        """Stop what is under way."""
        if (running := self._running.get(task_id)) is None:
            return False
        if running.work is not None:
            running.work.cancel()
        return True


def _question(name: str) -> dict[str, Any]:
    kind = "boolean" if name == "confirm" else "string"
    form = {"type": "object", "properties": {name: {"type": kind}}, "required": [name]}
    return {
        "method": "elicitation/create",
        "params": {"mode": "form", "message": f"{name.capitalize()}?", "requestedSchema": form},
    }
