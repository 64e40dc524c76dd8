"""Requests given in the call: prompts and whole requests, keys given and made up, and what is wrong with items."""

import json
from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.domain import Task
from gemini_batch_mcp.errors import RequestProblems, UsageError
from gemini_batch_mcp.intake.request_files import RequestFile
from gemini_batch_mcp.intake.requests.reader import write_requests

HELLO = [{"role": "user", "parts": [{"text": "hi"}]}]


class Desk:
    """The places that a written request file goes to."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "requests.jsonl"
        self.keys_path = directory / "keys.jsonl"

    def write(self, requests: Any, *, task: Task = "generate", **options: Any) -> RequestFile:
        return write_requests(requests, self.path, task=task, keys_path=self.keys_path, **options)

    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.path.read_bytes().split(b"\n")[:-1]]

    def refuse(self, requests: Any, **options: Any) -> RequestProblems:
        with pytest.raises(RequestProblems) as refused:
            self.write(requests, **options)
        assert list(self.path.parent.iterdir()) == []
        return refused.value


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_prompts_and_requests_become_lines_in_order(desk: Desk) -> None:
    written = desk.write(
        [
            {"key": "a", "prompt": "hi\u2028 \U0001f642"},
            {"key": "b", "request": {"contents": HELLO, "generation_config": {"top_k": 3}}},
            {"key": "c", "prompt": "hi", "request": None},
        ]
    )

    assert desk.lines() == [
        {"key": "a", "request": {"contents": [{"role": "user", "parts": [{"text": "hi\u2028 \U0001f642"}]}]}},
        {"key": "b", "request": {"contents": HELLO, "generation_config": {"top_k": 3}}},
        {"key": "c", "request": {"contents": HELLO}},
    ]
    assert (written.count, written.size_bytes) == (3, desk.path.stat().st_size)
    assert (written.warnings, written.mended) == ((), False)
    assert desk.keys_path.read_bytes() == b'"a"\n"b"\n"c"\n'


def test_keys_are_made_up_from_the_position_and_avoid_given_ones(desk: Desk) -> None:
    items = [{"prompt": "x"}, {"key": "row-3", "prompt": "x"}, {"prompt": "x"}, {"key": None, "prompt": "x"}]
    items += [{"key": "row-3-2", "prompt": "x"}]

    desk.write(items)
    first = desk.path.read_bytes()
    desk.write(items)

    assert [line["key"] for line in desk.lines()] == ["row-1", "row-3", "row-3-3", "row-4", "row-3-2"]
    assert desk.path.read_bytes() == first


def test_an_order_of_embeddings_becomes_one_content_for_each_text(desk: Desk) -> None:
    desk.write(
        [{"prompt": "x"}, {"request": {"content": {"parts": [{"text": "y"}]}, "task_type": "CLUSTERING"}}],
        task="embed",
        generation_config={"taskType": "RETRIEVAL_QUERY", "output_dimensionality": 256},
    )

    assert [line["request"] for line in desk.lines()] == [
        {"content": {"parts": [{"text": "x"}]}, "taskType": "RETRIEVAL_QUERY", "outputDimensionality": 256},
        {"content": {"parts": [{"text": "y"}]}, "task_type": "CLUSTERING", "outputDimensionality": 256},
    ]


def test_an_instruction_and_settings_go_into_requests_that_have_none(desk: Desk) -> None:
    own = {"contents": HELLO, "system_instruction": {"parts": [{"text": "own"}]}, "generationConfig": None}
    desk.write(
        [{"prompt": "hi"}, {"request": own}], system_instruction="Be brief.", generation_config={"temperature": 0}
    )

    assert [line["request"] for line in desk.lines()] == [
        {
            "contents": HELLO,
            "systemInstruction": {"parts": [{"text": "Be brief."}]},
            "generationConfig": {"temperature": 0},
        },
        {**own, "generationConfig": {"temperature": 0}},
    ]


def test_slips_in_items_are_put_right_and_counted(desk: Desk) -> None:
    written = desk.write([{"prompt": "x"}, {"request": {"contents": "hi"}}, {"request": {"contents": "ho"}}])

    assert desk.lines()[1]["request"] == {"contents": HELLO}
    assert written.mended
    assert written.warnings == ("contents was given as text in 2 items (first: item 2); it is sent as a user turn.",)


WRONG_ITEMS: dict[str, tuple[Any, str, str]] = {
    "a text": ("hi", "The item is text, not an object.", 'Write {"key":"…","prompt":"…"} or'),
    "nothing": ({}, "The item has neither `prompt` nor `request`.", 'Write {"key":"…","prompt":"…"} or'),
    "both": ({"prompt": "x", "request": {"contents": HELLO}}, "The item has both", "Keep one of them."),
    "a bare request": (
        {"contents": HELLO},
        "`contents` is not a member of an item.",
        "`contents` belongs inside `request`.",
    ),
    "a misspelled prompt": ({"promt": "x"}, "`promt` is not a member of an item.", "Did you mean `prompt`?"),
    "an extra member": ({"prompt": "x", "weather": 1}, "`weather` is not a member of an item.", "Write {"),
    "a prompt of numbers": ({"prompt": 3}, "`prompt` is a number; it must be text.", "Write it in quotes."),
    "an empty prompt": ({"prompt": " \n"}, "`prompt` is empty.", "Write the text to answer."),
    "a number as key": ({"key": 4, "prompt": "x"}, "`key` is a number; it must be text.", 'Write "4".'),
    "an empty key": ({"key": "", "prompt": "x"}, "`key` is empty.", "Write a key"),
    "a request as text": ({"request": "x"}, "`request` is text; it must be", "Write an object."),
    "a wrong request": ({"request": {"contents": HELLO, "tool": []}}, "`request.tool` is not a member", "`tools`?"),
    "NaN": ({"request": {"contents": HELLO, "generationConfig": {"topP": float("nan")}}}, "topP` is NaN", "Write a"),
    "half a surrogate pair": ({"prompt": "x\ud800"}, "contains half of a surrogate pair, \\ud800", "both halves"),
    "no JSON": ({"request": {"contents": HELLO, "labels": {"a": {1, 2}}}}, "cannot be written as JSON", "plain JSON"),
}


@pytest.mark.parametrize(("item", "message", "fix"), WRONG_ITEMS.values(), ids=WRONG_ITEMS.keys())
def test_a_wrong_item_is_refused_with_its_number(desk: Desk, item: Any, message: str, fix: str) -> None:
    report = desk.refuse([{"prompt": "fine"}, item])

    assert {problem.line for problem in report.problems} == {2}
    assert [problem for problem in report.problems if message in problem.message and fix in problem.fix], (
        report.problems
    )
    assert report.message == f"`requests` has {report.problem_count} problem" + (
        "; nothing was submitted." if report.problem_count == 1 else "s; nothing was submitted."
    )


def test_items_nested_in_themselves_are_refused(desk: Desk) -> None:
    endless: dict[str, Any] = {"contents": HELLO}
    endless["labels"] = endless

    assert "cannot be written as JSON" in desk.refuse([{"request": endless}]).problems[0].message


def test_repeated_keys_name_both_items(desk: Desk) -> None:
    report = desk.refuse([{"key": "a", "prompt": "x"}, {"prompt": 1}, {"key": "a", "prompt": "y"}])

    assert [(problem.line, problem.key) for problem in report.problems] == [(2, "row-2"), (3, "a")]
    assert report.problems[1].message == "`key` is the same as that of item 1."
    assert report.problems[1].fix == "Give each item a unique key."


def test_a_wrong_setting_is_reported_once_and_not_for_every_item(desk: Desk) -> None:
    report = desk.refuse([{"prompt": "x"}] * 50, generation_config={"temprature": 1, "topP": "high"})

    assert [(problem.line, problem.key) for problem in report.problems] == [(0, ""), (0, "")]
    assert report.problems[0].fix == "Did you mean `temperature`?"
    assert report.message == "`generation_config` has 2 problems."


def test_a_wrong_setting_of_embeddings_is_reported(desk: Desk) -> None:
    report = desk.refuse([{"prompt": "x"}], task="embed", generation_config={"temperature": 1})

    assert report.message == "`generation_config` has 1 problem."
    assert "`request.temperature` is not a member of EmbedContentRequest" in report.problems[0].message


def test_embeddings_take_no_system_instruction(desk: Desk) -> None:
    with pytest.raises(UsageError, match="Embeddings don't take a system instruction"):
        desk.write([{"prompt": "x"}], task="embed", system_instruction="Be brief.")


def test_no_items_are_refused(desk: Desk) -> None:
    with pytest.raises(UsageError, match="`requests` is empty"):
        desk.write([])


def test_too_many_bytes_are_refused(desk: Desk) -> None:
    with pytest.raises(UsageError, match="`requests` has 212 bytes; a batch file has at most 200"):
        desk.write([{"prompt": "x" * 133}], max_file_bytes=200)
    assert list(desk.path.parent.iterdir()) == []
