"""Values for response schemas: whatever the schema, the value fits it, and making it comes to an end."""

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemini_batch_mcp.sandbox.replies._schemas import Dice, compile_schema

SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"label": {"enum": ["a", "b"]}, "n": {"type": "integer"}}, "required": ["label"]},
    {"type": "array", "items": {"type": "string", "minLength": 40, "maxLength": 45}, "minItems": 2, "maxItems": 3},
    {"type": "array", "items": {"type": "boolean"}, "maxItems": 0},
    {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False},
    {"type": "array", "items": {"enum": [1, 2, 3]}, "minItems": 1, "uniqueItems": True},
    {"type": "array", "items": {"const": 1}, "minItems": 1, "maxItems": 1, "uniqueItems": True},
    {"type": "integer", "minimum": 5, "maximum": 9, "multipleOf": 3},
    {"type": "integer", "exclusiveMinimum": 5, "exclusiveMaximum": 7},
    {"type": "integer", "maximum": -5},
    {"type": "number", "minimum": 0.25, "maximum": 0.25},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    {"type": "number", "minimum": 0, "maximum": 10, "multipleOf": 0.5},
    {"type": "string", "format": "date-time"},
    {"type": "string", "maxLength": 3},
    {"type": "string", "minLength": 100},
    {"type": ["null", "string"]},
    {"type": ["null"]},
    {"type": "null"},
    {"const": {"deep": [1, 2]}},
    {"anyOf": [{"type": "integer"}, {"type": "boolean"}]},
    {"oneOf": [{"type": "string"}], "description": "one"},
    {"type": "object", "anyOf": [{"required": ["a"]}, {"required": ["b"]}], "properties": {"a": {}, "b": {}}},
    {"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}}, {"required": ["a"]}]},
    {
        "allOf": [
            {"properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"properties": {"b": {"type": "string"}}, "required": ["b"]},
        ]
    },
    {"$defs": {"leaf": {"type": "integer"}}, "properties": {"x": {"$ref": "#/$defs/leaf"}}, "required": ["x"]},
    {"$defs": {"n": {"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}}}}, "$ref": "#/$defs/n"},
    {"$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}}, "$ref": "#/$defs/t"},
    {"items": {"type": "string"}, "minItems": 1},
    {"type": "object"},
    {},
]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_an_answer_fits_its_json_schema(schema: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(schema)
    sample = compile_schema(schema)
    for seed in range(50):
        validator.validate(sample(Dice(seed)))


@given(
    st.recursive(
        st.one_of(
            st.just({"type": "boolean"}),
            st.builds(
                lambda low, span: {"type": "integer", "minimum": low, "maximum": low + span},
                st.integers(-1000, 1000),
                st.integers(0, 50),
            ),
            st.builds(
                lambda low, span: {"type": "string", "minLength": low, "maxLength": low + span},
                st.integers(0, 60),
                st.integers(0, 60),
            ),
            st.lists(st.text(max_size=5), min_size=1, max_size=4, unique=True).map(lambda values: {"enum": values}),
        ),
        lambda inner: st.one_of(
            st.dictionaries(st.text(max_size=5), inner, max_size=3).map(
                lambda properties: {"type": "object", "properties": properties, "required": sorted(properties)}
            ),
            st.builds(
                lambda items, low, span: {"type": "array", "items": items, "minItems": low, "maxItems": low + span},
                inner,
                st.integers(0, 3),
                st.integers(0, 3),
            ),
        ),
        max_leaves=8,
    ),
    st.integers(0, 2**64 - 1),
)
def test_whatever_the_schema_the_value_fits(schema: dict[str, Any], seed: int) -> None:
    jsonschema.Draft202012Validator(schema).validate(compile_schema(schema)(Dice(seed)))


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/nothing"},
        {"$ref": "#/type/b", "type": "object"},
        {"properties": {"a": 5, "b": True}},
        {"anyOf": [5]},
        {"type": "string", "maxLength": "many"},
        {"type": "integer", "minimum": "1e999", "maximum": True},
        5,
        None,
    ],
)
def test_a_schema_that_leads_nowhere_still_gives_something(schema: Any) -> None:
    json.dumps(compile_schema(schema)(Dice(1)))


def test_a_schema_that_multiplies_itself_comes_to_an_end() -> None:
    node: dict[str, Any] = {"type": "object", "properties": {f"p{number}": {"$ref": "#"} for number in range(20)}}
    node["required"] = list(node["properties"])
    assert len(json.dumps(compile_schema(node)(Dice(1)))) < 1_000_000
    circle = {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}
    assert compile_schema(circle)(Dice(1)) is None
