"""The wire schema as typed values: what `_messages.py` says, parsed once, and the two spellings of every name.

Members may be written in lowerCamel or snake_case, as proto-JSON allows at every level.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Final, Literal

import msgspec

from gemini_batch_mcp.domain import Task
from gemini_batch_mcp.intake.validator._messages import MESSAGES, ONE_OF, VERTEX_ONLY
from gemini_batch_mcp.intake.validator.enums import ENUMS, STRING_ENUMS
from gemini_batch_mcp.json_members import snake_case

Shape = Literal["one", "list", "map"]

#: Type names that are no message and no enum.
SCALARS: Final = frozenset(
    {"string", "bool", "bytes", "duration", "timestamp", "int32", "int64", "float", "double", "struct", "value"}
)
#: Whole numbers a member can hold, by type.
INTEGER_RANGES: Final[Mapping[str, tuple[int, int]]] = MappingProxyType(
    {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}
)
#: Largest finite value, by type. `double` covers the numbers inside `struct` and `value` too.
FLOAT_LIMITS: Final[Mapping[str, float]] = MappingProxyType(
    {"float": 3.4028234663852886e38, "double": 1.7976931348623157e308}
)
DURATION: Final = r"^-?[0-9]{1,12}(\.[0-9]{1,9})?s$"
TIMESTAMP: Final = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})$"
)

_BASE64: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_"
#: Below the size for which the C library asks the system for new memory.
_SLICE_BYTES: Final = 1 << 16
_SHAPES: Final[Mapping[str, Shape]] = MappingProxyType({"[]": "list", "{}": "map", "": "one"})
_NOTATION: Final = re.compile(r"(\w+)(\[\]|\{\})?(?: (-?\d*)\.\.(\d*))?( !)?")


@dataclass(frozen=True, slots=True)
class Field:
    """One member of a message. `low` and `high` bound a number's value, or a list's length."""

    name: str
    snake_name: str
    type: str
    shape: Shape = "one"
    required: bool = False
    low: int | None = None
    high: int | None = None

    @property
    def is_enum(self) -> bool:
        """True when the value (or each item) is one of `ENUMS[type]`."""
        return self.type in ENUMS

    @property
    def is_message(self) -> bool:
        """True when the value (or each item) is an object described by `message(type)`."""
        return self.type in MESSAGES


@dataclass(frozen=True, slots=True)
class Message:
    """One kind of JSON object. `fields` is keyed by lowerCamel name, `spellings` by every accepted name."""

    name: str
    fields: Mapping[str, Field]
    spellings: Mapping[str, Field]
    one_of: tuple[str, ...] = ()
    vertex_only: frozenset[str] = frozenset()

    @property
    def title(self) -> str:
        """The message's name in Google's reference, for people to read."""
        return {"Instruction": "Content", "Empty": "an empty object"}.get(self.name, self.name)

    @property
    def required(self) -> tuple[Field, ...]:
        """The members that must be there."""
        return tuple(field for field in self.fields.values() if field.required)


def parse_field(name: str, notation: str) -> Field:
    """Read one entry of the table.

    Raises:
        ValueError: the notation is none that the table's docstring describes, or names an unknown type.
    """
    match = _NOTATION.fullmatch(notation)
    if match is None or not (match[1] in SCALARS or match[1] in MESSAGES or match[1] in ENUMS):
        raise ValueError(f"{name}: {notation!r} is not a known type")
    return Field(
        name=name,
        snake_name=snake_case(name),
        type=match[1],
        shape=_SHAPES[match[2] or ""],
        required=bool(match[5]),
        low=int(match[3]) if match[3] else None,
        high=int(match[4]) if match[4] else None,
    )


@cache
def message(name: str) -> Message:
    """Return the message of that name out of the table."""
    fields = {key: parse_field(key, notation) for key, notation in MESSAGES[name].items()}
    spellings = {field.snake_name: field for field in fields.values()} | fields
    return Message(name, fields, spellings, ONE_OF.get(name, ()), VERTEX_ONLY.get(name, frozenset()))


def request_message(task: Task) -> Message:
    """Return the message that a line's `request` holds."""
    return message("GenerateContentRequest" if task == "generate" else "EmbedContentRequest")


def enum_accepts_numbers(name: str) -> bool:
    """True when proto-JSON's integer form is accepted for this enum."""
    return name not in STRING_ENUMS


def whole_number(value: object) -> int | None:
    """Read an integer as proto-JSON does: 7, 7.0, 1e4 and "7"; None for what is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,20}", value):
        return int(value)
    return None


def is_base64(text: str) -> bool:
    """True for what proto-JSON takes as bytes: either alphabet of base64, with or without padding."""
    try:
        return _is_base64_literal(b'"%b"' % text.encode("ascii"))
    except UnicodeEncodeError:
        return False


def is_base64_json(raw: msgspec.Raw) -> bool:
    """True for a JSON string, as it stands in a line, whose text `is_base64`."""
    if _is_base64_literal(memoryview(raw)):
        return True
    literal = bytes(raw)
    # Some writers escape "/" or "+", which is JSON too.
    return literal.startswith(b'"') and b"\\" in literal and is_base64(msgspec.json.decode(literal, type=str))


def _is_base64_literal(literal: bytes | memoryview) -> bool:
    left = _without_base64(literal)
    if left not in (b'""', b'"="', b'"=="') or bytes(literal[-len(left) + 1 :]) != left[1:]:
        return False
    padding, size = len(left) - 2, len(literal) - 2
    return (size - padding) % 4 != 1 and (size % 4 == 0 or not padding)


def _without_base64(literal: bytes | memoryview) -> bytes:
    """Return the characters that are of neither alphabet; four times as fast as `re` or `binascii` (measured)."""
    if len(literal) <= _SLICE_BYTES:
        return bytes(literal).translate(None, _BASE64)
    slices = (literal[start : start + _SLICE_BYTES] for start in range(0, len(literal), _SLICE_BYTES))
    return b"".join(bytes(part).translate(None, _BASE64) for part in slices)
