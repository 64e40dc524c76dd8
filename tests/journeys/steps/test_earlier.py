"""Going on from the answers of a batch: its table is the source of the next order, with keys, fields and pictures."""

import base64
import csv
from pathlib import Path

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from support.conversation import Conversation, line, newest, request_file, sent, write_lines

pytestmark = pytest.mark.anyio

SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string", "enum": ["negative", "positive"]}, "stars": {"type": "integer"}},
    "required": ["label", "stars"],
}


def write_reviews(data: Path, count: int) -> None:
    with (data / "reviews.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "country"])
        writer.writerows([f"r{n:04}", f"It broke, part {n}", "DE" if n % 3 else "FR"] for n in range(count))


@pytest.mark.both_eras
async def test_a_second_prompt_goes_over_the_answers_of_the_first_and_keeps_their_keys(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    write_reviews(data, 6)
    first = {
        "source": "reviews.csv",
        "prompt": "Label: {{text}}",
        "key_column": "id",
        "response_schema": SCHEMA,
        "display_name": "labels",
    }
    batch = (await talk.call("create_batch", **first))["batch_id"]
    second = {"source": "labels", "prompt": "Answer {{id}}, which is {{label}} ({{stars}}): {{source_text}}"}
    refusal = await talk.refusal("preview_batch", **second)
    assert f"{batch} cannot be a source yet" in refusal
    assert "check_status" in refusal
    sandbox.finish(newest(sandbox))
    await talk.call("get_results", batch=batch)
    answers = await talk.call("query_results", batch=batch, sql="SELECT id, label, stars FROM results")

    preview = await talk.call("preview_batch", **second)
    assert preview["ok"], preview
    assert f'{{{{source_text}}}} is the column "text" of what {batch} was made of.' in preview["warnings"]
    created = await talk.call("create_batch", **second)
    lines = sent(talk, created["batch_id"])
    assert lines[:2] == preview["sample"]
    assert [row["key"] for row in lines] == [f"r{n:04}" for n in range(6)]
    texts = [row["request"]["contents"][0]["parts"][0]["text"] for row in lines]
    assert texts == [
        f"Answer {key}, which is {label} ({stars}): It broke, part {number}"
        for number, (key, label, stars) in enumerate(answers["rows"])
    ]
    # The same step, by another name of the batch, is the same order; the batch's answers are part of it.
    again = await talk.call("create_batch", **second | {"source": batch}, display_name="replies")
    assert (again["batch_id"], again["reused"]) == (created["batch_id"], True)
    assert "It is called 'after labels': display_name names new batches only." in again["warnings"]
    assert "Did you mean source_text?" in await talk.refusal("preview_batch", source=batch, prompt="{{text}}")
    sandbox.finish(newest(sandbox))
    results = await talk.call("get_results", batch=created["batch_id"])
    names = [column.split(" ")[0] for column in results["columns"]]
    assert names[:6] == ["id", "source_text", "country", "source_status", "label", "stars"]
    assert names[6:9] == ["key", "status", "text"]


async def test_a_path_that_is_there_comes_before_a_batch_and_what_is_neither_is_told_so(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    batch = (await talk.call("create_batch", source=request_file(data), display_name="moods"))["batch_id"]
    sandbox.finish(newest(sandbox))
    await talk.call("get_results", batch=batch)
    of_batch = await talk.call("preview_batch", source="moods", prompt="Say {{text}}.")
    (data / "moods").mkdir()
    (data / "moods" / "a.txt").write_text("hello", encoding="utf-8")
    of_folder = await talk.call("preview_batch", source="moods", prompt="Say {{text}}.")
    assert (of_batch["request_count"], of_folder["request_count"]) == (3, 1)
    refusal = await talk.refusal("preview_batch", source="modds-x1y2z3", prompt="Say {{text}}.")
    assert "'modds-x1y2z3'" in refusal
    assert "No batch goes by that id or name either" in refusal


async def test_rows_without_a_good_answer_are_told_and_pictures_can_be_attached(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    lines = [line("a", "[[sandbox:image]]"), line("b", "[[sandbox:error:3]]"), line("c", "plain")]
    batch = (await talk.call("create_batch", source=write_lines(data / "art.jsonl", lines)))["batch_id"]
    sandbox.finish(newest(sandbox))
    results = await talk.call("get_results", batch=batch, view="rows")
    order = {"source": batch, "prompt": "What is it? {{key}}", "attach": "files"}
    preview = await talk.call("preview_batch", **order)
    assert (
        f"1 row has no usable answer in {batch}; where=\"status = 'ok'\" leaves such rows out." in preview["warnings"]
    )
    parts = [row["request"]["contents"][0]["parts"] for row in preview["sample"]]
    assert parts[0][0]["inlineData"]["mimeType"] == "image/png"
    assert parts[1] == [{"text": "What is it? b"}]
    created = await talk.call("create_batch", **order)
    picture = Path(results["rows"][0]["files"][0])
    attached = sent(talk, created["batch_id"])[0]["request"]["contents"][0]["parts"][0]["inlineData"]["data"]
    assert base64.b64decode(attached) == picture.read_bytes()


async def test_a_condition_chooses_rows_of_answers_and_of_tables_and_its_effect_is_counted(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    write_reviews(data, 30)
    first = {"source": "reviews.csv", "prompt": "Label: {{text}}", "key_column": "id", "response_schema": SCHEMA}
    german = await talk.call("preview_batch", **first, where="country = 'DE'")
    assert german["request_count"] == 20
    assert "`where` chose 20 of 30 rows of reviews.csv." in german["warnings"]
    pilot = await talk.call("preview_batch", **first, where="country = 'DE' AND id >= 'r0005'", limit_rows=2)
    assert [row["key"] for row in pilot["sample"]] == ["r0005", "r0007"]
    assert "No row of reviews.csv meets `where` (0 of 30)" in await talk.refusal(
        "preview_batch", **first, where="country = 'de'"
    )
    assert "Did you mean country?" in await talk.refusal("preview_batch", **first, where="countri = 'DE'")
    ready = await talk.refusal("preview_batch", source=request_file(data), where="key = 'k1'")
    assert "A file of ready requests does not go with where" in ready

    batch = (await talk.call("create_batch", **first, display_name="labels"))["batch_id"]
    assert not (await talk.call("preview_batch", **first, where="country = 'DE'"))["standing"]
    sandbox.finish(newest(sandbox))
    await talk.call("get_results", batch=batch)
    wanted = await talk.call(
        "query_results", batch=batch, sql="SELECT key FROM results WHERE label = 'negative' AND country = 'DE'"
    )
    second = {"source": "labels", "prompt": "Apologise: {{source_text}}"}
    created = await talk.call("create_batch", **second, where="label = 'negative' AND country = 'DE'")
    assert [[row["key"]] for row in sent(talk, created["batch_id"])] == wanted["rows"]
    assert created["request_count"] == len(wanted["rows"])
    sandbox.finish(newest(sandbox))
    rows = await talk.call("query_results", batch=created["batch_id"], sql="SELECT key, id, label FROM results")
    assert all(key == own and label == "negative" for key, own, label in rows["rows"])
    asked = await talk.call("get_results", batch=created["batch_id"], view="order")
    assert asked["order"]["where"] == "label = 'negative' AND country = 'DE'"


async def test_files_and_given_rows_are_chosen_as_well(talk: Conversation, data: Path) -> None:
    (data / "notes").mkdir()
    for name in ("a.txt", "b.md", "c.txt"):
        (data / "notes" / name).write_text(f"note {name}", encoding="utf-8")
    files = await talk.call("preview_batch", source="notes", prompt="{{name}}: {{text}}", where="path LIKE '%.txt'")
    attached = await talk.call(
        "preview_batch", source="notes", prompt="What is it?", attach="path", where="name <> 'a.txt'"
    )
    rows = [{"product": "mug", "stars": 1}, {"product": "lid", "stars": 5}]
    given = await talk.call("preview_batch", requests=rows, prompt="Why {{product}}?", where="stars < 3")
    texts = [row["request"]["contents"][0]["parts"][-1]["text"] for row in files["sample"] + given["sample"]]
    assert texts == ["a.txt: note a.txt", "c.txt: note c.txt", "Why mug?"]
    assert (files["request_count"], attached["request_count"], given["request_count"]) == (2, 2, 1)
