"""What is loaded or made once in a process: for all that are forked off it, or for all the tests that run in it.

A server does some things once in its life, which a thousand tests, each with a server of its own, would do a thousand
times. Nothing of a test's own data is in what they share: compiled SQL has its values apart, and a tool's schema comes
with the version.
"""

import atexit
import importlib
import inspect
import pkgutil
from functools import cache
from typing import Any, Final

import duckdb
import pydantic
import sqlalchemy as sa
from google.genai import types
from jsonschema.protocols import Validator
from mcp.client import Client

import gemini_batch_mcp
from gemini_batch_mcp.results.engine import TableReader

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


_COMPILED: Final[dict[Any, Any]] = {}
_DIALECTS: Final[list[sa.Dialect]] = []
_OUTPUT_SCHEMAS: Final[dict[str, dict[str, Any] | None]] = {}
_OUTPUT_VALIDATORS: Final[dict[str, Validator]] = {}

#: One database of the engine for all tables that a test opens by itself, as a server has one for all of its batches.
READER: Final = TableReader()
atexit.register(READER.close)


def scratch() -> duckdb.DuckDBPyConnection:
    """Return a connection to one database for all tests; they keep to what is temporary, which is the connection's."""
    return _scratch().cursor()


@cache
def _scratch() -> duckdb.DuckDBPyConnection:
    database = duckdb.connect()
    # Tests write a file anew under the name that it had.
    database.execute("SET enable_external_file_cache = false")
    return database


def share_compiled_sql() -> None:
    """Compile each statement once, not once for each state directory that is opened."""
    sa.event.listen(sa.Engine, "engine_connect", _share)


def _share(connection: sa.Connection) -> None:
    if not _DIALECTS:
        _DIALECTS.append(connection.dialect)
    # What is compiled is found again by its dialect, of which each engine has one of its own.
    connection.dialect = _DIALECTS[0]
    connection.execution_options(compiled_cache=_COMPILED)


def share_output_schemas(client: Client) -> None:
    """Let a client know the tools' output schemas from the first conversation, and not check them once more.

    It still checks each result against them.
    """
    client.session._tool_output_schemas = _OUTPUT_SCHEMAS
    client.session._tool_output_validators = _OUTPUT_VALIDATORS
