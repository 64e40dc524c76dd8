"""What kinds of sources there are, by the endings of their names, and how one is recognised: by name, then by content.

A new kind of file gets its entry in `FILES` here and its reader in `reading.py`; what `FOREIGN` refused of it goes.
Whether a source may be read at all is `paths.py`'s matter.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.errors import PathError, UsageError
from gemini_batch_mcp.intake.encodings.names import page_named
from gemini_batch_mcp.intake.file_kinds import named_kind
from gemini_batch_mcp.intake.opened import buffered
from gemini_batch_mcp.intake.requests.lines import without_marks
from gemini_batch_mcp.intake.tables.folders import Folder
from gemini_batch_mcp.intake.unpacked import inner_name, is_packed, unpacking
from gemini_batch_mcp.intake.validator.corrections import shown
from gemini_batch_mcp.intake.validator.validate import is_anthropic, is_openai
from gemini_batch_mcp.intake.workbooks.sheets import BOOKS, split_sheet
from gemini_batch_mcp.paths import PathGuard
from gemini_batch_mcp.settings import MAX_LINE_BYTES
from gemini_batch_mcp.text import safe_text


class SourceKind(StrEnum):
    """How an order's requests come about."""

    #: A file at the Files API, which cannot be read back.
    UPLOADED = "uploaded"
    #: Given in the call.
    LISTED = "listed"
    #: Lines of requests, sent as they are where they are right.
    READY = "ready"
    #: Lines of an OpenAI batch, converted.
    OPENAI = "openai"
    #: Rows of a table, rendered with the order's prompt.
    TABLE = "table"
    #: Rows of a table that stays where it is, rendered there.
    REMOTE = "remote"


class Layout(StrEnum):
    """How a file holds its rows, which decides what reads it."""

    DELIMITED = "delimited"
    #: One list of objects.
    JSON_LIST = "json-list"
    #: An object on each line, which may be a request as well as a row.
    JSON_LINES = "json-lines"
    PARQUET = "parquet"
    #: Sheets, of which one is read.
    WORKBOOK = "workbook"
    #: A row is a line, with one column.
    TEXT_LINES = "text-lines"


@dataclass(frozen=True, slots=True)
class FileKind:
    """What files of one ending are. `delimiter` is the one that is tried first."""

    layout: Layout
    delimiter: str = ""
    #: A web page under this name was saved by mistake; where False, it may be meant.
    is_never_page: bool = True

    @property
    def is_text(self) -> bool:
        """True for what may also be given packed."""
        return self.layout not in (Layout.PARQUET, Layout.WORKBOOK)


#: Every ending that a source may have, in the order in which people are told.
FILES: Final = {
    ".csv": FileKind(Layout.DELIMITED, ","),
    ".tsv": FileKind(Layout.DELIMITED, "\t"),
    ".json": FileKind(Layout.JSON_LIST),
    ".jsonl": FileKind(Layout.JSON_LINES),
    ".ndjson": FileKind(Layout.JSON_LINES),
    ".parquet": FileKind(Layout.PARQUET, is_never_page=False),
    ".txt": FileKind(Layout.TEXT_LINES, is_never_page=False),
    **dict.fromkeys(BOOKS, FileKind(Layout.WORKBOOK, is_never_page=False)),
}


@dataclass(frozen=True, slots=True)
class FileOptions:
    """What an order says of how its file is read, beside the file's name."""

    #: The sheet of a workbook; empty for the one that has rows.
    sheet: str = ""
    #: The encoding of text, by the name that is given for it; empty for what the file itself shows.
    encoding: str = ""


#: What a file says of itself.
AS_IT_SAYS: Final = FileOptions()

#: Contents that are refused where text is expected: their first bytes, what they are, and what to do instead.
FOREIGN: Final = (
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook", "Give it the ending of what it is: .xlsx, .ods or .zip."),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "Give it the ending .xls."),
    (b"\x1f\x8b", "a gzip archive", "Unpack it, or give it the ending of such a file: .csv.gz."),
    (b"PAR1", "a Parquet file", "Rename it to end in .parquet."),
    (b"SQLite format 3\0", "a SQLite database", "Export the table as CSV."),
    (b"%PDF-", "a PDF document", "Give the folder that contains it, or a table."),
    (b"BZh", "a bzip2 archive", "Unpack it, or give it the ending of such a file: .csv.bz2."),
    (b"\xfd7zXZ\0", "an xz archive", "Unpack it first."),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", "Unpack it, or give it the ending of such a file: .csv.zst."),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "Unpack it first."),
    (b"Rar!\x1a\x07", "a RAR archive", "Unpack it first."),
    (b"\x89PNG\r\n\x1a\n", "a PNG image", "Give the folder that contains it, or a table that names it."),
    (b"\xff\xd8\xff", "a JPEG image", "Give the folder that contains it, or a table that names it."),
)

_ADDRESS: Final = re.compile(r"(?:https?|ftp|s3|gs)://", re.IGNORECASE)
_IN_ARCHIVE: Final = re.compile(r".+\.(?:zip|tar|tgz|tar\.gz|7z|rar)#(.+)", re.IGNORECASE)
_LINES_LOOKED_AT: Final = 5
#: Enough of a file in UTF-16 to see its first lines.
_UTF16_BYTES: Final = 1 << 20
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST: Final = msgspec.json.Decoder(list[msgspec.Raw])
_REQUEST_LINE: Final = frozenset({"key", "request", "metadata"})


def file_kind(path: Path) -> FileKind | None:
    """Return what a file is by its name, or what it holds where it is packed; None for what cannot be a source.

    Raises:
        UsageError: it is an archive of no file, or of several.
        PathError: it is an archive that cannot be read.
    """
    if not is_packed(path):
        return FILES.get(path.suffix.lower())
    kind = FILES.get(Path(inner_name(path)).suffix.lower())
    return kind if kind is not None and kind.is_text else None


def is_workbook(path: Path) -> bool:
    """True for a file of sheets, of which one is read."""
    return path.suffix.lower() in BOOKS


def file_options(order: Order, place: object) -> FileOptions:
    """Return what an order that was identified says of how the file at `place` is read."""
    if isinstance(place, Path) and _ADDRESS.match(order.source):
        # What is read is a copy of an object, and bears its name.
        return FileOptions(order.source.partition(f"/{place.name}#")[2], order.encoding)
    sheet = order.source.removeprefix(f"{place}#") if order.source.startswith(f"{place}#") else ""
    return FileOptions(sheet, order.encoding)


def split_source(text: str, guard: PathGuard) -> tuple[str, str]:
    """Return the path and the sheet that a source names; a file that is really called so has no sheet in its name.

    Raises:
        UsageError: it names no file of this machine, but an address or what is in an archive.
    """
    if _ADDRESS.match(text):
        raise UsageError(
            f"{safe_text(text)} is an address; sources are files on this machine.", "Download it, and give its path."
        )
    if "#" not in text:
        return text, ""
    try:
        guard.readable_file(text)
    except PathError:
        if found := _IN_ARCHIVE.match(text):
            raise UsageError(
                f"{shown(text)} names a file inside an archive; only an archive of one file is read as it is.",
                f"Unpack it, and give the path of the file {shown(found[1])}.",
            ) from None
        return split_sheet(text)
    return text, ""


def named_tables() -> str:
    """Return the endings of tables for a sentence: those that hold nothing else first."""
    only = ", ".join(suffix for suffix, kind in FILES.items() if kind.layout is not Layout.JSON_LINES)
    return f"{only}, or .jsonl of plain rows"


def recognise(place: Path | Folder, *, with_prompt: bool, encoding: str = "") -> SourceKind:
    """Return what kind of source a file or folder is.

    JSONL may hold requests or rows, which its first lines tell. `with_prompt` says whether the order has a prompt:
    without one, lines that are not requests are taken for requests that are wrong, and reported as such. `encoding` is
    what the order says of it.

    Raises:
        UsageError: the name is none of a source.
        PathError: the file cannot be read.
    """
    if isinstance(place, Folder):
        return SourceKind.TABLE
    kind = file_kind(place)
    if kind is None and is_packed(place):
        texts = ", ".join(suffix for suffix, kind in FILES.items() if kind.is_text)
        raise UsageError(
            f"{place.name} holds {shown(inner_name(place))}, which doesn't have a text file's name.",
            f"Unpack it; or name it by what is in it, such as reviews.csv{place.suffix} (packed are read: {texts}).",
        )
    if kind is None and (named := named_kind(place.suffix)) in ("PDF", "image", "audio", "video", "Office"):
        raise _one_document(place, named)
    if kind is None:
        raise UsageError(
            f"{place.name} does not have the name of a table or of requests.",
            f"If it is one, end the name in {', '.join(FILES)}. To attach the file itself, give attach='path' and a "
            "prompt.",
        )
    if kind.layout is not Layout.JSON_LINES:
        return SourceKind.TABLE
    found = _kind_of_lines(place, encoding)
    return SourceKind.READY if found is SourceKind.TABLE and not with_prompt else found


def _one_document(place: Path, named: str) -> UsageError:
    if named == "Office":
        return UsageError(
            f"{place.name} is an Office document, which has no rows and which Gemini does not accept.",
            "Save it as PDF, and attach that.",
        )
    row = msgspec.json.encode([{"file": str(place)}]).decode()
    return UsageError(
        f"{place.name} is one {named} file, not a table of rows.",
        f'To ask about it, give requests={row} with a prompt and attach="file"; for more of them give their directory '
        'or a glob as source, with attach="path".',
    )


def _kind_of_lines(path: Path, encoding: str) -> SourceKind:
    opened: AbstractContextManager[BufferedReader] = unpacking(path) if is_packed(path) else buffered(path)
    with opened as file:
        for line in _first_lines(file, encoding):
            if (kind := _kind_of(line)) is not None:
                return kind
    # No line is an object.
    return SourceKind.TABLE


def _first_lines(file: BufferedReader, encoding: str) -> Iterator[bytes]:
    """Yield the first lines that are not blank, in UTF-8."""
    is_utf16 = file.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff")
    if is_utf16 or encoding:
        codec = "utf-16" if is_utf16 else page_named(encoding).codec
        head = file.read(_UTF16_BYTES).decode(codec, "replace")
        lines: Iterable[bytes] = (line.encode() for line in head.split("\n"))
    else:
        lines = iter(partial(file.readline, MAX_LINE_BYTES), b"")
    filled = (stripped for line in lines if (stripped := without_marks(line).strip()))
    return map(_in_utf8, islice(filled, _LINES_LOOKED_AT))


def _in_utf8(line: bytes) -> bytes:
    try:
        line.decode()
    except UnicodeDecodeError:
        return line.decode("cp1252", "replace").encode()
    return line


def _kind_of(line: bytes) -> SourceKind | None:
    """Return what one line is, None when it is no JSON object."""
    members = _members(line)
    if members is None:
        return None
    if is_openai(members.keys(), body_is_object=_is_object(members.get("body"))):
        return SourceKind.OPENAI
    if is_anthropic(members.keys()) and _is_object(members["params"]):
        return SourceKind.OPENAI
    if "request" in members and (_is_object(members["request"]) or members.keys() <= _REQUEST_LINE):
        return SourceKind.READY
    if _is_content(members.get("contents")) or _is_content(members.get("content")):
        return SourceKind.READY
    return SourceKind.TABLE


def _members(value: bytes | msgspec.Raw) -> dict[str, msgspec.Raw] | None:
    try:
        return _OBJECT.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _is_object(value: msgspec.Raw | None) -> bool:
    return value is not None and bytes(value).startswith(b"{")


def _is_content(value: msgspec.Raw | None) -> bool:
    """True for a Content, or a list that starts with one; rows of a table may have contents of their own."""
    if value is None:
        return False
    try:
        items = _LIST.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        items = [value]
    members = _members(items[0]) if items else None
    return members is not None and "parts" in members
