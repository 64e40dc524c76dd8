"""Google's own SDK as a client: `tools=[session]`, whose calls are sent by itself, with a model that is a script."""

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from google import genai
from google.genai import types

from gemini_batch_mcp.sandbox.app import Sandbox
from support.conversation import Conversation, newest, request_file

pytestmark = pytest.mark.anyio


class ScriptedModel(httpx2.AsyncBaseTransport):
    """Answers each request with the next call of the script, or with text when it has ended; keeps what it was sent."""

    def __init__(self, *calls: tuple[str, dict[str, Any]]) -> None:
        self._calls = list(calls)
        self.bodies: list[dict[str, Any]] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.bodies.append(json.loads(await request.aread()))
        part: dict[str, Any] = {"text": "All of them are answered."}
        if self._calls:
            name, arguments = self._calls.pop(0)
            part = {"functionCall": {"name": name, "args": arguments}}
        content = {"role": "model", "parts": [part]}
        return httpx2.Response(200, json={"candidates": [{"content": content, "finishReason": "STOP"}]})

    def heard(self) -> dict[str, Any]:
        """The result of the call before, as the model got it."""
        response = self.bodies[-1]["contents"][-1]["parts"][0]["functionResponse"]["response"]
        assert "error" not in response, response
        return dict(response["result"])


async def test_a_conversation_through_tools_session(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    source = request_file(data, 3)
    order = {"source": source, "limit_rows": 2.0, "response_schema": "{}", "wait_for_previous": True}
    ordering = ScriptedModel(("preview_batch", order), ("create_batch", {**order, "confirm": "true", "prompt": ""}))
    assert await _said(ordering, talk) == "All of them are answered."
    offered = {entry["name"] for tool in ordering.bodies[0]["tools"] for entry in tool["functionDeclarations"]}
    assert offered == {tool.name for tool in (await talk.client.list_tools()).tools}
    batch = _structured(ordering)["batch_id"]
    sandbox.finish(newest(sandbox))

    reading = ScriptedModel(
        ("check_status", {"batch": batch, "wait_seconds": "1"}),
        ("get_results", {"batch": batch, "view": "ROWS", "limit": 5.0, "keys": "k1", "cursor": None}),
    )
    await _said(reading, talk)
    assert [row["key"] for row in _structured(reading)["rows"]] == ["k1"]


async def _said(model: ScriptedModel, talk: Conversation) -> str | None:
    """Return what the model says at the end of a turn."""
    options = types.HttpOptions(httpx_async_client=httpx2.AsyncClient(transport=model))
    client = genai.Client(api_key="not-a-key", vertexai=False, http_options=options)
    # As a dict: the SDK copies a model of its own deeply, which an open session does not allow.
    config: types.GenerateContentConfigDict = {"tools": [talk.client.session]}
    reply = await client.aio.models.generate_content(model="scripted", contents="Do it.", config=config)
    return reply.text


def _structured(model: ScriptedModel) -> dict[str, Any]:
    result = model.heard()
    return dict(result.get("structuredContent") or result["structured_content"])
