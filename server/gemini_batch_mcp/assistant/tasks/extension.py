"""The Tasks extension (SEP-2663) on the wire: what a task is, its three methods, and calls that are answered with one.

Specification: modelcontextprotocol/ext-tasks, specification/2026-07-28/tasks.md. Where a client has not declared it on
the request, or speaks an older protocol, calls are answered as if it were not there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, Protocol

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.extension import Extension, MethodBinding
from mcp.server.mcpserver.server import require_client_extension
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp_types import HEADER_MISMATCH, INVALID_PARAMS, CallToolRequestParams, CallToolResult, RequestParams
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ConfigDict, Field

TASKS_ID: Final = "io.modelcontextprotocol/tasks"

Ctx = ServerRequestContext[Any, Any]
Status = Literal["working", "input_required", "completed", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Task:
    """A call that goes on after it was answered. `message` is for the user or the model.

    A task that is completed has its `result`, one that failed its `error` (of JSON-RPC), and one that waits for answers
    of the client the `questions`, by names that it answers to.
    """

    id: str
    status: Status
    created_at: datetime
    updated_at: datetime
    poll_seconds: float
    message: str = ""
    result: CallToolResult | None = None
    error: Mapping[str, Any] | None = None
    questions: Mapping[str, Any] | None = None

    def as_handle(self) -> dict[str, Any]:
        """Return the answer to the call that has begun it, a CreateTaskResult."""
        return {
            "resultType": "task",
            "taskId": self.id,
            "status": self.status,
            **({"statusMessage": self.message} if self.message else {}),
            "createdAt": _moment(self.created_at),
            "lastUpdatedAt": _moment(self.updated_at),
            # Until the batch is deleted.
            "ttlMs": None,
            "pollIntervalMs": round(self.poll_seconds * 1000),
        }

    def in_detail(self) -> dict[str, Any]:
        """Return the answer to tasks/get, a DetailedTask."""
        told: dict[str, Any] = {**self.as_handle(), "resultType": "complete"}
        if self.result is not None:
            told["result"] = self.result.model_dump(mode="json", by_alias=True, exclude_none=True)
        if self.error is not None:
            told["error"] = dict(self.error)
        if self.questions is not None:
            told["inputRequests"] = dict(self.questions)
        return told


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Undertakings(Protocol):
    """What tasks stand for, and where their state is kept. An id that is not theirs is told by None or False."""

    async def carry_out(self, params: CallToolRequestParams, ctx: Ctx, call_next: CallNext) -> HandlerResult | Task:
        """Answer a call of a client that takes tasks; a task is there, and stays there, before it is returned."""
        ...

    async def look(self, ctx: Ctx, task_id: str) -> Task | None:
        """Return a task as it stands."""
        ...

    async def answer(self, ctx: Ctx, task_id: str, answers: Mapping[str, Any]) -> bool:
        """Take answers to a task's questions, by their names; others are left alone."""
        ...

    async def cancel(self, ctx: Ctx, task_id: str) -> bool:
        """Stop a task, as far as it can be stopped; one that has ended is left as it is."""
        ...


class TaskParams(RequestParams):
    """Of tasks/get and tasks/cancel."""

    model_config = ConfigDict(defer_build=True)  # until the first of them: a server starts without

    task_id: str = Field(alias="taskId")


class UpdateParams(TaskParams):
    """Of tasks/update."""

    input_responses: dict[str, Any] = Field(alias="inputResponses")


class Tasks(Extension):
    """The extension for a server whose calls begin such undertakings; they are asked for when a client takes tasks."""

    identifier = TASKS_ID

    def __init__(self, undertakings: Callable[[], Undertakings]) -> None:
        self._undertakings = undertakings

    def methods(self) -> Sequence[MethodBinding]:
        """tasks/get, tasks/update and tasks/cancel."""
        modern = frozenset(MODERN_PROTOCOL_VERSIONS)
        return (
            MethodBinding("tasks/get", TaskParams, self._get, modern),
            MethodBinding("tasks/update", UpdateParams, self._update, modern),
            MethodBinding("tasks/cancel", TaskParams, self._cancel, modern),
        )

    async def intercept_tool_call(self, params: CallToolRequestParams, ctx: Ctx, call_next: CallNext) -> HandlerResult:
        """Answer a call, with a task where its client takes one."""
        if not declares_tasks(ctx):
            return await call_next(ctx)
        answer = await self._undertakings().carry_out(params, ctx, call_next)
        return answer.as_handle() if isinstance(answer, Task) else answer

    async def _get(self, ctx: Ctx, params: TaskParams) -> HandlerResult:
        _check(ctx, params)
        task = await self._undertakings().look(ctx, params.task_id)
        if task is None:
            raise _unknown()
        return task.in_detail()

    async def _update(self, ctx: Ctx, params: UpdateParams) -> HandlerResult:
        _check(ctx, params)
        if not await self._undertakings().answer(ctx, params.task_id, params.input_responses):
            raise _unknown()
        return {}

    async def _cancel(self, ctx: Ctx, params: TaskParams) -> HandlerResult:
        _check(ctx, params)
        if not await self._undertakings().cancel(ctx, params.task_id):
            raise _unknown()
        return {}


def declares_tasks(ctx: Ctx) -> bool:
    """True where the client of a request takes tasks: it says so on each."""
    capabilities = ctx.session.client_capabilities
    declared = (capabilities.extensions if capabilities is not None else None) or {}
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS and TASKS_ID in declared


def require_tasks(ctx: Ctx) -> None:
    """Refuse a request that is for clients which declare the extension.

    Raises:
        MCPError: -32021, with what is missing.
    """
    require_client_extension(ctx, TASKS_ID)


def _check(ctx: Ctx, params: TaskParams) -> None:
    require_tasks(ctx)
    # Over HTTP what is in between goes by the header: it must say the same. The SDK checks its own methods only.
    headers = getattr(ctx.request, "headers", None)
    if headers is not None and decode_header_value(headers.get(MCP_NAME_HEADER)) != params.task_id:
        raise MCPError(HEADER_MISMATCH, f"{MCP_NAME_HEADER} header does not match the request body's 'taskId'")


def _unknown() -> MCPError:
    return MCPError(
        INVALID_PARAMS,
        "There is no task with this id here: it never existed, or its batch was deleted. list_jobs shows the batches.",
    )
