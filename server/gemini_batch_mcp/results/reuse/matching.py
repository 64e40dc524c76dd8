"""Which rows of an order need not be sent: those that another row repeats, those that an earlier batch has answered.

Rows are compared by the identities of their requests, in the engine and within bounded memory, whatever their number.
"""

# ruff: noqa: S608 - queries consist of our own names, of numbers, and of literals made by `quoted`

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import msgspec

from gemini_batch_mcp.domain import Donor, Spared
from gemini_batch_mcp.errors import StorageError
from gemini_batch_mcp.results.answer_index import INDEX_NAME, identities_in
from gemini_batch_mcp.results.engine import connect, execute_widening, listed, quoted, table_errors, widening
from gemini_batch_mcp.results.reuse.spared_files import RawAnswers, SparedFiles
from gemini_batch_mcp.results.table.summary import folder_of, read_facts

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: What the engine may hold (a bound, it writes to the disk what is more): a million identities take 40 MB.
_MEMORY_LIMIT_BYTES: Final = 96 << 20
_FETCHED_ROWS: Final = 10_000
#: Of an order's rows, counted as `identities_in` counts them.
_FIRST_ROW: Final = 1
_FAILED: Final = "The requests could not be compared with those of earlier batches"


@dataclass(frozen=True, slots=True)
class Answered:
    """A batch that may have answers to give: its id, and where its table is."""

    batch_id: str
    table: Path


class _Build(msgspec.Struct):
    build: str = ""


def answers_stamp(batches: Sequence[Answered]) -> str:
    """Return a text that changes whenever one of these batches has other answers to give. Quick."""
    decode = msgspec.json.Decoder(_Build).decode
    seen: list[str] = []
    for batch in batches:
        try:
            build = decode(batch.table.read_bytes()).build
        except (OSError, msgspec.MsgspecError):
            continue
        if (folder_of(batch.table, build) / INDEX_NAME).is_file():
            seen.append(build)
    return " ".join(seen)


class Matching:
    """The rows of one order, laid against each other and against earlier batches."""

    def __init__(self, connection: "DuckDBPyConnection", identities: Path) -> None:
        self._connection = connection
        self._sources: list[RawAnswers] = []
        self._places: dict[Path, int] = {}
        self._donors: list[str] = []
        self._execute(f"CREATE TEMP TABLE mine AS FROM {identities_in(identities)}")
        self._execute(
            """CREATE TEMP TABLE firsts AS
               SELECT identity, min(row) AS row, count(*) AS times FROM mine GROUP BY identity"""
        )
        connection.execute(
            """CREATE TEMP TABLE taken (identity UUID, row BIGINT, times BIGINT, donor INTEGER, source INTEGER,
                                        line BIGINT, answered_by VARCHAR)"""
        )

    def take_from(self, batches: Sequence[Answered]) -> Self:
        """Find the rows that one of these batches has answered; where several have, the first of them gives."""
        for batch in batches:
            self._take(batch)
        return self

    def _take(self, batch: Answered) -> None:
        try:
            facts = read_facts(batch.table)
        except StorageError:
            return
        index = folder_of(batch.table, facts.build) / INDEX_NAME
        if not index.is_file():
            return
        places: list[int] = []
        for file in facts.files:
            path = batch.table.parent / file.path
            place = self._places.setdefault(path, len(self._sources))
            if place == len(self._sources):
                self._sources.append(RawAnswers(batch.batch_id, str(path), file.size_bytes, file.modified_ns))
            places.append(place)
        self._donors.append(batch.batch_id)
        sources = listed(places)
        self._execute(
            f"""INSERT INTO taken
                SELECT firsts.identity, firsts.row, firsts.times, {len(self._donors) - 1}, ({sources})[file + 1], line,
                       coalesce(nullif(answered_by, ''), {quoted(batch.batch_id)})
                FROM read_parquet({quoted(index)}, hive_partitioning = false) given
                JOIN (FROM firsts ANTI JOIN taken USING (identity)) firsts ON firsts.identity = given.identity"""
        )

    def _execute(self, statement: str) -> None:
        execute_widening(self._connection, statement, _MEMORY_LIMIT_BYTES)

    def spared(self, directory: Path) -> Spared | None:
        """Write down in `directory` which rows are not sent, and whose answers they get; None where all are sent."""
        rows, distinct = self._one("SELECT count(*), (SELECT count(*) FROM firsts) FROM mine")
        reused, taken = self._one("SELECT coalesce(sum(times), 0), count(*) FROM taken")
        identical = rows - int(reused) - (distinct - taken)
        if not reused and not identical:
            return None
        used = self._connection.execute("SELECT DISTINCT source FROM taken ORDER BY source").fetchall()
        numbers = {source: number for number, (source,) in enumerate(used)}
        donors = self._connection.execute(
            "SELECT donor, sum(times) FROM taken GROUP BY donor ORDER BY donor"
        ).fetchall()
        spared = Spared(
            directory=directory,
            reused_count=int(reused),
            identical_count=identical,
            donors=tuple(Donor(self._donors[donor], int(count)) for donor, count in donors),
        )
        files = SparedFiles(directory)
        files.sources_path.write_bytes(msgspec.json.encode([self._sources[source] for source in numbers]))
        self._execute(
            f"""COPY (SELECT mine.row, firsts.row AS first_row FROM mine JOIN firsts USING (identity)
                      WHERE mine.row <> firsts.row ORDER BY mine.row)
                TO {quoted(files.alike_path)} (FORMAT parquet)"""
        )
        renumbered = listed(numbers.get(source, 0) for source in range(max(numbers, default=0) + 1))
        self._execute(
            f"""COPY (SELECT row, ({renumbered})[source + 1] AS source, line, answered_by
                      FROM taken ORDER BY row)
                TO {quoted(files.chosen_path)} (FORMAT parquet)"""
        )
        return spared

    def sent(self) -> bytes:
        """Return a byte for each row, in order: 1 for one that is sent, and 0."""
        (count,) = self._one("SELECT count(*) FROM mine")
        marks = bytearray(b"\x01") * count
        # By their numbers, some at a time: put together in the engine, millions of marks would not fit in its memory.
        query = """SELECT row FROM mine
                   ANTI JOIN (SELECT row FROM firsts ANTI JOIN taken USING (identity)) sent USING (row)"""
        spared = widening(self._connection, _MEMORY_LIMIT_BYTES, lambda: self._connection.execute(query))
        while chunk := spared.fetchmany(_FETCHED_ROWS):
            for (row,) in chunk:
                marks[row - _FIRST_ROW] = 0
        return bytes(marks)

    def _one(self, query: str) -> tuple[Any, ...]:
        row = widening(self._connection, _MEMORY_LIMIT_BYTES, lambda: self._connection.execute(query).fetchone())
        assert row is not None, "an aggregate always yields a row"
        return row


@contextmanager
def matching(identities: Path, workspace: Path) -> Iterator[Matching]:
    """Lay the rows with these identities (one a line) against each other. What does not fit goes to `workspace`.

    Raises:
        StorageError: files cannot be read or written.
    """
    with table_errors(_FAILED, workspace):
        connection = connect(_MEMORY_LIMIT_BYTES, workspace / "spill")
        try:
            yield Matching(connection, identities)
        finally:
            connection.close()


class Choice(NamedTuple):
    """One answer that is taken: for which row, from which line of which source, and who has answered it."""

    row: int
    source: int
    line: int
    answered_by: str
    #: The key of the row, as a JSON string.
    key: str


def choices(files: SparedFiles) -> Iterator[Choice]:
    """Yield what is taken, source by source and line by line.

    Raises:
        StorageError: files cannot be read.
    """
    with table_errors(_FAILED, files.directory):
        connection = connect(_MEMORY_LIMIT_BYTES, files.directory / "spill")
        try:
            execute_widening(
                connection,
                f"""CREATE TEMP TABLE found AS
                    SELECT chosen.row, source, line, answered_by, key
                    FROM read_parquet({quoted(files.chosen_path)}) chosen
                    JOIN (SELECT row_number() OVER () AS row, key
                          FROM read_csv({quoted(files.keys_path)}, header = false, auto_detect = false,
                                        columns = {{key: 'VARCHAR'}}, delim = '\x01', quote = '', escape = '',
                                        compression = 'none')) keys ON keys.row = chosen.row""",
                _MEMORY_LIMIT_BYTES,
            )
            found = connection.execute("SELECT row, source, line, answered_by, key FROM found ORDER BY source, line")
            while chunk := found.fetchmany(_FETCHED_ROWS):
                yield from map(Choice._make, chunk)
        finally:
            connection.close()
