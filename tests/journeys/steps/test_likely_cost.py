"""What an order will likely cost, by the answers of a pilot: shown wherever the cost is, asked about, and kept to."""

import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import Conversation, Person, converse

pytestmark = pytest.mark.anyio

ROWS = 400
ORDER: dict[str, Any] = {"source": "reviews.csv", "prompt": "Sum up {{text}}", "key_column": "id"}


def reviews(data: Path) -> None:
    rng = random.Random(7)
    rows = [f'r{n:04},"{" ".join(["word"] * rng.randint(3, 60))}"\n' for n in range(ROWS)]
    (data / "reviews.csv").write_text("id,text\n" + "".join(rows), encoding="utf-8")


async def ordered(talk: Conversation, sandbox: Sandbox, **order: Any) -> dict[str, Any]:
    """The results of an order that is placed and ends."""
    created = await talk.call("create_batch", **order)
    for job in created["jobs"]:
        sandbox.finish(job["name"])
    return await talk.call("get_results", batch=created["batch_id"])


async def test_a_pilot_tells_what_the_whole_will_cost_and_the_bill_keeps_to_it(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    reviews(data)
    person = Person()
    settings = replace(settings, confirm_above_usd=1.0)
    async with converse(settings, sandbox, person=person) as talk:
        before = await talk.call("preview_batch", **ORDER)
        assert before["estimate"]["cost_usd_likely"] is None
        assert before["estimate"]["cost_usd_high"] > 1
        assert "Order a pilot first: sample_rows=20 with delivery='now'" in before["warnings"][-2]

        pilot = await ordered(talk, sandbox, **ORDER, sample_rows=50)
        assert len(person.questions) == 1
        preview = await talk.call("preview_batch", **ORDER)
        estimate = preview["estimate"]
        asked = f"by 50 answers of {pilot['batch_id']}; with 95 %"
        assert asked in estimate["basis"]
        assert not any("pilot" in warning for warning in preview["warnings"])
        # What the pilot has answered need not be paid for again.
        spared = await talk.call("preview_batch", **ORDER, reuse="always")
        assert 50 <= spared["reused_count"] < spared["request_count"]
        [saved] = re.findall(r"Rows that are not sent save about \$([0-9.]+)\.", " ".join(spared["warnings"]))
        less = estimate["cost_usd_likely"] - spared["estimate"]["cost_usd_likely"]
        assert float(saved) == pytest.approx(less, rel=0.05)
        text = await talk.text("preview_batch", **ORDER)
        assert f"likely ${estimate['cost_usd_likely']:.4f} (up to $" in text
        assert "at most $" in text
        # A limit that no answer has met so far, with what it would cut and what it would save.
        [limit] = [warning for warning in preview["warnings"] if "maxOutputTokens=" in warning]
        assert "would have cut none of them, and cuts at most 5.8% of all rows, with 95 %; at most $" in limit
        # Set as proposed, it takes no evidence away; one that cuts answers makes them cheaper.
        proposed = int(limit.partition("maxOutputTokens=")[2].partition(" ")[0])
        costs = [
            (await talk.call("preview_batch", **ORDER, generation_config={"maxOutputTokens": most}))["estimate"]
            for most in (proposed, 1)
        ]
        assert costs[0]["cost_usd_likely"] == pytest.approx(estimate["cost_usd_likely"], rel=0.01)
        assert 0 < costs[1]["cost_usd_likely"] < costs[0]["cost_usd_likely"]

        # The bound of what is likely lies below what the user wants to be asked about: nobody asks.
        whole = await ordered(talk, sandbox, **ORDER)
        assert len(person.questions) == 1
        kept = (await talk.call("get_results", batch=whole["batch_id"], view="order"))["order"]
        low, likely, high = kept["likely_usd"]
        assert likely == estimate["cost_usd_likely"]
        assert low <= whole["usage"]["cost_usd"] <= high < 1

        # A run like its trial says nothing of it.
        assert not any("chance" in warning for warning in whole["warnings"])

        # The same prompt over another source is told by these answers, too, which is said; another prompt is not.
        (data / "others.csv").write_text("id,text\n1,short\n2,this one as well\n", encoding="utf-8")
        other = (await talk.call("preview_batch", **ORDER | {"source": "others.csv"}))["estimate"]
        assert f"by 400 answers of {whole['batch_id']} about another source" in other["basis"]
        new = await talk.call("preview_batch", **ORDER | {"prompt": "Translate {{text}}"})
        assert new["estimate"]["cost_usd_likely"] is None

    # Who wants to be asked about less is asked by what is likely.
    async with converse(replace(settings, confirm_above_usd=low / 10), sandbox, person=person) as talk:
        await talk.call("create_batch", **ORDER, resubmit=True)
    assert (
        f"answers to the same prompt so far this will likely cost ${kept['likely_usd'][1]:.3f}"[:-2]
        in (person.questions[-1])
    )


async def test_a_run_that_left_what_its_trial_let_expect_is_told(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    reviews(data)
    async with converse(settings, sandbox) as talk:
        pilot = await ordered(talk, sandbox, **ORDER, sample_rows=50)
        # What comes later is not what was tried: longer texts, and one answer in four is cut off.
        rows = [f'n{n:03},"{"word " * 90}{"[[sandbox:max_tokens]]" if n % 4 == 0 else ""}"' for n in range(200)]
        (data / "new.csv").write_text("id,text\n" + "\n".join(rows) + "\n", encoding="utf-8")
        run = await ordered(talk, sandbox, **ORDER | {"source": "new.csv"})
        [told] = [warning for warning in run["warnings"] if "chance" in warning]
        assert told.startswith(f"More than chance differs from {pilot['batch_id']} (50 rows): ")
        assert "25.0% truncated rows instead of 0.0%" in told
        # A page of rows is not the place for it, and a trial that is gone says nothing.
        page = await talk.call("get_results", batch=run["batch_id"], view="rows", limit=1)
        assert told not in page["warnings"]
        await talk.call("delete_batch", batch=pilot["batch_id"], confirm=True)
        assert told not in (await talk.call("get_results", batch=run["batch_id"]))["warnings"]


async def test_rows_sent_again_and_embeddings_have_a_likely_cost_as_well(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    # Of what is sent again, the answers of the same batch tell.
    texts = [f"review {n} {'so it was ' * (n % 9)}{'[[sandbox:error:13]]' if n % 10 == 0 else ''}" for n in range(60)]
    (data / "reviews.csv").write_text("\n".join(["id,text", *(f"r{n},{text}" for n, text in enumerate(texts))]))
    first = await ordered(talk, sandbox, **ORDER)
    assert first["summary"]["failed"] == 6
    batch = first["batch_id"]
    again = await talk.call("retry_failed", batch=batch)
    assert again["send_count"] == 6
    assert f"by 54 answers of {batch}; with 95 % $" in again["estimate"]["basis"]
    assert 0 < again["estimate"]["cost_usd_likely"] < first["usage"]["cost_usd"] / 5
    sandbox.finish(again["jobs"][-1]["name"])
    await talk.call("get_results", batch=batch)
    # Another model's answers tell nothing of this one's.
    other = await talk.call("retry_failed", batch=batch, model="gemini-2.5-flash")
    assert other["estimate"]["cost_usd_likely"] is None

    # Embeddings have no output: what Gemini counts is what they will cost.
    order = {"source": "reviews.csv", "prompt": "{{text}}", "task": "embed", "model": "gemini-embedding-2"}
    embedded = await ordered(talk, sandbox, **order, where="id NOT LIKE '%0'")
    kept = (await talk.call("get_results", batch=embedded["batch_id"], view="order"))["order"]
    low, likely, high = kept["likely_usd"]
    assert 0 < low <= likely <= high
    assert low <= embedded["usage"]["cost_usd"] <= high
