"""How many input tokens a request has, by rules that need no vocabulary and no network.

Text. Google's guide gives about four characters a token for Latin script. Others need more, and by UTF-8 length the
scripts fall apart well enough: characters of one byte count a quarter of a token, of two bytes (accents, Greek,
Cyrillic, Hebrew, Arabic) a half, of three and four (Chinese, Japanese, Korean, Indic scripts, emoji) a whole one.
The last two are assumptions on the careful side. Tools count as their JSON text.

Media, by Google's token and media-resolution guides. Gemini 3 and later: 1,120 an image, 560 a PDF page, at the
default resolution; 70 a second of video, and 32 of its sound. Gemini 2: 258 an image up to 384 pixels a side, else
258 a tile of 768 pixels; 258 a PDF page; 263 a second of video. Sound: 32 a second.

Assumed, since nothing in a request says it: sound of 16 kB a second, video of 250 kB a second, a PDF page of 50 kB
where pages cannot be counted; a file that is only named has 10 pages or 60 seconds. What the most is (`_MOST`), is
told beside it: the high figure of an estimate must not be below what such media cost. `text_weight` is that of texts.
"""

import base64
import binascii
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from gemini_batch_mcp.domain import JsonObject
from gemini_batch_mcp.intake.file_kinds import MAX_PDF_PAGES, PDF
from gemini_batch_mcp.intake.files.pages import count_pages
from gemini_batch_mcp.intake.files.placeholder import Known, known_of
from gemini_batch_mcp.intake.validator.terms import Media, Terms, terms_of
from gemini_batch_mcp.json_members import as_object, as_text, member

_AUDIO_TOKENS_PER_SECOND: Final = 32
#: Tokens that one request may have at all (model pages: 1,048,576): one that has more fails, and costs nothing.
_INPUT_TOKEN_LIMIT: Final = 1_048_576
#: Of a cache that a request names: as many as a request can have.
CACHED_TOKENS: Final = _INPUT_TOKEN_LIMIT

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


#: Of a picture's base64, what its size is looked for in.
_HEADER_CHARACTERS: Final = 1 << 18
#: Around a text in every line, at least: `{"key":,"request":}` and the shortest request.
_FRAME_BYTES: Final = len('{"key":,"request":{"content":{"parts":[{"text":""}]}}}')
_LOOKED_AT_WHOLE_BYTES: Final = 1 << 16
_STEP: Final = 13


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

    def __sub__(self, other: "Tokens") -> "Tokens":
        return Tokens(
            self.text - other.text,
            self.image - other.image,
            self.audio - other.audio,
            self.video - other.video,
            self.unknown_references - other.unknown_references,
        )


def offline_counts(request: JsonObject, *, model: str = "") -> Tokens:
    """Return the input tokens of a request, by the rules above and by modality.

    Its texts, tools and media; not a schema for its answer, which countTokens is not known to count either. Members of
    a wrong type count as nothing; never raises.
    """
    text = sum(map(text_tokens, _texts(request)))
    return Tokens(text=text) + media_counts(terms_of(request), model=model)[0]


def media_counts(
    terms: Terms, *, model: str = "", known: Callable[[str], Known | None] = known_of
) -> tuple[Tokens, Tokens]:
    """Return what the media of a request usually have, and, where nothing says how much it is, what they can have.

    `known` says what is known of a file that is only named. Documents of plain text count as text.
    """
    usual, most = Tokens(), Tokens()
    rules = _Rule(model, _USUAL), _Rule(model, _MOST)
    for media in terms.media:
        resolution = _resolution(media.resolution) or _resolution(terms.resolution)
        content = _Content.of(media, known, measures_pictures=rules[0].measures_pictures)
        usual += rules[0].tokens(content, resolution)
        most += rules[1].tokens(content, resolution)
    if terms.has_cache:
        most += Tokens(text=CACHED_TOKENS)
    return usual, most


def text_tokens(text: str) -> int:
    """Return the tokens of a text: a quarter, a half or a whole one for each character, by its length in UTF-8."""
    if text.isascii():
        return -(-len(text) // 4)
    one = len(text.encode("ascii", "ignore"))
    four = len(text.encode("utf-16-le", "surrogatepass")) // 2 - len(text)
    three = len(text.encode("utf-8", "surrogatepass")) - 2 * len(text) + one - 2 * four
    two = len(text) - one - three - four
    return -(-(one + 2 * two + 4 * (three + four)) // 4)


def text_weight(data: bytes, *, rows: int, keys: bytes) -> float:
    """Return the most tokens that the texts of whole request lines can have; `keys` are theirs, as they stand there.

    A token for two bytes, and one for each digit: twice what English takes, and more than Gemini's own vocabulary takes
    of any text that is not noise (assumed; a sample that is counted raises it). What no
    model reads is left out: the key, and what is around the shortest text. A schema or a tool counts as it is written.
    """
    return max(0.0, _weight(data) - _weight(keys) - rows * _FRAME_BYTES / 2)


def _weight(data: bytes) -> float:
    """Count all bytes of a little, and of more every 13th: a file of a gigabyte is looked at in 0.1 s (measured)."""
    step = 1 if len(data) <= _LOOKED_AT_WHOLE_BYTES else _STEP
    looked_at = data[::step]
    digits = len(looked_at) - len(looked_at.translate(None, b"0123456789"))
    factor = len(data) / len(looked_at) if looked_at else 0.0
    return (len(looked_at) + digits) / 2 * factor


def _texts(request: JsonObject) -> Iterator[str]:
    """Yield what a model reads of a request: its texts, its tools, and of parts that are neither text nor media all."""
    if tools := member(request, "tools"):
        yield msgspec.json.encode(tools).decode()
    contents = member(request, "contents")
    for content in (
        member(request, "systemInstruction"),
        member(request, "content"),
        *(contents if isinstance(contents, list) else [contents]),
    ):
        if isinstance(content, str):
            yield content
        parts = member(as_object(content), "parts")
        for part in map(as_object, parts if isinstance(parts, list) else [parts]):
            if isinstance(text := part.get("text"), str):
                yield text
            elif part and not member(part, "inlineData") and not member(part, "fileData"):
                yield msgspec.json.encode(part).decode()


@dataclass(frozen=True, slots=True)
class _Content:
    """What is known of one part that is no text. `known` is None for a file that is only named."""

    mime_type: str
    frames: float
    tokens: int = 0
    known: Known | None = None
    #: Tokens of a document of plain text, by the rule for texts.
    text: int | None = None
    #: Of a picture, in pixels, where they can be told.
    pixels: tuple[int, int] | None = None

    @classmethod
    def of(cls, media: Media, known: Callable[[str], Known | None], *, measures_pictures: bool) -> "_Content":
        mime_type = media.mime_type.lower()
        if media.data is None:
            return cls(mime_type, media.frames, media.tokens, known(media.uri))
        found = cls(mime_type, media.frames, media.tokens, Known(len(media.data) * 3 // 4, 0))
        match mime_type.partition("/")[0]:
            case "audio" | "video":
                return found
            case "text":
                return replace(found, text=text_tokens(_decoded(media.data).decode("utf-8", "replace")))
            case _ if mime_type == PDF:
                data = _decoded(media.data)
                return replace(found, known=Known(len(data), count_pages(data)))
            case _ if not measures_pictures:
                return found
            case _:
                return replace(found, pixels=_image_size(_decoded(media.data[:_HEADER_CHARACTERS])))


class _Rule:
    """What media count for one model, under assumptions."""

    def __init__(self, model: str, assumed: _Assumed) -> None:
        self.assumed = assumed
        self._is_old = model.removeprefix("models/").startswith("gemini-2")

    @property
    def measures_pictures(self) -> bool:
        """Whether it matters how large a picture is."""
        return self._is_old

    def tokens(self, content: _Content, resolution: str) -> Tokens:
        found = self._known(content, content.known, resolution) if content.known else self._named(content, resolution)
        if content.tokens > found.total:
            return replace(found, image=found.image + content.tokens - found.total)
        return found

    def _known(self, content: _Content, known: Known, resolution: str) -> Tokens:
        """Count a file of which the size is known, and no more than the pages of a PDF."""
        assumed, (kind, _, form) = self.assumed, content.mime_type.partition("/")
        if content.mime_type == PDF:
            pages = known.pages or min(-(-known.size_bytes // assumed.pdf_page_bytes), MAX_PDF_PAGES)
            return Tokens(image=min(pages * self._page(resolution), _INPUT_TOKEN_LIMIT))
        match kind:
            case "audio":
                plain = form in _PLAIN_AUDIO
                rate = assumed.plain_audio_bytes_per_second if plain else assumed.audio_bytes_per_second
                return _audio(known.size_bytes / rate)
            case "video":
                return self._video(known.size_bytes / assumed.video_bytes_per_second, resolution, content.frames)
            case "text" if assumed is _USUAL:
                return Tokens(text=-(-known.size_bytes // 4) if content.text is None else content.text)
            case "text":
                return Tokens(text=known.size_bytes)
            case _:
                return Tokens(image=self._image(content.pixels, resolution))

    def _named(self, content: _Content, resolution: str) -> Tokens:
        """Count a file of which nothing is known but its type, if that."""
        mime_type = content.mime_type
        match mime_type.partition("/")[0]:
            case "image":
                pixels = self._image(None, resolution)
                # How large a picture is, changes nothing for a model that counts them all alike.
                return Tokens(image=pixels, unknown_references=int(self._is_old))
            case "audio":
                found = _audio(self.assumed.named_seconds)
            case "video":
                found = self._video(self.assumed.named_seconds, resolution, content.frames)
            case _ if mime_type != PDF and self.assumed is _MOST:
                found = self._video(self.assumed.named_seconds, resolution, content.frames)
            case _:
                pages = self.assumed.named_pages * self._page(resolution)
                found = Tokens(image=min(pages, _INPUT_TOKEN_LIMIT))
        return replace(found, unknown_references=1)

    def _video(self, seconds: float, resolution: str, frames: float) -> Tokens:
        per_second = _OLD_VIDEO_TOKENS_PER_SECOND if self._is_old else _FRAME_TOKENS[resolution]
        picture = Tokens(video=round(seconds * per_second * frames))
        both = picture if self._is_old else picture + _audio(seconds)
        # Longer than a request can be, it is refused.
        share = min(1.0, _INPUT_TOKEN_LIMIT / max(1, both.total))
        return Tokens(video=round(both.video * share), audio=round(both.audio * share))

    def _page(self, resolution: str) -> int:
        return _TILE_TOKENS if self._is_old else _PAGE_TOKENS[resolution]

    def _image(self, size: tuple[int, int] | None, resolution: str) -> int:
        if not self._is_old:
            return _IMAGE_TOKENS[resolution]
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


def _decoded(data: bytes | memoryview) -> bytes:
    """Return what base64 stands for, which may be a JSON literal and cut anywhere; nothing when it is none."""
    # Some writers escape "/", which is JSON too.
    text = bytes(data).translate(_STANDARD_ALPHABET, b'"\\=')
    try:
        return base64.b64decode(text[: len(text) - (len(text) % 4 == 1)] + b"=" * (-len(text) % 4))
    except (ValueError, binascii.Error):
        return b""


_STANDARD_ALPHABET: Final = bytes.maketrans(b"-_", b"+/")


def _resolution(value: object) -> str:
    """Return LOW, MEDIUM, HIGH or ULTRA_HIGH, empty for the default and for what is no resolution."""
    name = as_text(value).removeprefix("MEDIA_RESOLUTION_")
    return name if name in _IMAGE_TOKENS else ""
