"""The models that take batches, as resources: what they cost in a batch, how much they take, and until when."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError

from gemini_batch_mcp.assistant.resources.desks import OpenDesks
from gemini_batch_mcp.batches.opening import LazyDesk
from gemini_batch_mcp.errors import BatchError

if TYPE_CHECKING:
    from gemini_batch_mcp.batches.orders.models import ModelFacts, ModelList

MODELS_URI: Final = "gemini-batch://models"
MODEL_URI: Final = "gemini-batch://models/{model}"


def add_models(server: MCPServer[LazyDesk], desks: OpenDesks) -> None:
    """Register the list of models, and one model by its name."""

    @server.resource(
        MODELS_URI,
        name="models",
        title="Models for batches",
        description="Models that support batches: USD per million tokens in a batch, longest answer, quota, dates.",
        mime_type="application/json",
    )
    async def models() -> str:
        listed = await _read(desks)
        return _json(
            {
                "priced_on": listed.priced_on.isoformat(),
                "asked_gemini": listed.asked_gemini,
                "models": [_shown(facts) for facts in listed.models],
            }
        )

    @server.resource(
        MODEL_URI,
        name="model",
        title="One model",
        description="Prices, longest answer, quota and dates of one model.",
        mime_type="application/json",
    )
    async def model(model: str) -> str:
        listed = await _read(desks)
        wanted = model.removeprefix("models/")
        for facts in listed.models:
            if facts.name == wanted:
                return _json(_shown(facts))
        raise ResourceNotFoundError(
            f"No model {wanted[:80]!r} is known to support batches. {MODELS_URI} lists those that do."
        )


async def _read(desks: OpenDesks) -> "ModelList":
    try:
        return await (await desks.newest().get()).models()
    except BatchError as error:
        raise ResourceError(str(error)) from None


def _shown(facts: "ModelFacts") -> dict[str, Any]:
    shown: dict[str, Any] = {
        "name": facts.name,
        "task": facts.task,
        "is_default": facts.is_default,
        "usd_per_million_input_tokens": facts.input_usd,
        "usd_per_million_output_tokens": facts.output_usd,
        "output_token_limit": facts.output_token_limit,
        "enqueued_tokens_by_tier": list(facts.enqueued_tokens),
        "thinking_levels": list(facts.thinking_levels),
        "ends_on": facts.ends_on.isoformat() if facts.ends_on else None,
        "notes": list(facts.notes),
    }
    return {name: value for name, value in shown.items() if value not in (None, [], False)}


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
