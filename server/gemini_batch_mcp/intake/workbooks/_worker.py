"""In the process for spreadsheets: one sheet's rows written as text, and what there is to say about them as JSON."""

import gc
import json
import os
import re
import signal
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, Final

from gemini_batch_mcp.intake.workbooks._cells import texts
from gemini_batch_mcp.intake.workbooks._ods import SeenInOds, look_into
from gemini_batch_mcp.intake.workbooks._parts import Merged, Seen, cut_in_parts, look, sheet_members

#: Rows that are looked at to find the header.
_SAMPLE_ROWS: Final = 50
#: Of the cells that most of the first rows have, a header fills at least so many.
_HEADER_PART: Final = 0.6
#: Rows that are written at a time.
_BLOCK_ROWS: Final = 1000
_SHOWN_SHEETS: Final = 20
_SHOWN_TITLES: Final = 3
_SHOWN_CHARS: Final = 60
_OLE: Final = b"\xd0\xcf\x11\xe0"
_ENCRYPTED: Final = "EncryptedPackage".encode("utf-16-le")
_SAVE_AS: Final = "Open it in a spreadsheet program and save it as .xlsx, or as CSV."


#: Rows one below the other: the number of the first in its sheet, from 0, and their cells from the first column on.
Block = tuple[int, list[list[Any]]]


class Refused(Exception):
    """The sheet cannot be read: what is the matter, and what to do."""

    def __init__(self, message: str, next_step: str = _SAVE_AS) -> None:
        super().__init__(message, next_step)


def main() -> None:
    """Read what the line on stdin names, and answer with one line."""
    wanted = json.loads(sys.stdin.readline())
    _limit_memory(wanted["memory_bytes"])
    # Rows hold nothing that holds them: looking for that again and again takes a fifth of the time.
    gc.disable()
    try:
        reply = read(Path(wanted["path"]), Path(wanted["spool"]) if wanted["spool"] else None, **wanted["options"])
    except Refused as error:
        reply = {"refused": error.args}
    except OSError as error:
        reply = {"storage": error.strerror or type(error).__name__}
    print(json.dumps(reply), flush=True)  # noqa: T201 - what the server reads
    # Freeing a million cells takes longer than forgetting them.
    os._exit(0)


def _limit_memory(most_bytes: int) -> None:
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (most_bytes, most_bytes))
        # What does not fit ends this process, and writes no file about it.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def read(path: Path, spool: Path | None, *, name: str, sheet: str, split_bytes: int, part_bytes: int) -> dict[str, Any]:
    """Write the rows of a sheet, each cell in quotes; the file at `path` is a copy that may be changed.

    Without `spool`, it is only found out which sheet is meant.

    Raises:
        Refused: it is not a spreadsheet, or it is not clear which rows are meant.
    """
    kind = _kind(path, name)
    # The reader goes by the ending first, and people give one file the ending of another.
    path = path.rename(path.with_suffix(f".{kind}"))
    book = _opened(path, name)
    sheets = [found for found in book.sheets_metadata if _is(found.typ, "WorkSheet")]
    members = {}
    if kind == "xlsx":
        with zipfile.ZipFile(path) as archive:
            members = {title: member.filename for title, member in sheet_members(archive).items()}
            sizes = {title: archive.getinfo(member).file_size for title, member in members.items()}
    else:
        sizes = {}

    def is_large(title: str) -> bool:
        return sizes.get(title, 0) > split_bytes

    chosen, notes = _chosen(book, sheets, sheet, name, is_large)
    if spool is None:
        return {"sheet": chosen}
    seen = Seen()
    if is_large(chosen):
        book.close()
        seen, parts = cut_in_parts(path, members[chosen], part_bytes)
        book = _opened(path, name)
        blocks = _blocks_of_parts(book, parts, name)
    else:
        if chosen in members:
            with zipfile.ZipFile(path) as archive:
                seen = look(archive, archive.getinfo(members[chosen]))
        found = _sheet(book, chosen, name)
        ranges = found.merged_cell_ranges if kind == "xls" else None
        seen.merged = tuple((*start, *end) for start, end in ranges) if ranges else seen.merged
        blocks = _blocks(found)
    seen_in_ods = look_into(path, chosen) if kind == "ods" else SeenInOds()
    seen.errors += seen_in_ods.errors
    if seen_in_ods.durations:
        blocks = _with_durations(blocks, seen_in_ods.durations)
    writing = _Writing(spool, seen.merged)
    reply = writing.write(blocks, f"{name}#{chosen}")
    return {**reply, "notes": [*notes, *_notes(seen, writing, seen_in_ods)]}


def _is(value: object, word: str) -> bool:
    """Whether a member of the reader's enumerations is that one."""
    return str(value).rpartition(".")[2] == word


def _kind(path: Path, name: str) -> str:
    """Return `xlsx`, `ods` or `xls`, by what is in the file.

    Raises:
        Refused: it is none of them.
    """
    with path.open("rb") as file:
        head = file.read(4096)
        if head.startswith(_OLE):
            if _ENCRYPTED in head + file.read():
                raise _protected(name)
            return "xls"
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_archive(path, name)
    if not head:
        raise Refused(f"{name} is empty.", "Give a spreadsheet with at least one row.")
    # The oldest workbooks have no container around them.
    if head[:2] in (b"\x09\x08", b"\x09\x04", b"\x09\x02", b"\x09\x00") and b"\0" in head[:16]:
        return "xls"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<":
        raise Refused(f"{name} is not a spreadsheet: it contains HTML or XML.")
    if b"\0" not in head:
        raise Refused(f"{name} is not a spreadsheet: it contains text.", "Give it the ending .csv or .txt.")
    raise Refused(f"{name} is damaged, or is not a spreadsheet.")


def _kind_of_archive(path: Path, name: str) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            if "content.xml" in names:
                manifest = archive.read("META-INF/manifest.xml") if "META-INF/manifest.xml" in names else b""
                if b"encryption-data" in manifest:
                    raise _protected(name)
                if not any(b"spreadsheet" in archive.read(part)[:4096] for part in {"mimetype"} & names):
                    raise Refused(f"{name} is a document, not a spreadsheet.", "Save the table as .xlsx or CSV.")
                return "ods"
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError):
        raise Refused(f"{name} is damaged: it ends too early, or was changed.") from None
    if "xl/workbook.bin" in names:
        raise Refused(f"{name} is a binary workbook (.xlsb), which is not read here.")
    if any(part.startswith("xl/") for part in names):
        return "xlsx"
    others = {"word/": "a Word document", "ppt/": "a presentation", "Index/": "a Numbers document"}
    what = next(
        (what for start, what in others.items() if any(part.startswith(start) for part in names)), "a ZIP archive"
    )
    raise Refused(f"{name} is {what}, not a spreadsheet.")


def _protected(name: str) -> Refused:
    return Refused(f"{name} is protected by a password.", "Save a copy without a password, and give that.")


def _opened(path: Path, name: str) -> Any:
    import python_calamine

    try:
        return python_calamine.CalamineWorkbook.from_path(str(path))
    except python_calamine.PasswordError:
        raise _protected(name) from None
    except BaseException as error:
        raise _broken(name, error) from None


def _sheet(book: Any, title: str, name: str) -> Any:
    try:
        return book.get_sheet_by_name(title)
    except BaseException as error:
        raise _broken(name, error) from None


def _broken(name: str, error: BaseException) -> BaseException:
    """Return what to raise: whatever the reader stumbles over, some of it in Rust's own way, is a damaged file."""
    if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
        return error
    return Refused(f"{name} is damaged, or written in a way that is not read here.")


def _chosen(
    book: Any, sheets: Sequence[Any], wanted: str, name: str, is_large: Callable[[str], bool]
) -> tuple[str, list[str]]:
    """Return the sheet that is meant, and what to say about the others.

    Raises:
        Refused: there is none of that name, none with rows, or several.
    """
    titles = [found.name for found in sheets]
    hidden = {found.name for found in sheets if not _is(found.visible, "Visible")}
    if wanted:
        near = [title for title in titles if title == wanted] or [
            title for title in titles if title.strip().casefold() == wanted.strip().casefold()
        ]
        if len(near) != 1:
            listed = ", ".join(titles[:_SHOWN_SHEETS])
            raise Refused(
                f"{name} has no sheet {wanted!r}; it has {listed or 'none'}.", f"Give {name}#…, with one of them."
            )
        return near[0], [f"The sheet {near[0]} is hidden in {name}."] if near[0] in hidden else []
    visible = [title for title in titles if title not in hidden]
    notes = []
    if len(visible) == 1 and not hidden:
        return visible[0], []
    sized = [(title, _size(book, title, name, is_large)) for title in titles]
    filled = [(title, size) for title, size in sized if size]
    shown = [(title, size) for title, size in filled if title not in hidden]
    kept_back = [title for title, _ in filled if title in hidden]
    if kept_back:
        plural = "" if len(kept_back) == 1 else "s"
        notes.append(
            f"The hidden sheet{plural} {', '.join(kept_back[:_SHOWN_SHEETS])} of {name} "
            f"{'was' if not plural else 'were'} left out."
        )
    if len(shown) > 1:
        listed = ", ".join(f"{title} ({size})" for title, size in shown[:_SHOWN_SHEETS])
        more = f" and {len(shown) - _SHOWN_SHEETS} more" if len(shown) > _SHOWN_SHEETS else ""
        raise Refused(
            f"{name} has {len(shown)} sheets with rows: {listed}{more}.",
            f"Say which: {name}#{shown[0][0]}, for example.",
        )
    if not shown:
        if kept_back:
            raise Refused(
                f"{name} has rows on hidden sheets only: {', '.join(kept_back[:_SHOWN_SHEETS])}.",
                f"Give {name}#{kept_back[0]} if that is meant.",
            )
        raise Refused(f"{name} has no rows.", "Give a sheet with a header and at least one row.")
    return shown[0][0], notes


def _size(book: Any, title: str, name: str, is_large: Callable[[str], bool]) -> str:
    """Return how large a sheet is, for people; empty where it holds nothing."""
    if is_large(title):
        return "large"
    rows = columns = 0
    for cells in chain.from_iterable(block for _, block in _blocks(_sheet(book, title, name))):
        filled = [place for place, cell in enumerate(cells, 1) if cell != ""]
        if filled:
            rows, columns = rows + 1, max(columns, filled[-1])
    if not rows:
        return ""
    # Lines and not rows: one of them is the header, and titles may stand above it.
    return f"{rows:,} line{'' if rows == 1 else 's'}, {columns:,} column{'' if columns == 1 else 's'}"


def _blocks(sheet: Any) -> Iterator[Block]:
    """Yield the rows of a sheet."""
    if sheet.start is None:
        return
    left = [""] * sheet.start[1]
    rows = sheet.iter_rows()
    for number in count(0, _BLOCK_ROWS):
        if not (block := list(islice(rows, _BLOCK_ROWS))):
            return
        yield number, [left + cells for cells in block] if left else block


def _with_durations(blocks: Iterator[Block], durations: Mapping[str, timedelta]) -> Iterator[Block]:
    """Yield rows with durations in the place of what an .ods file writes for them."""
    for number, block in blocks:
        yield number, [[durations.get(cell, cell) if type(cell) is str else cell for cell in row] for row in block]


def _blocks_of_parts(book: Any, parts: int, name: str) -> Iterator[Block]:
    """Yield the same of a sheet that was cut in parts."""
    following = 0
    for part in range(1, parts + 1):
        sheet = _sheet(book, str(part), name)
        if sheet.start is None:
            continue
        top, left = sheet.start[0], [""] * sheet.start[1]
        # Rows that do not say their numbers are counted anew in each part.
        first = top if top >= following else following + top
        rows = sheet.to_python(skip_empty_area=True)
        for at in range(0, len(rows), _BLOCK_ROWS):
            block = rows[at : at + _BLOCK_ROWS]
            yield first + at, [left + cells for cells in block] if left else block
        following = first + len(rows)


class _Writing:
    """One sheet being written."""

    def __init__(self, spool: Path, merged: Sequence[Merged]) -> None:
        self.filled = 0
        self.inexact = 0
        self._rows = self._largest = 0
        #: Which columns are written, in this order.
        self._places: list[int] = []
        self._spool = spool
        #: Ranges that span rows, the last one first; what they hold goes into each row of theirs.
        self._down = sorted((span for span in merged if span[2] > span[0]), reverse=True)
        self._across = [span for span in merged if span[3] > span[1]]
        #: By column: what goes into its cells, and up to which row.
        self._held: dict[int, tuple[Any, int]] = {}

    def write(self, blocks: Iterator[Block], name: str) -> dict[str, Any]:
        """Write the rows below the header; return that, where its cells are, and how many there are."""
        first, rest = self._first(blocks)
        if not first:
            raise Refused(f"{name} has no rows.", "Give a sheet with a header and at least one row.")
        at = _header_at([line for _, line in first])
        titles = [next(cell for cell in line if cell) for _, line in first[:at]]
        header, used = self._header(first[at:])
        self._places = [place for place, cell in enumerate(header) if cell.strip()]
        with self._spool.open("w", encoding="utf-8", errors="replace", newline="") as file:
            for number, line in first[at + used :]:
                self._write_block(number, [line], file.write)
            for number, block in chain([rest], blocks):
                self._write_block(number, block, file.write)
        if not self._rows:
            raise Refused(
                f"{name} has no rows below its header.", "Give a sheet with at least one row below its header."
            )
        cells = [header[place].strip() if place < len(header) else "" for place in self._places]
        notes = [_titles(titles, name)] if titles else []
        about = {"header": cells, "places": self._places, "about": notes}
        return {**about, "rows": self._rows, "largest": self._largest}

    def _first(self, blocks: Iterator[Block]) -> tuple[list[tuple[int, list[str]]], Block]:
        """Return the first rows that hold something, with their numbers, and what is left of the block of the last."""
        first: list[tuple[int, list[str]]] = []
        for number, block in blocks:
            for at, cells in enumerate(block, 1):
                if any(line := self._texts(cells)):
                    first.append((number + at - 1, line))
                if len(first) == _SAMPLE_ROWS:
                    return first, (number + at, block[at:])
        return first, (0, [])

    def _write_block(self, number: int, block: list[list[Any]], write: Callable[[str], object]) -> None:
        """Write some rows, column by column: what is said of a whole column at once takes a third of the time."""
        if not block:
            return
        widths = set(map(len, block))
        width = max(widths)
        if len(widths) > 1:
            block = [cells + [""] * (width - len(cells)) for cells in block]
        if self._down or self._held:
            block = [list(cells) for cells in block]
            for at, cells in enumerate(block, number):
                if any(cell != "" for cell in cells):
                    self._fill(at, cells)
        columns = [self._column(column) for column in zip(*block, strict=True)]
        # Columns without a name, which these rows are the first to fill.
        self._places += [place for place in range(width) if place not in self._places and any(columns[place])]
        nothing = [""] * len(block)
        chosen = [columns[place] if place < width else nothing for place in self._places]
        lines: Iterable[tuple[str, ...]] = zip(*chosen, strict=True)
        if not any(map(all, chosen)):
            lines = filter(any, lines)
        # A tenth of the time of a writer that looks at each cell.
        if not (written := list(map('","'.join, lines))):
            return
        write('"' + '"\n"'.join(written) + '"\n')
        self._rows += len(written)
        # With the quotes at its ends, and a line feed.
        self._largest = max(self._largest, max(map(len, written)) + 3)

    def _column(self, cells: Sequence[Any]) -> Sequence[str]:
        """Return the cells of a column as they stand between quotes."""
        try:
            # Mostly all of them are text, which needs no look at each.
            joined, written = "".join(cells), cells
        except TypeError:
            written, doubtful = texts(cells)
            self.inexact += doubtful
            joined = "".join(written)
        return [cell.replace('"', '""') for cell in written] if '"' in joined else written

    def _texts(self, cells: list[Any]) -> list[str]:
        written, doubtful = texts(cells)
        self.inexact += doubtful
        return list(written)

    def _header(self, rows: Sequence[tuple[int, list[str]]]) -> tuple[list[str], int]:
        """Return the names of the columns, and how many rows they take: a name over several columns has names below."""
        number, header = rows[0]
        over = [span for span in self._across if span[0] == span[2] == number]
        if not over or len(rows) < 2 or rows[1][0] != number + 1:
            return header, 1
        below = rows[1][1]
        names = list(header) + [""] * (len(below) - len(header))
        for _, left, _, right in over:
            if right >= len(below) or not all(_is_name(below[place]) for place in range(left, right + 1)):
                return header, 1
            for place in range(left, right + 1):
                names[place] = f"{header[left]} {below[place]}"
        for place, cell in enumerate(below):
            names[place] = names[place] or cell
        return names, 2

    def _fill(self, number: int, line: list[Any]) -> None:
        while self._down and self._down[-1][0] <= number:
            top, column, bottom, _ = self._down.pop()
            if top == number and column < len(line) and bottom > number:
                self._held[column] = line[column], bottom
        for column, (text, bottom) in list(self._held.items()):
            if number > bottom:
                del self._held[column]
            elif column < len(line) and line[column] == "":
                line[column] = text
                self.filled += 1


def _header_at(lines: Sequence[list[str]]) -> int:
    """Return which of the first rows is the header: the first one that is not much shorter than most."""
    filled = [sum(map(bool, line)) for line in lines]
    usual = sorted(filled)[len(filled) // 2] if len(filled) > 2 else max(filled)
    return next(place for place, count in enumerate(filled) if count >= min(max(2, usual * _HEADER_PART), usual))


def _is_name(cell: str) -> bool:
    return bool(cell) and not re.fullmatch(r"[-+]?[\d.,]+", cell)


def _titles(titles: Sequence[str], name: str) -> str:
    shown = ", ".join(f'"{title[:_SHOWN_CHARS]}"' for title in titles[:_SHOWN_TITLES])
    more = f" and {len(titles) - _SHOWN_TITLES} more" if len(titles) > _SHOWN_TITLES else ""
    were = "line above the header of {} was" if len(titles) == 1 else "lines above the header of {} were"
    return f"{len(titles)} {were.format(name)} left out: {shown}{more}."


def _notes(seen: Seen, writing: _Writing, seen_in_ods: SeenInOds) -> Iterator[str]:
    if count := seen.errors:
        what = "cell with an error such as #N/A counts" if count == 1 else "cells with an error such as #N/A count"
        yield f"{count:,} {what} as empty."
    if count := seen.formulas_without_value:
        yield (
            f"{count:,} formula{' has' if count == 1 else 's have'} no value and will be sent as empty: no spreadsheet "
            "program has calculated the file. Open it in one, and save it."
        )
    if count := writing.filled:
        cells = "1 empty cell" if count == 1 else f"{count:,} empty cells"
        yield f"{cells} got the value of the merged cell that covers {'it' if count == 1 else 'them'}."
    if count := writing.inexact:
        yield (
            f"{count:,} number{' has' if count == 1 else 's have'} more than 15 digits, which spreadsheets do not "
            "keep. If these are ids, format their column as text where they come from."
        )
    if seen_in_ods.has_cells_over_rows:
        yield "Merged cells of an .ods file hold their value in the first row only."
