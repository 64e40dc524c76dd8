"""openai-agents with a scripted model: schemas as they are, or made strict, which wants a value for every argument."""

import asyncio
import sys
from typing import Any

from agents import Agent, ModelSettings, OpenAIResponsesModel, Runner, set_tracing_disabled
from agents.mcp import MCPServerStdio
from openai import AsyncOpenAI

from clients.ground import SERVER, Call, Ground
from clients.scripted import LAST_WORDS, ScriptedModel, serving

#: Tools with arguments that are objects of any members, which no strict schema can say: they are sent as they are.
OPEN = ("create_batch", "preview_batch")


def everything(call: Call, schema: dict[str, Any]) -> dict[str, Any]:
    """Give each argument of a strict schema a value, as the API makes models do: what is not wanted is empty."""
    if call.tool in OPEN:
        return call.arguments
    assert schema["additionalProperties"] is False, schema
    assert sorted(schema["required"]) == sorted(schema["properties"]), schema
    return {name: call.arguments.get(name, _nothing(wanted)) for name, wanted in schema["properties"].items()}


def _nothing(wanted: dict[str, Any]) -> Any:
    if "enum" in wanted and wanted.get("type") == "string":
        return wanted["enum"][0]
    empty: dict[str, Any] = {"string": "", "array": [], "object": {}, "boolean": False}
    kind = wanted.get("type", "object")
    return empty[kind] if kind in empty else max(0, wanted.get("minimum", 0))


async def main(is_strict: bool) -> None:
    """Have the conversation."""
    ground = Ground.given()
    set_tracing_disabled(True)
    model = ScriptedModel(ground, everything) if is_strict else ScriptedModel(ground)
    how: Any = {"command": ground.command, "args": ground.args, "env": ground.env, "cwd": ground.cwd}
    with serving(model) as url:
        config: Any = {"convert_schemas_to_strict": is_strict}
        async with MCPServerStdio(how, name=SERVER, client_session_timeout_seconds=60) as server:
            agent = Agent(
                name="Assistant",
                model=OpenAIResponsesModel("scripted", AsyncOpenAI(base_url=f"{url}/v1", api_key="not-a-key")),
                model_settings=ModelSettings(store=False),
                mcp_servers=[server],
                mcp_config=config,
            )
            said = await Runner.run(agent, "Process the reviews.", max_turns=30)
    assert said.final_output == LAST_WORDS, (said.final_output, model.problem)
    model.assert_ended()
    strict = {name for name, schema in model.offered.items() if schema.get("additionalProperties") is False}
    assert strict == (set(ground.tools) - {*OPEN} if is_strict else set()), strict


asyncio.run(main(sys.argv[2] == "strict"))
