"""Which keys of a result table ended in a given way: what a retry sends again."""

# ruff: noqa: S608 - queries consist of our own names, of numbers, and of literals made by `quoted`

from collections.abc import Collection
from pathlib import Path
from tempfile import gettempdir
from typing import Final

from gemini_batch_mcp.domain import RowStatus
from gemini_batch_mcp.results.engine import connect, rows_of, table_errors

_MEMORY_LIMIT_BYTES: Final = 256 << 20


def keys_that_ended(
    table: Path, statuses: Collection[RowStatus], *, without_codes: Collection[int] = ()
) -> frozenset[str]:
    """Return the keys of rows with one of these statuses, but for failed ones with an error code in `without_codes`.

    Raises:
        StorageError: the table cannot be read.
    """
    query = f"SELECT key FROM {rows_of(table)} WHERE status IN (SELECT unnest(?))"
    values: list[object] = [[str(status) for status in statuses]]
    if without_codes:
        query += " AND coalesce(error_code NOT IN (SELECT unnest(?)), true)"
        values.append(list(without_codes))
    with table_errors(f"The result table {table} could not be read"):
        connection = connect(_MEMORY_LIMIT_BYTES, Path(gettempdir()))
        try:
            return frozenset(key for (key,) in connection.execute(query, values).fetchall())
        finally:
            connection.close()
