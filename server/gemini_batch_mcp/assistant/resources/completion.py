"""Completion of the names that resources and prompts take: templates, batches, models."""

from collections.abc import Sequence
from typing import Final

from mcp.server.mcpserver import MCPServer
from mcp_types import Completion, CompletionArgument, CompletionContext, PromptReference, ResourceTemplateReference

from gemini_batch_mcp.assistant.resources.desks import OpenDesks
from gemini_batch_mcp.assistant.resources.templates import TEMPLATE_URI
from gemini_batch_mcp.batches.opening import LazyDesk
from gemini_batch_mcp.errors import BatchError
from gemini_batch_mcp.intake.templates import TEMPLATES

#: The most that one answer may hold (specification, completion).
_MAX_VALUES: Final = 100


def add_completion(server: MCPServer[LazyDesk], desks: OpenDesks) -> None:
    """Register completion for every argument that names something there is."""

    # The SDK leaves this decorator untyped.
    @server.completion()  # type: ignore[no-untyped-call, untyped-decorator]
    async def complete(
        reference: PromptReference | ResourceTemplateReference,
        argument: CompletionArgument,
        context: CompletionContext | None,
    ) -> Completion | None:
        names: Sequence[str] = ()
        if isinstance(reference, ResourceTemplateReference) and reference.uri == TEMPLATE_URI:
            names = [entry.name for entry in TEMPLATES]
        elif argument.name == "batch":
            names = await _batches(desks)
        elif argument.name == "model":
            names = await _models(desks)
        return _matching(names, argument.value)


def _matching(names: Sequence[str], begun: str) -> Completion:
    """Names that begin as what was typed, before those that have it somewhere else."""
    wanted = begun.casefold()
    first = [name for name in names if name.casefold().startswith(wanted)]
    other = [name for name in names if wanted in name.casefold() and name not in first]
    found = [*first, *other]
    return Completion(values=found[:_MAX_VALUES], total=len(found), has_more=len(found) > _MAX_VALUES)


async def _batches(desks: OpenDesks) -> Sequence[str]:
    try:
        return await (await desks.newest().get()).batch_ids()
    except BatchError:
        # Whoever types needs no reason; the call that follows says it.
        return ()


async def _models(desks: OpenDesks) -> Sequence[str]:
    try:
        return [facts.name for facts in (await (await desks.newest().get()).models()).models]
    except BatchError:
        return ()
