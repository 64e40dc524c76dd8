"""Two batches, or a batch and a column of right answers, laid against each other row by row."""

# ruff: noqa: S608 - statements consist of our own names, of numbers, and of names made by `identifier`

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from gemini_batch_mcp.batches.answers._saving import with_tables
from gemini_batch_mcp.batches.answers.reading import read_also, read_results
from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.work import deadline_after
from gemini_batch_mcp.domain import Column, ResultQuery
from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.results.engine import identifier
from gemini_batch_mcp.results.query.queries import RELATION, QueryEngine, Stop
from gemini_batch_mcp.results.store import ResultTable
from gemini_batch_mcp.threads import in_stoppable_thread

#: Of two numbers that count as equal, relative to the larger one.
TOLERANCE: Final = 1e-9
#: Of the angle between two embeddings that count as equal (our choice).
LEAST_COSINE: Final = 0.99
#: Pairs of expected and actual that are listed, the most frequent first.
_MAX_PAIRS: Final = 60
#: Pairs that kappa is computed from; a field of more different values is no classification.
_MAX_LABELS: Final = 1000
_OTHER: Final = "other"
#: 97.5 % of a normal distribution: of a 95 % interval.
_Z: Final = 1.959963984540054
_NUMBERS: Final = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
)


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
    """What came of it. `left_out` counts rows in which one side has no good answer; shares are None with no rows.

    `share_low` and `share_high` are the bounds of the 95 % interval after Wilson; `kappa` is Cohen's, None for
    embeddings, where chance alone would agree always, and beyond a thousand different values.
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
    table: tuple[Pair, ...]
    rows: tuple[Difference, ...]
    next_cursor: str


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

    `field` is a column of the answers: empty for the first of their fields, else for their text. Numbers count as equal
    within `TOLERANCE`, texts after trimming and in any letter case, lists as sets, embeddings by their cosine. What
    `other` has is what is expected.

    Raises:
        NotReady, StillCollecting: as `read_results` does.
        UsageError: there is no such column, or the cursor is none of ours.
    """
    if cursor and not (cursor.isascii() and cursor.isdigit() and len(cursor) < 10):
        raise UsageError(f"{cursor[:40]!r} is not a cursor of compare_results.", "Leave cursor out to start.")
    deadline = deadline_after(wait_seconds)
    results = await read_results(app, reference, ResultQuery(), wait_seconds=wait_seconds)
    table = results.table
    field = field or _first_field(table)
    actual = _column(table, field, results.status.batch.id)
    tables = {RELATION: table}
    expected = _source_column(table, other)
    if expected is None:
        ((name, beside),) = (await read_also(app, [other], deadline)).items()
        tables[_OTHER] = beside
        expected = _column(beside, field, name)
    pairs = pairs_of(actual, expected, is_batch=_OTHER in tables)
    stop = Stop()
    ask = partial(compared_rows, app.queries, pairs, limit=limit, offset=int(cursor or 0), stop=stop)
    counts, found, differing, has_more = await in_stoppable_thread(stop.set, with_tables, tables, ask)
    total, compared, equal, chance = counts
    share = equal / compared if compared else None
    low, high = wilson(equal, compared)
    kappa = None if chance is None or share is None or chance >= 1 else (share - chance) / (1 - chance)
    return Comparison(
        batch_id=results.status.batch.id,
        other=other,
        field=field,
        compared=compared,
        equal=equal,
        left_out=total - compared,
        share=share,
        share_low=low,
        share_high=high,
        kappa=kappa,
        table=tuple(Pair(str(wanted), str(got), int(rows)) for wanted, got, rows in found),
        rows=tuple(Difference(str(key), str(wanted), str(got)) for key, wanted, got in differing),
        next_cursor=str(int(cursor or 0) + len(differing)) if has_more else "",
    )


def wilson(equal: int, compared: int) -> tuple[float | None, float | None]:
    """Return the bounds of the 95 % interval of a share (Wilson, 1927); None without rows."""
    if not compared:
        return None, None
    share, square = equal / compared, _Z * _Z
    middle = (share + square / (2 * compared)) / (1 + square / compared)
    half = _Z * math.sqrt(share * (1 - share) / compared + square / (4 * compared**2)) / (1 + square / compared)
    # At the ends the bound is the share itself, which rounding would miss by a hair.
    return middle - half if equal else 0.0, middle + half if equal < compared else 1.0


_Counts = tuple[int, int, int, float | None]


def compared_rows(
    queries: QueryEngine, pairs: str, folders: Mapping[str, Path], *, limit: int, offset: int, stop: Stop
) -> tuple[_Counts, Sequence[Sequence[Any]], Sequence[Sequence[Any]], bool]:
    """Return all, compared and equal rows with the share that chance makes equal; pairs, rows that differ, and more."""

    def ask(sql: str, most: int) -> Sequence[Sequence[Any]]:
        answer = queries.query_tables(folders, f"{pairs} {sql}", limit=most, max_cell_chars=200, stop=stop)
        return answer.rows

    chance = f"""(SELECT CASE WHEN max(n) <= {_MAX_LABELS} THEN sum(one::DOUBLE * two) END FROM (
        SELECT count(*) FILTER (WHERE side = 1) AS one, count(*) FILTER (WHERE side = 2) AS two, count(*) OVER () AS n
        FROM (SELECT e AS label, 1 AS side FROM pairs WHERE same IS NOT NULL
              UNION ALL SELECT a, 2 FROM pairs WHERE same IS NOT NULL) GROUP BY label))"""
    counts = f"SELECT count(*), count(same), count(*) FILTER (WHERE same), {chance} FROM pairs"
    ((total, compared, equal, product),) = ask(counts, 1)
    common = "SELECT any_value(expected), any_value(actual), count(*) AS n FROM pairs WHERE same IS NOT NULL"
    found = ask(f"{common} AND e IS NOT NULL GROUP BY e, a ORDER BY n DESC, e, a LIMIT {_MAX_PAIRS}", _MAX_PAIRS)
    page = f"SELECT key, expected, actual FROM pairs WHERE NOT same ORDER BY row LIMIT {limit + 1} OFFSET {offset}"
    differing = ask(page, limit + 1)
    has_more = len(differing) > limit or offset + len(differing) < int(compared) - int(equal)
    share = None if product is None or not compared else float(product) / int(compared) ** 2
    return (int(total), int(compared), int(equal), share), found, differing[:limit], has_more


def pairs_of(actual: Column, expected: Column, *, is_batch: bool) -> str:
    """Return the WITH under which everything is asked: a row for each key, `same` NULL where a side has no answer.

    `e` and `a` are what the two sides have as labels: what counts as equal has the same one.
    """
    good = "r.status = 'ok'" + (" AND o.status = 'ok'" if is_batch else "")
    source = f"{RELATION} AS r JOIN {_OTHER} AS o ON r.key = o.key" if is_batch else f"{RELATION} AS r"
    left = f"{'o' if is_batch else 'r'}.{identifier(expected.name)}"
    right = f"r.{identifier(actual.name)}"
    if _is_vector(actual) and _is_vector(expected):
        cosine = f"CASE WHEN len({left}) = len({right}) THEN list_cosine_similarity({left}, {right}) END"
        labels, same = ("NULL::VARCHAR", "NULL::VARCHAR"), f"({cosine}) >= {LEAST_COSINE}"
        shown = ("'cosine of 1'", f"'cosine of ' || round({cosine}, 6)")
    else:
        is_number = _is_number(actual) or _is_number(expected)
        labels = (_label(left, expected, is_number=is_number), _label(right, actual, is_number=is_number))
        same = f"({labels[0]}) = ({labels[1]})"
        if is_number:
            one, two = f"TRY_CAST({left} AS DOUBLE)", f"TRY_CAST({right} AS DOUBLE)"
            close = f"abs({one} - {two}) <= {TOLERANCE!r} * greatest(abs({one}), abs({two}))"
            same = f"coalesce({close}, {same})"
        shown = (_shown(left, expected), _shown(right, actual))
    usable = f"{good} AND {left} IS NOT NULL AND {right} IS NOT NULL"
    return f"""WITH pairs AS (SELECT r.row AS row, r.key AS key, {shown[0]} AS expected, {shown[1]} AS actual,
        {labels[0]} AS e, {labels[1]} AS a, CASE WHEN {usable} THEN {same} END AS same FROM {source})"""


def _label(value: str, column: Column, *, is_number: bool) -> str:
    if column.type.endswith("[]"):
        return f"to_json(list_sort(list_distinct(list_transform({value}, lambda v: lower(trim(v::VARCHAR))))))::VARCHAR"
    text = f"lower(trim({value}::VARCHAR))"
    return f"coalesce(printf('%.9g', TRY_CAST({value} AS DOUBLE)), {text})" if is_number else text


def _shown(value: str, column: Column) -> str:
    return f"to_json({value})::VARCHAR" if column.type.endswith("[]") else f"{value}::VARCHAR"


def _is_number(column: Column) -> bool:
    return column.type in (*_NUMBERS, "DOUBLE", "FLOAT") or column.type.startswith("DECIMAL")


def _is_vector(column: Column) -> bool:
    return column.name == "embedding"


def _first_field(table: ResultTable) -> str:
    names = [column.name for column in table.columns]
    if "embedding" in names:
        return "embedding"
    fields = names[names.index("json") + 1 : names.index("finish_reason")]
    return fields[0] if fields else "text"


def _source_column(table: ResultTable, name: str) -> Column | None:
    """Return the column of the source that goes by that name there; None when none does."""
    names = [column.name for column in table.columns]
    source = table.columns[: names.index("key")]
    wanted = (name.casefold(), f"source_{name}".casefold())
    return next((column for other in wanted for column in source if column.name.casefold() == other), None)


def _column(table: ResultTable, name: str, batch_id: str) -> Column:
    found = next((column for column in table.columns if column.name.casefold() == name.casefold()), None)
    if found is None:
        names = ", ".join(column.name for column in table.columns[:40])
        raise UsageError(f"{batch_id} has no column {name[:60]!r}.", f"Its columns: {names}.")
    return found
