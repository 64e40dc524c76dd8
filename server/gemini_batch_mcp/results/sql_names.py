"""What SQL calls the columns of a table, where that is not what its files call them: as the rows of get_results do."""

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from gemini_batch_mcp.domain import Column

#: What a column is called in the files, and what in SQL.
OLD_NAMES: Final[Mapping[str, str]] = MappingProxyType({"error_message": "error"})
#: What tells a result table from a table of the user's, who may have an `error_message` of their own.
_MARKS: Final = frozenset({"error_code", "error_message", "attempt", "file", "line"})
_HISTORY: Final = "history"
#: A member of each entry of the history; `error` is a word of SQL's, which is why the engine quotes it in a type.
_STORED_MEMBER: Final = "error_message VARCHAR"
_SQL_MEMBER: Final = '"error" VARCHAR'
_HISTORY_IN_SQL: Final = """list_transform(history, lambda entry: struct_pack(attempt := entry.attempt,
    status := entry.status, error_code := entry.error_code, error := entry.error_message,
    finish_reason := entry.finish_reason))"""


def sql_columns(stored: Iterable[Column]) -> tuple[Column, ...]:
    """Return the columns of a table as SQL has them."""
    columns = tuple(stored)
    renamed = _renamed(column.name for column in columns)
    return tuple(
        Column(
            renamed.get(column.name, column.name),
            column.type.replace(_STORED_MEMBER, _SQL_MEMBER) if column.name == _HISTORY else column.type,
            column.origin,
        )
        for column in columns
    )


def select_list(stored: Iterable[tuple[str, str]], left_out: Collection[str] = ()) -> str:
    """Return what to select from the files of a table for SQL's names.

    It has columns of these names and types, and others that are `left_out`.
    """
    types = dict(stored)
    every = f"* EXCLUDE ({', '.join(sorted(left_out))})" if left_out else "*"
    if not (renamed := _renamed(types)):
        return every
    replaced = f" REPLACE ({_HISTORY_IN_SQL} AS history)" if _STORED_MEMBER in types.get(_HISTORY, "") else ""
    return f"{every}{replaced} RENAME ({', '.join(f'{old} AS {new}' for old, new in renamed.items())})"


def _renamed(names: Iterable[str]) -> dict[str, str]:
    """Return the old and the new name of each column that has another one in SQL: none in a table of the user's."""
    return dict(OLD_NAMES) if set(names) >= _MARKS else {}
