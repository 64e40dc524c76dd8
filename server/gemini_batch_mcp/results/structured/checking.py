"""Whether a structured answer fits the schema that it was ordered with.

Two validators, because a million answers have to be checked and every verdict has to be right. `msgspec` decodes an
answer into a type made from the schema, which takes a microsecond; what it accepts fits. Everything that it refuses,
and every schema that no such type can say, is judged by `jsonschema`, which also knows the reason.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from gemini_batch_mcp.domain import JsonObject
from gemini_batch_mcp.results.structured._types import NoType, answer_type
from gemini_batch_mcp.results.structured.schema import member_names, plain_schema

_SUBJECT: Final = "the answer"
#: The reason of an answer that breaks a keyword; `{value}` is the keyword's own value.
_REASONS: Final[Mapping[str, str]] = {
    "enum": "is none of the allowed values",
    "const": "is not the allowed value",
    "additionalProperties": "has a member that the schema does not name",
    "anyOf": "fits none of the allowed forms",
    "oneOf": "does not fit exactly one of the allowed forms",
    "minimum": "is below {value}",
    "maximum": "is above {value}",
    "exclusiveMinimum": "is not above {value}",
    "exclusiveMaximum": "is not below {value}",
    "multipleOf": "is no multiple of {value}",
    "minLength": "is shorter than {value}",
    "maxLength": "is longer than {value}",
    "minItems": "has fewer than {value} items",
    "maxItems": "has more than {value} items",
    "minProperties": "has fewer than {value} members",
    "maxProperties": "has more than {value} members",
    "uniqueItems": "holds an item twice",
    "pattern": "does not match its pattern",
}
_KINDS: Final = {dict: "an object", list: "a list", str: "text", bool: "a boolean", type(None): "null"}
_TYPE_NAMES: Final = {"object": "an object", "array": "a list", "string": "text", "integer": "a whole number"} | {
    "number": "a number",
    "boolean": "a boolean",
    "null": "null",
}

NO_JSON: Final = "the answer is no JSON"


class AnswerCheck:
    """Judges answers by one schema, as the order gave it. May be used by one thread at a time."""

    def __init__(self, schema: JsonObject) -> None:
        self._schema = plain_schema(schema)
        self._names = member_names(self._schema)
        self._decode = _fast_decoder(self._schema)
        self._validator: Any = None

    def fault(self, answer: str) -> str:
        """Return why `answer` does not fit, in words of ours, empty when it fits."""
        if self._decode is not None:
            try:
                self._decode(answer)
            except (msgspec.DecodeError, ValueError, RecursionError):
                pass  # also for a reason that is none, such as 1.0 for a whole number
            else:
                return ""
        try:
            value = json.loads(answer, parse_constant=_refuse_constant)
            return self._reason(value)
        except (ValueError, RecursionError):
            return NO_JSON

    def _reason(self, value: Any) -> str:
        import jsonschema
        import referencing

        if self._validator is None:
            # Nothing is fetched: a reference out of the schema leads nowhere.
            self._validator = jsonschema.Draft202012Validator(self._schema, registry=referencing.Registry())
        try:
            error = jsonschema.exceptions.best_match(self._validator.iter_errors(value))
        except (TypeError, re.error, referencing.exceptions.Unresolvable):
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


def _fast_decoder(schema: JsonObject) -> Callable[[str], Any] | None:
    try:
        return msgspec.json.Decoder(answer_type(schema)).decode
    except (NoType, TypeError, ValueError, re.error):  # all but the first: a type that msgspec cannot decode
        return None


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
    return _REASONS.get(keyword, f"breaks {keyword}").format(value=limit)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
