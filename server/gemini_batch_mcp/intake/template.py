r"""Prompts with places for a row's values: `{{column}}`, and `\{{` for two literal braces."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.intake.validator.corrections import nearest, shown

#: Nothing that it has taken is given back, so a text is gone through once, whatever stands in it.
_PLACE: Final = re.compile(r"\\\{\{|\{\{(?:([^{}\r\n]*+)\}\})?")
_SPACES: Final = " \t"
#: Column names that a message lists.
_MAX_LISTED: Final = 30
_MAX_NAME_CHARACTERS: Final = 60


@dataclass(frozen=True, slots=True)
class Column:
    """The place of a row's value, by the column's name as the table has it."""

    name: str


@dataclass(frozen=True, slots=True)
class Template:
    """A text cut at its places. What stands in a cell is inserted as it is and never read for places itself."""

    pieces: tuple[str | Column, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it needs, each once, in order of appearance."""
        return tuple(dict.fromkeys(piece.name for piece in self.pieces if isinstance(piece, Column)))

    @property
    def without_values(self) -> str:
        """The text as it comes out when every cell is empty."""
        return "".join(piece for piece in self.pieces if isinstance(piece, str))


def compile_template(text: str, columns: Sequence[str], argument: str) -> Template:
    """Cut `text` at its places. `argument` is its name in the order, for messages.

    Raises:
        UsageError: a place names no column, or is not closed.
    """
    known = frozenset(columns)
    pieces: list[str | Column] = []
    end = 0
    for place in _PLACE.finditer(text):
        pieces.append(text[end : place.start()])
        end = place.end()
        if place[0].startswith("\\"):
            pieces.append("{{")
        elif place[1] is None:
            raise UsageError(
                f"`{argument}` has {{{{ at character {place.start() + 1} without a column name and }}}} after it.",
                "Write {{column}}, or \\{{ for the two braces themselves.",
            )
        elif (name := place[1].strip(_SPACES)) not in known:
            raise _unknown(name, columns, argument)
        else:
            pieces.append(Column(name))
    pieces.append(text[end:])
    return Template(_joined(pieces))


def places(text: str) -> tuple[str, ...]:
    """Return what stands between braces in `text`, be it a column or not."""
    found = (place for place in _PLACE.finditer(text) if not place[0].startswith("\\"))
    return tuple((place[1] or "").strip(_SPACES) for place in found)


def with_other_names(text: str, names: Mapping[str, str]) -> str:
    """Return a template in which the places of some columns name others: `names` leads from one to the other."""

    def other(place: re.Match[str]) -> str:
        name = names.get((place[1] or "").strip(_SPACES))
        return place[0] if name is None or place[0].startswith("\\") else f"{{{{{name}}}}}"

    return _PLACE.sub(other, text)


def column_named(name: str, columns: Sequence[str], argument: str) -> str:
    """Return the column that an argument names.

    Raises:
        UsageError: there is no such column; the message lists those that there are.
    """
    if name not in columns:
        raise _unknown(name, columns, argument)
    return name


def listed(columns: Sequence[str]) -> str:
    """Return column names for a message, at most `_MAX_LISTED` of them."""
    names = ", ".join(shown(name, _MAX_NAME_CHARACTERS) for name in columns[:_MAX_LISTED])
    more = len(columns) - _MAX_LISTED
    return f"{names} and {more:,} more" if more > 0 else names


def example_place(columns: Sequence[str]) -> str:
    """Return `{{column}}` with a column of the table that can be written so."""
    wanted = ("text", "prompt", "question", "content", "body", "description")
    by_name = [name for name in columns if name.lower() in wanted]
    names = [*by_name, *(name for name in columns if not re.search(r"[{}\r\n]", name)), "column"]
    return "{{" + names[0] + "}}"


def _unknown(name: str, columns: Sequence[str], argument: str) -> UsageError:
    folded = {column.casefold(): column for column in columns}
    # In the table of a batch, a column of its source whose name an answer has taken.
    near = folded.get(name.casefold()) or folded.get(f"source_{name}".casefold()) or nearest(name, columns)
    step = f"Did you mean {shown(near, _MAX_NAME_CHARACTERS)}? " if near else ""
    what = f'names the column "{shown(name)}", which the table does not have' if name else "has {{}} without a name"
    return UsageError(f"`{argument}` {what}.", f"{step}Its columns are: {listed(columns)}.")


def _joined(pieces: Iterable[str | Column]) -> tuple[str | Column, ...]:
    """Return the pieces with neighbouring texts made one and empty ones left out."""
    joined: list[str | Column] = []
    for is_place, group in groupby(pieces, key=lambda piece: isinstance(piece, Column)):
        neighbours = list(group)
        joined += neighbours if is_place else ["".join(map(str, neighbours))]
    return tuple(piece for piece in joined if piece != "")
