"""The ready JSONL files: complete, readable, and right by the validator that checks everybody's lines."""

import json
from typing import get_args

import pytest

from gemini_batch_mcp.domain import Task
from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.intake.templates import TEMPLATES, Template, read_template
from gemini_batch_mcp.intake.validator.validate import check_line

NAMES = [
    "text",
    "chat",
    "system-instruction",
    "json-schema",
    "image-input",
    "pdf-input",
    "image-generation",
    "embeddings",
    "thinking",
    "google-search",
    "function-calling",
    "cached-content",
    "vertex",
]


def by_name(template: Template) -> str:
    return template.name


def test_the_catalogue_has_the_promised_templates_in_order() -> None:
    assert [template.name for template in TEMPLATES] == NAMES


@pytest.mark.parametrize("template", TEMPLATES, ids=by_name)
def test_every_line_of_a_template_passes_the_validator(template: Template) -> None:
    lines = read_template(template.name).splitlines()

    checked = [check_line(line.encode(), number, template.task) for number, line in enumerate(lines, 1)]

    assert 2 <= len(lines) <= 3
    assert [line.problems for line in checked] == [()] * len(lines)
    assert len({line.key for line in checked}) == len(lines)


@pytest.mark.parametrize("template", TEMPLATES, ids=by_name)
def test_a_template_ends_with_one_line_end_and_uses_camel_case(template: Template) -> None:
    text = read_template(template.name)

    assert text.endswith("}\n") and not text.endswith("\n\n") and "\r" not in text
    assert not [name for line in text.splitlines() for name in member_names(json.loads(line)["request"]) if "_" in name]
    assert "responseJsonSchema" not in text


@pytest.mark.parametrize("template", TEMPLATES, ids=by_name)
def test_a_template_is_described_in_one_sentence(template: Template) -> None:
    assert template.description.endswith(".") and template.description.count(".") == 1
    assert template.task in get_args(Task)


def test_vertex_lines_carry_a_request_and_members_that_are_passed_through() -> None:
    for line in read_template("vertex").splitlines():
        members = json.loads(line)

        assert list(members) == ["request", "key"]
        assert members["request"]["contents"][0]["role"] == "user"


@pytest.mark.parametrize("name", ["", "Text", "../text", "text.jsonl", "x" * 500])
def test_an_unknown_template_names_the_known_ones(name: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_template(name)

    assert "google-search" in refused.value.next_step
    assert len(refused.value.message) < 120


def member_names(value: object) -> list[str]:
    """Names of all members, except inside a schema's own properties and a function's own arguments."""
    if isinstance(value, list):
        return [name for item in value for name in member_names(item)]
    if not isinstance(value, dict):
        return []
    own = {"properties", "args", "response"}
    return [*value, *(name for key, member in value.items() if key not in own for name in member_names(member))]
