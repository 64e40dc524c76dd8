"""Tables and prompts as request files: every cell arrives exactly, keys are right, and what is wrong is refused."""

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.errors import RequestProblems, StorageError, UsageError
from gemini_batch_mcp.intake.compose import write_rows
from gemini_batch_mcp.intake.request_files import RequestFile
from gemini_batch_mcp.intake.validator.validate import check_line
from gemini_batch_mcp.settings import MAX_FILE_BYTES
from support.extent import in_part, tries
from support.sources import first_requests

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
FAST = settings(max_examples=tries(60, 15), suppress_health_check=[HealthCheck.function_scoped_fixture])


def table(path: Path, *rows: tuple[str, ...]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)
    return path


def written(
    source: Path, order: Order, max_file_bytes: int = MAX_FILE_BYTES
) -> tuple[RequestFile, list[dict[str, Any]]]:
    directory = source.parent / "out"
    directory.mkdir(exist_ok=True)
    destination = directory / "requests.jsonl"
    file = write_rows(
        source, destination, order=order, keys_path=directory / "requests.keys", max_file_bytes=max_file_bytes
    )
    assert {path.name for path in directory.iterdir()} == {"requests.jsonl", "requests.keys"}
    data = destination.read_bytes()
    assert (file.path, file.size_bytes, file.sha256) == (destination, len(data), hashlib.sha256(data).hexdigest())
    lines = data.split(b"\n")
    assert lines.pop() == b""
    assert [check_line(line, 1, order.task).problems for line in lines] == [()] * file.count
    values = [json.loads(line) for line in lines]
    keys = [json.loads(line) for line in file.keys_path.read_bytes().split(b"\n")[:-1]]
    assert keys == [value["key"] for value in values]
    return file, values


def text_of(value: dict[str, Any]) -> str:
    text = value["request"]["contents"][0]["parts"][0]["text"]
    assert isinstance(text, str)
    return text


def test_each_row_becomes_a_request_with_all_that_the_order_says(tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv", ("id", "text", "tone"), ("a1", "Good kettle", "kind"), ("a2", "Bad", "dry"))
    order = Order(
        prompt="Classify: {{text}}",
        system_instruction="Be {{tone}}.",
        response_schema={"type": "object", "properties": {"label": {"type": "string"}}},
        generation_config={"max_output_tokens": 20, "thinking_config": {"thinking_budget": 0}},
        key_column="id",
    )

    file, values = written(source, order)

    assert values[0] == {
        "key": "a1",
        "request": {
            "contents": [{"role": "user", "parts": [{"text": "Classify: Good kettle"}]}],
            "systemInstruction": {"parts": [{"text": "Be kind."}]},
            "generationConfig": {
                "maxOutputTokens": 20,
                "thinkingConfig": {"thinkingBudget": 0},
                "responseSchema": {
                    "type": "OBJECT",
                    "properties": {"label": {"type": "STRING"}},
                    "propertyOrdering": ["label"],
                },
                "responseMimeType": "application/json",
            },
        },
    }
    assert (values[1]["key"], text_of(values[1])) == ("a2", "Classify: Bad")
    assert (file.count, file.warnings, file.mended) == (2, (), False)


@in_part
@FAST
@given(cells=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5), around=TEXTS)
@example(cells=[('a"b\\c\n\r\t\u2028\u2029\x01\x02\x03\x1f\x7f', "😀{{b}}\\{{ # C#")], around="# '")
def test_any_cell_and_any_prompt_arrive_exactly(tmp_path: Path, cells: list[tuple[str, str]], around: str) -> None:
    around = around.replace("{", "(").replace("\\", "/")
    source = table(tmp_path / "t.csv", ("a", "b"), *cells)

    _, values = written(source, Order(prompt=f"{around}{{{{a}}}}{around}{{{{b}}}}"))

    assert [text_of(value) for value in values] == [f"{around}{a}{around}{b}" for a, b in cells]


def test_a_nul_in_a_prompt_arrives_too(tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv", ("a", "b"), ("1", "2"))

    assert text_of(written(source, Order(prompt="x\0y {{a}}"))[1][0]) == "x\0y 1"


def test_made_keys_tell_place_and_content_and_stay_the_same(tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv", ("a", "b"), ("x", "1"), ("x", "2"), ("y", "3"))
    order = Order(prompt="{{a}}")

    keys = [value["key"] for value in written(source, order)[1]]

    assert keys == [value["key"] for value in written(source, order)[1]]
    assert [key[:11] for key in keys] == ["row-000001-", "row-000002-", "row-000003-"]
    assert keys[0][11:] == keys[1][11:] != keys[2][11:]
    assert {len(key) for key in keys} == {19}


def test_row_numbers_beyond_a_million_keep_every_digit(tmp_path: Path) -> None:
    source = tmp_path / "t.csv"
    source.write_text("a,b\n" + "1,\n" * 1_000_002, encoding="utf-8")
    file = write_rows(source, tmp_path / "r.jsonl", order=Order(prompt="{{a}}"), keys_path=tmp_path / "r.keys")

    keys = file.keys_path.read_bytes().split(b"\n")[:-1]

    assert (file.count, len(keys), len(set(keys))) == (1_000_002, 1_000_002, 1_000_002)
    assert keys[999_998].startswith(b'"row-999999-')
    assert keys[1_000_001].startswith(b'"row-1000002-')
    assert json.loads(keys[1_000_001]).count("-") == 2


def test_keys_of_a_column_that_repeat_or_are_missing_are_named_with_their_rows(tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv", ("k", "b"), ("x", "1"), ("", "2"), ("y", "3"), ("x", "4"), ("z" * 1025, "5"))

    with pytest.raises(RequestProblems) as refusal:
        written(source, Order(prompt="{{b}}", key_column="k"))

    assert refusal.value.problem_count == 3
    assert [problem.message for problem in refusal.value.problems] == [
        "Row 2 has nothing in the key column k.",
        "Row 5 has 1,025 characters in the key column k.",
        "Row 4: `key` is the same as that of row 1.",
    ]
    assert list((tmp_path / "out").iterdir()) == []


def test_the_first_problems_of_many_are_listed_and_all_are_counted(tmp_path: Path) -> None:
    """Rows without a key are one sentence, so that the others have their places."""
    source = table(tmp_path / "t.csv", ("k", "b"), *[("", "1")] * 50, *[("7", "1")] * 50)

    with pytest.raises(RequestProblems) as refusal:
        written(source, Order(prompt="{{b}}", key_column="k"))

    assert (len(refusal.value.problems), refusal.value.problem_count) == (21, 99)
    assert refusal.value.problems[0].message == "Row 1 and 49 more have nothing in the key column k."


def test_a_limit_sends_the_first_rows_under_the_same_keys(tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv", ("a", "b"), *[(str(number), "") for number in range(30)])

    _, pilot = written(source, Order(prompt="{{a}}", limit_rows=20))
    _, whole = written(source, Order(prompt="{{a}}"))

    assert (len(pilot), len(whole)) == (20, 30)
    assert pilot == whole[:20]


def test_a_preview_is_what_is_written(tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv", ("a", "b"), ("1", "x"), ("2", "y"), ("3", "z"))
    order = Order(prompt="{{a}} {{b}}", key_column="a")

    assert list(first_requests(source, order=order)) == written(source, order)[1][:2]
    assert len(first_requests(source, order=Order(prompt="{{a}}", limit_rows=1), count=5)) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"t.csv", "out"}


def test_texts_to_embed_become_one_content_each(tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv", ("k", "text"), ("a", "one"), ("b", ""))
    order = Order(
        prompt="{{text}}",
        task="embed",
        key_column="k",
        generation_config={"task_type": "RETRIEVAL_DOCUMENT", "outputDimensionality": 256},
    )

    file, values = written(source, order)

    assert values[0] == {
        "key": "a",
        "request": {
            "content": {"parts": [{"text": "one"}]},
            "taskType": "RETRIEVAL_DOCUMENT",
            "outputDimensionality": 256,
        },
    }
    assert file.warnings == ("1 row has no text, which Gemini refuses.",)


def test_rows_without_any_text_are_counted_in_a_warning(tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv", ("a", "b"), ("", "1"), ("x", "2"), ("", "3"), ('{"text":""}', "4"))

    file, _ = written(source, Order(prompt="{{a}}", system_instruction="{{a}}"))

    assert file.warnings == ("2 rows have no text, which Gemini refuses.",)


@pytest.mark.parametrize(
    ("order", "message", "step"),
    [
        (Order(), "t.csv is a table, which needs a `prompt`.", 'such as "Answer this: {{text}}"'),
        (Order(task="embed"), "t.csv is a table, which needs a `prompt`.", 'such as "{{text}}"'),
        (Order(prompt="Hello"), "The prompt names no column", "such as {{text}}"),
        (Order(prompt="Hello {a}"), "The prompt names no column", "Write {{a}}, with two braces on each side."),
        (Order(prompt="{{txt}}"), '`prompt` names the column "txt"', "Did you mean text?"),
        (Order(prompt="{{a}}", system_instruction="{{b}}"), '`system_instruction` names the column "b"', "a, text"),
        (Order(prompt="{{a}}", key_column="id"), '`key_column` names the column "id"', "a, text"),
        (
            Order(prompt="{{a}}", task="embed", system_instruction="x"),
            "Embeddings don't take a `system",
            "Leave it out",
        ),
        (
            Order(prompt="{{a}}", task="embed", response_schema={"type": "string"}),
            "Embeddings don't take a `resp",
            "Leave",
        ),
        (
            Order(prompt="{{a}}", task="embed", generation_config={"temperature": 1}),
            "`generation_config.temp",
            "The settings are",
        ),
        (
            Order(prompt="{{a}}", generation_config={"tools": []}),
            "`generation_config.tools` belongs",
            "It isn't a generation",
        ),
        (Order(prompt="{{a}} \ud800"), "Every request of this order would have a problem", "Correct it"),
    ],
)
def test_an_order_that_does_not_fit_the_table_is_refused(tmp_path: Path, order: Order, message: str, step: str) -> None:
    source = table(tmp_path / "t.csv", ("a", "text"), ("1", "2"))

    with pytest.raises(UsageError) as refusal:
        written(source, order)

    assert refusal.value.message.startswith(message)
    assert step in refusal.value.next_step
    assert list((tmp_path / "out").iterdir()) == []


def test_texts_that_look_like_what_we_write_into_statements_are_texts(tmp_path: Path) -> None:
    odd = "$buffers \0buffers \x04 ' \" {} %s chr(4)"
    source = table(tmp_path / "$buffers'.csv", ("a",), ("$buffers \x04",))

    _, values = written(source, Order(prompt=f"{odd}{{{{a}}}}"))

    assert text_of(values[0]) == f"{odd}$buffers \x04"


def test_a_row_larger_than_a_request_is_refused_with_its_number(tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv", ("a", "b"), ("1", "x"), ("2", "y" * (20 * 1024**2)), ("3", "z"))

    with pytest.raises(RequestProblems) as refusal:
        written(source, Order(prompt="{{b}}", key_column="a"))

    assert [problem.message for problem in refusal.value.problems] == [
        "Row 2 becomes a request of 20,971,594 bytes, more than 20,971,520."
    ]
    with pytest.raises(RequestProblems, match="Row 2 becomes a request"):
        written(source, Order(prompt="{{b}}"))


def test_too_many_bytes_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv", ("a", "b"), ("1", "x"))

    with pytest.raises(UsageError, match="a batch file has at most 10"):
        written(source, Order(prompt="{{b}}"), max_file_bytes=10)

    assert list((tmp_path / "out").iterdir()) == []


def test_a_destination_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv", ("a", "b"), ("1", "x"))

    with pytest.raises(StorageError):
        write_rows(source, tmp_path / "no" / "r.jsonl", order=Order(prompt="{{a}}"), keys_path=tmp_path / "keys")
    with pytest.raises(StorageError):
        write_rows(source, tmp_path / "r.jsonl", order=Order(prompt="{{a}}"), keys_path=tmp_path / "no" / "keys")
