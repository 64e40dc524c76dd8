"""JSON Schema, as Pydantic and others write it, as the `responseSchema` that Gemini's batch accepts.

What cannot be said in that form is refused with its path. What can only be said in words (a format such as `date`, an
exclusive bound of a number) goes into the description, where the model reads it. The conversion of google-genai refuses
`const`, `allOf` and exclusive bounds, and makes `oneOf`, recursion and free member names empty without a word.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from gemini_batch_mcp.domain import JsonObject
from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.intake.validator.corrections import kind, nearest, shown
from gemini_batch_mcp.intake.validator.enums import ENUMS

#: References multiply what they refer to, so the result is bounded.
_MAX_NODES: Final = 5_000
_TYPES: Final[Mapping[str, str]] = {
    "string": "STRING",
    "number": "NUMBER",
    "integer": "INTEGER",
    "boolean": "BOOLEAN",
    "array": "ARRAY",
    "object": "OBJECT",
}
#: Formats that Gemini knows, by type; others are put into the description.
_FORMATS: Final[Mapping[str, frozenset[str]]] = {
    "STRING": frozenset({"date-time", "enum"}),
    "NUMBER": frozenset({"float", "double"}),
    "INTEGER": frozenset({"int32", "int64"}),
}
_COPIED: Final[Mapping[str, tuple[str, ...]]] = {
    "STRING": ("pattern", "minLength", "maxLength"),
    "NUMBER": ("minimum", "maximum"),
    "INTEGER": ("minimum", "maximum"),
    "ARRAY": ("minItems", "maxItems"),
    "OBJECT": ("minProperties", "maxProperties"),
    "BOOLEAN": (),
}
#: Keywords that say nothing about the value.
_SILENT: Final = frozenset(
    {"$schema", "$id", "$comment", "$anchor", "$defs", "definitions", "deprecated", "readOnly", "writeOnly"}
    | {"contentEncoding", "contentMediaType", "discriminator"}
)
_REFUSED: Final[Mapping[str, str]] = {
    "not": "Gemini's schema cannot exclude values.",
    "if": "Gemini's schema has no conditions.",
    "then": "Gemini's schema has no conditions.",
    "else": "Gemini's schema has no conditions.",
    "dependentSchemas": "Gemini's schema has no conditions.",
    "dependentRequired": "Gemini's schema has no conditions.",
    "prefixItems": "Gemini's lists have one kind of item. Write an object with one member for each position.",
    "contains": "Gemini's schema cannot ask for one particular item.",
    "patternProperties": "Gemini's objects have fixed members. Write a list of {name, value} objects.",
    "propertyNames": "Gemini's objects have fixed members. Write a list of {name, value} objects.",
    "unevaluatedProperties": "Leave it out.",
    "unevaluatedItems": "Leave it out.",
    "$dynamicRef": "Write the schema itself in its place.",
}
_HANDLED: Final = frozenset(
    {"type", "title", "description", "default", "examples", "example", "enum", "const", "format", "nullable", "$ref"}
    | {"allOf", "anyOf", "oneOf", "items", "properties", "required", "additionalProperties", "propertyOrdering"}
    | {"exclusiveMinimum", "exclusiveMaximum", "multipleOf", "uniqueItems"}
    | {name for names in _COPIED.values() for name in names}
)


def to_response_schema(schema: JsonObject, argument: str = "response_schema") -> dict[str, Any]:
    """Return a JSON Schema as Gemini's Schema; one that is Gemini's already is returned unchanged.

    Raises:
        UsageError: something in it has no such form; the message gives the path, the next step the reason.
    """
    if _is_gemini(schema):
        return dict(schema)
    return _Conversion(schema).node(schema, argument, ())


def _is_gemini(schema: Any) -> bool:
    """True when the types are in upper case, as Gemini writes them, or in its names as Python's SDK writes them."""
    if not isinstance(schema, Mapping):
        return False
    if isinstance(kind := schema.get("type"), str):
        return kind in ENUMS["Type"] and kind not in _TYPES
    choices = schema.get("anyOf", schema.get("any_of"))
    return isinstance(choices, list) and bool(choices) and all(map(_is_gemini, choices))


def _refuse(path: str, what: str, reason: str) -> NoReturn:
    raise UsageError(f"`{path}` {what}.", reason)


class _Conversion:
    """Converts the nodes of one document, whose references point into it."""

    def __init__(self, document: JsonObject) -> None:
        self._document = document
        self._nodes = 0

    def node(self, value: Any, path: str, references: tuple[str, ...]) -> dict[str, Any]:
        """Convert one schema. `references` are those that led here: one that comes again never ends."""
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            _refuse(path, f"makes the schema larger than {_MAX_NODES:,} nodes", "Refer to fewer definitions.")
        if not isinstance(value, Mapping):
            what = "allows anything" if value is True else f"is {kind(value)}, not a schema"
            _refuse(path, what, 'Write an object with a "type".')
        node, references = self._resolved(dict(value), path, references)
        self._check_keywords(node, path)
        node = self._plain_types(node)
        choices = node.get("anyOf") or node.get("oneOf")
        if choices is not None:
            return self._choice(node, choices, path, references)
        return self._typed(node, path, references)

    def _resolved(
        self, node: dict[str, Any], path: str, references: tuple[str, ...]
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Follow `$ref` and an `allOf` of one; members beside them stay and go first."""
        while True:
            if (reference := node.pop("$ref", None)) is not None:
                if reference in references:
                    _refuse(path, f"refers to itself through {shown(str(reference))}", _RECURSIVE)
                references = (*references, str(reference))
                target = self._target(str(reference), path)
            elif "allOf" in node:
                parts = node.pop("allOf")
                if not isinstance(parts, list) or len(parts) != 1 or not isinstance(parts[0], Mapping):
                    _refuse(f"{path}.allOf", "merges several schemas", "Write them as one merged schema.")
                target = parts[0]
            else:
                return node, references
            clash = [name for name in target if name in node and node[name] != target[name] and name not in _WORDS]
            if clash:
                _refuse(
                    path, f"gives `{shown(clash[0])}` next to the schema that it refers to", "Give it in one place."
                )
            node = {**target, **node}

    def _target(self, reference: str, path: str) -> Mapping[str, Any]:
        if reference != "#" and not reference.startswith("#/"):
            _refuse(path, f"refers to {shown(reference)}, outside the schema", "Put the definition under `$defs`.")
        found: Any = self._document
        for step in reference.split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            found = found.get(step) if isinstance(found, Mapping) else None
        if not isinstance(found, Mapping):
            _refuse(path, f"refers to {shown(reference)}, which doesn't exist", "Add the definition under `$defs`.")
        return found

    def _check_keywords(self, node: Mapping[str, Any], path: str) -> None:
        for name in node:
            if name in _REFUSED:
                _refuse(f"{path}.{name}", "has no counterpart in Gemini's responseSchema", _REFUSED[name])
            if name not in _HANDLED and name not in _SILENT and not name.startswith("x-"):
                near = nearest(name, _HANDLED)
                step = f"Did you mean `{near}`?" if near else "Leave it out."
                _refuse(f"{path}.{shown(name)}", "is not a keyword that can be converted", step)

    def _plain_types(self, node: dict[str, Any]) -> dict[str, Any]:
        """Turn a list of types and null among values into `nullable`, or into one choice for each type."""
        types = node.get("type")
        if isinstance(types, list):
            others = [name for name in types if name != "null"]
            nullable: dict[str, Any] = {"nullable": True} if len(others) < len(types) else {}
            if len(others) == 1:
                return {**node, "type": others[0], **nullable}
            words: dict[str, Any] = {name: node[name] for name in ("title", "description", "default") if name in node}
            rest = {name: member for name, member in node.items() if name not in words and name != "type"}
            return {**words, **nullable, "anyOf": [{**rest, "type": name} for name in others]}
        values = node.get("enum")
        if isinstance(values, list) and None in values and len(values) > 1:
            return {**node, "enum": [value for value in values if value is not None], "nullable": True}
        return node

    def _choice(self, node: dict[str, Any], choices: Any, path: str, references: tuple[str, ...]) -> dict[str, Any]:
        """Convert `anyOf`; `oneOf` becomes the same, as Gemini has no other."""
        name = "anyOf" if node.get("anyOf") else "oneOf"
        if not isinstance(choices, list):
            _refuse(f"{path}.{name}", f"is {kind(choices)}", "Write a list of schemas.")
        others = [(number, choice) for number, choice in enumerate(choices) if not _is_null(choice)]
        nullable = node.get("nullable") is True or len(others) < len(choices)
        around = {key: member for key, member in node.items() if key not in ("anyOf", "oneOf", "nullable")}
        if not others:
            _refuse(path, "allows only null", "Leave it out.")
        if len(others) == 1:
            only = others[0][1]
            merged = {**only, **around} if isinstance(only, Mapping) else only
            converted = self.node(merged, path, references)
        else:
            if extra := [key for key in around if key not in _WORDS and key not in _SILENT and key != "type"]:
                _refuse(f"{path}.{shown(extra[0])}", f"stands beside {name}", "Write it into each of the choices.")
            converted = _words(around)
            converted["anyOf"] = [
                self.node(choice, f"{path}.{name}[{number}]", references) for number, choice in others
            ]
        if nullable:
            converted["nullable"] = True
        return converted

    def _typed(self, node: dict[str, Any], path: str, references: tuple[str, ...]) -> dict[str, Any]:
        gemini = _type_of(node, path)
        converted: dict[str, Any] = {"type": gemini, **_words(node)}
        notes: list[str] = []
        if node.get("nullable") is True:
            converted["nullable"] = True
        if (form := node.get("format")) is not None:
            if form in _FORMATS.get(gemini, ()):
                converted["format"] = form
            else:
                notes.append(f"format: {shown(str(form))}")
        values = [node["const"]] if "const" in node else node.get("enum")
        if values is not None:
            converted |= _enumerated(values, gemini, path)
        converted |= {name: node[name] for name in _COPIED[gemini] if node.get(name) is not None}
        if gemini in ("NUMBER", "INTEGER"):
            _bounds(node, gemini, converted, notes)
        elif gemini == "ARRAY":
            self._array(node, converted, notes, path, references)
        elif gemini == "OBJECT":
            self._object(node, converted, path, references)
        if notes:
            converted["description"] = " ".join(filter(None, (converted.get("description"), f"({'; '.join(notes)})")))
        return converted

    def _array(
        self,
        node: Mapping[str, Any],
        converted: dict[str, Any],
        notes: list[str],
        path: str,
        references: tuple[str, ...],
    ) -> None:
        if "items" not in node:
            _refuse(path, "is a list whose items are not described", 'Add `items`, as in {"type":"string"}.')
        if isinstance(node["items"], list):
            _refuse(f"{path}.items", "describes a tuple", _REFUSED["prefixItems"])
        converted["items"] = self.node(node["items"], f"{path}.items", references)
        if node.get("uniqueItems"):
            notes.append("unique items")

    def _object(
        self, node: Mapping[str, Any], converted: dict[str, Any], path: str, references: tuple[str, ...]
    ) -> None:
        properties = node.get("properties")
        free = node.get("additionalProperties")
        if not isinstance(properties, Mapping) or not properties:
            what = (
                "is an object with arbitrary member names"
                if free not in (None, False)
                else "is an object without members"
            )
            _refuse(path, what, _REFUSED["patternProperties"])
        if isinstance(free, Mapping):
            _refuse(f"{path}.additionalProperties", "describes arbitrary members", _REFUSED["patternProperties"])
        converted["properties"] = {
            str(name): self.node(member, f"{path}.properties.{shown(str(name))}", references)
            for name, member in properties.items()
        }
        required = node.get("required") or []
        if not isinstance(required, list):
            _refuse(f"{path}.required", f"is {kind(required)}", "Write a list of member names.")
        for name in required:
            if name not in properties:
                _refuse(
                    f"{path}.required", f"names {shown(str(name))}, which is not a member", "Add it or leave it out."
                )
        if required:
            converted["required"] = list(required)
        # Gemini writes members in alphabetical order unless told: order steers what a model has thought of before.
        converted["propertyOrdering"] = list(node.get("propertyOrdering") or properties)


#: Members that are for people, and may differ between a reference and what it refers to.
_WORDS: Final = frozenset({"title", "description", "default", "example", "examples"})
_RECURSIVE: Final = "Gemini's schema has no recursion. Write out as many levels as you need."


def _words(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a schema says to its reader."""
    words = {name: node[name] for name in ("title", "description") if isinstance(node.get(name), str)}
    if node.get("default") is not None:
        words["default"] = node["default"]
    examples = node.get("examples")
    if node.get("example") is not None:
        words["example"] = node["example"]
    elif isinstance(examples, list) and examples:
        words["example"] = examples[0]
    return words


def _is_null(choice: Any) -> bool:
    return isinstance(choice, Mapping) and (
        choice.get("type") == "null" or ("const" in choice and choice["const"] is None)
    )


def _type_of(node: Mapping[str, Any], path: str) -> str:
    """Return Gemini's type of a schema, told by its keywords when it names none."""
    named = node.get("type")
    if isinstance(named, str) and named.lower() in _TYPES:
        return _TYPES[named.lower()]
    if named == "null":
        _refuse(path, "allows only null", "Leave it out.")
    if named is not None:
        near = nearest(str(named), _TYPES)
        _refuse(f"{path}.type", f"is {shown(str(named))}", f"Did you mean `{near}`?" if near else "Name a JSON type.")
    if "properties" in node:
        return "OBJECT"
    if "items" in node:
        return "ARRAY"
    values = [node["const"]] if "const" in node else node.get("enum") or []
    kinds = {type(value) for value in values} if isinstance(values, list) else set()
    for python_type, gemini in ((str, "STRING"), (bool, "BOOLEAN"), (int, "INTEGER"), (float, "NUMBER")):
        if kinds == {python_type}:
            return gemini
    if kinds == {int, float}:
        return "NUMBER"
    _refuse(path, "does not say its type", 'Add a "type".')


def _enumerated(values: Any, gemini: str, path: str) -> dict[str, Any]:
    """Return what stands for a list of allowed values: Gemini's `enum` holds texts only."""
    if not isinstance(values, list) or not values:
        _refuse(f"{path}.enum", "is not a list of values", "Write the allowed values.")
    if gemini == "STRING" and all(isinstance(value, str) for value in values):
        return {"enum": list(values), "format": "enum"}
    if gemini == "INTEGER" and all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        low, high = min(values), max(values)
        if sorted(set(values)) == list(range(low, high + 1)) if high - low < len(values) else False:
            return {"minimum": low, "maximum": high}
    if gemini == "BOOLEAN" and set(map(json.dumps, values)) == {"true", "false"}:
        return {}
    _refuse(
        f"{path}.enum",
        f"lists values that are not strings ({_sample(values)})",
        "Gemini's enum takes strings only. Write them as strings, or give a minimum and a maximum.",
    )


def _sample(values: Sequence[Any]) -> str:
    return shown(", ".join(json.dumps(value, default=str) for value in values[:5]), 40)


def _bounds(node: Mapping[str, Any], gemini: str, converted: dict[str, Any], notes: list[str]) -> None:
    """Put exclusive bounds into the inclusive ones that Gemini has; of a fraction, say in words what is left out."""
    for name, plain, step, words in (
        ("exclusiveMinimum", "minimum", 1, "greater than"),
        ("exclusiveMaximum", "maximum", -1, "less than"),
    ):
        bound = node.get(name)
        if not isinstance(bound, int | float) or isinstance(bound, bool):
            continue
        if gemini == "INTEGER" and float(bound).is_integer():
            bound = int(bound) + step
        else:
            notes.append(f"{words} {bound}")
        inclusive = converted.get(plain, bound)
        converted[plain] = max(bound, inclusive) if step > 0 else min(bound, inclusive)
    if node.get("multipleOf") is not None:
        notes.append(f"a multiple of {shown(str(node['multipleOf']))}")
