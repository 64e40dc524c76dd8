"""How many input tokens a request has, by rules that need no vocabulary and no network.

Text. Google's guide gives about four characters a token for Latin script. Others need more, and by UTF-8 length the
scripts fall apart well enough: characters of one byte count a quarter of a token, of two bytes (accents, Greek,
Cyrillic, Hebrew, Arabic) a half, of three and four (Chinese, Japanese, Korean, Indic scripts, emoji) a whole one.
The last two are assumptions on the careful side. Tools and schemas count as their JSON text.

Media, by Google's token and media-resolution guides. Gemini 3 and later: 1,120 an image, 560 a PDF page, at the
default resolution; 70 a second of video, and 32 of its sound. Gemini 2: 258 an image up to 384 pixels a side, else
258 a tile of 768 pixels; 258 a PDF page; 263 a second of video. Sound: 32 a second.

Assumed, since nothing in a request says it: sound of 16 kB a second, video of 250 kB a second, a PDF page of 50 kB
where pages cannot be counted; a file that is only named has 10 pages or 60 seconds. `most_counts` takes instead what
gives the most tokens (`_MOST`): the high figure of an estimate must not be below what such media cost.
"""

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from gemini_batch_mcp.domain import JsonObject
from gemini_batch_mcp.intake.file_kinds import MAX_PDF_PAGES, PDF
from gemini_batch_mcp.intake.files.pages import count_pages
from gemini_batch_mcp.intake.files.placeholder import Known, known_of
from gemini_batch_mcp.json_members import as_object, as_text, member

_AUDIO_TOKENS_PER_SECOND: Final = 32
#: Tokens that one request may have at all (model pages: 1,048,576): one that has more fails, and costs nothing.
_INPUT_TOKEN_LIMIT: Final = 1_048_576

#: Gemini 2: tokens per image, tile or page, and per second of video.
_TILE_TOKENS: Final = 258
_TILE_PIXELS: Final = 768
_SMALL_IMAGE_PIXELS: Final = 384
_OLD_VIDEO_TOKENS_PER_SECOND: Final = 263
#: Gemini 3 and later: tokens per image or PDF page, and per second of video without its sound.
_IMAGE_TOKENS: Final = {"LOW": 280, "MEDIUM": 560, "HIGH": 1120, "ULTRA_HIGH": 2240, "": 1120}
_PAGE_TOKENS: Final = {"LOW": 280, "MEDIUM": 560, "HIGH": 1120, "ULTRA_HIGH": 1120, "": 560}
_FRAME_TOKENS: Final = {"LOW": 70, "MEDIUM": 70, "HIGH": 280, "ULTRA_HIGH": 280, "": 70}

#: JPEG markers that carry the size: start of frame, without DHT (C4), JPG (C8) and DAC (CC).
_JPEG_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True, slots=True)
class _Assumed:
    """What is taken for granted where a request does not say it. `unknown_tiles` is for images of Gemini 2."""

    audio_bytes_per_second: int
    #: Sound that is not compressed, or without loss.
    plain_audio_bytes_per_second: int
    video_bytes_per_second: int
    pdf_page_bytes: int
    named_pages: int
    named_seconds: int
    unknown_tiles: int
    cached_tokens: int = 0


_USUAL: Final = _Assumed(
    audio_bytes_per_second=16_000,
    plain_audio_bytes_per_second=16_000,
    video_bytes_per_second=250_000,
    pdf_page_bytes=50_000,
    named_pages=10,
    named_seconds=60,
    unknown_tiles=4,
)
#: Sound: the lowest rates of Opus (6 kbit/s) and of PCM (8 kHz, 4 bits). Video: a still picture with such sound. A PDF
#: has at most 1,000 pages (document guide), and the object of a page takes 100 bytes. Gemini 2 scales images down to
#: 3,072 pixels a side. A file without a known length is taken to fill the request.
_MOST: Final = _Assumed(
    audio_bytes_per_second=750,
    plain_audio_bytes_per_second=4_000,
    video_bytes_per_second=2_000,
    pdf_page_bytes=100,
    named_pages=MAX_PDF_PAGES,
    named_seconds=_INPUT_TOKEN_LIMIT // _AUDIO_TOKENS_PER_SECOND,
    unknown_tiles=16,
    cached_tokens=_INPUT_TOKEN_LIMIT,
)
_PLAIN_AUDIO: Final = ("wav", "x-wav", "aiff", "x-aiff", "flac", "x-flac")


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


def offline_counts(request: JsonObject, *, model: str = "") -> Tokens:
    """Return the input tokens of a GenerateContentRequest or EmbedContentRequest, by the rules above.

    Members of a wrong type count as nothing; never raises.
    """
    return _counts(request, _Rule(model, _USUAL))


def most_counts(request: JsonObject, *, model: str = "") -> Tokens:
    """Return the same, where nothing says how much it is, as much as it can be."""
    return _counts(request, _Rule(model, _MOST))


def _counts(request: JsonObject, rule: "_Rule") -> Tokens:
    config = as_object(member(request, "generationConfig"))
    resolution = _resolution(member(config, "mediaResolution"))
    counts = Tokens(text=sum(text_tokens(text) for text in _json_texts(request, config)))
    for part in _parts(request):
        counts += rule.part(part, resolution)
    if member(request, "cachedContent"):
        counts += Tokens(text=rule.assumed.cached_tokens, unknown_references=1)
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
    contents = member(request, "contents")
    for content in (
        member(request, "systemInstruction"),
        member(request, "content"),
        *(contents if isinstance(contents, list) else [contents]),
    ):
        if isinstance(content, str):
            yield {"text": content}
        parts = member(as_object(content), "parts")
        yield from map(as_object, parts if isinstance(parts, list) else [parts])


def _json_texts(request: JsonObject, config: Mapping[str, Any]) -> Iterator[str]:
    for value in (
        member(request, "tools"),
        member(config, "responseSchema"),
        member(config, "responseJsonSchema"),
    ):
        if value:
            yield msgspec.json.encode(value).decode()


class _Rule:
    """What the parts of a request count for one model, under assumptions."""

    def __init__(self, model: str, assumed: _Assumed) -> None:
        self.assumed = assumed
        self._is_old = model.removeprefix("models/").startswith("gemini-2")

    def part(self, part: Mapping[str, Any], resolution: str) -> Tokens:
        own = as_object(member(part, "mediaResolution"))
        resolution = _resolution(member(own, "level")) or resolution
        if inline := as_object(member(part, "inlineData")):
            return self._inline(as_text(member(inline, "mimeType")), as_text(member(inline, "data")), resolution)
        if file := as_object(member(part, "fileData")):
            mime_type = as_text(member(file, "mimeType")).lower()
            known = known_of(as_text(member(file, "fileUri")))
            if known is not None:
                return self._sized(mime_type, known, resolution)
            return self._named(mime_type, resolution) + Tokens(unknown_references=1)
        if isinstance(text := part.get("text"), str):
            return Tokens(text=text_tokens(text))
        return Tokens(text=text_tokens(msgspec.json.encode(part).decode())) if part else Tokens()

    def _inline(self, mime_type: str, data: str, resolution: str) -> Tokens:
        mime_type = mime_type.lower()
        known = Known(len(data) * 3 // 4, 0)
        if mime_type == PDF:
            return self._sized(mime_type, replace(known, pages=count_pages(_decoded(data))), resolution)
        match mime_type.partition("/")[0]:
            case "audio" | "video":
                return self._sized(mime_type, known, resolution)
            case "text":
                return Tokens(text=text_tokens(_decoded(data).decode("utf-8", "replace")))
            case _:
                return Tokens(image=self._image(data, resolution))

    def _sized(self, mime_type: str, known: Known, resolution: str) -> Tokens:
        """Count a file of which the size is known, and no more than the pages of a PDF."""
        assumed, (kind, _, form) = self.assumed, mime_type.partition("/")
        if mime_type == PDF:
            pages = known.pages or min(-(-known.size_bytes // assumed.pdf_page_bytes), MAX_PDF_PAGES)
            return Tokens(image=min(pages * self._page(resolution), _INPUT_TOKEN_LIMIT))
        match kind:
            case "audio":
                plain = form in _PLAIN_AUDIO
                rate = assumed.plain_audio_bytes_per_second if plain else assumed.audio_bytes_per_second
                return _audio(known.size_bytes / rate)
            case "video":
                return self._video(known.size_bytes / assumed.video_bytes_per_second, resolution)
            case "text":
                return Tokens(text=-(-known.size_bytes // 4) if assumed is _USUAL else known.size_bytes)
            case _:
                return Tokens(image=self._image("", resolution))

    def _named(self, mime_type: str, resolution: str) -> Tokens:
        """Count a file of which nothing is known but its type, if that."""
        match mime_type.partition("/")[0]:
            case "image":
                return Tokens(image=self._image("", resolution))
            case "audio":
                return _audio(self.assumed.named_seconds)
            case "video":
                return self._video(self.assumed.named_seconds, resolution)
            case _ if mime_type != PDF and self.assumed is _MOST:
                return self._video(self.assumed.named_seconds, resolution)
            case _:
                pages = self.assumed.named_pages * self._page(resolution)
                return Tokens(image=min(pages, _INPUT_TOKEN_LIMIT))

    def _video(self, seconds: float, resolution: str) -> Tokens:
        per_second = _OLD_VIDEO_TOKENS_PER_SECOND if self._is_old else _FRAME_TOKENS[resolution]
        picture = Tokens(video=round(seconds * per_second))
        both = picture if self._is_old else picture + _audio(seconds)
        # Longer than a request can be, it is refused.
        share = min(1.0, _INPUT_TOKEN_LIMIT / max(1, both.total))
        return Tokens(video=round(both.video * share), audio=round(both.audio * share))

    def _page(self, resolution: str) -> int:
        return _TILE_TOKENS if self._is_old else _PAGE_TOKENS[resolution]

    def _image(self, data: str, resolution: str) -> int:
        if not self._is_old:
            return _IMAGE_TOKENS[resolution]
        size = _image_size(_decoded(data))
        if size is None:
            return self.assumed.unknown_tiles * _TILE_TOKENS
        if max(size) <= _SMALL_IMAGE_PIXELS:
            return _TILE_TOKENS
        width, height = size
        return -(-width // _TILE_PIXELS) * -(-height // _TILE_PIXELS) * _TILE_TOKENS


def _audio(seconds: float) -> Tokens:
    return Tokens(audio=min(round(seconds * _AUDIO_TOKENS_PER_SECOND), _INPUT_TOKEN_LIMIT))


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
    name = as_text(value).removeprefix("MEDIA_RESOLUTION_")
    return name if name in _IMAGE_TOKENS else ""
