"""Text from outside, fit to stand inside our own: what cannot be seen, keys and links are gone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemini_batch_mcp.text import dollars, plain_text, safe_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words, 100 % kept: {'a': [1]}", "plain words, 100 % kept: {'a': [1]}"),
        ("two\nlines\tand\u2028more", "two lines and more"),
        ("\x1b[31mred\x1b[0m \x1b]8;;https://x\x07link", "red link"),
        ("a\u202eb\u200bc\u2066d\ufeffe", "abcde"),
        ("tag\U000e0041s and \ufe0f selectors \U000e0100", "tags and selectors"),
        ("lone \ud800 surrogate", "lone surrogate"),
        ("日本語 Grüße العربية", "日本語 Grüße العربية"),
    ],
)
def test_text_from_outside_loses_what_cannot_be_seen(text: str, shown: str) -> None:
    assert plain_text(text) == safe_text(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see https://x.example/a?b=c now", "see [link] now"),
        ("POST http://h/upload?upload_id=AB-cd_9&x=1 failed", "POST [link] failed"),
        ("key AIzaSyD-1234567890abcdefghijk was refused", "key [key] was refused"),
        ("key AQ.Ab8RN6KabcdefghijK was refused", "key [key] was refused"),
        ("/v1beta/files?key=abc123&x=1", "/v1beta/files?[secret]&x=1"),
        ("upload_id=ABPtcPq-1_2 expired", "[secret] expired"),
        ("X-Goog-Api-Key: abc", "[secret]"),
        ("Authorization: Bearer abc.def", "Authorization: [secret]"),
        ("k\u200bey=AI\u200bzaSyD-1234567890", "[secret]"),
        ("duplicate key: 'row-1'", "duplicate key: 'row-1'"),
        ("monkey=3", "monkey=3"),
    ],
)
def test_safe_text_loses_keys_links_and_upload_ids(text: str, shown: str) -> None:
    assert safe_text(text) == shown


def test_a_cut_is_marked_and_counted() -> None:
    assert plain_text("a" * 300) == "a" * 300
    assert plain_text("a" * 301) == "a" * 299 + "…"
    assert safe_text("word " * 10**6, 20) == "word word word word…"


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (0, "$0.00"),
        (0.0000004, "under $0.000001"),
        (0.000012, "$0.000012"),
        (0.000005, "$0.000005"),
        (0.0002, "$0.0002"),
        (1234.5, "$1,234.50"),
    ],
)
def test_an_amount_that_is_not_nothing_never_reads_as_nothing(amount: float, shown: str) -> None:
    assert dollars(amount) == shown


@given(st.text(), st.integers(1, 400))
def test_safe_text_keeps_its_limit_and_is_stable(text: str, limit: int) -> None:
    once = safe_text(text, limit)
    assert len(once) <= limit
    assert plain_text(once, limit) == once
    assert once.isprintable()
