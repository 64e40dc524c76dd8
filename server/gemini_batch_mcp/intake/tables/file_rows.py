"""The files of a folder as a table: `path`, `name`, and `text` where a file is text and somebody asks for it."""

import mimetypes
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Final

from gemini_batch_mcp.errors import BatchError, PathError, UsageError
from gemini_batch_mcp.intake.file_kinds import named_kind
from gemini_batch_mcp.intake.opened import SourceFile
from gemini_batch_mcp.intake.tables._csv import CsvTable
from gemini_batch_mcp.intake.tables._spool import Faults, Spool
from gemini_batch_mcp.intake.tables.folders import Folder
from gemini_batch_mcp.intake.tables.text_files import as_utf8, is_binary, is_utf8
from gemini_batch_mcp.settings import MAX_LINE_BYTES

#: The column that holds the contents of text files.
TEXT_COLUMN: Final = "text"
#: The column that holds where each file is, relative to the folder: what `attach` names.
PATH_COLUMN: Final = "path"
NAME_COLUMN: Final = "name"
_HEAD_BYTES: Final = 1 << 13
_BOM: Final = "\ufeff"
_MEDIA: Final = ("image/", "audio/", "video/", "font/")
_DOCUMENTS: Final = frozenset({"application/pdf", "application/zip", "application/octet-stream"})


def spool_folder(
    folder: Folder, workspace: Path, *, with_text: bool = True, needs_text: str = "", encoding: str = ""
) -> CsvTable:
    """Write the files as a table, a row for each. `needs_text` refuses files that are none, and says what to do.

    `path` is relative to the folder. `text` is empty for files that are no text (images, PDFs, …); the column is
    missing when no file is text, and without `with_text`.

    Raises:
        RequestProblems: text files cannot be read, or are larger than one request can be.
        UsageError: there are no files, or some are no text.
    """
    if not folder.names:
        raise UsageError("No file was found.", "Correct the source path.")
    faults = Faults()
    is_text = [with_text and _is_text(folder.path(name)) for name in folder.names]
    if needs_text and not all(is_text):
        raise no_text(folder, is_text.count(False), needs_text)
    table = Spool(workspace / "rows.csv", "The folder").write(_rows(folder, is_text, faults, workspace, encoding))
    faults.raise_any("The folder")
    warnings = folder.warnings
    media = is_text.count(False)
    if with_text and media and media < len(is_text):
        plural = " is" if media == 1 else "s are"
        warnings += (f"{media:,} file{plural} not text; the column text is empty there.",)
    return replace(table, warnings=warnings)


def no_text(folder: Folder, count: int, fix: str) -> UsageError:
    """Return the error for a prompt that reads the text of files of which `count` are none."""
    if count == len(folder.names):
        return UsageError(f"No file of {folder.name} is text, so {TEXT_COLUMN} would stand for nothing.", fix)
    verb = "is" if count == 1 else "are"
    return UsageError(
        f"{count:,} of the {len(folder.names):,} files of {folder.name} {verb} not text, so {TEXT_COLUMN} would be "
        "empty there.",
        fix,
    )


def has_media_name(name: str) -> bool:
    """True for a file whose name says that it is no text."""
    return named_kind(PurePosixPath(name).suffix) in ("PDF", "image", "audio", "video", "Office")


def _rows(
    folder: Folder, is_text: Sequence[bool], faults: Faults, workspace: Path, encoding: str
) -> Iterator[Mapping[str, str]]:
    with_text = any(is_text)
    for number, (name, has_text) in enumerate(zip(folder.names, is_text, strict=True), 1):
        row = {PATH_COLUMN: name, NAME_COLUMN: name.rpartition("/")[2]}
        if with_text:
            row[TEXT_COLUMN] = _read(folder.path(name), number, faults, workspace, encoding) if has_text else ""
        yield row


def _is_text(path: Path) -> bool:
    """True unless the name or the first bytes say that the file is none."""
    guessed = mimetypes.guess_type(path.name)[0] or ""
    if guessed.startswith(_MEDIA) and guessed != "image/svg+xml":
        return False
    if guessed in _DOCUMENTS:
        return False
    try:
        with SourceFile(path) as file:
            return not is_binary(file.read(_HEAD_BYTES))
    except PathError:
        return True  # reading it will say what is wrong


def _read(path: Path, number: int, faults: Faults, workspace: Path, encoding: str) -> str:
    """Return a file's text, in `encoding` where it isn't UTF-8; what cannot be read is a fault of that row."""
    try:
        size_bytes = path.stat().st_size
        if size_bytes == 0:
            return ""
        if size_bytes > MAX_LINE_BYTES:
            faults.add(number, f"{path.name} has {size_bytes:,} bytes, more than {MAX_LINE_BYTES:,}.", "Split it.")
            return ""
        with SourceFile(as_utf8(path, workspace, "" if encoding and is_utf8(path) else encoding).path) as file:
            return file.read().decode("utf-8").removeprefix(_BOM)
    except BatchError as error:
        faults.add(number, error.message, error.next_step)
    except OSError as error:
        faults.add(number, f"{path.name} cannot be read: {error.strerror}.", "Check that it exists and is readable.")
    return ""
