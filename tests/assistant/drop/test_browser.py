"""The drop page in a real browser, by keyboard: a file goes in, a result comes out, and what a screen reader hears.

Needs Debian's `chromium` and the packages of tests/js. `DROP_PICTURES=directory` has pictures written there.
"""

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from assistant.drop.chatting import PROMPT, SPELLINGS, address_in, chat
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import newest
from support.extent import long
from support.npm import chromium, run_node

pytestmark = [pytest.mark.anyio, pytest.mark.npm, long]


async def test_a_person_hands_a_file_over_and_takes_a_result_by_keyboard(
    settings: Settings, sandbox: Sandbox, tmp_path: Path
) -> None:
    program = chromium()
    file = tmp_path / "reviews.csv"
    file.write_text("text\nfine\nnaïve\n", encoding="utf-8")
    async with chat(settings, sandbox) as talk:
        ordered = await talk.call("create_batch", requests=[{"text": "fine"}], **PROMPT)
        sandbox.finish(newest(sandbox))
        # What goes into the server's own directory is offered without anybody asking.
        saved = (
            await talk.call("get_results", batch=ordered["batch_id"], save_to=str(talk.settings.files / "moods.csv"))
        )["saved"]
        url = await address_in(talk)
        assert f"(download: {url} on the computer" in saved["download"]
        pictures = os.environ.get("DROP_PICTURES", "")
        walk = partial(run_node, "drop.mjs", program, str(tmp_path / "profile"), url, str(file), pictures)
        with anyio.fail_after(100):
            seen: dict[str, Any] = json.loads(await anyio.to_thread.run_sync(walk))
        assert (talk.settings.files / "reviews.csv").read_bytes() == file.read_bytes()
        told = await talk.raw("preview_batch", source=SPELLINGS[0], **PROMPT)
        assert str(talk.settings.files / "reviews.csv") in str(told.content)

    assert (seen["messages"], seen["violations"]) == ([], [])
    assert {request.partition(" ")[2] for request in seen["requests"]} == {url.rpartition("/")[0]}
    assert seen["widths"] == {"320": 320, "800": 800}
    offered, handed = seen["offered"], seen["handed"]
    assert (offered["title"], offered["focus"]) == ("Hand over files · Gemini Batch", "files")
    for line in (
        '- heading "Hand over files" [level=1]',
        "- listitem: reviews.csv",
        '- button "Files to hand over"',
        '- button "Hand over"',
        '- heading "Saved results" [level=2]',
        '- link "moods.csv"',
    ):
        assert line in offered["tree"], offered["tree"]
    assert seen["download"] == {"name": "moods.csv", "text": Path(saved["path"]).read_bytes().decode()}
    assert seen["several"] is True
    assert (handed["title"], handed["focus"]) == ("Handed over · Gemini Batch", "Handed over")
    assert "- status:" in handed["tree"]
    assert str(talk.settings.files / "reviews.csv") in handed["tree"]
