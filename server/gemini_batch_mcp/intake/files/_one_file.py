"""One attached file: where it is, what it holds, and whether Gemini takes it."""

import codecs
import hashlib
import os
import re
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import Final

from gemini_batch_mcp.errors import PathError
from gemini_batch_mcp.handles import open_file
from gemini_batch_mcp.intake.file_kinds import (
    HEAD_BYTES,
    MAX_PDF_BYTES,
    Media,
    NotTaken,
    kind_of,
)
from gemini_batch_mcp.intake.files._cells import plain, remote, several, spellings
from gemini_batch_mcp.intake.files.pages import count_pages
from gemini_batch_mcp.intake.tables.earlier import EarlierRows
from gemini_batch_mcp.intake.tables.folders import Folder
from gemini_batch_mcp.intake.tables.reading import Place
from gemini_batch_mcp.intake.validator.corrections import shown
from gemini_batch_mcp.paths import PathGuard, is_chats_path
from gemini_batch_mcp.settings import MAX_FILE_BYTES

_BLOCK_BYTES: Final = 1 << 20
_LINK: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


class Unusable(Exception):
    """A file that cannot be attached: what is wrong with it, and what to do. `elsewhere` as in `UsageError`."""

    def __init__(self, message: str, fix: str, elsewhere: tuple[str, ...] = ()) -> None:
        super().__init__(message, fix)
        self.message = message
        self.fix = fix
        self.elsewhere = elsewhere


@dataclass(frozen=True, slots=True)
class Examined:
    """What a file holds. `sha256` is lowercase hex; `pages` is 0 for what is no PDF, or cannot be counted."""

    sha256: str
    size_bytes: int
    mime_type: str
    media: Media
    pages: int = 0


def locate(cell: str, source: Place, guard: PathGuard) -> Path | str:
    """Return the resolved path of the file that a cell means; or `files/…`, `gs://…`, a YouTube link as they are sent.

    A relative path is looked for beside the table first, where that is a file, and then as any other path; in a folder
    it is one of its own. What is here goes before what has the same name at the Files API.

    Raises:
        Unusable: there is no such file, or it may not be read.
    """
    text = plain(cell)
    elsewhere = ""
    try:
        if isinstance(source, Folder):
            # Once more through the guard: links may have changed since the folder was listed.
            return guard.readable_file(str(source.path(cell)))
        if (elsewhere := remote(text)) and not elsewhere.startswith("files/"):
            return elsewhere
        if _LINK.match(text) and not elsewhere and not is_chats_path(text):
            raise Unusable(
                "This is a link; the path of a local file is expected.",
                "Download the file and give its path; gs://bucket/name and YouTube links are passed on.",
            )
        if isinstance(source, EarlierRows):
            if Path(text).is_relative_to(source.media):
                # What answers carried lies in the state directory, which holds nothing else that may be attached.
                return replace(guard, roots=(source.media,)).readable_file(text)
            return _readable(guard, text, source.beside)
        # Beside a copy of an object there is nothing.
        is_here = isinstance(source, Path) and guard.target(source) is not None
        return _readable(guard, text, source.parent if isinstance(source, Path) and is_here else None)
    except PathError as error:
        if elsewhere:
            return elsewhere
        fix = "Give the path of a file on this machine." if error.elsewhere else error.next_step
        raise Unusable(error.message, fix, error.elsewhere) from None


def locate_all(cell: str, source: Place, guard: PathGuard) -> tuple[Path | str, ...]:
    """Return what a cell means, several where it holds a list; what is here by the cell's whole text is that one.

    Raises:
        Unusable: as `locate`, of the first that cannot be used.
    """
    entries = () if isinstance(source, Folder) else several(cell)
    if not entries:
        return (locate(cell, source, guard),)
    try:
        whole = locate(cell, source, guard)
    except Unusable as error:
        found: list[Path | str] = []
        others: list[Unusable] = []
        for entry in entries:
            try:
                found.append(locate(entry, source, guard))
            except Unusable as other:
                others.append(other)
        if not others:
            return tuple(found)
        # A comma may be part of a name, unless something between commas is there.
        is_name = not found and cell.count(",") > 0 and len(entries) == cell.count(",") + 1
        raise (error if is_name else others[0]) from None
    if isinstance(whole, Path):
        return (whole,)
    try:
        return tuple(locate(entry, source, guard) for entry in entries)
    except Unusable:
        return (whole,)


def _readable(guard: PathGuard, text: str, beside: Path | None) -> Path:
    first: PathError | None = None
    for spelling in spellings(text):
        try:
            return guard.readable_file(spelling, beside=beside)
        except PathError as error:
            first = first or error
    assert first is not None
    raise first


def examine(path: Path) -> Examined:
    """Read a file once, from beginning to end.

    Raises:
        Unusable: it is empty, too large, cannot be read, or is none that Gemini takes.
    """
    try:
        with os.fdopen(open_file(path), "rb", buffering=0) as file:
            return _examine(file, os.fstat(file.fileno()).st_size, path.name)
    except NotTaken as error:
        raise Unusable(f"{shown(path.name)} {error.message}", error.fix) from None
    except OSError as error:
        raise Unusable(
            f"{shown(path.name)} cannot be read: {error.strerror}.", "Check that it exists and is readable."
        ) from None


def _examine(file: FileIO, size_bytes: int, name: str) -> Examined:
    if not size_bytes:
        raise Unusable(f"{shown(name)} is empty.", "Give a file with content, or leave the cell empty.")
    block = file.read(HEAD_BYTES)
    kind = kind_of(block, name)
    limit = MAX_PDF_BYTES if kind.media == "pdf" else MAX_FILE_BYTES
    if size_bytes > limit:
        what = "Gemini accepts PDFs" if kind.media == "pdf" else "the Files API accepts files"
        raise Unusable(
            f"{shown(name)} has {size_bytes:,} bytes; {what} of at most {limit:,}.", "Split it, or make it smaller."
        )
    digest = hashlib.sha256()
    decoder = codecs.getincrementaldecoder("utf-8")() if kind.media == "text" else None
    whole = bytearray()
    read_bytes = 0
    while block:
        digest.update(block)
        read_bytes += len(block)
        if decoder is not None:
            _decode(decoder, block)
        if kind.media == "pdf":
            whole += block
        # No larger a buffer than can be filled: most files are small, and a megabyte takes longer to get than to read.
        block = file.read(min(_BLOCK_BYTES, max(size_bytes - read_bytes, 0) + 1))
    if decoder is not None:
        _decode(decoder, b"", final=True)
    return Examined(digest.hexdigest(), read_bytes, kind.mime_type, kind.media, count_pages(whole))


def _decode(decoder: codecs.IncrementalDecoder, block: bytes, *, final: bool = False) -> None:
    try:
        decoder.decode(block, final)
    except UnicodeDecodeError:
        raise NotTaken("is text that isn't UTF-8.", "Save it as UTF-8.") from None
