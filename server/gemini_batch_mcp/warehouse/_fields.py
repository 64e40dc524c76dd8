"""An order's response schema in GoogleSQL: whether an answer fits it, as far as SQL says, and the columns it fills.

Checked are that the answer is JSON, the kinds of its members, those that are required, choices, and limits of numbers,
texts and lists, three levels deep. Patterns, alternatives and the rest are not: `unchecked` names them.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from gemini_batch_mcp.domain import JsonObject
from gemini_batch_mcp.results.structured.schema import field_columns, plain_schema
from gemini_batch_mcp.warehouse._text import literal, parsed_json

_MAX_LEVELS: Final = 3
#: With what the JSON of each kind begins, as part of a class of characters.
_STARTS: Final = MappingProxyType(
    {
        "object": r"\{",
        "array": r"\[",
        "string": '"',
        "integer": "-0-9",
        "number": "-0-9",
        "boolean": "tf",
        "null": "n",
    }
)
_NAMED: Final = {"object": "an object", "array": "a list", "string": "text", "integer": "a whole number"} | {
    "number": "a number",
    "boolean": "a boolean",
    "null": "null",
}
#: Keywords that are looked at here, and those that ask for nothing.
_CHECKED: Final = frozenset({"type", "properties", "required", "enum", "items", "minimum", "maximum", "minLength"}) | {
    *("maxLength", "minItems", "maxItems"),
    *("title", "description", "default", "example", "examples", "propertyOrdering", "format", "nullable"),
}
_TYPES: Final = MappingProxyType(
    {
        "VARCHAR": ("STRING", "JSON_VALUE({0}, {1})"),
        "BIGINT": (
            "INT64",
            "COALESCE(SAFE_CAST(JSON_VALUE({0}, {1}) AS INT64), "
            "SAFE_CAST(SAFE_CAST(JSON_VALUE({0}, {1}) AS NUMERIC) AS INT64))",
        ),
        "DOUBLE": ("FLOAT64", "SAFE_CAST(JSON_VALUE({0}, {1}) AS FLOAT64)"),
        "BOOLEAN": ("BOOL", "SAFE_CAST(JSON_VALUE({0}, {1}) AS BOOL)"),
        "JSON": ("STRING", "JSON_QUERY({0}, {1})"),
    }
)
#: What may stand between quotation marks of a JSON path as it is.
_NOT_IN_PATH: Final = frozenset('"\\') | {chr(code) for code in range(32)}
#: An answer that is no JSON but for the code block around it. No backtick stands in it: SQL has names between them.
_BLOCK: Final = r"r'(?s)^\s*\x60{3}(?:[jJ][sS][oO][nN])?\s*(.*?)\s*\x60{3}\s*$'"


@dataclass(frozen=True, slots=True)
class Field:
    """A member of the answers that gets a column: its name there, its type, and the expression over a JSON text."""

    name: str
    type: str
    expression: str


def fields_of(schema: JsonObject, body: str) -> tuple[Field, ...]:
    """Return the fields of answers to a schema; `body` is the expression of an answer's JSON."""
    found = field_columns(plain_schema(schema)) if schema else ()
    return tuple(
        Field(column.name, _TYPES[column.type][0], _TYPES[column.type][1].format(body, _path((column.name,))))
        for column in found
        if _is_path((column.name,))
    )


def field_types(schema: JsonObject) -> tuple[str, ...]:
    """Return for each of `fields_of` the type that it has in a table on this machine, in DuckDB's words."""
    found = field_columns(plain_schema(schema)) if schema else ()
    return tuple(column.type for column in found if _is_path((column.name,)))


def body_of(text: str) -> str:
    """Return the expression of the JSON in an answer: the whole of it, or what its one code block holds; else NULL."""
    block = f"REGEXP_EXTRACT({text}, {_BLOCK})"
    return (
        f"CASE WHEN {parsed_json(text)} IS NOT NULL THEN {text} WHEN {parsed_json(block)} IS NOT NULL THEN {block} END"
    )


def fault_of(schema: JsonObject, body: str) -> str:
    """Return the expression of why an answer does not fit a schema, NULL where it does. `body` is a column."""
    cases = " ".join(
        f"WHEN {condition} THEN {literal(reason)}" for condition, reason in _faults(plain_schema(schema), body, (), 0)
    )
    return f"CASE WHEN {body} IS NULL THEN 'the answer is not valid JSON' {cases} END"


def unchecked(schema: JsonObject) -> tuple[str, ...]:
    """Return the keywords of a schema that SQL does not check, each once."""
    return tuple(sorted(set(_unchecked(plain_schema(schema), 0)))) if schema else ()


def _faults(node: Mapping[str, Any], body: str, path: Sequence[str], level: int) -> Iterator[tuple[str, str]]:
    """Yield conditions under which an answer does not fit, with the reason, most important first."""
    where = ".".join(path) or "the answer"
    value, scalar = f"JSON_QUERY({body}, {_path(path)})", f"JSON_VALUE({body}, {_path(path)})"
    kinds = _kinds(node)
    # Of JSON as text, null is no value, as what is not there: whether it may be missing is another question.
    is_there = f"{value} IS NOT NULL"
    if kinds:
        yield f"{is_there} AND NOT {_is(value, kinds)}", f"{where} is not {_either(kinds)}"
        if "integer" in kinds and "number" not in kinds:
            is_broken = rf"NOT REGEXP_CONTAINS({scalar}, r'^-?[0-9]+(\.0+)?([eE]\+?[0-9]+)?$')"
            yield f"{_is(value, ['number'])} AND {is_broken}", f"{where} is not a whole number"
    if not path and "null" not in kinds and kinds:
        yield f"{value} IS NULL", f"{where} is null, not {_either(kinds)}"
    yield from _limits(node, value, scalar, where)
    if level >= _MAX_LEVELS:
        return
    members = node.get("properties")
    members = members if isinstance(members, Mapping) else {}
    is_object = _is(value, ["object"])
    for name in node.get("required") or () if isinstance(node.get("required"), list) else ():
        if isinstance(name, str) and _is_path((*path, name)) and not _takes_null(members.get(name)):
            yield f"{is_object} AND JSON_QUERY({body}, {_path((*path, name))}) IS NULL", f"{where} lacks {name}"
    for name, member in members.items():
        if isinstance(member, Mapping) and _is_path((*path, name)):
            yield from _faults(member, body, (*path, name), level + 1)


def _limits(node: Mapping[str, Any], value: str, scalar: str, where: str) -> Iterator[tuple[str, str]]:
    choices = node.get("enum")
    if isinstance(choices, list) and choices and all(isinstance(choice, str) or choice is None for choice in choices):
        allowed = ", ".join(literal(choice) for choice in choices if choice is not None) or "NULL"
        is_other = f"{scalar} IS NULL OR {scalar} NOT IN ({allowed})"
        yield f"{value} IS NOT NULL AND ({is_other})", f"{where} is not one of the allowed values"
    number, length = f"SAFE_CAST({scalar} AS FLOAT64)", f"CHAR_LENGTH({scalar})"
    items = f"ARRAY_LENGTH(JSON_QUERY_ARRAY({value}, '$'))"
    for keyword, kind, measure, sign, words in (
        ("minimum", "number", number, "<", "is below {}"),
        ("maximum", "number", number, ">", "is above {}"),
        ("minLength", "string", length, "<", "is shorter than {}"),
        ("maxLength", "string", length, ">", "is longer than {}"),
        ("minItems", "array", items, "<", "has fewer than {} items"),
        ("maxItems", "array", items, ">", "has more than {} items"),
    ):
        limit = node.get(keyword)
        if isinstance(limit, int | float) and not isinstance(limit, bool):
            yield f"{_is(value, [kind])} AND {measure} {sign} {limit!r}", f"{where} {words.format(limit)}"
    item = node.get("items")
    kinds = _kinds(item) if isinstance(item, Mapping) else []
    if kinds:
        items = f"UNNEST(JSON_QUERY_ARRAY({value}, '$')) AS item"
        others = f"(SELECT COUNTIF(NOT {_is('item', kinds)}) FROM {items})"  # noqa: S608 - our own names, and a path
        yield f"{_is(value, ['array'])} AND {others} > 0", f"{where} has an item that is not {_either(kinds)}"


def _is(value: str, kinds: Sequence[str]) -> str:
    """Return the condition that a JSON text is of one of these kinds."""
    return f"REGEXP_CONTAINS({value}, r'^\\s*[{''.join(dict.fromkeys(_STARTS[kind] for kind in kinds))}]')"


def _either(kinds: Sequence[str]) -> str:
    return " or ".join(_NAMED[kind] for kind in kinds)


def _kinds(node: Mapping[str, Any]) -> list[str]:
    types = node.get("type")
    names = types if isinstance(types, list) else [types]
    known = [name for name in names if isinstance(name, str) and name in _STARTS]
    return known if len(known) == len(names) else []


def _takes_null(node: Any) -> bool:
    """True for a schema that null fits; one that says nothing about kinds takes all."""
    return not isinstance(node, Mapping) or not _kinds(node) or "null" in _kinds(node)


def _unchecked(node: Mapping[str, Any], level: int) -> Iterator[str]:
    yield from (keyword for keyword in node if keyword not in _CHECKED)
    if "enum" in node and not all(isinstance(choice, str) or choice is None for choice in node["enum"]):
        yield "enum"
    members = node.get("properties")
    for name, member in members.items() if isinstance(members, Mapping) else ():
        if not isinstance(member, Mapping):
            continue
        if not _is_path((name,)):
            yield f"properties.{json.dumps(name)}"
        elif level + 1 > _MAX_LEVELS:
            yield "properties below the third level"
        else:
            yield from _unchecked(member, level + 1)
    item = node.get("items")
    if isinstance(item, Mapping):
        yield from (f"items.{keyword}" for keyword in item if keyword not in {"type", *_CHECKED - {"properties"}})
        if item.get("properties"):
            yield "items.properties"


def _is_path(path: Sequence[str]) -> bool:
    return all(name and not _NOT_IN_PATH & set(name) for name in path)


def _path(path: Sequence[str]) -> str:
    """Return the literal of a JSON path to a member."""
    return literal("$" + "".join(f'."{name}"' for name in path))
