"""JSON Schema as Pydantic writes it, as Gemini's responseSchema: what is converted, what is refused, and the config."""

import datetime
import json
from collections.abc import Mapping
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field

from gemini_batch_mcp.errors import RequestProblems, UsageError
from gemini_batch_mcp.intake.generation_config import request_members
from gemini_batch_mcp.intake.response_schema import to_response_schema
from gemini_batch_mcp.intake.validator.validate import check_line


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Address(BaseModel):
    """Where somebody lives."""

    street: str
    number: int = Field(gt=0, le=999)


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: Literal[7, 8, 9]


class Dog(BaseModel):
    kind: Literal["dog"]
    weight: float = Field(gt=0.5, description="In kilograms.")


class Person(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=80, pattern="^[A-Z]", examples=["Ada", "Bob"])
    age: int | None = None
    address: Address
    second: Address | None = Field(default=None, description="A second one.")
    colours: list[Colour] = Field(min_length=1, max_length=3)
    tags: set[str] = set()
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    born: datetime.date
    seen: datetime.datetime
    id: UUID
    score: float = Field(default=0.5, ge=0, lt=1, multiple_of=0.5)
    either: str | int
    happy: bool = True


def test_a_model_of_pydantic_is_converted_whole() -> None:
    converted = to_response_schema(Person.model_json_schema())

    assert converted == {
        "type": "OBJECT",
        "title": "Person",
        "properties": {
            "name": {
                "type": "STRING",
                "title": "Name",
                "example": "Ada",
                "pattern": "^[A-Z]",
                "minLength": 1,
                "maxLength": 80,
            },
            "age": {"type": "INTEGER", "title": "Age", "nullable": True},
            "address": ADDRESS,
            "second": {**ADDRESS, "description": "A second one.", "nullable": True},
            "colours": {
                "type": "ARRAY",
                "title": "Colours",
                "minItems": 1,
                "maxItems": 3,
                "items": {"type": "STRING", "title": "Colour", "enum": ["red", "blue"], "format": "enum"},
            },
            "tags": {
                "type": "ARRAY",
                "title": "Tags",
                "default": [],
                "items": {"type": "STRING"},
                "description": "(unique items)",
            },
            "pet": {
                "title": "Pet",
                "anyOf": [
                    {
                        "type": "OBJECT",
                        "title": "Cat",
                        "properties": {
                            "kind": {"type": "STRING", "title": "Kind", "enum": ["cat"], "format": "enum"},
                            "lives": {"type": "INTEGER", "title": "Lives", "minimum": 7, "maximum": 9},
                        },
                        "required": ["kind", "lives"],
                        "propertyOrdering": ["kind", "lives"],
                    },
                    {
                        "type": "OBJECT",
                        "title": "Dog",
                        "properties": {
                            "kind": {"type": "STRING", "title": "Kind", "enum": ["dog"], "format": "enum"},
                            "weight": {
                                "type": "NUMBER",
                                "title": "Weight",
                                "minimum": 0.5,
                                "description": "In kilograms. (greater than 0.5)",
                            },
                        },
                        "required": ["kind", "weight"],
                        "propertyOrdering": ["kind", "weight"],
                    },
                ],
            },
            "born": {"type": "STRING", "title": "Born", "description": "(format: date)"},
            "seen": {"type": "STRING", "title": "Seen", "format": "date-time"},
            "id": {"type": "STRING", "title": "Id", "description": "(format: uuid)"},
            "score": {
                "type": "NUMBER",
                "title": "Score",
                "default": 0.5,
                "minimum": 0,
                "maximum": 1,
                "description": "(less than 1; a multiple of 0.5)",
            },
            "either": {"title": "Either", "anyOf": [{"type": "STRING"}, {"type": "INTEGER"}]},
            "happy": {"type": "BOOLEAN", "title": "Happy", "default": True},
        },
        "required": ["name", "address", "colours", "pet", "born", "seen", "id", "either"],
        "propertyOrdering": list(Person.model_fields),
    }


ADDRESS = {
    "type": "OBJECT",
    "title": "Address",
    "description": "Where somebody lives.",
    "properties": {
        "street": {"type": "STRING", "title": "Street"},
        "number": {"type": "INTEGER", "title": "Number", "minimum": 1, "maximum": 999},
    },
    "required": ["street", "number"],
    "propertyOrdering": ["street", "number"],
}


def test_what_comes_out_is_what_the_validator_takes() -> None:
    members = request_members("generate", {}, Person.model_json_schema())
    request = {"contents": [{"parts": [{"text": "x"}]}], **members}

    assert check_line(json.dumps({"key": "k", "request": request}).encode(), 1, "generate").problems == ()


@pytest.mark.parametrize(
    ("schema", "converted"),
    [
        ({"type": ["string", "null"]}, {"type": "STRING", "nullable": True}),
        ({"type": ["string", "integer"]}, {"anyOf": [{"type": "STRING"}, {"type": "INTEGER"}]}),
        (
            {"type": ["string", "integer", "null"], "title": "T"},
            {"title": "T", "anyOf": [{"type": "STRING"}, {"type": "INTEGER"}], "nullable": True},
        ),
        ({"const": "a"}, {"type": "STRING", "enum": ["a"], "format": "enum"}),
        ({"const": 3}, {"type": "INTEGER", "minimum": 3, "maximum": 3}),
        ({"enum": ["a", None]}, {"type": "STRING", "enum": ["a"], "format": "enum", "nullable": True}),
        ({"enum": [3, 1, 2]}, {"type": "INTEGER", "minimum": 1, "maximum": 3}),
        ({"enum": [True, False]}, {"type": "BOOLEAN"}),
        ({"items": {"type": "number"}}, {"type": "ARRAY", "items": {"type": "NUMBER"}}),
        ({"oneOf": [{"type": "string"}, {"const": None}]}, {"type": "STRING", "nullable": True}),
        ({"allOf": [{"type": "string"}], "title": "T"}, {"type": "STRING", "title": "T"}),
        ({"type": "string", "format": "date-time"}, {"type": "STRING", "format": "date-time"}),
        ({"type": "string", "example": "x"}, {"type": "STRING", "example": "x"}),
        ({"type": "integer", "exclusiveMinimum": 1, "minimum": 5}, {"type": "INTEGER", "minimum": 5}),
        ({"type": "integer", "exclusiveMaximum": 9}, {"type": "INTEGER", "maximum": 8}),
        ({"type": "string", "nullable": True}, {"type": "STRING", "nullable": True}),
        (
            {"properties": {"b": {"type": "string"}, "a": {"type": "string"}}, "additionalProperties": True},
            {
                "type": "OBJECT",
                "properties": {"b": {"type": "STRING"}, "a": {"type": "STRING"}},
                "propertyOrdering": ["b", "a"],
            },
        ),
        (
            {"$ref": "#/definitions/a~1b", "definitions": {"a/b": {"type": "string"}}, "description": "D"},
            {"type": "STRING", "description": "D"},
        ),
        ({"type": "OBJECT", "properties": {"a": {"type": "STRING"}}}, None),
        ({"anyOf": [{"type": "STRING"}, {"type": "NUMBER"}]}, None),
    ],
)
def test_a_schema_is_converted_or_is_gemini_s_already(
    schema: Mapping[str, Any], converted: Mapping[str, Any] | None
) -> None:
    assert to_response_schema(schema) == (schema if converted is None else converted)


@pytest.mark.parametrize(
    ("schema", "message", "reason"),
    [
        ({}, "`s` does not say its type.", 'Add a "type".'),
        ({"type": "null"}, "`s` allows only null.", "Leave it out."),
        ({"anyOf": [{"type": "null"}]}, "`s` allows only null.", "Leave it out."),
        ({"anyOf": "x"}, "`s.anyOf` is text.", "Write a list"),
        ({"type": "strin"}, "`s.type` is strin.", "Did you mean `string`?"),
        ({"type": 7}, "`s.type` is 7.", "Name a JSON type."),
        ({"type": "array"}, "`s` is a list whose items are not described.", "Add `items`"),
        ({"type": "array", "items": True}, "`s.items` allows anything.", 'with a "type"'),
        ({"type": "array", "items": 3}, "`s.items` is a number, not a schema.", 'with a "type"'),
        ({"type": "array", "items": [{"type": "string"}]}, "`s.items` describes a tuple.", "one kind of item"),
        ({"type": "array", "prefixItems": []}, "`s.prefixItems` has no counterpart", "one kind of item"),
        ({"type": "object"}, "`s` is an object without members.", "fixed members"),
        (
            {"type": "object", "additionalProperties": {"type": "string"}},
            "`s` is an object with arbitrary member names.",
            "list of {name, value}",
        ),
        (
            {"properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}},
            "`s.additionalProperties` describes arbitrary members.",
            "list of {name, value}",
        ),
        ({"properties": {"a": {"type": "string"}}, "required": ["b"]}, "`s.required` names b", "Add it"),
        ({"properties": {"a": {"type": "string"}}, "required": "a"}, "`s.required` is text.", "Write a list"),
        ({"type": "string", "not": {}}, "`s.not` has no counterpart", "cannot exclude"),
        ({"type": "string", "if": {}}, "`s.if` has no counterpart", "no conditions"),
        ({"type": "string", "patern": "x"}, "`s.patern` is not a keyword", "Did you mean `pattern`?"),
        ({"type": "string", "zzzzzz": "x"}, "`s.zzzzzz` is not a keyword", "Leave it out."),
        ({"allOf": [{"type": "string"}, {"minLength": 1}]}, "`s.allOf` merges several schemas.", "one merged schema"),
        ({"$ref": "#/$defs/A"}, "`s` refers to #/$defs/A, which doesn't exist.", "Add the definition"),
        ({"$ref": "other.json#/A"}, "`s` refers to other.json#/A, outside", "Put the definition"),
        ({"$ref": "#/$defs/A", "type": "integer", "$defs": {"A": {"type": "string"}}}, "`s` gives `type`", "one place"),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}], "minimum": 1}, "`s.minimum` stands beside anyOf", "each"),
        ({"enum": [1, 5]}, "`s.enum` lists values that are not strings (1, 5).", "strings only"),
        ({"enum": [1.5]}, "`s.enum` lists values that are not strings (1.5).", "strings only"),
        ({"const": True}, "`s.enum` lists values that are not strings (true).", "strings only"),
        ({"type": "string", "enum": []}, "`s.enum` is not a list of values.", "allowed values"),
        ({"enum": ["a", 1]}, "`s` does not say its type.", 'Add a "type"'),
        (
            {"properties": {"a": {"anyOf": [{"type": "string"}, {"type": "object"}]}}},
            "`s.properties.a.anyOf[1]` is an object without members.",
            "fixed members",
        ),
    ],
)
def test_what_has_no_form_at_gemini_is_refused_with_path_and_reason(
    schema: Mapping[str, Any], message: str, reason: str
) -> None:
    with pytest.raises(UsageError) as refusal:
        to_response_schema(schema, "s")

    assert refusal.value.message.startswith(message)
    assert reason in refusal.value.next_step


class Tree(BaseModel):
    children: "list[Tree]"


def test_recursion_is_refused() -> None:
    with pytest.raises(UsageError, match=r"`response_schema.properties.children.items` refers to itself") as refusal:
        to_response_schema(Tree.model_json_schema())

    assert "no recursion" in refusal.value.next_step


def test_references_that_multiply_are_bounded() -> None:
    levels = {
        f"L{number}": {"properties": {side: {"$ref": f"#/$defs/L{number + 1}"} for side in "abc"}}
        for number in range(20)
    }

    with pytest.raises(UsageError, match="larger than 5,000 nodes"):
        to_response_schema({"$ref": "#/$defs/L0", "$defs": {**levels, "L20": {"type": "string"}}})


def test_a_config_is_written_in_one_spelling() -> None:
    config = {
        "max_output_tokens": 5,
        "topP": 0.5,
        "seed": None,
        "thinking_config": {"thinking_budget": 0},
        "speech_config": {"multi_speaker_voice_config": {"speaker_voice_configs": [{"speaker": "a"}]}},
        "image_config": {"aspect_ratio": "1:1"},
    }

    assert request_members("generate", config, {}) == {
        "generationConfig": {
            "maxOutputTokens": 5,
            "topP": 0.5,
            "thinkingConfig": {"thinkingBudget": 0},
            "speechConfig": {"multiSpeakerVoiceConfig": {"speakerVoiceConfigs": [{"speaker": "a"}]}},
            "imageConfig": {"aspectRatio": "1:1"},
        }
    }
    assert request_members("generate", {}, {}) == {}


@pytest.mark.parametrize("name", ["responseSchema", "response_schema", "responseJsonSchema", "response_json_schema"])
def test_a_schema_in_the_config_goes_out_as_the_one_that_batch_answers_keep(name: str) -> None:
    assert request_members("generate", {name: {"type": "string"}}, {}) == {
        "generationConfig": {"responseSchema": {"type": "STRING"}, "responseMimeType": "application/json"}
    }


@pytest.mark.parametrize(
    ("config", "schema", "text"),
    [
        ({"temprature": 1}, {}, "`generation_config.temprature` is not a member of GenerationConfig."),
        ({"temperature": 3}, {}, "`generation_config.temperature` is 3"),
        ({"thinking_config": {"budget": 1}}, {}, "`generation_config.thinkingConfig.budget`"),
        ({"thinking_config": 1, "imageConfig": 2}, {}, "`generation_config` has 2 problems"),
        ({"topP": 1, "top_p": 0}, {}, "`topP` is given twice"),
        ({"system_instruction": "x"}, {}, "Give `system_instruction` beside it."),
        ({"tools": []}, {}, "It isn't a generation setting."),
        ({"responseSchema": {"type": "string"}}, {"type": "string"}, "Both `response_schema` and"),
        ({"responseSchema": {}, "responseJsonSchema": {}}, {}, "has both responseSchema and responseJsonSchema"),
        ({"responseMimeType": "text/plain"}, {"type": "string"}, "responseMimeType` is text/plain, with a schema"),
        ({"responseSchema": "x"}, {}, "`generation_config.responseSchema` is text"),
        ({}, {"type": "array"}, "`response_schema` is a list whose items"),
    ],
)
def test_a_config_that_is_wrong_is_refused(config: Mapping[str, Any], schema: Mapping[str, Any], text: str) -> None:
    with pytest.raises(UsageError) as refusal:
        request_members("generate", config, schema)

    assert text in str(refusal.value)


def test_a_config_for_embeddings_holds_three_members() -> None:
    config = {"task_type": "CLUSTERING", "title": "t", "output_dimensionality": 8}

    assert request_members("embed", config, {}) == {"taskType": "CLUSTERING", "title": "t", "outputDimensionality": 8}
    with pytest.raises(UsageError, match="Did you mean `outputDimensionality`"):
        request_members("embed", {"outputDimension": 8}, {})
    with pytest.raises(RequestProblems, match=r"generation_config\.outputDimensionality"):
        request_members("embed", {"outputDimensionality": 0}, {})
