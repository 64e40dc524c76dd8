"""MCP server for the Gemini Batch API."""

__version__ = "0.1.0"
