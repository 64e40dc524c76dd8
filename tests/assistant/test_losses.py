"""Before something is lost: who is asked about a cancel or a delete in each era, in which words, and what a no does."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mcp.client.context import ClientRequestContext
from mcp_types import ElicitRequestParams, ElicitResult, ErrorData

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import ByTime, SandboxConfig
from gemini_batch_mcp.settings import Settings
from support.conversation import Person, converse, newest, request_file, spoken
from support.extent import few

pytestmark = [pytest.mark.anyio, pytest.mark.both_eras]


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """A Gemini whose jobs take long, and whose cancels take effect by themselves, and at once."""
    with Sandbox(tmp_path / "timed", SandboxConfig(pace=ByTime(600.0), cancel_seconds=0.01)) as service:
        yield service


@dataclass(frozen=True)
class Ending:
    """A tool after which something is gone, what the form for it has, and what a no says did not happen."""

    tool: str
    box: str
    done: str
    form: dict[str, Any]


ENDINGS = (
    Ending(
        "cancel_batch",
        "stop",
        "cancelled",
        {
            "type": "boolean",
            "title": "Stop the batch",
            "description": "Yes, cancel the batch and lose the rows described.",
        },
    ),
    Ending(
        "delete_batch",
        "delete",
        "deleted",
        {"type": "boolean", "title": "Delete", "description": "Yes, delete what is listed."},
    ),
)
endings = pytest.mark.parametrize("ending", ENDINGS, ids=[ending.tool for ending in ENDINGS])


async def ordered(settings: Settings, sandbox: Sandbox, data: Path) -> str:
    """A batch at work whose rows could not be sent again: the file with its requests is gone."""
    async with converse(settings, sandbox) as talk:
        source = Path(request_file(data, 5))
        batch = str((await talk.call("create_batch", source=str(source)))["batch_id"])
    source.unlink()
    return batch


def has_changed(sandbox: Sandbox) -> bool:
    return any(request.route in ("batches.cancel", "batches.delete") for request in sandbox.requests)


@endings
async def test_a_client_that_can_ask_asks_in_words_that_name_what_is_lost(
    settings: Settings, sandbox: Sandbox, data: Path, era: str, ending: Ending
) -> None:
    batch = await ordered(settings, sandbox, data)
    person = Person()
    async with converse(settings, sandbox, era, person) as talk:
        await talk.call(ending.tool, batch=batch)
    assert has_changed(sandbox)
    assert person.forms == [{"type": "object", "properties": {ending.box: ending.form}, "required": [ending.box]}]
    job = newest(sandbox)
    charged = "Rows in progress still finish and may be charged, like those already finished."
    expected = {
        "cancel_batch": (
            f"gemini-batch-mcp asks: cancel {batch}? This stops the job {job} at Gemini. Those of its 5 rows that "
            "Gemini has not finished would be lost: …/reviews.jsonl, which holds its requests, is gone, so they could "
            f"not be resent from here. {charged}"
        ),
        "delete_batch": (
            f"gemini-batch-mcp asks: delete {batch}? This deletes the job {job} at Gemini with what was uploaded "
            "there, and everything stored here about it, including its answers. The job has not ended and would be "
            f"cancelled first. {charged} This cannot be undone. Files that results were saved to are kept."
        ),
    }
    assert re.sub(r"/\S*(?=/reviews)", "…", person.questions[0]) == expected[ending.tool]
    assert len(person.questions) == 1


@few(3)
@endings
@pytest.mark.parametrize("no", [Person("decline"), Person("accept", ticks=False), Person("cancel")])
async def test_a_no_changes_nothing_and_says_so_and_confirm_is_no_answer(
    settings: Settings, sandbox: Sandbox, data: Path, era: str, ending: Ending, no: Person
) -> None:
    batch = await ordered(settings, sandbox, data)
    no.questions.clear()
    async with converse(settings, sandbox, era, no) as talk:
        refusal = await talk.refusal(ending.tool, batch=batch, confirm=True)
        said = "without answering, which counts as no" if no.action == "cancel" else "asked and declined"
        assert f"{said}: nothing was {ending.done}." in refusal
        assert len(no.questions) == 1
        assert (await talk.call("check_status", batch=batch))["done"] is False
    assert not has_changed(sandbox)
    async with converse(settings, sandbox, era) as talk:
        said = spoken(await talk.raw(ending.tool, batch=batch, confirm=True))
        # Whoever closed the question has said nothing; whoever said no holds that in every client.
        assert ("confirm=true does not override that" in said) is (no.action != "cancel")
        if no.action != "cancel":
            assert "and declined. gemini-batch-mcp asks: " in await talk.refusal(ending.tool, batch=batch)
            await talk.call(ending.tool, batch=batch, confirm=True)
    assert has_changed(sandbox)


@endings
async def test_a_client_that_cannot_ask_is_told_the_question_and_works_by_confirm(
    settings: Settings, sandbox: Sandbox, data: Path, era: str, ending: Ending
) -> None:
    batch = await ordered(settings, sandbox, data)
    async with converse(settings, sandbox, era) as talk:
        refusal = await talk.refusal(ending.tool, batch=batch)
        assert refusal.startswith("gemini-batch-mcp asks: ")
        assert f"Nothing was {ending.done}. Show the user this" in refusal
        assert not has_changed(sandbox)
        await talk.call(ending.tool, batch=batch, confirm=True)
    assert has_changed(sandbox)


async def test_nobody_is_asked_about_a_cancel_after_which_the_rows_can_be_sent_again(
    settings: Settings, sandbox: Sandbox, data: Path, era: str
) -> None:
    person = Person("decline")
    async with converse(settings, sandbox, era, person) as talk:
        batch = (await talk.call("create_batch", source=request_file(data)))["batch_id"]
        assert "CANCEL" in (await talk.call("cancel_batch", batch=batch))["state"]
    assert person.questions == []


async def test_what_is_wrong_reads_the_same_whether_the_client_can_ask_or_not(
    settings: Settings, sandbox: Sandbox, data: Path, era: str
) -> None:
    told = []
    async with converse(settings, sandbox) as talk:
        batch = (await talk.call("create_batch", source=request_file(data)))["batch_id"]
    sandbox.finish(newest(sandbox))
    for person in (Person(), None):
        async with converse(settings, sandbox, era, person) as talk:
            refusals = [
                await talk.refusal("cancel_batch", batch="nothing"),
                await talk.refusal("cancel_batch", batch=batch),
                await talk.refusal("delete_batch", batch="nothing"),
            ]
            sandbox.fail_next("batches.get", status=403)
            refusals.append(await talk.refusal("cancel_batch", batch="batches/" + "x" * 36))
            sandbox.faults.clear()
        assert person is None or person.questions == []
        told.append(refusals)
    assert told[0] == told[1]
    assert "has already ended" in told[0][1]


async def _says_nothing(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
    return ElicitResult(action="accept")


async def _says_something_else(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
    return ElicitResult(action="accept", content={"delete": "whatever"})


@pytest.mark.parametrize("answer", [_says_nothing, _says_something_else])
async def test_an_answer_that_is_none_changes_nothing_and_is_told_in_our_words(
    settings: Settings, sandbox: Sandbox, data: Path, era: str, answer: Any
) -> None:
    batch = await ordered(settings, sandbox, data)
    async with converse(settings, sandbox, era, answer) as talk:
        refusal = await talk.refusal("delete_batch", batch=batch)
    assert refusal == (
        "The client did not come back with the user's answer to a question: nothing was done. "
        "Make the same call again to ask once more."
    )
    assert not has_changed(sandbox)


async def test_a_client_whose_window_fails_is_told_so_by_the_tool(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    """On the newer protocol such a client does not come back at all."""

    async def fails(context: ClientRequestContext, params: ElicitRequestParams) -> ErrorData:
        return ErrorData(code=-32000, message="the window is \u202egone")

    batch = await ordered(settings, sandbox, data)
    async with converse(settings, sandbox, "legacy", fails) as talk:
        refusal = await talk.refusal("delete_batch", batch=batch)
    assert refusal.startswith("The client did not come back with the user's answer to a question (it said: the window")
    assert "\u202e" not in refusal
    assert not has_changed(sandbox)
