"""Google's Agent Development Kit: its MCP toolset, with its conversion of schemas, and a scripted Gemini."""

import asyncio
import os

from google.adk.agents import LlmAgent
from google.adk.models import Gemini
from google.adk.runners import InMemoryRunner
from google.adk.tools.mcp_tool import McpToolset, StdioConnectionParams
from google.genai import types
from mcp import StdioServerParameters

from clients.ground import Ground
from clients.scripted import LAST_WORDS, ScriptedModel, serving


async def main() -> None:
    """Have the conversation."""
    ground = Ground.given()
    os.environ["GOOGLE_API_KEY"] = "not-a-key"
    model = ScriptedModel(ground)
    server = StdioServerParameters(command=ground.command, args=ground.args, env=ground.env, cwd=ground.cwd)
    toolset = McpToolset(connection_params=StdioConnectionParams(server_params=server, timeout=60))
    with serving(model) as url:
        agent = LlmAgent(name="assistant", model=Gemini(model="gemini-3-flash", base_url=url), tools=[toolset])
        runner = InMemoryRunner(agent=agent, app_name="clients")
        session = await runner.session_service.create_session(app_name="clients", user_id="user")
        message = types.Content(role="user", parts=[types.Part(text="Process the reviews.")])
        said = ""
        async for event in runner.run_async(user_id="user", session_id=session.id, new_message=message):
            if event.content and event.content.parts:
                said = event.content.parts[-1].text or said
        await runner.close()
    assert said == LAST_WORDS, (said, model.problem)
    model.assert_ended()


asyncio.run(main())
