"""Whether a structured answer fits the schema that it was ordered with.

Two validators, because a million answers have to be checked and every verdict has to be right. `msgspec` decodes an
answer into a type made from the schema, which takes a microsecond; what it accepts fits. Everything that it refuses,
and every schema that no such type can say, is judged by `jsonschema`, which also knows the reason. Neither runs
patterns by `re`, or compares the items of a list with each other: one answer would hold up all others for hours.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

import msgspec

from gemini_batch_mcp.domain import JsonObject
from gemini_batch_mcp.patterns import Pattern, TooLong, patterns_of
from gemini_batch_mcp.results.structured._taking import kinds_of, taken_out
from gemini_batch_mcp.results.structured._types import NoType, answer_decoder
from gemini_batch_mcp.results.structured.schema import member_names, plain_schema
from gemini_batch_mcp.settings import MAX_JUDGED_CHARS

_SUBJECT: Final = "the answer"
#: The reason of an answer that breaks a keyword; `{value}` is the keyword's own value.
_REASONS: Final[Mapping[str, str]] = {
    "enum": "is not one of the allowed values",
    "const": "is not the allowed value",
    "additionalProperties": "has a member that is not in the schema",
    "anyOf": "fits none of the allowed forms",
    "oneOf": "does not fit exactly one of the allowed forms",
    "minimum": "is below {value}",
    "maximum": "is above {value}",
    "exclusiveMinimum": "is not above {value}",
    "exclusiveMaximum": "is not below {value}",
    "multipleOf": "is not a multiple of {value}",
    "minLength": "is shorter than {value}",
    "maxLength": "is longer than {value}",
    "minItems": "has fewer than {value} items",
    "maxItems": "has more than {value} items",
    "minProperties": "has fewer than {value} members",
    "maxProperties": "has more than {value} members",
    "uniqueItems": "contains an item twice",
    "pattern": "does not match its pattern",
}
_KINDS: Final = {dict: "an object", list: "a list", str: "text", bool: "a boolean", type(None): "null"}
_TYPE_NAMES: Final = {"object": "an object", "array": "a list", "string": "text", "integer": "a whole number"} | {
    "number": "a number",
    "boolean": "a boolean",
    "null": "null",
}

_MOST_ERRORS: Final = 20
_TOO_LONG: Final = "too long"
NO_JSON: Final = "the answer is not valid JSON"


class AnswerCheck:
    """Judges answers by one schema, as the order gave it. May be used by one thread at a time."""

    def __init__(self, schema: JsonObject) -> None:
        self._schema = plain_schema(schema)
        self._names = member_names(self._schema)
        self._patterns = patterns_of(self._schema)
        self._decode = _fast_decoder(self._schema, self._patterns)
        self._kinds = kinds_of(self._schema)
        self._validator: Any = None

    def taken_out(self, answer: str) -> str | None:
        """Return the JSON of the schema's kind in an answer that is none by itself, None where that is not certain."""
        return taken_out(answer, self._kinds) if len(answer) <= MAX_JUDGED_CHARS else None

    def fault(self, answer: str) -> str:
        """Return why `answer` does not fit, in words of ours, empty when it fits."""
        if len(answer) > MAX_JUDGED_CHARS:
            return f"the answer has {len(answer):,} characters; up to {MAX_JUDGED_CHARS:,} are checked"
        if self._decode is not None:
            try:
                self._decode(answer)
            except (msgspec.DecodeError, ValueError, RecursionError):
                pass  # also for a reason that is none, such as 1.0 for a whole number
            else:
                return ""
        try:
            value = json.loads(answer, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return NO_JSON
        try:
            return self._reason(value)
        except Exception as error:
            # Whatever an answer does to the library that judges it, it does to this row only.
            return f"the answer cannot be judged ({type(error).__name__})"

    def _reason(self, value: Any) -> str:
        import jsonschema
        import referencing

        if self._validator is None:
            # Nothing is fetched: a reference out of the schema leads nowhere.
            complete = jsonschema.Draft202012Validator
            kind = jsonschema.validators.extend(complete, _keywords(self._patterns))  # type: ignore[no-untyped-call]  # as its stubs have it
            self._validator = kind(self._schema, registry=referencing.Registry())
        try:
            # The first ones tell enough: an answer may have one for each of a million items.
            error = jsonschema.exceptions.best_match(islice(self._validator.iter_errors(value), _MOST_ERRORS))
        except (TypeError, referencing.exceptions.Unresolvable):
            return ""  # The schema itself is broken, in a way that neither intake nor Gemini minded.
        return "" if error is None else f"{self._place(error.absolute_path)} {_words(error)}"

    def _place(self, path: Any) -> str:
        """Say where in the answer; names that the model made up are not repeated."""
        place = ""
        for step in path:
            if isinstance(step, int):
                place += f"[{step}]"
            else:
                place += ("." if place else "") + (step if step in self._names else "*")
        return place or _SUBJECT


def _fast_decoder(schema: JsonObject, patterns: Mapping[str, Pattern | None]) -> Callable[[str], Any] | None:
    try:
        return answer_decoder(schema, patterns)
    except (NoType, TypeError, ValueError):  # all but the first: a type that msgspec cannot decode
        return None


def _keywords(patterns: Mapping[str, Pattern | None]) -> dict[str, Callable[..., Iterator[Any]]]:
    """Return the keywords of JSON Schema that are judged here, in time that grows with the answer only."""
    import jsonschema

    def pattern(_: Any, limit: Any, value: Any, schema: Any) -> Iterator[Any]:
        judged = patterns.get(limit) if isinstance(limit, str) else None
        if judged is None or not isinstance(value, str):
            return
        try:
            if not judged.fits(value):
                yield jsonschema.ValidationError("pattern")
        except TooLong:
            yield jsonschema.ValidationError(_TOO_LONG)

    def unique_items(_: Any, limit: Any, value: Any, schema: Any) -> Iterator[Any]:
        if limit and isinstance(value, list) and len({_identity(item) for item in value}) < len(value):
            yield jsonschema.ValidationError("uniqueItems")

    def additional_properties(validator: Any, limit: Any, value: Any, schema: Any) -> Iterator[Any]:
        if "patternProperties" not in schema:
            yield from jsonschema.Draft202012Validator.VALIDATORS["additionalProperties"](
                validator, limit, value, schema
            )

    def not_judged(*_: Any) -> Iterator[Any]:
        return iter(())

    return {
        "pattern": pattern,
        "uniqueItems": unique_items,
        "additionalProperties": additional_properties,
        "patternProperties": not_judged,
        "unevaluatedProperties": not_judged,
    }


def _identity(value: Any) -> Any:
    """Return what is the same for two JSON values if and only if they are equal: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, dict):
        return "object", frozenset((name, _identity(member)) for name, member in value.items())
    if isinstance(value, list):
        return "list", tuple(map(_identity, value))
    return ("boolean", value) if isinstance(value, bool) else value


def _words(error: Any) -> str:
    keyword, limit, instance = error.validator, error.validator_value, error.instance
    if keyword == "required":
        missing = next(name for name in limit if name not in instance)
        return f"lacks {missing}"
    if keyword == "type":
        wanted = " or ".join(
            _TYPE_NAMES.get(name, str(name)) for name in ([limit] if isinstance(limit, str) else limit)
        )
        return f"is {_KINDS.get(type(instance), 'a number')}, not {wanted}"
    if error.message == _TOO_LONG:
        return f"is too long for its pattern to be checked ({len(instance):,} characters)"
    return _REASONS.get(keyword, f"breaks {keyword}").format(value=limit)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not valid JSON")
