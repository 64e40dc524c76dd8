"""LangChain's adapter: the tools as LangChain's own, and what a model would be told of each result."""

import asyncio
from collections.abc import Mapping
from typing import Any

from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.tools import load_mcp_tools

from clients.ground import SERVER, Ground, converse


async def main() -> None:
    """Have the conversation in one session."""
    ground = Ground.given()
    how = {
        "transport": "stdio",
        "command": ground.command,
        "args": ground.args,
        "env": ground.env,
        "cwd": ground.cwd,
    }
    client = MultiServerMCPClient({SERVER: how})
    async with client.session(SERVER) as session:
        tools = {tool.name: tool for tool in await load_mcp_tools(session)}
        for name, tool in tools.items():
            assert convert_to_openai_tool(tool)["function"]["name"] == name

        async def call(tool: str, arguments: dict[str, Any]) -> Mapping[str, Any]:
            told = await tools[tool].ainvoke({"name": tool, "args": arguments, "id": "1", "type": "tool_call"})
            assert told.status == "success", told.content
            assert told.content, tool
            return dict(told.artifact["structured_content"])

        await converse(ground, tools, call)


asyncio.run(main())
