"""What does not go out on the wire: what the SDK would say and is not so, and secrets."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from mcp.server.context import CallNext, HandlerResult, ServerMiddleware, ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from gemini_batch_mcp.assistant.resources.dashboard import DASHBOARD_URI
from gemini_batch_mcp.assistant.resources.models import MODELS_URI
from gemini_batch_mcp.assistant.resources.templates import INDEX_URI
from gemini_batch_mcp.assistant.tasks.extension import require_tasks
from gemini_batch_mcp.redaction import Secrets

#: Templates and the dashboard change with the version only; what models there are, and their prices, with the day.
_HOUR_MS: Final = 3_600_000
_LISTS: Final = ("tools", "prompts", "resources")


async def honest_wire(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """Say on the wire what `MCPServer` cannot be told in its constructor; a middleware.

    The lists of tools, prompts and resources never change while a server runs, so that no client is told that it will
    hear of changes. Resources say for how long they hold.
    """
    params = ctx.params if isinstance(ctx.params, Mapping) else {}
    if ctx.method == "subscriptions/listen":
        _refuse_tasks(ctx, params)
        ctx = replace(ctx, params=_only_batches(params))
    result = await call_next(ctx)
    if isinstance(result, dict):
        if ctx.method in ("initialize", "server/discover"):
            _say_no_changes(result.get("capabilities"))
        elif ctx.method == "resources/read" and "ttlMs" in result:
            result |= _age(str(params.get("uri", "")))
    return result


def without(secrets: Secrets) -> ServerMiddleware[Any]:
    """Return a middleware that cuts secrets out of whatever is answered: by tools, resources, prompts, and errors."""

    async def clean(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        try:
            result = await call_next(ctx)
        except MCPError as error:
            said = error.error
            raise MCPError(said.code, secrets.cut(said.message), secrets.cut_all(said.data)) from None
        cut: HandlerResult = secrets.cut_all(result)
        return cut

    return clean


def _refuse_tasks(ctx: ServerRequestContext[Any, Any], params: Mapping[str, Any]) -> None:
    """Refuse to tell of tasks to whoever has not declared them; who has is told of none, and asks with tasks/get."""
    wanted = params.get("notifications")
    if isinstance(wanted, Mapping) and "taskIds" in wanted and ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
        require_tasks(ctx)


def _only_batches(params: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of a filter what is never sent, so that it is not acknowledged."""
    wanted = params.get("notifications")
    kept = wanted if not isinstance(wanted, Mapping) else {k: v for k, v in wanted.items() if "ListChanged" not in k}
    return {**params, "notifications": kept}


def _say_no_changes(capabilities: object) -> None:
    if isinstance(capabilities, dict):
        for name in _LISTS:
            if isinstance(capability := capabilities.get(name), dict):
                capability.pop("listChanged", None)


def _age(uri: str) -> dict[str, Any]:
    """Return for how long a resource holds, and for whom."""
    if uri.startswith((INDEX_URI, DASHBOARD_URI)):
        return {"ttlMs": _HOUR_MS, "cacheScope": "public"}
    return {"ttlMs": _HOUR_MS if uri.startswith(MODELS_URI) else 0, "cacheScope": "private"}
