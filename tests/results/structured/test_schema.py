"""Structured answers: checked against the schema of the order, made into columns, and refused with a reason."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemini_batch_mcp.domain import Column
from gemini_batch_mcp.patterns import patterns_of
from gemini_batch_mcp.results.store import AnswerFile, TablePlan
from gemini_batch_mcp.results.structured._types import NoType, answer_decoder
from gemini_batch_mcp.results.structured.checking import NO_JSON, AnswerCheck
from gemini_batch_mcp.results.structured.schema import field_columns, plain_schema
from support.answers import all_rows, answer, answer_file, cells, failure, keys_file, planned, rebuilt
from support.extent import few, in_part, tries

LABELS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "label": {"type": "string", "enum": ["pos", "neg"]},
        "score": {"type": "integer", "minimum": 1, "maximum": 5},
        "share": {"type": "number"},
        "sure": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["label"],
}
GEMINI: dict[str, Any] = {
    "type": "OBJECT",
    "properties": {
        "label": {"type": "STRING", "enum": ["pos", "neg"]},
        "score": {"type": "INTEGER", "nullable": True},
        "tags": {"type": "ARRAY", "items": {"type": "STRING"}, "minItems": "1"},
    },
    "required": ["label"],
    "propertyOrdering": ["score", "label"],
}


def test_fields_become_columns_with_their_types(tmp_path: Path) -> None:
    whole = {"label": "pos", "score": 3, "share": 0.5, "sure": True, "tags": ["x"]}
    lines = [answer("a", json.dumps(whole)), answer("b", '{"label": "neg", "score": 2.0}')]
    table = planned(tmp_path, lines, keys=["a", "b"], response_schema=LABELS)

    assert cells(table, "SELECT label, score, share, sure, tags, json->>'label' FROM results ORDER BY row") == [
        ("pos", 3, 0.5, True, '["x"]', "pos"),
        ("neg", 2, None, None, None, "neg"),
    ]
    types = {column.name: column.type for column in table.columns}
    assert [types[name] for name in LABELS["properties"]] == ["VARCHAR", "BIGINT", "DOUBLE", "BOOLEAN", "JSON"]


#: Answers, and why they do not fit; nothing where either is right.
MISFITS: list[tuple[str, str]] = [
    ('{"label": "other"}', "label is not one of the allowed values"),
    ("{}", "the answer lacks label"),
    ('{"label": "pos", "score": 9}', "score is above 5"),
    ('{"label": "pos", "score": "3"}', "score is text, not a whole number"),
    ('{"label": "pos", "tags": ["x", 5]}', "tags[1] is a number, not text"),
    ('{"label": "pos", "sure": null}', "sure is null, not a boolean"),
    ("[]", "the answer is a list, not an object"),
    ("positive", "the answer is not valid JSON"),
    ('{"label": "pos"', "the answer is not valid JSON"),
    ('{"label": "pos", "share": NaN}', "the answer is not valid JSON"),
    ('{"label": "pos",}', "the answer is not valid JSON"),
    ('{"label": "pos", "label": "SECRET"}', "label is not one of the allowed values"),
    ('{"label": "SECRET", "label": "pos"}', "the answer has the same member twice"),
    ('{"label": "pos", "deep": ' + "[" * 3000 + "]" * 3000 + "}", ""),
]


def test_an_answer_that_does_not_fit_is_failed_with_the_reason(tmp_path: Path) -> None:
    """The reason is in words of ours; nothing that the model wrote is repeated in it."""
    lines = [answer(f"k{number}", text) for number, (text, _) in enumerate(MISFITS)]
    lines.append(answer("b", '{"label": "pos"}'))
    table = planned(tmp_path, lines, keys=[*(f"k{n}" for n in range(len(MISFITS))), "b"], response_schema=LABELS)

    *rows, fine = all_rows(table)
    assert fine.status == "ok"
    structured = cells(table, "SELECT json, label FROM results ORDER BY row")
    for row, cell, (text, reason) in zip(rows, structured[:-1], MISFITS, strict=True):
        if reason:
            assert (row.status, row.error) == ("failed", f"does not fit the response schema: {reason}"), text
            assert (row.text, cell) == (text, (None, None))
        else:
            assert row.status in ("ok", "failed")


def test_only_whole_answers_are_checked(tmp_path: Path) -> None:
    lines = [answer("a", '{"lab', "MAX_TOKENS"), answer("b", "no", "SAFETY"), failure("c"), answer("d", "")]
    table = planned(tmp_path, lines, keys=["a", "b", "c", "d"], response_schema=LABELS)

    assert [row.status for row in all_rows(table)] == ["truncated", "blocked", "failed", "empty"]


def test_a_mended_line_is_checked_too(tmp_path: Path) -> None:
    lines = [answer("a", '{"label": "posX"}').replace(b"X", b"\xff"), answer("b", '{"label": "pos"}')]
    table = planned(tmp_path, lines, keys=["a", "b"], response_schema=LABELS)

    assert [row.status for row in all_rows(table)] == ["failed", "ok"]


def test_without_a_schema_there_is_no_json(tmp_path: Path) -> None:
    table = planned(tmp_path, answer("a", '{"label": "pos"}'), keys=["a"])

    assert cells(table, "SELECT json, text->>'label' FROM results") == [(None, "pos")]


def test_a_schema_of_a_list_has_no_fields(tmp_path: Path) -> None:
    schema = {"type": "array", "items": {"type": "integer"}}
    table = planned(tmp_path, [answer("a", "[1, 2]"), answer("b", "[1.5]")], keys=["a", "b"], response_schema=schema)

    assert cells(table, "SELECT status, json FROM results ORDER BY row") == [("ok", "[1, 2]"), ("failed", None)]


def test_member_names_may_be_anything(tmp_path: Path) -> None:
    members = {"a/b": 1, "c~d": 2, "e.f": 3, "0": 4, "*": 5, 'g"h': 6, "": 7, "$": 8, "日本": 9}
    schema = {"type": "object", "properties": {name: {"type": "integer"} for name in members}}
    table = planned(tmp_path, answer("a", json.dumps(members)), keys=["a"], response_schema=schema)

    assert cells(table, "SELECT * FROM results")[0][4:13] == tuple(members.values())


def test_geminis_own_dialect_means_the_same() -> None:
    check = AnswerCheck(GEMINI)

    assert check.fault('{"label": "pos", "score": null, "tags": ["x"]}') == ""
    assert check.fault('{"label": "pos", "tags": []}') == "tags has fewer than 1 items"
    assert check.fault('{"label": null}') == "label is null, not text"
    assert [column.name for column in field_columns(plain_schema(GEMINI))] == ["score", "label", "tags"]


def test_pythons_names_and_unions_are_understood() -> None:
    schema = plain_schema(
        {
            "any_of": [{"type": "STRING", "max_length": "3"}, {"type": "TYPE_UNSPECIFIED"}],
            "nullable": True,
            "max_items": "many",
        }
    )

    assert schema == {"anyOf": [{"type": "string", "maxLength": 3}, {}, {"type": "null"}], "maxItems": "many"}
    assert plain_schema({"enum": ["a"], "type": ["STRING", "NULL"], "nullable": True}) == {
        "enum": ["a", None],
        "type": ["string", "null"],
    }


@pytest.mark.parametrize(
    ("member", "kind"),
    [
        ({"type": "string"}, "VARCHAR"),
        ({"type": ["string", "null"]}, "VARCHAR"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "BIGINT"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "DOUBLE"),
        ({"type": ["integer", "string"]}, "JSON"),
        ({"$ref": "#/$defs/word"}, "VARCHAR"),
        ({"allOf": [{"$ref": "#/$defs/word"}]}, "VARCHAR"),
        ({"$ref": "#/$defs/loop"}, "JSON"),
        ({"$ref": "#/nowhere"}, "JSON"),
        ({"$ref": "other.json"}, "JSON"),
        ({"enum": ["good", "bad", None]}, "VARCHAR"),
        ({"const": 3}, "BIGINT"),
        ({"enum": [1, 0.5]}, "DOUBLE"),
        ({"enum": ["good", 1]}, "JSON"),
        ({"enum": [["good"]]}, "JSON"),
        ({"type": "null"}, "JSON"),
        ({}, "JSON"),
        (True, "JSON"),
    ],
)
def test_the_type_of_a_column_holds_every_value(member: Any, kind: str) -> None:
    schema = {
        "properties": {"x": member},
        "$defs": {"word": {"type": "string"}, "loop": {"$ref": "#/$defs/loop"}},
    }

    assert field_columns(schema) == (Column("x", kind),)
    assert field_columns({"$ref": "#/$defs/loop", "$defs": {"loop": {"$ref": "#/$defs/loop"}}}) == ()


def test_names_that_the_model_made_up_are_not_repeated() -> None:
    check = AnswerCheck({"type": "object", "additionalProperties": {"type": "object", "required": ["n"]}})
    closed = AnswerCheck({"properties": {"a": {}}, "additionalProperties": False})

    assert check.fault('{"IGNORE ALL": {"m": 1}}') == "* lacks n"
    assert closed.fault('{"EVIL": 1}') == "the answer has a member that is not in the schema"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "colour"},
        {"type": ["string", 5]},
        {"anyOf": []},
        {"anyOf": "x"},
        {"items": 5, "type": "array"},
        {"properties": {f"m{number}": {"type": "string"} for number in range(3000)}, "type": "object"},
        {"anyOf": [{"type": "object", "properties": {"a": {}}}, {"type": "object", "properties": {"b": {}}}]},
    ],
)
def test_a_schema_that_makes_no_type_is_left_to_the_complete_validator(schema: dict[str, Any]) -> None:
    with pytest.raises((NoType, TypeError)):
        answer_decoder(schema, {})
    assert AnswerCheck(schema).fault("no json") == NO_JSON


@pytest.mark.parametrize("broken", [{"pattern": "("}, {"$ref": "https://example.test/x.json"}, {"minLength": "x"}])
def test_a_schema_that_cannot_be_applied_refuses_no_answer(broken: dict[str, Any]) -> None:
    check = AnswerCheck({"type": "string"} | broken)

    assert check.fault('"text"') == ""
    assert check.fault("text") == NO_JSON


scalars = st.sampled_from(
    [
        {"type": "string"},
        {"type": "string", "minLength": 2},
        {"type": "string", "maxLength": 1, "pattern": "^[a-c]"},
        {"type": "string", "enum": ["a", "bc"]},
        {"type": ["string", "null"], "enum": ["a", None]},
        {"type": "integer"},
        {"type": "integer", "minimum": 1, "exclusiveMaximum": 3},
        {"type": "integer", "enum": [1, 2]},
        {"type": "number", "exclusiveMinimum": 0.5, "maximum": 2},
        {"type": "number", "maximum": 2**60},
        {"type": "number", "multipleOf": 0.5},
        {"type": "boolean"},
        {"type": "null"},
        {"type": ["integer", "string"]},
        {"type": ["string", "null"], "minLength": 2},
        {"type": ["integer", "string"], "minLength": 2},
        {"const": "a"},
        {"const": 1, "enum": [1]},
        {"enum": ["a", 1, None]},
        {"enum": [1.5, True]},
        {"$ref": "#/$defs/word"},
        {"$ref": "#/$defs/word", "maxLength": 1},
        {"not": {"type": "string"}},
        {"description": "anything", "title": "any"},
        {},
        True,
        False,
    ]
)
keys = st.sampled_from(["a", "b", "c"])


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.fixed_dictionaries(
        {"type": st.just("array")},
        optional={"items": inner, "minItems": st.just(1), "maxItems": st.just(2), "uniqueItems": st.booleans()},
    )
    objects = st.fixed_dictionaries(
        {"type": st.just("object")},
        optional={
            "properties": st.dictionaries(keys, inner, max_size=3),
            "required": st.lists(keys, max_size=2, unique=True),
            "additionalProperties": st.booleans() | inner,
            "minProperties": st.just(1),
        },
    )
    unions = st.builds(lambda choices: {"anyOf": choices}, st.lists(inner, min_size=1, max_size=3))
    return lists | objects | unions


@pytest.mark.parametrize("other", [{"type": "array"}, {"type": "object"}, {"type": "null"}, {"type": "integer"}])
def test_a_text_with_a_pattern_may_stand_beside_other_forms(other: dict[str, Any]) -> None:
    """A type of ours cannot stand in a union, so there must be none."""
    schema = {"anyOf": [{"type": "string", "pattern": "^[a-c]"}, other]}

    with pytest.raises(NoType):
        answer_decoder(schema, patterns_of(schema))
    assert AnswerCheck(schema).fault('"abc"') == ""
    assert AnswerCheck(schema).fault('"xyz"') == "the answer does not match its pattern"


@few(2)
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([answer("a", '{"label": "pos"}'), failure("b")], [failure("b")]),
        ([failure("a"), failure("b")], [answer("a", '{"label": "pos"}'), answer("b", "{}")]),
        ([answer("a", "{}"), answer("b", '{"label": "pos"}')], [answer(None), failure("a")]),
        ([answer("a", "no"), b"no line"], [answer("a", '{"label": "neg", "score": 2}')]),
    ],
)
def test_answers_that_are_all_alike_fit_beside_those_that_are_not(
    tmp_path: Path, first: list[bytes], second: list[bytes]
) -> None:
    """Where a column of one part holds no NULL, an engine may take it for one that never does."""
    keys = keys_file(tmp_path, ["a", "b"])
    answers = (answer_file(tmp_path, first), answer_file(tmp_path, second, name="2.jsonl"))
    files = tuple(AnswerFile(path, keys, attempt) for attempt, path in enumerate(answers, start=1))
    table = rebuilt(tmp_path, TablePlan(files, response_schema=LABELS))

    assert [row.key for row in all_rows(table)] == ["a", "b"]


schemas = st.recursive(scalars, containers, max_leaves=6)
values = st.recursive(
    st.sampled_from(["a", "b", "bc", "", "日", 0, 1, 1.0, 1.5, 2, 3, 2**60 + 1, True, False, None]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)


@in_part
@settings(max_examples=tries(400, 120))
@given(schemas, values)
def test_the_verdict_is_that_of_json_schema(schema: Any, value: Any) -> None:
    """Whichever way the quick validator takes, it must never accept what the schema refuses, nor the reverse."""
    if not isinstance(schema, dict):
        schema = {"anyOf": [schema]}
    schema = schema | {"$defs": {"word": {"type": "string", "minLength": 1}}}
    expected = jsonschema.Draft202012Validator(schema).is_valid(value)

    fault = AnswerCheck(schema).fault(json.dumps(value))
    assert (fault == "") == expected, fault
    assert re.fullmatch(r"[^\n]{0,200}", fault)
