"""Tables and queries for the tests of `results/query`."""

from pathlib import Path

import duckdb

from gemini_batch_mcp.results.query_run import Query, QueryAnswer, run_query

#: In every file that a query must not read.
CANARY = "canary-5d1f2c"

#: The columns that every result table has, and two of a user's own table.
ROWS = """
    SELECT i + 1 AS row, 'k' || i AS key, CASE i % 10 WHEN 0 THEN 'failed' ELSE 'ok' END AS status,
           'answer ' || i AS text, 'STOP' AS finish_reason, CASE i % 10 WHEN 0 THEN 13 END AS error_code,
           '' AS error_message, 'gemini-3.8-flash' AS model_version, 3 AS input_tokens, 4 AS output_tokens,
           0 AS thoughts_tokens, 1 AS attempt, 0 AS file, i AS line,
           (['red', 'green', 'blue'])[i % 3 + 1] AS product, i / 4.0 AS "Unit Price"
    FROM range(1000) numbers(i)
"""


def table_at(path: Path, select: str = ROWS) -> Path:
    """Write what `select` finds as a Parquet file."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"COPY ({select}) TO '{str(path).replace(chr(39), chr(39) * 2)}' (FORMAT parquet)")
    return path


def ask(
    table: Path,
    sql: str,
    *,
    limit: int = 100,
    time_limit_seconds: float = 20.0,
    memory_limit_bytes: int = 512 << 20,
    max_cell_chars: int = 2000,
    max_chars: int = 17_000,
) -> QueryAnswer:
    """Run a query in this process, which is quicker than in one of its own."""
    return run_query(Query(str(table), sql, limit, time_limit_seconds, memory_limit_bytes, max_cell_chars, max_chars))
