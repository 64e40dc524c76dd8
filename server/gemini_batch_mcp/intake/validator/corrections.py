"""How a wrong member is put right: the nearest right name, the place where it belongs, the form it should have."""

import difflib
import json
import os
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final

from gemini_batch_mcp.intake.validator.enums import ENUMS, STRING_ENUMS
from gemini_batch_mcp.intake.validator.wire_schema import Field, Message, message
from gemini_batch_mcp.json_members import snake_case

#: Names longer than this are not compared with ours: the comparison is quadratic, and no name of ours is that long.
_LONGEST_COMPARED: Final = 64
#: How like a name of ours is what was meant as that name; the letters of `responseFormat` are like much that is new.
_SLIP: Final = 0.75
#: What may be the name of a member, or a value of an enum, that Gemini has got since.
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
#: Places deeper than this are not offered: "belongs inside a.b.c.d" helps nobody.
_DEEPEST_OFFERED: Final = 3

TEXT_PART: Final = '{"text":"…"}'
INSTRUCTION: Final = '{"parts":[{"text":"…"}]}'
CONTENTS: Final = '[{"role":"user","parts":[{"text":"…"}]}]'

#: What people write who come from another API, by message and by name in lower case without underscores.
_FOREIGN: Final[Mapping[str, Mapping[str, str]]] = {
    "GenerateContentRequest": {
        "config": "`config` is the Python SDK's format. In a file, write `generationConfig`; systemInstruction, tools, "
        "toolConfig, safetySettings and cachedContent go directly inside `request`.",
        "content": f'Write `contents`: {CONTENTS}. For embeddings, give task "embed".',
        "messages": f"Write `contents`: {CONTENTS}, with the role `model` for answers.",
        "prompt": f"Write `contents`: {CONTENTS}.",
        "system": f"Write `systemInstruction`: {INSTRUCTION}.",
        "systemprompt": f"Write `systemInstruction`: {INSTRUCTION}.",
        "maxtokens": "Write `maxOutputTokens` inside `generationConfig`.",
        "stream": "Remove it; batch answers are not streamed.",
    },
    "EmbedContentRequest": {
        "contents": f'Write `content`: {INSTRUCTION}, one text per line. To generate text, give task "generate".',
        "config": "Write its members directly inside `request`: taskType, title, outputDimensionality.",
        "input": f"Write `content`: {INSTRUCTION}.",
        "dimensions": "Write `outputDimensionality`.",
    },
    "GenerationConfig": {
        "maxtokens": "Write `maxOutputTokens`.",
        "maxcompletiontokens": "Write `maxOutputTokens`.",
        "stop": 'Write `stopSequences`: ["…"].',
        "n": "Write `candidateCount`.",
        "jsonschema": "Write `responseSchema`.",
        "responsejsonschemaordered": "Write `responseJsonSchema`.",
    },
    "Schema": {
        "additionalproperties": "Leave it out; Gemini's responseSchema does not have it.",
        "$ref": "Write the schema that it refers to in its place.",
        "ref": "Write the schema that it refers to in its place.",
        "$defs": "Write each definition in the places that refer to it.",
        "defs": "Write each definition in the places that refer to it.",
        "definitions": "Write each definition in the places that refer to it.",
        "$schema": "Leave it out.",
        "const": 'Write `enum`: ["…"] with the one value.',
        "oneof": "Write `anyOf`.",
        "examples": "Write `example` with one of them.",
    },
    "Content": {"content": f"Write `parts`: [{TEXT_PART}].", "text": f"Write `parts`: [{TEXT_PART}]."},
    "Instruction": {"content": f"Write `parts`: [{TEXT_PART}].", "text": f"Write `parts`: [{TEXT_PART}]."},
    "Part": {
        "type": f"Leave it out; a part is just {TEXT_PART}, inlineData or fileData.",
        "imageurl": 'Write `fileData`: {"fileUri":"…","mimeType":"image/png"}.',
        "image": 'Write `inlineData`: {"mimeType":"image/png","data":"…"} with base64.',
    },
    "FileData": {"uri": "Write `fileUri`.", "url": "Write `fileUri`."},
    "FunctionDeclaration": {"inputschema": "Write `parameters`.", "arguments": "Write `parameters`."},
}

#: The form of a message that people like to shorten to a text.
_TEXT_FORMS: Final[Mapping[str, str]] = {
    "Content": '{"role":"user","parts":[{"text":"…"}]}',
    "Instruction": INSTRUCTION,
    "Part": TEXT_PART,
    "VoiceConfig": '{"prebuiltVoiceConfig":{"voiceName":"…"}}',
    "SpeechConfig": '{"voiceConfig":{"prebuiltVoiceConfig":{"voiceName":"…"}}}',
    "Tool": '{"googleSearch":{}}',
}
_LIST_FORMS: Final[Mapping[str, str]] = {"contents": CONTENTS, "parts": f"[{TEXT_PART}]"}

_ROLES: Final[Mapping[str, str]] = {
    "assistant": 'Write "model".',
    "ai": 'Write "model".',
    "bot": 'Write "model".',
    "system": "Move its parts into `systemInstruction`.",
    "developer": "Move its parts into `systemInstruction`.",
    "tool": 'Write "user", with functionResponse parts.',
}


def shown(text: str, limit: int = 60) -> str:
    """Return text from outside as one short, printable word."""
    if len(text) <= limit and text.isprintable():
        return text
    printable = "".join(character if character.isprintable() else "?" for character in text[:limit])
    return printable + "…" if len(text) > limit else printable


def shown_value(value: Any) -> str:
    """Return a JSON value, shortened, for a message."""
    if isinstance(value, str):
        return f'"{shown(value, 40)}"'
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    return shown(json.dumps(value), 40)


def kind(value: Any) -> str:
    """Return what kind of JSON value this is, as a noun."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, str):
        return "text"
    if isinstance(value, int | float):
        return "a number"
    return "a list" if isinstance(value, list) else "an object"


def unknown_member(name: str, owner: Message, root: Message) -> str:
    """Return what to do about a member that `owner` does not have, in a request described by `root`."""
    if not owner.fields:
        return "Leave it out; the object stays empty: {}."
    if fix := _known_mistake(name, owner, root):
        return fix
    if near := nearest(name, owner.spellings):
        return f"Did you mean `{near}`?"
    return f"Leave it out. {_members(owner)}"


def is_new_member(name: str, owner: Message, root: Message) -> bool:
    """True for a member that is like none that we know, nor one of another place or of another API.

    What only looks a little like one of ours is new: a slip of the hand changes a letter or two.
    """
    if not _NAME.fullmatch(name) or _known_mistake(name, owner, root):
        return False
    return not nearest(name, owner.spellings, cutoff=_SLIP)


def is_new_value(value: str, field: Field) -> bool:
    """True for a value that is like none of an enum whose values are open."""
    if field.type in STRING_ENUMS or not _NAME.fullmatch(value):
        return False
    # What all values begin with makes them all alike.
    values = [known.upper() for known in ENUMS[field.type]]
    start = os.path.commonprefix(values)  # noqa: RUF071 - of names, not of paths
    start = start[: start.rfind("_") + 1]
    asked = value.upper().removeprefix(start)
    ends = [known.removeprefix(start) for known in values]
    return not any(end == asked or end.endswith(f"_{asked}") for end in ends) and not nearest(asked, ends, cutoff=_SLIP)


def _known_mistake(name: str, owner: Message, root: Message) -> str:
    """Return what to do about a member that we know from elsewhere; empty when we do not."""
    plain = _plain(name)
    if plain in {_plain(known) for known in owner.vertex_only} and owner.name != "Schema":
        return "Leave it out; only Vertex AI has it."
    if fix := _FOREIGN.get(owner.name, {}).get(plain):
        return fix
    for known in owner.fields:
        if _plain(known) == plain:
            return f"Did you mean `{_styled(known, name)}`?"
    return _place_of(name, owner, root)


def member_of_request(name: str, root: Message) -> str:
    """Return where a member belongs that stands beside `request`, empty when nowhere."""
    if name in root.spellings:
        return f"`{shown(name)}` belongs inside `request`."
    return _place_of(name, None, root)


def nearest(name: str, names: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return the name that is most like `name`, empty when none is; `cutoff` is as in difflib."""
    if len(name) > _LONGEST_COMPARED:
        return ""
    close = difflib.get_close_matches(name, sorted(set(names)), n=1, cutoff=cutoff)
    return close[0] if close else ""


def enum_value(value: Any, field: Field) -> str:
    """Return what to write instead of a value that the enum does not have."""
    values = ENUMS[field.type]
    if not isinstance(value, str):
        if field.type == "Type" and isinstance(value, list):
            return 'Write one type and `"nullable":true`, or use `anyOf`.'
        return f"Write one of {_listed(values)}."
    if field.type == "Role" and (fix := _ROLES.get(value.lower())):
        return fix
    asked = value.strip().upper()
    for known in values:
        if known.upper() == asked or known.upper().endswith(f"_{asked}"):
            return f'Write "{known}".'
    near = nearest(asked, [known.upper() for known in values])
    for known in values:
        if near and known.upper() == near:
            return f'Did you mean "{known}"?'
    return f"Write one of {_listed(values)}."


def object_form(owner: Message, value: Any) -> str:
    """Return what to write where an object is wanted and something else stands."""
    form = _TEXT_FORMS.get(owner.name)
    if form and isinstance(value, str):
        return f"Write {form}."
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        return "Write the object without the list around it."
    if form:
        return f"Write {form}."
    return f"Write an object. {_members(owner)}"


def list_form(field: Field, value: Any) -> str:
    """Return what to write where a list is wanted and something else stands."""
    form = _LIST_FORMS.get(field.name)
    if form and isinstance(value, str):
        return f"Write {form}."
    return "Put it into a list: [ … ]."


def _place_of(name: str, owner: Message | None, root: Message) -> str:
    """Say where in the request a member of that name belongs, if there is one nearest place."""
    places = _places(root.name).get(_plain(name), ())
    if not places:
        return ""
    depth = min(len(place) for place in places)
    nearest_places = [place for place in places if len(place) == depth]
    if len(nearest_places) != 1 or depth > _DEEPEST_OFFERED:
        return ""
    steps = nearest_places[0] if owner is not None else ("request", *nearest_places[0])
    if not steps:
        return f"`{shown(name)}` belongs directly inside `request`."
    return f"`{shown(name)}` belongs inside `{'.'.join(steps)}`."


@cache
def _places(root: str) -> dict[str, list[tuple[str, ...]]]:
    """Map each member name to the paths of the messages that have it, breadth first, each message once."""
    places: dict[str, list[tuple[str, ...]]] = {}
    waiting: list[tuple[str, tuple[str, ...]]] = [(root, ())]
    visited = {root}
    while waiting:
        name, path = waiting.pop(0)
        for field in message(name).fields.values():
            places.setdefault(_plain(field.name), []).append(path)
            if field.is_message and field.type not in visited:
                visited.add(field.type)
                waiting.append((field.type, (*path, field.name + ("[]" if field.shape == "list" else ""))))
    return places


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


def _styled(known: str, like: str) -> str:
    """Return our name in the style that the user writes."""
    return snake_case(known) if "_" in like else known


def _members(owner: Message) -> str:
    return f"{owner.title} has {_listed(owner.fields)}." if owner.fields else "It stays empty: {}."


def _listed(names: Iterable[str], limit: int = 12) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")
