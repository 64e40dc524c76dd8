"""Which line answers which key: the answer lines laid against the keys that were sent, in SQL.

Tables of a build: `lines` (one row for each answer line), `asked` (one for each key; `row` counts from 1 in request
order), `placed` (asked, with the `position` of the line that answers it, or NULL). Positions number the lines of all
files such that later attempts come first. A key's answer is its first ok line in that order, or else its first line:
an ok answer beats any other, then a later attempt beats an earlier one, and among duplicates the first one stays.

When nobody knows which keys were sent, they are those of the lines, in order, and a line without a key gets one that
says where it stands. If other lines have keys, such a line counts as unexpected all the same: something was lost there.
"""

# ruff: noqa: S608 - queries consist of our own names, of numbers, and of literals made by `quoted`

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gemini_batch_mcp.domain import ResultSummary, Usage
from gemini_batch_mcp.errors import StorageError
from gemini_batch_mcp.results.database import listed, quoted
from gemini_batch_mcp.results.lines import AnswerFile, answer_lines, mended
from gemini_batch_mcp.results.visible import visible_cell

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_SHOWN_KEYS: Final = 5
_SHOWN_VERSIONS: Final = 20
_SHOWN_CHARS: Final = 200

_ANSWER: Final = (
    "status, text, finish_reason, error_code, error_message, model_version, "
    "input_tokens, output_tokens, thoughts_tokens"
)


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What of the answer lines and the keys found no partner; the members are those of `ResultSummary`."""

    duplicate: int = 0
    unexpected: int = 0
    malformed: int = 0
    missing_keys: tuple[str, ...] = ()
    duplicate_keys: tuple[str, ...] = ()
    unexpected_keys: tuple[str, ...] = ()


def rows_of(table: Path) -> str:
    """Return the table function that reads a Parquet file of ours."""
    return f"read_parquet({quoted(table)}, hive_partitioning = false)"


def count(connection: "DuckDBPyConnection", source: str) -> int:
    """Return how many rows `source` has: a table, or a table and a condition."""
    return int(_row(connection, f"SELECT count(*) FROM {source}")[0])


def line_starts(answers: Sequence[AnswerFile], line_counts: Sequence[int]) -> list[int]:
    """Return for each file how many lines stand before its first one, later attempts first."""
    order = sorted(range(len(answers)), key=lambda file: -answers[file].attempt)
    before = accumulate((line_counts[file] for file in order), initial=0)
    starts = dict(zip(order, before, strict=False))
    return [starts[file] for file in range(len(answers))]


def load_lines(
    connection: "DuckDBPyConnection", staged: Path, repaired: Path | None, starts: Sequence[int], *, keys_known: bool
) -> None:
    """Make `lines`. `key` is NULL for a line that can answer nothing, `label` is what to call such a line."""
    place = "'line ' || line" + ("" if len(starts) < 2 else " || ' of file ' || (file + 1)")
    unread = f"SELECT * FROM {rows_of(staged)} WHERE status IS NULL"
    if repaired:
        unread += f" AND (file, line) NOT IN (SELECT (file, line) FROM {rows_of(repaired)})"
    connection.execute(
        f"""CREATE TEMP TABLE lines AS
            SELECT {_position(starts)} AS position, file, line, attempt, status IS NOT DISTINCT FROM 'ok' AS is_ok,
                   key IS NULL AND status IS NOT NULL AS is_keyless,
                   CASE WHEN key IS NULL THEN
                       {place} || CASE WHEN status IS NULL THEN ' (not readable)' ELSE ' (no key)' END END AS label,
                   CASE WHEN key IS NOT NULL THEN key WHEN status IS NOT NULL AND {not keys_known} THEN label END AS key
            FROM (SELECT file, line, attempt, status, key FROM ({_answers(staged, repaired)})
                  UNION ALL SELECT file, line, attempt, status, key FROM ({unread}))"""
    )


def load_asked(connection: "DuckDBPyConnection", keys_paths: Sequence[Path]) -> None:
    """Make `asked` from the keys that were sent, or from `lines` when `keys_paths` is empty.

    Raises:
        StorageError: a keys file holds something that is no JSON string.
    """
    if not keys_paths:
        connection.execute(
            """CREATE TEMP TABLE asked AS
               SELECT row_number() OVER (ORDER BY min((file, line))) AS row, key
               FROM lines WHERE key IS NOT NULL GROUP BY key"""
        )
        return
    connection.execute("CREATE TEMP TABLE sent (number BIGINT, key VARCHAR)")
    for path in keys_paths:
        before = count(connection, "sent")
        connection.execute(
            f"""INSERT INTO sent SELECT {before} + row_number() OVER (), key
                FROM read_json({quoted(path)}, format = 'newline_delimited', records = false, ignore_errors = true,
                               columns = {{key: 'VARCHAR'}}, hive_partitioning = false, compression = 'none')"""
        )
        if count(connection, "sent WHERE key IS NULL"):
            _mend_keys(connection, path, before)
    connection.execute(
        """CREATE TEMP TABLE asked AS
           SELECT row_number() OVER (ORDER BY min(number)) AS row, key FROM sent GROUP BY key"""
    )
    connection.execute("DROP TABLE sent")


def load_placed(connection: "DuckDBPyConnection") -> None:
    """Make `placed`: for each key the position of its answer."""
    connection.execute(
        """CREATE TEMP TABLE placed AS
           SELECT row, key, position FROM asked LEFT JOIN (
               SELECT key, coalesce(min(position) FILTER (is_ok), min(position)) AS position
               FROM lines WHERE key IS NOT NULL GROUP BY key
           ) USING (key)"""
    )


def is_settled(connection: "DuckDBPyConnection", staged: Path) -> bool:
    """True when the staged rows are the table: every key answered once, in request order, and nothing else there."""
    agreeing = count(
        connection, f"{rows_of(staged)} staged JOIN asked ON staged.row = asked.row AND staged.key = asked.key"
    )
    return agreeing == count(connection, "lines") == count(connection, "asked")


def leftovers(connection: "DuckDBPyConnection") -> Leftovers:
    """Return what `lines` holds beyond one line for each key, and the keys without one."""
    stray = "FROM lines ANTI JOIN asked USING (key)"
    if count(connection, "lines WHERE key IS NOT NULL AND NOT is_keyless"):
        stray = "FROM lines WHERE is_keyless OR NOT EXISTS (FROM asked WHERE asked.key = lines.key)"
    repeated = "(SELECT key, count(*) - 1 AS extra FROM lines SEMI JOIN asked USING (key) GROUP BY key, attempt)"
    return Leftovers(
        duplicate=int(_row(connection, f"SELECT coalesce(sum(extra), 0) FROM {repeated}")[0]),
        unexpected=int(_row(connection, f"SELECT count(*) {stray}")[0]),
        malformed=count(connection, "lines WHERE label IS NOT NULL AND NOT is_keyless"),
        missing_keys=_keys(connection, "SELECT key FROM placed WHERE position IS NULL ORDER BY row"),
        duplicate_keys=_keys(
            connection,
            f"SELECT key FROM {repeated} JOIN asked USING (key) WHERE extra > 0 GROUP BY key ORDER BY min(row)",
        ),
        unexpected_keys=_keys(
            connection,
            f"""SELECT any_value(shown) FROM (SELECT coalesce(key, label) AS shown, file, line {stray})
                GROUP BY shown ORDER BY min((file, line))""",
        ),
    )


def merged(connection: "DuckDBPyConnection", staged: Path, repaired: Path | None, starts: Sequence[int]) -> str:
    """Return the query of the whole table: one row for each key, also for those without an answer.

    Rows without an answer stand last; readers go by `row`. Rows are sorted only when answers came out of request order,
    because that moves every text through the disk. `placed` is all that is left of the tables.
    """
    is_shuffled = count(
        connection,
        """(SELECT position, lag(position) OVER (ORDER BY row) AS before FROM placed WHERE position IS NOT NULL)
           WHERE before > position""",
    )
    for done in ("lines", "asked"):
        connection.execute(f"DROP TABLE {done}")
    # `placed` has to be the side that is held in memory: it is written second, and the optimizer may not swap.
    connection.execute("SET disabled_optimizers = 'join_order,build_side_probe_side'")
    return f"""
        SELECT placed.row, placed.key, {_ANSWER}, attempt, file, line
        FROM (SELECT *, {_position(starts)} AS position FROM ({_answers(staged, repaired)})) answers
        JOIN placed ON answers.position = placed.position
        UNION ALL
        SELECT row, key, 'missing', '', '', NULL, '', '', 0, 0, 0, NULL, NULL, NULL
        FROM (SELECT * FROM placed WHERE position IS NULL ORDER BY row)
        {"ORDER BY row" if is_shuffled else ""}"""


def summarise(
    connection: "DuckDBPyConnection", table: Path, leftovers: Leftovers, *, expected_rows: int
) -> ResultSummary:
    """Count the rows of the finished table. `expected_rows` may be 0, or more than the rows that have a key."""
    rows: dict[str, int] = {}
    tokens = [0, 0, 0]
    for status, status_rows, *status_tokens in connection.execute(
        f"""SELECT status, count(*), sum(input_tokens), sum(output_tokens), sum(thoughts_tokens)
            FROM {rows_of(table)} GROUP BY status"""
    ).fetchall():
        rows[status] = status_rows
        tokens = [total + int(more) for total, more in zip(tokens, status_tokens, strict=True)]
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
        usage=Usage(*tokens),
        model_versions=_model_versions(connection, table),
        missing_keys=leftovers.missing_keys,
        duplicate_keys=leftovers.duplicate_keys,
        unexpected_keys=leftovers.unexpected_keys,
    )


def _answers(staged: Path, repaired: Path | None) -> str:
    """Return the query of all lines that could be read."""
    read = f"SELECT file, line, attempt, key, {_ANSWER} FROM {rows_of(staged)} WHERE status IS NOT NULL"
    if repaired:
        read += f" UNION ALL SELECT file, line, attempt, key, {_ANSWER} FROM {rows_of(repaired)}"
    return read


def _position(starts: Sequence[int]) -> str:
    return f"{listed(starts or (0,))}[file + 1] + line"


def _mend_keys(connection: "DuckDBPyConnection", path: Path, before: int) -> None:
    """Read keys that hold what JSON does not allow, as answers are read: mended."""
    wanted = {
        number - before for (number,) in connection.execute("SELECT number FROM sent WHERE key IS NULL").fetchall()
    }
    found: list[tuple[str, int]] = []
    for number, (_, content) in enumerate(answer_lines(path), start=1):
        if number in wanted:
            try:
                key = json.loads(mended(content))
            except ValueError:
                key = None
            if not isinstance(key, str):
                raise StorageError(f"Key {number} in {path} cannot be read.", "Order the batch again from its source.")
            found.append((key, before + number))
    connection.executemany("UPDATE sent SET key = ? WHERE number = ?", found)


def _model_versions(connection: "DuckDBPyConnection", table: Path) -> dict[str, int]:
    found = connection.execute(
        f"""SELECT left(model_version, {_SHOWN_CHARS}) AS version, count(*) AS uses FROM {rows_of(table)}
            WHERE model_version <> '' GROUP BY version ORDER BY uses DESC, version LIMIT {_SHOWN_VERSIONS}"""
    ).fetchall()
    return {visible_cell(version, _SHOWN_CHARS): uses for version, uses in found}


def _keys(connection: "DuckDBPyConnection", query: str) -> tuple[str, ...]:
    found = connection.execute(f"{query} LIMIT {_SHOWN_KEYS}").fetchall()
    return tuple(visible_cell(key, _SHOWN_CHARS) for (key,) in found)


def _row(connection: "DuckDBPyConnection", query: str) -> tuple[Any, ...]:
    row = connection.execute(query).fetchone()
    assert row is not None, "an aggregate always yields a row"
    return row
