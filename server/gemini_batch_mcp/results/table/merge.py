"""Which line answers which key: the answer lines laid against the keys that were sent, in SQL.

Tables of a build: `sent` (one row for each key of each attempt, `number` in order), `asked` (one for each key of a job
that has ended; `row` counts all keys from 1 in request order, `source_key` is the key under which its answer comes:
another one's where a row asks the same as an earlier one), `lines` (one for each answer line), `placed` (asked, with
the `position` of the line that answers it, or NULL). Positions number the lines of all files such that later attempts
come first. A key's answer is its first ok line in that order, or else its first line: an ok answer beats any other,
then a later attempt beats an earlier one, and among duplicates the first one stays.

When nobody knows which keys were sent, they are those of the lines, in order, and a line without a key gets one that
says where it stands. If other lines have keys, such a line counts as unexpected all the same: something was lost there.
"""

# ruff: noqa: S608 - queries consist of our own names, of numbers, and of literals made by `quoted`

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gemini_batch_mcp.domain import Column
from gemini_batch_mcp.errors import StorageError
from gemini_batch_mcp.results.engine import identifier, listed, quoted, rows_of
from gemini_batch_mcp.results.table.inputs import NOT_PAID, AnswerFile, OrderedRows, TablePlan
from gemini_batch_mcp.results.table.layout import Layout
from gemini_batch_mcp.results.table.lines import answer_lines, mended
from gemini_batch_mcp.results.visible import visible_cell

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_SHOWN_KEYS: Final = 5
_SHOWN_CHARS: Final = 200
#: Of a message in a row's history; the row itself has it whole.
_HISTORY_CHARS: Final = 300

#: What stands in the row of a key without an answer; everything else is NULL there.
_OF_MISSING: Final = {"status": "'missing'", "key": "placed.key", "row": "placed.row"} | {
    **dict.fromkeys(("text", "finish_reason", "error_message", "model_version", "answered_by"), "''"),
    **dict.fromkeys(("input_tokens", "output_tokens", "thoughts_tokens"), "0"),
}


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What of the answer lines and the keys found no partner; the members are those of `ResultSummary`."""

    duplicate: int = 0
    unexpected: int = 0
    malformed: int = 0
    missing_keys: tuple[str, ...] = ()
    duplicate_keys: tuple[str, ...] = ()
    unexpected_keys: tuple[str, ...] = ()


def count(connection: "DuckDBPyConnection", source: str) -> int:
    """Return how many rows `source` has: a table, or a table and a condition."""
    return int(_row(connection, f"SELECT count(*) FROM {source}")[0])


def load_sent(connection: "DuckDBPyConnection", plan: TablePlan) -> int:
    """Make `sent` and `asked` from the keys that were sent; returns how many keys are pending.

    Raises:
        StorageError: a keys file holds something that is no JSON string.
    """
    connection.execute("CREATE TEMP TABLE sent (number BIGINT, key VARCHAR, attempt INTEGER, has_ended BOOLEAN)")
    for path in plan.keys_paths:
        jobs = [answer for answer in plan.answers if answer.keys_path == path]
        before = count(connection, "sent")
        _load_keys(connection, path, before, "sent", f"{jobs[0].attempt}, {_has_ended(jobs)}")
    if plan.rows is not None:
        return _load_ordered(connection, plan.rows)
    keys, distinct = _row(connection, "SELECT count(*), count(DISTINCT key) FROM sent")
    if keys == distinct:  # the rule, and a view costs nothing
        connection.execute(
            "CREATE TEMP VIEW asked AS SELECT number AS row, key, key AS source_key FROM sent WHERE has_ended"
        )
    else:
        connection.execute(
            """CREATE TEMP TABLE asked AS
               SELECT row, key, key AS source_key
               FROM (SELECT row_number() OVER (ORDER BY min(number)) AS row, key, bool_or(has_ended) AS has_ended
                     FROM sent GROUP BY key) WHERE has_ended"""
        )
    return int(distinct) - count(connection, "asked")


def _load_ordered(connection: "DuckDBPyConnection", rows: OrderedRows) -> int:
    """Make `asked` of an order's rows, and behind them of keys that were left out of it; returns how many are pending.

    A row ends with the one whose answer it has.
    """
    connection.execute("CREATE TEMP TABLE ordered (number BIGINT, key VARCHAR)")
    _load_keys(connection, rows.keys_path, 0, "ordered")
    connection.execute(
        f"""CREATE TEMP TABLE every AS
            SELECT ordered.number AS row, ordered.key AS key, coalesce(other.key, ordered.key) AS source_key
            FROM ordered LEFT JOIN read_parquet({quoted(rows.alike_path)}) alike ON alike.row = ordered.number
            LEFT JOIN ordered other ON other.number = alike.first_row
            UNION ALL
            SELECT (SELECT count(*) FROM ordered) + row_number() OVER (ORDER BY min(number)), key, key
            FROM sent WHERE key NOT IN (SELECT key FROM ordered) GROUP BY key"""
    )
    connection.execute("DROP TABLE ordered")
    connection.execute(
        """CREATE TEMP TABLE asked AS
           SELECT * FROM every WHERE source_key IN (SELECT key FROM sent WHERE has_ended)"""
    )
    pending = count(connection, "every") - count(connection, "asked")
    connection.execute("DROP TABLE every")
    return pending


def _load_keys(connection: "DuckDBPyConnection", path: Path, before: int, table: str, more: str = "") -> None:
    """Put keys into a table, numbered behind so many others."""
    connection.execute(
        f"""INSERT INTO {table} SELECT {before} + number, key {f", {more}" if more else ""}
            FROM (SELECT row_number() OVER () AS number, key
                  FROM read_json({quoted(path)}, format = 'newline_delimited', records = false,
                                 ignore_errors = true, columns = {{key: 'VARCHAR'}}, hive_partitioning = false,
                                 compression = 'none'))"""
    )
    if count(connection, f"{table} WHERE key IS NULL"):
        _mend_keys(connection, path, before, table)


def agreeing_rows(connection: "DuckDBPyConnection", part: Path, rows_before: int) -> int:
    """Return how many rows of a part, which follow so many others, stand where their key was asked for."""
    last = rows_before + count(connection, rows_of(part))
    return count(
        connection,
        f"""{rows_of(part)} part
            JOIN (FROM asked WHERE row BETWEEN {rows_before + 1} AND {last}) asked
              ON part.row = asked.row AND part.key = asked.key""",
    )


def readable_rows(connection: "DuckDBPyConnection", part: Path) -> int:
    """Return how many rows of a part are answers that can be read."""
    return count(connection, f"{rows_of(part)} WHERE status IS NOT NULL")


def known_rows(connection: "DuckDBPyConnection", part: Path) -> int:
    """Return how many rows of a part have a key that was sent, in whatever place."""
    return count(connection, f"{rows_of(part)} part WHERE part.key IN (SELECT key FROM sent)")


def has_distinct_keys(connection: "DuckDBPyConnection", staged: Path) -> bool:
    """True when every staged row could be read and has a key that no other one has."""
    rows, readable, keys = _row(
        connection, f"SELECT count(*), count(status), count(DISTINCT key) FROM {rows_of(staged)}"
    )
    return bool(rows == readable == keys)


def load_lines(connection: "DuckDBPyConnection", staged: Path, position: str, plan: TablePlan) -> None:
    """Make `lines`. `key` is NULL for a line that can answer nothing, `label` is what to call such a line."""
    place = "'line ' || line" + ("" if len(plan.answers) < 2 else " || ' of file ' || (file + 1)")
    more = f", error_code, left(error_message, {_HISTORY_CHARS}) AS error_message, finish_reason"
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE lines AS
            SELECT {position} AS position, file, line, attempt, status, status IS NOT DISTINCT FROM 'ok' AS is_ok,
                   key IS NULL AND status IS NOT NULL AS is_keyless,
                   CASE WHEN key IS NULL THEN
                       {place} || CASE WHEN status IS NULL THEN ' (not readable)' ELSE ' (no key)' END END AS label,
                   CASE WHEN key IS NOT NULL THEN key
                        WHEN status IS NOT NULL AND {not plan.keys_paths} THEN label END AS key
                   {more if plan.attempts > 1 else ""}
            FROM {rows_of(staged)}"""
    )


def load_asked_from_lines(connection: "DuckDBPyConnection") -> None:
    """Make `asked` from `lines`, when nobody knows which keys were sent."""
    connection.execute(
        """CREATE OR REPLACE TEMP TABLE asked AS
           SELECT row_number() OVER (ORDER BY min((file, line))) AS row, key, key AS source_key
           FROM lines WHERE key IS NOT NULL GROUP BY key"""
    )


def load_placed(connection: "DuckDBPyConnection") -> None:
    """Make `placed`: for each key the position of its answer."""
    connection.execute(
        """CREATE OR REPLACE TEMP TABLE placed AS
           SELECT row, asked.key AS key, source_key, position FROM asked LEFT JOIN (
               SELECT key, coalesce(min(position) FILTER (is_ok), min(position)) AS position
               FROM lines WHERE key IS NOT NULL GROUP BY key
           ) answered ON answered.key = asked.source_key"""
    )


def load_history(connection: "DuckDBPyConnection") -> None:
    """Make `history`: for each key with more to tell than its row, how every attempt at it ended, in order.

    Lists are held in memory whole, so only those that are wanted are made.
    """
    connection.execute(
        """CREATE OR REPLACE TEMP TABLE history AS
           WITH ended AS (
               SELECT asked.row, lines.attempt, lines.status, error_code, error_message, finish_reason, file, line
               FROM lines JOIN asked ON lines.key = asked.source_key
               UNION ALL
               SELECT asked.row, sent.attempt, 'missing', NULL, '', '', 0, 0
               FROM sent JOIN asked ON sent.key = asked.source_key
               ANTI JOIN lines ON lines.key = sent.key AND lines.attempt = sent.attempt
               WHERE sent.has_ended
           )
           SELECT row, list(struct_pack(attempt, status, error_code, error_message, finish_reason)
                            ORDER BY attempt, file, line) AS attempts
           FROM ended WHERE row IN (SELECT row FROM ended GROUP BY row HAVING count(*) > 1)
           GROUP BY row"""
    )


def load_costs(connection: "DuckDBPyConnection", staged: Path, position: str) -> None:
    """Make `costs`: what all attempts at a key cost in USD, for each key that several answered. Each was paid for."""
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE costs AS
            SELECT key, sum(cost_usd) AS cost_usd
            FROM (SELECT key, unnest(min_by(struct_pack(cost_usd), position))
                  FROM ({answered_rows(staged, position)}) WHERE key IS NOT NULL GROUP BY key, attempt)
            GROUP BY key HAVING count(*) > 1"""
    )


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


def answered_rows(staged: Path, position: str) -> str:
    """Return the query of all staged rows that could be read, with their position."""
    return f"SELECT *, {position} AS position FROM {rows_of(staged)} WHERE status IS NOT NULL"


def merged(
    connection: "DuckDBPyConnection",
    staged: Path,
    position: str,
    layout: Layout,
    *,
    media: str,
    shares_answers: bool = False,
) -> str:
    """Return the query of the whole table, one row for each key, without the columns of the source.

    `media` is a table with `row`, `files` and `fault`. Rows with an answer stand in request order, those without one
    behind them. They are sorted only when answers came out of request order, because that moves every text through the
    disk. Of the tables, `placed`, `history`, `costs` and `media` are left. With `shares_answers` several rows may have
    the answer of one: it was paid once.
    """
    is_shuffled = count(
        connection,
        """(SELECT position, lag(position) OVER (ORDER BY row) AS before FROM placed WHERE position IS NOT NULL)
           WHERE before > position""",
    )
    connection.execute("DROP TABLE IF EXISTS lines")
    spoiled = "media.fault IS NOT NULL AND answers.status = 'ok'"
    own = {
        "key": "placed.key",
        "row": "placed.row",
        "files": "media.files",
        "status": f"CASE WHEN {spoiled} THEN 'failed' ELSE answers.status END",
        "error_message": f"CASE WHEN {spoiled} THEN media.fault ELSE answers.error_message END",
    }
    layout = replace(layout, source=())
    beside = {"history": "history.attempts"} if layout.has_history else {}
    joins = cost_joins = ""
    if layout.has_history:
        joins = "LEFT JOIN history ON history.row = placed.row"
        cost_joins = "LEFT JOIN costs ON costs.key = placed.key"
        own["cost_usd"] = "coalesce(costs.cost_usd, answers.cost_usd)"
    if shares_answers:
        own |= {
            name: f"CASE WHEN placed.key = placed.source_key THEN {own.get(name, f'answers.{name}')} ELSE {nothing} END"
            for name, nothing in NOT_PAID.items()
        }

    def of_answer(column: Column) -> str:
        return beside.get(column.name) or own.get(column.name) or f"answers.{identifier(column.name)}"

    def of_missing(column: Column) -> str:
        return beside.get(column.name) or _OF_MISSING.get(column.name) or f"NULL::{column.type}"

    # The tables that are held in memory have to be those that are written second; the optimizer may not swap.
    return f"""
        SELECT {layout.select(of_answer)}
        FROM ({answered_rows(staged, position)}) answers
        JOIN placed ON answers.position = placed.position
        LEFT JOIN {media} media ON media.row = placed.row {joins} {cost_joins}
        UNION ALL
        SELECT {layout.select(of_missing)}
        FROM (SELECT * FROM placed WHERE position IS NULL ORDER BY row) placed {joins}
        {"ORDER BY row" if is_shuffled else ""}"""


def positions(answers: Sequence[AnswerFile], line_counts: Sequence[int]) -> str:
    """Return the SQL of a line's position, from its file and its number in it."""
    order = sorted(range(len(answers)), key=lambda file: -answers[file].attempt)
    before = accumulate((line_counts[file] for file in order), initial=0)
    starts = dict(zip(order, before, strict=False))
    return f"{listed(starts[file] for file in range(len(answers))) if answers else '[0]'}[file + 1] + line"


def _has_ended(jobs: Sequence[AnswerFile]) -> str:
    """Return the condition that the key of that number in its file was sent by one of these jobs."""
    if not all(job.row_count for job in jobs):
        return "true"
    return " OR ".join(f"number BETWEEN {job.first_row + 1} AND {job.first_row + job.row_count}" for job in jobs)


def _mend_keys(connection: "DuckDBPyConnection", path: Path, before: int, table: str) -> None:
    """Read keys that hold what JSON does not allow, as answers are read: mended."""
    wanted = {
        number - before for (number,) in connection.execute(f"SELECT number FROM {table} WHERE key IS NULL").fetchall()
    }
    found: list[tuple[str, int]] = []
    for number, (_, content) in enumerate(answer_lines(path), start=1):
        if number in wanted:
            try:
                key = json.loads(mended(content))
            except ValueError:
                key = None
            if not isinstance(key, str):
                raise StorageError(f"Key {number} in {path} cannot be read.", "Submit the batch again from its source.")
            found.append((key, before + number))
    connection.executemany(f"UPDATE {table} SET key = ? WHERE number = ?", found)


def _keys(connection: "DuckDBPyConnection", query: str) -> tuple[str, ...]:
    found = connection.execute(f"{query} LIMIT {_SHOWN_KEYS}").fetchall()
    return tuple(visible_cell(key, _SHOWN_CHARS) for (key,) in found)


def _row(connection: "DuckDBPyConnection", query: str) -> tuple[Any, ...]:
    row = connection.execute(query).fetchone()
    assert row is not None, "an aggregate always yields a row"
    return row
