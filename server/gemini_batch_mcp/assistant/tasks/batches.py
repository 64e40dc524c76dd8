"""Tasks that are batches: what create_batch and retry_failed have begun. Their state is the batch itself.

A question that the gate puts comes before there is a task. A cancel that would lose rows for good becomes a question of
the task, where the client can put it to its user; where it cannot, the cancel is refused.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from mcp.server.context import CallNext, HandlerResult
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CallToolRequestParams,
    CallToolResult,
    TextContent,
)
from pydantic import ValidationError

from gemini_batch_mcp.assistant import gate, render
from gemini_batch_mcp.assistant.tasks.extension import Ctx, Status, Task
from gemini_batch_mcp.domain import JobState
from gemini_batch_mcp.errors import BatchError, NotReady, UsageError

if TYPE_CHECKING:
    from gemini_batch_mcp.batches.desk import Desk
    from gemini_batch_mcp.batches.undertakings import Undertaking

_BEGIN_TASKS: Final = frozenset({"create_batch", "retry_failed"})
#: How often a client should ask: most batches take minutes to hours.
_POLL_SECONDS: Final = 10.0
_POLL_SECONDS_LATER: Final = 60.0
_YOUNG_SECONDS: Final = 600


class BatchTasks:
    """What tasks of this server stand for."""

    async def carry_out(self, params: CallToolRequestParams, ctx: Ctx, call_next: CallNext) -> HandlerResult | Task:
        """Answer a call: with a task where it has begun, or found, a batch that has not ended."""
        result = await call_next(ctx)
        if params.name not in _BEGIN_TASKS or not isinstance(result, CallToolResult) or result.is_error:
            return result
        begun: dict[str, Any] = result.structured_content
        desk = await _desk(ctx)
        handle = await desk.handle(begun["batch_id"], reused=begun["reused"])
        found = await desk.follow(handle, look=False)
        if found is None or not found.is_open:
            return result
        said = "\n".join(block.text for block in result.content if isinstance(block, TextContent))
        return _task(handle, found, "working", said)

    async def look(self, ctx: Ctx, task_id: str) -> Task | None:
        """Return a task as its batch stands, asked of Gemini."""
        desk = await _desk(ctx)
        found = await _told(desk.follow(task_id))
        if found is None:
            return None
        status = render.status(found.status).text()
        if found.is_open:
            message = f"{status}\n{found.trouble}".strip()
            if (asked := await desk.cancel_question(found.status.batch.id)) is None or not _is_asked(ctx, found):
                return _task(task_id, found, "working", message)
            name, loss = asked
            return _task(task_id, found, "input_required", message, questions={name: gate.form_of(loss)})
        if found.state is JobState.CANCELLED:
            return _task(task_id, found, "cancelled", status)
        return _task(task_id, found, "completed", status, result=_result(found))

    async def answer(self, ctx: Ctx, task_id: str, answers: Mapping[str, Any]) -> bool:
        """Take the user's answer to whether the batch is to be cancelled."""
        desk = await _desk(ctx)
        if (found := await _told(desk.follow(task_id, look=False))) is None:
            return False
        asked = await desk.cancel_question(found.status.batch.id) if found.is_open and found.is_newest else None
        if asked is None or (answer := answers.get(asked[0])) is None:
            return True
        try:
            said = gate.read_answer(answer)
        except ValidationError:
            raise MCPError(INVALID_PARAMS, f"{gate.unanswered()} It is an object with action and content.") from None
        await desk.settle_cancel(asked[1])
        try:
            agreed_to = await gate.agreed(desk, asked[1], said, "cancelled")
        except UsageError:
            # They did not agree: the task goes on.
            return True
        await _cancel(desk, found.status.batch.id, agreed_to)
        return True

    async def cancel(self, ctx: Ctx, task_id: str) -> bool:
        """Cancel the batch as cancel_batch does; where something would be lost, the user is asked first."""
        desk = await _desk(ctx)
        if (found := await _told(desk.follow(task_id, look=False))) is None:
            return False
        if not found.is_open or not found.is_newest:
            return True
        batch = found.status.batch.id
        try:
            loss = await desk.cancel_loss(batch)
        except NotReady:
            # It has just ended.
            return True
        except BatchError as error:
            raise MCPError(INTERNAL_ERROR, str(error)) from None
        if not loss.question:
            await _cancel(desk, batch, None)
        elif _can_ask(ctx):
            await desk.ask_cancel_later(loss)
        else:
            raise MCPError(
                MISSING_REQUIRED_CLIENT_CAPABILITY,
                f"{loss.question} Nothing was cancelled: the user has to be asked, and this client cannot ask. Once "
                "they agree, call cancel_batch with confirm=true.",
                {"requiredCapabilities": {"elicitation": {"form": {}}}},
            )
        return True


async def _cancel(desk: "Desk", batch: str, agreed_to: Any) -> None:
    try:
        await desk.cancel(batch, agreed_to=agreed_to)
    except BatchError as error:
        if not isinstance(error, NotReady):
            raise MCPError(INTERNAL_ERROR, str(error)) from None


def _task(task_id: str, found: "Undertaking", status: Status, message: str, **more: Any) -> Task:
    is_young = found.status.age_seconds < _YOUNG_SECONDS
    poll_seconds = _POLL_SECONDS if is_young else _POLL_SECONDS_LATER
    return Task(task_id, status, found.handle.began_at, found.changed_at, poll_seconds, message, **more)


def _result(found: "Undertaking") -> CallToolResult:
    """Return what the call would be answered with now; an error where nothing came of it."""
    view = render.created(found.placement)
    has_failed = found.state is JobState.FAILED or (
        found.state is JobState.EXPIRED and found.is_newest and not found.status.results_ready
    )
    return CallToolResult(
        content=[TextContent(type="text", text=view.text())],
        structured_content=view.model_dump(mode="json"),
        is_error=has_failed,
    )


def _is_asked(ctx: Ctx, found: "Undertaking") -> bool:
    return found.is_newest and _can_ask(ctx)


def _can_ask(ctx: Ctx) -> bool:
    return gate.can_ask(ctx.session.client_capabilities, ctx.protocol_version, ctx.session)


async def _desk(ctx: Ctx) -> "Desk":
    try:
        desk: Desk = await ctx.lifespan_context.get()
    except BatchError as error:
        raise MCPError(INTERNAL_ERROR, str(error)) from None
    return desk


async def _told(found: Any) -> "Undertaking | None":
    """Return what is awaited; what goes wrong is told in our own words."""
    try:
        undertaking: Undertaking | None = await found
    except BatchError as error:
        raise MCPError(INTERNAL_ERROR, str(error)) from None
    return undertaking
