"""An old order with one thing changed: taken over by `like`, with what differs told."""

from dataclasses import replace
from pathlib import Path

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from support.conversation import Conversation, Run, converse, newest, request_file

pytestmark = [pytest.mark.anyio, pytest.mark.both_eras]

OTHER_MODEL = "gemini-2.5-flash-lite"


async def test_yesterdays_labels_are_ordered_from_a_cheaper_model_by_naming_the_batch(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    source = data / "reviews.csv"
    source.write_text("id,text,country\n1,good,DE\n2,bad,FR\n3,fine,DE\n", encoding="utf-8")
    first = {
        "source": "reviews.csv",
        "prompt": "Mood of {{text}}?",
        "system_instruction": "Be short.",
        "generation_config": {"maxOutputTokens": 50},
        "key_column": "id",
        "where": "country = 'DE'",
    }
    batch = (await talk.call("create_batch", **first, display_name="labels"))["batch_id"]
    same = await talk.call("preview_batch", like="labels")
    assert same["standing"] == batch
    assert f"As {batch} in everything." in same["warnings"]

    preview = await talk.call("preview_batch", like=batch, model=OTHER_MODEL)
    assert (preview["model"], preview["request_count"]) == (OTHER_MODEL, 2)
    told = f"As {batch}, but with another model ({OTHER_MODEL} instead of gemini-3-flash-preview)."
    assert told in preview["warnings"]
    created = await talk.call("create_batch", like=batch, model=OTHER_MODEL)
    assert told in created["warnings"]
    assert created["batch_id"] != batch
    asked = (await talk.call("get_results", batch=created["batch_id"], view="order"))["order"]
    assert asked["like"] == batch
    assert {name: asked[name] for name in first if name != "source"} == {
        name: value for name, value in first.items() if name != "source"
    }
    # Of two parts that are given both are told, and a source that is not what it was.
    source.write_text("id,text,country\n1,good,DE\n", encoding="utf-8")
    changed = await talk.call("preview_batch", like=batch, prompt="Topic of {{text}}?")
    assert f"As {batch}, but with another prompt." in changed["warnings"]
    assert any(warning.endswith(f"has changed since {batch} was ordered.") for warning in changed["warnings"])
    source.unlink()
    assert "reviews.csv" in await talk.refusal("preview_batch", like=batch)


async def test_rows_of_the_call_are_taken_over_and_a_pilots_limit_is_told(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    rows = [{"text": f"t{n}"} for n in range(5)]
    batch = (await talk.call("create_batch", requests=rows, prompt="Say {{text}}.", limit_rows=2))["batch_id"]
    preview = await talk.call("preview_batch", like=batch, prompt="Sing {{text}}.")
    assert preview["request_count"] == 2
    assert "limit_rows=2 is taken over; give limit_rows=0 for all rows." in preview["warnings"]
    whole = await talk.call("preview_batch", like=batch, limit_rows=100)
    assert whole["request_count"] == 5
    # Another source instead of the rows.
    (data / "more.csv").write_text("text\na\nb\nc\n", encoding="utf-8")
    other = await talk.call("preview_batch", like=batch, source="more.csv", limit_rows=100)
    assert other["request_count"] == 3
    assert "source, requests" in other["warnings"][0].replace(f" ({data / 'more.csv'} instead of none)", "")


async def test_what_was_not_ordered_here_cannot_be_taken_over(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    assert "No batch 'nobody-x1y2z3' is known here" in await talk.refusal("preview_batch", like="nobody-x1y2z3")
    await talk.call("create_batch", source=request_file(data))
    name = newest(sandbox)
    async with converse(replace(talk.settings, home=talk.settings.home / "other"), sandbox) as other:
        await other.call("check_status", batch=name)
        assert "is not known here: it was created elsewhere" in await other.refusal("preview_batch", like=name)


def test_a_terminal_takes_an_order_over(run_at_port: Run, data: Path) -> None:
    (data / "reviews.csv").write_text("id,text\n1,good\n2,bad\n", encoding="utf-8")
    batch = run_at_port("create-batch", "reviews.csv", "--prompt", "Mood of {{text}}?").stdout.split()[0]
    shown = run_at_port("preview", "--like", batch, "--where", "id = 2")
    assert shown.returncode == 0, shown.stderr
    assert "Mood of bad?" in shown.stdout
    assert f"As {batch}, but with another where (id = 2 instead of none)." in shown.stderr
