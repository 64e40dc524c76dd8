"""The slips that are put right in what is sent, never in the user's file (each with a counted warning).

Everything else that is wrong is refused: a guess about the rest could change what the user asked for.
"""

import json
from enum import StrEnum
from typing import Any, Final

from gemini_batch_mcp.domain import Task
from gemini_batch_mcp.intake.requests._spelling import Respelling
from gemini_batch_mcp.intake.validator.wire_schema import request_message
from gemini_batch_mcp.intake.validator.world import lines_named

_THINKING: Final = ("thinkingConfig", "thinking_config")
_SYSTEM: Final = ("systemInstruction", "system_instruction")
_GENERATION: Final = ("generationConfig", "generation_config")


class Slip(StrEnum):
    """What was put right; the value completes a warning."""

    SYSTEM_INSTRUCTION = "systemInstruction was given as text in {where}; it is sent as a Content object."
    CONTENTS = "contents was given as text in {where}; it is sent as a user turn."
    THINKING = "thinkingConfig was outside generationConfig in {where}; it is sent inside."

    ROLE = "contents had no role in {where}; it is sent as the user's, because Google Cloud takes none without a role."
    CASES = "Values had the wrong letter case in {where}; they are sent as Gemini writes them."
    LISTS = "A single value was given where a list is expected in {where}; it is sent as a list of one."

    PARTS = "Parts were given as text in {where}; they are sent as Part objects."
    QUOTES = "true or false stood in quotes in {where}; it is sent without them."
    NULLS = "A type was given together with null in {where}; it is sent as nullable."

    def warning(self, count: int, first: int, unit: str) -> str:
        """Return the warning for `count` lines (or other units), the first of which has the number `first`."""
        return self.value.format(where=lines_named(count, first, unit))


def mend(line: Any, task: Task, *, needs_role: bool = False) -> frozenset[Slip]:
    """Put right what can be, inside the JSON value of one line; return what it was."""
    if task != "generate" or not isinstance(line, dict) or not isinstance(line.get("request"), dict):
        return frozenset()
    request = line["request"]
    slips = set()
    for name in _SYSTEM:
        if isinstance(text := request.get(name), str):
            request[name] = {"parts": [{"text": text}]}
            slips.add(Slip.SYSTEM_INSTRUCTION)
    if isinstance(text := request.get("contents"), str):
        request["contents"] = [{"role": "user", "parts": [{"text": text}]}]
        slips.add(Slip.CONTENTS)
    if needs_role and _give_roles(request):
        slips.add(Slip.ROLE)
    if _move_thinking(line, request):
        slips.add(Slip.THINKING)
    return frozenset(slips)


def respell(line: Any, task: Task) -> frozenset[Slip]:
    """Write spellings that have one meaning as Gemini has them, inside a line that is wrong; return what it was."""
    if not isinstance(line, dict):
        return frozenset()
    respelling = Respelling()
    respelling.object(line.get("request"), request_message(task))
    found = (
        (respelling.has_cases, Slip.CASES),
        (respelling.has_lists, Slip.LISTS),
        (respelling.has_texts, Slip.PARTS),
        (respelling.has_quotes, Slip.QUOTES),
        (respelling.has_nulls, Slip.NULLS),
    )
    return frozenset(slip for is_there, slip in found if is_there)


def to_line(value: Any) -> bytes:
    """Return a JSON value as one line of a request file, without its line end.

    Raises:
        ValueError: it holds something that JSON does not have, such as NaN.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")


def _give_roles(request: dict[str, Any]) -> bool:
    """Make turns without a role the user's, as the Gemini API takes them; return whether there were any."""
    contents = request.get("contents")
    turns = contents if isinstance(contents, list) else [contents]
    silent = [turn for turn in turns if isinstance(turn, dict) and turn.get("role") in (None, "")]
    for turn in silent:
        turn["role"] = "user"
    return bool(silent)


def _move_thinking(line: dict[str, Any], request: dict[str, Any]) -> bool:
    """Move a thinking config from beside `generationConfig` (or beside `request`) into it, if nothing is there yet."""
    strays = [(owner, name) for owner in (request, line) for name in _THINKING if name in owner]
    homes = [name for name in _GENERATION if request.get(name) is not None]
    if len(strays) != 1 or len(homes) > 1:
        return False
    home = request[homes[0]] if homes else {}
    if not isinstance(home, dict) or any(home.get(name) is not None for name in _THINKING):
        return False
    owner, name = strays[0]
    home[name] = owner.pop(name)
    if not homes:
        request["generationConfig"] = home
    return True
