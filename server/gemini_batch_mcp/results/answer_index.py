"""The index of a table: which request has a good answer in it, by the identity of the request, and where that lies.

It stands in the folder of the table's parts, so that it is always that of the very table; it is no part of it.
"""

# ruff: noqa: S608 - queries consist of our own names, of numbers, and of literals made by `quoted`

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gemini_batch_mcp.results.engine import execute_widening, is_of_content, quoted, rows_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: Among the parts of a table.
INDEX_NAME: Final = "answers.index"
#: Beside request lines: the identity of each row.
IDENTITIES_NAME: Final = "identities.parquet"


def identities_in(path: Path) -> str:
    """Return the subquery of the identities that a file holds (Parquet: identity), with their rows from 1."""
    return f"""(SELECT file_row_number + 1 AS row, identity
                FROM read_parquet({quoted(path)}, file_row_number = true, hive_partitioning = false))"""


def write_index(
    connection: "DuckDBPyConnection",
    table: Path,
    identities: Path,
    attempts: Collection[int],
    memory_limit_bytes: int,
) -> None:
    """Write the index of a finished table beside its parts: of the answers of these attempts.

    `identities` holds that of each row. Columns (Parquet): identity; file and line, where the raw answer lies;
    answered_by, the batch that it was taken from.
    """
    numbers = ", ".join(map(str, sorted(attempts))) or "NULL"
    query = f"""
        SELECT identity, unnest(min_by(struct_pack(file, line, answered_by), answers.row))
        FROM (SELECT row, file, line, answered_by FROM {rows_of(table)}
              WHERE status = 'ok' AND attempt IN ({numbers})) answers
        JOIN {identities_in(identities)} asked ON asked.row = answers.row
        GROUP BY identity ORDER BY identity"""
    index = table / INDEX_NAME
    try:
        execute_widening(connection, f"COPY ({query}) TO {quoted(index)} (FORMAT parquet)", memory_limit_bytes)
    except Exception as error:
        # Answers are not given up for an index: without it nobody takes them.
        if not is_of_content(error):
            raise
        index.unlink(missing_ok=True)
