"""A host's file with our entry: what would change, written with a copy of what was there, undone to the byte.

Nothing else in the file changes: it is read before and after the change, and a change that touches more is refused.
What was there is kept beside the file (`mcp.json.before-gemini-batch`). Undoing puts that copy back if the file is
still what we made of it, and otherwise takes our entry out of what the file has become.
"""

import difflib
import errno
import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gemini_batch_mcp.cli.hosts import _jsonc, _toml
from gemini_batch_mcp.cli.hosts.known import KEY_INPUT, Host
from gemini_batch_mcp.errors import StorageError, UsageError

#: Stands behind the name of the copy of what was there.
BACKUP: Final = ".before-gemini-batch"
#: How often a change is made anew because the host has written its file meanwhile.
_TRIES: Final = 5
#: What only one who wrote a key into it is to read.
_PRIVATE: Final = 0o600
#: VS Code's own: it asks for the key once, and keeps it encrypted.
_KEY_INPUT: Final = {
    "type": "promptString",
    "id": KEY_INPUT,
    "description": "Gemini API key",
    "password": True,
}


@dataclass(frozen=True, slots=True)
class Change:
    """What was done to a host's file, or would be. `backup` is the copy of what was there, if a file was.

    `difference` is a unified diff, empty if nothing changes.
    """

    file: Path
    difference: str
    backup: Path | None = None

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
    found = _parsed(host, file, _read(file).decode("utf-8", "replace"))
    for name in host.path:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else None


def install(host: Host, file: Path, entry: dict[str, Any], *, dry_run: bool) -> Change:
    """Set our entry in the file, or only say what would change.

    Raises:
        UsageError: the file cannot be understood, or something else stands where our entry goes.
        StorageError: it cannot be read or written.
    """

    def installed(before: bytes) -> bytes:
        return _with_entry(host, file, before, entry)

    return _change(host, file, installed, dry_run=dry_run)


def undo(host: Host, file: Path, *, dry_run: bool) -> Change:
    """Put back what was there before, or take our entry out where the file has changed since.

    Raises:
        UsageError: there is nothing of ours, or the file cannot be understood.
        StorageError: it cannot be read or written.
    """
    entry = entry_of(host, file)
    if entry is None:
        raise UsageError(f"{file} has no entry {host.path[-1]}.", f"Nothing to undo for {host.title}.")
    backup = _backup_of(file)

    def undone(now: bytes) -> bytes | None:
        with suppress(FileNotFoundError):
            before = backup.read_bytes()
            if _with_entry(host, file, before, entry) == now:
                return before
        if now == _with_entry(host, file, b"", entry):
            return None
        return _without_entry(host, file, now)

    change = _change(host, file, undone, dry_run=dry_run, keep=False)
    if not dry_run:
        backup.unlink(missing_ok=True)
    return change


def _change(
    host: Host, file: Path, edit: Callable[[bytes], bytes | None], *, dry_run: bool, keep: bool = True
) -> Change:
    # A link is kept: people manage such files in a repository of their own.
    target = file.resolve()
    for _ in range(_TRIES):
        before = _read(target)
        after = edit(before)
        difference = _difference(file, before, after or b"")
        if after == before or dry_run:
            return Change(file, difference)
        backup = _keep(target, before) if keep and target.exists() and _is_new(host, file, before) else None
        if _written(target, before, after):
            return Change(file, difference, backup)
    raise StorageError(f"{file} changes all the time.", f"Quit {host.title}, then run this again.")


def _is_new(host: Host, file: Path, before: bytes) -> bool:
    """Whether what is there is to be kept: not if it is what an earlier run of ours made of a copy that is there."""
    entry = entry_of(host, file)
    with suppress(FileNotFoundError):
        return entry is None or _with_entry(host, file, _backup_of(file).read_bytes(), entry) != before
    return True


def _with_entry(host: Host, file: Path, before: bytes, entry: dict[str, Any]) -> bytes:
    text, mark = _text(file, before)
    try:
        if host.is_toml:
            after = _toml.with_member(text, host.path, entry)
        else:
            after = _jsonc.with_member(text, host.path, entry)
            if host.name == "vscode" and any(KEY_INPUT in str(value) for value in entry.get("env", {}).values()):
                inputs = _jsonc.parsed(after).get("inputs", [])
                if not any(isinstance(one, dict) and one.get("id") == KEY_INPUT for one in inputs):
                    after = _jsonc.with_element(after, ("inputs",), _KEY_INPUT)
    except _jsonc.NotReadable as error:
        raise _not_readable(host, file, error) from None
    _hold_others(host, file, text, after)
    return mark + after.encode("utf-8")


def _without_entry(host: Host, file: Path, now: bytes) -> bytes:
    text, mark = _text(file, now)
    try:
        if host.is_toml:
            after = _toml.without_member(text, host.path)
        else:
            after = _jsonc.without_member(text, host.path)
            if host.name == "vscode":
                after = _jsonc.without_element(after, ("inputs",), _KEY_INPUT)
    except _jsonc.NotReadable as error:
        raise _not_readable(host, file, error) from None
    _hold_others(host, file, text, after)
    return mark + after.encode("utf-8")


def _hold_others(host: Host, file: Path, before: str, after: str) -> None:
    """Refuse a change that touches anything but our entry, whatever the reason.

    Raises:
        UsageError: it does.
    """
    if _others(host, _parsed(host, file, before)) != _others(host, _parsed(host, file, after)):
        raise UsageError(
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
    inputs = [one for one in said.get("inputs", []) if one != _KEY_INPUT]
    if left := {key: value for key, value in servers.items() if key != name}:
        others[holder] = left
    return others | ({"inputs": inputs} if inputs else {})


def _parsed(host: Host, file: Path, text: str) -> Any:
    try:
        said = _toml.parsed(text) if host.is_toml else _jsonc.parsed(text)
    except _jsonc.NotReadable as error:
        raise _not_readable(host, file, error) from None
    if not isinstance(said, dict) or not isinstance(said.get(host.path[0], {}), dict):
        raise _not_readable(host, file, _jsonc.NotReadable(f"{host.path[0]} is not an object"))
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


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise StorageError(
            f"{file} cannot be read ({error.strerror}).", "Make it readable, then run this again."
        ) from None


def _keep(file: Path, content: bytes) -> Path:
    backup = _backup_of(file)
    _replace(backup, content, like=file)
    return backup


def _backup_of(file: Path) -> Path:
    return file.resolve().with_name(file.resolve().name + BACKUP)


def _written(file: Path, before: bytes, after: bytes | None) -> bool:
    """Write the file, or remove it, unless it is no longer what was read; say whether."""
    if after is not None:
        return _replace(file, after, like=file, only_if=before)
    if _read(file) != before:
        return False
    file.unlink()
    return True


def _replace(file: Path, content: bytes, *, like: Path, only_if: bytes | None = None) -> bool:
    """Put a finished draft in the file's place, unless the file no longer holds `only_if`; say whether.

    Raises:
        StorageError: the file or its directory cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        mode = stat.S_IMODE(like.stat().st_mode) if like.exists() else _PRIVATE
        if file.exists() and not os.access(file, os.W_OK):
            raise PermissionError(errno.EACCES, "it is read-only")
        descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        draft = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            draft.chmod(mode)
            # As late as can be: hosts write this file, too.
            if only_if is not None and _read(file) != only_if:
                return False
            draft.replace(file)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"{file} cannot be written ({error.strerror}).",
            "Nothing was changed. Make it writable, then run this again.",
        ) from None
    return True


def _difference(file: Path, before: bytes, after: bytes) -> str:
    old, new = (content.decode("utf-8", "replace").splitlines() for content in (before, after))
    return "\n".join(difflib.unified_diff(old, new, str(file), str(file), lineterm="", n=2))
