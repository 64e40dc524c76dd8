"""A conversation in a chat: its files have paths of the chat's own, and its server may open drop pages."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from mcp.client import Client

from gemini_batch_mcp.assistant.drop.pages import DropPages
from gemini_batch_mcp.assistant.server import build_server
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import Conversation, spoken

PROMPT = {"prompt": "Mood of {{text}}"}
#: Paths as chats write them, all of the same file.
SPELLINGS = (
    "/mnt/user-data/uploads/reviews.csv",
    "sandbox:/mnt/data/reviews.csv",
    "file:///mnt/user-data/uploads/reviews.csv",
    '"/sessions/brave-kind-curie/mnt/uploads/reviews.csv"',
    "attachment:reviews.csv",
    "/home/claude/reviews.csv",
)
ADDRESS = re.compile(r"http://(127\.0\.0\.1:\d+)/([\w-]{32})")


@asynccontextmanager
async def chat(settings: Settings, sandbox: Sandbox, **page: Any) -> AsyncIterator[Conversation]:
    """A conversation in a chat that may open pages, whose server has its own directory of files as a root."""
    settings = replace(settings, roots=(*settings.roots, settings.files))
    pages = DropPages(settings, **({"may_open": True} | page))
    async with Client(build_server(settings, transport=sandbox.transport, pages=pages), mode="auto") as client:
        yield Conversation(client, settings)


async def address_in(talk: Conversation, source: str = SPELLINGS[0]) -> str:
    """Name a file of the chat, and return the address that the answer gives."""
    answer = await talk.raw("preview_batch", source=source, **PROMPT)
    assert answer.is_error
    found = ADDRESS.search(spoken(answer))
    assert found, spoken(answer)
    return found[0]
