"""A directory or a glob as a source: which files it means, and what they hold all together.

Files are found here and nowhere else, inside the roots only: a symlink that leads outside is left out and counted, and
no pattern climbs upwards. Hidden files are never looked at; devices, pipes and sockets are never opened.
"""

import fnmatch
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.intake.opened import stamp_of, unreadable
from gemini_batch_mcp.intake.validator.corrections import shown
from gemini_batch_mcp.paths import PathGuard

#: Most files of one source (our choice: their names take about 100 MB).
MAX_FILES: Final = 1_000_000
#: Most entries that are looked at to find them (our choice: about half a minute on a local disk).
MAX_ENTRIES: Final = 5_000_000
_Place = tuple[str, tuple[str, ...]]
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
#: What is left out, and how that is said: one, many.
_LEFT_OUT: Final = {
    "links": (
        "{} link that leads outside the roots was left out.",
        "{} links that lead outside the roots were left out.",
    ),
    "special": (
        "{} entry that is no regular file was left out.",
        "{} entries that are no regular files were left out.",
    ),
    "names": (
        "{} file was left out because its name is no plain text; rename it.",
        "{} files were left out because their names are no plain text; rename them.",
    ),
    "sealed": (
        "{} directory could not be read and was left out.",
        "{} directories could not be read and were left out.",
    ),
    "deeper": (
        "{} directory inside was not looked into; end the source in /**/* to take its files too.",
        "{} directories inside were not looked into; end the source in /**/* to take their files too.",
    ),
    "case": (
        "{} file was left out because its name fits but for capital and small letters.",
        "{} files were left out because their names fit but for capital and small letters.",
    ),
}


@dataclass(frozen=True, slots=True)
class Folder:
    """Files that make up one source, in the order of their rows.

    `names` are their paths relative to `root`, with forward slashes; what was left out is told in `warnings`.
    """

    root: Path
    names: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    #: Below `root`, what the files were found by; empty for all files of the directory itself.
    pattern: str = ""

    @property
    def name(self) -> str:
        """What the source is called, for people."""
        return self.root.name or str(self.root)

    @property
    def source(self) -> str:
        """The directory or glob, absolute: `find_source` finds the files by it again."""
        return str(self.root / self.pattern)

    def first(self, count: int) -> "Folder":
        """Return the same with its first files only; 0 means all of them."""
        return replace(self, names=self.names[:count]) if count else self

    def path(self, name: str) -> Path:
        """Return where the file of that name is."""
        return self.root / name


def find_source(text: str, guard: PathGuard) -> Path | Folder:
    """Return the file, or the files of the directory or glob, that `Order.source` names; each inside the roots.

    Raises:
        PathError: nothing is there, it may not be read, or it lies outside the roots.
        UsageError: no file matches, or too many do.
    """
    place, pattern = guard.readable_place(text)
    return list_folder(place, "/".join(pattern), allows=guard.allows) if pattern or place.is_dir() else place


def list_folder(root: Path, pattern: str = "", *, allows: Callable[[Path], bool] | None = None) -> Folder:
    """Return the regular files under `root` that match, sorted by path, hidden ones left out.

    `*`, `?` and `[…]` are read within one level, `**` as any number of levels, none included. Symlinks are followed
    where `allows` says so (without it: nowhere), by `**` never. Without a pattern, all files of `root` itself.

    Raises:
        UsageError: nothing matches, or too much does.
    """
    pieces = [piece for piece in pattern.split("/") if piece not in ("", ".")] or ["*"]
    if pieces[-1:] == ["**"]:
        pieces.append("*")
    walk = _Walk(allows or _nothing)
    names = sorted(walk.names(root, tuple(pieces)), key=lambda name: name.replace("/", "\0"))
    if pattern:
        # Whoever writes a pattern has said how deep to look.
        del walk.left_out["deeper"]
    warnings = tuple(_sentence(kind, walk.left_out[kind]) for kind in _LEFT_OUT if walk.left_out[kind])
    if not names:
        what = "holds no files" if not pattern else f"holds no file that matches {shown(pattern)}"
        raise UsageError(
            f"{shown(root.name or str(root))} {what}.",
            " ".join((*warnings, "Hidden files do not count. Correct the path.")),
        )
    return Folder(root, tuple(names), warnings, pattern)


def folder_sha256(folder: Folder) -> str:
    """Return one SHA-256 over the names and the contents of all files, as lowercase hex. Where they lie is no part.

    Raises:
        PathError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for name in folder.names:
        path = folder.path(name)
        try:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").digest()
        except OSError as error:
            raise unreadable(path, error) from None
        written = name.encode()
        digest.update(len(written).to_bytes(8) + written + content)
    return digest.hexdigest()


def source_stamp(place: Path | Folder) -> str:
    """Return what tells whether a file, or any file of a folder, has been written to since. No contents are read."""
    if not isinstance(place, Folder):
        return str(stamp_of(place))
    digest = hashlib.sha256()
    for name in place.names:
        digest.update(f"{stamp_of(place.path(name))} ".encode())
    return digest.hexdigest()


class _Walk:
    """One search. Counts what it leaves out."""

    def __init__(self, allows: Callable[[Path], bool]) -> None:
        self.left_out: Counter[str] = Counter()
        self._allows = allows
        self._entries = 0

    def names(self, root: Path, pieces: tuple[str, ...]) -> set[str]:
        """Return the names of the files below `root` that match.

        Raises:
            UsageError: there are too many.
        """
        found: set[str] = set()
        # A list and not a recursion: directories may be nested more deeply than calls. Places are visited once.
        places = [("", pieces)]
        known = set(places)
        while places:
            prefix, pieces = places.pop()
            below = (
                self._matches(root, prefix, pieces, found) if pieces[0] != "**" else self._levels(root, prefix, pieces)
            )
            new = [place for place in below if place not in known]
            places += new
            known.update(new)
            if len(found) > MAX_FILES:
                raise _too_many(f"more than {MAX_FILES:,} files match")
        return found

    def _levels(self, root: Path, prefix: str, pieces: tuple[str, ...]) -> Iterator[_Place]:
        """Yield where to go on from `**`: here with what follows it, and in each directory with the same."""
        yield prefix, pieces[1:]
        sealed = self.left_out["sealed"]
        for entry in self._scan(root / prefix):
            if _is(entry.is_dir, follow_symlinks=False) and self._has_plain_name(entry):
                yield f"{prefix}{entry.name}/", pieces
        # It is looked at once more for what follows, and counted then.
        self.left_out["sealed"] = sealed

    def _matches(self, root: Path, prefix: str, pieces: tuple[str, ...], found: set[str]) -> Iterator[_Place]:
        """Add the files of one directory that match, or yield where to go on in the directories that do."""
        fits, nearly_fits = _matchers(pieces[0])
        for entry in self._scan(root / prefix):
            if not fits(entry.name):
                # Only what would be a row: a directory's name in a pattern is one thing, a lost file another.
                is_near = len(pieces) == 1 and nearly_fits(entry.name) and _is(entry.is_file, follow_symlinks=False)
                self.left_out["case"] += is_near
            elif not self._may_follow(entry):
                continue
            elif _is(entry.is_dir):
                self.left_out["deeper"] += 1
                if len(pieces) > 1 and self._has_plain_name(entry):
                    yield f"{prefix}{entry.name}/", pieces[1:]
            elif len(pieces) == 1 and self._has_plain_name(entry):
                if _is(entry.is_file):
                    found.add(prefix + entry.name)
                else:
                    self.left_out["special"] += 1

    def _scan(self, directory: Path) -> "Iterator[os.DirEntry[str]]":
        try:
            entries = os.scandir(directory)
        except OSError:
            self.left_out["sealed"] += 1
            return
        with entries:
            for entry in entries:
                self._entries += 1
                if self._entries > MAX_ENTRIES:
                    raise _too_many(f"it would take a look at more than {MAX_ENTRIES:,} entries")
                if not entry.name.startswith("."):
                    yield entry

    def _has_plain_name(self, entry: "os.DirEntry[str]") -> bool:
        """True unless the name cannot be written into a request."""
        is_plain = not _CONTROL.search(entry.name) and _is_unicode(entry.name)
        self.left_out["names"] += not is_plain
        return is_plain

    def _may_follow(self, entry: "os.DirEntry[str]") -> bool:
        """True unless it is a link to where nothing may be read."""
        may_follow = not entry.is_symlink() or self._allows(Path(entry.path))
        self.left_out["links"] += not may_follow
        return may_follow


def _is(question: Callable[..., bool], *, follow_symlinks: bool = True) -> bool:
    """Ask an entry what it is; what cannot be looked at is neither file nor directory."""
    try:
        return question(follow_symlinks=follow_symlinks)
    except OSError:
        return False


def _matchers(piece: str) -> tuple[Callable[[str], bool], Callable[[str], bool]]:
    """Return what tells whether a name fits one piece of a pattern, and whether it does so but for its letters' case.

    A name that is written like the piece itself fits: brackets may be meant as such.
    """
    pattern = fnmatch.translate(piece)
    exact, folded = re.compile(pattern), re.compile(pattern, re.IGNORECASE)
    return partial(_fits, exact, piece), partial(_fits, folded, piece)


def _fits(pattern: re.Pattern[str], piece: str, name: str) -> bool:
    return name == piece or pattern.match(name) is not None


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _nothing(path: Path) -> bool:
    return False


def _sentence(kind: str, count: int) -> str:
    one, many = _LEFT_OUT[kind]
    return (one if count == 1 else many).format(f"{count:,}")


def _too_many(what: str) -> UsageError:
    return UsageError(f"The source means too many files: {what}.", "Give a narrower pattern, or several orders.")
