"""What kind of file an attachment is, told by its content and, where that says too little, by its name.

What Gemini takes: Google's guides on images, documents, audio and video (ai.google.dev, read 2026-06), and for the
rarer audio containers the list of input files that Firebase keeps for the same API.

The content is told by `filetype`. By itself it names 16 of the 40 files of our tests as Gemini does, puremagic 21 and
`mimetypes` 24: what is here is the way between their names and Gemini's, and what to do where they say nothing.
"""

import mimetypes
import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final, Literal

Media = Literal["image", "pdf", "audio", "video", "text"]

#: Bytes of a file's beginning that tell what it is.
HEAD_BYTES: Final = 1 << 13
#: One PDF, inline or uploaded (document guide): 50 MB; read as MiB, so as not to refuse what would pass.
MAX_PDF_BYTES: Final = 50 * 1024**2
#: One PDF, in pages (document guide).
MAX_PDF_PAGES: Final = 1000
PDF: Final = "application/pdf"

#: MIME types that Gemini takes, by the names under which a content or a file name is recognised.
_TAKEN: Final = {
    "image/png": "image/png",
    "image/apng": "image/png",
    "image/jpeg": "image/jpeg",
    "image/webp": "image/webp",
    "image/heic": "image/heic",
    "image/heif": "image/heif",
    PDF: PDF,
    "audio/x-wav": "audio/wav",
    "audio/wav": "audio/wav",
    "audio/mpeg": "audio/mp3",
    "audio/mp3": "audio/mp3",
    "audio/x-aiff": "audio/aiff",
    "audio/aac": "audio/aac",
    "audio/x-aac": "audio/aac",
    "audio/ogg": "audio/ogg",
    "audio/x-flac": "audio/flac",
    "audio/flac": "audio/flac",
    "audio/mp4": "audio/mp4",
    "video/mp4": "video/mp4",
    "video/x-m4v": "video/mp4",
    "video/quicktime": "video/quicktime",
    "video/mpeg": "video/mpeg",
    "video/webm": "video/webm",
    "video/x-msvideo": "video/avi",
    "video/x-ms-wmv": "video/wmv",
    "video/x-flv": "video/x-flv",
    "video/3gpp": "video/3gpp",
}
#: What most files are; their names say no more.
_SURE: Final = ("image/jpeg", "image/png")
#: Text by name; all other text goes as plain, which is what Gemini makes of it anyway.
_TEXTS: Final = {
    "text/html": "text/html",
    "text/css": "text/css",
    "text/csv": "text/csv",
    "text/xml": "text/xml",
    "application/xml": "text/xml",
    "text/rtf": "text/rtf",
    "application/rtf": "text/rtf",
}
#: Endings that `mimetypes` does not know on every system, or gives names of its own.
_ENDINGS: Final = {
    ".heic": "image/heic",
    ".heif": "image/heif",
    ".m4a": "audio/mp4",
    ".m4b": "audio/mp4",
    ".aac": "audio/aac",
    ".flac": "audio/flac",
    ".m4v": "video/mp4",
    ".3gp": "video/3gpp",
    ".wmv": "video/x-ms-wmv",
    ".flv": "video/x-flv",
    ".webp": "image/webp",
    ".csv": "text/csv",
    ".xml": "text/xml",
    ".rtf": "text/rtf",
}
#: Formats whose beginning has too many forms for the library: here an unknown content is taken at its name's word.
_BY_NAME_ALONE: Final = frozenset({"audio/mpeg", "audio/mp3", "audio/aac", "video/mpeg"})
#: The first box of QuickTime and its offspring; not all of them say more about themselves.
_BOXES: Final = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})
_BOXED: Final = frozenset(
    {"image/heic", "image/heif", "audio/mp4", "video/mp4", "video/x-m4v", "video/quicktime", "video/3gpp"}
)
#: Control characters that no text holds.
_NO_TEXT: Final = bytes(code for code in range(32) if code not in b"\t\n\x0b\x0c\r\x1b")
_PDF_MARK: Final = b"%PDF-"
#: Readers of PDF look for its mark this far.
_PDF_MARK_BYTES: Final = 1024
_CONVERT: Final = {
    "image": "Convert it to PNG, JPEG or WebP.",
    "audio": "Convert it to MP3, WAV or FLAC.",
    "video": "Convert it to MP4.",
}
_WORDS: Final = {"x-matroska": "Matroska", "webp": "WebP", "quicktime": "QuickTime"}
_DOCUMENTS: Final = ("application/vnd.", "application/msword", "application/zip", "application/epub")
#: Endings of text and of Office documents: what `mimetypes` knows of them differs from system to system.
_TEXT_ENDINGS: Final = re.compile(
    r"\.(txt|md|markdown|rst|log|csv|tsv|jsonl?|ndjson|xml|html?|ya?ml|toml|ini|srt|vtt|tex|eml|py|[jt]s|java|c|h|cpp|cs"
    r"|go|rs|rb|php|sh|sql|css|svg|rtf)"
)
_OFFICE_ENDINGS: Final = re.compile(
    r"\.(doc[xm]?|dotx|ppt[xm]?|ppsx|xls[xmb]?|od[tpsg]|pages|key|numbers|epub|vsdx|pub)"
)


@dataclass(frozen=True, slots=True)
class Kind:
    """What an attachment is sent as, and which of Gemini's media it counts as."""

    mime_type: str
    media: Media


def named_kind(ending: str) -> str:
    """Return what files with such an ending (`.pdf`, any case) are, in one or two words that go with a number."""
    ending = ending.lower()
    guessed = _ENDINGS.get(ending) or mimetypes.guess_type(f"name{ending}")[0] or ""
    if _OFFICE_ENDINGS.fullmatch(ending):
        return "Office"
    if _TEXT_ENDINGS.fullmatch(ending) or guessed.startswith("text/"):
        return "text"
    if guessed == PDF:
        return "PDF"
    main = guessed.partition("/")[0]
    return main if main in ("image", "audio", "video") else "other"


class NotTaken(Exception):
    """Gemini does not take such a file. `message` goes on after the file's name."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message, fix)
        self.message = message
        self.fix = fix


def kind_of(head: bytes, name: str) -> Kind:
    """Return what a file is that begins with `head` (`HEAD_BYTES` of it, or all).

    Raises:
        NotTaken: it is none that Gemini takes, or not what its name says.
    """
    if _PDF_MARK in head[:_PDF_MARK_BYTES]:
        return Kind(PDF, "pdf")
    if _is_text(head):
        return _text(_named(name), head)
    found = _recognised(head)
    if found in _SURE:
        return Kind(_TAKEN[found], "image")
    named = _named(name)
    if found in ("video/mp4", "video/quicktime") and named == "audio/mp4":
        found = named
    if found is None and (named in _BY_NAME_ALONE or (named in _BOXED and head[4:8] in _BOXES)):
        found = named
    if found is None:
        raise NotTaken(*_unknown(named))
    if found not in _TAKEN:
        raise NotTaken(f"is {_described(found)}, which Gemini does not accept.", _fix(found))
    return Kind(_TAKEN[found], _media(found))


def described_binary(head: bytes) -> str:
    """Return in words what a file is that begins so, empty for text and for what nothing recognises.

    Some formats are recognised by two letters, so nothing without control characters is taken for one of them.
    """
    if head.translate(None, _NO_TEXT) == head:
        return ""
    found = _recognised(head)
    return _described(found) if found else ""


def _recognised(head: bytes) -> str | None:
    """Return the MIME type that the content shows, None when it shows none."""
    # Imported on first use: 0.02 s that only orders with attachments pay for.
    import filetype  # type: ignore[import-untyped]  # the library ships no types

    found = filetype.guess_mime(head)
    return str(found) if found else None


def _named(name: str) -> str:
    """Return the MIME type that a file's name promises, empty when it promises none."""
    return _ENDINGS.get(PurePath(name).suffix.lower()) or mimetypes.guess_type(name, strict=True)[0] or ""


def _is_text(head: bytes) -> bool:
    """True for UTF-8 without control characters; a character cut by the end of `head` does not matter."""
    if head.translate(None, _NO_TEXT) != head:
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start >= len(head) - 3 and error.reason == "unexpected end of data"
    return True


def _text(named: str, head: bytes) -> Kind:
    """Return what text is sent as.

    Raises:
        NotTaken: the name promises something else than text.
    """
    if named in _TAKEN or named.startswith("image/"):
        if named == "image/svg+xml":
            raise NotTaken("is an SVG drawing, which Gemini does not accept.", _CONVERT["image"])
        what = "a web page" if head.lstrip()[:1] == b"<" else "text"
        raise NotTaken(f"is named like {_described(named)} but contains {what}.", "Fetch the file again.")
    if head.startswith(b"{\\rtf"):
        return Kind("text/rtf", "text")
    return Kind(_TEXTS.get(named, "text/plain"), "text")


def _media(found: str) -> Media:
    if found == PDF:
        return "pdf"
    if found.startswith("image/"):
        return "image"
    return "audio" if found.startswith("audio/") else "video"


def _unknown(named: str) -> tuple[str, str]:
    """Return the message and the fix for a content that nothing recognises."""
    if named.startswith("text/"):
        return "is text that isn't UTF-8.", "Save it as UTF-8."
    if named in _TAKEN:
        return f"is named like {_described(named)} but isn't one.", "Check that the file is complete."
    return "is a kind of file that Gemini does not accept.", _fix(named)


def _described(mime_type: str) -> str:
    """Return a MIME type in words: `a PNG image`."""
    main, _, sub = mime_type.partition("/")
    if mime_type == PDF:
        return "a PDF"
    if mime_type.startswith(_DOCUMENTS):
        return "an Office document or an archive"
    word = _WORDS.get(sub, sub.removeprefix("x-").removeprefix("vnd.").upper())
    noun = {"image": "image", "audio": "audio file", "video": "video"}.get(main, "file")
    # Most are spelt when they are said: an MP4.
    article = "an" if word[:1] in "AEFHILMNORSX" and word.isupper() else "a"
    return f"{article} {word} {noun}"


def _fix(mime_type: str) -> str:
    if mime_type.startswith(_DOCUMENTS):
        return "Save it as PDF, or paste its text."
    main = mime_type.partition("/")[0]
    return _CONVERT.get(main, "Gemini accepts images, PDF, audio, video and text.")
