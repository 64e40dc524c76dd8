"""Files that go with the rows: found, looked at, and planned, each content once, before anything is sent.

Columns of the source name files for each row; an empty cell names none, and a list several. What a cell says is a path
of this machine, relative to the table or as any other path of an order, or what is elsewhere (see `_cells`).
"""

import hashlib
import mimetypes
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Final, Literal

import msgspec

from gemini_batch_mcp.errors import Problem, RequestProblems, UsageError
from gemini_batch_mcp.intake.file_kinds import MAX_PDF_PAGES, Media
from gemini_batch_mcp.intake.files._one_file import Examined, Unusable, examine, locate_all
from gemini_batch_mcp.intake.opened import buffered
from gemini_batch_mcp.intake.rows.choosing import Choose
from gemini_batch_mcp.intake.rows.spreading import Spread
from gemini_batch_mcp.intake.tables.file_rows import PATH_COLUMN
from gemini_batch_mcp.intake.tables.folders import Folder
from gemini_batch_mcp.intake.tables.kinds import AS_IT_SAYS, FileOptions
from gemini_batch_mcp.intake.tables.memory import Effort, with_effort
from gemini_batch_mcp.intake.tables.reading import Place, Table, open_table
from gemini_batch_mcp.intake.template import column_named
from gemini_batch_mcp.intake.validator.corrections import shown
from gemini_batch_mcp.paths import PathGuard

#: What an upload costs beside its bytes, told in bytes (our choice: three calls of 0.2 s at 2 MB a second).
_UPLOAD_WORTH_BYTES: Final = 1 << 20
#: All that may stand inside the lines (our choice): half of one request file, which must hold the texts as well.
MAX_IN_LINES_BYTES: Final = 1000**3
#: All files of a project (ai.google.dev/gemini-api/docs/files): 20 GB.
MAX_STORED_BYTES: Final = 20 * 1000**3

_VALUE: Final = msgspec.json.Decoder(tuple[str, int, int])
_OR_LEAVE_OUT: Final = "; or set skip_invalid, which leaves these rows out"
_MAX_REPORTED: Final = 20

#: `inline`: inside the line, as base64. `upload`: sent to the Files API. `uploaded`: there already, `files/…`.
#: `linked`: at `gs://…` or YouTube, passed on as it is.
Mode = Literal["inline", "upload", "uploaded", "linked"]


#: Looks at the file at a path, or knows what was found when it was looked at before.
Through = Callable[[Path, Callable[[], Examined]], Examined]


@dataclass(frozen=True, slots=True)
class Attachment:
    """One content. `sha256` is lowercase hex; for a file that is elsewhere it is its name there.

    `path` is resolved, and one of several with this content; None, as size, type and media are not known, for a file
    uploaded before.
    """

    sha256: str
    mode: Mode
    #: How many rows it goes with.
    rows: int
    path: Path | None = None
    size_bytes: int = 0
    mime_type: str = ""
    media: Media | None = None
    #: Pages of a PDF, as far as they can be counted; 0 for all else.
    pages: int = 0


@dataclass(frozen=True, slots=True)
class MediaCount:
    """What goes with the rows of one kind of media. `pages` and `row_bytes` count a file for each row it goes with."""

    media: Media
    files: int = 0
    rows: int = 0
    row_bytes: int = 0
    pages: int = 0


@dataclass(frozen=True, slots=True)
class AttachmentPlan:
    """The files of one order. `cells` leads from what stands in a column to the `sha256` of each of its `contents`.

    `content_sha256` covers what stands in the column and what the files hold: with the same digest, the same requests.
    """

    column: str
    contents: tuple[Attachment, ...]
    cells: Mapping[str, tuple[str, ...]]
    content_sha256: str
    warnings: tuple[str, ...] = ()
    #: Why a cell names no file that can be attached, where such rows are left out.
    faults: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def uploads(self) -> tuple[Attachment, ...]:
        """Contents that must be at the Files API before a request names them."""
        return tuple(content for content in self.contents if content.mode in ("upload", "uploaded"))

    @property
    def upload_bytes(self) -> int:
        """Bytes to be sent to the Files API."""
        return sum(content.size_bytes for content in self.contents if content.mode == "upload")

    @property
    def media(self) -> tuple[MediaCount, ...]:
        """What the files are, for the estimate; files uploaded before are no part of it."""
        counts: dict[Media, MediaCount] = {}
        for content in self.contents:
            if content.media is not None:
                seen = counts.get(content.media, MediaCount(content.media))
                counts[content.media] = MediaCount(
                    content.media,
                    seen.files + 1,
                    seen.rows + content.rows,
                    seen.row_bytes + content.rows * content.size_bytes,
                    seen.pages + content.rows * content.pages,
                )
        return tuple(counts.values())


@dataclass(frozen=True, slots=True)
class _Value:
    """What stands in the column: in how many rows, and in which first."""

    cell: str
    rows: int
    first_row: int


class _Findings:
    """What the values turn out to mean. Each file is read once, however it is named."""

    def __init__(self, source: Place, guard: PathGuard, through: Through, *, skip_faulty: bool) -> None:
        self.cells: dict[str, tuple[str, ...]] = {}
        self.faults: dict[str, str] = {}
        #: Columns with empty cells: in how many rows, and in which first.
        self.empty: dict[str, tuple[int, int]] = {}
        self._skip_faulty = skip_faulty
        self._through = through
        #: By sha256, in the order of the rows.
        self._found: dict[str, Attachment] = {}
        self._rows: Counter[str] = Counter()
        self._source = source
        self._guard = guard
        self._examined: dict[Path, Attachment] = {}
        self._problems: list[Problem] = []
        self._problem_count = 0
        self._elsewhere: list[str] = []

    def look(self, column: str, values: Iterable[_Value]) -> None:
        """Look at the files that the values of a column mean."""
        for value in values:
            if not value.cell.strip():
                rows, first = self.empty.get(column, (0, value.first_row))
                self.empty[column] = rows + value.rows, min(first, value.first_row)
                continue
            try:
                places = locate_all(value.cell, self._source, self._guard)
                self._add(value, [self._at(place) for place in places])
            except Unusable as error:
                if self._skip_faulty and value.cell not in self.faults:
                    self.faults[value.cell] = f"{error.message} {error.fix}".strip()
                self._refuse(value, error)

    def refuse(self) -> None:
        """Refuse the values that cannot be attached, unless they are left out. Raises `RequestProblems`."""
        if self._skip_faulty and self.cells:
            return
        if self._problem_count:
            rows, verb = ("row", "names") if self._problem_count == 1 else ("rows", "name")
            raise RequestProblems(
                self._problems,
                self._problem_count,
                f"{self._problem_count:,} {rows} of {self._source.name} {verb} a file that can't be used; "
                "nothing was submitted.",
                f"Correct them, then submit the order again{'' if self._skip_faulty else _OR_LEAVE_OUT}.",
                elsewhere=tuple(self._elsewhere),
            )

    def contents(self) -> tuple[Attachment, ...]:
        """Return each content once, in the order of the rows."""
        return tuple(replace(found, rows=self._rows[sha256]) for sha256, found in self._found.items())

    def _at(self, place: Path | str) -> Attachment:
        if isinstance(place, str):
            if place.startswith("files/"):
                return Attachment(place, "uploaded", 0)
            return Attachment(place, "linked", 0, mime_type=mimetypes.guess_type(place.partition("?")[0])[0] or "")
        found = self._examined.get(place)
        if found is None:
            seen = self._through(place, partial(examine, place))
            found = Attachment(seen.sha256, "upload", 0, place, seen.size_bytes, seen.mime_type, seen.media, seen.pages)
            self._examined[place] = found
        return found

    def _add(self, value: _Value, found: Sequence[Attachment]) -> None:
        for one in found:
            self._found.setdefault(one.sha256, one)
            self._rows[one.sha256] += value.rows
        self.cells[value.cell] = tuple(one.sha256 for one in found)

    def _refuse(self, value: _Value, error: Unusable) -> None:
        self._problem_count += value.rows
        if len(self._problems) < _MAX_REPORTED:
            more = f" and {value.rows - 1:,} more" if value.rows > 1 else ""
            what = f"Row {value.first_row:,}{more}: {error.message}"
            self._problems.append(Problem(0, "", what, error.fix))
            self._elsewhere += error.elsewhere


def plan_attachments(
    source: Place,
    *,
    column: str,
    guard: PathGuard,
    scratch: Path,
    limit_rows: int = 0,
    spread: Spread | None = None,
    max_in_lines_bytes: int = MAX_IN_LINES_BYTES,
    where: str = "",
    choose: Choose | None = None,
    options: FileOptions = AS_IT_SAYS,
    skip_faulty: bool = False,
    through: Through = lambda path, look: look(),
) -> AttachmentPlan:
    """Look at every file that the column names, in the first `limit_rows` rows (0: in all). Blocking: use a thread.

    With `spread`, only its rows count. With `where`, only rows count that meet this condition, by what `choose` says.
    With `skip_faulty`, files that cannot be used are in the plan's `faults`, unless none is left. `through` is given
    each file with what looks at it, and may know what was found before.

    A content is inlined when that sends fewer bytes than an upload is worth, smallest first, until `max_in_lines_bytes`
    (of base64) are used up; 0 uploads everything.

    Raises:
        UsageError: there is no such column, no row names a file, or all files together are too large.
        RequestProblems: files are missing, unreadable, or none that Gemini takes; told with their rows.
        PathError, StorageError: the source cannot be read.
    """
    column = column_of(column)
    findings = _Findings(source, guard, through, skip_faulty=skip_faulty)
    if isinstance(source, Folder) and column != PATH_COLUMN:
        raise UsageError(
            f"`attach` names {shown(column)}, but the files of a folder are in its column {PATH_COLUMN}.",
            f'Give attach="{PATH_COLUMN}".',
        )
    if isinstance(source, Folder) and not where:
        folder = source.spread(spread) if spread is not None else source.first(limit_rows)
        findings.look(column, (_Value(name, 1, row) for row, name in enumerate(folder.names, 1)))
    else:
        with _values(source, column, scratch, limit_rows, spread, where, choose, options) as columns:
            for name, values in columns:
                findings.look(name, values)
    findings.refuse()
    if not findings.cells:
        raise UsageError(f"No row of {source.name} names a file in {shown(column)}.", "Leave out `attach`.")
    contents = tuple(_with_modes(findings.contents(), max_in_lines_bytes))
    digest = hashlib.sha256()
    for cell, found in findings.cells.items():
        digest.update(msgspec.json.encode((cell, found[0] if len(found) == 1 else found)))
    for cell in findings.faults:
        digest.update(msgspec.json.encode((cell, "")))
    plan = AttachmentPlan(
        column,
        contents,
        MappingProxyType(findings.cells),
        digest.hexdigest(),
        tuple(_warnings(contents, findings.empty)),
        MappingProxyType(findings.faults),
    )
    if plan.upload_bytes > MAX_STORED_BYTES:
        raise UsageError(
            f"The files have {plan.upload_bytes:,} bytes; the Files API stores at most {MAX_STORED_BYTES:,} "
            "per project.",
            "Split them over several orders.",
        )
    return plan


def column_of(attach: str) -> str:
    """Return the column that `Order.attach` names, be it written as `{{column}}`."""
    text = attach.strip()
    is_place = len(text) >= len("{{}}") and text.startswith("{{") and text.endswith("}}")
    return text[2:-2].strip(" \t") if is_place else text


def columns_of(attach: str, columns: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that `Order.attach` names, several between commas unless that is a column's own name.

    Raises:
        UsageError: there is no such column.
    """
    text = column_of(attach)
    names = [text] if text in columns or "," not in text else [column_of(name) for name in text.split(",")]
    return tuple(dict.fromkeys(column_named(name, columns, "attach") for name in names))


@contextmanager
def _values(
    source: Place,
    column: str,
    scratch: Path,
    limit_rows: int,
    spread: Spread | None,
    where: str,
    choose: Choose | None,
    options: FileOptions,
) -> Iterator[Iterator[tuple[str, Iterator[_Value]]]]:
    """Yield each column with its values, in the order of their first rows; the engine makes them distinct."""
    with (
        TemporaryDirectory(prefix="attach-", dir=scratch, ignore_cleanup_errors=True) as directory,
        ExitStack() as files,
    ):
        paths: dict[str, Path] = {}
        with open_table(source, Path(directory), where=where, choose=choose, options=options, spread=spread) as table:
            for name in columns_of(column, table.columns):
                path = paths[name] = Path(directory).resolve() / f"values-{len(paths)}.jsonl"
                with_effort(partial(_write_values, table, name, path, limit_rows))
        yield (
            (name, (_Value(*_VALUE.decode(line)) for line in files.enter_context(buffered(path))))
            for name, path in paths.items()
        )


def _write_values(table: Table, column: str, path: Path, limit_rows: int, effort: Effort) -> None:
    table.write_values(column, path, limit_rows=limit_rows, effort=effort)


def _with_modes(contents: Sequence[Attachment], max_in_lines_bytes: int) -> Iterator[Attachment]:
    """Yield the contents, each with how it is sent; the smallest are inlined first."""
    worth = [content for content in contents if content.mode == "upload" and _is_worth_inlining(content)]
    left = max_in_lines_bytes
    inline: set[str] = set()
    for content in sorted(worth, key=_inline_bytes):
        left -= _inline_bytes(content)
        if left < 0:
            break
        inline.add(content.sha256)
    for content in contents:
        yield replace(content, mode="inline") if content.sha256 in inline else content


def _is_worth_inlining(content: Attachment) -> bool:
    return _inline_bytes(content) <= content.size_bytes + _UPLOAD_WORTH_BYTES


def _inline_bytes(content: Attachment) -> int:
    """Return what base64 of a content takes in all lines together."""
    return content.rows * 4 * -(-content.size_bytes // 3)


def _warnings(contents: Iterable[Attachment], empty: Mapping[str, tuple[int, int]]) -> Iterator[str]:
    for column, (rows, first) in empty.items():
        what = f"Row {first:,} has" if rows == 1 else f"{rows:,} rows (first: row {first:,}) have"
        yield f"{what} nothing in {shown(column)}: no file of that column goes with {'it' if rows == 1 else 'them'}."
    linked = sum(content.rows for content in contents if content.mode == "linked")
    if linked:
        what = "1 link to" if linked == 1 else f"{linked:,} links to"
        yield f"{what} gs:// or YouTube: checked by form only, and not part of the estimate; Gemini opens what it may."
    long = sum(content.pages > MAX_PDF_PAGES for content in contents)
    if long:
        what = "1 PDF seems" if long == 1 else f"{long:,} PDFs seem"
        yield f"{what} to have more than {MAX_PDF_PAGES:,} pages, which Gemini does not accept: their rows may fail."
    uploaded = sum(content.rows for content in contents if content.mode == "uploaded")
    if uploaded:
        what = "1 row names a file that was" if uploaded == 1 else f"{uploaded:,} rows name files that were"
        yield f"{what} uploaded earlier: they are checked when the order is created and are not part of the estimate."
