"""The one JSON value of an answer that has something around it: a code block, a sentence, an end too many."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from gemini_batch_mcp.domain import JsonObject

_OPENERS: Final[Mapping[str, str]] = {"object": "{", "array": "["}
_FENCE: Final = "```"
#: Where an object or a list begins. A bracket before anything else is one of prose.
_OPENER: Final = re.compile(r"\{|\[(?=\s*(?:[{\[\"\-0-9\]]|true\b|false\b|null\b))")


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


_decode: Final = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode


def kinds_of(schema: JsonObject) -> frozenset[str]:
    """Return which of `object` and `array` an answer to a plain schema may be; both where it does not say."""
    types = schema.get("type")
    names = {types} if isinstance(types, str) else set(types) if isinstance(types, list) else set(_OPENERS)
    return frozenset(names & set(_OPENERS))


def taken_out(text: str, kinds: frozenset[str]) -> str | None:
    """Return the JSON of these kinds that stands in a text which is no JSON itself, None where it is not certain.

    Certain is what stands there once, or several times with the same value, and where nothing begins that was to be
    JSON and is not: a part of a broken answer is no answer. Every character is looked at once or twice.
    """
    if (block := _only_block(text)) is not None:
        return block
    wanted = {_OPENERS[kind] for kind in kinds}
    found: str | None = None
    first: Any = None
    place = 0
    while opener := _OPENER.search(text, place):
        try:
            value, place = _decode(text, opener.start())
        except (ValueError, RecursionError):
            return None
        if text[opener.start()] not in wanted:
            continue
        same_text = (
            found is not None and text.startswith(found, opener.start()) and place == opener.start() + len(found)
        )
        if found is None:
            found, first = text[opener.start() : place], value
        elif not same_text and not _same(first, value):
            return None
    return found


def _only_block(text: str) -> str | None:
    """Return the JSON in the one code block that a text consists of, None where it is something else."""
    whole = text.strip()
    if not (whole.startswith(_FENCE) and whole.endswith(_FENCE) and len(whole) >= 2 * len(_FENCE)):
        return None
    inside = whole[len(_FENCE) : -len(_FENCE)].lstrip()
    if inside[:4].casefold() == "json":
        inside = inside[4:]
    try:
        _, end = _decode(inside := inside.strip())
    except (ValueError, RecursionError):
        return None
    return inside if end == len(inside) else None


def _same(one: Any, other: Any) -> bool:
    """True for the same JSON value: 1 and true are two."""
    try:
        return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    except RecursionError:
        return False
