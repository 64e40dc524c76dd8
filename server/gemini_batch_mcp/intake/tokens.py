"""How many input tokens a request has, by rules that need no vocabulary and no network.

Text. Google's guide gives about four characters a token for Latin script. Others need more, and by UTF-8 length the
scripts fall apart well enough: characters of one byte count a quarter of a token, of two bytes (accents, Greek,
Cyrillic, Hebrew, Arabic) a half, of three and four (Chinese, Japanese, Korean, Indic scripts, emoji) a whole one.
The last two are assumptions on the careful side. Tools and schemas count as their JSON text.

Media, by Google's token and media-resolution guides. Gemini 3 and later: 1,120 an image, 560 a PDF page, at the
default resolution; 70 a second of video, and 32 of its sound. Gemini 2: 258 an image up to 384 pixels a side, else
258 a tile of 768 pixels; 258 a PDF page; 263 a second of video. Sound: 32 a second.

Assumed, since nothing in a request says it: sound of 16 kB a second, video of 250 kB a second, a PDF page of 50 kB
where pages cannot be counted; a file that is only named has 10 pages or 60 seconds.
"""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from gemini_batch_mcp.domain import JsonObject

_AUDIO_TOKENS_PER_SECOND: Final = 32
_AUDIO_BYTES_PER_SECOND: Final = 16_000
_VIDEO_BYTES_PER_SECOND: Final = 250_000
_PDF_PAGE_BYTES: Final = 50_000
_NAMED_FILE_PAGES: Final = 10
_NAMED_FILE_SECONDS: Final = 60
_PDF_PAGE: Final = re.compile(rb"/Type\s*/Page(?![a-zA-Z])")

#: Gemini 2: tokens per image, tile or page, and per second of video.
_TILE_TOKENS: Final = 258
_TILE_PIXELS: Final = 768
_SMALL_IMAGE_PIXELS: Final = 384
#: An image of Gemini 2 whose size cannot be read: two tiles by two.
_UNKNOWN_IMAGE_TILES: Final = 4
_OLD_VIDEO_TOKENS_PER_SECOND: Final = 263
#: Gemini 3 and later: tokens per image or PDF page, and per second of video without its sound.
_IMAGE_TOKENS: Final = {"LOW": 280, "MEDIUM": 560, "HIGH": 1120, "ULTRA_HIGH": 2240, "": 1120}
_PAGE_TOKENS: Final = {"LOW": 280, "MEDIUM": 560, "HIGH": 1120, "ULTRA_HIGH": 1120, "": 560}
_FRAME_TOKENS: Final = {"LOW": 70, "MEDIUM": 70, "HIGH": 280, "ULTRA_HIGH": 280, "": 70}

#: JPEG markers that carry the size: start of frame, without DHT (C4), JPG (C8) and DAC (CC).
_JPEG_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True, slots=True)
class Tokens:
    """Input tokens of one request by modality. PDF pages count as images, as Gemini bills them.

    `unknown_references` counts files and caches that are only named: for them an average was assumed.
    """

    text: int = 0
    image: int = 0
    audio: int = 0
    video: int = 0
    unknown_references: int = 0

    @property
    def media(self) -> int:
        """Tokens of all that is not text; the length of a request says nothing about them."""
        return self.image + self.audio + self.video

    @property
    def total(self) -> int:
        """All tokens."""
        return self.text + self.media

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(
            self.text + other.text,
            self.image + other.image,
            self.audio + other.audio,
            self.video + other.video,
            self.unknown_references + other.unknown_references,
        )


def offline_tokens(request: JsonObject, *, model: str = "") -> int:
    """Return the input tokens of a GenerateContentRequest or EmbedContentRequest, by the rules above."""
    return offline_counts(request, model=model).total


def offline_counts(request: JsonObject, *, model: str = "") -> Tokens:
    """Return the same by modality. Members of a wrong type count as nothing; never raises."""
    is_old = model.removeprefix("models/").startswith("gemini-2")
    config = _object(_member(request, "generationConfig"))
    resolution = _resolution(_member(config, "mediaResolution"))
    counts = Tokens(text=sum(text_tokens(text) for text in _json_texts(request, config)))
    for part in _parts(request):
        counts += _part_tokens(part, resolution, is_old)
    if _member(request, "cachedContent"):
        counts += Tokens(unknown_references=1)
    return counts


def text_tokens(text: str) -> int:
    """Return the tokens of a text: a quarter, a half or a whole one for each character, by its length in UTF-8."""
    if text.isascii():
        return -(-len(text) // 4)
    one = len(text.encode("ascii", "ignore"))
    four = len(text.encode("utf-16-le", "surrogatepass")) // 2 - len(text)
    three = len(text.encode("utf-8", "surrogatepass")) - 2 * len(text) + one - 2 * four
    two = len(text) - one - three - four
    return -(-(one + 2 * two + 4 * (three + four)) // 4)


def _parts(request: JsonObject) -> Iterator[Mapping[str, Any]]:
    """Yield every part of a request, its system instruction included."""
    contents = _member(request, "contents")
    for content in (
        _member(request, "systemInstruction"),
        _member(request, "content"),
        *(contents if isinstance(contents, list) else [contents]),
    ):
        if isinstance(content, str):
            yield {"text": content}
        parts = _member(_object(content), "parts")
        yield from map(_object, parts if isinstance(parts, list) else [parts])


def _json_texts(request: JsonObject, config: Mapping[str, Any]) -> Iterator[str]:
    for value in (
        _member(request, "tools"),
        _member(config, "responseSchema"),
        _member(config, "responseJsonSchema"),
    ):
        if value:
            yield msgspec.json.encode(value).decode()


def _part_tokens(part: Mapping[str, Any], resolution: str, is_old: bool) -> Tokens:
    own = _object(_member(part, "mediaResolution"))
    resolution = _resolution(_member(own, "level")) or resolution
    if inline := _object(_member(part, "inlineData")):
        data = _text(_member(inline, "data"))
        return _inline_tokens(_text(_member(inline, "mimeType")), data, resolution, is_old)
    if file := _object(_member(part, "fileData")):
        named = _named_file_tokens(_text(_member(file, "mimeType")), resolution, is_old)
        return named + Tokens(unknown_references=1)
    if isinstance(text := part.get("text"), str):
        return Tokens(text=text_tokens(text))
    return Tokens(text=text_tokens(msgspec.json.encode(part).decode())) if part else Tokens()


def _inline_tokens(mime_type: str, data: str, resolution: str, is_old: bool) -> Tokens:
    size_bytes = len(data) * 3 // 4
    kind = mime_type.partition("/")[0].lower()
    if mime_type.lower() == "application/pdf":
        pages = len(_PDF_PAGE.findall(_decoded(data))) or -(-size_bytes // _PDF_PAGE_BYTES)
        return Tokens(image=pages * _page_tokens(resolution, is_old))
    match kind:
        case "audio":
            return _audio(size_bytes / _AUDIO_BYTES_PER_SECOND)
        case "video":
            return _video(size_bytes / _VIDEO_BYTES_PER_SECOND, resolution, is_old)
        case "text":
            return Tokens(text=text_tokens(_decoded(data).decode("utf-8", "replace")))
        case _:
            return Tokens(image=_image_tokens(data, resolution, is_old))


def _named_file_tokens(mime_type: str, resolution: str, is_old: bool) -> Tokens:
    match mime_type.partition("/")[0].lower():
        case "image":
            return Tokens(image=_image_tokens("", resolution, is_old))
        case "audio":
            return _audio(_NAMED_FILE_SECONDS)
        case "video":
            return _video(_NAMED_FILE_SECONDS, resolution, is_old)
        case _:
            return Tokens(image=_NAMED_FILE_PAGES * _page_tokens(resolution, is_old))


def _audio(seconds: float) -> Tokens:
    return Tokens(audio=round(seconds * _AUDIO_TOKENS_PER_SECOND))


def _video(seconds: float, resolution: str, is_old: bool) -> Tokens:
    if is_old:
        return Tokens(video=round(seconds * _OLD_VIDEO_TOKENS_PER_SECOND))
    return Tokens(video=round(seconds * _FRAME_TOKENS[resolution])) + _audio(seconds)


def _page_tokens(resolution: str, is_old: bool) -> int:
    return _TILE_TOKENS if is_old else _PAGE_TOKENS[resolution]


def _image_tokens(data: str, resolution: str, is_old: bool) -> int:
    if not is_old:
        return _IMAGE_TOKENS[resolution]
    size = _image_size(_decoded(data))
    if size is None:
        return _UNKNOWN_IMAGE_TILES * _TILE_TOKENS
    if max(size) <= _SMALL_IMAGE_PIXELS:
        return _TILE_TOKENS
    width, height = size
    return -(-width // _TILE_PIXELS) * -(-height // _TILE_PIXELS) * _TILE_TOKENS


def _image_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height of a PNG or JPEG; None for other data."""
    if data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) >= 24:
        return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    if not data.startswith(b"\xff\xd8"):
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        if data[at + 1] in _JPEG_FRAMES:
            return int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7])
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data.translate(_STANDARD_ALPHABET) + "=" * (-len(data) % 4))
    except (ValueError, binascii.Error):
        return b""


_STANDARD_ALPHABET: Final = str.maketrans("-_", "+/")


def _resolution(value: object) -> str:
    """Return LOW, MEDIUM, HIGH or ULTRA_HIGH, empty for the default and for what is no resolution."""
    name = _text(value).removeprefix("MEDIA_RESOLUTION_")
    return name if name in _IMAGE_TOKENS else ""


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _member(holder: Mapping[str, Any], name: str) -> Any:
    """Return a member under its camelCase name or else its snake_case name; None when absent."""
    value = holder.get(name)
    return value if value is not None else holder.get(re.sub(r"(?=[A-Z])", "_", name).lower())
