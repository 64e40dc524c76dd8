"""Two batches, or a batch and a column of right answers, laid against each other row by row."""

import difflib
import hashlib
import math
import re
from bisect import bisect_left
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

from gemini_batch_mcp.batches.answers._in_bigquery import compared_in_bigquery
from gemini_batch_mcp.batches.answers._pairs import (
    NEXT_STEP,
    OTHER,
    Counted,
    Found,
    Judged,
    Sides,
    compared_rows,
    judged_together,
)
from gemini_batch_mcp.batches.answers._saving import with_tables
from gemini_batch_mcp.batches.answers.reading import Results, read_also, read_results
from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.jobs.tracking import BatchStatus
from gemini_batch_mcp.batches.work import deadline_after, seconds_left
from gemini_batch_mcp.domain import Column, ResultQuery
from gemini_batch_mcp.errors import UnknownBatch, UsageError
from gemini_batch_mcp.results.query.queries import RELATION, Stop
from gemini_batch_mcp.results.store import ResultTable
from gemini_batch_mcp.text import plain_text
from gemini_batch_mcp.threads import in_stoppable_thread, in_thread

#: Pairs of expected and actual that are listed, the most frequent first.
_MAX_PAIRS: Final = 60
#: Where so many come before one that stands once, values are mostly unique, and pairs of them say nothing.
_MANY_PAIRS: Final = 12
#: 97.5 % of a normal distribution: of a 95 % interval.
_Z: Final = 1.959963984540054
#: A row tells of kappa at most as much as so many of a share: an error of next to nothing is one of rounding.
_MOST_TOLD: Final = 4
#: How wide on either side an interval may be that a pilot is read by (our choice): two points.
_NARROW: Final = 0.02
#: A cursor: behind which row, of what was asked, of which builds of the tables.
_CURSOR: Final = re.compile(r"(\d{1,12})-([0-9a-f]{8})-([0-9a-f]{8})", re.ASCII)
#: Of a source's columns, in a sentence.
_SHOWN_COLUMNS: Final = 20
_NAME_CHARS: Final = 60
#: What a table says of its rows, beside what was answered.
_ABOUT_ROWS: Final = frozenset(
    {
        *("json", "finish_reason", "error_code", "error", "model_version", "input_tokens", "output_tokens"),
        *("thoughts_tokens", "cost_usd", "attempt", "cleaned", "answered_by", "row", "file", "line"),
    }
)


class _Columns(Protocol):
    """A table by its columns, as SQL has them, wherever it lies."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """All of them, in their order."""


@dataclass(frozen=True, slots=True)
class Pair:
    """How often an answer stands against what was expected."""

    expected: str
    actual: str
    rows: int


@dataclass(frozen=True, slots=True)
class Difference:
    """A row in which the two differ."""

    key: str
    expected: str
    actual: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of it. `left_out` counts rows in which one side has no good answer, or the source no label; shares are
    None with no rows.

    `share_low` and `share_high` are the bounds of the 95 % interval after Wilson; `kappa` is Cohen's, None for
    embeddings, where chance alone would agree always, and beyond a thousand different values. `kappa_low` and
    `kappa_high` are the bounds of its 95 % interval.
    """

    batch_id: str
    other: str
    field: str
    compared: int
    equal: int
    left_out: int
    share: float | None
    share_low: float | None
    share_high: float | None
    kappa: float | None
    kappa_low: float | None
    kappa_high: float | None
    table: tuple[Pair, ...]
    rows: tuple[Difference, ...]
    next_cursor: str
    #: How many rows more would narrow the interval to two points on either side; 0 where it is that narrow, or where
    #: the batch is no pilot, of which there are more rows.
    more_rows: int = 0
    #: Nearly every pair of values stands once, so that none are listed.
    is_unique: bool = False


async def compare_results(
    app: App,
    reference: str,
    other: str,
    *,
    field: str = "",
    limit: int = 20,
    cursor: str = "",
    wait_seconds: float | None = None,
) -> Comparison:
    """Compare a batch's answers with `other`: a column of its source, else another batch, joined by key.

    `field` is a column of the answers: empty for the first of their fields, else for their text; `label=kind` compares
    a column with another one of another batch. Numbers count as equal
    within `TOLERANCE`, texts after trimming and in any letter case, lists as sets, embeddings by their cosine. What
    `other` has is what is expected.

    Raises:
        NotReady, StillCollecting: as `read_results` does.
        UsageError: there is no such column; the cursor is none of ours, or its rows may have shifted since.
    """
    deadline = deadline_after(wait_seconds)
    results = await read_results(app, reference, ResultQuery(), wait_seconds=wait_seconds)
    if results.remote is not None:
        return await _compare_remote(app, results, other, field, limit, cursor, deadline)
    asked = await _asked(app, results, other, field, deadline)
    after, build = _position(cursor, asked.digest)
    stop = Stop()

    def compare(folders: Mapping[str, Path]) -> tuple[Found, str]:
        found_build = _digest(folder.name for folder in folders.values())
        if build not in ("", found_build):
            raise UsageError(
                f"The answers have changed since the page that gave the cursor {cursor!r}: its rows may have shifted.",
                NEXT_STEP,
            )
        found = compared_rows(
            app.queries, asked.sides, folders, limit=limit, after=after, max_pairs=_MAX_PAIRS, stop=stop
        )
        return found, found_build

    found, build = await in_stoppable_thread(stop.set, with_tables, asked.tables, compare)
    next_cursor = f"{found.differing[-1][0]}-{asked.digest}-{build}" if found.has_more else ""
    return comparison_of(asked, found, next_cursor)


@dataclass(frozen=True, slots=True)
class Asked:
    """Two sides that can be compared, with the tables that they are in. `digest` stands for what is compared."""

    status: BatchStatus
    other: str
    sides: Sides
    tables: Mapping[str, ResultTable]

    @property
    def digest(self) -> str:
        """The same for the same two sides."""
        return _digest(
            (self.status.batch.id, self.other, self.sides.actual.name, self.sides.expected.name, *self.tables)
        )


async def asked_for(app: App, reference: str, other: str, *, field: str, wait_seconds: float | None) -> Asked:
    """Find what is to be compared; see `compare_results`."""
    results = await read_results(app, reference, ResultQuery(), wait_seconds=wait_seconds)
    return await _asked(app, results, other, field, deadline_after(wait_seconds))


async def _asked(app: App, results: Results, other: str, field: str, deadline: float | None) -> Asked:
    table = results.table
    field, _, others = (part.strip() for part in (field or first_field(table)).partition("="))
    tables, batch_id = {RELATION: table}, results.status.batch.id
    expected = _source_column(table, other)
    if expected is not None:
        return Asked(
            results.status, other, Sides(_answer_column(table, field, batch_id), expected, is_batch=False), tables
        )
    async with _told_of_columns(app, table, batch_id, other):
        (beside,) = (await read_also(app, [other], deadline)).values()
    tables[OTHER] = beside
    actual, expected = _answers_of_both(table, beside, field, others, batch_id, other)
    return Asked(results.status, other, Sides(actual, expected, OTHER in tables), tables)


@asynccontextmanager
async def _told_of_columns(app: App, table: _Columns, batch_id: str, other: str) -> AsyncIterator[None]:
    """Say what columns the source has, where `other` is none of them, and no batch either."""
    try:
        yield
    except UnknownBatch as error:
        if await in_thread(app.ledger.bills.of_deleted, other.strip()):
            raise
        names = [column.name for column in table.columns]
        columns = {name.casefold(): name for name in names[: names.index("key")]}
        error.message = f"{plain_text(other, 80)} is neither a batch nor a column of the source of {batch_id}."
        near = difflib.get_close_matches(other.casefold()[:_NAME_CHARS], columns, n=1)
        meant = f"Did you mean {plain_text(columns[near[0]], _NAME_CHARS)}? " if near else ""
        listed = ", ".join(plain_text(name, _NAME_CHARS) for name in list(columns.values())[:_SHOWN_COLUMNS])
        error.next_step = (
            f"{meant}Its columns: {listed or 'none'}. Where the right answers stand in another file with the same "
            f"rows, create_batch with like={batch_id!r} and that file as source takes the answers over."
        )
        raise


def _answers_of_both(
    table: _Columns, beside: _Columns, field: str, others: str, batch_id: str, other: str
) -> tuple[Column, Column]:
    """Return what is compared of two batches. Raises UsageError."""
    try:
        return _answer_column(table, field, batch_id), _answer_column(beside, others or field, other)
    except UsageError as error:
        if first_field(table) == first_field(beside):
            raise
        error.next_step = (
            f"{batch_id} has {_answer_names(table)}; {other} has {_answer_names(beside)}. Compare one of each with "
            f"field='{first_field(table)}={first_field(beside)}'."
        )
        raise


async def _compare_remote(
    app: App, results: Results, other: str, field: str, limit: int, cursor: str, deadline: float | None
) -> Comparison:
    """Compare answers that stay in BigQuery; see `compare_results`. Rows come in the order of their keys."""
    assert results.remote is not None
    batch, table, beside = results.status.batch, results.remote, None
    field, _, others = (part.strip() for part in (field or first_field(table)).partition("="))
    expected = _source_column(table, other)
    if expected is not None:
        actual = _answer_column(table, field, batch.id)
    else:
        async with _told_of_columns(app, table, batch.id, other):
            found = await read_results(app, other, ResultQuery(), wait_seconds=seconds_left(deadline))
        if found.remote is None:
            raise UsageError(
                f"The answers of {batch.id} stay in BigQuery, those of {found.status.batch.id} are on this machine.",
                "Save both with get_results and save_to, and compare the files; or have both in BigQuery.",
            )
        beside = found.status.batch
        actual, expected = _answers_of_both(table, found.remote, field, others, batch.id, other)
    asked = Asked(results.status, other, Sides(actual, expected, beside is not None), {})
    listed, next_cursor = await compared_in_bigquery(
        app, batch, asked.sides, beside, of=asked.digest, limit=limit, cursor=cursor, max_pairs=_MAX_PAIRS
    )
    return comparison_of(asked, listed, next_cursor)


async def judge_together(app: App, candidates: Sequence[Asked]) -> Judged:
    """Return which of several batches have which of the rows right that all of them answer; ten of them at most."""
    names = [f"candidate_{number}" for number in range(len(candidates))]
    sides = [replace(asked.sides, relation=name) for name, asked in zip(names, candidates, strict=True)]
    tables = {name: asked.tables[RELATION] for name, asked in zip(names, candidates, strict=True)}
    stop = Stop()

    def judge(folders: Mapping[str, Path]) -> Judged:
        return judged_together(app.queries, sides, folders, stop=stop)

    return await in_stoppable_thread(stop.set, with_tables, tables, judge)


def comparison_of(asked: Asked, found: Found, next_cursor: str = "") -> Comparison:
    """Return what came of a comparison, with the figures that follow from its counts."""
    counted = found.counted
    share = counted.equal / counted.compared if counted.compared else None
    low, high = wilson(counted.equal, counted.compared)
    kappa_low, kappa_high = kappa_range(counted)
    # As listed, the most frequent come first: free text stands once each, and says more row by row.
    is_unique = len(found.pairs) > _MANY_PAIRS and found.pairs[_MANY_PAIRS][2] == 1
    return Comparison(
        batch_id=asked.status.batch.id,
        other=asked.other,
        field=asked.sides.actual.name,
        compared=counted.compared,
        equal=counted.equal,
        left_out=counted.total - counted.compared,
        share=share,
        share_low=low,
        share_high=high,
        kappa=kappa(counted),
        kappa_low=kappa_low,
        kappa_high=kappa_high,
        table=() if is_unique else tuple(Pair(*pair) for pair in found.pairs),
        is_unique=is_unique,
        rows=tuple(Difference(*row[1:]) for row in found.differing),
        next_cursor=next_cursor,
        more_rows=rows_needed(counted.equal, counted.compared) if asked.status.batch.is_pilot else 0,
    )


def kappa(counted: Counted) -> float | None:
    """Return Cohen's kappa; None where chance alone would agree always, or is not known."""
    if counted.chance is None or not counted.compared or counted.chance >= 1:
        return None
    return (counted.equal / counted.compared - counted.chance) / (1 - counted.chance)


def kappa_error(counted: Counted) -> float | None:
    """Return the standard error of kappa (Fleiss, Cohen and Everitt, 1969); None where there is no kappa."""
    found = kappa(counted)
    if found is None or counted.chance is None:
        return None
    rows, missing = counted.compared, 1 - found
    same = (counted.equal - 2 * missing * counted.same_weight + missing**2 * counted.same_square) / rows
    other = missing**2 * counted.other_square / rows
    spread = same + other - (found - counted.chance * missing) ** 2
    return math.sqrt(max(0.0, spread) / rows) / (1 - counted.chance)


def kappa_range(counted: Counted) -> tuple[float | None, float | None]:
    """Return the bounds of the 95 % interval of kappa; None where there is no kappa.

    They are those of the share of equal rows after Wilson, of as many rows as tell so much of a share as these tell of
    kappa by its standard error. Of 20 rows they hold kappa in 94 of 100 tables, twice the error on either side in 85, a
    bootstrap in 85 (tests/batches/answers/test_intervals.py).
    """
    error = kappa_error(counted)
    if error is None or counted.chance is None:
        return None, None
    share, rows = counted.equal / counted.compared, float(counted.compared)
    if error and 0 < share < 1:
        rows = min(rows * _MOST_TOLD, share * (1 - share) / (error * (1 - counted.chance)) ** 2)
    low, high = wilson(share * rows, rows)
    assert low is not None and high is not None, "there are rows"
    return (low - counted.chance) / (1 - counted.chance), (high - counted.chance) / (1 - counted.chance)


def wilson(equal: float, compared: float) -> tuple[float | None, float | None]:
    """Return the bounds of the 95 % interval of a share (Wilson, 1927); None without rows."""
    if not compared:
        return None, None
    share, square = equal / compared, _Z * _Z
    middle = (share + square / (2 * compared)) / (1 + square / compared)
    half = _Z * math.sqrt(share * (1 - share) / compared + square / (4 * compared**2)) / (1 + square / compared)
    # At the ends the bound is the share itself, which rounding would miss by a hair.
    return middle - half if equal else 0.0, middle + half if equal < compared else 1.0


def rows_needed(equal: int, compared: int, half: float = _NARROW) -> int:
    """Return how many rows more make the 95 % interval as narrow as `half` on either side, if they come out alike."""
    if not compared:
        return 0
    share, square = equal / compared, _Z * _Z

    def is_narrow(rows: int) -> bool:
        spread = math.sqrt(share * (1 - share) / rows + square / (4 * rows**2))
        return _Z * spread / (1 + square / rows) <= half

    # No share needs more than the one in the middle, and an interval only narrows with rows.
    most = math.ceil((_Z / (2 * half)) ** 2)
    return bisect_left(range(compared, max(compared, most)), True, key=is_narrow)


def _position(cursor: str, digest: str) -> tuple[int, str]:
    """Return behind which row a page begins, and of which builds of the tables: of any, for the first one.

    Raises:
        UsageError: the cursor is none of ours, or belongs to another comparison.
    """
    if not cursor:
        return 0, ""
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise UsageError(f"{cursor[:40]!r} is not a cursor of compare_results.", NEXT_STEP)
    if found[2] != digest:
        raise UsageError(f"The cursor {cursor!r} belongs to another comparison.", NEXT_STEP)
    return int(found[1]), found[3]


def _digest(names: Iterable[str]) -> str:
    return hashlib.blake2b("\n".join(names).encode(), digest_size=4).hexdigest()


def first_field(table: _Columns) -> str:
    """Return what of the answers is compared where nothing is named."""
    names = [column.name for column in table.columns]
    if "embedding" in names:
        return "embedding"
    fields = names[names.index("json") + 1 : names.index("finish_reason")]
    return fields[0] if fields else "text"


def _source_column(table: _Columns, name: str) -> Column | None:
    """Return the column of the source that goes by that name there; None when none does."""
    names = [column.name for column in table.columns]
    source = table.columns[: names.index("key")]
    wanted = (name.casefold(), f"source_{name}".casefold())
    return next((column for other in wanted for column in source if column.name.casefold() == other), None)


def _answer_column(table: _Columns, name: str, batch_id: str) -> Column:
    """Return the column of the answers that goes by that name, also where the source has one of the same name.

    Raises:
        UsageError: the batch has not answered that.
    """
    names = [column.name for column in table.columns]
    answers = table.columns[names.index("key") + 1 :]
    wanted = (f"answer_{name}".casefold(), name.casefold())
    found = next((column for other in wanted for column in answers if column.name.casefold() == other), None)
    if found is None:
        source = _source_column(table, name)
        why = "; that is a column of its source" if source is not None else ""
        message = f"{batch_id[:60]} has no answer field {name[:60]!r}{why}."
        raise UsageError(message, f"Give field as one of: {_answer_names(table)}.")
    return found


def _answer_names(table: _Columns) -> str:
    names = [column.name for column in table.columns]
    answers = names[names.index("key") + 1 :]
    return ", ".join(name for name in answers[:40] if name not in _ABOUT_ROWS)
