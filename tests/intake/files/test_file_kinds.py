"""What kind of file an attachment is: by its content first, by its name where that says too little; pages of PDFs."""

import zlib

import pytest

from gemini_batch_mcp.intake.file_kinds import Kind, NotTaken, kind_of
from gemini_batch_mcp.intake.files.pages import count_pages
from support.sources import jpeg, mp4, pdf, png

REST = b"\0" * 64
MATROSKA = bytes.fromhex("1a45dfa3a34286810142f7810142f2810442f38108428288") + b"matroska"
#: Name, first bytes, and what is sent.
TAKEN = [
    ("a.png", png(), "image/png"),
    ("a.jpg", jpeg(), "image/jpeg"),
    ("a.webp", b"RIFF\0\1\0\0WEBPVP8 " + REST, "image/webp"),
    ("a.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + REST, "image/heic"),
    ("a.heic", b"\0\0\0\x18ftypheix\0\0\0\0mif1heix" + REST, "image/heic"),
    ("a.heif", b"\0\0\0\x18ftypmif1\0\0\0\0mif1heix" + REST, "image/heif"),
    ("a.pdf", pdf(), "application/pdf"),
    ("a.pdf", b"\0junk before\n%PDF-1.4\n" + REST, "application/pdf"),
    ("a.mp3", b"ID3\3\0\0\0\0\0\0" + REST, "audio/mp3"),
    ("a.mp3", b"\xff\xfa\x90\x64" + REST, "audio/mp3"),
    ("a.wav", b"RIFF\0\1\0\0WAVEfmt " + REST, "audio/wav"),
    ("a.aiff", b"FORM\0\1\0\0AIFFCOMM" + REST, "audio/aiff"),
    ("a.flac", b"fLaC\0\0\0\x22" + REST, "audio/flac"),
    ("a.ogg", b"OggS\0\2" + REST, "audio/ogg"),
    ("a.aac", b"\xff\xf1\x50\x80" + REST, "audio/aac"),
    ("a.m4a", b"\0\0\0\x20ftypM4A \0\0\0\0M4A mp42isom" + REST, "audio/mp4"),
    ("a.m4a", mp4(), "audio/mp4"),
    ("a.mp4", mp4(), "video/mp4"),
    ("a.mov", b"\0\0\0\x14ftypqt  \0\0\2\0qt  \0\0\0\x08wide" + REST, "video/quicktime"),
    ("old.mov", b"\0\0\0\x08wide\0\0\0\x08mdat" + REST, "video/quicktime"),
    ("a.avi", b"RIFF\0\1\0\0AVI LIST" + REST, "video/avi"),
    ("a.mpg", b"\0\0\1\xba\x44" + REST, "video/mpeg"),
    ("a.flv", b"FLV\1\5\0\0\0\x09" + REST, "video/x-flv"),
    ("a.wmv", bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + REST, "video/wmv"),
    ("a.3gp", b"\0\0\0\x18ftyp3gp4\0\0\0\0003gp4isom" + REST, "video/mp4"),
    # The content goes before the name.
    ("a.jpg", png(), "image/png"),
    ("scan", pdf(), "application/pdf"),
    ("a.txt", jpeg(), "image/jpeg"),
    # Text.
    ("a.txt", b"hello", "text/plain"),
    ("README", "Grüße\n".encode(), "text/plain"),
    ("a.md", b"# Title", "text/plain"),
    ("a.py", b"print()", "text/plain"),
    ("a.json", b"{}", "text/plain"),
    ("a.html", b"<!doctype html>", "text/html"),
    ("a.csv", b"a,b\n1,2\n", "text/csv"),
    ("a.xml", b"<a/>", "text/xml"),
    ("a.css", b"a{}", "text/css"),
    ("letter", b"{\\rtf1\\ansi", "text/rtf"),
    ("cut.txt", ("x" * 100 + "€").encode()[:-1], "text/plain"),
    # A text that only begins like a bitmap's two letters.
    ("note.txt", b"BMW is a maker of cars", "text/plain"),
]


@pytest.mark.parametrize(("name", "head", "mime_type"), TAKEN)
def test_a_file_is_sent_as_what_it_is(name: str, head: bytes, mime_type: str) -> None:
    kind = kind_of(head, name)

    assert kind.mime_type == mime_type
    media = "pdf" if mime_type == "application/pdf" else mime_type.partition("/")[0]
    assert kind == Kind(mime_type, kind.media)
    assert kind.media == media


@pytest.mark.parametrize(
    ("name", "head", "message", "fix"),
    [
        ("a.gif", b"GIF89a" + REST, "is a GIF image, which Gemini does not accept.", "Convert it to PNG"),
        ("a.bmp", b"BM\0\0\0\0" + REST, "is a BMP image, which", "PNG"),
        ("a.tiff", b"II*\0" + REST, "is a TIFF image, which", "PNG"),
        ("a.avif", b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + REST, "is an AVIF image, which", "PNG"),
        ("a.mkv", MATROSKA + REST, "is a Matroska video", "MP4"),
        ("a.amr", b"#!AMR\n\x04" + REST, "is an AMR audio file, which", "MP3"),
        ("a.docx", b"PK\x03\x04\x14\0\x06\0" + REST, "is an Office document or an archive, which", "Save it as PDF"),
        ("a.exe", b"MZ\x90\0" + REST, "which Gemini does not accept.", "Gemini accepts images, PDF"),
        ("a.svg", b"<svg></svg>", "is an SVG drawing, which Gemini does not accept.", "PNG"),
        ("a.jpg", b"<!doctype html><p>404", "is named like a JPEG image but contains a web page.", "Fetch"),
        ("a.gif", b"not found", "is named like a GIF image but contains text.", "Fetch"),
        ("a.pdf", b"not found", "is named like a PDF but contains text.", "Fetch"),
        ("a.mp3", b"not found", "is named like an MPEG audio file but contains text.", "Fetch"),
        ("a.png", b"\x01\x02\x03" + REST, "is named like a PNG image but isn't one.", "complete"),
        ("a.mp4", b"\x01\x02\x03" + REST, "is named like an MP4 video but isn't one.", "complete"),
        ("a.bin", b"\x01\x02\x03" + REST, "is a kind of file that Gemini does not accept.", "Gemini accepts images"),
        ("a.docx", b"\x01\x02\x03" + REST, "is a kind of file that Gemini does not accept.", "Save it as PDF"),
        ("a.txt", "Müller".encode("latin-1"), "is text that isn't UTF-8.", "Save it as UTF-8."),
        ("a.txt", b"\xc3(" * 9, "is text that isn't UTF-8.", "Save it as UTF-8."),
    ],
)
def test_what_gemini_does_not_take_is_named_with_what_to_do(name: str, head: bytes, message: str, fix: str) -> None:
    with pytest.raises(NotTaken) as caught:
        kind_of(head, name)

    assert message in caught.value.message
    assert fix in caught.value.fix


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("pages", [1, 12, 1001])
def test_pages_are_counted_in_old_and_in_new_pdfs(pages: int, packed: bool) -> None:
    assert count_pages(pdf(pages, packed=packed)) == pages


def test_what_only_looks_like_a_page_is_none() -> None:
    assert count_pages(b"/Type /Pages /Type/PageLabel /Parent/Page /Type\n/Page /Type/Page>>") == 2
    assert count_pages(b"") == 0
    assert count_pages(b"%PDF-1.7 /ObjStm") == 0
    assert count_pages(b"%PDF-1.7 /ObjStm>>\nstream\nno zlib data") == 0


def test_a_pdf_made_to_unpack_for_ever_is_not() -> None:
    bomb = zlib.compress(b"/Type /Page " * (1 << 20), 9)

    assert count_pages(b"<</Type /ObjStm>>stream\n" + bomb) == (4 << 20) // 12
