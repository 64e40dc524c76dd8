"""TOML, edited in place by tomlkit: one table set or removed, comments and layout of everything else kept."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AbstractTable, Comment, InlineTable, Table, Whitespace

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


def with_members(text: str, path: Sequence[str], value: dict[str, Any]) -> str:
    """Return the text with the table at this path, where one is there only its members that differ.

    Raises:
        NotReadable: as `with_member`.
    """
    document = _document(text)
    table: Any = document
    for name in path:
        table = table.get(name) if isinstance(table, AbstractTable | dict) else None
    if not isinstance(table, AbstractTable):
        return with_member(text, path, value)
    with _held_tail(table):
        _set_members(table, value)
    return _text(document)


def with_member_of(text: str, source: str, path: Sequence[str]) -> str:
    """Return the text with the member at this path as another text has it, comments included.

    Raises:
        NotReadable: one of them is not TOML, or has no such member.
    """
    document = _document(text)
    holder: Any = document
    wanted: Any = _document(source)
    try:
        for name in path[:-1]:
            holder, wanted = holder[name], wanted[name]
        there, wanted = holder[path[-1]], wanted[path[-1]]
    except (KeyError, TypeError):
        raise NotReadable(f"{'.'.join(path)} is not there") from None
    # What stands above the next table is this text's own.
    _cut_tail(wanted)
    tail = _cut_tail(there)
    holder[path[-1]] = wanted
    _last_table(wanted).extend(tail)
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
    tail = "".join(item.as_string() for _, item in _cut_tail(holder[path[-1]]))
    before = _text(document)
    del holder[path[-1]]
    after = _text(document)
    if "#" not in tail:
        return after
    place = before.rfind("\n", 0, _shared_chars(before, after)) + 1
    return after[:place] + tail.lstrip("\r\n") + after[place:]


def _shared_chars(one: str, other: str) -> int:
    """Return how many characters two texts have in common from their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (letter, its) in pairs if letter != its), min(len(one), len(other)))


def _set_members(table: Any, value: dict[str, Any]) -> None:
    for name in [name for name in table if name not in value]:
        del table[name]
    for name, member in value.items():
        there = table.get(name)
        if isinstance(there, AbstractTable) and isinstance(member, dict):
            _set_members(there, member)
        elif there is None or there != member:
            table[name] = member


@contextmanager
def _held_tail(table: Any) -> Iterator[None]:
    """Keep what stands below a table's last member below whatever is added to it: it speaks of the next table."""
    tail = _cut_tail(table)
    yield
    _last_table(table).extend(tail)


def _cut_tail(table: Any) -> list[Any]:
    body = _last_table(table)
    tail: list[Any] = []
    while body and isinstance(body[-1][1], Comment | Whitespace):
        tail.insert(0, body.pop())
    return tail


def _last_table(table: Any) -> list[Any]:
    """Return the parts of a table, or of the last of the tables in it; nothing for what has no lines of its own."""
    if not isinstance(table, Table):
        return []
    body: list[Any] = table.value.body
    return _last_table(body[-1][1]) if body and isinstance(body[-1][1], Table) else body


def _document(text: str) -> tomlkit.TOMLDocument:
    try:
        return tomlkit.parse(text)
    except TOMLKitError as error:
        raise NotReadable(str(error)) from None


def _text(document: tomlkit.TOMLDocument) -> str:
    return tomlkit.dumps(document)
