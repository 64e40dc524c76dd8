"""Fast decoders, built from the wire schema: a line that one of them takes is right, and nothing is looked at again.

They are narrower than the API: whatever they do not take goes to the exact (slow) check in `walk.py`. That is what
keeps them simple: schemas are followed to a fixed depth, and numbers in strings are left to the slow check.

One thing they do not see: a member given twice inside a request. Both values are right then, and the last one counts;
seeing it would cost several times as much as everything else. Two keys on one line are seen (`requests/lines.py`).
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from operator import attrgetter
from types import GenericAlias
from typing import Annotated, Any, Final, Literal, NamedTuple, Protocol, cast

import msgspec
from msgspec import Meta

from gemini_batch_mcp.domain import Task
from gemini_batch_mcp.intake.validator.enums import ENUMS
from gemini_batch_mcp.intake.validator.terms import PRICED, Terms, struct_terms
from gemini_batch_mcp.intake.validator.wire_schema import (
    DURATION,
    FLOAT_LIMITS,
    INTEGER_RANGES,
    TIMESTAMP,
    Field,
    Message,
    enum_accepts_numbers,
    is_base64,
    is_base64_json,
    message,
    request_message,
)

#: Longest key, in characters (our choice: the API states no limit, and keys come back in every result line).
MAX_KEY_CHARACTERS: Final = 1024
#: Schemas inside schemas that the fast decoders follow.
_SCHEMA_DEPTH: Final = 8
#: Levels of free JSON that the fast decoders take; `walk.MAX_DEPTH` less what can stand around it.
_FREE_DEPTH: Final = 80

#: Members of a request that may not go together, or not with its model.
SETTINGS: Final = ("generationConfig", "tools", "toolConfig", "cachedContent", "systemInstruction")
#: Members of a part that is text and nothing else.
_TEXT_PART: Final = frozenset({"text", "thought"})

_SMALLEST, _LARGEST = INTEGER_RANGES["int32"]

#: msgspec takes types that are put together at run time; no static type describes them.
_TypeForm = Any
#: Looks at a decoded object once more; raises ValueError.
_Rule = Callable[[Any], None]


class Flavour(NamedTuple):
    """What one decoder takes: one spelling for each member, and parts of text only or of every kind.

    Narrow decoders are fast ones: taking both spellings would cost 1 µs for every object that has such members, and
    parts of every kind cost 0.3 µs each (measured, CPython 3.11). `switched` holds (message, member) names that are
    spelled the other way; the Python SDK writes such mixtures. `is_plain` requests hold texts only and nothing else
    that a price depends on, so that nothing has to be read out of them. `needs_role` takes no turn without a role.
    """

    spelling: Literal["camel", "snake"]
    switched: frozenset[tuple[str, str]]
    text_only: bool
    is_plain: bool = False
    needs_role: bool = False


def flavour_of(request: dict[str, Any], task: Task, *, needs_role: bool = False) -> Flavour:
    """Return the flavour of a request that is known to be right."""
    seen = _Seen()
    wanted = request_message(task)
    seen.object(request, wanted)
    is_plain = seen.text_only and not any(wanted.spellings[name].name in PRICED for name in request)
    if seen.snake and not seen.camel:
        return Flavour("snake", frozenset(), seen.text_only, is_plain, needs_role)
    return Flavour("camel", frozenset(seen.snake), seen.text_only, is_plain, needs_role)


class _Seen:
    """Which spellings a request uses for names that have two, as (message, member)."""

    def __init__(self) -> None:
        self.camel: set[tuple[str, str]] = set()
        self.snake: set[tuple[str, str]] = set()
        self.text_only = True

    def object(self, value: dict[str, Any], wanted: Message) -> None:
        if wanted.name == "Part" and not value.keys() <= _TEXT_PART:
            self.text_only = False
        for name, member in value.items():
            field = wanted.spellings[name]
            if field.name != field.snake_name:
                (self.camel if name == field.name else self.snake).add((wanted.name, field.name))
            if field.is_message and member is not None:
                for item in _items(member, field):
                    self.object(item, message(field.type))


def _items(member: Any, field: Field) -> Iterable[Any]:
    match field.shape:
        case "list":
            return cast("list[Any]", member)
        case "map":
            return cast("dict[str, Any]", member).values()
        case "one":
            return (member,)


class RequestLine(Protocol):
    """What a decoder returns: right by having been decoded."""

    key: str
    request: Any


class LineDecoder(NamedTuple):
    """`decode` takes whole lines, or raises `NOT_TAKEN`; `terms` reads what a price depends on, if anything.

    `settings` returns all of a request whose members may not go together, None where they always do; `beside` the same
    without the first of them, whose name in the line is `config_name`. `may_call` says that a request may hold function
    calls.
    """

    decode: Callable[[bytes], RequestLine]
    terms: Callable[[Any], Terms] | None
    settings: Callable[[Any], tuple[Any, ...]] | None = None
    beside: Callable[[Any], tuple[Any, ...]] | None = None
    config_name: bytes = b""
    may_call: bool = False


#: What a decoder raises on a line that it does not take. UnicodeDecodeError is a ValueError.
NOT_TAKEN: Final = (msgspec.DecodeError, ValueError, RecursionError)


@lru_cache(maxsize=32)
def line_decoder(task: Task, flavour: Flavour) -> LineDecoder:
    """Return the decoder of lines `{"key":…,"request":…}` of that flavour."""
    family = _Family(flavour)
    line = msgspec.defstruct(
        "Line",
        [
            ("key", Annotated[str, Meta(min_length=1, max_length=MAX_KEY_CHARACTERS)]),
            ("request", family.struct(request_message(task), _SCHEMA_DEPTH)),
        ],
        forbid_unknown_fields=True,
        gc=False,
    )
    decoder: msgspec.json.Decoder[RequestLine] = msgspec.json.Decoder(line, dec_hook=_check_special)
    if flavour.is_plain:
        return LineDecoder(decoder.decode, None)
    terms = struct_terms(family.names, text_only=flavour.text_only)
    if task == "embed":
        return LineDecoder(decoder.decode, terms)
    names = [family.names["GenerateContentRequest", name] for name in SETTINGS]
    return LineDecoder(
        decoder.decode,
        terms,
        attrgetter(*names),
        attrgetter(*names[1:]),
        f'"{names[0]}"'.encode(),
        may_call=not flavour.text_only,
    )


def as_members(settings: tuple[Any, ...]) -> dict[str, Any]:
    """Return what `LineDecoder.settings` returned as members of a request; free JSON in them is left out."""
    return dict(zip(SETTINGS, msgspec.to_builtins(settings, enc_hook=lambda _: None), strict=True))


class _Family:
    """The struct types of one flavour. `depth` counts how many schemas may still be nested."""

    def __init__(self, flavour: Flavour) -> None:
        self.flavour = flavour
        self.structs: dict[tuple[str, int, bool], _TypeForm] = {}
        #: What each member is called, by its message and its lowerCamel name.
        self.names: dict[tuple[str, str], str] = {}

    def struct(self, wanted: Message, depth: int, *, is_filled: bool = False) -> _TypeForm:
        """Return the type of a message; the texts of one that `is_filled` are not empty."""
        depth = depth - 1 if wanted.name == "Schema" else _SCHEMA_DEPTH
        place = (wanted.name, depth, is_filled)
        known = self.structs.get(place)
        if known is None:
            known = self.structs[place] = self._define(wanted, depth, is_filled=is_filled)
        return known

    def _define(self, wanted: Message, depth: int, *, is_filled: bool) -> _TypeForm:
        text_part = wanted.name == "Part" and self.flavour.text_only
        members: list[Any] = []
        for field in wanted.fields.values():
            if (field.type == "Schema" and depth == 0) or (text_part and field.name not in _TEXT_PART):
                continue
            if self.flavour.is_plain and wanted.name == "GenerateContentRequest" and field.name in PRICED:
                continue
            name, value = self._name(wanted, field), self._shaped(field, depth)
            if wanted.name == "Instruction" and field.name == "parts":
                # Gemini refuses an instruction without a text: such a line is looked at again.
                part = self.struct(message(field.type), depth, is_filled=True)
                value = Annotated[GenericAlias(list, (part,)), Meta(min_length=field.low)]
            elif is_filled and field.name == "text":
                value = Annotated[str, Meta(min_length=1)]
            self.names[wanted.name, field.name] = name
            needs_role = self.flavour.needs_role and wanted.name == "Content" and field.name == "role"
            required = field.required or needs_role or (text_part and field.name == "text")
            members.append((name, value) if required else (name, value | None, None))
        rule = None if text_part else self._rule(wanted)
        return msgspec.defstruct(
            wanted.name,
            members,
            namespace={"__post_init__": rule} if rule else {},
            forbid_unknown_fields=True,
            kw_only=True,
            gc=False,
        )

    def _rule(self, wanted: Message) -> _Rule | None:
        """Return what is checked of a decoded object that its type does not say."""
        if wanted.one_of:
            return _exactly_one([self._name(wanted, wanted.fields[name]) for name in wanted.one_of])
        for field in wanted.required:
            if field.type == "bytes":
                return _base64(self._name(wanted, field))
        return None

    def _name(self, owner: Message, field: Field) -> str:
        switched = (owner.name, field.name) in self.flavour.switched
        return field.snake_name if (self.flavour.spelling == "snake") != switched else field.name

    def _shaped(self, field: Field, depth: int) -> _TypeForm:
        item = self._item(field, depth)
        match field.shape:
            case "list":
                return Annotated[GenericAlias(list, (item,)), Meta(min_length=field.low, max_length=field.high)]
            case "map":
                return GenericAlias(dict, (str, item))
            case "one":
                return item

    def _item(self, field: Field, depth: int) -> _TypeForm:
        if field.is_message:
            return self.struct(message(field.type), depth)
        if field.is_enum:
            values: _TypeForm = Literal.__getitem__(ENUMS[field.type])
            return (
                values | Annotated[int, Meta(ge=_SMALLEST, le=_LARGEST)] if enum_accepts_numbers(field.type) else values
            )
        return _scalar(field)


def _exactly_one(names: Sequence[str]) -> _Rule:
    members, others = attrgetter(*names), len(names) - 1

    def rule(decoded: Any) -> None:
        if members(decoded).count(None) != others:
            raise ValueError

    return rule


def _base64(name: str) -> _Rule:
    """Return the check of a member that stays as it stands in the line: no text is made of megabytes of base64."""
    member = attrgetter(name)

    def rule(decoded: Any) -> None:
        if not is_base64_json(member(decoded)):
            raise ValueError

    return rule


class _FreeJson:
    """Any JSON, not nested too deeply (`value` in the table). What it holds is not kept, so all are the same."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _FreeJson)

    __hash__ = None  # type: ignore[assignment]  # nothing is looked up by it


class _FreeObject(_FreeJson):
    """A JSON object with any content (`struct` in the table)."""


class _Base64(_FreeJson):
    """Bytes as text (`bytes` in the table); several times as fast as letting msgspec decode them."""


def _check_special(wanted: type, decoded: Any) -> _FreeJson:
    """Check a value of one of the three classes above, as msgspec has decoded it."""
    if wanted is _Base64:
        if not (isinstance(decoded, str) and is_base64(decoded)):
            raise ValueError
        return _Base64()
    if wanted is _FreeObject and not isinstance(decoded, dict):
        raise ValueError
    level = [decoded]
    for _ in range(_FREE_DEPTH):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner += value.values()
            elif isinstance(value, list):
                inner += value
            elif isinstance(value, int) and abs(value) > FLOAT_LIMITS["double"]:
                raise ValueError
        if not inner:
            return _FreeObject()
        level = inner
    raise ValueError


def _integer(kind: str, low: int | None, high: int | None) -> _TypeForm:
    smallest, largest = INTEGER_RANGES[kind]
    low, high = smallest if low is None else low, largest if high is None else high
    whole = Annotated[int, Meta(ge=low, le=high)]
    # The SDK writes topK as 40.0.
    return whole | Annotated[float, Meta(ge=low, le=high, multiple_of=1)] if kind == "int32" else whole


def _scalar(field: Field) -> _TypeForm:
    match field.type:
        case "string":
            return str
        case "bool":
            return bool
        case "bytes":
            # msgspec takes Raw in no union, so not where null may stand.
            return msgspec.Raw if field.required else _Base64
        case "duration":
            return Annotated[str, Meta(pattern=DURATION)]
        case "timestamp":
            return Annotated[str, Meta(pattern=TIMESTAMP)]
        case "struct":
            return _FreeObject
        case "value":
            return _FreeJson
        case "int32" | "int64":
            return _integer(field.type, field.low, field.high)
        case _:
            limit = FLOAT_LIMITS[field.type]
            low = -limit if field.low is None else field.low
            return Annotated[float, Meta(ge=low, le=limit if field.high is None else field.high)]
