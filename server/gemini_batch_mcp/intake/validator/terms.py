"""What of a request decides its price beside its text: the bounds of its answers, media, tools, a cache.

Read from parsed values only, whichever way a line was parsed: a text that looks like such a member is a text.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, NamedTuple

import msgspec

from gemini_batch_mcp.intake.validator.wire_schema import message, whole_number

#: Members of a GenerateContentRequest that a price depends on.
_PRICED: Final = ("cachedContent", "generationConfig", "tools")
PRICED: Final = frozenset(_PRICED)
#: A tool that costs the tokens of its text and nothing else.
_FUNCTIONS: Final = "functionDeclarations"
#: Most frames that Gemini takes of a second of video (`videoMetadata.fps`).
_MOST_FRAMES: Final = 24.0
_HIGHEST: Final = "MEDIA_RESOLUTION_ULTRA_HIGH"
#: Terms remembered of one decoder's requests; nearly all lines of a file have the same.
_MAX_KEPT: Final = 1 << 10


@dataclass(frozen=True, slots=True)
class Media:
    """One part that is no text. `data` is the JSON literal of its base64, None for a file that is only named."""

    mime_type: str
    data: bytes | memoryview | None = None
    uri: str = ""
    #: As written, such as MEDIA_RESOLUTION_LOW; empty where the request's own holds.
    resolution: str = ""
    #: Frames of a second of video, where more are asked for than one.
    frames: float = 1.0
    #: Tokens that the request itself asks for, 0 where it leaves them to the resolution.
    tokens: int = 0


class Terms(NamedTuple):
    """What one request asks for. `max_output_tokens` is 0 where it sets none, `tools` those priced by themselves."""

    max_output_tokens: int = 0
    candidates: int = 1
    has_cache: bool = False
    tools: tuple[str, ...] = ()
    #: As written in generationConfig.
    resolution: str = ""
    media: tuple[Media, ...] = ()


#: Of a request that sets nothing: a decoder that takes such requests only has nothing to read.
PLAIN: Final = Terms()

#: Returns a member of an object by the names of its message and of the member (lowerCamel), None when it is absent.
Member = Callable[[Any, str, str], Any]


def terms_of(request: Any) -> Terms:
    """Return the terms of a request as JSON has it. What is of a wrong type counts as absent; never raises."""
    return _read(request, _member_of_dict)


def struct_terms(names: Mapping[tuple[str, str], str], *, text_only: bool) -> Callable[[Any], Terms]:
    """Return what reads the terms of a decoded request. `names` leads from (message, member) to the attribute."""
    getters = {place: attrgetter(name) for place, name in names.items()}

    def member(value: Any, owner: str, name: str) -> Any:
        getter = getters.get((owner, name))
        return None if getter is None or value is None else getter(value)

    priced = [getters.get(("GenerateContentRequest", name)) for name in _PRICED]
    if not text_only or None in priced:
        return lambda request: _read(request, member)
    members = attrgetter(*(names["GenerateContentRequest", name] for name in _PRICED))
    bounds = attrgetter(
        *(names["GenerationConfig", name] for name in ("maxOutputTokens", "candidateCount", "mediaResolution"))
    )
    kept: dict[tuple[Any, ...], Terms] = {}

    def of_text(request: Any) -> Terms:
        """Return the same object for the same terms: whoever adds them up need not look at each."""
        cache, config, tools = members(request)
        if tools or cache or config is None:
            return PLAIN if not tools and not cache else _read(request, member)
        key = bounds(config)
        if (known := kept.get(key)) is None:
            known = _read(request, member)
            if len(kept) < _MAX_KEPT:
                kept[key] = known
        return known

    return of_text


def _member_of_dict(value: Any, owner: str, name: str) -> Any:
    if not isinstance(value, dict):
        return None
    found = value.get(name)
    return found if found is not None else value.get(message(owner).fields[name].snake_name)


def _read(request: Any, member: Member) -> Terms:
    config = member(request, "GenerateContentRequest", "generationConfig")
    return Terms(
        max_output_tokens=_count(member(config, "GenerationConfig", "maxOutputTokens"), 0),
        candidates=_count(member(config, "GenerationConfig", "candidateCount"), 1),
        has_cache=bool(member(request, "GenerateContentRequest", "cachedContent")),
        tools=tuple(_priced_tools(member(request, "GenerateContentRequest", "tools"), member)),
        resolution=_level(member(config, "GenerationConfig", "mediaResolution")),
        media=tuple(_media(request, member)),
    )


def _priced_tools(tools: Any, member: Member) -> Iterator[str]:
    for tool in _items(tools):
        for name in message("Tool").fields:
            if name != _FUNCTIONS and member(tool, "Tool", name) is not None:
                yield name


def _media(request: Any, member: Member) -> Iterator[Media]:
    for owner, holder in (
        ("Content", member(request, "GenerateContentRequest", "contents")),
        ("Instruction", member(request, "GenerateContentRequest", "systemInstruction")),
        ("Instruction", member(request, "EmbedContentRequest", "content")),
    ):
        for content in _items(holder):
            for part in _items(member(content, owner, "parts")):
                yield from _media_of(part, "Part", member)
                answer = member(part, "Part", "functionResponse")
                for inner in _items(member(answer, "FunctionResponse", "parts")):
                    yield from _media_of(inner, "FunctionResponsePart", member)


def _media_of(part: Any, owner: str, member: Member) -> Iterator[Media]:
    literal: bytes | memoryview | None = None
    uri = ""
    if (blob := member(part, owner, "inlineData")) is not None:
        data = member(blob, "Blob", "data")
        literal = memoryview(data) if isinstance(data, msgspec.Raw) else _text(data).encode("utf-8", "replace")
        mime_type = _text(member(blob, "Blob", "mimeType"))
    elif (file := member(part, owner, "fileData")) is not None:
        mime_type, uri = _text(member(file, "FileData", "mimeType")), _text(member(file, "FileData", "fileUri"))
    else:
        return
    own = member(part, owner, "mediaResolution")
    tokens = _count(member(own, "PartMediaResolution", "numTokens"), 0)
    level = member(own, "PartMediaResolution", "level")
    frames = member(member(part, owner, "videoMetadata"), "VideoMetadata", "fps")
    yield Media(mime_type, literal, uri, _level(level), _frames(frames), tokens)


def _items(value: Any) -> Any:
    if value is None:
        return ()
    return value if isinstance(value, list) else (value,)


def _count(value: Any, otherwise: int) -> int:
    """Return a whole number as the check takes it: 7, 7.0, 1e4 and "7"."""
    number = whole_number(value)
    return number if number is not None and number > 0 else otherwise


def _level(value: Any) -> str:
    """Return a resolution by its name; for one that is given as proto-JSON's number, the highest there is."""
    return _text(value) if value is None or isinstance(value, str) else _HIGHEST


def _frames(value: Any) -> float:
    try:
        return min(max(float(value), 1.0), _MOST_FRAMES)
    except (TypeError, ValueError):
        return 1.0


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
