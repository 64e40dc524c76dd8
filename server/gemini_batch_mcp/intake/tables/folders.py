"""A directory or a glob as a source: which files it means, and what they hold all together.

Files are found here and nowhere else, inside the roots only: a symlink that leads outside is left out and counted, and
no pattern climbs upwards. Hidden files are never looked at; devices, pipes and sockets are never opened.
"""

import fnmatch
import glob
import hashlib
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.handles import listed
from gemini_batch_mcp.intake.file_kinds import named_kind
from gemini_batch_mcp.intake.opened import ManyFiles, stamp_of
from gemini_batch_mcp.intake.rows.spreading import Spread, chosen, digest, has, told
from gemini_batch_mcp.intake.validator.corrections import shown
from gemini_batch_mcp.intake.validator.decoders import MAX_KEY_CHARACTERS
from gemini_batch_mcp.paths import PathGuard

#: Most files of one source (our choice: their names take about 100 MB).
MAX_FILES: Final = 1_000_000
#: Most entries that are looked at to find them (our choice: about half a minute on a local disk).
MAX_ENTRIES: Final = 5_000_000
#: Names of files that nobody wrote, in small letters, and how names of locks and drafts begin and end.
_JUNK: Final = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db"})
_JUNK_STARTS: Final = ("~$",)
_JUNK_ENDS: Final = (".tmp", ".crdownload", ".partial", "~", ":zone.identifier")
#: How often it is told how far the reading is, in files.
TELL_EVERY: Final = 512
_Place = tuple[str, tuple[str, ...]]
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
#: What is left out, and how that is said: one, many.
_LEFT_OUT: Final = {
    "junk": (
        "{} file that a system or a program keeps for itself (Thumbs.db, a lock or temporary file) was left out.",
        "{} files that systems or programs keep for themselves (Thumbs.db, lock and temporary files) were left out.",
    ),
    "links": (
        "{} link that leads outside the roots was left out.",
        "{} links that lead outside the roots were left out.",
    ),
    "special": (
        "{} entry that is not a regular file was left out.",
        "{} entries that are not regular files were left out.",
    ),
    "names": (
        "{} file was left out because its name isn't plain text; rename it.",
        "{} files were left out because their names aren't plain text; rename them.",
    ),
    "sealed": (
        "{} directory could not be read and was left out.",
        "{} directories could not be read and were left out.",
    ),
    "deeper": (
        "{} subdirectory was skipped; end the source in /**/* to include its files.",
        "{} subdirectories were skipped; end the source in /**/* to include their files.",
    ),
    "case": (
        "{} file was left out because its name matches only if case is ignored.",
        "{} files were left out because their names match only if case is ignored.",
    ),
}


#: Is told how many files have been read, and of how many where that is known.
OnFiles = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class Folder:
    """Files that make up one source, in the order of their rows.

    `names` are their paths relative to `root`, with forward slashes; what was left out is told in `warnings`. `root` is
    resolved.
    """

    root: Path
    names: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    #: Below `root`, what the files were found by; empty for all files of the directory itself.
    pattern: str = ""
    #: Where links led that were allowed: the resolved paths of the files that are no plain entries below `root`.
    linked: Mapping[str, Path] = field(default_factory=dict)

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

    def spread(self, spread: Spread) -> "Folder":
        """Return the same with the files of a spread only, chosen by their names, and a warning that says so."""
        rows = chosen((digest(name.encode("utf-8", "surrogateescape")) for name in self.names), spread.rows)
        names = tuple(name for row, name in enumerate(self.names, 1) if has(rows, row))
        return replace(self, names=names, warnings=(*self.warnings, told(rows, self.name, "file")))

    @property
    def key_column(self) -> str:
        """The column whose values are the keys of the rows, empty where none can be.

        The name of each file, or where some share one its path. Asked before `first`: keys of a pilot stay.
        """
        if max(map(len, self.names), default=0) > MAX_KEY_CHARACTERS:
            return ""
        bare = {name.rpartition("/")[2] for name in self.names}
        return "name" if len(bare) == len(self.names) else "path"

    def path(self, name: str) -> Path:
        """Return where the file of that name was found, resolved."""
        return self.linked.get(name) or self.root / name

    def places(self) -> Iterator[tuple[Path, str]]:
        """Yield for each file the directory where it was found, resolved, and its name there.

        For files side by side, the directory is the same object.
        """
        above, directory = "", self.root
        for name in self.names:
            if (target := self.linked.get(name)) is not None:
                yield target.parent, target.name
                continue
            prefix, _, bare = name.rpartition("/")
            if prefix != above:
                above, directory = prefix, self.root / prefix
            yield directory, bare


def find_source(text: str, guard: PathGuard) -> Path | Folder:
    """Return the file, or the files of the directory or glob, that `Order.source` names; each inside the roots.

    Raises:
        PathError: nothing is there, it may not be read, or it lies outside the roots.
        UsageError: no file matches, or too many do.
    """
    place, pattern = guard.readable_place(text)
    return list_folder(place, "/".join(pattern), target=guard.target) if pattern or place.is_dir() else place


def alone(file: Path) -> Folder | None:
    """Return the folder of this one file, as a pattern for it finds it; None where the name has no letter or digit."""
    name = file.name
    place = next((place for place, character in enumerate(name) if character.isalnum()), None)
    if place is None:
        return None
    # A set of one letter: without it the name would be read as that of the file, and never as a pattern.
    return list_folder(file.parent, f"{glob.escape(name[:place])}[{name[place]}]{glob.escape(name[place + 1 :])}")


def list_folder(root: Path, pattern: str = "", *, target: Callable[[Path], Path | None] | None = None) -> Folder:
    """Return the regular files under `root` that match, sorted by path, hidden ones left out.

    `*`, `?` and `[…]` are read within one level, `**` as any number of levels, none included. Symlinks are followed
    to what `target` says of them, resolved (None, or without it: nowhere), by `**` never. Without a pattern, all files
    of `root` itself, which is resolved.

    Raises:
        UsageError: nothing matches, or too much does.
    """
    pieces = [piece for piece in pattern.split("/") if piece not in ("", ".")] or ["*"]
    if pieces[-1:] == ["**"]:
        pieces.append("*")
    walk = _Walk(root, target or _nothing)
    found = walk.files(tuple(pieces))
    names = sorted(found, key=lambda name: name.replace("/", "\0"))
    if pattern:
        # Whoever writes a pattern has said how deep to look.
        del walk.left_out["deeper"]
    warnings = tuple(_sentence(kind, walk.left_out[kind]) for kind in _LEFT_OUT if walk.left_out[kind])
    warnings += _mixed(names)
    if not names:
        what = "holds no files" if not pattern else f"holds no file that matches {shown(pattern)}"
        raise UsageError(
            f"{shown(root.name or str(root))} {what}.",
            " ".join((*warnings, "Hidden files don't count. Correct the path.")),
        )
    linked = {name: path for name, path in found.items() if path is not None}
    return Folder(root, tuple(names), warnings, pattern, linked)


#: Of these people mean the rows, mostly.
_TABLES: Final = frozenset({".csv", ".tsv", ".xlsx", ".xlsm", ".xls", ".ods", ".parquet"})


def _mixed(names: Sequence[str]) -> tuple[str, ...]:
    """Say of what kinds files are, by their names, where that is more than one; and that tables count as one each."""
    endings = Counter(map(_ending, names))
    kinds: Counter[str] = Counter()
    for ending, count in endings.items():
        kinds[named_kind(ending)] += count
    told = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    sentences = [f"The files are of several kinds, judging by their names: {told}."] if len(kinds) > 1 else []
    if tables := sum(count for ending, count in endings.items() if ending in _TABLES):
        said = "1 file is a table" if tables == 1 else f"{tables:,} files are tables"
        step = "For a request a row, give one such file as the source."
        sentences.append(f"{said}, and each becomes one request here. {step}")
    return tuple(sentences)


def _ending(name: str) -> str:
    """Return the ending of a file's name with its dot, in small letters; empty where it has none."""
    bare = name[name.rfind("/") + 1 :]
    dot = bare.rfind(".")
    return bare[dot:].lower() if 0 < dot < len(bare) - 1 else ""


@dataclass(frozen=True, slots=True)
class FolderContents:
    """What the files of a folder hold, together: one SHA-256 over names and contents, as lowercase hex.

    Where they lie is no part of it. `repeated` of the files hold the same as one before them.
    """

    sha256: str
    repeated: int

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to tell of it."""
        if not self.repeated:
            return ()
        what = "1 file has" if self.repeated == 1 else f"{self.repeated:,} files have"
        return (f"{what} the same contents as another file here.",)


def read_folder(folder: Folder, on_files: OnFiles | None = None) -> FolderContents:
    """Read all files of a folder once. `on_files` is told every so often how many have been read, and of how many.

    Raises:
        PathError: a file cannot be read.
        whatever `on_files` raises.
    """
    digest, count = hashlib.sha256(), len(folder.names)
    # Eight bytes of each: it is told how many, and not which.
    contents: set[bytes] = set()
    with ManyFiles() as files:
        for number, (name, place) in enumerate(zip(folder.names, folder.places(), strict=True)):
            if on_files is not None and number % TELL_EVERY == 0:
                on_files(number, count)
            hashed = hashlib.sha256()
            for block in files.blocks(*place):
                hashed.update(block)
            content = hashed.digest()
            contents.add(content[:8])
            written = name.encode()
            digest.update(len(written).to_bytes(8) + written + content)
    if on_files is not None:
        on_files(count, count)
    return FolderContents(digest.hexdigest(), count - len(contents))


def source_stamp(place: Path | Folder) -> str:
    """Return what tells whether a file, or any file of a folder, has been written to since. No contents are read.

    Of a folder, the names count as well: two that have one stamp are the same files.
    """
    if not isinstance(place, Folder):
        return str(stamp_of(place))
    digest = hashlib.sha256()
    for name, (directory, bare) in zip(place.names, place.places(), strict=True):
        digest.update(f"{name} {stamp_of(f'{directory}/{bare}')} ".encode())
    return digest.hexdigest()


class _Walk:
    """One search. Counts what it leaves out."""

    def __init__(self, root: Path, target: Callable[[Path], Path | None]) -> None:
        self.left_out: Counter[str] = Counter()
        self._root = root
        self._target = target
        self._entries = 0
        #: Where the places below links are, by their prefixes.
        self._linked: dict[str, Path] = {}

    def files(self, pieces: tuple[str, ...]) -> dict[str, Path | None]:
        """Return the names of the files below `root` that match, with where they are if a link led there.

        Raises:
            UsageError: there are too many.
        """
        found: dict[str, Path | None] = {}
        # A list and not a recursion: directories may be nested more deeply than calls. Places are visited once.
        places = [("", pieces)]
        known = set(places)
        while places:
            prefix, pieces = places.pop()
            below = self._matches(prefix, pieces, found) if pieces[0] != "**" else self._levels(prefix, pieces)
            new = [place for place in below if place not in known]
            places += new
            known.update(new)
            if len(found) > MAX_FILES:
                raise _too_many(f"more than {MAX_FILES:,} files match")
        return found

    def _levels(self, prefix: str, pieces: tuple[str, ...]) -> Iterator[_Place]:
        """Yield where to go on from `**`: here with what follows it, and in each directory with the same."""
        yield prefix, pieces[1:]
        sealed = self.left_out["sealed"]
        for entry in self._scan(prefix):
            if _is(entry.is_dir) and self._has_plain_name(entry):
                yield self._below(prefix, entry.name, None), pieces
        # It is looked at once more for what follows, and counted then.
        self.left_out["sealed"] = sealed

    def _matches(self, prefix: str, pieces: tuple[str, ...], found: dict[str, Path | None]) -> Iterator[_Place]:
        """Add the files of one directory that match, or yield where to go on in the directories that do."""
        fits, nearly_fits = _matchers(pieces[0])
        for entry in self._scan(prefix):
            if not fits(entry.name):
                # Only what would be a row: a directory's name in a pattern is one thing, a lost file another.
                is_near = len(pieces) == 1 and nearly_fits(entry.name) and _is(entry.is_file)
                self.left_out["case"] += is_near
                continue
            if len(pieces) == 1 and entry.name != pieces[0] and _is_junk(entry.name, pieces[0]) and _is(entry.is_file):
                self.left_out["junk"] += 1
                continue
            target = None
            if entry.is_symlink():
                target = self._target(self._where(prefix) / entry.name)
                if target is None:
                    self.left_out["links"] += 1
                    continue
            mode = _mode(target) if target is not None else 0
            if stat.S_ISDIR(mode) if target is not None else _is(entry.is_dir):
                self.left_out["deeper"] += 1
                if len(pieces) > 1 and self._has_plain_name(entry):
                    yield self._below(prefix, entry.name, target), pieces[1:]
            elif len(pieces) == 1 and self._has_plain_name(entry):
                if stat.S_ISREG(mode) if target is not None else _is(entry.is_file):
                    place = target or (self._linked[prefix] / entry.name if prefix in self._linked else None)
                    found[prefix + entry.name] = place
                else:
                    self.left_out["special"] += 1

    def _where(self, prefix: str) -> Path:
        """Return where the directory of a prefix is, resolved."""
        return self._linked.get(prefix) or self._root / prefix

    def _below(self, prefix: str, name: str, target: Path | None) -> str:
        """Return the prefix of a directory in that of another, or of the one that a link there leads to."""
        below = f"{prefix}{name}/"
        if target is not None:
            self._linked[below] = target
        elif prefix in self._linked:
            self._linked[below] = self._linked[prefix] / name
        return below

    def _scan(self, prefix: str) -> "Iterator[os.DirEntry[str]]":
        entries = listed(self._where(prefix))
        while True:
            try:
                entry = next(entries, None)
            except OSError:
                self.left_out["sealed"] += 1
                return
            if entry is None:
                return
            self._entries += 1
            if self._entries > MAX_ENTRIES:
                raise _too_many(f"it takes looking at more than {MAX_ENTRIES:,} entries")
            if not entry.name.startswith("."):
                yield entry

    def _has_plain_name(self, entry: "os.DirEntry[str]") -> bool:
        """True unless the name cannot be written into a request."""
        is_plain = not _CONTROL.search(entry.name) and _is_unicode(entry.name)
        self.left_out["names"] += not is_plain
        return is_plain


def _is_junk(name: str, pattern: str) -> bool:
    """True for what no person put there; who asks for such files by their ending gets them."""
    lowered = name.lower()
    is_draft = any(lowered.endswith(end) and not pattern.lower().endswith(end) for end in _JUNK_ENDS)
    return lowered in _JUNK or lowered.startswith(_JUNK_STARTS) or is_draft


def _is(question: Callable[..., bool]) -> bool:
    """Ask an entry what it is itself; what cannot be looked at is neither file nor directory."""
    try:
        return question(follow_symlinks=False)
    except OSError:
        return False


def _mode(target: Path) -> int:
    """Return the type of what a link led to, 0 when it cannot be looked at any more."""
    try:
        return target.lstat().st_mode
    except OSError:
        return 0


def _matchers(piece: str) -> tuple[Callable[[str], bool], Callable[[str], bool]]:
    """Return what tells whether a name fits one piece of a pattern, and whether it does so but for its letters' case.

    A name that is written like the piece itself fits: brackets may be meant as such. Both are compared in one form of
    Unicode: a Mac writes `ü` as two characters, and keyboards as one.
    """
    piece = unicodedata.normalize("NFC", piece)
    pattern = fnmatch.translate(piece)
    exact, folded = re.compile(pattern), re.compile(pattern, re.IGNORECASE)
    return partial(_fits, exact, piece), partial(_fits, folded, piece)


def _fits(pattern: re.Pattern[str], piece: str, name: str) -> bool:
    composed = name if name.isascii() else unicodedata.normalize("NFC", name)
    return composed == piece or pattern.match(composed) is not None


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _nothing(path: Path) -> Path | None:
    return None


def _sentence(kind: str, count: int) -> str:
    one, many = _LEFT_OUT[kind]
    return (one if count == 1 else many).format(f"{count:,}")


def _too_many(what: str) -> UsageError:
    return UsageError(f"The source matches too many files: {what}.", "Use a narrower pattern, or several orders.")
