"""The dashboard: one page that hosts with MCP Apps show beside the results of the tools that are bound to it."""

from importlib.resources import files
from typing import Final

from mcp.server.apps import APP_MIME_TYPE, Apps, ResourceCsp
from mcp.server.mcpserver.resources import FunctionResource

DASHBOARD_URI: Final = "ui://gemini-batch/dashboard.html"
#: Nothing may be fetched, embedded or called, from anywhere; the page talks to its host and to nobody else.
_NOWHERE: Final = ResourceCsp(connect_domains=[], resource_domains=[], frame_domains=[], base_uri_domains=[])


def dashboard() -> Apps:
    """Return the extension that serves the page; tools name it in their `_meta` (see `tools.py`)."""
    apps = Apps()
    apps.add_resource(
        FunctionResource(
            uri=DASHBOARD_URI,
            name="dashboard",
            title="Dashboard of batches",
            description="A page for hosts with MCP Apps: progress, answers by field, failures, rows, all batches.",
            mime_type=APP_MIME_TYPE,
            meta={"ui": {"csp": _NOWHERE.model_dump(by_alias=True), "prefersBorder": True}},
            fn=_page,
        )
    )
    return apps


def _page() -> str:
    return files("gemini_batch_mcp.assistant.resources").joinpath("dashboard.html").read_text(encoding="utf-8")
