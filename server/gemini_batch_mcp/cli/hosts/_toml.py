"""TOML, edited in place by tomlkit: one table set or removed, comments and layout of everything else kept."""

from collections.abc import Sequence
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AbstractTable, InlineTable

from gemini_batch_mcp.cli.hosts._jsonc import NotReadable


def parsed(text: str) -> Any:
    """Return what a text says.

    Raises:
        NotReadable: it is not TOML.
    """
    return _document(text).unwrap()


def with_member(text: str, path: Sequence[str], value: dict[str, Any]) -> str:
    """Return the text with a table at this path, in place of another or at the end.

    Raises:
        NotReadable: the text is not TOML, or something on the way is not a table.
    """
    document = _document(text)
    holder: Any = document
    for name in path[:-1]:
        if name not in holder:
            holder[name] = tomlkit.table(is_super_table=True)
        holder = holder[name]
        if not isinstance(holder, AbstractTable) and not hasattr(holder, "unwrap"):
            raise NotReadable(f"{name} is not a table")
    # Inside of a table on one line everything stands on that line.
    table: Any = tomlkit.inline_table() if isinstance(holder, InlineTable) else tomlkit.table()
    for name, member in value.items():
        if isinstance(member, dict) and isinstance(holder, InlineTable):
            inner = tomlkit.inline_table()
            inner.update(member)
            member = inner
        table[name] = member
    holder[path[-1]] = table
    return _text(document)


def without_member(text: str, path: Sequence[str]) -> str:
    """Return the text without the table at this path, and as it is where there is none.

    Raises:
        NotReadable: the text is not TOML.
    """
    document = _document(text)
    holder: Any = document
    for name in path[:-1]:
        if name not in holder:
            return text
        holder = holder[name]
    if path[-1] not in holder:
        return text
    del holder[path[-1]]
    return _text(document)


def _document(text: str) -> tomlkit.TOMLDocument:
    try:
        return tomlkit.parse(text)
    except TOMLKitError as error:
        raise NotReadable(str(error)) from None


def _text(document: tomlkit.TOMLDocument) -> str:
    return tomlkit.dumps(document)
