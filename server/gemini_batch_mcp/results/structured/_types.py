"""A plain JSON Schema as a type that `msgspec` decodes: never wider than the schema, or else not at all.

What such a type accepts, the schema accepts, too. The reverse need not hold (a schema takes 1.0 for a whole number).
"""

import math
from collections.abc import Callable, Mapping, Set
from typing import Annotated, Any, Final, Literal, Union

import msgspec

from gemini_batch_mcp.domain import JsonObject
from gemini_batch_mcp.patterns import Pattern, TooLong
from gemini_batch_mcp.results.structured.schema import resolved_reference

#: Keywords that say nothing about what is allowed.
_WORDS: Final = frozenset(
    {"title", "description", "default", "example", "examples", "propertyOrdering", "format", "$schema", "$id"}
    | {"$defs", "definitions", "$comment", "deprecated", "readOnly", "writeOnly"}
)
_LENGTHS: Final = {"minLength": "min_length", "maxLength": "max_length"}
_ITEMS: Final = {"minItems": "min_length", "maxItems": "max_length"}
_BOUNDS: Final = {"minimum": "ge", "maximum": "le", "exclusiveMinimum": "gt", "exclusiveMaximum": "lt"}
_MEMBERS: Final = {"minProperties": "min_length", "maxProperties": "max_length"}
#: Above, two whole numbers may be the same floating-point number.
_EXACT: Final = 2**53
_MAX_NODES: Final = 2000


class NoType(Exception):
    """The schema says something that no type can."""


class _Text:
    """A text with a pattern. `msgspec` would judge it by `re`, which may take hours."""

    pattern: Pattern
    least = 0
    most: float = math.inf


def answer_decoder(schema: JsonObject, patterns: Mapping[str, Pattern | None]) -> Callable[[str], Any]:
    """Return what decodes the answers that fit a plain schema. `patterns` are its own; None refuses nothing.

    Raises:
        NoType: there is no such type.
        TypeError, ValueError: there is one that `msgspec` does not take.
    """
    return msgspec.json.Decoder(_Types(schema, patterns).type_of(schema, ()), dec_hook=_text).decode


def _text(kind: type[_Text], value: Any) -> _Text:
    """Judge a text with a pattern.

    Raises:
        ValueError: it does not fit, or is too long to be judged.
    """
    try:
        if isinstance(value, str) and kind.least <= len(value) <= kind.most and kind.pattern.fits(value):
            return kind()
    except TooLong:
        pass
    raise ValueError("does not fit")


class _Types:
    """The types of one document's nodes."""

    def __init__(self, document: JsonObject, patterns: Mapping[str, Pattern | None]) -> None:
        self._document = document
        self._patterns = patterns
        self._nodes = 0

    def type_of(self, node: Any, references: tuple[str, ...]) -> Any:
        self._nodes += 1
        if self._nodes > _MAX_NODES or not isinstance(node, Mapping):
            raise NoType
        if "$ref" in node:
            _only(node, {"$ref"})
            target = resolved_reference(node["$ref"], self._document)
            if target is None or node["$ref"] in references:
                raise NoType
            return self.type_of(target, (*references, node["$ref"]))
        if "anyOf" in node:
            _only(node, {"anyOf"})
            return _union([self.type_of(choice, references) for choice in node["anyOf"]])
        if "enum" in node or "const" in node:
            return _choice(node)
        if "type" not in node:
            _only(node, set())
            return Any
        names = _type_names(node)
        if len(set(names) - {"null"}) > 1:
            _only(node, {"type"})  # limits of one of several types would be limits of all of them
        return _union([self._typed(name, node, references) for name in names])

    def _typed(self, name: str, node: JsonObject, references: tuple[str, ...]) -> Any:
        match name:
            case "null":
                return None
            case "boolean":
                _only(node, {"type"})
                return bool
            case "string":
                _only(node, {"type", "pattern", *_LENGTHS})
                if (pattern := self._patterns.get(node.get("pattern", ""))) is not None:
                    return _patterned(node, pattern)
                return _limited(str, node, _LENGTHS)
            case "integer" | "number":
                _only(node, {"type", *_BOUNDS})
                if any(
                    not isinstance(node[key], int | float) or abs(node[key]) > _EXACT for key in _BOUNDS if key in node
                ):
                    raise NoType
                return _limited(int if name == "integer" else float, node, _BOUNDS)
            case "array":
                _only(node, {"type", "items", *_ITEMS})
                items = self.type_of(node["items"], references) if "items" in node else Any
                return _limited(list[items], node, _ITEMS)  # type: ignore[valid-type]  # made from data
            case "object":
                return self._object(node, references)
        raise NoType

    def _object(self, node: JsonObject, references: tuple[str, ...]) -> Any:
        _only(node, {"type", "properties", "required", "additionalProperties", *_MEMBERS})
        members = node.get("properties") or {}
        required = node.get("required") or []
        more = node.get("additionalProperties", True)
        if not members:
            values = self.type_of(more, references) if isinstance(more, Mapping) else Any
            if required or more is False:
                raise NoType
            return _limited(dict[str, values], node, _MEMBERS)  # type: ignore[valid-type]  # made from data
        if not isinstance(more, bool) or not set(required) <= set(members) or any(key in node for key in _MEMBERS):
            raise NoType
        types = {name: self.type_of(member, references) for name, member in members.items()}
        # Required ones first, as a struct wants it; its own names are made up, because members may have any.
        names = sorted(types, key=lambda name: name not in required)
        fields = [
            (f"m{place}", types[name]) if name in required else (f"m{place}", types[name], None)
            for place, name in enumerate(names)
        ]
        return msgspec.defstruct(
            "Answer",
            fields,
            rename={f"m{place}": name for place, name in enumerate(names)},
            forbid_unknown_fields=not more,
        )


def _only(node: JsonObject, keywords: Set[str]) -> None:
    """Refuse a node with keywords beyond these and those that limit nothing."""
    if any(key not in _WORDS and key not in keywords for key in node):
        raise NoType


def _limited(kind: Any, node: JsonObject, names: Mapping[str, str]) -> Any:
    limits = {argument: node[keyword] for keyword, argument in names.items() if keyword in node}
    return Annotated[kind, msgspec.Meta(**limits)] if limits else kind


def _choice(node: JsonObject) -> Any:
    _only(node, {"type", "enum", "const"})
    values = [node["const"]] if "const" in node else node["enum"]
    kinds = {"string": str, "integer": int, "null": type(None)}
    allowed = [kinds.get(name) for name in _type_names(node)] if "type" in node else list(kinds.values())
    if ("const" in node and "enum" in node) or not values or any(type(value) not in allowed for value in values):
        raise NoType
    return Literal[tuple(values)]


def _type_names(node: JsonObject) -> list[str]:
    names = node["type"] if isinstance(node["type"], list) else [node["type"]]
    if not all(isinstance(name, str) for name in names):
        raise NoType
    return names


def _union(types: list[Any]) -> Any:
    # A union takes no type of ours.
    if not types or (len(types) > 1 and any(isinstance(kind, type) and issubclass(kind, _Text) for kind in types)):
        raise NoType
    return Union[tuple(types)]  # noqa: UP007 - the types are made from data


def _patterned(node: JsonObject, pattern: Pattern) -> type[_Text]:
    least, most = node.get("minLength", 0), node.get("maxLength", math.inf)
    if not isinstance(least, int | float) or not isinstance(most, int | float):
        raise NoType
    return type("Text", (_Text,), {"pattern": pattern, "least": least, "most": most})
