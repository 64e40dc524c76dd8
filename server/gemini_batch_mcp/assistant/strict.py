"""Tools that read arguments as hosts send them, and let only our own text out.

This is the one error boundary of the server. It touches attributes of the SDK that are not documented as stable (the
`fn_metadata` of a Tool, the `_request_context` of a Context), which is why `mcp` is bound to one minor version;
`tests/assistant/test_tools_contract.py` fails when they move. A server answers `tools/list` without the gate and
without the tools' own modules (see `definitions.py`): they are loaded at the first call.
"""

import copy
import logging
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import mcp_types
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.server.mcpserver.tools import Tool
from mcp.server.mcpserver.utilities.func_metadata import ArgModelBase, FuncMetadata
from mcp.shared.exceptions import MCPError
from pydantic import Field, ValidationError

from gemini_batch_mcp.assistant.as_sent import read_arguments, takers
from gemini_batch_mcp.assistant.definitions import made_tools, read_definitions
from gemini_batch_mcp.assistant.drop.calls import Call
from gemini_batch_mcp.assistant.drop.pages import DropPages
from gemini_batch_mcp.assistant.replies import short
from gemini_batch_mcp.assistant.telling import while_telling
from gemini_batch_mcp.batches.gauge import Gauge
from gemini_batch_mcp.errors import BatchError, UsageError
from gemini_batch_mcp.text import plain_text

logger = logging.getLogger(__name__)

#: Clients give up at about 60 s. The tools plan for less; this ends a call whose plan Gemini has upset.
LONGEST_CALL_SECONDS = 49.0


class StrictTool(Tool):
    """A tool whose failures are sentences of ours: what happened, and what to do next."""

    #: Which tools of this server take an argument of that name.
    takers: Mapping[str, Sequence[str]] = Field(default={}, exclude=True)
    #: Where a person is sent whose files are in a chat.
    pages: Any = Field(default=None, exclude=True)

    async def run(self, arguments: dict[str, Any], context: Any, convert_result: bool = False) -> Any:
        """Run the tool; every failure leaves as a ToolError without a cause that a log could print."""
        try:
            return await self._run(arguments, context, convert_result)
        except ToolError as error:
            raise ToolError(short(str(error))) from None

    async def _run(self, arguments: dict[str, Any], context: Any, convert_result: bool) -> Any:
        try:
            meant = read_arguments(self.name, self.parameters, arguments, self.takers)
        except UsageError as error:
            raise ToolError(str(error)) from None
        made = made_tools()[self.name]
        # A person who is asked may take longer; such tools bound themselves (`work.py`, `within`).
        is_gated = "gated" in made.resolved_params
        longest_seconds = None if is_gated else LONGEST_CALL_SECONDS
        gauge = Gauge()
        try:
            with anyio.move_on_after(longest_seconds):
                run = partial(made.run, meant, self._watched(context, gauge), convert_result)
                return await while_telling(context.session, gauge, run)
        except UnexpectedToolError as error:
            raise ToolError(await self._sentence(error.__cause__)) from None
        except ToolError as error:
            if isinstance(error.__cause__, ValidationError):
                raise ToolError(self._argument_sentence(error.__cause__)) from None
            if not is_gated:
                raise
            # What is left is the SDK's word about the answer to a question, in words for programmers.
            raise ToolError(_unanswered()) from None
        except MCPError as error:
            if not is_gated:
                raise
            # The client's answer to our question.
            raise ToolError(_unanswered(error.message)) from None
        raise ToolError(str(gauge.stopped(self.name, LONGEST_CALL_SECONDS)))

    def _watched(self, context: Any, gauge: Gauge) -> Any:
        """Return the context of a call with a desk that moves this call's gauge."""
        request = context.request_context
        watched = copy.copy(context)
        watched._request_context = replace(request, lifespan_context=Call(request.lifespan_context, gauge, self.pages))
        return watched

    async def _sentence(self, cause: BaseException | None) -> str:
        while isinstance(cause, BaseExceptionGroup):
            # Task groups wrap what happens inside them; the first failure is the one to tell.
            cause = cause.exceptions[0]
        if isinstance(cause, UsageError) and cause.elsewhere:
            # Of these tools get_results alone writes where it is told.
            if self.name == "get_results":
                cause.next_step = f"{cause.next_step} {self.pages.way_back()}"
            else:
                cause.next_step = await self.pages.way_in(cause.elsewhere) or cause.next_step
        if isinstance(cause, BatchError):
            return str(cause)
        # Its text and its traceback may hold anything, a key included; its place in our code cannot.
        frames = traceback.extract_tb(cause.__traceback__) if cause is not None else []
        place = f"{frames[-1].name}, line {frames[-1].lineno}" if frames else "unknown place"
        logger.error("%s: unforeseen %s in %s", self.name, type(cause).__name__, place)
        return (
            f"{self.name} failed with an unexpected error ({type(cause).__name__} in {place}). "
            "This is a bug in the server; check_status and list_jobs show what was submitted."
        )

    def _argument_sentence(self, error: ValidationError) -> str:
        # What `read_arguments` has let through by the published schema, and the types behind it have not.
        problems = [
            f"{plain_text('.'.join(str(part) for part in problem['loc']), 80)}: {problem['msg']}."
            for problem in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        return f"{' '.join(problems)} {self.name} takes {', '.join(self.parameters['properties'])}."


def strict_tools(pages: DropPages, *, read_only: bool) -> list[Tool]:
    """Return the tools of a server, each of which knows what the others take; `read_only` leaves out those that act.

    People whose files are in a chat are sent to its `pages`.
    """
    offered = [
        told for told in read_definitions() if not read_only or (told.annotations and told.annotations.read_only_hint)
    ]
    known = takers({told.name: told.input_schema for told in offered})
    return [_strict_tool(told, known, pages) for told in offered]


def _strict_tool(told: mcp_types.Tool, known: Mapping[str, Sequence[str]], pages: DropPages) -> StrictTool:
    return StrictTool(
        name=told.name,
        title=told.title,
        description=told.description or "",
        parameters=told.input_schema,
        annotations=told.annotations,
        meta=told.meta,
        takers=known,
        pages=pages,
        # What the SDK keeps of a function. It is asked for the output schema only: the made tool does the rest.
        fn=made_tools,
        fn_metadata=FuncMetadata(arg_model=ArgModelBase, output_schema=told.output_schema),
        is_async=True,
        context_kwarg=None,
    )


def _unanswered(reason: str = "") -> str:
    from gemini_batch_mcp.assistant.gate import unanswered

    return unanswered(reason)
