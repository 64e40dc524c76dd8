"""Which paths may be read and written, decided once, for every tool and command.

A path is resolved first (symlinks included) and must then lie inside one of the roots. What does not fit is refused,
never repaired: a path that an assistant got wrong should come back to it as a sentence. Every path that is returned is
resolved; `handles.py` opens it without following links, so that what was checked is what is opened.
"""

import difflib
import errno
import os
import re
import shutil
import stat
import time
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path, PurePosixPath, PureWindowsPath

from gemini_batch_mcp.errors import PathError, system_reason

#: How everything begins that we write into a user's directory before it has its name, and for how long it is left alone
#: there: another process may be at it.
DRAFT_PREFIX = ".gemini-batch-"
DRAFT_SECONDS = 24 * 3600.0
#: Longest piece of a given path that is shown back.
_SHOWN_CHARS = 200
#: Of a directory in which a file is missing, as many names are looked at for the one that was meant (our choice).
_NAMES_LOOKED_AT = 2_000
#: From here on two names are alike.
_ALIKE = 0.75
#: What makes a piece of a path a pattern, unless there is something of that very name.
_WILDCARD = re.compile(r"[*?\[]")
#: Where chats keep what was dropped into them and what they make: machines of their own, whose paths their models give
#: as if they were ours. Claude's /mnt/user-data and /home/claude, Cowork's /sessions/…/mnt, ChatGPT's sandbox:/mnt/data
#: and /home/oai, Manus' /home/ubuntu/upload, Open WebUI's /mnt/uploads, as their users report them.
_CHATS_PLACE = re.compile(
    r"/mnt/(?:user-data|data|uploads|outputs|project|skills)(?:/|$)|/sessions/[^/]+/mnt(?:/|$)"
    r"|/home/(?:claude|oai|ubuntu/upload)(?:/|$)"
)
#: Addresses that stand for a file in a chat, and what may be in front of a path there.
_CHATS_ADDRESS = re.compile(r"(?:sandbox|attachments?|file-service|upload|content|blob):", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PathGuard:
    """The roots, and where a relative path starts.

    A relative path is taken from the working directory when that lies inside a root, else from the first root.
    """

    roots: tuple[Path, ...]
    working_directory: Path

    def readable_file(self, text: str, *, beside: Path | None = None) -> Path:
        """Return the resolved path of an existing regular file inside the roots.

        With `beside`, a directory, a relative path is looked for there first, and then as any other.

        Raises:
            PathError: it is missing, is no regular file, is hidden, or lies outside the roots.
        """
        path = self._resolve(text, beside)
        if beside is not None and _mode(path, text) is None:
            path = self._resolve(text)
        mode = _mode(path, text)
        if mode is None:
            raise PathError(
                f"There is no file {_shown(text)} in {_printable(path.parent)}.",
                f"{_name_advice(path, text)}{self._here_is_outside(text)}",
            )
        if stat.S_ISDIR(mode):
            raise PathError(f"{_shown(text)} is a directory, not a file.", "Give the path of one JSONL file in it.")
        if not stat.S_ISREG(mode):
            raise PathError(f"{_shown(text)} is a device, pipe or socket, not a file.", "Give a regular file.")
        if not os.access(path, os.R_OK):
            raise PathError(f"{_shown(text)} cannot be read.", "Check the file's permissions.")
        return path

    def readable_place(self, text: str) -> tuple[Path, tuple[str, ...]]:
        """Return an existing file, or an existing directory with the pattern below it, one piece for each level.

        The pattern is empty for a file, and for a directory that is meant as such. What exists by its very name is
        never read as a pattern: brackets and stars are letters there.

        Raises:
            PathError: as `readable_file`; or the pattern leads upwards.
        """
        path = self._absolute(text)
        place, pattern = Path(path.anchor), list(path.parts[1:])
        while pattern and (not _WILDCARD.search(pattern[0]) or os.path.lexists(place / pattern[0])):
            place /= pattern.pop(0)
        if ".." in pattern:
            raise PathError(f"{_shown(text)} has .. after a wildcard.", "Give the directory itself.")
        place = self._settled(place, text)
        mode = _mode(place, text)
        if mode is not None and stat.S_ISDIR(mode):
            return place, tuple(pattern)
        if pattern:
            raise PathError(
                f"{_shown(text)} is a pattern for files in {_printable(place)}, which is not a directory.",
                "Correct the path.",
            )
        return self.readable_file(text), ()

    def target(self, path: Path) -> Path | None:
        """Return what a path leads to, through all symlinks; None when that is hidden or lies outside the roots."""
        try:
            return self._inside(_resolved(path), str(path))
        except (PathError, OSError, RuntimeError):
            return None

    def writable_file(self, text: str, *, default_name: str) -> Path:
        """Return where a result may be written: inside the roots, in a directory that exists.

        A directory stands for `default_name` inside it. The file itself may exist; who wrote it is not decided here.

        Raises:
            PathError: the place is outside the roots, hidden, no directory, or not a regular file.
        """
        try:
            path = self._resolve(text)
        except PathError as error:
            if error.elsewhere:
                where = f"it is saved in {_printable(self._relative_base())}"
                error.next_step = f"Give {_shown(Path(text).name or default_name)} instead: {where}."
            raise
        mode = _mode(path, text)
        if mode is not None and stat.S_ISDIR(mode):
            path = self._inside(path / default_name, text)
            mode = _mode(path, text)
        if not path.parent.is_dir():
            raise PathError(
                f"The directory {_printable(path.parent)} does not exist.", "Create it, or give another path."
            )
        if mode is not None and not stat.S_ISREG(mode):
            raise PathError(f"{_shown(text)} is not a regular file.", "Give another path for the results.")
        return path

    def _resolve(self, text: str, beside: Path | None = None) -> Path:
        return self._settled(self._absolute(text, beside), text)

    def _absolute(self, text: str, beside: Path | None = None) -> Path:
        """Return the path that a text means, before anything is looked up."""
        if not text.strip():
            raise PathError("The path is empty.", "Give the path of a file.")
        if any(ord(character) < 32 for character in text):
            raise PathError(f"The path {_shown(text)} holds a control character.", "Give a plain path.")
        if text.startswith("~"):
            raise PathError(f"{_shown(text)} starts with ~, which is not expanded here.", "Give the absolute path.")
        if text.startswith(("\\\\", "//")) or PureWindowsPath(text).drive.startswith("\\\\"):
            raise PathError(f"{_shown(text)} is a network path.", "Copy the file into one of the roots first.")
        path = Path(text)
        if not path.is_absolute():
            path = (beside or self._relative_base()) / path
            if not os.path.lexists(path):
                self._refuse_chats(text)
        return path if text.isascii() else _respelt(path)

    def _refuse_chats(self, text: str) -> None:
        """Refuse a path of a chat's own machine. Raises `PathError`."""
        if is_chats_path(text):
            raise PathError(
                f"{_shown(text)} looks like a path inside the chat's own sandbox, which this server cannot reach.",
                f"Save the file in {self.shown_roots()} and give its path there, or give a few rows in `requests`. If "
                "the path is one of this machine, add its directory to GEMINI_BATCH_ROOTS.",
                elsewhere=(text,),
            )

    def _here_is_outside(self, text: str) -> str:
        """Say where a relative path does not start, for who stands there; whether something lies there is not told."""
        here = self.working_directory.resolve()
        if Path(text).is_absolute() or self._relative_base() == here:
            return ""
        return f" Files in {_printable(here)}, where this runs, may not be used unless GEMINI_BATCH_ROOTS names it."

    def _settled(self, path: Path, text: str) -> Path:
        """Return where a path leads, which must be inside. `text` is how it was given."""
        try:
            resolved = _resolved(path)
        except (OSError, RuntimeError, ValueError) as error:
            raise PathError(f"{_shown(text)} cannot be resolved ({system_reason(error)}).", "Check the path.") from None
        return self._inside(resolved, text)

    def _inside(self, path: Path, text: str) -> Path:
        for root in self.roots:
            resolved_root = root.resolve()
            if path != resolved_root and not path.is_relative_to(resolved_root):
                continue
            if any(part.startswith(".") for part in path.relative_to(resolved_root).parts):
                raise PathError(
                    f"{_shown(text)} is hidden or lies in a hidden directory; such files often hold secrets.",
                    "Copy what is needed to a file that is not hidden.",
                )
            return path
        self._refuse_chats(text)
        raise PathError(
            f"{_shown(text)} lies outside the directories this server may use: {self.shown_roots()}.",
            "Put the file into one of them, or add its directory to GEMINI_BATCH_ROOTS in the server's configuration.",
        )

    def _relative_base(self) -> Path:
        here = self.working_directory.resolve()
        inside = any(here.is_relative_to(root.resolve()) for root in self.roots)
        return here if inside or not self.roots else self.roots[0]

    def shown_roots(self) -> str:
        """The roots, for people."""
        return ", ".join(str(root) for root in self.roots) or "none"


def _name_advice(path: Path, text: str) -> str:
    """Return what to do about a file that is not there: the name that was probably meant, where there is one."""
    names: list[str] = []
    with suppress(OSError), os.scandir(path.parent) as entries:
        names = [entry.name for entry in islice(entries, _NAMES_LOOKED_AT) if not entry.name.startswith(".")]
    near = difflib.get_close_matches(path.name[:_SHOWN_CHARS], names, n=1, cutoff=_ALIKE)
    meant = f"Did you mean {_shown(near[0])}? " if near else ""
    return (
        f"{meant}Check the name." if Path(text).is_absolute() else f"{meant}Check the name, or give the absolute path."
    )


def is_chats_path(text: str) -> bool:
    """True for what looks like a path on the machine that a chat's model works on, not on this one."""
    plain = text.strip().strip("\"'`").replace("\\", "/")
    if plain.lower().startswith("file://"):
        plain = "/" + plain[len("file://") :].partition("/")[2]
    return bool(_CHATS_ADDRESS.match(plain) or _CHATS_PLACE.match(plain))


def sweep(directory: Path, *patterns: str, older_than_seconds: float = 0.0) -> None:
    """Remove what processes that were killed have left behind: files and directories by the names we give ours."""
    oldest = time.time() - older_than_seconds
    for pattern in patterns:
        for left in directory.glob(pattern):
            with suppress(OSError):
                if left.lstat().st_mtime > oldest:
                    continue
                if left.is_dir() and not left.is_symlink():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink()


def names_after(path: Path) -> Iterator[Path]:
    """Yield `path`, then `name-2.ext`, `name-3.ext`, … beside it: names to take where one is taken already."""
    yield path
    for number in count(2):
        yield path.with_name(f"{path.stem}-{number}{path.suffix}")


def is_name_after(path: Path, candidate: Path) -> bool:
    """True for those that `names_after(path)` yields after `path`."""
    number = candidate.stem.removeprefix(f"{path.stem}-")
    return candidate.parent == path.parent and candidate.suffix == path.suffix and number.isdecimal()


def slug(text: str, *, limit: int = 24) -> str:
    """Return `text` as lowercase letters, digits and single hyphens, `batch` when nothing is left of it."""
    name = PurePosixPath(text.replace("\\", "/")).name if "/" in text or "\\" in text else text
    name = name.rsplit(".", 1)[0] if "." in name[1:] else name
    cleaned = "".join(character if character.isascii() and character.isalnum() else "-" for character in name.lower())
    return "-".join(part for part in cleaned.split("-") if part)[:limit].strip("-") or "batch"


def _respelt(path: Path) -> Path:
    """Return a path with the names that are there: a Mac writes `ü` as two characters, and keyboards as one."""
    found = Path(path.anchor)
    for name in path.parts[1:]:
        forms = (name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))
        found /= next((form for form in forms if os.path.lexists(found / form)), name)
    return found


def _resolved(path: Path) -> Path:
    """Return where a path leads, through all links, whether something is there or not.

    Raises:
        OSError: its links lead in a circle. Until Python 3.12 that is a `RuntimeError`; newer ones return such a path.
    """
    resolved = path.resolve()
    try:
        is_circle = stat.S_ISLNK(resolved.lstat().st_mode)
    except OSError as error:
        is_circle = error.errno == errno.ELOOP
    if is_circle:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return resolved


def _mode(path: Path, text: str) -> int | None:
    """Return the type of what is at `path`, None when nothing is."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise PathError(
            f"{_shown(text)} cannot be used ({system_reason(error)}).", "Check the path and its permissions."
        ) from None


def _shown(text: str) -> str:
    printable = _printable(text)
    return repr(printable if len(printable) <= _SHOWN_CHARS else printable[:_SHOWN_CHARS] + "…")


def _printable(text: str | Path) -> str:
    """Return a path as it can be shown: hidden and control characters must not reach a sentence of ours."""
    return "".join(character if character.isprintable() else "�" for character in str(text))
