"""What is loaded or made once in a process: for all that are forked off it, or for all the tests that run in it.

A server does some things once in its life, which a thousand tests, each with a server of its own, would do a thousand
times. Nothing of a test's own data is in what they share: compiled SQL has its values apart, and a tool's schema comes
with the version.
"""

import atexit
import importlib
import inspect
import pkgutil
import secrets
import sqlite3
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, ClassVar, Final

import duckdb
import pydantic
import sqlalchemy as sa
from google.genai import types
from jsonschema.protocols import Validator
from mcp.client import Client
from mcp.server.mcpserver.prompts import Prompt
from mcp.server.mcpserver.resources import ResourceTemplate

import gemini_batch_mcp
from gemini_batch_mcp.batches.ledger.ledger import Ledger
from gemini_batch_mcp.intake.tables import kept_columns, memory, reading
from gemini_batch_mcp.results import chosen, engine
from gemini_batch_mcp.results.engine import TableReader
from gemini_batch_mcp.results.export import formats
from gemini_batch_mcp.results.query import _process
from gemini_batch_mcp.results.query._process import Cause, ProcessEnded, QueryProcess
from gemini_batch_mcp.results.report import writing
from gemini_batch_mcp.results.reuse import matching

#: What the product loads only when it is needed.
_LOADED_LATE: Final = (
    "google.cloud.storage",
    "anyio._backends._asyncio",
    "duckdb",
    "google.auth.aio.credentials",
    "google.cloud.storage",
    "google.genai.client",
    "httpcore2",
    "rich.logging",
    "rich.progress",
    "sqlalchemy.dialects.sqlite",
    "sqlite3",
    "truststore",
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


_LOCK: Final = threading.Lock()
_COMPILED: Final[dict[Any, Any]] = {}
_DIALECTS: Final[list[sa.Dialect]] = []
_OUTPUT_SCHEMAS: Final[dict[str, dict[str, Any] | None]] = {}
_OUTPUT_VALIDATORS: Final[dict[str, Validator]] = {}
_OPEN: Final = engine.connect
_DATABASES: Final[dict[int, duckdb.DuckDBPyConnection]] = {}
_LASTING: Final = ExitStack()
atexit.register(_LASTING.close)

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


def share_definitions() -> None:
    """Let the SDK look once at each function that stands for a prompt or a template, unless it is bound to a server."""
    for kind in (Prompt, ResourceTemplate):
        kind.from_function = _once_for_each(kind.from_function)  # type: ignore[method-assign]


def _once_for_each(make: Callable[..., Any]) -> Callable[..., Any]:
    made: dict[CodeType, Any] = {}

    def once(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        if not isinstance(function, FunctionType) or function.__closure__:
            return make(function, *arguments, **named)
        code = function.__code__
        if code not in made:
            made[code] = make(function, *arguments, **named)
        return made[code]

    return once


def share_reading() -> None:
    """Give all tests one database of the engine for each limit of memory, and each that opens one a connection to it.

    Opening one takes 20 ms. What is kept in it is temporary, which is the connection's. Tables are built in databases
    of their own, which know the files of one build.
    """
    for module in (chosen, engine, formats, matching, writing):
        module.connect = _connect  # type: ignore[attr-defined]  # not by name, as it is none of theirs
    for module in (kept_columns, reading):
        module.connected = _connected  # type: ignore[attr-defined]


def _connect(memory_limit_bytes: int, temp_directory: Path) -> duckdb.DuckDBPyConnection:
    connection = _database(memory_limit_bytes).cursor()
    # It may have been widened, and export writes in order.
    connection.execute(f"SET memory_limit = '{memory_limit_bytes}B'")
    connection.execute("SET preserve_insertion_order = false")
    return connection


@contextmanager
def _connected(workspace: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with _database(0).cursor() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def _database(memory_limit_bytes: int) -> duckdb.DuckDBPyConnection:
    """Return the database for this limit; for 0 that in which sources are read, which set one before they read."""
    with _LOCK:
        if (database := _DATABASES.get(memory_limit_bytes)) is None:
            if memory_limit_bytes:
                database = _OPEN(memory_limit_bytes, Path(tempfile.gettempdir()))
            else:
                database = _LASTING.enter_context(memory.connected(Path(tempfile.gettempdir())))
            # Tests write a file anew under the name that it had.
            database.execute("SET enable_external_file_cache = false")
            _LASTING.callback(database.close)
            _DATABASES[memory_limit_bytes] = database
        return database


def share_empty_ledgers() -> None:
    """Copy the tables of each new ledger from one that the migrations have made, which takes half of its opening.

    Processes run the migrations, and so does what is given an older ledger.
    """
    empty = sqlite3.connect(":memory:", check_same_thread=False)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "ledger.sqlite3")
        Ledger.open(path).close()
        with closing(sqlite3.connect(path)) as made:
            made.backup(empty)

    def fill(connection: Any, _record: object) -> None:
        # Two that open one file at the same time would each find it empty.
        with _LOCK:
            if connection.execute("PRAGMA page_count").fetchone() == (0,):
                empty.backup(connection)
                connection.execute("UPDATE salts SET salt = ?", (secrets.token_hex(16),))

    sa.event.listen(sa.Engine, "connect", fill)


def share_query_processes() -> None:
    """Let a process for queries that one engine is done with wait for the next one; to start one takes 0.3 s.

    A query has a database of its own there, which ends with it. Tests about the processes themselves ask for fresh ones
    by the fixture `fresh_query_processes`.
    """
    _process.QueryProcess = LastingProcess  # type: ignore[misc]
    atexit.register(LastingProcess.end_all)


class LastingProcess(QueryProcess):
    """A process for queries that is handed on, unless it was closed in the middle of its work."""

    _waiting: ClassVar[list[subprocess.Popen[bytes]]] = []

    def __init__(self) -> None:
        self._is_at_work = False
        self._is_given_away = False
        with _LOCK:
            handed_on = self._waiting.pop() if self._waiting else None
        if handed_on is None:
            super().__init__()
        else:
            self._process, self._was_late, self._has_started = handed_on, False, True

    def ask(self, *arguments: Any, **named: Any) -> dict[str, Any]:
        """Ask, unless it is somebody else's by now. One that was stopped, or that has grown, stays at work."""
        with _LOCK:
            if self._is_given_away:
                raise ProcessEnded(Cause.UNKNOWN)
            self._is_at_work = True
        reply = super().ask(*arguments, **named)
        self._is_at_work = bool(reply["is_last"])
        return reply

    def close(self) -> None:
        """Hand it on if it waits."""
        with _LOCK:
            if self._has_started and not self._is_at_work and not self._is_given_away:
                self._is_given_away = True
                self._waiting.append(self._process)
        if not self._is_given_away:
            super().close()

    @classmethod
    def end_all(cls) -> None:
        """End those that wait."""
        for process in cls._waiting:
            process.kill()
            process.wait()


def share_output_schemas(client: Client) -> None:
    """Let a client know the tools' output schemas from the first conversation, and not check them once more.

    It still checks each result against them.
    """
    client.session._tool_output_schemas = _OUTPUT_SCHEMAS
    client.session._tool_output_validators = _OUTPUT_VALIDATORS
