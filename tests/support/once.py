"""What each test would make anew, and what comes out the same each time: made once in a process of tests.

A server does these things once in its life; a thousand tests, each with a server of its own, do them a thousand times.
Nothing of a test's own data is in any of it: compiled SQL has its values apart, a tool's schema comes with the version.
"""

import atexit
from functools import cache
from typing import Any, Final

import duckdb
import sqlalchemy as sa
from jsonschema.protocols import Validator
from mcp.client import Client

from gemini_batch_mcp.results.engine import TableReader

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
