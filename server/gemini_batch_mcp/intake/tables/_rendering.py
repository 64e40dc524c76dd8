"""Lines rendered row by row, outside of the engine: as it renders them, in the memory of one row.

The engine works on 2,048 rows at a time, each with all of its copies: a column of 15 kB that a prompt names a hundred
times took 4.3 GB. Here it takes a hundredth, and more time where rows are small.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO, Final

from gemini_batch_mcp.intake.tables.sql import MARK, LineForm, Marked, Piece, RowKey, json_inside
from gemini_batch_mcp.intake.template import Column

Cells = Sequence[str]

_LONG_BYTES: Final = 4 << 20
_SEPARATOR: Final = "\x1f"


def columns_of(form: LineForm) -> tuple[str, ...]:
    """Return the columns that lines of a form are made of, each once."""
    return tuple(dict.fromkeys(column for piece in form if not isinstance(piece, str) for column in _columns(piece)))


def uses_of(form: LineForm) -> int:
    """Return how often the column stands in a line that stands there most often."""
    places = [
        part.name for piece in form if not isinstance(piece, str | Marked | RowKey) for part in piece.pieces
        if isinstance(part, Column)
    ]  # fmt: skip
    return max((places.count(name) for name in dict.fromkeys(places)), default=0)


def constant_chars(form: LineForm) -> int:
    """Return how many characters of a line are the same in all lines."""
    return sum(
        len(piece) if isinstance(piece, str) else 0 if isinstance(piece, Marked | RowKey) else len(piece.without_values)
        for piece in form
    )


class Renderer:
    """Renders rows of a form. Cells come in the order of `columns`."""

    def __init__(self, form: LineForm) -> None:
        self.columns = columns_of(form)
        places = {name: place for place, name in enumerate(self.columns)}
        self._parts = [part for piece in form for part in _parts(piece, places)]
        #: How often each column's escaped text stands in a line.
        self._uses = [self._parts.count(place) for place in range(len(self.columns))]
        self._constant_bytes = sum(len(part.encode()) for part in self._parts if isinstance(part, str))

    def size_bytes(self, cells: Cells) -> int:
        """Return about how many bytes a row's line has, without making it: within the size of its key."""
        return self._constant_bytes + sum(
            uses * len(cell.encode()) for uses, cell in zip(self._uses, cells, strict=False) if uses
        )

    def write(self, number: int, cells: Cells, file: BinaryIO) -> None:
        """Write the line of a row; rows count from 1. A long one goes out piece by piece."""
        escaped = [json_inside(cell) for cell in cells]
        pieces = (
            part if isinstance(part, str) else escaped[part] if isinstance(part, int) else part(number, cells)
            for part in self._parts
        )
        if self.size_bytes(cells) > _LONG_BYTES:
            for piece in pieces:
                file.write(piece.encode())
        else:
            file.write("".join(pieces).encode())
        file.write(b"\n")


def _columns(piece: Piece) -> Sequence[str]:
    if isinstance(piece, str):
        return ()
    return (piece.column,) if isinstance(piece, Marked) else piece.columns


def _parts(piece: Piece, places: Mapping[str, int]) -> list[str | int | Callable[[int, Cells], str]]:
    """Return what a piece is made of: text as it stands, the escaped cell of that number, or what makes a text."""
    match piece:
        case str():
            return [piece]
        case Marked():
            mark = MARK.decode()
            return [f'{mark}"', places[piece.column], f'"{mark}']
        case RowKey():
            return ['"', _key_of([places[column] for column in piece.columns]), '"']
        case _:
            texts = [places[part.name] if isinstance(part, Column) else json_inside(part) for part in piece.pieces]
            return ['"', *texts, '"']


def _key_of(places: Sequence[int]) -> Callable[[int, Cells], str]:
    def key(number: int, cells: Cells) -> str:
        content = _SEPARATOR.join(cells[place] for place in places)
        return f"row-{number:06d}-{hashlib.md5(content.encode(), usedforsecurity=False).hexdigest()[:8]}"

    return key
