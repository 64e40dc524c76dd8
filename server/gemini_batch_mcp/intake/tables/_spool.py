"""Rows that are no table yet (JSON, lines of text, files of a folder), written as one that the engine reads.

They are read here and not by the engine because it would retype them: 1.10 becomes 1.1, a text becomes a date.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import TextIOWrapper
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec

from gemini_batch_mcp.domain import JsonObject
from gemini_batch_mcp.errors import Problem, RequestProblems, UnreadableRows, UsageError, storage_errors
from gemini_batch_mcp.intake.opened import SourceFile, buffered
from gemini_batch_mcp.intake.requests.lines import LongLine, pieces, split_lines
from gemini_batch_mcp.intake.tables._csv import MAX_COLUMNS, CsvTable, check_columns, check_header, quoted
from gemini_batch_mcp.intake.tables._rejects import MAX_UNREADABLE
from gemini_batch_mcp.intake.tables.text_files import BLOCK_BYTES, as_utf8
from gemini_batch_mcp.intake.validator.corrections import kind, shown
from gemini_batch_mcp.intake.validator.json_text import JsonFault, RepeatingObject, parse
from gemini_batch_mcp.intake.workbooks.sheets import write_sheet
from gemini_batch_mcp.settings import MAX_LINE_BYTES

_MAX_REPORTED: Final = 20
#: Columns without a name that a warning each is for.
_MAX_UNNAMED: Final = 10
_ROW: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
#: A pair of surrogates, one character, or any other escape.
_ESCAPE: Final = re.compile(
    rb"\\(?:(u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|.)", re.S
)
_TEXT: Final = msgspec.json.Decoder(str)
_BOM: Final = b"\xef\xbb\xbf"
#: Stands for a row that is gone on without.
_EMPTY: Final[Mapping[str, str]] = MappingProxyType({})


class Faults:
    """Rows that cannot be read: the first are described, all are counted. Those of `without` are no fault."""

    def __init__(self, without: Collection[int] = ()) -> None:
        self.problems: list[Problem] = []
        self.count = 0
        self._without = frozenset(without)
        self._rows: dict[int, Problem] = {}

    def is_known(self, row: int) -> bool:
        """True for a row (from 1) that is to be gone on without."""
        return row in self._without

    def add(self, line: int, message: str, fix: str, *, row: int = 0) -> None:
        """Count one, and describe it while there is room; `row` is its number where that is certain."""
        self.count += 1
        if row and self.count <= MAX_UNREADABLE:
            self._rows[row] = Problem(row, "", message, fix)
        if len(self.problems) < _MAX_REPORTED:
            self.problems.append(Problem(line, "", message, fix))

    def raise_any(self, name: str) -> None:
        """Refuse the source when there are any.

        Raises:
            RequestProblems: there are.
        """
        if self.count:
            plural = "" if self.count == 1 else "s"
            message = f"{name} has {self.count:,} row{plural} that cannot be read; nothing was submitted."
            error = RequestProblems(self.problems, self.count, message, "Correct them, then submit the order again.")
            raise UnreadableRows(error, self._rows) if len(self._rows) == self.count else error


@dataclass(slots=True)
class Spool:
    """Rows being written as a table; columns are those of all rows, in order of appearance.

    Rows that were written before a column appeared are shorter; the engine fills them up.
    """

    path: Path
    name: str

    def write(self, rows: Iterable[Mapping[str, str]], warnings: tuple[str, ...] = ()) -> CsvTable:
        """Write all rows.

        Raises:
            UsageError: there are too many columns.
            StorageError: the table cannot be written.
        """
        columns: dict[str, int] = {}
        present: Counter[str] = Counter()
        count = largest = empty = 0
        with (
            storage_errors("The table could not be written"),
            self.path.open("w", encoding="utf-8", newline="") as output,
        ):
            for row in rows:
                count += 1
                empty += row is _EMPTY
                present.update(row.keys())
                if not row.keys() <= columns.keys():
                    for name in row:
                        columns.setdefault(name, len(columns))
                    self._check(len(columns))
                line = _line(row, columns)
                largest = max(largest, len(line))
                output.write(line + "\n")
        if count and not columns:
            raise UsageError(f"{self.name} has rows without any members.", 'Give objects such as {"text":"…"}.')
        # A source with faults may have no row that can be read; the faults say more.
        columns = columns or {"text": 0}
        whole = count - empty
        partly = [f"{shown(column)} in {whole - present[column]:,}" for column in columns if present[column] < whole]
        if partly:
            more = f" and {len(partly) - 10:,} more columns" if len(partly) > 10 else ""
            warnings += (f"Missing members are treated as empty: {', '.join(partly[:10])}{more}.",)
        return CsvTable(
            self.path,
            tuple(columns),
            ",",
            record_count=count,
            largest_record_bytes=4 * largest,
            warnings=warnings,
            is_spool=True,
        )

    def _check(self, count: int) -> None:
        if count > MAX_COLUMNS:
            raise UsageError(
                f"The rows of {self.name} have more than {MAX_COLUMNS:,} different members.",
                "Give rows that have the same members.",
            )


def _line(row: Mapping[str, str], places: Mapping[str, int]) -> str:
    """Return a row as a record. Only its own members are looked at: of most columns it may have none."""
    parts: list[str] = []
    next_place = 0
    for place, name in sorted((places[name], name) for name in row):
        # One delimiter before each cell but the first, and one for each that is left out.
        parts += ("," * (place - next_place + bool(parts)), quoted(row[name]))
        next_place = place + 1
    return "".join(parts) or '""'


def spool_json_lines(path: Path, workspace: Path, encoding: str = "", *, without: Collection[int] = ()) -> CsvTable:
    """Write the objects of a JSONL file as a table; rows of `without` that are none are empty.

    Raises:
        RequestProblems: lines are no JSON objects.
        UsageError: the file is empty or holds no text.
    """
    text = as_utf8(path, workspace, encoding)
    faults = Faults(without)
    table = Spool(workspace / "rows.csv", path.name).write(_json_lines(text.path, faults), text.warnings)
    faults.raise_any(path.name)
    return table


def spool_json_list(path: Path, workspace: Path, encoding: str = "", *, without: Collection[int] = ()) -> CsvTable:
    """Write the objects of a JSON file, which holds a list of them, as a table; `without` as in `spool_json_lines`.

    Raises:
        RequestProblems: items are no objects, or the JSON breaks off or is wrong somewhere.
        UsageError: the file is empty, is no text, or holds something else than a list.
    """
    text = as_utf8(path, workspace, encoding)
    faults = Faults(without)
    table = Spool(workspace / "rows.csv", path.name).write(_json_list(text.path, path.name, faults), text.warnings)
    faults.raise_any(path.name)
    return table


def spool_text_lines(path: Path, workspace: Path, encoding: str = "") -> CsvTable:
    """Write the lines of a text file as a table with the column `text`; blank lines are left out, and counted.

    Raises:
        RequestProblems: the file holds bytes that are no text, or a line over the limit of one request.
        UsageError: the file is empty.
    """
    text = as_utf8(path, workspace, encoding)
    faults = Faults()
    blank = 0

    def rows() -> Iterator[Mapping[str, str]]:
        nonlocal blank
        for _, line in _lines(text.path, faults):
            if line.strip():
                yield {"text": line.decode("utf-8")}
            else:
                blank += 1

    table = Spool(workspace / "rows.csv", path.name).write(rows(), text.warnings)
    faults.raise_any(path.name)
    if blank:
        plural = " was" if blank == 1 else "s were"
        table = replace(table, warnings=(*table.warnings, f"{blank:,} blank line{plural} left out."))
    return table


def spool_given(rows: Sequence[JsonObject], workspace: Path) -> CsvTable:
    """Write rows that were given in the call as a table; `Problem.line` is the number of a row.

    Raises:
        RequestProblems: a row holds what is no JSON.
        StorageError: the table cannot be written.
    """
    path = workspace / "requests"
    with storage_errors("The rows could not be written"):
        path.write_bytes(b"".join(map(_line_of_row, rows)))
    return spool_json_lines(path, workspace)


def json_row(text: bytes) -> dict[str, str]:
    """Return a JSON object's members as cells: texts as they are, null as empty, all else as it is written.

    Raises:
        JsonFault: it is no JSON object, or a name comes twice.
    """
    try:
        text.decode("utf-8")
        members = _ROW.decode(text)
        compact = len(msgspec.json.encode(members)) == len(text.strip())
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise _fault_of(text) from None
    if not compact and isinstance(value := parse(text), RepeatingObject):
        raise JsonFault(f"gives `{shown(value.repeated[0])}` more than once.", "Keep one of them.")
    return {name: _cell(bytes(member)) for name, member in members.items()}


def _line_of_row(row: JsonObject) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    except UnicodeEncodeError:
        # Half a surrogate pair: written as an escape, it is told with its row.
        return json.dumps(row, separators=(",", ":")).encode() + b"\n"


def _cell(raw: bytes) -> str:
    if raw.startswith(b'"'):
        return _TEXT.decode(raw)
    if b"\\u" in raw:
        raw = _ESCAPE.sub(_character, raw)
    return "" if raw == b"null" else raw.decode("utf-8")


def _character(escape: re.Match[bytes]) -> bytes:
    """Return a character of a nested text as itself, where JSON lets it stand there."""
    if escape[1] is not None:
        return _TEXT.decode(b'"%b"' % escape[0]).encode()
    code = int(escape[2], 16) if escape[2] is not None else 0
    is_kept = code < 0x20 or code in (0x22, 0x5C, 0x7F) or 0xD800 <= code <= 0xDFFF
    return escape[0] if is_kept else chr(code).encode()


def _fault_of(text: bytes) -> JsonFault:
    """Say what is wrong with a row that is no object."""
    try:
        value = parse(text)
    except JsonFault as fault:
        return fault
    if isinstance(value, dict):
        return JsonFault(
            "holds a value that cannot be read, such as NaN.", "Write numbers, texts, true, false or null."
        )
    return JsonFault(f"is {kind(value)}, not an object.", 'Write rows such as {"text":"…"}.')


def _lines(path: Path, faults: Faults) -> Iterator[tuple[int, bytes]]:
    """Yield lines without their ends, with their numbers."""
    number = 0
    with SourceFile(path) as file:
        for piece in pieces(file):
            if isinstance(piece, LongLine):
                number += 1
                message = f"The line has {piece.size_bytes:,} bytes, more than {MAX_LINE_BYTES:,}."
                faults.add(number, message, "Shorten it: a request can't be larger.")
                continue
            if number == 0:
                piece = piece.removeprefix(_BOM)
            for line in split_lines(piece):
                number += 1
                yield number, line.removesuffix(b"\r")


def _json_lines(path: Path, faults: Faults) -> Iterator[Mapping[str, str]]:
    row = 0
    for number, line in _lines(path, faults):
        if not line.strip():
            continue
        row += 1
        try:
            yield json_row(line)
        except JsonFault as fault:
            if faults.is_known(row):
                yield _EMPTY
            else:
                faults.add(number, f"The line {fault.message}", fault.fix, row=row)


def _json_list(path: Path, name: str, faults: Faults) -> Iterator[Mapping[str, str]]:
    """Yield the items of a list, of which only one block and one item are in memory at a time."""
    reader = _ListReader(path, name)
    for row, (item, line) in enumerate(reader.items(), start=1):
        try:
            yield json_row(item.encode("utf-8", "surrogatepass"))
        except JsonFault as fault:
            if faults.is_known(row):
                yield _EMPTY
            else:
                faults.add(line, f"The item that starts here {fault.message}", fault.fix, row=row)


def spool_sheet(path: Path, workspace: Path, sheet: str) -> CsvTable:
    """Write the rows of a workbook's sheet as a table.

    Raises:
        UsageError: it cannot be read, it is not clear which sheet is meant, or its columns cannot be told apart.
        PathError: the file cannot be read.
        StorageError: the table cannot be written.
    """
    spool = workspace / "rows.csv"
    rows = write_sheet(path, spool, sheet=sheet)
    names = [" ".join(cell.split()) for cell in rows.header]
    unnamed = [place for place, name in zip(rows.places, names, strict=True) if not name]
    names = [name or f"column_{place + 1}" for place, name in zip(rows.places, names, strict=True)]
    check_header([name for name, cell in zip(names, rows.header, strict=True) if cell.strip()], path.name)
    check_columns(names, path.name)
    warnings = [
        f"Column {place + 1:,} of {path.name} has no name in the header; it is called column_{place + 1}."
        for place in unnamed[:_MAX_UNNAMED]
    ]
    if len(unnamed) > _MAX_UNNAMED:
        warnings.append(f"{len(unnamed) - _MAX_UNNAMED:,} more columns have no name; each is called by its number.")
    return CsvTable(
        spool,
        tuple(names),
        ",",
        record_count=rows.row_count,
        largest_record_bytes=4 * rows.largest_row_chars,
        warnings=(*warnings, *rows.notes),
        is_spool=True,
    )


class _ListReader:
    """Cuts a JSON list into its items."""

    _SPACE: Final = re.compile(r"[ \t\r\n]*")

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name
        self._text = ""
        self._at = 0
        self._line, self._line_at = 1, 0
        self._ended = False

    def items(self) -> Iterator[tuple[str, int]]:
        """Yield each item as text, with the line that it starts on.

        Raises:
            UsageError: the file holds no list.
            RequestProblems: the JSON is wrong from some line on.
        """
        with TextIOWrapper(buffered(self._path), encoding="utf-8-sig", newline="") as file:
            self._file = file
            if (first := self._next_mark()) != "[":
                what = "one object" if first == "{" else "no list"
                raise UsageError(
                    f"{self._name} holds {what}; it must hold a list of objects.",
                    'Write [{"text":"…"}, …], or give a .jsonl file with one object on each line.',
                )
            self._at += 1
            mark = self._next_mark()
            while mark != "]":
                yield self._item()
                mark = self._next_mark()
                if mark not in (",", "]"):
                    raise self._broken("a comma is missing" if mark else "the list is not closed")
                if mark == ",":
                    self._at += 1
                    if self._next_mark() == "]":
                        raise self._broken("there is an extra comma before ]")
            self._at += 1
            if self._next_mark():
                raise self._broken("something follows the list")

    def _item(self) -> tuple[str, int]:
        decoder = json.JSONDecoder(parse_int=str, parse_float=str)
        wanted = BLOCK_BYTES
        while True:
            try:
                _, end = decoder.raw_decode(self._text, self._at)
            except (json.JSONDecodeError, RecursionError) as error:
                if isinstance(error, RecursionError):
                    raise self._broken("the item is nested too deeply") from None
                is_long = len(self._text) - self._at > MAX_LINE_BYTES
                if self._ended or is_long:
                    what = "the item isn't valid JSON"
                    if is_long:
                        what += f", or has more than {MAX_LINE_BYTES:,} characters"
                    raise self._broken(what, max(error.pos, self._at)) from None
                self._read(wanted)
                wanted *= 2
                continue
            # A number at the end of what was read may go on; objects and texts cannot.
            if end == len(self._text) and not self._ended:
                self._read(wanted)
                continue
            item, line = self._text[self._at : end], self._line_of(self._at)
            self._at = end
            return item, line

    def _next_mark(self) -> str:
        """Return the next character that is no space, empty at the end."""
        while True:
            match = self._SPACE.match(self._text, self._at)
            assert match is not None
            self._at = match.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._read(BLOCK_BYTES)

    def _read(self, size: int) -> None:
        self._line_of(self._at)
        more = self._file.read(size)
        self._ended = not more
        self._text, self._at, self._line_at = self._text[self._at :] + more, 0, 0

    def _line_of(self, position: int) -> int:
        """Return the line of a position; positions only grow."""
        self._line += self._text.count("\n", self._line_at, position)
        self._line_at = position
        return self._line

    def _broken(self, what: str, position: int | None = None) -> RequestProblems:
        line = self._line_of(self._at if position is None else position)
        problem = Problem(line, "", f"The JSON is invalid here: {what}.", "Correct the file from that line on.")
        message = f"{self._name} cannot be read; nothing was submitted."
        return RequestProblems([problem], 1, message, "Correct it, then submit the order again.")
