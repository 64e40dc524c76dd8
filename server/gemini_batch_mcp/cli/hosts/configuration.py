"""A host's file with our entry: what would change, written with a copy of what was there, undone to the byte.

Nothing else in the file changes: it is read before and after the change, and a change that touches more is refused.
What was there is kept beside the file (`mcp.json.before-gemini-batch`). Undoing puts that copy back if the file is
still what we made of it. Otherwise it puts the entry that the user had back in place of ours, or takes ours out.
"""

from collections.abc import Callable, Set
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gemini_batch_mcp.cli.hosts import _files, _jsonc, _shown, _toml
from gemini_batch_mcp.cli.hosts._updating import updated
from gemini_batch_mcp.cli.hosts.known import KEY_INPUT, Host
from gemini_batch_mcp.errors import StorageError, UsageError

#: The name of the program that our entries start.
_PROGRAM: Final = "gemini-batch-mcp"
#: How often a change is made anew because the host has written its file meanwhile.
_TRIES: Final = 5
#: VS Code's own: it asks for the key once, and keeps it encrypted.
_KEY_INPUT: Final = {
    "type": "promptString",
    "id": KEY_INPUT,
    "description": "Gemini API key",
    "password": True,
}


class _Overtaken(Exception):
    """The host has written its file between our look at it and our change."""


@dataclass(frozen=True, slots=True)
class Change:
    """What was done to a host's file, or would be. `backup` is the copy of what was there, if a file was.

    `difference` is a unified diff, empty if nothing changes; `entry` is our entry as it is then, None where it is gone.
    """

    file: Path
    difference: str
    backup: Path | None = None
    entry: dict[str, Any] | None = field(default=None, repr=False)
    #: The file is gone, since nothing but our entry was in it.
    is_removal: bool = False

    @property
    def changes(self) -> bool:
        """Whether anything is different."""
        return bool(self.difference)


def entry_of(host: Host, file: Path) -> dict[str, Any] | None:
    """Return our entry as the file has it, None if it has none.

    Raises:
        UsageError: the file cannot be understood.
        StorageError: it cannot be read.
    """
    return _entry_in(host, file, _files.read(file))


def install(
    host: Host, file: Path, entry: dict[str, Any], *, dry_run: bool, yielding: Set[str] = frozenset()
) -> Change:
    """Set our entry in the file, or only say what would change. What others have added to the entry stays.

    The variables in `yielding` are set only where the entry that is there has none of their names.

    Raises:
        UsageError: the file cannot be understood, or something else stands where our entry goes.
        StorageError: it cannot be read or written.
    """

    def installed(before: bytes) -> bytes:
        earlier = _entry_in(host, file, before)
        return _with_entry(host, file, before, updated(host, earlier or {}, entry, yielding))

    return _change(host, file, installed, dry_run=dry_run)


def undo(host: Host, file: Path, *, dry_run: bool) -> Change:
    """Put back what was there before; where the file has changed since, an earlier entry, or none, in place of ours.

    Raises:
        UsageError: there is nothing of ours, or the file cannot be understood.
        StorageError: it cannot be read or written.
    """
    if entry_of(host, file) is None:
        raise UsageError(f"{file} has no entry {host.path[-1]}.", f"Nothing to undo for {host.title}.")
    backup = _files.backup_of(file)
    before = _understood(host, backup)

    def undone(now: bytes) -> bytes | None:
        entry = _entry_in(host, file, now) or {}
        if before is None:
            return None if now == _with_entry(host, file, b"", entry) else _without_entry(host, file, now, b"")
        if _with_entry(host, file, before, entry) == now:
            return before
        if _member_of(host, _parsed(host, backup, _text(backup, before)[0])) is not None:
            return _with_entry_of(host, file, now, before)
        return _without_entry(host, file, now, before)

    change = _change(host, file, undone, dry_run=dry_run, keep=False)
    if before is not None and not dry_run:
        # Whatever in the copy was ours to put back is back by now.
        backup.unlink(missing_ok=True)
    return change


def _understood(host: Host, backup: Path) -> bytes | None:
    """Return the copy of what was there before, None where there is none, or none that can be understood."""
    before = _files.kept(backup)
    with suppress(UsageError):
        _parsed(host, backup, _text(backup, before or b"")[0])
        return before
    return None


def _change(
    host: Host, file: Path, edit: Callable[[bytes], bytes | None], *, dry_run: bool, keep: bool = True
) -> Change:
    target = _files.place_of(file)
    for _ in range(_TRIES):
        before = _files.read(file)
        after = edit(before)
        said = [_parsed(host, file, _text(file, content)[0]) for content in (before, after or b"")]
        difference = _shown.difference(file, before, after or b"", said)
        entry = _entry_in(host, file, after or b"")
        if after == before or dry_run:
            return Change(file, difference, entry=entry, is_removal=after is None)
        _files.hold_writable(target)
        is_kept = keep and target.exists() and _is_new(host, file, before)
        with suppress(_Overtaken), _files.copied(target, before if is_kept else None) as copy:
            if not _files.written(target, before, after):
                raise _Overtaken
            return Change(file, difference, copy, entry, after is None)
    raise StorageError(f"{file} changes all the time.", f"Quit {host.title}, then run this again.")


def _is_new(host: Host, file: Path, before: bytes) -> bool:
    """Whether what is there is to be kept: not where a copy holds what was there before our entry, or no file was."""
    entry = _entry_in(host, file, before)
    if entry is None:
        return True
    kept = _understood(host, _files.backup_of(file))
    if kept is None:
        return before != _with_entry(host, file, b"", entry)
    # Written by hand in place of ours, unless it starts the program by its whole path, as ours do.
    command = Path(str(entry.get("command", "")))
    is_ours = command.is_absolute() and command.stem == _PROGRAM
    return not is_ours and _with_entry(host, file, kept, entry) != before


def _entry_in(host: Host, file: Path, content: bytes) -> dict[str, Any] | None:
    found = _member_of(host, _parsed(host, file, content.decode("utf-8-sig", "replace")))
    return found if isinstance(found, dict) else None


def _member_of(host: Host, said: Any) -> Any:
    """Return what stands under our name, None where nothing does."""
    for name in host.path:
        said = said.get(name) if isinstance(said, dict) else None
    return said


def _with_entry(host: Host, file: Path, before: bytes, entry: dict[str, Any]) -> bytes:
    text, mark = _text(file, before)
    _parsed(host, file, text)
    form = _toml if host.is_toml else _jsonc
    try:
        after: str = form.with_members(text, host.path, entry)
        if _member_of(host, _parsed(host, file, after)) != entry:
            # Forms that cannot be edited member by member, such as names that are given twice.
            after = form.with_member(text, host.path, entry)
        if host.name == "vscode" and KEY_INPUT in str(entry.get("env")):
            inputs = _jsonc.parsed(after).get("inputs", [])
            if not (isinstance(inputs, list) and _has_key_input(inputs)):
                after = _jsonc.with_element(after, ("inputs",), _KEY_INPUT)
    except _jsonc.NotReadable as error:
        raise _not_readable(host, file, error) from None
    _hold_others(host, file, text, after)
    return mark + after.encode("utf-8")


def _with_entry_of(host: Host, file: Path, now: bytes, before: bytes) -> bytes:
    """Return what the file holds now with the entry that it had before us."""
    (text, mark), (source, _) = _text(file, now), _text(file, before)
    try:
        after = (_toml if host.is_toml else _jsonc).with_member_of(text, source, host.path)
        after = _without_key_input(host, file, after, before)
    except _jsonc.NotReadable as error:
        raise _not_readable(host, file, error) from None
    _hold_others(host, file, text, after)
    wanted = _member_of(host, _parsed(host, file, source))
    if _member_of(host, _parsed(host, file, after)) != wanted:
        raise _touches_more(file)
    return mark + after.encode("utf-8")


def _without_entry(host: Host, file: Path, now: bytes, before: bytes) -> bytes:
    text, mark = _text(file, now)
    try:
        after = (_toml if host.is_toml else _jsonc).without_member(text, host.path)
        after = _without_key_input(host, file, after, before)
    except _jsonc.NotReadable as error:
        raise _not_readable(host, file, error) from None
    _hold_others(host, file, text, after)
    return mark + after.encode("utf-8")


def _without_key_input(host: Host, file: Path, text: str, before: bytes) -> str:
    """Return the text without the input that came with our entry, unless it was there before."""
    if host.name != "vscode" or _KEY_INPUT in _list(_parsed(host, file, _text(file, before)[0]).get("inputs")):
        return text
    return _jsonc.without_element(text, ("inputs",), _KEY_INPUT)


def _has_key_input(inputs: list[Any]) -> bool:
    return any(isinstance(one, dict) and one.get("id") == KEY_INPUT for one in inputs)


def _hold_others(host: Host, file: Path, before: str, after: str) -> None:
    """Refuse a change that touches anything but our entry, whatever the reason.

    Raises:
        UsageError: it does.
    """
    if _others(host, _parsed(host, file, before)) != _others(host, _parsed(host, file, after)):
        raise _touches_more(file)


def _touches_more(file: Path) -> UsageError:
    return UsageError(
        f"{file} cannot be changed without touching more than our entry.",
        "Nothing was written; run it with --dry-run on a copy, or add the entry by hand.",
    )


def _others(host: Host, said: Any) -> Any:
    """Return what a file says without our entry, our input, and what would be empty without them."""
    if not isinstance(said, dict):
        return said
    holder, name = host.path
    others = {key: value for key, value in said.items() if key not in (holder, "inputs")}
    servers = said.get(holder, {})
    inputs = said.get("inputs", [])
    if isinstance(inputs, list):
        inputs = [one for one in inputs if one != _KEY_INPUT]
    if left := {key: value for key, value in servers.items() if key != name}:
        others[holder] = left
    return others | ({"inputs": inputs} if inputs else {})


def _parsed(host: Host, file: Path, text: str) -> Any:
    try:
        said = _toml.parsed(text) if host.is_toml else _jsonc.parsed(text)
    except _jsonc.NotReadable as error:
        raise _not_readable(host, file, error) from None
    if not isinstance(said, dict) or not isinstance(said.get(host.path[0], {}), dict):
        place = host.path[0] if isinstance(said, dict) else "the whole file"
        raise _not_readable(
            host, file, _jsonc.NotReadable(f"{place} is not {'a table' if host.is_toml else 'an object'}")
        )
    return said


def _not_readable(host: Host, file: Path, error: Exception) -> UsageError:
    form = "TOML" if host.is_toml else "JSON"
    return UsageError(
        f"{file} cannot be read as {form}: {error}.",
        f"Correct it, or move it away; {host.title} cannot read it either.",
    )


def _text(file: Path, content: bytes) -> tuple[str, bytes]:
    """Return a file's text and the mark of its encoding."""
    mark = b"\xef\xbb\xbf" if content.startswith(b"\xef\xbb\xbf") else b""
    try:
        return content[len(mark) :].decode("utf-8"), mark
    except UnicodeDecodeError:
        raise UsageError(f"{file} is not UTF-8.", "Save it as UTF-8, then run this again.") from None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
