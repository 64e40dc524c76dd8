"""One state directory's database: how it is opened, and how a transaction is made."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

from gemini_batch_mcp.batches.ledger._migrations import migrate
from gemini_batch_mcp.errors import StorageError, state_failure
from gemini_batch_mcp.redaction import Secrets

NO_SECRETS: Final = Secrets()
#: How long a connection waits for others to be done with the file.
_BUSY_SECONDS: Final = 30
#: Columns with what the user gave, which has to be found again, or sent again, as it is.
USERS_OWN: Final = frozenset({"order", "source", "request_path", "path"})

#: Called around every transaction that writes, for fault tests: `ledger.<step>:before` and, once committed, `:after`.
Hook = Callable[[str], None]


class Database:
    """An open database. Every transaction is immediate; safe between threads and processes."""

    def __init__(self, engine: sa.Engine, path: Path) -> None:
        self._engine = engine
        self._path = path
        self._hook: Hook | None = None
        #: Device and inode of the file, once it is there.
        self._place: tuple[int, int] | None = None

    @classmethod
    def open(cls, path: Path, hook: Hook | None = None, secrets: Secrets = NO_SECRETS) -> Self:
        """Open or create the SQLite database at `path` and bring it to the current schema.

        No text that is written holds one of `secrets`, but for what the user gave and is needed as it is.

        Raises:
            StorageError: the file cannot be created, read or understood.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StorageError(
                f"The state directory {path.parent} cannot be created ({error.strerror}).",
                "Set GEMINI_BATCH_HOME to a writable directory.",
            ) from None
        engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": _BUSY_SECONDS, "isolation_level": None})
        sa.event.listen(engine, "connect", _configure_connection)
        sa.event.listen(engine, "begin", _begin_immediate)
        if secrets.values:
            sa.event.listen(engine, "before_cursor_execute", partial(_cut, secrets), retval=True)
        database = cls(engine, path)
        try:
            with database.transaction() as connection:
                migrate(connection)
        except BaseException:
            # What cannot be used is let go of: Python 3.13 complains of connections that nobody closes.
            database.close()
            raise
        database._place = _place_of(path)
        database._hook = hook
        return database

    def close(self) -> None:
        """Release every connection."""
        self._engine.dispose()

    def forget_what_was(self) -> None:
        """Overwrite what was replaced or deleted, which otherwise stays in the file until its place is needed.

        Raises:
            StorageError: the database failed.
        """
        try:
            # Past SQLAlchemy, which begins a transaction: inside of one neither is possible.
            connection = self._engine.raw_connection()
            try:
                for statement in ("VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
                    connection.cursor().execute(statement)
            finally:
                connection.close()
        except (DBAPIError, sqlite3.Error) as error:
            raise self._failure(error) from None

    def _failure(self, error: DBAPIError | sqlite3.Error) -> StorageError:
        cause = error.orig if isinstance(error, DBAPIError) else error
        return state_failure(self._path.parent, "The ledger", cause if isinstance(cause, Exception) else error)

    def _check_place(self) -> None:
        """Refuse to read or write a file that is not the one under this name any more: nobody would find it again."""
        if self._place is not None and _place_of(self._path) != self._place:
            raise StorageError(
                f"The state directory {self._path.parent} (GEMINI_BATCH_HOME), or the ledger in it, was removed or "
                "replaced while this process was running. Nothing was sent or changed.",
                "Put it back as it was, or restart this server, which then works with what is there and restores "
                "batches from their directories. gemini-batch-mcp doctor reports what it finds.",
            )

    @contextmanager
    def transaction(self, step: str = "") -> Iterator[sa.Connection]:
        """Yield a connection inside one transaction, `step` naming one that writes.

        Raises:
            StorageError: the database failed, or refused a contradiction.
        """
        if step and self._hook is not None:
            self._hook(f"ledger.{step}:before")
        self._check_place()
        try:
            with self._engine.begin() as connection:
                yield connection
        except IntegrityError:
            raise StorageError(
                "The ledger refused an entry that contradicts another one (a Gemini job that is already recorded).",
                "Call list_jobs to see what is recorded.",
            ) from None
        except (DBAPIError, sqlite3.Error) as error:
            raise self._failure(error) from None
        if step and self._hook is not None:
            self._hook(f"ledger.{step}:after")


def _cut(
    secrets: Secrets, _: object, __: object, statement: str, parameters: Any, context: Any, many: bool
) -> tuple[str, Any]:
    """Take secrets out of what a statement is about to write."""
    compiled = getattr(context, "compiled", None)
    names = tuple(getattr(compiled, "positiontup", None) or ())

    def cut(values: Any) -> Any:
        if not isinstance(values, tuple | list):
            return values
        return tuple(
            secrets.cut(value)
            if isinstance(value, str) and not (number < len(names) and names[number] in USERS_OWN)
            else value
            for number, value in enumerate(values)
        )

    return statement, [cut(values) for values in parameters] if many else cut(parameters)


def _configure_connection(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    # WAL lets one process write while others read; FULL keeps a committed reservation through a power cut.
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_SECONDS * 1000}")
    # Where several processes open a new file at once, all but one are refused this without any waiting.
    for attempt in Retrying(
        stop=stop_after_delay(_BUSY_SECONDS),
        wait=wait_random(0.005, 0.05),
        retry=retry_if_exception(lambda error: "locked" in str(error)),
        reraise=True,
    ):
        with attempt:
            cursor.execute("PRAGMA journal_mode=WAL")
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_immediate(connection: sa.Connection) -> None:
    # A transaction that reads first and writes later would fail with SQLITE_BUSY instead of waiting for its turn.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _place_of(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
