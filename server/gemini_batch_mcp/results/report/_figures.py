"""What a report counts in a result table: one pass over the texts, then small queries over numbers."""

# ruff: noqa: S608 - queries consist of our own names, of numbers, and of literals made by `quoted`

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gemini_batch_mcp.domain import RowStatus
from gemini_batch_mcp.results.engine import rows_of
from gemini_batch_mcp.results.visible import visible, visible_cell
from gemini_batch_mcp.text import safe_text

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: Bars of a histogram, about.
_BINS: Final = 24
#: Pieces of the batch, in request order, of which is shown how they ended.
_STRETCHES: Final = 60
_SHOWN_NAMES: Final = 8
_SHOWN_REASONS: Final = 8
_NAME_CHARS: Final = 80
_MESSAGE_CHARS: Final = 300
_KEY_CHARS: Final = 200

#: A table may have columns of the user by any name but our own, so queries name ours by their tables or positions.
#: What rows that failed for the same reason share: their message without numbers, ids, and what stands in quotation
#: marks. As a number, because a million messages, none like another, would fill the memory.
_REASON: Final = (
    """hash(regexp_replace(left(error_message, 200), '"[^"]*"|''[^'']*''|`[^`]*`|[0-9a-f-]{16,}|[0-9]+', '#', 'g'))"""
)


@dataclass(frozen=True, slots=True)
class Bin:
    """Rows with a number from `start` to below `end`; of the last bin of a distribution also those above."""

    start: int
    end: int
    rows: int


@dataclass(frozen=True, slots=True)
class Distribution:
    """How a number spreads over rows. `high` is what 95 of 100 rows do not exceed."""

    rows: int
    total: int
    median: float
    high: float
    largest: int
    bins: tuple[Bin, ...]

    @property
    def is_cut(self) -> bool:
        """True when the last bin holds numbers above its end."""
        return self.largest >= self.bins[-1].end


@dataclass(frozen=True, slots=True)
class Reason:
    """Rows that are not ok for one reason. `example` is the message of the first of them, empty when it has none."""

    status: RowStatus
    code: int | None
    rows: int
    example_key: str
    example: str


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything counted in one table. `stretches` are counts by status of equal pieces in request order."""

    rows: int
    statuses: Mapping[RowStatus, int]
    stretches: tuple[Mapping[RowStatus, int], ...]
    reasons: tuple[Reason, ...]
    reason_count: int
    finish_reasons: Mapping[str, int]
    model_versions: Mapping[str, int]
    #: By what is measured: characters, input tokens, output tokens, thoughts tokens. Only what occurs.
    distributions: Mapping[str, Distribution]


def read_figures(connection: "DuckDBPyConnection", table: Path) -> Figures:
    """Count a table. Leaves the temporary table `reasons (place, status, code, message)` for `shown_rows`."""
    connection.execute(
        f"""CREATE TEMP TABLE measures AS
            SELECT row, status, length("text") AS characters, coalesce(input_tokens, 0) AS input_tokens,
                   coalesce(output_tokens, 0) AS output_tokens, coalesce(thoughts_tokens, 0) AS thoughts_tokens
            FROM {rows_of(table)}"""
    )
    counted = connection.execute("SELECT status, count(*) FROM measures GROUP BY status").fetchall()
    statuses = {RowStatus(status): rows for status, rows in counted}
    reasons, reason_count = _reasons(connection, table)
    return Figures(
        rows=sum(statuses.values()),
        statuses=statuses,
        stretches=_stretches(connection, sum(statuses.values())),
        reasons=reasons,
        reason_count=reason_count,
        finish_reasons=_names(connection, table, "finish_reason"),
        model_versions=_names(connection, table, "model_version"),
        distributions={
            name: found
            for name in ("characters", "input_tokens", "output_tokens", "thoughts_tokens")
            if (found := _distribution(connection, name)) is not None
        },
    )


def reason_of(table_alias: str) -> str:
    """Return the SQL condition that a row of the table belongs to a row of `reasons`."""
    return (
        f"{table_alias}.status = reasons.status AND {table_alias}.error_code IS NOT DISTINCT FROM reasons.code "
        f"AND {_REASON} = reasons.message"
    )


def _reasons(connection: "DuckDBPyConnection", table: Path) -> tuple[tuple[Reason, ...], int]:
    connection.execute(
        f"""CREATE TEMP TABLE reasons AS
            SELECT *, row_number() OVER (ORDER BY rows DESC, first) AS place, count(*) OVER () AS total
            FROM (SELECT status, error_code AS code, {_REASON} AS message, count(*) AS rows, min(row) AS first
                  FROM {rows_of(table)} WHERE status <> 'ok' GROUP BY ALL)
            QUALIFY place <= {_SHOWN_REASONS}"""
    )
    found = connection.execute(
        f"""SELECT reasons.status, reasons.code, reasons.rows, left(answers.key, {_KEY_CHARS + 1}),
                   length(answers.key), left(answers.error_message, {8 * _MESSAGE_CHARS}), reasons.total
            FROM reasons JOIN {rows_of(table)} answers ON answers.row = reasons.first
            ORDER BY reasons.place"""
    ).fetchall()
    reasons = tuple(
        Reason(
            status=RowStatus(status),
            code=code,
            rows=rows,
            example_key=visible_cell(key, _KEY_CHARS, full_length=key_length),
            example=safe_text(visible(message), _MESSAGE_CHARS),
        )
        for status, code, rows, key, key_length, message, _ in found
    )
    return reasons, found[0][-1] if found else 0


def _stretches(connection: "DuckDBPyConnection", rows: int) -> tuple[Mapping[RowStatus, int], ...]:
    stretches: list[dict[RowStatus, int]] = [{} for _ in range(min(rows, _STRETCHES))]
    for stretch, status, count in connection.execute(
        f"SELECT (row - 1) * {len(stretches)} // {max(rows, 1)} AS stretch, status, count(*) FROM measures GROUP BY ALL"
    ).fetchall():
        stretches[stretch][RowStatus(status)] = count
    return tuple(stretches)


def _names(connection: "DuckDBPyConnection", table: Path, column: str) -> Mapping[str, int]:
    """Count the values of a column, the commonest first; those after the first few are one."""
    found = connection.execute(
        f"""SELECT name, uses, count(*) OVER (), sum(uses) OVER ()
            FROM (SELECT left({column}, {_NAME_CHARS}) AS name, count(*) AS uses FROM {rows_of(table)}
                  WHERE {column} <> '' GROUP BY 1)
            ORDER BY uses DESC, name LIMIT {_SHOWN_NAMES}"""
    ).fetchall()
    names = {visible_cell(name, 2 * _NAME_CHARS): uses for name, uses, _, _ in found}
    if found and found[0][2] > len(found):
        names[f"{found[0][2] - len(found):,} others"] = int(found[0][3]) - sum(names.values())
    return names


def _distribution(connection: "DuckDBPyConnection", column: str) -> Distribution | None:
    """Measure a column over rows that have it; None when there is none, or nothing to tell."""
    rows, total, smallest, median, high, cut, largest = connection.execute(
        f"""SELECT count(*), sum(n), min(n), median(n), quantile_cont(n, 0.95), quantile_disc(n, 0.99), max(n)
            FROM (SELECT {column} AS n FROM measures WHERE {column} > 0)"""
    ).fetchall()[0]
    if not rows:
        return None
    width = _bin_width(cut - smallest + 1)
    start = smallest // width * width
    count = (cut - start) // width + 1
    found = connection.execute(
        f"""SELECT least(({column} - {start}) // {width}, {count - 1}) AS bin, count(*) FROM measures
            WHERE {column} > 0 GROUP BY bin"""
    ).fetchall()
    filled: dict[int, int] = dict(found)
    bins = tuple(
        Bin(start + number * width, start + (number + 1) * width, filled.get(number, 0)) for number in range(count)
    )
    return Distribution(rows, int(total), median, high, largest, bins)


def _bin_width(span: int) -> int:
    """Return the least of 1, 2, 5, 10, 20 … that divides `span` into no more than the wanted bins."""
    width = 1
    while True:
        for factor in (1, 2, 5):
            if span <= _BINS * width * factor:
                return width * factor
        width *= 10
