"""Resources: ready JSONL files to start from."""

import json

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceNotFoundError
from mcp_types import Completion, CompletionArgument, CompletionContext, PromptReference, ResourceTemplateReference

from gemini_batch_mcp.batches.opening import LazyDesk
from gemini_batch_mcp.intake.templates import TEMPLATES, read_template

INDEX_URI = "gemini-batch://templates"
TEMPLATE_URI = "gemini-batch://templates/{name}"


def add_resources(server: MCPServer[LazyDesk]) -> None:
    """Register the template index, the templates, and completion of their names."""

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
            raise ResourceNotFoundError(f"There is no template of that name. Names: {names}.")
        return read_template(name)

    # The SDK leaves this decorator untyped.
    @server.completion()  # type: ignore[no-untyped-call, untyped-decorator]
    async def complete(
        reference: PromptReference | ResourceTemplateReference,
        argument: CompletionArgument,
        context: CompletionContext | None,
    ) -> Completion | None:
        if not isinstance(reference, ResourceTemplateReference) or reference.uri != TEMPLATE_URI:
            return None
        return Completion(values=[entry.name for entry in TEMPLATES if entry.name.startswith(argument.value)])
