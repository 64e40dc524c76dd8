"""Nothing that a reader cannot see reaches one: every hidden character of Unicode is written out."""

import unicodedata

import pytest

from gemini_batch_mcp.results.visible import shown_error, visible, visible_cell


def test_every_character_without_a_shape_is_written_out() -> None:
    hidden = [
        chr(code)
        for code in range(0x110000)
        if unicodedata.category(chr(code)) in ("Cc", "Cf", "Cs", "Zl", "Zp") and chr(code) not in "\t\n\r"
    ]

    assert len(hidden) > 2000
    assert [f"{ord(character):X}" for character in hidden if visible(character) != f"<U+{ord(character):04X}>"] == []


@pytest.mark.parametrize(
    "code",
    [
        *(0x034F, 0x115F, 0x17B4, 0x180B, 0x2065, 0x2800, 0x3164, 0xFFA0, 0xFDD0, 0xFFF0, 0xFFFE, 0xFFFF),
        *(0xFE00, 0xFE0D, 0xE0000, 0xE0041, 0xE007F, 0xE0100, 0xE01EF, 0xF0000, 0x10FFFD, 0xFFF9, 0xFFFB, 0xAD),
    ],
)
def test_carriers_of_hidden_text_are_written_out(code: int) -> None:
    assert visible(f"a{chr(code)}b") == f"a<U+{code:04X}>b"


@pytest.mark.parametrize("text", ["❤️", "☎︎ ok", "1️⃣ and #️⃣", "⚠️", "🅰️", "©️", "‼️", "ℹ️", "↔️"])
def test_the_form_of_a_symbol_may_be_chosen(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\ufe0f", "a<U+FE0F>"),
        ("\ufe0e", "<U+FE0E>"),
        ("❤\ufe0f\ufe0e\ufe0f", "❤\ufe0f<U+FE0E><U+FE0F>"),
        ("7\ufe0f", "7<U+FE0F>"),
        ("7\ufe0f\ufe0f\u20e3", "7<U+FE0F><U+FE0F>\u20e3"),
        ("日\ufe0e", "日<U+FE0E>"),
        ("lone\rreturn\r\n", "lone\nreturn\n"),
        ("\x1b[2J", "<U+001B>[2J"),
        ("\u202eevil\u202c", "<U+202E>evil<U+202C>"),
    ],
)
def test_a_choice_of_form_where_there_is_none_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_an_error_is_one_line_with_its_code() -> None:
    assert shown_error(3, "no\nway\u200b https://example.test/x", 100) == "code 3: no way<U+200B> [link]"
    assert shown_error(None, "", 100) == ""
    assert len(visible_cell("\ufe0f" * 500, 100)) == 100
