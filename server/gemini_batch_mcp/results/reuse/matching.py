"""Which rows of an order need not be sent: those that another row repeats, those that an earlier batch has answered.

Rows are compared by the identities of their requests, in the engine and within bounded memory, whatever their number.
"""

# ruff: noqa: S608 - queries consist of our own names, of numbers, and of literals made by `quoted`

from collections.abc import Iterable, Iterator, Sequence
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
#: Indexes of at least so much are looked through in one pass, and of an eighth of the order's own identities: a pass
#: over the rows takes as long for a few answers as for many (measured: 100 small batches in 0.4 s, 1.4 s one by one).
_BUNDLE_BYTES: Final = 1 << 20
_BUNDLE_SHARE: Final = 8
#: A byte for each bit of a byte.
_BYTES_OF_BITS: Final = [bytes(map(int, f"{bits:08b}")) for bits in range(256)]
#: Of an order's rows, counted as `identities_in` counts them.
_FIRST_ROW: Final = 1
_FAILED: Final = "The requests could not be compared with those of earlier batches"


class Matching:
    """The rows of one order, laid against each other and against earlier batches.

    First those are set aside that a batch has answered: only what is left is compared with each other.
    """

    def __init__(self, connection: "DuckDBPyConnection", identities: Path) -> None:
        self._connection = connection
        self._size_bytes = identities.stat().st_size
        #: The rows with their identities: all of them, and those that no batch has answered so far.
        self._all = self._left = identities_in(identities)
        (self._rows,) = self._one(f"SELECT count(*) FROM {self._all}")
        self._left_rows = self._rows
        #: The batches that give answers, and to how many rows each.
        self._donors: list[tuple[Giving, int]] = []

    def take_from(self, batches: Iterable[Giving]) -> Self:
        """Find the rows that one of these batches has answered; where several have, the first of them gives."""
        for number, together in enumerate(_bundles(batches, max(_BUNDLE_BYTES, self._size_bytes // _BUNDLE_SHARE))):
            if self._left_rows:
                self._set_aside(together, f"left_{number}")
        self._execute(f"CREATE TEMP TABLE sent AS SELECT min(row) AS row FROM {self._left} GROUP BY identity")
        return self

    def _set_aside(self, batches: Sequence[Giving], left: str) -> None:
        answers, before = _answers_in(batches), self._left
        self._execute(f"CREATE TEMP TABLE {left} AS FROM {before} ANTI JOIN {answers} USING (identity)")
        (rows,) = self._one(f"SELECT count(*) FROM {left}")
        taken = [(0, self._left_rows - rows)] if rows < self._left_rows else []
        if taken and len(batches) > 1:
            which = f"SELECT min(donor) AS donor FROM {before} JOIN {answers} USING (identity) GROUP BY row"
            by_donor = f"SELECT donor, count(*) FROM ({which}) GROUP BY donor ORDER BY donor"
            taken = widening(
                self._connection, _MEMORY_LIMIT_BYTES, lambda: self._connection.execute(by_donor).fetchall()
            )
        self._donors += [(batches[donor], count) for donor, count in taken]
        if before != self._all:
            self._connection.execute(f"DROP TABLE {before}")
        self._left, self._left_rows = left, rows

    def _execute(self, statement: str) -> None:
        execute_widening(self._connection, statement, _MEMORY_LIMIT_BYTES)

    def spared(self, directory: Path) -> Spared | None:
        """Return which rows are not sent; None where all are. It is written down in `directory` by `write`."""
        (sent,) = self._one("SELECT count(*) FROM sent")
        if sent == self._rows:
            return None
        reused = sum(rows for _, rows in self._donors)
        return Spared(
            directory=directory,
            reused_count=reused,
            identical_count=self._rows - reused - sent,
            donors=tuple(Donor(batch.batch_id, rows) for batch, rows in self._donors),
        )

    def sent_also_in(self, others: Sequence[Path]) -> int:
        """Return how many of the requests that are sent stand in one of these files of identities as well."""
        theirs = f"read_parquet({listed(map(quoted, others))}, hive_partitioning = false)"
        (count,) = self._one(f"SELECT count(DISTINCT identity) FROM {self._left} SEMI JOIN {theirs} USING (identity)")
        return int(count)

    def write(self, directory: Path) -> None:
        """Write down in `directory` which rows are not sent, and whose answers they get."""
        files, sources = SparedFiles(directory), list[RawAnswers]()
        self._execute(
            f"CREATE TEMP TABLE firsts AS SELECT identity, min(row) AS row FROM {self._all} GROUP BY identity"
        )
        self._connection.execute(
            "CREATE TEMP TABLE chosen (row BIGINT, source INTEGER, line BIGINT, answered_by VARCHAR)"
        )
        for batch, _ in self._donors:
            places = listed(range(len(sources), len(sources) + len(batch.sources)))
            sources += batch.sources
            # What an earlier one of them gives is not taken from a later one.
            self._execute(
                f"""INSERT INTO chosen
                    SELECT row, ({places})[file + 1], line, coalesce(nullif(answered_by, ''), {quoted(batch.batch_id)})
                    FROM firsts JOIN {_answers_in([batch])} USING (identity) ANTI JOIN chosen USING (row)"""
            )
        files.sources_path.write_bytes(msgspec.json.encode(sources))
        self._execute(f"COPY (FROM chosen ORDER BY row) TO {quoted(files.chosen_path)} (FORMAT parquet)")
        self._execute(
            f"""COPY (SELECT mine.row, firsts.row AS first_row
                      FROM {self._all} mine JOIN firsts USING (identity)
                      WHERE mine.row <> firsts.row ORDER BY mine.row)
                TO {quoted(files.alike_path)} (FORMAT parquet)"""
        )

    def sent(self) -> bytes:
        """Return a byte for each row, in order: 1 for one that is sent, and 0."""
        (marks,) = self._one(f"SELECT bitstring_agg(row, {_FIRST_ROW}::BIGINT, {self._rows}::BIGINT)::BLOB FROM sent")
        if marks is None:
            return bytes(self._rows)
        # The lowest bit stands for the last row.
        return b"".join(map(_BYTES_OF_BITS.__getitem__, marks))[-self._rows :]

    def _one(self, query: str) -> tuple[Any, ...]:
        row = widening(self._connection, _MEMORY_LIMIT_BYTES, lambda: self._connection.execute(query).fetchone())
        assert row is not None, "an aggregate always yields a row"
        return row


def _answers_in(batches: Iterable[Giving]) -> str:
    """Return the subquery of the indexes of batches; `donor` is the place of the batch among them."""
    indexes = listed(quoted(batch.index) for batch in batches)
    return f"(SELECT *, file_index AS donor FROM read_parquet({indexes}, hive_partitioning = false))"


def _bundles(batches: Iterable[Giving], least_bytes: int) -> Iterator[list[Giving]]:
    """Yield batches that are looked through in one pass, in their order: indexes of so many bytes, if there are."""
    bundle, size_bytes = list[Giving](), 0
    for batch in batches:
        bundle.append(batch)
        size_bytes += batch.index.stat().st_size
        if size_bytes >= least_bytes:
            yield bundle
            bundle, size_bytes = [], 0
    if bundle:
        yield bundle


@contextmanager
def matching(identities: Path, workspace: Path, spill: str = "spill") -> Iterator[Matching]:
    """Lay the rows with these identities against each other. What does not fit goes to `spill` in `workspace`.

    Raises:
        StorageError: files cannot be read or written.
    """
    with table_errors(_FAILED, workspace):
        connection = connect(_MEMORY_LIMIT_BYTES, workspace / spill)
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
