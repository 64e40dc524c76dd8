"""The inside of an .ods file: what cells hold that the reader drops, or gives as the file writes it."""

import html
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

_BLOCK_BYTES: Final = 1 << 20
#: Most that one element's beginning may take: a formula stands in it.
_MAX_TAG_BYTES: Final = 1 << 20
_SHEET: Final = rb'<table:table\s[^>]*?table:name="([^"]*)"'
#: A cell over rows; one with an error, as LibreOffice marks it; a time that the reader gives as it is written, because
#: it is none of the day.
_RARE: Final = (
    rb'number-rows-spanned="(?:[2-9]|[1-9]\d)',
    rb'calcext:value-type="(error)"',
    rb'office:time-value="(?!PT(?:[01]\d|2[0-3])H[0-5]\dM[0-5]\d(?:\.\d+)?S")([^"]*)"',
)
_SHEETS: Final = re.compile(_SHEET)
_RARE_ONES: Final = tuple(map(re.compile, _RARE))
_ALL: Final = re.compile(b"|".join((_SHEET, *_RARE)))
_DURATION: Final = re.compile(r"(-?)P(?:(\d{1,6})D)?(?:T(?:(\d{1,8})H)?(?:(\d{1,8})M)?(?:(\d{1,8}(?:[.,]\d+)?)S)?)?")


@dataclass(slots=True)
class SeenInOds:
    """What was seen of a sheet; `durations` by what the reader gives in their place."""

    errors: int = 0
    has_cells_over_rows: bool = False
    durations: dict[str, timedelta] = field(default_factory=dict)


def look_into(path: Path, title: str) -> SeenInOds:
    """Read a sheet's XML for what its reader does not tell."""
    seen, is_meant = SeenInOds(), False
    for name, error, time, told in _told(path):
        if told.startswith(b"<"):
            is_meant = html.unescape(name.decode("utf-8", "replace")) == title
        elif not is_meant:
            continue
        elif error:
            seen.errors += 1
        elif time:
            written = time.decode("utf-8", "replace")
            if found := _DURATION.fullmatch(written):
                seen.durations[written] = _duration(*found.groups())
        else:
            seen.has_cells_over_rows = True
    return seen


def _told(path: Path) -> Iterator[tuple[bytes, bytes, bytes, bytes]]:
    """Yield what is found: a sheet's name, an error, a time, each empty where it is another, and how it is written."""
    with zipfile.ZipFile(path) as archive, archive.open("content.xml") as file:
        data = b""
        while block := file.read(_BLOCK_BYTES):
            data += block
            # An element may have been cut by the block.
            end = data.rfind(b"<") if len(data) < _BLOCK_BYTES + _MAX_TAG_BYTES else len(data)
            yield from _found(data[:end])
            data = data[end:]
        yield from _found(data)


def _found(data: bytes) -> Iterator[tuple[bytes, bytes, bytes, bytes]]:
    # One after the other takes a third of the time of all at once, and most blocks have none.
    is_rare = any(pattern.search(data) for pattern in _RARE_ONES)
    for found in (_ALL if is_rare else _SHEETS).finditer(data):
        name, error, time = (*found.groups(b""), b"", b"")[:3]
        yield name, error, time, found[0]


def _duration(sign: str, days: str | None, hours: str | None, minutes: str | None, seconds: str | None) -> timedelta:
    length = timedelta(
        days=int(days or 0),
        hours=int(hours or 0),
        minutes=int(minutes or 0),
        seconds=float((seconds or "0").replace(",", ".")),
    )
    return -length if sign else length
