"""An order's settings in ready lines that do not set them: what a line says itself stays."""

from collections.abc import Mapping
from typing import Any, Final

from gemini_batch_mcp.domain import Task
from gemini_batch_mcp.intake.requests.mending import to_line
from gemini_batch_mcp.intake.validator.wire_schema import Message, message, request_message

_CONFIG: Final = "generationConfig"
#: With what every name ends under which settings stand; inside a text the quotation mark would be escaped.
_CONFIGS: Final = b'onfig"'
_SCHEMAS: Final = frozenset({"responseSchema", "responseJsonSchema", "responseMimeType", "responseFormat"})


class Filling:
    """`members` are those of a request, in lowerCamel, as `generation_config.request_members` returns them."""

    def __init__(self, task: Task, members: Mapping[str, Any]) -> None:
        self._task = task
        self._members = members
        self._end = b""
        if task == "generate":
            self._end = b',"generationConfig":' + to_line(members[_CONFIG]) + b"}}"

    def quick(self, line: bytes) -> bytes | None:
        """Return a line (with its end or without) filled in, None for one that must be read first."""
        bare = line.rstrip(b" \t\r\n")
        if not self._end or not bare.endswith(b"}}") or bare.endswith(b"{}}") or _CONFIGS in bare:
            return None
        # Its key is a text, so what ends with two braces ends with its request.
        return bare[:-2] + self._end + b"\n"

    def into(self, line: Any) -> bool:
        """Fill in the JSON value of a line, in place; return whether anything was missing."""
        request = line.get("request") if isinstance(line, dict) else None
        if not isinstance(request, dict):
            return False
        if self._task == "embed":
            return _fill(request, self._members, request_message("embed"))
        names = [name for name in (_CONFIG, "generation_config") if request.get(name) is not None]
        if not names:
            for name in (_CONFIG, "generation_config"):
                request.pop(name, None)
            request[_CONFIG] = dict(self._members[_CONFIG])
            return True
        own = request[names[0]]
        return (
            len(names) == 1
            and isinstance(own, dict)
            and _fill(own, self._members[_CONFIG], message("GenerationConfig"))
        )


def _fill(own: dict[str, Any], members: Mapping[str, Any], owner: Message) -> bool:
    """Add what `own` has in neither spelling. A form of the answer is one thing: a line's own is not added to."""
    present = {
        owner.spellings[name].name for name, value in own.items() if value is not None and name in owner.spellings
    }
    missing = {
        name: value
        for name, value in members.items()
        if name not in present and not (name in _SCHEMAS and present & _SCHEMAS)
    }
    for name in missing:
        own.pop(name, None)
        if name in owner.spellings:
            own.pop(owner.spellings[name].snake_name, None)
    own.update(missing)
    return bool(missing)
