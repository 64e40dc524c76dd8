"""FastMCP's client, over stdio."""

import asyncio
from collections.abc import Mapping
from typing import Any

from fastmcp import Client
from fastmcp.client.transports import StdioTransport

from clients.ground import Ground, converse


async def main() -> None:
    """Have the conversation; it reads structured results itself and raises for errors."""
    ground = Ground.given()
    transport = StdioTransport(command=ground.command, args=ground.args, env=ground.env, cwd=ground.cwd)
    async with Client(transport) as client:

        async def call(tool: str, arguments: dict[str, Any]) -> Mapping[str, Any]:
            result = await client.call_tool(tool, arguments)
            # What it has made of the output schema, beside the plain object.
            assert result.data is not None, tool
            return dict(result.structured_content)

        await converse(ground, [tool.name for tool in await client.list_tools()], call)
        assert [prompt.name for prompt in await client.list_prompts()]
        assert await client.read_resource("gemini-batch://models")


asyncio.run(main())
