"""What a process that others are forked off has loaded, so that none of them has to."""

import importlib
import inspect
import pkgutil
from typing import Final

import pydantic
from google.genai import types

import gemini_batch_mcp

#: What the product loads only when it is needed.
_LOADED_LATE: Final = (
    "anyio._backends._asyncio",
    "duckdb",
    "google.genai.client",
    "rich.progress",
    "sqlite3",
    "uvicorn",
)


def load_everything() -> None:
    """Load the product and what it loads late, and build the SDK's types, which are otherwise built at their first use.

    Nothing but that: no thread is started, and no file stays open.
    """
    for module in pkgutil.walk_packages(gemini_batch_mcp.__path__, "gemini_batch_mcp."):
        if not module.name.endswith(".__main__"):
            importlib.import_module(module.name)
    for name in _LOADED_LATE:
        importlib.import_module(name)
    for _, found in inspect.getmembers(types, inspect.isclass):
        if issubclass(found, pydantic.BaseModel):
            found.model_rebuild()
