"""A trial in minutes, and the bulk after it: the better of four candidates chosen on figures, and the bill kept to."""

import random
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from support.conversation import Conversation, newest, spoken
from support.extent import IS_FULL, in_part, long

pytestmark = [pytest.mark.anyio, in_part, *([pytest.mark.both_eras] if IS_FULL else [])]

MOODS = ["positive", "negative", "mixed"]
MODELS = ("gemini-3-flash-preview", "gemini-2.5-flash")
PROMPTS = ("Mood of a review called '{{title}}'?", "Mood of this review of {{product}}: {{text}}")
ORDER: dict[str, Any] = {
    "source": "reviews.csv",
    "key_column": "id",
    "response_schema": {"type": "object", "properties": {"mood": {"enum": MOODS}}, "required": ["mood"]},
}
#: What this errand may take of the sandbox's time, and what it may take to read (our choice).
MOST_SECONDS = 120
MOST_CHARACTERS = 13_000


def labelled(data: Path) -> None:
    """500 reviews with the moods that a person gave them; the text of 17 in 20 tells the sandbox what to answer."""
    rng = random.Random(5)
    rows = ["id,product,title,text,truth"]
    for number in range(500):
        mood = rng.randrange(3)
        mark = f" [[sandbox:choice:{mood + 1}]]" if rng.random() < 0.85 else ""
        words = " ".join(rng.choices(["boils", "fast", "stays", "cool", "but", "loud"], k=rng.randint(5, 30)))
        rows.append(f"r{number:03},p{number % 7},No. {number},{words}{mark},{MOODS[mood]}")
    (data / "reviews.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


@long
async def test_the_better_of_four_candidates_is_chosen_on_figures_and_the_bulk_keeps_to_them(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    labelled(data)
    began, read = time.monotonic(), 0

    async def call(tool: str, **arguments: Any) -> tuple[dict[str, Any], str]:
        nonlocal read
        result = await talk.client.call_tool(tool, arguments)
        text = spoken(result)
        assert not result.is_error, text
        read += len(text)
        return dict(result.structured_content or {}), text

    # Two prompts, two models, the same 50 rows of the 500, now.
    tried = []
    for prompt in PROMPTS:
        for model in MODELS:
            created, _ = await call("create_batch", **ORDER, prompt=prompt, model=model, sample_rows=50, delivery="now")
            while not (await talk.call("check_status", batch=created["batch_id"], wait_seconds=45))["done"]:
                pass  # A busy machine takes longer than a call may.
            tried.append(created["batch_id"])
            if len(tried) == 1:
                # What the next candidate is ordered with is said where there is one only.
                alone, text = await call("compare_results", batch=tried[0], other="truth", limit=1)
                assert alone["candidates"] == []
                assert f"Next: create_batch with like={tried[0]!r}, delivery='now' and another prompt or model" in text
    assert len(sandbox.call_records) == 200

    # Asked of any of them, the comparison lays all side by side, with the figures that each has by itself.
    compared, text = await call("compare_results", batch=tried[0], other="truth", limit=5)
    assert [one["batch_id"] for one in compared["candidates"]] == tried
    assert [(one["number"], one["model"]) for one in compared["candidates"]] == [
        (number, model) for number in (1, 2) for model in MODELS
    ]
    for one in compared["candidates"]:
        alone = await talk.call("compare_results", batch=one["batch_id"], other="truth", limit=1)
        assert {name: one[name] for name in ("compared", "equal", "share", "share_low", "share_high")} == {
            name: alone[name] for name in ("compared", "equal", "share", "share_low", "share_high")
        }
        cost = (await talk.call("get_results", batch=one["batch_id"]))["usage"]["cost_usd"]
        assert one["per_thousand_usd"] == pytest.approx(cost / 50 * 1000)
    # The sandbox answers both models alike: of the second prompt, better by more than chance, the cheaper one is taken.
    best = compared["candidates"][3]
    assert best["equal"] > compared["candidates"][0]["equal"] + 15
    assert f"{best['name']} costs least" in compared["verdict"]
    assert compared["verdict"] in text
    assert f"Next: preview_batch with like={best['batch_id']!r} and limit_rows=0" in text

    # That very call says what all rows will likely cost, and its twin orders them.
    everything = {"like": best["batch_id"], "limit_rows": 1_000_000_000}
    preview, text = await call("preview_batch", **everything)
    assert (preview["request_count"], preview["send_count"]) == (500, 450)
    assert f"by 50 answers of {best['batch_id']}" in text
    created, _ = await call("create_batch", **everything)
    assert created["estimate"] == preview["estimate"]
    bulk = created["batch_id"]
    sandbox.finish(newest(sandbox))
    status, text = await call("check_status", batch=bulk)
    assert (status["state"], status["rows"]) == ("JOB_STATE_SUCCEEDED", None)
    assert "It has ended at Gemini; the answers are not read yet. Call get_results." in text
    results, text = await call("get_results", batch=bulk)
    assert results["summary"]["succeeded"] == 500
    low, likely, high = (await talk.call("get_results", batch=bulk, view="order"))["order"]["likely_usd"]
    assert likely == preview["estimate"]["cost_usd_likely"]
    assert low <= results["usage"]["cost_usd"] <= high
    assert "chance" not in text
    whole, text = await call("compare_results", batch=bulk, other="truth", limit=5)
    assert best["share_low"] <= whole["share"] <= best["share_high"]
    # All rows there are: none more could be asked, and no other batch answers them.
    assert "rows more would narrow" not in text
    assert whole["candidates"] == []

    seconds = time.monotonic() - began
    sys.stderr.write(f"\ntrial and bulk: {read:,} characters in 11 replies, {seconds:.0f} s\n")
    assert read <= MOST_CHARACTERS
    assert seconds <= MOST_SECONDS
