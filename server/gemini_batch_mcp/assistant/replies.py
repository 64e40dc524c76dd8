"""A reply as it leaves: short enough to be read, and free of what no JSON carries."""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator

#: Neither the text of a reply nor its structured content is longer; see the README's table of limits.
MAX_REPLY_CHARS: Final = 20_000
#: Of a sentence that is too long, what is kept of its end: what to do next.
_KEPT_END_CHARS: Final = 1_000
#: In turn: characters of a text, and members of a list or an object, that a reply which is too long may have. No name
#: of a job or a batch has a hundred characters: they stay whole.
SHORTER: Final = ((2000, 200), (1000, 100), (500, 50), (200, 25), (100, 12), (100, 6), (100, 3))

#: What an assistant goes on with.
NEEDED: Final = frozenset({"batch_id", "next_cursor", "advice", "state"})

_HALF_PAIR: Final = re.compile("[\ud800-\udfff]")


def whole(text: Any) -> Any:
    """Return a text with half surrogate pairs written out: a file may have them in its name, and no JSON does."""
    return _HALF_PAIR.sub(lambda half: f"<U+{ord(half[0]):04X}>", text) if isinstance(text, str) else text


#: Text from anywhere, in a view.
Text = Annotated[str, BeforeValidator(whole)]


def is_short(text: str, structured: Any) -> bool:
    """Return whether a reply is short enough, in both of its forms."""
    return len(text) <= MAX_REPLY_CHARS and len(_compact(structured)) <= MAX_REPLY_CHARS


def shortened(value: Any, max_chars: int, max_members: int, *, kept: frozenset[str] = NEEDED) -> Any:
    """Return a value with its long texts, lists and objects cut, which is said where it can be.

    Of a view no field goes, and those called `kept` stay as they are, but for what is inside of a page.
    """
    match value:
        case str() if len(value) > max_chars:
            mark = f"… [cut: {len(value):,} characters in all]"
            return value[: max(max_chars - len(mark), 10)] + mark
        case list():
            cut = [shortened(member, max_chars, max_members, kept=frozenset()) for member in value[:max_members]]
            more = len(value) - len(cut)
            return [*cut, f"and {more:,} more"] if more and isinstance(value[0], str) else cut
        case dict():
            members = list(value.items())[:max_members]
            return {
                shortened(name, max_chars, max_members): shortened(member, max_chars, max_members)
                for name, member in members
            }
        case BaseModel():
            fields = {name: getattr(value, name) for name in type(value).model_fields}
            cut_fields = {
                name: [shortened(member, max_chars, max_members, kept=frozenset()) for member in field]
                if name in kept
                else shortened(field, max_chars, max_members, kept=frozenset())
                for name, field in fields.items()
                if name not in kept or isinstance(field, list)
            }
            return value.model_copy(update=cut_fields)
    return value


def short(text: str) -> str:
    """Return a sentence of ours as it may leave; of one that is too long the beginning and the end."""
    text = whole(text)
    if len(text) <= MAX_REPLY_CHARS:
        return str(text)
    mark = f"… [cut: {len(text):,} characters in all] … "
    return f"{text[: MAX_REPLY_CHARS - _KEPT_END_CHARS - len(mark)]}{mark}{text[-_KEPT_END_CHARS:]}"


def _compact(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
