"""What an assistant is told before it makes a mistake: the cap in a preview, a file that is what its name says."""

from dataclasses import replace
from pathlib import Path

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import Conversation, converse, newest, request_file

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("cap", "threshold", "note"),
    [(0.00001, None, "will refuse"), (None, 0.0, "once the user has agreed"), (100.0, 100.0, "")],
)
async def test_a_preview_says_what_stands_between_it_and_its_order(
    settings: Settings, sandbox: Sandbox, data: Path, cap: float | None, threshold: float | None, note: str
) -> None:
    async with converse(replace(settings, max_cost_usd=cap, confirm_above_usd=threshold), sandbox) as talk:
        seen = await talk.call("preview_batch", source=request_file(data))
        notes = [warning for warning in seen["warnings"] if "create_batch" in warning]
        assert len(notes) == bool(note)
        assert all(note in warning for warning in notes)


@pytest.mark.parametrize(
    ("name", "written_as", "start"),
    [
        ("a.csv", "csv", b"key,"),
        ("a.PARQUET", "parquet", b"PAR1"),
        ("a.jsonl", "jsonl", b'{"key":"k1",'),
        ("a", "jsonl", b'{"key":"k1",'),
        ("a.csv.jsonl", "jsonl", b'{"key":"k1",'),
    ],
)
async def test_a_file_is_written_as_its_name_says(
    talk: Conversation, sandbox: Sandbox, data: Path, name: str, written_as: str, start: bytes
) -> None:
    batch = (await talk.call("create_batch", source=request_file(data)))["batch_id"]
    sandbox.finish(newest(sandbox))
    saved = (await talk.call("get_results", batch=batch, save_to=name))["saved"]
    assert Path(saved["path"]).read_bytes().startswith(start)
    assert saved["format"] == written_as
    assert saved["rows"] == 3


async def test_a_key_that_no_row_has_is_named(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    batch = (await talk.call("create_batch", source=request_file(data)))["batch_id"]
    sandbox.finish(newest(sandbox))
    read = await talk.call("get_results", batch=batch, keys=["k1", "k9"])
    assert [row["key"] for row in read["rows"]] == ["k1"]
    assert f"Did you mean {batch!r}?" in await talk.refusal("check_status", batch=f"{batch[:-1]}-")
    assert "Did you mean 'reviews'?" in await talk.refusal("check_status", batch="Review")
    (data / "out.csv").write_text("mine", encoding="utf-8")
    odd = await talk.call("get_results", batch=batch, save_to="odd.csv", format="xlsx")
    assert odd["warnings"] == ["odd.csv holds xlsx, as format says, and not what its ending .csv names."]
    taken = await talk.call("get_results", batch=batch, save_to="out.csv")
    assert taken["warnings"] == ["out.csv is another file, which was left as it is: the rows are in out-2.csv."]
    assert read["warnings"] == ["No row has the key 'k9'. Keys here are like 'k1'."]


async def test_a_key_that_is_refused_in_the_middle_of_a_list_is_a_sentence(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    """Several batches are looked up at once, and what fails there comes wrapped."""
    for mark in ("a", "b"):
        await talk.call("create_batch", source=request_file(data, mark=mark))
    sandbox.fail_next("batches.get", status=403, times=2)
    assert "Check the key in GEMINI_API_KEY" in await talk.refusal("list_jobs")


async def test_rows_that_were_cut_are_ordered_alone_with_more_room_as_the_advice_says(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    rows = [f"r{number},text {number}{' [[sandbox:max_tokens]]' if number % 3 == 0 else ''}" for number in range(9)]
    (data / "reviews.csv").write_text("\n".join(["id,text", *rows]), encoding="utf-8")
    order = {"source": "reviews.csv", "prompt": "Mood? {{text}}", "key_column": "id"}
    batch = (await talk.call("create_batch", **order, generation_config={"maxOutputTokens": 50}))["batch_id"]
    sandbox.finish(newest(sandbox))
    await talk.call("get_results", batch=batch)
    told = await talk.text("check_status", batch=batch)
    advised = {"like": batch, "source": batch, "where": "status = 'truncated'"}
    assert all(f"{name}={value!r}" in told for name, value in {"like": batch, "source": batch}.items()), told
    assert "where=\"status = 'truncated'\"" in told and "orders these alone" in told

    seen = await talk.call("preview_batch", **advised, generation_config={"maxOutputTokens": 500})
    assert seen["request_count"] == 3
    assert [line["key"] for line in seen["sample"]] == ["r0", "r3"]
    request = seen["sample"][0]["request"]
    # The column of that name, which is the answer's in a batch as a source.
    assert request["contents"][0]["parts"][0]["text"] == "Mood? text 0 [[sandbox:max_tokens]]"
    assert request["generationConfig"]["maxOutputTokens"] == 500
    # A file that goes by the batch's name is the file.
    named = (await talk.call("create_batch", **order, display_name="reviews.csv", sample_rows=4))["batch_id"]
    sandbox.finish(newest(sandbox))
    await talk.call("get_results", batch=named)
    other = await talk.call("preview_batch", like=named, source="reviews.csv", generation_config={"maxOutputTokens": 9})
    assert other["sample"][0]["request"]["contents"][0]["parts"][0]["text"].startswith("Mood? text ")
