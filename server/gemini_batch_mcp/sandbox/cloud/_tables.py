"""The tables of the sandbox's BigQuery: kept in DuckDB, asked in GoogleSQL, which sqlglot puts into DuckDB's words.

Only SELECT, and CREATE TABLE AS SELECT, are understood. What a statement would read is counted as the whole of every
table that it names.
"""

# ruff: noqa: S608 - statements consist of our own names, of numbers, of names quoted by `_quoted`, and of the SQL of a job

import dataclasses
import json
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from gemini_batch_mcp.sandbox.cloud import _translation as translation
from gemini_batch_mcp.sandbox.config import SandboxConfig
from gemini_batch_mcp.sandbox.state import new_id
from gemini_batch_mcp.sandbox.wire import ApiError

#: What BigQuery bills at least for each table that a statement reads (its pricing page, read 2026-11).
LEAST_BILLED_BYTES: Final = 10 * 1024**2
_MEBIBYTE: Final = 1024**2
_NAME: Final = "tables.duckdb"
#: Beyond it, the engine goes on on the disk: it would take most of the machine's else.
_MEMORY: Final = "2GB"
#: Of how many rows an answer is held as it came; a longer one is a table, which is read in pieces.
_MOST_HELD_ROWS: Final = 10_000
#: Where those tables are: in no dataset.
_ANSWERS: Final = "answers"
_PIECE_ROWS: Final = 2_000
_LEAST_BUFFER: Final = 1 << 20
#: By how many of its rows the size of a table is taken.
_MEASURED_ROWS: Final = 20_000


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """A column in BigQuery's words."""

    name: str
    type: str
    mode: str = "NULLABLE"
    fields: tuple["Field", ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Described:
    """A table as `tables.get` describes it."""

    dataset: str
    table: str
    fields: tuple[Field, ...]
    rows: int
    size_bytes: int
    modified_ms: int
    labels: Mapping[str, str]
    expires_ms: int


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """What a statement came to: its rows, or the number of them and the table that has them where they are many."""

    fields: tuple[Field, ...]
    rows: tuple[tuple[Any, ...], ...]
    read_bytes: int
    row_count: int = 0
    kept: str = ""

    @property
    def billed_bytes(self) -> int:
        """What would be billed: whole mebibytes, and never less than so many."""
        if not self.read_bytes:
            return 0
        return max(LEAST_BILLED_BYTES, -(-self.read_bytes // _MEBIBYTE) * _MEBIBYTE)


class Tables:
    """The store. Blocks while it works; safe to use from several threads.

    What takes long runs on a connection of its own, and the others see its table once it is whole and noted.
    """

    def __init__(self, directory: Path, config: SandboxConfig) -> None:
        self._path = directory / _NAME
        self._config = config
        self._lock = threading.RLock()
        self._database: Any = None
        self._running: set[Any] = set()

    def interrupt(self) -> None:
        """End the statements that are running, which then fail; from any thread."""
        import duckdb

        for cursor in tuple(self._running):
            # One that has ended meanwhile is closed.
            with suppress(duckdb.ConnectionException):
                cursor.interrupt()

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    def require_dataset(self, project: str, dataset: str) -> None:
        """Refuse what lies in no dataset of ours.

        Raises:
            ApiError: 403 for another project, 404 for another dataset.
        """
        if project not in (self._config.cloud_project, self._config.cloud_project_number):
            raise ApiError(403, f"[sandbox] Access Denied: Project {project[:60]}.")
        if dataset not in self._config.datasets:
            raise ApiError(404, f"[sandbox] Not found: Dataset {project[:60]}:{dataset[:60]}")

    def put(self, dataset: str, table: str, select: str) -> None:
        """Make a table of a SELECT in DuckDB's own words, in the place of another one: what a test begins with."""
        with self._cursor() as cursor:
            cursor.execute(f"CREATE OR REPLACE TABLE {_quoted(dataset)}.{_quoted(table)} AS {select}")
        self._note(dataset, table)

    def add(self, dataset: str, table: str, columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[Any]]) -> None:
        """Make a table of rows in another order than theirs; `columns` are names and DuckDB's types."""
        places = [f"c{place}" for place, _ in enumerate(columns)]
        with tempfile.NamedTemporaryFile("w", encoding="ascii", suffix=".jsonl", dir=self._path.parent) as file:
            longest = 0
            for number, row in enumerate(rows):
                longest = max(
                    longest, file.write(json.dumps({"n": number, **dict(zip(places, row, strict=True))}) + "\n")
                )
            file.flush()
            kinds = {"n": "BIGINT"} | {place: kind for place, (_, kind) in zip(places, columns, strict=True)}
            told = ", ".join(f"{name}: {_literal(kind)}" for name, kind in kinds.items())
            form = (
                f"format = 'newline_delimited', columns = {{{told}}}, maximum_object_size = {longest + _LEAST_BUFFER}"
            )
            read = f"read_json({_literal(file.name)}, {form})"
            named = ", ".join(f"{place} AS {_quoted(name)}" for place, (name, _) in zip(places, columns, strict=True))
            # Neighbours end far from each other: the order of a table is not to be relied on.
            self.put(dataset, table, f"SELECT {named} FROM {read} ORDER BY (2 * n + 1) % 3, n")

    def describe(self, dataset: str, table: str) -> Described | None:
        """Return what a table is, None where there is none."""
        with self._lock:
            noted = (
                self._open()
                .execute("SELECT * EXCLUDE (dataset, name) FROM noted WHERE dataset = ? AND name = ?", [dataset, table])
                .fetchall()
            )
            if not noted:
                return None
            fields = self._fields(f"SELECT * FROM {_quoted(dataset)}.{_quoted(table)}")
        rows, size_bytes, modified_ms, labels, expires_ms = noted[0]
        return Described(dataset, table, fields, rows, size_bytes, modified_ms, json.loads(labels), expires_ms)

    def change(self, dataset: str, table: str, labels: Mapping[str, str] | None, expires_ms: int | None) -> None:
        """Give a table labels and an end."""
        with self._lock:
            for column, value in (("labels", labels), ("expires_ms", expires_ms)):
                if value is not None:
                    self._open().execute(
                        f"UPDATE noted SET {column} = ? WHERE dataset = ? AND name = ?",
                        [json.dumps(dict(value)) if isinstance(value, Mapping) else value, dataset, table],
                    )

    def drop(self, dataset: str, table: str) -> None:
        """Delete a table."""
        with self._lock:
            database = self._open()
            database.execute(f"DROP TABLE IF EXISTS {_quoted(dataset)}.{_quoted(table)}")
            database.execute("DELETE FROM noted WHERE dataset = ? AND name = ?", [dataset, table])

    def names(self) -> list[str]:
        """Return the tables that there are, as `dataset.table`."""
        with self._lock:
            found = self._open().execute("SELECT dataset || '.' || name FROM noted ORDER BY 1").fetchall()
        return [name for (name,) in found]

    def measure(self, sql: str) -> Found:
        """Return what a statement's columns would be, and how much it would read, without running it.

        Raises:
            ApiError: it is wrong.
        """
        with self._lock:
            statement, read_bytes = self._translate(sql)
            return Found(self._fields(statement.sql), (), read_bytes)

    def weigh(self, sql: str) -> Found:
        """Return how much a statement would read, without a look at what else is wrong with it.

        Raises:
            ApiError: it cannot be read, or names no table.
        """
        with self._lock:
            return Found((), (), self._translate(sql)[1])

    def run(self, sql: str) -> Found:
        """Run a statement; one that makes a table has no rows.

        Raises:
            ApiError: it is wrong, or the table that it makes is there.
        """
        with self._lock:
            statement, read_bytes = self._translate(sql)
            if statement.makes is None:
                relation = self._bound(statement.sql)
                fields, readable = (
                    tuple(map(_field, relation.columns, relation.types)),
                    _readable(statement.sql, relation),
                )
            else:
                project, dataset, table = statement.makes
                self.require_dataset(project or self._config.cloud_project, dataset)
                if self.describe(dataset, table) is not None and not statement.replaces:
                    if statement.may_be_there:
                        return Found((), (), 0)
                    raise ApiError(409, f"[sandbox] Already Exists: Table {project}:{dataset}.{table}")
        if statement.makes is None:
            return self._answer(fields, readable, read_bytes)
        self.put(dataset, table, statement.sql)
        return Found((), (), read_bytes)

    def page(self, found: Found, start: int, size: int) -> Sequence[tuple[Any, ...]]:
        """Return some rows of an answer."""
        if not found.kept:
            return found.rows[start : start + size]
        with self._cursor() as cursor:
            return _fetched(cursor.execute(f"SELECT * FROM {found.kept} LIMIT {size:d} OFFSET {start:d}"), size)

    def rows(self, dataset: str, table: str) -> list[dict[str, Any]]:
        """Return all rows of a table; a TIMESTAMP is its microseconds since 1970."""
        return list(self.stream(dataset, table))

    def stream(self, dataset: str, table: str) -> Iterator[dict[str, Any]]:
        """Yield the rows of a table, a piece at a time."""
        name = f"SELECT * FROM {_quoted(dataset)}.{_quoted(table)}"
        with self._lock:
            relation = self._bound(name)
            columns, sql = relation.columns, _readable(name, relation)
        with self._cursor() as cursor:
            cursor.execute(sql)
            while piece := cursor.fetchmany(_PIECE_ROWS):
                yield from (dict(zip(columns, row, strict=True)) for row in piece)

    def extend(self, source: tuple[str, str], to: tuple[str, str], columns: Mapping[str, str]) -> int:
        """Make a table of another one's rows, each with the same further columns; returns how many."""
        more = ", ".join(f"{_literal(text)} AS {_quoted(name)}" for name, text in columns.items())
        self.put(*to, f"SELECT *, {more} FROM {_quoted(source[0])}.{_quoted(source[1])}")
        made = self.describe(*to)
        return made.rows if made is not None else 0

    def _translate(self, sql: str) -> tuple[translation.Translated, int]:
        statement = translation.translated(sql)
        read_bytes = 0
        for project, dataset, table in statement.tables:
            self.require_dataset(project or self._config.cloud_project, dataset)
            there = self.describe(dataset, table)
            if there is None:
                raise ApiError(404, f"[sandbox] Not found: Table {project}:{dataset}.{table}")
            read_bytes += there.size_bytes
        return statement, read_bytes

    def _bound(self, sql: str) -> Any:
        """Return a query whose columns are known, and which has not run."""
        import duckdb

        try:
            return self._open().sql(sql)
        except duckdb.Error as error:
            raise _refused(error) from None

    def _answer(self, fields: tuple[Field, ...], readable: str, read_bytes: int) -> Found:
        """Return what a query comes to; where that is much, as a table."""
        with self._cursor() as cursor:
            rows = _fetched(cursor.execute(readable), _MOST_HELD_ROWS + 1)
            if len(rows) <= _MOST_HELD_ROWS:
                return Found(fields, rows, read_bytes, len(rows))
            kept = f"{_ANSWERS}.{_quoted(new_id(20))}"
            cursor.execute(f"CREATE TABLE {kept} AS {readable}")
            ((count,),) = _fetched(cursor.execute(f"SELECT count(*) FROM {kept}"), 1)
        return Found(fields, (), read_bytes, int(count), kept)

    def _fields(self, sql: str) -> tuple[Field, ...]:
        relation = self._bound(sql)
        return tuple(map(_field, relation.columns, relation.types))

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        """Yield a connection for what takes long, which `interrupt` ends.

        Raises:
            ApiError: in the place of the engine's refusals.
        """
        import duckdb

        with self._lock:
            cursor = self._open().cursor()
        self._running.add(cursor)
        try:
            with closing(cursor):
                yield cursor
        except duckdb.Error as error:
            raise _refused(error) from None
        finally:
            self._running.discard(cursor)

    def _note(self, dataset: str, table: str) -> None:
        """Write down what a table that has just been made is like; its size is that of its rows as JSON.

        Of a long table, that of its first rows stands for all.
        """
        name, now_ms = f"{_quoted(dataset)}.{_quoted(table)}", self._config.clock_ns() // 1_000_000
        with self._lock:
            database = self._open()
            ((rows,),) = database.execute(f"SELECT count(*) FROM {name}").fetchall()
            ((measured, size),) = database.execute(
                "SELECT count(*), coalesce(sum(octet_length(encode(to_json(t)::VARCHAR))), 0) "
                f"FROM (SELECT * FROM {name} LIMIT {_MEASURED_ROWS}) AS t"
            ).fetchall()
            size = int(size) * rows // measured if measured else 0
            database.execute("DELETE FROM noted WHERE dataset = ? AND name = ?", [dataset, table])
            database.execute("INSERT INTO noted VALUES (?, ?, ?, ?, ?, '{}', 0)", [dataset, table, rows, size, now_ms])

    def _open(self) -> Any:
        # Loaded when it is first asked for: most sandboxes never hold a table.
        if self._database is None:
            import duckdb

            self._database = duckdb.connect(self._path, config={"threads": 1, "memory_limit": _MEMORY})
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS noted"
                "(dataset VARCHAR, name VARCHAR, row_count BIGINT, size_bytes BIGINT, modified_ms BIGINT, "
                "labels VARCHAR, expires_ms BIGINT)"
            )
            self._database.execute(f"DROP SCHEMA IF EXISTS {_ANSWERS} CASCADE")
            for schema in (*self._config.datasets, _ANSWERS):
                self._database.execute(f"CREATE SCHEMA IF NOT EXISTS {_quoted(schema)}")
            for macro in translation.MACROS:
                self._database.execute(macro)
        return self._database


def _refused(error: Exception) -> ApiError:
    return ApiError(400, f"[sandbox] {' '.join(str(error).split())[:600]}")


def _fetched(found: Any, most_rows: int) -> tuple[tuple[Any, ...], ...]:
    """Return the first rows of what was found, without a look at any beyond them."""
    return tuple(map(tuple, found.fetchmany(most_rows)))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _readable(sql: str, relation: Any) -> str:
    """Return a query with its TIMESTAMPs as microseconds since 1970: as such, they take a library of time zones."""
    zoned = [str(kind).lower() == "timestamp with time zone" for kind in relation.types]
    if not any(zoned):
        return sql
    each = zip(map(_quoted, relation.columns), zoned, strict=True)
    columns = ", ".join(f"epoch_us({name}) AS {name}" if is_zoned else name for name, is_zoned in each)
    return f"SELECT {columns} FROM ({sql})"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


_TYPES: Final = {
    "boolean": "BOOLEAN",
    "tinyint": "INTEGER",
    "smallint": "INTEGER",
    "integer": "INTEGER",
    "bigint": "INTEGER",
    "hugeint": "INTEGER",
    "ubigint": "INTEGER",
    "uinteger": "INTEGER",
    "float": "FLOAT",
    "double": "FLOAT",
    "decimal": "NUMERIC",
    "varchar": "STRING",
    "json": "JSON",
    "blob": "BYTES",
    "date": "DATE",
    "time": "TIME",
    "timestamp": "DATETIME",
    "timestamp with time zone": "TIMESTAMP",
    "struct": "RECORD",
}


def _field(name: str, kind: Any) -> Field:
    if kind.id in ("list", "array"):
        inner = _field(name, kind.children[0][1])
        return dataclasses.replace(inner, mode="REPEATED")
    if kind.id == "struct":
        return Field(name, "RECORD", fields=tuple(_field(inner, of) for inner, of in kind.children))
    word = str(kind).lower()
    return Field(name, _TYPES.get(word, _TYPES.get(kind.id, "STRING")))
