"""What was sent again, and what that changed: how rows ended at first, and how they stand now."""

# ruff: noqa: S608 - queries consist of our own names, of numbers, and of literals made by `quoted`

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gemini_batch_mcp.domain import RowStatus
from gemini_batch_mcp.results.engine import rows_of
from gemini_batch_mcp.results.table.layout import HISTORY

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True, slots=True)
class Attempt:
    """Rows that were sent again at one time: its number, 2 for the first retry, how many, and how many came back ok."""

    number: int
    rows: int
    ok: int


@dataclass(frozen=True, slots=True)
class Retries:
    """Rows that were sent more than once. `changes` counts them by how they ended at first and how they stand now."""

    rows: int
    changes: Mapping[tuple[RowStatus, RowStatus], int]
    attempts: tuple[Attempt, ...]


def read_retries(connection: "DuckDBPyConnection", table: Path) -> Retries | None:
    """Return what retries did to the rows of a table; None where none was sent again."""
    described = connection.execute(f"DESCRIBE SELECT * FROM {rows_of(table)}").fetchall()
    if HISTORY.name not in {name for name, *_ in described}:
        return None
    # Two answers to one attempt are no retry.
    again = f"FROM {rows_of(table)} t WHERE t.history[-1].attempt > t.history[1].attempt"
    found = connection.execute(f"SELECT t.history[1].status, t.status, count(*) {again} GROUP BY ALL").fetchall()
    if not found:
        return None
    changes = {(RowStatus(before), RowStatus(after)): rows for before, after, rows in found}
    attempts = connection.execute(
        f"""SELECT attempt, count(*), count(*) FILTER (is_ok)
            FROM (SELECT row, entry.attempt AS attempt, bool_or(entry.status = 'ok') AS is_ok
                  FROM (SELECT t.row AS row, unnest(t.history[2:]) AS entry, t.history[1].attempt AS first {again})
                  WHERE entry.attempt > first GROUP BY row, entry.attempt)
            GROUP BY attempt ORDER BY attempt"""
    ).fetchall()
    return Retries(sum(changes.values()), changes, tuple(Attempt(*attempt) for attempt in attempts))
