"""Values that fit a response schema: `compile_schema` turns one into a function from dice to a value.

Both forms are understood: Gemini's `responseSchema` (OpenAPI, upper-case types) and JSON Schema. A `pattern` is not
honoured, nor are keywords that no Gemini document lists.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

_MULTIPLIER: Final = 6364136223846793005
_MASK: Final = 2**64 - 1
#: Schemas inside schemas that are followed; deeper ones, and circles of references, end in null.
_MAX_DEPTH: Final = 12
#: So many schemas are compiled; the rest of a schema that multiplies itself gives null.
_MAX_SCHEMAS: Final = 2_000
#: However large `minItems` and `minLength` are, a value has no more items and characters than these.
_MAX_ITEMS: Final = 100
_MAX_CHARACTERS: Final = 10_000
_DEFAULT_SPAN: Final = 100

_FORMATS: Final[Mapping[str, str]] = {
    "date-time": "2026-11-{day:02d}T09:00:00Z",
    "date": "2026-11-{day:02d}",
    "time": "09:00:{day:02d}Z",
    "duration": "PT{day}S",
    "email": "sandbox-{day}@example.com",
    "uri": "https://example.com/sandbox/{day}",
    "uuid": "00000000-0000-4000-8000-0000000000{day:02d}",
    "ipv4": "192.0.2.{day}",
}


class Dice:
    """Numbers that follow from a seed alone: the same request always gets the same answer.

    `choice` is the place, counted from 1, that is taken in each list of choices; 0 leaves it to the seed.
    """

    __slots__ = ("_choice", "_state")

    def __init__(self, seed: int, choice: int = 0) -> None:
        self._state = seed & _MASK
        self._choice = choice

    def roll(self, sides: int) -> int:
        """Return a number from 0 to `sides` - 1."""
        self._state = (self._state * _MULTIPLIER + 1442695040888963407) & _MASK
        return (self._state >> 33) % sides

    def choose(self, choices: Sequence[Any]) -> Any:
        """Return one of several values."""
        return choices[self._choice - 1 if 0 < self._choice <= len(choices) else self.roll(len(choices))]


Sampler = Callable[[Dice], Any]


def compile_schema(schema: object) -> Sampler:
    """Return a function that makes values which fit `schema`; what is no schema at all gives a string."""
    root = schema if isinstance(schema, dict) else {}
    return _Compiler(root).sampler(root, "value", 0)


class _Compiler:
    """Compiles one schema; `root` is where references point into."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._left = _MAX_SCHEMAS

    def sampler(self, schema: object, name: str, depth: int) -> Sampler:
        schema = self._resolved(schema)
        self._left -= 1
        if schema is None or depth > _MAX_DEPTH or self._left < 0:
            return lambda dice: None
        if "const" in schema:
            constant = schema["const"]
            return lambda dice: constant
        if choices := _list(schema.get("enum")):
            return lambda dice: dice.choose(choices)
        if branches := _list(schema.get("anyOf") or schema.get("oneOf") or schema.get("any_of")):
            samplers = [self.sampler(_merged(schema, branch), name, depth + 1) for branch in branches]
            return lambda dice: samplers[dice.roll(len(samplers))](dice)
        match _type_of(schema):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, name, depth)
            case "integer":
                return _integer(schema)
            case "number":
                return _decimal(schema)
            case "boolean":
                return lambda dice: dice.roll(2) == 1
            case "null":
                return lambda dice: None
            case _:
                return _string(schema, name)

    def _resolved(self, schema: object) -> dict[str, Any] | None:
        """Follow references and merge `allOf`; None for a reference that leads nowhere."""
        for _ in range(_MAX_DEPTH):
            if schema is True:
                return {}
            if not isinstance(schema, dict):
                return None
            reference = schema.get("$ref") or schema.get("ref")
            if isinstance(reference, str):
                schema = self._at(reference)
            elif parts := _list(schema.get("allOf")):
                rest = {key: value for key, value in schema.items() if key != "allOf"}
                for part in parts:
                    rest = _merged(rest, self._resolved(part) or {})
                schema = rest
            else:
                return schema
        return None

    def _at(self, reference: str) -> object:
        found: object = self._root
        for step in reference.removeprefix("#").strip("/").split("/"):
            if not isinstance(found, dict):
                return None
            found = found.get(step.replace("~1", "/").replace("~0", "~")) if step else found
        return found

    def _object(self, schema: dict[str, Any], depth: int) -> Sampler:
        properties = schema.get("properties")
        if not isinstance(properties, dict):
            return lambda dice: {}
        required = _list(schema.get("required"))
        ordering = _list(schema.get("propertyOrdering") or schema.get("property_ordering"))
        names = [name for name in ordering if name in properties]
        names += [name for name in properties if name not in names]
        # Far down only what has to be there is filled in, so that schemas that contain themselves come to an end.
        kept = [name for name in names if depth < _MAX_DEPTH // 2 or name in required]
        samplers = [(name, self.sampler(properties[name], name, depth + 1)) for name in kept]
        return lambda dice: {name: sampler(dice) for name, sampler in samplers}

    def _array(self, schema: dict[str, Any], name: str, depth: int) -> Sampler:
        low = min(_whole(schema, "minItems", "min_items", default=0), _MAX_ITEMS)
        high = min(_whole(schema, "maxItems", "max_items", default=low + 2), low + 2)
        firsts = [self.sampler(item, name, depth + 1) for item in _list(schema.get("prefixItems"))]
        items = schema.get("items", True)
        if items is False or (depth >= _MAX_DEPTH // 2 and low == 0):
            return lambda dice: [sampler(dice) for sampler in firsts]
        each = self.sampler(items, name, depth + 1)
        shortest = max(low, min(1, high))

        def sample(dice: Dice) -> list[Any]:
            count = shortest + dice.roll(max(high - shortest, 0) + 1)
            values = [sampler(dice) for sampler in firsts[:count]]
            values += [each(dice) for _ in range(count - len(values))]
            return _unique(values, low) if schema.get("uniqueItems") else values

        return sample


def _integer(schema: dict[str, Any]) -> Sampler:
    low, high = _bounds(schema)
    step = max(int(_number(schema.get("multipleOf")) or 1), 1)
    first = math.ceil(low / step)
    count = max(math.floor(high / step) - first, 0) + 1
    return lambda dice: (first + dice.roll(count)) * step


def _decimal(schema: dict[str, Any]) -> Sampler:
    low, high = _bounds(schema)
    step = _number(schema.get("multipleOf"))
    if step:
        first = math.ceil(low / step)
        count = max(math.floor(high / step) - first, 0) + 1
        return lambda dice: (first + dice.roll(count)) * step
    # One of 99 points strictly inside, so that an exclusive bound is kept as well.
    return lambda dice: low if low == high else low + (high - low) * (1 + dice.roll(99)) / 100


def _bounds(schema: dict[str, Any]) -> tuple[float, float]:
    is_whole = _type_of(schema) == "integer"
    low, high = _number(schema.get("minimum")), _number(schema.get("maximum"))
    above, below = _number(schema.get("exclusiveMinimum")), _number(schema.get("exclusiveMaximum"))
    if above is not None:
        low = max(above + is_whole, low if low is not None else -math.inf)
    if below is not None:
        high = min(below - is_whole, high if high is not None else math.inf)
    if low is None:
        low = 0.0 if high is None or high >= 0 else high - _DEFAULT_SPAN
    if high is None:
        high = low + (_DEFAULT_SPAN if is_whole else 1)
    return low, max(low, high)


def _string(schema: dict[str, Any], name: str) -> Sampler:
    form = _FORMATS.get(str(schema.get("format", "")))
    if form is not None:
        return lambda dice: form.format(day=1 + dice.roll(28))
    low = min(_whole(schema, "minLength", "min_length", default=0), _MAX_CHARACTERS)
    high = _whole(schema, "maxLength", "max_length", default=_MAX_CHARACTERS)
    return lambda dice: f"[sandbox] {name} {dice.roll(10_000)}".ljust(low, ".")[:high]


def _type_of(schema: dict[str, Any]) -> str:
    kind = schema.get("type")
    if kinds := _list(kind):
        kind = next((name for name in kinds if str(name).lower() != "null"), "null")
    if kind is None and "properties" in schema:
        return "object"
    if kind is None and ("items" in schema or "prefixItems" in schema):
        return "array"
    return str(kind).lower()


def _merged(base: dict[str, Any], part: object) -> dict[str, Any]:
    """Return both schemas as one: properties and required names of either, otherwise the part wins."""
    if not isinstance(part, dict):
        return base
    rest = {key: value for key, value in base.items() if key not in ("anyOf", "oneOf", "any_of")}
    merged = {**rest, **part}
    for key in ("properties", "$defs"):
        if isinstance(base.get(key), dict) and isinstance(part.get(key), dict):
            merged[key] = {**base[key], **part[key]}
    merged["required"] = [*_list(base.get("required")), *_list(part.get("required"))]
    return merged


def _unique(values: Sequence[Any], low: int) -> list[Any]:
    kept: list[Any] = []
    for value in values:
        if value not in kept:
            kept.append(value)
    return kept if len(kept) >= low else list(values)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _whole(schema: dict[str, Any], camel: str, snake: str, *, default: int) -> int:
    """Return a length bound; Gemini's schema carries them as strings (int64)."""
    number = _number(schema.get(camel, schema.get(snake)))
    return default if number is None else max(int(number), 0)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
