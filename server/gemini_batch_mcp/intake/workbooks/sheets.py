"""A sheet, read in a process of its own: memory is bounded, and whatever a file does to its reader ends that only."""

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from gemini_batch_mcp import processes
from gemini_batch_mcp.errors import StorageError, UsageError, storage_errors
from gemini_batch_mcp.intake.opened import SourceFile
from gemini_batch_mcp.settings import SHEET_MEMORY_BYTES

#: The endings of spreadsheets.
BOOKS: Final = (".xlsx", ".xlsm", ".xls", ".ods")
#: XML of a sheet that is read in one go, and of each part that a larger one is cut in: what is made of two megabytes
#: stays in the processor's cache (measured: 0.9 of the time that 16 take, and a quarter of the memory).
_SPLIT_BYTES: Final = 32 << 20
_PART_BYTES: Final = 2 << 20
_BLOCK_BYTES: Final = 1 << 20
_COPY_FAILED: Final = "The rows of the spreadsheet could not be written"
_WORKER: Final = "gemini_batch_mcp.intake.workbooks._worker"


@dataclass(frozen=True, slots=True)
class SheetRows:
    """What was written of a sheet: the names above its columns, in which of its columns they stand, and its rows."""

    header: tuple[str, ...]
    places: tuple[int, ...]
    row_count: int
    largest_row_chars: int
    notes: tuple[str, ...]


def split_sheet(text: str) -> tuple[str, str]:
    """Return the path and the sheet of `book.xlsx#Sheet`; no sheet where the text names none."""
    start = 0
    while (at := text.find("#", start)) >= 0:
        if text[:at].lower().endswith(BOOKS):
            return text[:at], text[at + 1 :]
        start = at + 1
    return text, ""


def sheet_of(book: Path, scratch: Path, sheet: str = "") -> str:
    """Return the name of the sheet that is meant: the one of that name, or the one visible sheet that holds rows.

    Raises:
        UsageError: it is not a spreadsheet, has no such sheet, or several with rows, or cannot be read.
        PathError: the file cannot be read.
        StorageError: it cannot be copied, or the process cannot be started.
    """
    return str(_asked(book, scratch, None, sheet=sheet)["sheet"])


def write_sheet(
    book: Path,
    spool: Path,
    *,
    sheet: str = "",
    split_bytes: int = _SPLIT_BYTES,
    part_bytes: int = _PART_BYTES,
    memory_bytes: int = SHEET_MEMORY_BYTES,
) -> SheetRows:
    """Write the rows of a sheet, each cell in quotes, to `spool`; which one is meant, `sheet_of` says.

    Raises:
        as `sheet_of`.
    """
    sizes = {"split_bytes": split_bytes, "part_bytes": part_bytes}
    reply = _asked(book, spool.parent, spool, sheet=sheet, memory_bytes=memory_bytes, **sizes)
    notes = (*reply["about"], *reply["notes"])
    return SheetRows(tuple(reply["header"]), tuple(reply["places"]), reply["rows"], reply["largest"], notes)


def _asked(
    book: Path,
    scratch: Path,
    spool: Path | None,
    *,
    sheet: str,
    split_bytes: int = _SPLIT_BYTES,
    part_bytes: int = _PART_BYTES,
    memory_bytes: int = SHEET_MEMORY_BYTES,
) -> dict[str, Any]:
    """Have a process read a copy of the book, which goes when it is done."""
    options = {"name": book.name, "sheet": sheet, "split_bytes": split_bytes, "part_bytes": part_bytes}
    with storage_errors(_COPY_FAILED):
        directory = TemporaryDirectory(prefix="book-", dir=scratch, ignore_cleanup_errors=True)
    with directory as name:
        copy = Path(name).resolve() / f"book{book.suffix.lower()}"
        # The process is told of no path of the user's: what was checked is what is copied.
        with storage_errors(_COPY_FAILED), SourceFile(book) as file, copy.open("wb") as output:
            while block := file.read(_BLOCK_BYTES):
                output.write(block)
        wanted = {
            "path": str(copy),
            "spool": str(spool) if spool is not None else "",
            "memory_bytes": memory_bytes,
            "options": options,
        }
        reply = _answer(wanted, book.name)
    if "refused" in reply:
        raise UsageError(*reply["refused"])
    if "storage" in reply:
        raise StorageError(f"{_COPY_FAILED}: {reply['storage']}.", "Check the free space of the state directory.")
    return reply


def _answer(wanted: dict[str, Any], name: str) -> dict[str, Any]:
    try:
        with processes.start(_WORKER) as process:
            try:
                said, _ = process.communicate(json.dumps(wanted).encode() + b"\n")
            except BaseException:
                process.kill()
                raise
    except OSError as error:
        raise StorageError("The process for spreadsheets could not be started.", "Try again.") from error
    if not said.endswith(b"\n"):
        raise UsageError(
            f"{name} needs more memory than is allowed ({wanted['memory_bytes'] >> 20:,} MB), or its reader failed.",
            "Save the sheet as CSV, or as an .xlsx file of its own.",
        )
    reply: dict[str, Any] = json.loads(said)
    return reply
