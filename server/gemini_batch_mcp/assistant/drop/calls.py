"""What one call of a tool is given: the desk, which moves this call's gauge, and the server's drop pages."""

from dataclasses import dataclass

from gemini_batch_mcp.assistant.drop.pages import DropPages
from gemini_batch_mcp.batches.opening import WatchedDesk


@dataclass(frozen=True, slots=True)
class Call(WatchedDesk):
    """A lazy desk as one call has it, and where it sends a person with files."""

    pages: DropPages
