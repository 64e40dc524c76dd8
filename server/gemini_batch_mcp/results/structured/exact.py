"""Numbers as they were answered, where reading them as 64-bit integers or as doubles would make others of them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite
from typing import Final

import msgspec

from gemini_batch_mcp.domain import Column

#: SQL's pattern of every JSON text in which such a number can stand: 16 digits in a row, one point among them or none,
#: or an exponent. What has 15 significant digits and no exponent is the same number in either type. Most answers hold
#: neither, and are not looked at any further.
LONG_NUMBER: Final = r"[0-9][0-9.]{15}|[0-9][eE][+-]?[0-9]"
_LONG_NUMBER: Final = re.compile(LONG_NUMBER.encode())
_INTEGER: Final = re.compile(r"-?[0-9]+")
_NUMBER: Final = re.compile(r"-?[0-9]")
#: Up to here the engine reads an integer with a point or an exponent as the number that it is.
_EXACT_INTEGER: Final = 2**53
_INT64: Final = range(-(2**63), 2**63)
_MAX_INT64_CHARS: Final = 20
_MAX_DOUBLE_DIGITS: Final = 15


@dataclass(frozen=True, slots=True)
class Tokens:
    """The members of an answer as they stand in it, in the order of the fields; None where the engine reads the same.

    `inexact` are the places of those that the type of their column does not hold.
    """

    texts: tuple[str | None, ...]
    inexact: frozenset[int]


class ExactNumbers:
    """Finds numbers of answers that the columns of its fields would change. The fields have their members' names."""

    def __init__(self, fields: Sequence[Column]) -> None:
        self._fields = fields
        self._decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

    @classmethod
    def of(cls, fields: Sequence[Column]) -> "ExactNumbers | None":
        """Return what looks at these fields, None where none of them can hold a number."""
        return cls(fields) if any(field.type in ("BIGINT", "DOUBLE", "JSON") for field in fields) else None

    def tokens(self, answer: str) -> Tokens | None:
        """Return what of an answer that fits its schema the engine would change, None for nothing."""
        try:
            members = self._decode(answer)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return None  # no object; what is none has no fields
        texts: list[str | None] = []
        inexact: set[int] = set()
        for place, field in enumerate(self._fields):
            raw = bytes(members.get(field.name, b""))
            text = None
            if field.type in ("BIGINT", "DOUBLE", "JSON") and _LONG_NUMBER.search(raw):
                # On one line, as the engine writes the others.
                text = (msgspec.json.format(raw, indent=-1) if field.type == "JSON" else raw).decode()
                if field.type != "JSON" and _NUMBER.match(text) and not _holds(field.type, text):
                    inexact.add(place)
            texts.append(text)
        return Tokens(tuple(texts), frozenset(inexact)) if any(text is not None for text in texts) else None


def _holds(type: str, text: str) -> bool:
    """True where a column of this type has the very number."""
    try:
        if type == "BIGINT":
            if _INTEGER.fullmatch(text):
                return len(text) <= _MAX_INT64_CHARS and int(text) in _INT64
            number = Decimal(text)
            return abs(number) <= _EXACT_INTEGER and number == int(number)
        if _INTEGER.fullmatch(text) and len(text.lstrip("-")) > _MAX_DOUBLE_DIGITS:
            return False  # most likely an id, of which programs that read a double show fifteen digits
        double = float(text)
        return isfinite(double) and Decimal(text) == Decimal(repr(double))
    except ArithmeticError:  # an exponent beyond those of decimals
        return False
