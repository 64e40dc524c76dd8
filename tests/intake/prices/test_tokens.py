"""The offline rule: text by its script, media by their units, and no malformed request breaks it."""

import base64
import struct
from typing import Any

import pytest

from gemini_batch_mcp.intake.prices.tokens import offline_counts, text_tokens
from support.requests import FLASH, ask, with_part


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("abcd", 1),
        ("abcde", 2),
        ("Hello, how are you today?", 7),
        ("Привет", 3),
        ("日本語の文章", 6),
        ("😀😀", 2),
        ("é" * 4 + "a" * 4 + "語" * 4 + "😀" * 4, 11),
        ("\ud800", 1),
    ],
)
def test_text_is_counted_by_its_script(text: str, tokens: int) -> None:
    assert text_tokens(text) == tokens


def png(width: int, height: int) -> str:
    return base64.b64encode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height) + b"\0" * 9).decode()


def jpeg(width: int, height: int) -> str:
    start = b"\xff\xd8\xff\xe0\0\x04ab" + b"\xff\xc4\0\x03c" + b"\xff\xc2\0\x0b\x08"
    return base64.b64encode(start + struct.pack(">HH", height, width) + b"\0" * 6).decode()


def inline(mime_type: str, data: str, **members: Any) -> dict[str, Any]:
    return with_part({"inlineData": {"mimeType": mime_type, "data": data}}, **members)


def low_resolution(name: str) -> dict[str, Any]:
    return {"generationConfig": {"mediaResolution": f"MEDIA_RESOLUTION_{name}"}}


@pytest.mark.parametrize(
    ("request_", "model", "tokens"),
    [
        (inline("image/png", png(384, 384)), "gemini-2.5-flash", 258),
        (inline("image/png", png(385, 100)), "gemini-2.5-flash", 258),
        (inline("image/png", png(769, 769)), "models/gemini-2.5-pro", 4 * 258),
        (inline("image/jpeg", jpeg(1537, 100)), "gemini-2.5-flash", 3 * 258),
        (inline("image/jpeg", base64.b64encode(b"\xff\xd8\xff").decode()), "gemini-2.5-flash", 4 * 258),
        (inline("image/webp", "not base64!"), "gemini-2.5-flash", 4 * 258),
        (inline("image/webp", "a"), "gemini-2.5-flash", 4 * 258),
        (inline("image/png", png(4000, 4000)), FLASH, 1120),
        (inline("image/png", png(4000, 4000), **low_resolution("LOW")), FLASH, 280),
        (inline("image/png", png(4000, 4000), **low_resolution("ODD")), FLASH, 1120),
        (with_part({"inline_data": {"mime_type": "image/png", "data": ""}}), FLASH, 1120),
        (
            with_part(
                {
                    "inlineData": {"mimeType": "image/png", "data": ""},
                    "mediaResolution": {"level": "MEDIA_RESOLUTION_ULTRA_HIGH"},
                }
            ),
            FLASH,
            2240,
        ),
        (
            inline("application/pdf", base64.b64encode(b"/Type /Page\n/Type/Page/x /Type /Pages").decode()),
            FLASH,
            2 * 560,
        ),
        (inline("application/pdf", base64.b64encode(b"\0" * 60_000).decode()), "gemini-2.5-pro", 2 * 258),
        (inline("audio/mpeg", base64.b64encode(b"\0" * 48_000).decode()), FLASH, 3 * 32),
        (inline("video/mp4", base64.b64encode(b"\0" * 750_000).decode()), FLASH, 3 * (70 + 32)),
        (inline("video/mp4", base64.b64encode(b"\0" * 750_000).decode()), "gemini-2.5-pro", 3 * 263),
        (inline("text/plain", base64.b64encode(b"x" * 40).decode()), FLASH, 10),
        (with_part({"fileData": {"fileUri": "files/x", "mimeType": "image/png"}}), FLASH, 1120),
        (with_part({"fileData": {"fileUri": "files/x", "mimeType": "audio/mpeg"}}), FLASH, 60 * 32),
        (with_part({"file_data": {"file_uri": "files/x", "mime_type": "video/mp4"}}), FLASH, 60 * 102),
        (with_part({"fileData": {"fileUri": "files/x"}}), FLASH, 5600),
    ],
)
def test_media_are_counted_by_their_units(request_: dict[str, Any], model: str, tokens: int) -> None:
    assert offline_counts(request_, model=model).total == tokens


def test_everything_that_gemini_reads_is_counted() -> None:
    request = {
        **ask("x" * 40, responseSchema={"type": "STRING"}),
        "systemInstruction": {"parts": [{"text": "x" * 80}]},
        "tools": [{"googleSearch": {}}],
    }
    # Not the schema of its answer: a count by Gemini is not known to hold that.
    assert offline_counts(request).total == 10 + 20 + 6
    assert offline_counts({"content": {"parts": [{"text": "x" * 40}]}}).total == 10
    assert offline_counts(with_part({"functionCall": {"name": "look_up", "args": {}}})).total == 12
    assert offline_counts({"contents": "x" * 40, "system_instruction": "x" * 8}).total == 12


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"contents": None},
        {"contents": [None, 7, {"parts": 7}, {"parts": [None, {}, {"text": 7}]}]},
        {"contents": [{"parts": [{"inlineData": {"mimeType": 7, "data": 7}}]}], "generationConfig": []},
        {"contents": [{"parts": [{"fileData": []}, {"inlineData": "x"}]}], "tools": 7},
    ],
)
def test_no_malformed_request_breaks_the_rule(request_: dict[str, Any]) -> None:
    for model in (FLASH, "gemini-2.5-pro"):
        assert offline_counts(request_, model=model).total >= 0
