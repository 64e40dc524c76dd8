"""Ready JSONL files to start from, as resources."""

import json
from typing import Final

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceNotFoundError

from gemini_batch_mcp.batches.opening import LazyDesk
from gemini_batch_mcp.intake.templates import TEMPLATES, read_template

INDEX_URI: Final = "gemini-batch://templates"
TEMPLATE_URI: Final = "gemini-batch://templates/{name}"


def add_templates(server: MCPServer[LazyDesk]) -> None:
    """Register the template index and the templates."""

    @server.resource(
        INDEX_URI,
        name="templates",
        title="Request templates",
        description="Index of ready JSONL request files: name, what it shows, URI.",
        mime_type="application/json",
    )
    def index() -> str:
        entries = [
            {"name": entry.name, "description": entry.description, "uri": TEMPLATE_URI.format(name=entry.name)}
            for entry in TEMPLATES
        ]
        return json.dumps({"templates": entries}, separators=(",", ":"))

    @server.resource(
        TEMPLATE_URI,
        name="template",
        title="Request template",
        description="A ready JSONL file for create_batch; gemini-batch://templates lists the names.",
        mime_type="application/jsonl",
    )
    def template(name: str) -> str:
        if name not in {entry.name for entry in TEMPLATES}:
            names = ", ".join(entry.name for entry in TEMPLATES)
            raise ResourceNotFoundError(f"There is no template by that name. Templates: {names}.")
        return read_template(name)
