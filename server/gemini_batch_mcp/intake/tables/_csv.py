"""What a CSV or TSV file is: its delimiter, its escapes, its header, and how many records it must yield.

The engine that reads the table gets all of this told; its own guessing drops rows that do not fit the guess. With
`sniff_csv` choosing the delimiter, 5 of our 319 tests of sources fail; all by itself the engine misreads or refuses 7
of 25 usual dialects (a `sep=` line, decimal commas, ragged rows, …); clevercsv misreads 3, and its search for links
did not end within two minutes on a hostile file. Neither counts records, which is most of what is here.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Final

from gemini_batch_mcp.errors import UsageError, storage_errors
from gemini_batch_mcp.intake.opened import SourceFile
from gemini_batch_mcp.intake.tables.text_files import BLOCK_BYTES, COPY_FAILED, as_utf8
from gemini_batch_mcp.intake.validator.corrections import shown
from gemini_batch_mcp.settings import MAX_LINE_BYTES

#: Most columns of a table: what a spreadsheet can hold.
MAX_COLUMNS: Final = 16_384
#: Columns without a name that a warning each is for.
_MAX_UNNAMED: Final = 10
_SAMPLE_BYTES: Final = 1 << 20
_SAMPLE_RECORDS: Final = 500
_BOM: Final = b"\xef\xbb\xbf"
_DELIMITERS: Final = (",", ";", "\t", "|")
#: Stands where a file has one column: no text holds it.
_NO_DELIMITER: Final = "\x1f"
_SEPARATOR_LINE: Final = re.compile(rb"(?:\xef\xbb\xbf)?sep=(.)\r?\n?", re.IGNORECASE)
_LINE: Final = re.compile(rb"[^\r\n]*(?:\r\n|\n|\r)")
#: Two bytes for each of the longest request: a cell of quotes.
_MAX_CELL_BYTES: Final = 2 * MAX_LINE_BYTES
_SHOWN_CELL_BYTES: Final = 60
_NO_LINE_ENDS: Final = bytes(set(range(256)) - set(b"\r\n"))
_NO_MARKS: Final = bytes(set(range(256)) - set(b'"\r\n'))
_NUMBER_OR_DATE: Final = re.compile(r"[-+]?[0-9][0-9.,:/ T%-]*Z?")


@dataclass(frozen=True, slots=True)
class CsvTable:
    """A CSV file that is UTF-8, and how to read it.

    `skip_lines` stand before the header. A spool is a table that this room wrote: without a header, each cell in
    quotes, rows may end early, and it is known how many there are and how large the largest is.
    """

    path: Path
    columns: tuple[str, ...]
    delimiter: str
    escape: str = '"'
    skip_lines: int = 0
    record_count: int = 0
    largest_record_bytes: int = 0
    has_separator_line: bool = False
    warnings: tuple[str, ...] = ()
    is_spool: bool = False


@dataclass(frozen=True, slots=True)
class Survey:
    """What a quick look at a whole file tells: how many records it has, and that none is larger than so many bytes."""

    record_count: int
    most_record_bytes: int


@dataclass(slots=True)
class Record:
    """A row of a CSV file as it stands there. `filled` is the number of its last cell that holds something.

    `number` counts rows from 1 where it is known; `open_cell` is the first cell with a quote at the wrong place.
    """

    position: int
    number: int = 0
    size_bytes: int = 0
    cells: int = 0
    filled: int = 0
    open_cell: bytes = b""

    @property
    def has_open_quote(self) -> bool:
        """True when a quote is not closed, or text follows the closing one: then it is not sure where the row ends."""
        return bool(self.open_cell)

    @property
    def is_blank(self) -> bool:
        """True for a line with nothing in it, not even quotes."""
        return self.cells == 1 and self.size_bytes <= len(b"\r\n") and not self.filled

    def add(self, match: re.Match[bytes]) -> None:
        """Add a cell with what ends it."""
        self.size_bytes += match.end() - match.start()
        self.cells += 1
        if match[1] or match[2]:
            self.filled = self.cells
            if not self.open_cell and match[1] is None and match[2].startswith(b'"'):
                self.open_cell = match[2][:_SHOWN_CELL_BYTES]


@dataclass(slots=True)
class _Ends:
    """Line ends outside of quotes."""

    crlf: int = 0
    lf: int = 0
    cr: int = 0
    blank: int = 0
    last_ends: bool = False
    #: Bytes of blocks that follow each other without a line end, where there are the most.
    largest_gap_bytes: int = 0

    @property
    def count(self) -> int:
        """All of them."""
        return self.crlf + self.lf + self.cr

    @property
    def kinds(self) -> int:
        return bool(self.crlf) + bool(self.lf) + bool(self.cr)

    def add(self, outside: bytes) -> None:
        """Count the line ends of bytes that are all outside of quotes."""
        crlf = outside.count(b"\r\n")
        self.crlf += crlf
        self.lf += outside.count(b"\n") - crlf
        self.cr += outside.count(b"\r") - crlf


def open_csv(path: Path, workspace: Path, *, first_delimiter: str = ",", encoding: str = "") -> CsvTable:
    """Find out how to read a CSV or TSV file. Copies into `workspace` what cannot be read as it is.

    Of delimiters that fit equally well it takes the first, which is `first_delimiter`. `encoding` as in `as_utf8`.

    Raises:
        UsageError: the file is empty, is no text, or has no header that can be used.
        RequestProblems: the file holds bytes that are no text.
        PathError: the file cannot be read.
    """
    text = as_utf8(path, workspace, encoding)
    source = text.path
    warnings = list(text.warnings)
    if _may_mix(source) and _line_ends(source).kinds > 1:
        source = _with_line_feeds(source, workspace)
        warnings.append("Different kinds of line ends were treated alike.")
    with SourceFile(source) as file:
        sample = file.read(_SAMPLE_BYTES)
        whole = not file.read(1)
    skip_lines, start, named = _before_header(sample)
    head = sample[start:].removeprefix(_BOM) if not start else sample[start:]
    body = head.decode("utf-8", "ignore")
    marks = (named,) if named else (first_delimiter, *(mark for mark in _DELIMITERS if mark != first_delimiter))
    escape = '"'
    if re.search(r'[^\\]\\"', body) and _fits(body, whole, marks, "\\") > _fits(body, whole, marks, '"'):
        escape = "\\"
    delimiter = named or _delimiter(body, whole, marks, escape)
    header = next(_records(body, delimiter, escape, whole), None)
    if header is None:
        raise UsageError(
            f"{path.name} has no header within its first megabyte.", "Start it with a line of column names."
        )
    columns = _columns(header, path.name, warnings)
    return CsvTable(
        source, columns, delimiter, escape, skip_lines, has_separator_line=bool(named), warnings=tuple(warnings)
    )


def survey(table: CsvTable) -> Survey:
    """Count the records by line ends outside of quotes; fast, and right unless quotes stand inside of plain cells."""
    if table.is_spool:
        return Survey(table.record_count, table.largest_record_bytes)
    ends = _line_ends(table.path)
    lines = ends.count + (not ends.last_ends)
    # Blank lines before the header are counted as blank already, a `sep=` line is not.
    return Survey(lines - ends.blank - 1 - table.has_separator_line, ends.largest_gap_bytes + 2 * BLOCK_BYTES)


class SurveyOnce:
    """The survey of a file that is made once, whoever asks first."""

    def __init__(self, csv: CsvTable) -> None:
        self._csv = csv
        self._lock = Lock()
        self._seen: Survey | None = None

    def look(self) -> Survey:
        """Return the survey. Raises PathError when the file cannot be read."""
        with self._lock:
            if self._seen is None:
                self._seen = survey(self._csv)
            return self._seen


def count_records(table: CsvTable) -> int:
    """Count the records by walking every cell; slow, and independent of the engine. The header is not counted."""
    return sum(not record.is_blank for record in _walk(table)) - 1


def misfits(table: CsvTable, most_bytes: int) -> Iterator[Record]:
    """Yield the records that the header does not fit, that have a quote at the wrong place, or more than `most_bytes`.

    Cells beyond the header do no harm as long as they are empty.
    """
    width, number = len(table.columns), 0
    for record in islice(_walk(table), 1, None):
        number += not record.is_blank
        fits = record.filled <= width <= record.cells
        if not record.is_blank and (not fits or record.has_open_quote or record.size_bytes > most_bytes):
            record.number = number
            yield record


def _walk(table: CsvTable) -> Iterator[Record]:
    """Yield every record, the header too. Not over a map of the file: one that is cut short then ends the process."""
    delimiter = table.delimiter.encode()
    cell, whole, is_open = _patterns(table)
    data, base, position, skip_lines = b"", 0, 0, table.skip_lines
    record: Record | None = None
    with SourceFile(table.path) as file:
        at_end = False
        while not at_end:
            block = file.read(BLOCK_BYTES)
            at_end = not block
            base += position
            data, position = data[position:] + block, 0
            while skip_lines and (line := _LINE.match(data, position)):
                position, skip_lines = line.end(), skip_lines - 1
            while position < len(data):
                if record is None:
                    record = Record(base + position)
                    # A record as the header wants it is one step.
                    if (match := whole.match(data, position)) and (at_end or match.end() < len(data)):
                        record.cells = record.filled = len(table.columns)
                        record.size_bytes = match.end() - position
                        position = match.end()
                        yield record
                        record = None
                        continue
                match = cell.match(data, position)
                assert match is not None
                # What reaches the end of a block may go on in the next one, and so may quotes that are still open.
                if not at_end and (match.end() == len(data) or _goes_on(data, position, match, is_open)):
                    break
                record.add(match)
                position = match.end()
                if match[3] != delimiter:
                    yield record
                    record = None
    if record is not None:
        # The file ends with a delimiter: an empty cell follows it.
        record.cells += 1
        yield record


def _patterns(table: CsvTable) -> tuple[re.Pattern[bytes], re.Pattern[bytes], re.Pattern[bytes]]:
    """Return the patterns of a cell with what ends it, of a record with as many cells as the header, of open quotes."""
    mark, inside = re.escape(table.delimiter), _inside(table.escape)
    right = rf'(?:"{inside}"(?=[{mark}\r\n]|\Z)|[^"{mark}\r\n][^{mark}\r\n]*+|)'
    whole = rf"(?:{right}{mark}){{{len(table.columns) - 1}}}{right}(?:\r\n|\n|\r|\Z)"
    ended = _cell(mark, table.escape) + rf"({mark}|\r\n|\n|\r|\Z)"
    is_open = f'"{inside}["\\\\]?'
    cell, record, quotes = (re.compile(pattern.encode(), re.DOTALL) for pattern in (ended, whole, is_open))
    return cell, record, quotes


def _goes_on(data: bytes, position: int, match: re.Match[bytes], is_open: re.Pattern[bytes]) -> bool:
    """True for a cell that was taken for a plain one because its closing quote has not been read yet."""
    return (
        match[1] is None
        and data.startswith(b'"', position)
        and len(data) - position <= _MAX_CELL_BYTES
        and is_open.fullmatch(data, position) is not None
    )


def quoted(cell: str) -> str:
    """Return a cell as the copies of this room write it: always in quotes."""
    return '"' + cell.replace('"', '""') + '"'


def check_header(names: Sequence[str], name: str) -> None:
    """Refuse a header that is none.

    Raises:
        UsageError: no column has a name, or all names are numbers or dates.
    """
    if not any(names):
        raise UsageError(f"{name} has a header with only empty names.", "Name the columns in the first line.")
    if all(_NUMBER_OR_DATE.fullmatch(cell) for cell in names if cell):
        example = shown(", ".join(names), 40)
        raise UsageError(
            f"{name} has no header: its first line is {example}.", "Put the column names in the first line."
        )


def check_columns(columns: Sequence[str], name: str) -> None:
    """Refuse column names that cannot be told apart.

    Raises:
        UsageError: there are too many, or two are the same.
    """
    if len(columns) > MAX_COLUMNS:
        raise UsageError(f"{name} has {len(columns):,} columns, more than {MAX_COLUMNS:,}.", "Remove some.")
    repeated = [column for column, count in Counter(columns).items() if count > 1]
    if repeated:
        names = ", ".join(shown(column) for column in repeated[:10])
        raise UsageError(f"{name} has more than one column named {names}.", "Give each column a unique name.")


def _line_ends(path: Path) -> _Ends:
    """Count line ends outside of quotes; quotes come in pairs, those that stand for themselves included."""
    ends = _Ends()
    inside = False
    before = b"\n"
    gap = ends_before = 0
    with SourceFile(path) as file:
        while block := file.read(BLOCK_BYTES):
            while block.endswith(b"\r") and (more := file.read(1)):
                block += more
            # Nothing but quotes and line ends matters, a tenth of the bytes, as long as there is no blank line.
            marks = block.translate(None, _NO_MARKS)
            start = _blank_line_start(marks)
            if start in before + block[:1] or start in block:
                inside = _add_ends(ends, block, inside, before)
            else:
                pieces = marks.split(b'"')
                ends.add(b"".join(pieces[inside::2]))
                inside ^= len(pieces) % 2 == 0
            before = b" " if inside else block[-1:]
            gap = gap + len(block) if ends.count == ends_before else 0
            ends.largest_gap_bytes = max(ends.largest_gap_bytes, gap)
            ends_before = ends.count
    ends.last_ends = before in (b"\n", b"\r")
    return ends


def _blank_line_start(marks: bytes) -> bytes:
    """Return how a blank line starts in text with these line ends, which are all of one kind outside of quotes."""
    if b"\r" not in marks:
        return b"\n\n"
    return b"\n\r" if b"\n" in marks else b"\r\r"


def _add_ends(ends: _Ends, block: bytes, inside: bool, before: bytes) -> bool:
    """Count the line ends and blank lines of a block; return whether it ends inside quotes."""
    pieces = block.split(b'"')
    # Where quoted text was cut out, a quote stays: a line that is one quoted cell is no blank line.
    outside = (b'"' if inside else b"") + b'"'.join(pieces[inside::2])
    inside ^= len(pieces) % 2 == 0
    ends.add(outside)
    plain = ((b"\n" if before in (b"\n", b"\r") else b" ") + outside).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    ends.blank += len(re.findall(rb"(?<=\n)\n", plain))
    return inside


def _may_mix(path: Path) -> bool:
    """True when line ends of more than one kind occur, be it inside of quotes."""
    line_feeds = returns = pairs = 0
    before = b""
    with SourceFile(path) as file:
        while block := file.read(BLOCK_BYTES):
            pairs += before == b"\r" and block.startswith(b"\n")
            before = block[-1:]
            if b"\r" in block:
                marks = block.translate(None, _NO_LINE_ENDS)
                line_feeds += marks.count(b"\n")
                returns += marks.count(b"\r")
                pairs += block.count(b"\r\n")
            else:
                # The first byte may belong to a return; one line feed more is as good as all of them, and quicker.
                line_feeds += block.startswith(b"\n") + (block.find(b"\n", 1) >= 0)
    return not (returns == 0 or line_feeds == 0 or returns == line_feeds == pairs)


def _with_line_feeds(path: Path, workspace: Path) -> Path:
    """Write a copy in which every line outside of quotes ends in LF."""
    copy = workspace / f"{path.stem[:40]}.lines{path.suffix}"
    inside = False
    with storage_errors(COPY_FAILED), SourceFile(path) as file, copy.open("wb") as output:
        while block := file.read(BLOCK_BYTES):
            while block.endswith(b"\r") and (more := file.read(1)):
                block += more
            pieces = block.split(b'"')
            pieces[inside::2] = [part.replace(b"\r\n", b"\n").replace(b"\r", b"\n") for part in pieces[inside::2]]
            inside ^= len(pieces) % 2 == 0
            output.write(b'"'.join(pieces))
    return copy


def _before_header(sample: bytes) -> tuple[int, int, str]:
    """Return how many lines and bytes stand before the header, and the delimiter that a `sep=` line names."""
    skipped = start = 0
    delimiter = ""
    if match := _SEPARATOR_LINE.match(sample):
        skipped, start, delimiter = 1, match.end(), match[1].decode("ascii", "ignore")
    blank = re.compile(rb"(?:\xef\xbb\xbf)?[ \t]*(?:\r\n|\n|\r)")
    while match := blank.match(sample, start):
        skipped, start = skipped + 1, match.end()
    return skipped, start, delimiter


def _cell(delimiter: str, escape: str) -> str:
    """Return the pattern of one cell: in quotes, or up to the next delimiter or line end."""
    return rf'(?:"({_inside(escape)})"(?=[{delimiter}\r\n]|\Z)|([^{delimiter}\r\n]*+))'


def _inside(escape: str) -> str:
    """Return the pattern of what may stand between quotes; what it has taken it does not give back."""
    return r'[^"]*+(?:""[^"]*+)*+' if escape == '"' else r'[^"\\]*+(?:\\.[^"\\]*+)*+'


def _records(text: str, delimiter: str, escape: str, whole: bool) -> Iterator[list[str]]:
    """Yield the records of a sample, blank lines left out, the last one too when the sample may cut it."""
    mark = re.escape(delimiter)
    pattern = re.compile(_cell(mark, escape) + rf"({mark}|\r\n|\n|\r|\Z)", re.DOTALL)
    position = 0
    record: list[str] = []
    while position < len(text) and (match := pattern.match(text, position)):
        position = match.end()
        record.append(match[2] if match[1] is None else _unescaped(match[1], escape))
        if match[3] == delimiter:
            continue
        if not match[3] and not whole:
            return
        if record != [""]:
            yield record
        record = []
    if record and whole:
        yield [*record, ""]


def _unescaped(cell: str, escape: str) -> str:
    return cell.replace('""', '"') if escape == '"' else re.sub(r"\\(.)", r"\1", cell, flags=re.DOTALL)


def _consistency(text: str, whole: bool, delimiter: str, escape: str) -> tuple[float, int]:
    """Return which part of the records has as many cells as the header, and how many cells that are."""
    widths = [len(record) for record in islice(_records(text, delimiter, escape, whole), _SAMPLE_RECORDS)]
    if not widths or widths[0] < 2:
        return 0.0, 0
    return widths.count(widths[0]) / len(widths), widths[0]


def _fits(text: str, whole: bool, marks: Sequence[str], escape: str) -> float:
    """Return how well the best delimiter fits with this escape."""
    return max(_consistency(text, whole, mark, escape)[0] for mark in marks)


def _delimiter(text: str, whole: bool, marks: Sequence[str], escape: str) -> str:
    """Return the delimiter by which most records have as many cells as the header."""
    best, found = (0.0, 0), _NO_DELIMITER
    for mark in marks:
        if (fit := _consistency(text, whole, mark, escape)) > best:
            best, found = fit, mark
    return found


def _columns(header: Sequence[str], name: str, warnings: list[str]) -> tuple[str, ...]:
    """Return the column names of a header record, with names for those that have none.

    Raises:
        UsageError: they are no names, or cannot be told apart.
    """
    names = [" ".join(cell.split()) for cell in header]
    check_header(names, name)
    unnamed = [number for number, cell in enumerate(names, 1) if not cell]
    for number in unnamed:
        names[number - 1] = f"column_{number}"
    check_columns(names, name)
    warnings += [
        f"Column {number} of {name} has no name in the header; it is named column_{number}."
        for number in unnamed[:_MAX_UNNAMED]
    ]
    if len(unnamed) > _MAX_UNNAMED:
        more = f"{len(unnamed) - _MAX_UNNAMED:,} more columns of {name} have no name in the header"
        warnings.append(f"{more}; each is named by its number, such as column_{unnamed[-1]}.")
    return tuple(names)
