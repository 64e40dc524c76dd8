"""From downloaded answer files to the result table of a batch.

Answers are staged slice by slice, while they arrive or from the disk, as parts of a table. Their keys are then laid
against the keys that were sent. When every key came back once and in order, which is the rule, the staged parts are the
table. Otherwise a second pass writes the table: one row for each key that was sent, the missing ones included.
"""

# ruff: noqa: S608 - queries consist of our own names, of numbers, and of literals made by `quoted`

import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import msgspec

from gemini_batch_mcp.domain import Column, ResultSummary
from gemini_batch_mcp.errors import StorageError
from gemini_batch_mcp.paths import DRAFT_PREFIX
from gemini_batch_mcp.results.answer_index import write_index
from gemini_batch_mcp.results.engine import (
    connect,
    execute_widening,
    leave_out,
    parts_of,
    quoted,
    rows_of,
    table_errors,
    widening,
)
from gemini_batch_mcp.results.structured.checking import AnswerCheck
from gemini_batch_mcp.results.structured.schema import field_columns, plain_schema
from gemini_batch_mcp.results.table import merge
from gemini_batch_mcp.results.table._arrange import arrange
from gemini_batch_mcp.results.table._count import (
    AttemptTokens,
    row_ranges,
    summarise,
    tokens_by_attempt,
    unfilled,
    vector_size,
)
from gemini_batch_mcp.results.table._media import MEDIA_TABLE, clear_stale_media, load_media
from gemini_batch_mcp.results.table._parts import PART_FORMAT, Parts, agree
from gemini_batch_mcp.results.table._staging import Place, Stager
from gemini_batch_mcp.results.table.inputs import TABLE_VERSION, AnswerFile, TablePlan
from gemini_batch_mcp.results.table.layout import Layout, layout
from gemini_batch_mcp.results.table.slices import AnswerBytes, Slice, slices_of
from gemini_batch_mcp.results.table.summary import (
    RawFile,
    RowRange,
    TableFacts,
    dated_ranges,
    folder_of,
    older_files,
    read_facts,
)

#: Measured at 1 GB: with 100 MB, memory that is given back and taken again costs half a second; 200 MB save a quarter
#: of a second more, but take a server past 300 MB.
MEMORY_LIMIT_BYTES: Final = 136 << 20
#: The engine begins every slice with fresh memory: measured at 1 GB, slices of 64 MB cost 0.7 s more than one of all.
#: Memory does not grow with a slice, unless its answers are laid beside the columns of a source, or checked.
_PLAIN_SLICE_BYTES: Final = 1 << 30
_SLICE_BYTES: Final = 64 << 20
#: How much larger the columns of a source are than its file, at most of the time.
_UNPACKED: Final = 10
_STALE_SECONDS: Final = 24 * 3600
_WORKSPACE_PREFIX: Final = DRAFT_PREFIX

T = TypeVar("T")


def build_table(
    answers: Sequence[AnswerFile],
    destination: Path,
    *,
    expected_rows: int = 0,
    batch_id: str = "",
    memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
) -> ResultSummary:
    """Write the result table of answers that are on the disk; see `TableBuild` and `TablePlan`."""
    plan = TablePlan(tuple(answers), batch_id=batch_id, expected_rows=expected_rows)
    return build_planned(plan, destination, memory_limit_bytes=memory_limit_bytes)


def build_planned(plan: TablePlan, destination: Path, *, memory_limit_bytes: int = MEMORY_LIMIT_BYTES) -> ResultSummary:
    """Write the result table that is planned from answers that are on the disk, and return its summary.

    Raises:
        StorageError: an answer file is missing, or files cannot be read or written.
    """
    with TableBuild(plan, destination, memory_limit_bytes=memory_limit_bytes) as build:
        for _ in plan.answers:
            build.add_next()
        return build.finish()


class TableBuild:
    """One build of a batch's result table, in steps, so that it can go on while answers arrive. To be closed.

    `add_next` takes the answers of the plan, one file after the other, in its order. Then `finish`. Every method
    blocks, and all are for one thread at a time. The table, which is what `destination` says (see `summary`), appears
    or replaces an older one in one step at the end; the answer files have to be in place by then. `memory_limit_bytes`
    bounds the engine's memory; rows of tens of kilobytes get more.

    Raises, in every method:
        StorageError: an answer file is missing, or files cannot be read or written.
    """

    def __init__(self, plan: TablePlan, destination: Path, *, memory_limit_bytes: int = MEMORY_LIMIT_BYTES) -> None:
        self._plan = plan
        self._destination = destination
        self._memory_limit_bytes = memory_limit_bytes
        self._stack = ExitStack()
        self._id = uuid.uuid4().hex
        self._line_counts: list[int] = []
        self._agreeing: list[int] = []
        self._answers: list[int] = []
        self._known: list[int] = []
        self._start: int | None = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Free some space for the build; `close` has to follow, whatever comes between."""
        with table_errors(self._failure, self._destination.parent):
            for path in self._plan.keys_paths:
                _require(path)
            if self._plan.rows is not None:
                _require(self._plan.rows.keys_path)
                _require(self._plan.rows.alike_path)
            self._workspace = self._stack.enter_context(_workspace(self._destination.parent))

    def close(self) -> None:
        """Let go of everything; a build that has not been finished leaves nothing."""
        self._stack.close()

    def add_next(self, arriving: AnswerBytes | None = None) -> None:
        """Take the next answer file of the plan: from the disk, or while it arrives."""
        with table_errors(self._failure, self._destination.parent):
            if self._start is None:
                self._prepare()
            self._start = len(self._staged)
        self._expect_file()
        self._add(arriving)

    def begin_again(self) -> None:
        """Forget the present answer file as far as it came, and take it from the disk."""
        assert self._start is not None, "there is an answer file"
        with table_errors(self._failure, self._destination.parent):
            self._staged.cut(self._start)
        self._forget_counts()
        self._add(None)

    def leave_out(self, number: int) -> None:
        """Take nothing of the answer file `number` (from 0), the present or the next one. The plan gets no table."""
        if number == len(self._line_counts):
            self._expect_file()
            return
        assert self._start is not None, "there is an answer file"
        with table_errors(self._failure, self._destination.parent):
            self._staged.cut(self._start)
        self._forget_counts()

    @property
    def answer_counts(self) -> tuple[int, ...]:
        """How many lines of each answer file can be read as answers, as far as they were taken.

        0 also when none of them has a key that was sent: an answer of somebody else, a proxy say, has the form of one.
        """
        return tuple(
            answers if known or not self._plan.keys_paths else 0
            for answers, known in zip(self._answers, self._known, strict=True)
        )

    def _expect_file(self) -> None:
        for counts in (self._line_counts, self._agreeing, self._answers, self._known):
            counts.append(0)

    def _forget_counts(self) -> None:
        for counts in (self._line_counts, self._agreeing, self._answers, self._known):
            counts[-1] = 0

    def finish(self) -> ResultSummary:
        """Put the table in place, and return its summary."""
        with table_errors(self._failure, self._destination.parent):
            if self._start is None:
                self._prepare()
            if not len(self._staged):
                empty = self._workspace / "empty.jsonl"
                empty.touch()
                self._staged.add(self._stager.stage(Slice.whole(empty), Place(0, 1, 0, 0)))
            if self._plan.response_schema:
                for part in parts_of(self._staged.folder):
                    agree(self._connection, part, self._layout, self._memory_limit_bytes)
            self._staged.join(self._connection, self._memory_limit_bytes)
            return self._finish()

    @property
    def _layout(self) -> Layout:
        return self._stager.layout

    @property
    def _failure(self) -> str:
        return f"The answers could not be made into {self._destination.name}"

    def _add(self, arriving: AnswerBytes | None) -> None:
        answer = self._plan.answers[len(self._line_counts) - 1]
        if answer.path is None:
            return
        if arriving is None:
            _require(answer.path)
        is_plain = self._source is None and not self._plan.response_schema
        with table_errors(self._failure, self._destination.parent):
            answers = arriving or AnswerBytes.of(answer.path)
            for piece in slices_of(answers, _PLAIN_SLICE_BYTES if is_plain else _SLICE_BYTES):
                self._stage(piece, answer)

    def _stage(self, piece: Slice, answer: AnswerFile) -> None:
        file = len(self._line_counts) - 1
        lines_before = self._line_counts[file]
        rows_before = lines_before + (answer.first_row if answer.row_count else sum(self._line_counts[:file]))
        part = self._staged.add(
            self._stager.stage(
                piece, Place(file, answer.attempt, lines_before, rows_before, answer.rates, answer.is_taken)
            )
        )
        self._answers[file] += merge.readable_rows(self._connection, part)
        if self._plan.keys_paths:
            agreeing = merge.agreeing_rows(self._connection, part, rows_before)
            self._agreeing[file] += agreeing
            self._known[file] += agreeing or merge.known_rows(self._connection, part)
        self._line_counts[file] += merge.count(self._connection, rows_of(part))

    def _prepare(self) -> None:
        """Open what a build needs; on first use, so that a download does not wait for it."""
        self._connection = connect(self._memory_limit_bytes, self._workspace)
        self._stack.callback(self._connection.close)
        # Whether rows fit in memory depends on which side of a join is held there, so that is decided here.
        self._connection.execute("SET disabled_optimizers = 'join_order,build_side_probe_side'")
        plan = self._plan
        self._source = plan.source_columns if plan.source_columns and plan.source_columns.is_file() else None
        planned = layout(
            self._source_columns(),
            field_columns(plain_schema(plan.response_schema)) if plan.response_schema else (),
            has_embedding=plan.task == "embed",
            has_history=plan.attempts > 1,
        )
        self._stager = Stager(
            self._connection,
            planned,
            self._workspace,
            source=self._source,
            check=AnswerCheck(plan.response_schema) if plan.response_schema else None,
            memory_limit_bytes=self._memory_limit_bytes,
        )
        self._staged = Parts(self._workspace / "staged")
        self._pending = merge.load_sent(self._connection, plan) if plan.keys_paths else 0

    def _source_columns(self) -> list[Column]:
        if self._source is None:
            return []
        described = self._connection.execute(f"DESCRIBE SELECT * FROM {rows_of(self._source)}").fetchall()
        return [Column(name, kind) for name, kind, *_ in described if name != "row"]

    def _finish(self) -> ResultSummary:
        table, leftovers = self._staged.folder, merge.Leftovers()
        attempts: tuple[AttemptTokens, ...] = ()
        if not self._within_memory(self._is_settled):
            position = merge.positions(self._plan.answers, self._line_counts)
            leftovers, attempts = self._within_memory(partial(self._match, position))
            table = self._merged(position)
        summarised = partial(
            summarise,
            self._connection,
            table,
            leftovers,
            expected_rows=0 if self._plan.keys_paths else self._plan.expected_rows,
            pending=self._pending,
            attempts=attempts,
        )
        summary = self._within_memory(summarised)
        self._commit(table, summary)
        return summary

    def _within_memory(self, step: Callable[[], T]) -> T:
        """Take a step whose need grows with the rows: answers that are paid for are not given up for want of memory."""
        return widening(self._connection, self._memory_limit_bytes, step)

    def _is_settled(self) -> bool:
        """True when the staged rows are the table: every key answered once, in order, and nothing else is there."""
        connection, plan, staged = self._connection, self._plan, rows_of(self._staged.folder)
        if plan.attempts > 1 or plan.rows is not None:
            return False
        if not plan.keys_paths:
            settled = merge.has_distinct_keys(connection, self._staged.folder)
        else:
            settled = sum(self._agreeing) == sum(self._line_counts) == merge.count(connection, "asked")
        carries_files = plan.media is not None and merge.count(connection, f"{staged} WHERE files IS NOT NULL")
        return settled and not carries_files

    def _match(self, position: str) -> tuple[merge.Leftovers, tuple[AttemptTokens, ...]]:
        """Lay the answers against the keys; what is without a partner, and the usage of each attempt if several."""
        connection, plan = self._connection, self._plan
        merge.load_lines(connection, self._staged.folder, position, plan)
        if not plan.keys_paths:
            merge.load_asked_from_lines(connection)
        merge.load_placed(connection)
        leftovers = merge.leftovers(connection)
        if plan.attempts < 2:
            return leftovers, ()
        merge.load_history(connection)
        merge.load_costs(connection, self._staged.folder, position)
        return leftovers, tokens_by_attempt(connection, self._staged.folder, position, plan.attempts)

    def _merged(self, position: str) -> Path:
        """Write the table in a second pass, and a third one where rows are missing or have columns of the source."""
        load_media(self._connection, self._plan, self._staged.folder, position, self._workspace)
        querying = partial(
            merge.merged,
            self._connection,
            self._staged.folder,
            position,
            self._layout,
            media=MEDIA_TABLE,
            shares_answers=self._plan.rows is not None,
        )
        query = self._within_memory(querying)
        merged, table = self._workspace / "merged.parquet", Parts(self._workspace / "table")
        execute_widening(
            self._connection, f"COPY ({query}) TO {quoted(merged)} ({PART_FORMAT})", self._memory_limit_bytes
        )
        if self._source is None and not merge.count(self._connection, "placed WHERE position IS NULL"):
            table.add(merged)
            return table.folder
        texts = sum(answer.path.stat().st_size for answer in self._plan.answers if answer.path is not None)
        arrange(
            self._connection,
            merged,
            table,
            self._layout,
            source=self._source,
            wide_bytes=texts + (_UNPACKED * self._source.stat().st_size if self._source is not None else 0),
            memory_limit_bytes=self._memory_limit_bytes,
        )
        return table.folder

    def _commit(self, table: Path, summary: ResultSummary) -> None:
        """Put the table in place. Its parts go first; what names them follows in one step, and makes them the table."""
        destination, plan = self._destination, self._plan
        if plan.identified is not None:
            asked = plan.identified
            write_index(self._connection, table, asked.path, asked.attempts, self._memory_limit_bytes)
        row_count = merge.count(self._connection, rows_of(table))
        ranges = row_ranges(self._connection, table) if summary.pending else [(1, row_count)] if row_count else []
        identity = plan.batch_id or str(destination)
        empty = unfilled(self._connection, table)
        leave_out(table, empty)
        facts = TableFacts(
            build=self._id,
            parts=tuple(part.stat().st_size for part in parts_of(table)),
            identity=identity,
            plan=plan.digest(),
            rows=row_count,
            ranges=dated_ranges(ranges, _ranges_before(destination, identity)),
            columns=tuple(column for column in self._layout.columns if column.name not in empty),
            vector_size=vector_size(self._connection, table) if self._layout.has_embedding else 0,
            has_schema=bool(plan.response_schema),
            summary=summary,
            files=tuple(
                _raw_file(answer, lines, destination.parent)
                for answer, lines in zip(plan.answers, self._line_counts, strict=True)
            ),
            version=TABLE_VERSION,
        )
        draft, folder = self._workspace / "facts.json", folder_of(destination, self._id)
        draft.write_bytes(msgspec.json.encode(facts))
        table.replace(folder)
        try:
            draft.replace(destination)
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        for older in older_files(destination, self._id):
            with suppress(OSError):  # Somebody may have it open where that holds it; the next build tries again.
                # In one step, since half a folder would be read as a table with fewer rows; it goes with the workspace.
                older.replace(self._workspace / older.name)
        if plan.media is not None:
            clear_stale_media(self._connection, folder, plan.media)


def _require(path: Path) -> None:
    if not path.is_file():
        raise StorageError(f"{path} is missing.", "Call get_results to collect the batch again.")


def _ranges_before(destination: Path, identity: str) -> Sequence[RowRange]:
    """Return since when rows are in the table that is there now, nothing when there is none."""
    try:
        facts = read_facts(destination)
    except StorageError:
        return ()
    return facts.ranges if facts.identity == identity else ()


def _raw_file(answer: AnswerFile, lines: int, directory: Path) -> RawFile:
    if answer.path is None:
        return RawFile("", 0, 0, 0, answer.attempt)
    path, seen = answer.path, answer.path.stat()
    stored = str(path.relative_to(directory)) if path.is_relative_to(directory) else str(path.absolute())
    return RawFile(stored, seen.st_size, seen.st_mtime_ns, lines, answer.attempt)


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
