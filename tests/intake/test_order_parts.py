"""The parts of an order over a table: JSON Schema, generation config, and templates, each converted or refused."""

import json
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from gemini_batch_mcp.domain import Order, Task
from gemini_batch_mcp.errors import BatchError, UsageError
from gemini_batch_mcp.intake.compose import write_rows
from gemini_batch_mcp.intake.generation_config import request_members
from gemini_batch_mcp.intake.response_schema import to_response_schema
from gemini_batch_mcp.intake.tables.folders import list_folder
from gemini_batch_mcp.intake.template import compile_template
from gemini_batch_mcp.intake.validator.validate import check_line
from support.sources import first_requests


class Mood(Enum):
    GOOD = "good"
    BAD = "bad"


class Part(BaseModel):
    name: str = Field(description="What it is called.", min_length=1)
    weight: float | None = None


class Review(BaseModel):
    """One review."""

    mood: Mood
    kind: Literal["a", "b"]
    stars: int = Field(ge=1, le=5)
    parts: list[Part] = Field(max_length=3)
    best: Part
    is_spam: bool = False


class Tree(BaseModel):
    children: list["Tree"]


def test_a_pydantic_models_schema_becomes_what_batches_accept() -> None:
    converted = to_response_schema(Review.model_json_schema())

    assert converted["type"] == "OBJECT"
    members = converted["properties"]
    assert members["mood"]["enum"] == ["good", "bad"]
    assert members["kind"]["enum"] == ["a", "b"]
    assert members["stars"]["type"] == "INTEGER"
    assert members["parts"]["items"]["properties"]["weight"]["nullable"] is True
    assert members["best"]["properties"]["name"]["description"] == "What it is called."
    assert members["is_spam"]["type"] == "BOOLEAN"
    assert "$defs" not in str(converted)
    assert "$ref" not in str(converted)
    request = {"contents": [{"parts": [{"text": "x"}]}], "generationConfig": {"responseSchema": converted}}
    assert check_line(json.dumps({"key": "k", "request": request}).encode(), 1, "generate").problem_count == 0


def test_a_schema_in_geminis_own_form_is_left_as_it_is() -> None:
    schema = {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}}
    assert to_response_schema(schema) == schema


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (Tree.model_json_schema(), "refers to itself"),
        ({"type": "object"}, "object without members"),
        ({"type": "object", "properties": {"a": True}}, "allows anything"),
        ({"type": "object", "properties": {"a": 3}}, "not a schema"),
        ({"type": "array"}, "response_schema"),
        ({"type": "array", "prefixItems": [{"type": "string"}]}, "prefixItems"),
        ({"type": "string", "not": {"const": "x"}}, "not"),
        ({"if": {}, "type": "string"}, "if"),
        ({"allOf": [{"type": "string"}, {"minLength": 1}]}, "merges several schemas"),
        ({"$ref": "#/$defs/Nowhere"}, "Nowhere"),
        ({"$ref": "https://example.org/schema"}, "response_schema"),
        ({"type": "wrong"}, "wrong"),
        ({"type": "string", "unheard": 1}, "unheard"),
        ({"enum": [1, "a"]}, "type"),
        ({"enum": []}, "type"),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["b"]}, "b"),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "patternProperties": {}}, "patternProperties"),
    ],
)
def test_what_gemini_has_no_form_for_is_refused_with_its_path(schema: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match="response_schema") as refused:
        to_response_schema(schema)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": ["string", "null"]}, {"type": "STRING", "nullable": True}),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, {"type": "INTEGER", "nullable": True}),
        ({"const": "x"}, {"type": "STRING", "format": "enum", "enum": ["x"]}),
        ({"allOf": [{"type": "boolean"}]}, {"type": "BOOLEAN"}),
        ({"type": "number", "minimum": 0, "maximum": 1}, {"type": "NUMBER", "minimum": 0, "maximum": 1}),
        (
            {"type": "array", "items": {"type": "string"}, "minItems": 1},
            {"type": "ARRAY", "items": {"type": "STRING"}, "minItems": 1},
        ),
        ({"type": "string", "format": "date-time"}, {"type": "STRING", "format": "date-time"}),
    ],
)
def test_single_schemas_are_converted(schema: dict[str, Any], expected: dict[str, Any]) -> None:
    converted = to_response_schema(schema)

    assert converted.keys() == expected.keys()
    for name, value in expected.items():
        assert str(converted[name]) == str(value)


def test_a_choice_of_types_stays_a_choice() -> None:
    converted = to_response_schema({"anyOf": [{"type": "string"}, {"type": "integer"}]})
    assert [choice["type"] for choice in converted["anyOf"]] == ["STRING", "INTEGER"]


def test_generation_config_is_written_in_one_canonical_form() -> None:
    members = request_members(
        "generate",
        {"max_output_tokens": 64, "thinking_config": {"thinking_level": "LOW"}, "temperature": None},
        {"type": "object", "properties": {"a": {"type": "string"}}},
    )
    config = members["generationConfig"]
    assert config["maxOutputTokens"] == 64
    assert config["thinkingConfig"] == {"thinkingLevel": "LOW"}
    assert config["responseMimeType"] == "application/json"
    assert config["responseSchema"]["type"] == "OBJECT"
    assert "temperature" not in config
    assert request_members("generate", {}, {}) == {}
    assert request_members("embed", {"output_dimensionality": 8}, {}) == {"outputDimensionality": 8}


@pytest.mark.parametrize(
    ("task", "config", "schema", "words"),
    [
        ("generate", {"maxOutputToken": 1}, {}, "maxOutputTokens"),
        ("generate", {"temperature": "hot"}, {}, "temperature"),
        ("generate", {"systemInstruction": "x"}, {}, "system_instruction"),
        ("generate", {"tools": []}, {}, "belongs directly inside a request"),
        ("generate", {"topK": 1, "top_k": 2}, {}, "given twice"),
        ("generate", {"responseSchema": {"type": "STRING"}}, {"type": "string"}, "Keep one of them"),
        ("generate", {"responseSchema": {"type": "STRING"}, "responseJsonSchema": {"type": "string"}}, {}, "both"),
        ("generate", {"responseMimeType": "text/plain"}, {"type": "string"}, "responseMimeType"),
        ("embed", {}, {"type": "string"}, "Embeddings don't take"),
        ("embed", {"taskTyp": "X"}, {}, "taskType"),
        ("embed", {"temperature": 1}, {}, "The settings are"),
        ("embed", {"outputDimensionality": "many"}, {}, "outputDimensionality"),
    ],
)
def test_a_wrong_config_is_named_with_what_is_right(
    task: Task, config: dict[str, Any], schema: dict[str, Any], words: str
) -> None:
    with pytest.raises(BatchError) as refused:
        request_members(task, config, schema)
    assert words in str(refused.value)


def test_a_json_schema_inside_the_config_goes_out_as_response_schema() -> None:
    """Batches answer badly with responseJsonSchema."""
    members = request_members("generate", {"responseJsonSchema": {"type": "string"}}, {})
    assert members["generationConfig"]["responseSchema"] == {"type": "STRING"}
    assert "responseJsonSchema" not in members["generationConfig"]


@pytest.mark.parametrize(
    ("text", "words"), [("{{nme}}", "name"), ("{{}}", "columns"), ("{{other}} and {{name}}", "other")]
)
def test_an_unknown_column_is_refused_with_those_there_are(text: str, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        compile_template(text, ("name", "place"), "prompt")
    assert words in str(refused.value)


def _rows(tmp_path: Path, table: str, **order: Any) -> list[dict[str, Any]]:
    source = tmp_path / "table.csv"
    source.write_text(table, encoding="utf-8")
    destination = tmp_path / "requests.jsonl"
    written = write_rows(
        source, destination, order=Order(source=str(source), **order), keys_path=tmp_path / "keys.jsonl"
    )
    rows = [json.loads(row) for row in destination.read_text(encoding="utf-8").split("\n")[:-1]]
    assert written.count == len(rows)
    assert [json.loads(key) for key in (tmp_path / "keys.jsonl").read_text(encoding="utf-8").split("\n")[:-1]] == [
        row["key"] for row in rows
    ]
    return rows


def test_braces_after_a_backslash_are_literal_and_cells_are_never_read_again(tmp_path: Path) -> None:
    rows = _rows(
        tmp_path, 'a,b\n{{b}},"x ""y"" \\ z"\n', prompt=r"\{{a}} is {{ a }}, {{b}}", system_instruction="Be {{b}}"
    )

    request = rows[0]["request"]
    assert request["contents"][0]["parts"][0]["text"] == '{{a}} is {{b}}, x "y" \\ z'
    assert request["systemInstruction"]["parts"][0]["text"] == 'Be x "y" \\ z'


def test_keys_are_the_same_for_the_same_rows_and_differ_between_rows(tmp_path: Path) -> None:
    first = [row["key"] for row in _rows(tmp_path, "a\nx\nx\ny\n", prompt="{{a}}")]
    again = [row["key"] for row in _rows(tmp_path, "a\nx\nx\ny\n", prompt="{{a}}")]

    assert first == again
    assert len(set(first)) == 3


def test_an_embedding_order_makes_one_content_of_each_row(tmp_path: Path) -> None:
    rows = _rows(
        tmp_path, "a\nx\ny\n", prompt="{{a}}", task="embed", generation_config={"taskType": "CLUSTERING"}, limit_rows=1
    )
    assert rows == [
        {"key": rows[0]["key"], "request": {"taskType": "CLUSTERING", "content": {"parts": [{"text": "x"}]}}}
    ]


@pytest.mark.parametrize(
    ("table", "order", "words"),
    [
        ("a,b\n1,x\n1,y\n", {"prompt": "{{b}}", "key_column": "a"}, "'1'"),
        ("a,b\n,x\n", {"prompt": "{{b}}", "key_column": "a"}, "key"),
        ("a,b\n1,x\n", {"prompt": "{{b}}", "key_column": "c"}, "c"),
        ("a,b\n1,x\n", {"prompt": "no columns"}, "{{"),
        ("a,b\n1,x\n", {"prompt": "{{b}}", "task": "embed", "system_instruction": "x"}, "system_instruction"),
    ],
)
def test_rows_and_keys_that_cannot_be_sent_are_named(
    tmp_path: Path, table: str, order: dict[str, Any], words: str
) -> None:
    with pytest.raises(BatchError) as refused:
        _rows(tmp_path, table, **order)
    assert words in str(refused.value).lower() or words in str(refused.value)
    assert not (tmp_path / "requests.jsonl").exists()


def test_the_files_of_a_folder_are_rows(tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    (folder / "deep").mkdir(parents=True)
    (folder / "b.txt").write_text("second", encoding="utf-8")
    (folder / "a.txt").write_text("first", encoding="utf-8")
    (folder / "deep" / "c.txt").write_text("third", encoding="utf-8")
    (folder / ".hidden.txt").write_text("secret", encoding="utf-8")
    source = list_folder(folder, "**/*.txt")
    rows = first_requests(source, order=Order(source="notes", prompt="{{path}}: {{text}}"), count=9)

    texts = [row["request"]["contents"][0]["parts"][0]["text"] for row in rows]
    assert texts == ["a.txt: first", "b.txt: second", "deep/c.txt: third"]
    with pytest.raises(UsageError):
        list_folder(folder, "*.png")
