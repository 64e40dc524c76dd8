"""The response schema of an order as plain JSON Schema, and the columns that its answers fill.

An order gives either JSON Schema or Gemini's own dialect (types in capitals, `nullable`, numbers as text; Python's SDK
writes its names in snake case). Both become JSON Schema here, so that one validator judges both.
"""

from collections.abc import Mapping
from typing import Any, Final

from gemini_batch_mcp.domain import Column, JsonObject

_RENAMED: Final = {
    "any_of": "anyOf",
    "min_items": "minItems",
    "max_items": "maxItems",
    "min_length": "minLength",
    "max_length": "maxLength",
    "min_properties": "minProperties",
    "max_properties": "maxProperties",
    "additional_properties": "additionalProperties",
    "property_ordering": "propertyOrdering",
}
#: Gemini's int64 limits are text.
_COUNTS: Final = frozenset({"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"})
_LIMITS: Final = _COUNTS | {"minimum", "maximum"}
#: Keywords whose value is a schema, a list of schemas, or schemas by name.
_ONE: Final = frozenset({"items", "additionalProperties", "not", "contains", "propertyNames", "if", "then", "else"})
_MANY: Final = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_NAMED: Final = frozenset({"properties", "$defs", "definitions", "patternProperties", "dependentSchemas"})
_ANY_TYPE: Final = "type_unspecified"

_COLUMN_TYPES: Final = {"string": "VARCHAR", "integer": "BIGINT", "number": "DOUBLE", "boolean": "BOOLEAN"}
_JSON: Final = "JSON"
_VALUE_TYPES: Final = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


def plain_schema(schema: JsonObject) -> dict[str, Any]:
    """Return a response schema as JSON Schema that means the same."""
    plain: dict[str, Any] = {}
    for given, value in schema.items():
        name = _RENAMED.get(given, given)
        if name in _ONE and isinstance(value, Mapping):
            plain[name] = plain_schema(value)
        elif name in _MANY and isinstance(value, list):
            plain[name] = [plain_schema(entry) if isinstance(entry, Mapping) else entry for entry in value]
        elif name in _NAMED and isinstance(value, Mapping):
            plain[name] = {
                member: plain_schema(entry) if isinstance(entry, Mapping) else entry for member, entry in value.items()
            }
        elif name == "type":
            plain |= _plain_type(value)
        elif name in _LIMITS and isinstance(value, str):
            plain[name] = _number(value)
        else:
            plain[name] = value
    return _with_null(plain) if plain.pop("nullable", False) is True else plain


def field_columns(schema: JsonObject) -> tuple[Column, ...]:
    """Return a column for each top-level member of the answers that a plain schema describes, in its order.

    Text, whole numbers, numbers and booleans get columns of their type; everything else stays JSON.
    """
    node = _resolved(schema, schema)
    members = node.get("properties")
    if not isinstance(members, Mapping):
        return ()
    order = node.get("propertyOrdering")
    first = [name for name in order if name in members] if isinstance(order, list) else []
    names = [*dict.fromkeys(first), *(name for name in members if name not in first)]
    return tuple(Column(name, _column_type(members[name], schema)) for name in names)


def member_names(schema: Any) -> frozenset[str]:
    """Return every name of a member that a plain schema gives: words of the user's, which may stand in a sentence."""
    if isinstance(schema, list):
        return frozenset().union(*map(member_names, schema))
    if not isinstance(schema, Mapping):
        return frozenset()
    named = schema.get("properties")
    own = frozenset(map(str, named)) if isinstance(named, Mapping) else frozenset[str]()
    return own.union(*map(member_names, schema.values()))


def resolved_reference(reference: Any, document: JsonObject) -> JsonObject | None:
    """Return what a reference into its own document stands for, None when it is another one, or leads nowhere."""
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        return None
    found: Any = document
    for step in reference.split("/")[1:]:
        found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else None


def _plain_type(value: Any) -> dict[str, Any]:
    names = [name.lower() for name in (value if isinstance(value, list) else [value]) if isinstance(name, str)]
    names = [name for name in names if name != _ANY_TYPE]
    if not names:
        return {}
    return {"type": names if isinstance(value, list) else names[0]}


def _number(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        return text


def _with_null(node: dict[str, Any]) -> dict[str, Any]:
    """Return the schema that allows null as well."""
    if "anyOf" in node and isinstance(node["anyOf"], list):
        return node | {"anyOf": [*node["anyOf"], {"type": "null"}]}
    if "type" in node:
        types = node["type"] if isinstance(node["type"], list) else [node["type"]]
        node = node | {"type": [*types, *(["null"] if "null" not in types else [])]}
    if isinstance(node.get("enum"), list) and None not in node["enum"]:
        node = node | {"enum": [*node["enum"], None]}
    return node


def _resolved(node: Any, document: JsonObject) -> JsonObject:
    """Follow references and an `allOf` of one, as far as they lead."""
    for _ in range(20):
        if not isinstance(node, Mapping):
            return {}
        parts = node.get("allOf")
        if "$ref" in node:
            node = resolved_reference(node["$ref"], document)
        elif isinstance(parts, list) and len(parts) == 1 and "properties" not in node:
            node = parts[0]
        else:
            return node
    return {}


def _column_type(node: Any, document: JsonObject) -> str:
    """Return the type that holds every value of a schema but null."""
    node = _resolved(node, document)
    choices = node.get("anyOf", node.get("oneOf"))
    if isinstance(choices, list):
        kinds = {_column_type(choice, document) for choice in choices if not _is_null(choice)}
    else:
        types = node.get("type", _types_of_choices(node))
        names = types if isinstance(types, list) else [types]
        kinds = {_COLUMN_TYPES.get(name, _JSON) for name in names if name != "null"}
    if kinds == {"BIGINT", "DOUBLE"}:
        return "DOUBLE"
    return kinds.pop() if len(kinds) == 1 else _JSON


def _types_of_choices(node: JsonObject) -> list[str | None]:
    """Return the types of the values that an `enum` or `const` allows, for a schema that leaves its type out."""
    values = node.get("enum", [node["const"]] if "const" in node else [])
    return list(dict.fromkeys(_VALUE_TYPES.get(type(value)) for value in values)) if isinstance(values, list) else []


def _is_null(node: Any) -> bool:
    return isinstance(node, Mapping) and node.get("type") == "null"
