"""What neither our table nor the installed types know: near misses are refused, what is new is passed on and said."""

import json
from typing import Any

import pytest

from gemini_batch_mcp.domain import InstalledTypes
from gemini_batch_mcp.gemini.developer.installed import installed_types
from gemini_batch_mcp.intake.generation_config import request_members
from gemini_batch_mcp.intake.validator.validate import CheckedLine, check_line
from gemini_batch_mcp.intake.validator.world import OPEN, Note, World
from support.samples import SAMPLES

HELLO = [{"parts": [{"text": "hi"}]}]


def check(request: dict[str, Any], world: World = OPEN) -> CheckedLine:
    line = {"key": "k", "request": {"contents": HELLO, **request}}
    return check_line(json.dumps(line).encode(), 1, "generate", world)


#: What is new, and where a warning says that it stands.
NEW: dict[str, tuple[dict[str, Any], str]] = {
    "a member of a request": ({"webhook": {"uri": "x"}}, "`request.webhook`"),
    "a setting": ({"generationConfig": {"quantumDepth": 3}}, "`request.generationConfig.quantumDepth`"),
    "a setting in snake_case": (
        {"generation_config": {"depth": 3}},
        "`request.generation_config.depth`",
    ),
    "a tool": ({"tools": [{}, {"weatherReport": {}}]}, "`request.tools[].weatherReport`"),
    "a member where none was": (
        {"tools": [{"urlContext": {"sites": []}}]},
        "`request.tools[].urlContext.sites`",
    ),
    "a value": ({"generationConfig": {"thinkingConfig": {"thinkingLevel": "ULTRA"}}}, '"ULTRA"'),
    "a value with the start of all": (
        {"safetySettings": [{"category": "HARM_CATEGORY_WEAPONS", "threshold": "OFF"}]},
        '`request.safetySettings[].category`: "HARM_CATEGORY_WEAPONS"',
    ),
    "a kind of media": ({"generationConfig": {"responseModalities": ["SMELL"]}}, '"SMELL"'),
}


@pytest.mark.parametrize(("request_members", "place"), NEW.values(), ids=NEW)
def test_what_is_new_is_passed_on_and_said_unless_it_is_to_be_refused(
    request_members: dict[str, Any], place: str
) -> None:
    checked = check(request_members)
    (note,) = checked.notes

    assert checked.problems == () and place in note.sentence
    assert "Gemini judges it when the job is created" in note.warning(2, 7, "line")
    assert "in 2 lines (first: line 7)" in note.warning(2, 7, "line") and "in line 7" in note.warning(1, 7, "line")
    closed = check(request_members, World())
    assert closed.problem_count == 1 and not closed.notes


#: What resembles something known, and the right one.
NEAR: dict[str, tuple[dict[str, Any], str]] = {
    "a slip": ({"generationConfig": {"temprature": 1}}, "`temperature`"),
    "another case": ({"generationConfig": {"MaxOutputTokens": 1}}, "`maxOutputTokens`"),
    "the SDK's config": ({"config": {}}, "`generationConfig`"),
    "another place": ({"thinkingConfig": {}}, "inside `generationConfig`"),
    "another API's name": ({"generationConfig": {"max_tokens": 1}}, "`maxOutputTokens`"),
    "what only Vertex AI has": ({"tools": [{"retrieval": {}}]}, "only Vertex AI"),
    "a value with a slip": ({"generationConfig": {"thinkingConfig": {"thinkingLevel": "HIGHT"}}}, '"HIGH"'),
    "a value with its start": ({"generationConfig": {"mediaResolution": "LOW"}}, '"MEDIA_RESOLUTION_LOW"'),
    "a role": ({"contents": [{"role": "narrator", "parts": [{"text": "x"}]}]}, "user, model"),
    "two words": ({"generationConfig": {"responseModalities": ["TEXT, IMAGE"]}}, ""),
    "no name at all": ({"generationConfig": {"": 1}}, "Leave it out"),
    "no finite number in it": ({"webhook": {"n": float("nan")}}, "number"),
}


@pytest.mark.parametrize(("members", "fix"), NEAR.values(), ids=NEAR)
def test_what_resembles_something_known_is_refused_with_the_right_one(members: dict[str, Any], fix: str) -> None:
    checked = check(members)

    assert any(fix in problem.fix for problem in checked.problems)


def test_what_the_installed_types_know_is_passed_on_without_a_word() -> None:
    types = InstalledTypes({"GenerationConfig": frozenset({"quantumDepth"})}, {"ThinkingLevel": frozenset({"ULTRA"})})
    members = {"generationConfig": {"quantumDepth": 3, "thinkingConfig": {"thinkingLevel": "ULTRA"}}}

    checked = check(members, World(is_open=True, installed=lambda: types))

    assert not checked.problems and not checked.notes


def test_the_installed_types_are_found_under_the_names_of_the_table() -> None:
    known = installed_types()

    assert {"maxOutputTokens", "max_output_tokens"} <= known.members["GenerationConfig"]
    assert "HIGH" in known.values["ThinkingLevel"]
    assert "AUTO" in known.values["FunctionCallingMode"] and "SILENT" in known.values["Scheduling"]


def test_the_wrong_lines_of_the_samples_are_refused_in_an_open_world_too() -> None:
    for line in (SAMPLES / "54-input-WRONG-examples.jsonl").read_bytes().splitlines():
        assert check_line(line, 1, "generate", OPEN).problem_count


def test_a_setting_of_the_order_that_is_new_is_passed_on_too() -> None:
    notes: set[Note] = set()

    assert request_members("generate", {"quantumDepth": 3}, {}, OPEN, notes) == {
        "generationConfig": {"quantumDepth": 3}
    }
    assert [note.before for note in notes] == ["`generation_config.quantumDepth`"]
