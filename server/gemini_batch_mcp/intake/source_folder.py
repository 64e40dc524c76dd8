"""The files of a folder or a glob as a table: `path`, `name`, and `text` where a file is text."""

import mimetypes
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from gemini_batch_mcp.errors import BatchError, UsageError
from gemini_batch_mcp.intake.advice import shown
from gemini_batch_mcp.intake.source_csv import CsvTable
from gemini_batch_mcp.intake.source_spool import Faults, Spool
from gemini_batch_mcp.intake.source_text import as_utf8, is_binary
from gemini_batch_mcp.settings import MAX_LINE_BYTES

_HEAD_BYTES: Final = 1 << 13
_BOM: Final = "\ufeff"
_MEDIA: Final = ("image/", "audio/", "video/", "font/")
_DOCUMENTS: Final = frozenset({"application/pdf", "application/zip", "application/octet-stream"})


@dataclass(frozen=True, slots=True)
class Folder:
    """Files that make up one source, in the order of their rows. `root` is what their paths are told relative to."""

    root: Path
    files: tuple[Path, ...]


def list_folder(root: Path, pattern: str = "*") -> Folder:
    """Return the regular files under `root` that match, sorted by path, hidden ones left out.

    Raises:
        UsageError: nothing matches.
    """
    files = sorted(
        path
        for path in root.glob(pattern)
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )
    if not files:
        what = "holds no files" if pattern == "*" else f"holds no file that matches {shown(pattern)}"
        raise UsageError(f"{root.name or root} {what}.", "Hidden files do not count. Correct the path.")
    return Folder(root, tuple(files))


def spool_folder(folder: Folder, workspace: Path) -> CsvTable:
    """Write the files as a table, a row for each.

    `path` is relative to the root where the file is inside it. `text` is empty for files that are no text (images,
    PDFs, …), and the column is missing when no file is text.

    Raises:
        RequestProblems: text files cannot be read, or are larger than one request can be.
        UsageError: there are no files.
    """
    if not folder.files:
        raise UsageError("No file was found.", "Correct the path of the source.")
    faults = Faults()
    is_text = [_is_text(path) for path in folder.files]
    rows = _rows(folder, is_text, faults, workspace)
    table = Spool(workspace / "rows.csv", "The folder").write(rows)
    faults.raise_any("The folder")
    media = is_text.count(False)
    if media and media < len(is_text):
        plural = " is" if media == 1 else "s are"
        return replace(table, warnings=(f"{media:,} file{plural} no text; the column text is empty there.",))
    return replace(table, warnings=())


def _rows(folder: Folder, is_text: Sequence[bool], faults: Faults, workspace: Path) -> Iterator[Mapping[str, str]]:
    with_text = any(is_text)
    for number, (path, text) in enumerate(zip(folder.files, is_text, strict=True), 1):
        inside = path.is_relative_to(folder.root)
        row = {"path": path.relative_to(folder.root).as_posix() if inside else str(path), "name": path.name}
        if with_text:
            row["text"] = _read(path, number, faults, workspace) if text else ""
        yield row


def _is_text(path: Path) -> bool:
    """True unless the name or the first bytes say that the file is none."""
    guessed = mimetypes.guess_type(path.name)[0] or ""
    if guessed.startswith(_MEDIA) and guessed != "image/svg+xml":
        return False
    if guessed in _DOCUMENTS:
        return False
    try:
        with path.open("rb") as file:
            return not is_binary(file.read(_HEAD_BYTES))
    except OSError:
        return True  # reading it will say what is wrong


def _read(path: Path, number: int, faults: Faults, workspace: Path) -> str:
    """Return a file's text; what cannot be read is a fault of that row."""
    try:
        size_bytes = path.stat().st_size
        if size_bytes == 0:
            return ""
        if size_bytes > MAX_LINE_BYTES:
            faults.add(number, f"{path.name} has {size_bytes:,} bytes, more than {MAX_LINE_BYTES:,}.", "Split it.")
            return ""
        text = as_utf8(path, workspace)
        return text.path.read_bytes().decode("utf-8").removeprefix(_BOM)
    except BatchError as error:
        faults.add(number, error.message, error.next_step)
    except OSError as error:
        faults.add(number, f"{path.name} cannot be read: {error.strerror}.", "Check that it is there and readable.")
    return ""
