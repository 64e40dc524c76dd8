"""What is counted in a finished table, once, so that no reader has to: statuses, tokens, models, reasons, ranges."""

# ruff: noqa: S608 - queries consist of our own names, of numbers, and of literals made by `quoted`

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from gemini_batch_mcp.domain import PERMANENT_CODES, ErrorGroup, ResultSummary, RowStatus, Usage
from gemini_batch_mcp.results.engine import rows_of
from gemini_batch_mcp.results.table.layout import SELDOM
from gemini_batch_mcp.results.table.merge import Leftovers, answered_rows
from gemini_batch_mcp.results.visible import shown_error, visible_cell

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: Rows with these have no error that could be grouped.
_WITHOUT_ERROR: Final = ("ok", "missing")
#: An answer that Gemini gave without saying what it took; for a row that failed nothing is said, and nothing is paid.
#: What was not paid for with a row costs 0; what nobody knows has no cost.
_UNMETERED: Final = (
    "status NOT IN ('failed', 'missing') AND cost_usd IS DISTINCT FROM 0 AND "
    "coalesce(input_tokens, 0) + coalesce(output_tokens, 0) + coalesce(thoughts_tokens, 0) = 0"
)
_SHOWN_VERSIONS: Final = 20
_SHOWN_GROUPS: Final = 5
_SHOWN_CHARS: Final = 200
_MESSAGE_CHARS: Final = 300

#: What sets rows apart that failed for the same reason: numbers, and whatever stands in quotation marks.
_PATTERN: Final = (
    """regexp_replace(left(error_message, 200), '"[^"]*"|''[^'']*''|`[^`]*`|[0-9a-f-]{16,}|[0-9]+', '#', 'g')"""
)


class AttemptTokens(NamedTuple):
    """What an attempt used, and what of it went into rows that it gave no good answer."""

    usage: Usage
    wasted: Usage


def summarise(
    connection: "DuckDBPyConnection",
    table: Path,
    leftovers: Leftovers,
    *,
    expected_rows: int,
    pending: int,
    attempts: Sequence[AttemptTokens],
) -> ResultSummary:
    """Count the rows of a finished table. `expected_rows` may be 0, or more than the rows that have a key.

    `attempts` is empty where there was one attempt only.
    """
    rows: dict[str, int] = {}
    tokens, wasted = [0, 0, 0, 0], [0, 0, 0, 0]
    media_files = permanent = gained = cleaned = reused = calls = 0
    newest = max(1, len(attempts))
    codes = ", ".join(map(str, sorted(PERMANENT_CODES)))
    for (
        status,
        status_rows,
        files,
        status_permanent,
        from_newest,
        status_cleaned,
        status_reused,
        status_calls,
        *status_tokens,
    ) in connection.execute(
        f"""SELECT status, count(*), coalesce(sum(len(files)), 0),
                   count(*) FILTER (error_code IN ({codes})), count(*) FILTER (attempt = {newest}),
                   count(*) FILTER (cleaned), count(*) FILTER (answered_by <> ''), count(calls),
                   sum(input_tokens), sum(output_tokens), sum(thoughts_tokens), count(*) FILTER ({_UNMETERED})
            FROM {rows_of(table)} GROUP BY status"""
    ).fetchall():
        rows[status] = status_rows
        media_files += int(files)
        cleaned += status_cleaned
        reused += status_reused
        calls += status_calls
        if status == RowStatus.FAILED:
            permanent = status_permanent
        if status == RowStatus.OK:
            gained = from_newest
        tokens = [total + int(more or 0) for total, more in zip(tokens, status_tokens, strict=True)]
        if status != RowStatus.OK:
            wasted = [total + int(more or 0) for total, more in zip(wasted, status_tokens, strict=True)]
    attempts = attempts or (AttemptTokens(Usage(*tokens), Usage(*wasted)),)
    row_count = sum(rows.values())
    expected = max(row_count, expected_rows)
    return ResultSummary(
        expected=expected,
        returned=row_count - rows.get("missing", 0),
        succeeded=rows.get("ok", 0),
        failed=rows.get("failed", 0),
        blocked=rows.get("blocked", 0),
        truncated=rows.get("truncated", 0),
        empty=rows.get("empty", 0),
        missing=rows.get("missing", 0) + expected - row_count,
        duplicate=leftovers.duplicate,
        unexpected=leftovers.unexpected + (row_count - expected_rows if 0 < expected_rows < row_count else 0),
        malformed=leftovers.malformed,
        usage=_total(attempt.usage for attempt in attempts),
        attempt_usage=tuple(attempt.usage for attempt in attempts),
        attempt_wasted=tuple(attempt.wasted for attempt in attempts),
        model_versions=_model_versions(connection, table),
        missing_keys=leftovers.missing_keys,
        duplicate_keys=leftovers.duplicate_keys,
        unexpected_keys=leftovers.unexpected_keys,
        pending=pending,
        error_groups=_error_groups(connection, table) if rows.keys() - _WITHOUT_ERROR else (),
        media_files=media_files,
        permanent=permanent,
        gained=gained,
        cleaned=cleaned,
        reused=reused,
        calls=calls,
    )


def tokens_by_attempt(
    connection: "DuckDBPyConnection", staged: Path, position: str, attempts: int
) -> tuple[AttemptTokens, ...]:
    """Return what each attempt used: of every key the first line that came back for it. Needs `asked`."""
    found = connection.execute(
        f"""SELECT attempt, status IS DISTINCT FROM 'ok' AS is_wasted, sum(input_tokens), sum(output_tokens),
                   sum(thoughts_tokens), count(*) FILTER ({_UNMETERED})
            FROM (SELECT attempt, unnest(min_by(
                      struct_pack(status, cost_usd, input_tokens, output_tokens, thoughts_tokens), position))
                  FROM ({answered_rows(staged, position)}) SEMI JOIN asked USING (key) GROUP BY key, attempt)
            GROUP BY attempt, is_wasted"""
    ).fetchall()
    usages = {(attempt, wasted): Usage(*(int(tokens or 0) for tokens in used)) for attempt, wasted, *used in found}
    each: list[AttemptTokens] = []
    for attempt in range(1, attempts + 1):
        wasted = usages.get((attempt, True), Usage())
        each.append(AttemptTokens(_total((wasted, usages.get((attempt, False), Usage()))), wasted))
    return tuple(each)


def unfilled(connection: "DuckDBPyConnection", table: Path) -> tuple[str, ...]:
    """Return which of the columns that answers seldom fill are empty in every row."""
    filled = connection.execute(f"SELECT {', '.join(f'count({name})' for name in SELDOM)} FROM {rows_of(table)}")
    return tuple(name for name, rows in zip(SELDOM, filled.fetchall()[0], strict=True) if not rows)


def row_ranges(connection: "DuckDBPyConnection", table: Path) -> list[tuple[int, int]]:
    """Return the runs of row numbers in a table, first and last, in order."""
    return connection.execute(
        f"""SELECT min(row), max(row)
            FROM (SELECT row, row - row_number() OVER (ORDER BY row) AS run FROM {rows_of(table)})
            GROUP BY run ORDER BY run"""
    ).fetchall()


def vector_size(connection: "DuckDBPyConnection", table: Path) -> int:
    """Return how long the vectors of a table are, 0 when there are none or of several lengths."""
    sizes = connection.execute(
        f"SELECT DISTINCT len(embedding) FROM {rows_of(table)} WHERE embedding IS NOT NULL LIMIT 2"
    ).fetchall()
    return int(sizes[0][0]) if len(sizes) == 1 else 0


def _total(usages: Iterable[Usage]) -> Usage:
    each = list(usages)
    return Usage(
        input_tokens=sum(usage.input_tokens for usage in each),
        output_tokens=sum(usage.output_tokens for usage in each),
        thoughts_tokens=sum(usage.thoughts_tokens for usage in each),
        unmetered=sum(usage.unmetered for usage in each),
    )


def _error_groups(connection: "DuckDBPyConnection", table: Path) -> tuple[ErrorGroup, ...]:
    found = connection.execute(
        f"""SELECT found.status, found.rows, left(key, {_SHOWN_CHARS + 1}), length(key), table_rows.error_code,
                   left(error_message, {8 * _MESSAGE_CHARS}), finish_reason
            FROM (SELECT status, error_code, {_PATTERN} AS pattern, count(*) AS rows, min(row) AS first
                  FROM {rows_of(table)} WHERE status NOT IN {_WITHOUT_ERROR} GROUP BY ALL
                  ORDER BY rows DESC, first LIMIT {_SHOWN_GROUPS}) found
            JOIN {rows_of(table)} table_rows ON table_rows.row = found.first
            ORDER BY found.rows DESC, found.first"""
    ).fetchall()
    return tuple(
        ErrorGroup(
            status=RowStatus(status),
            rows=rows,
            reason=shown_error(code, message or (finish_reason and f"stopped: {finish_reason}"), _MESSAGE_CHARS),
            example_key=visible_cell(key, _SHOWN_CHARS, full_length=key_length),
        )
        for status, rows, key, key_length, code, message, finish_reason in found
    )


def _model_versions(connection: "DuckDBPyConnection", table: Path) -> dict[str, int]:
    found = connection.execute(
        f"""SELECT left(model_version, {_SHOWN_CHARS}) AS version, count(*) AS uses FROM {rows_of(table)}
            WHERE model_version <> '' GROUP BY version ORDER BY uses DESC, version LIMIT {_SHOWN_VERSIONS}"""
    ).fetchall()
    return {visible_cell(version, _SHOWN_CHARS): uses for version, uses in found}
