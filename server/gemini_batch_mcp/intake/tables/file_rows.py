"""The files of a folder as a table: `path`, `name`, and `text` where a file is text and somebody asks for it."""

import mimetypes
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Final

from gemini_batch_mcp.errors import BatchError, PathError, UsageError
from gemini_batch_mcp.intake.file_kinds import named_kind
from gemini_batch_mcp.intake.opened import ManyFiles, SourceFile
from gemini_batch_mcp.intake.tables._csv import CsvTable
from gemini_batch_mcp.intake.tables._spool import Faults, Spool
from gemini_batch_mcp.intake.tables.folders import TELL_EVERY, Folder
from gemini_batch_mcp.intake.tables.text_files import as_utf8, is_binary, is_utf8, plain_utf8
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
    folder: Folder,
    workspace: Path,
    *,
    with_text: bool = True,
    needs_text: str = "",
    encoding: str = "",
    on_files: Callable[[int, int], None] | None = None,
) -> CsvTable:
    """Write the files as a table, a row for each. `needs_text` refuses files that are none, and says what to do.

    `on_files` is told every so often how many texts have been looked for, and of how many.
    `path` is relative to the folder. `text` is empty for files that are no text (images, PDFs, …); the column is
    missing when no file is text, and without `with_text`.

    Raises:
        RequestProblems: text files cannot be read, or are larger than one request can be.
        UsageError: there are no files, or some are no text.
    """
    if not folder.names:
        raise UsageError("No file was found.", "Correct the source path.")
    texts = _Texts(workspace, encoding)
    rows = texts.rows(folder, on_files) if with_text else map(_row, folder.names)
    table = Spool(workspace / "rows.csv", "The folder").write(rows)
    if needs_text and texts.missing:
        raise no_text(folder, texts.missing, needs_text)
    texts.faults.raise_any("The folder")
    warnings = folder.warnings
    if texts.missing and texts.missing < len(folder.names):
        plural = " is" if texts.missing == 1 else "s are"
        warnings += (f"{texts.missing:,} file{plural} not text; the column text is empty there.",)
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


def _row(name: str, text: str | None = None) -> dict[str, str]:
    row = {PATH_COLUMN: name, NAME_COLUMN: name.rpartition("/")[2]}
    if text is not None:
        row[TEXT_COLUMN] = text
    return row


class _Texts:
    """The files of a folder being read, each once: what is text, and what cannot be read."""

    def __init__(self, workspace: Path, encoding: str) -> None:
        self.faults = Faults()
        #: How many files are no text.
        self.missing = 0
        self._workspace = workspace
        self._encoding = encoding

    def rows(self, folder: Folder, on_files: Callable[[int, int], None] | None) -> Iterator[Mapping[str, str]]:
        """Yield a row for each file, all with a text or, where no file is one, none."""
        # Until the first text turns up, nobody knows whether there is such a column.
        held: list[str] | None = []
        with ManyFiles() as files:
            for number, (name, (directory, bare)) in enumerate(zip(folder.names, folder.places(), strict=True), 1):
                if on_files is not None and number % TELL_EVERY == 0:
                    on_files(number, len(folder.names))
                text = None if _is_named_media(bare) else self._text(files, number, directory, bare)
                self.missing += text is None
                if held is not None and text is None:
                    held.append(name)
                    continue
                if held is not None:
                    yield from (_row(other, "") for other in held)
                    held = None
                yield _row(name, text or "")
        yield from map(_row, held or ())

    def _text(self, files: ManyFiles, number: int, directory: Path, name: str) -> str | None:
        """Return a file's text, None where it is none; what cannot be read is a fault of that row."""
        blocks = files.blocks(directory, name)
        try:
            head = next(blocks, b"")
            if not head:
                return ""
            if is_binary(head[:_HEAD_BYTES]):
                return None
            if not next(blocks, b"") and (text := plain_utf8(head)) is not None:
                return text
        except PathError:
            pass  # Reading it says what is wrong.
        finally:
            blocks.close()
        return _read(directory / name, number, self.faults, self._workspace, self._encoding)


def _is_named_media(name: str) -> bool:
    """True where the name says that a file is no text."""
    dot = name.find(".")
    return dot >= 0 and _is_media_ending(name[dot:])


@lru_cache(maxsize=1024)
def _is_media_ending(ending: str) -> bool:
    guessed = mimetypes.guess_type(f"name{ending}")[0] or ""
    return guessed in _DOCUMENTS or (guessed.startswith(_MEDIA) and guessed != "image/svg+xml")


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
