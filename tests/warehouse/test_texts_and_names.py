"""Whatever a prompt, a key or a name is, it stays in the literal that it is put into: two readers of SQL say so."""

import ast

import pytest
import sqlglot
from hypothesis import example, given
from hypothesis import strategies as st
from sqlglot import TokenType

from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.warehouse._text import literal, name
from gemini_batch_mcp.warehouse.statements import table_named
from support.extent import long

#: Characters that end something, in SQL, in JSON, in regular expressions, or on a line.
HOSTILE = "'\"`\\;-#/*@?{}()[]$.,:=\n\r\t\0\x01\x1b\x1f\x7f\x85\u2028\u2029\u202e\ufeff🙂é"
TEXTS = st.text(st.one_of(st.sampled_from(HOSTILE), st.characters(exclude_categories=["Cs"])), max_size=40)


@given(TEXTS)
@example("\\")
@example("'")
@example("\\'")
@example("'; DROP TABLE x; --")
@example("''' \"\"\" ` \\\\")
@example("\\x27 OR TRUE")
def test_a_literal_is_one_token_whose_text_is_that_text(text: str) -> None:
    written = literal(text)
    between = sqlglot.tokenize(f"a = {written} OR b", read="bigquery")
    assert [token.token_type for token in between][2:] == [TokenType.STRING, TokenType.OR, TokenType.VAR]
    # Escapes of GoogleSQL that are used here mean the same in Python.
    assert ast.literal_eval(written) == text
    assert not set(written) & set("\n\r\0")


@given(TEXTS)
@example("`; SELECT 1; --")
@example("a` AS b, c.`d")
@example("a\\")
@example("it's")
def test_a_columns_name_is_one_identifier_or_refused(text: str) -> None:
    try:
        written = name(text)
    except UsageError:
        assert not text or set(text) & set("`\\") or not text.isprintable()
        return
    between = sqlglot.tokenize(f"SELECT {written} FROM t", read="bigquery")
    assert [token.token_type for token in between][1:] == [TokenType.IDENTIFIER, TokenType.FROM, TokenType.VAR]
    assert between[1].text == text


def test_half_a_character_is_refused_in_words() -> None:
    with pytest.raises(UsageError, match="half a surrogate pair"):
        literal("a\ud800b")


@pytest.mark.parametrize(
    "source",
    [
        "bq://my-project.sales.reviews",
        "bq://example.com:my-project.sales.reviews_2026",
        "bq://my-project.sales.reviews-per day",
        "bq://my-project.sales.Größe",
    ],
)
def test_a_table_is_found_by_its_name(source: str) -> None:
    table = table_named(source)
    assert table.uri == source
    assert table.quoted == f"`{source.removeprefix('bq://')}`"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("bq://sales.reviews", "2 parts between dots, not 3"),
        ("bq://my-project:sales.reviews", "2 parts between dots, not 3"),
        ("bq://my-project.sales.reviews.more", "4 parts"),
        ("bq://p.d.t", "p isn't a project's id, which has 6 to 30 small letters"),
        ("bq://1234567.sales.reviews", "a letter first"),
        ("bq://my-project-.sales.reviews", "no hyphen last"),
        ("bq://my-project.sales.", "none of the three is empty"),
        ("bq://my-project.sales.`reviews`", "letters, digits"),
        ("bq://my-project.sales.reviews`; DROP TABLE x; --", "letters, digits"),
        ("bq://my-project.sales.events_*", "One table is one order"),
        ("bq://my-project.sales.reviews\n", "letters, digits"),
        ("bq://my-project.sales.a'b", "letters, digits"),
        ("bq://my-project.sälés.reviews", "letters, digits"),
        ("bq://My-Project.sales.reviews", "small letters"),
        ("bq://`my-project`.sales.reviews", "without quotes"),
        ("bq://my-project.INFORMATION_SCHEMA.TABLES", "INFORMATION_SCHEMA"),
        ("bq://", "bq://project.dataset.table"),
        (f"bq://my-project.sales.{'x' * 1025}", "letters, digits"),
    ],
)
def test_what_names_no_table_is_refused(source: str, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        table_named(source)
    assert words in str(refused.value)


@given(TEXTS)
@long
def test_no_name_that_is_taken_ends_its_backticks(text: str) -> None:
    try:
        table = table_named(f"bq://my-project.sales.{text}")
    except UsageError:
        return
    tokens = sqlglot.tokenize(f"SELECT 1 FROM {table.quoted} AS t", read="bigquery")
    assert [token.token_type for token in tokens][3:4] == [TokenType.IDENTIFIER]
    assert len(tokens) == 6
