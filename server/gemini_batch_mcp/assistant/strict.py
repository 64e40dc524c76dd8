"""Tools that read arguments as hosts send them, publish no more schema than they need, and let only our own text out.

This is the one error boundary of the server. It touches attributes of the SDK that are not documented as stable (the
`fn_metadata` of a Tool, the `_request_context` of a Context), which is why `mcp` is bound to one minor version;
`tests/assistant/test_tools_contract.py` fails when they move.
"""

import copy
import logging
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import anyio
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.server.mcpserver.tools import Tool
from mcp.shared.exceptions import MCPError
from pydantic import Field, ValidationError

from gemini_batch_mcp.assistant.as_sent import read_arguments, takers
from gemini_batch_mcp.assistant.gate import unanswered
from gemini_batch_mcp.assistant.replies import short
from gemini_batch_mcp.assistant.telling import while_telling
from gemini_batch_mcp.assistant.tools import ToolSpec
from gemini_batch_mcp.batches.gauge import Gauge
from gemini_batch_mcp.errors import BatchError, UsageError
from gemini_batch_mcp.text import plain_text

logger = logging.getLogger(__name__)

#: Clients give up at about 60 s. The tools plan for less; this ends a call whose plan Gemini has upset.
LONGEST_CALL_SECONDS = 49.0
#: What an assistant pays for in every conversation and learns nothing from, and what some hosts cannot read: Google's
#: own SDK fails on `additionalProperties`. Output members are always all there.
_INPUT_NOISE = frozenset({"title", "additionalProperties"})
_OUTPUT_NOISE = frozenset({*_INPUT_NOISE, "default", "required"})


class StrictTool(Tool):
    """A tool whose failures are sentences of ours: what happened, and what to do next."""

    #: Which tools of this server take an argument of that name.
    takers: Mapping[str, Sequence[str]] = Field(default={}, exclude=True)

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
        # A person who is asked may take longer; such tools bound themselves (`work.py`, `within`).
        longest_seconds = None if self._is_gated else LONGEST_CALL_SECONDS
        try:
            with anyio.move_on_after(longest_seconds):
                gauge = Gauge()
                run = partial(super().run, meant, _watched(context, gauge), convert_result)
                return await while_telling(context.session, gauge, run)
        except UnexpectedToolError as error:
            raise ToolError(self._sentence(error.__cause__)) from None
        except ToolError as error:
            if isinstance(error.__cause__, ValidationError):
                raise ToolError(self._argument_sentence(error.__cause__)) from None
            if not self._is_gated:
                raise
            # What is left is the SDK's word about the answer to a question, in words for programmers.
            raise ToolError(unanswered()) from None
        except MCPError as error:
            if not self._is_gated:
                raise
            # The client's answer to our question.
            raise ToolError(unanswered(error.message)) from None
        raise ToolError(
            f"{self.name} took {LONGEST_CALL_SECONDS:.0f} seconds and was stopped; Gemini may be slow to answer. "
            "Whatever was submitted or under way continues: call list_jobs or check_status."
        )

    @property
    def _is_gated(self) -> bool:
        return "gated" in self.resolved_params

    def _sentence(self, cause: BaseException | None) -> str:
        while isinstance(cause, BaseExceptionGroup):
            # Task groups wrap what happens inside them; the first failure is the one to tell.
            cause = cause.exceptions[0]
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


def strict_tools(specs: Iterable[ToolSpec]) -> list[Tool]:
    """Build the tools of a server, each of which knows what the others take."""
    tools = [_strict_tool(spec) for spec in specs]
    known = takers({tool.name: tool.parameters for tool in tools})
    return [tool.model_copy(update={"takers": known}) for tool in tools]


@cache
def _strict_tool(spec: ToolSpec) -> StrictTool:
    """Return the tool for `spec`, with schemas that carry neither titles nor prose of outputs.

    Made once: it holds nothing of a server or a call, and its schemas take 5 ms.
    """
    description = " ".join((spec.function.__doc__ or "").split())
    tool = StrictTool.from_function(
        spec.function,
        title=spec.title,
        description=description,
        annotations=spec.annotations,
        meta={"ui": {"resourceUri": spec.page_uri}} if spec.page_uri else None,
    )
    assert isinstance(tool, StrictTool)
    tool.parameters = _slim(tool.parameters, drop=_INPUT_NOISE)
    if (published := tool.fn_metadata.output_schema) is not None:
        inlined = _inlined(published, published.get("$defs", {}))
        outline = _slim(_outline(inlined), drop=_OUTPUT_NOISE)
        tool.fn_metadata.output_schema = {name: value for name, value in outline.items() if name != "description"}
    return tool


def _watched(context: Any, gauge: Gauge) -> Any:
    """Return the context of a call with a desk that moves this call's gauge."""
    request = context.request_context
    watched = copy.copy(context)
    watched._request_context = replace(request, lifespan_context=request.lifespan_context.watched_by(gauge))
    return watched


def _slim(schema: Any, *, drop: frozenset[str]) -> Any:
    """Return a JSON Schema without the keywords in `drop` and without empty defaults, which say nothing."""
    if isinstance(schema, list):
        return [_slim(item, drop=drop) for item in schema]
    if not isinstance(schema, dict):
        return schema
    slim: dict[str, Any] = {}
    for name, value in schema.items():
        if name == "properties":
            slim[name] = {member: _slim(member_schema, drop=drop) for member, member_schema in value.items()}
        elif name not in drop and not (name == "default" and not value):
            slim[name] = _slim(value, drop=drop)
    return slim


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """Return a JSON Schema with every reference replaced by what it refers to; our views do not contain themselves."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if (reference := schema.get("$ref")) is not None:
        return _inlined(definitions[reference.removeprefix("#/$defs/")], definitions)
    return {name: _inlined(value, definitions) for name, value in schema.items() if name != "$defs"}


def _outline(schema: Any, *, is_whole: bool = True) -> Any:
    """Return an output schema without the members of objects inside objects: a result shows them, in every call.

    "This or null" is said in words: hosts know neither unions nor lists of types, and with either type alone a client
    that checks what it gets would refuse the other.
    """
    if isinstance(schema, list):
        return [_outline(item, is_whole=False) for item in schema]
    if not isinstance(schema, dict):
        return schema
    match schema.get("anyOf"):
        case [{"type": str(kind)}, {"type": "null"}]:
            return {"description": f"{kind} or null"}
    if is_whole:
        members = {name: _outline(member, is_whole=False) for name, member in schema.get("properties", {}).items()}
        return {**schema, "properties": members}
    dropped = ("properties", "description")
    return {name: _outline(value, is_whole=False) for name, value in schema.items() if name not in dropped}
