"""Which rows of an order need not be sent: those that another row repeats, those that an earlier batch has answered.

Rows are compared by the identities of their requests, in the engine and within bounded memory, whatever their number.
"""

# ruff: noqa: S608 - queries consist of our own names, of numbers, and of literals made by `quoted`

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import msgspec

from gemini_batch_mcp.domain import Donor, Spared
from gemini_batch_mcp.results.answer_index import identities_in
from gemini_batch_mcp.results.engine import connect, execute_widening, listed, quoted, table_errors, widening
from gemini_batch_mcp.results.reuse.giving import Giving
from gemini_batch_mcp.results.reuse.spared_files import RawAnswers, SparedFiles

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: What the engine may hold (a bound, it writes to the disk what is more): a million identities take 40 MB.
_MEMORY_LIMIT_BYTES: Final = 96 << 20
_FETCHED_ROWS: Final = 10_000
#: A byte for each bit of a byte.
_BYTES_OF_BITS: Final = [bytes(map(int, f"{bits:08b}")) for bits in range(256)]
#: Of an order's rows, counted as `identities_in` counts them.
_FIRST_ROW: Final = 1
_FAILED: Final = "The requests could not be compared with those of earlier batches"


class Matching:
    """The rows of one order, laid against each other and against earlier batches."""

    def __init__(self, connection: "DuckDBPyConnection", identities: Path) -> None:
        self._connection = connection
        self._identities = identities
        self._donors: list[Giving] = []
        self._execute(
            f"""CREATE TEMP TABLE firsts AS
                SELECT identity, min(row) AS row, count(*) AS times
                FROM {identities_in(identities)} GROUP BY identity"""
        )
        connection.execute("CREATE TEMP TABLE taken (row BIGINT, times BIGINT, donor INTEGER)")
        self._rows, self._distinct = self._one("SELECT coalesce(sum(times), 0)::BIGINT, count(*) FROM firsts")

    def take_from(self, batches: Iterable[Giving]) -> Self:
        """Find the rows that one of these batches has answered; where several have, the first of them gives."""
        for batch in batches:
            self._take(batch)
        return self

    def _take(self, batch: Giving) -> None:
        left = "(FROM firsts ANTI JOIN taken USING (row))" if self._donors else "firsts"
        self._execute(
            f"""INSERT INTO taken
                SELECT row, times, {len(self._donors)} FROM {left} JOIN {_answers_in(batch)} USING (identity)"""
        )
        self._donors.append(batch)

    def _execute(self, statement: str) -> None:
        execute_widening(self._connection, statement, _MEMORY_LIMIT_BYTES)

    def spared(self, directory: Path) -> Spared | None:
        """Return which rows are not sent; None where all are. It is written down in `directory` by `write`."""
        donors = self._connection.execute(
            "SELECT donor, sum(times)::BIGINT, count(*) FROM taken GROUP BY donor ORDER BY donor"
        ).fetchall()
        reused, taken = sum(times for _, times, _ in donors), sum(count for _, _, count in donors)
        identical = self._rows - reused - (self._distinct - taken)
        if not reused and not identical:
            return None
        return Spared(
            directory=directory,
            reused_count=reused,
            identical_count=identical,
            donors=tuple(Donor(self._donors[donor].batch_id, count) for donor, count, _ in donors),
        )

    def write(self, directory: Path) -> None:
        """Write down in `directory` which rows are not sent, and whose answers they get."""
        files, sources, parts = SparedFiles(directory), list[RawAnswers](), []
        used = self._connection.execute("SELECT DISTINCT donor FROM taken ORDER BY donor").fetchall()
        for (number,) in used:
            batch = self._donors[number]
            places = listed(range(len(sources), len(sources) + len(batch.sources)))
            sources += batch.sources
            parts.append(
                f"""SELECT row, ({places})[file + 1] AS source, line,
                           coalesce(nullif(answered_by, ''), {quoted(batch.batch_id)}) AS answered_by
                    FROM taken JOIN firsts USING (row) JOIN {_answers_in(batch)} USING (identity)
                    WHERE donor = {number}"""
            )
        files.sources_path.write_bytes(msgspec.json.encode(sources))
        none = "SELECT row, 0 AS source, 0 AS line, '' AS answered_by FROM taken"
        chosen = " UNION ALL ".join(parts) or none
        self._execute(f"COPY ({chosen} ORDER BY row) TO {quoted(files.chosen_path)} (FORMAT parquet)")
        self._execute(
            f"""COPY (SELECT mine.row, firsts.row AS first_row
                      FROM {identities_in(self._identities)} mine JOIN firsts USING (identity)
                      WHERE mine.row <> firsts.row ORDER BY mine.row)
                TO {quoted(files.alike_path)} (FORMAT parquet)"""
        )

    def sent(self) -> bytes:
        """Return a byte for each row, in order: 1 for one that is sent, and 0."""
        # Every first one is, but those that are taken.
        marks = (self._marks("firsts") ^ self._marks("taken")).to_bytes((self._rows + 7) // 8, "big")
        return b"".join(map(_BYTES_OF_BITS.__getitem__, marks))[-self._rows :] if self._rows else b""

    def _marks(self, table: str) -> int:
        """Return a number whose lowest bit stands for the last row, and so on: 1 for those that are in a table."""
        (marks,) = self._one(
            f"SELECT bitstring_agg(row, {_FIRST_ROW}::BIGINT, {self._rows}::BIGINT)::BLOB FROM {table}"
        )
        return int.from_bytes(marks, "big") if marks is not None else 0

    def _one(self, query: str) -> tuple[Any, ...]:
        row = widening(self._connection, _MEMORY_LIMIT_BYTES, lambda: self._connection.execute(query).fetchone())
        assert row is not None, "an aggregate always yields a row"
        return row


def _answers_in(batch: Giving) -> str:
    return f"(FROM read_parquet({quoted(batch.index)}, hive_partitioning = false))"


@contextmanager
def matching(identities: Path, workspace: Path) -> Iterator[Matching]:
    """Lay the rows with these identities against each other. What does not fit goes to `workspace`.

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
