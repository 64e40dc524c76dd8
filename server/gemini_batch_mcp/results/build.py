"""From downloaded answer files to the result table of a batch.

Two passes. The first streams every answer line through `classified` into a staged Parquet file. Its keys are then laid
against the keys that were sent. When every key came back once and in order, which is the rule, the staged file is the
table. Otherwise a second pass writes the table: one row for each key that was sent, the missing ones included.
"""

# ruff: noqa: S608 - queries consist of our own names, of numbers, and of literals made by `quoted`

import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import msgspec

from gemini_batch_mcp.domain import ResultSummary
from gemini_batch_mcp.errors import StorageError
from gemini_batch_mcp.results import merge
from gemini_batch_mcp.results.classify import answer_source, classified
from gemini_batch_mcp.results.database import connect, execute_widening, quoted, storage_errors
from gemini_batch_mcp.results.lines import AnswerFile, answer_lines, longest_line_bytes, mended
from gemini_batch_mcp.results.summary import FOOTER_KEY, RawFile, TableFacts, facts_path, footer_value, other_facts

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: Enough for lines of a few kilobytes, and small enough for a server of 130 MB to stay below 300 MB.
MEMORY_LIMIT_BYTES: Final = 104 << 20
#: DuckDB's own default. Its buffers are twice this size, and never below 32 MB.
_MAX_LINE_BYTES: Final = 16 << 20
#: Row groups: what a page has to unpack, so small; by bytes where rows are wide.
_ROW_GROUP: Final = "ROW_GROUP_SIZE 6144, ROW_GROUP_SIZE_BYTES 16777216"
#: Measured on 1 GB of prose: a quarter faster than the default level, a fifth larger.
_COMPRESSION: Final = "COMPRESSION zstd, COMPRESSION_LEVEL 1"
_FETCHED_ROWS: Final = 4096
_STALE_SECONDS: Final = 24 * 3600
_WORKSPACE_PREFIX: Final = ".results-"


@dataclass(frozen=True, slots=True)
class _Reader:
    """What the widest line takes: decided by the first pass, used by all later ones."""

    max_line_bytes: int
    memory_limit_bytes: int

    def rows(self, path: Path) -> str:
        return classified(answer_source(quoted(path), self.max_line_bytes))

    def widened(self, line_bytes: int) -> Self:
        # Measured: two buffers of twice the longest line, its parsed form, and copies of its text.
        extra = max(line_bytes + 1 - self.max_line_bytes, 0)
        return replace(
            self,
            max_line_bytes=self.max_line_bytes + extra,
            memory_limit_bytes=self.memory_limit_bytes + 2 * extra,
        )


def build_table(
    answers: Sequence[AnswerFile],
    destination: Path,
    *,
    expected_rows: int = 0,
    batch_id: str = "",
    memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
) -> ResultSummary:
    """Write the result table of one batch to `destination`, a Parquet file, and return its summary.

    The table appears, or replaces an older one, in one step. `expected_rows` counts the rows sent; it is used only when
    no answer file comes with its keys. `batch_id` ties cursors to the batch, through any number of builds; without it
    they are tied to the path. `memory_limit_bytes` bounds the engine's memory; rows of tens of kilobytes get more.

    Raises:
        StorageError: an answer file is missing, or files cannot be read or written.
    """
    for answer in answers:
        for path in (answer.path, answer.keys_path):
            if path is not None and not path.is_file():
                raise StorageError(f"{path} is missing.", "Collect the batch again.")
    with (
        storage_errors(f"The answers could not be made into {destination.name}"),
        _workspace(destination.parent) as workspace,
    ):
        connection = connect(memory_limit_bytes, workspace)
        try:
            identity = batch_id or str(destination)
            return _build(connection, answers, destination, workspace, expected_rows, identity, memory_limit_bytes)
        finally:
            connection.close()


def _build(
    connection: "DuckDBPyConnection",
    answers: Sequence[AnswerFile],
    destination: Path,
    workspace: Path,
    expected_rows: int,
    identity: str,
    memory_limit_bytes: int,
) -> ResultSummary:
    build = uuid.uuid4().hex
    staged = workspace / "staged.parquet"
    reader = _stage(connection, answers or [AnswerFile(_empty_file(workspace))], staged, build, memory_limit_bytes)
    line_counts = _line_counts(connection, staged, len(answers))
    repaired = _repair(connection, answers, staged, reader, workspace)
    starts = merge.line_starts(answers, line_counts)
    keys_paths = list(dict.fromkeys(answer.keys_path for answer in answers if answer.keys_path is not None))
    merge.load_lines(connection, staged, repaired, starts, keys_known=bool(keys_paths))
    merge.load_asked(connection, keys_paths)
    row_count = merge.count(connection, "asked")
    table, leftovers = staged, merge.Leftovers()
    if repaired or not merge.is_settled(connection, staged):
        table = workspace / "table.parquet"
        merge.load_placed(connection)
        leftovers = merge.leftovers(connection)
        query = merge.merged(connection, staged, repaired, starts)
        execute_widening(connection, f"COPY ({query}) TO {_parquet(table, build)}", reader.memory_limit_bytes)
    summary = merge.summarise(connection, table, leftovers, expected_rows=0 if keys_paths else expected_rows)
    facts = TableFacts(
        build=build,
        identity=identity,
        rows=row_count,
        summary=summary,
        files=tuple(
            RawFile(_stored_path(answer.path, destination.parent), answer.path.stat().st_size, lines, answer.attempt)
            for answer, lines in zip(answers, line_counts, strict=True)
        ),
    )
    _commit(table, destination, facts)
    return summary


def _stage(
    connection: "DuckDBPyConnection", answers: Sequence[AnswerFile], staged: Path, build: str, memory_limit_bytes: int
) -> _Reader:
    """Write every line of every answer file as a row of `staged`, and return how wide lines had to be read.

    One query a file, joined by UNION ALL: the reader keeps 32 MB for each file of a list, whatever its size. `row` is
    counted here and not by a window over all files, which would double the time.
    """
    import duckdb

    paths = [answer.path for answer in answers]
    rows_before = accumulate((sum(1 for _ in answer_lines(path)) for path in paths[:-1]), initial=0)
    constants = [
        f"{before} + line AS row, {file}::INTEGER AS file, {answer.attempt}::INTEGER AS attempt"
        for file, (before, answer) in enumerate(zip(rows_before, answers, strict=True))
    ]

    def copy(reader: _Reader) -> str:
        per_file = (f"SELECT *, {more} FROM ({reader.rows(path)})" for path, more in zip(paths, constants, strict=True))
        return f"COPY ({' UNION ALL '.join(per_file)}) TO {_parquet(staged, build)}"

    reader = _Reader(_MAX_LINE_BYTES, memory_limit_bytes)
    try:
        connection.execute(copy(reader))
    except duckdb.Error:
        reader = replace(reader, memory_limit_bytes=2 * memory_limit_bytes).widened(longest_line_bytes(paths))
        execute_widening(connection, copy(reader), reader.memory_limit_bytes)
    return reader


def _repair(
    connection: "DuckDBPyConnection", answers: Sequence[AnswerFile], staged: Path, reader: _Reader, workspace: Path
) -> Path | None:
    """Read lines that were no JSON once more in their mended form; None when that changed nothing.

    The file returned holds rows as `staged` does, which replace the rows of the same file and line.
    """
    unreadable = connection.execute(
        f"SELECT file, line FROM {merge.rows_of(staged)} WHERE status IS NULL ORDER BY file, line"
    )
    text_path, place_path = workspace / "mended.jsonl", workspace / "places.jsonl"
    mended_count = longest = 0
    with text_path.open("w", encoding="utf-8") as texts, place_path.open("w", encoding="utf-8") as places:
        for file, line, text in _mended_lines(answers, _fetched(unreadable)):
            texts.write(text + "\n")
            places.write(f'{{"file":{file},"line":{line},"attempt":{answers[file].attempt}}}\n')
            mended_count, longest = mended_count + 1, max(longest, len(text.encode()))
    if not mended_count:
        return None
    repaired = workspace / "repaired.parquet"
    reader = reader.widened(longest)
    execute_widening(
        connection,
        f"""COPY (
            SELECT p.file, p.line, p.attempt, m.* EXCLUDE (line)
            FROM ({reader.rows(text_path)}) m
            JOIN (SELECT row_number() OVER () AS number, *
                  FROM read_json({quoted(place_path)}, format = 'newline_delimited', hive_partitioning = false,
                                 columns = {{file: 'INTEGER', line: 'BIGINT', attempt: 'INTEGER'}})) p
              ON p.number = m.line
            WHERE m.status IS NOT NULL
        ) TO {quoted(repaired)} (FORMAT parquet, {_ROW_GROUP})""",
        reader.memory_limit_bytes,
    )
    return repaired if merge.count(connection, merge.rows_of(repaired)) else None


def _mended_lines(
    answers: Sequence[AnswerFile], unreadable: Iterator[tuple[int, int]]
) -> Iterator[tuple[int, int, str]]:
    """Yield file, line and text of those lines of `unreadable`, which is in order, that mending changes."""
    for file, places in groupby(unreadable, key=itemgetter(0)):
        contents = enumerate(answer_lines(answers[file].path), start=1)
        for _, wanted in places:
            content = next(content for line, (_, content) in contents if line == wanted)
            text = mended(content)
            if text and text.encode() != content.rstrip(b"\r\n"):
                yield file, wanted, text


def _fetched(result: "DuckDBPyConnection") -> Iterator[tuple[int, int]]:
    while chunk := result.fetchmany(_FETCHED_ROWS):
        yield from chunk


def _line_counts(connection: "DuckDBPyConnection", staged: Path, file_count: int) -> list[int]:
    counts = dict(connection.execute(f"SELECT file, count(*) FROM {merge.rows_of(staged)} GROUP BY file").fetchall())
    return [counts.get(number, 0) for number in range(file_count)]


def _stored_path(path: Path, directory: Path) -> str:
    return str(path.relative_to(directory)) if path.is_relative_to(directory) else str(path.absolute())


def _empty_file(directory: Path) -> Path:
    path = directory / "empty.jsonl"
    path.touch()
    return path


def _parquet(path: Path, build: str) -> str:
    return (
        f"{quoted(path)} (FORMAT parquet, {_COMPRESSION}, {_ROW_GROUP}, "
        f"KV_METADATA {{{quoted(FOOTER_KEY)}: {quoted(footer_value(build))}}})"
    )


def _commit(table: Path, destination: Path, facts: TableFacts) -> None:
    """Put the table in place. Its facts go first, under a name only this build knows; the rename makes both valid."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    facts_file = facts_path(destination, facts.build)
    facts_file.write_bytes(msgspec.json.encode(facts))
    table.replace(destination)
    for older in other_facts(destination, facts.build):
        older.unlink(missing_ok=True)


@contextmanager
def _workspace(parent: Path) -> Iterator[Path]:
    """Provide a directory on the disk of the table, removed at the end; those of killed builds go after a day."""
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f"{_WORKSPACE_PREFIX}*"):
        with suppress(FileNotFoundError):  # another build may be tidying up too
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
    workspace = Path(tempfile.mkdtemp(prefix=_WORKSPACE_PREFIX, dir=parent))
    try:
        yield workspace
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
