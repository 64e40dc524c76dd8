"""Prompts with places for columns: what is replaced, what stays, and what is refused."""

import pytest

from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.intake.template import Column, column_named, compile_template, example_place, listed

COLUMNS = ("id", "text", "customer name", "Größe")


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", ()),
        ("plain", ("plain",)),
        ("{{text}}", (Column("text"),)),
        ("a {{ text }} b", ("a ", Column("text"), " b")),
        ("{{text}}{{id}}", (Column("text"), Column("id"))),
        ("{{customer name}}: {{Größe}}", (Column("customer name"), ": ", Column("Größe"))),
        (r"\{{text}} is {{text}}", ("{{text}} is ", Column("text"))),
        ("{text} } }} {", ("{text} } }} {",)),
        ('JSON: {"a":{"b":1}}', ('JSON: {"a":{"b":1}}',)),
        ("100 % 'quoted' \\n", ("100 % 'quoted' \\n",)),
    ],
)
def test_a_prompt_is_cut_at_its_places(text: str, pieces: tuple[str | Column, ...]) -> None:
    assert compile_template(text, COLUMNS, "prompt").pieces == pieces


@pytest.mark.parametrize(
    ("text", "message", "step"),
    [
        ("{{txt}}", '`prompt` names the column "txt"', "Did you mean text?"),
        ("{{TEXT}}", '`prompt` names the column "TEXT"', "Did you mean text?"),
        ("{{nothing like it}}", '`prompt` names the column "nothing like it"', "Its columns are: id, text"),
        ("{{}}", "`prompt` has {{}} without a name", "Its columns are"),
        ("a {{text", "`prompt` has {{ at character 3", r"Write {{column}}, or \{{"),
        ("a {{te\nxt}}", "`prompt` has {{ at character 3", r"Write {{column}}, or \{{"),
    ],
)
def test_a_place_that_names_no_column_is_refused(text: str, message: str, step: str) -> None:
    with pytest.raises(UsageError) as refusal:
        compile_template(text, COLUMNS, "prompt")

    assert refusal.value.message.startswith(message)
    assert step in refusal.value.next_step


def test_a_template_knows_its_columns_and_its_own_text() -> None:
    template = compile_template("{{text}} of {{id}}, {{text}}", COLUMNS, "prompt")

    assert template.columns == ("text", "id")
    assert template.without_values == " of , "


def test_a_column_that_an_argument_names_must_be_there() -> None:
    assert column_named("id", COLUMNS, "key_column") == "id"
    with pytest.raises(UsageError, match='`key_column` names the column "ID"'):
        column_named("ID", COLUMNS, "key_column")


def test_long_lists_of_columns_are_cut() -> None:
    names = [f"c{number}" for number in range(1_000)]

    assert listed(names).endswith("c29 and 970 more")


def test_the_example_uses_a_column_that_looks_like_text() -> None:
    assert example_place(("id", "Text")) == "{{Text}}"
    assert example_place(("i{d", "name")) == "{{name}}"
    assert example_place(()) == "{{column}}"
