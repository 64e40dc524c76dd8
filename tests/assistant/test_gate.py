"""The gate before money: asked where the client can ask, told where it cannot, and never passed by a changed order."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import Person, converse, line, newest, request_file, write_lines

pytestmark = [pytest.mark.anyio, pytest.mark.both_eras]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Everything that costs anything is asked about."""
    return replace(settings, confirm_above_usd=0.0)


async def test_a_client_that_can_ask_asks_once_and_submits_after_a_yes(
    settings: Settings, sandbox: Sandbox, data: Path, era: str
) -> None:
    person = Person()
    async with converse(settings, sandbox, era, person) as talk:
        created = await talk.call("create_batch", source=request_file(data))
    assert created["state"] == "JOB_STATE_PENDING"
    assert len(person.questions) == 1
    assert "reviews.jsonl" in person.questions[0]
    assert "$" in person.questions[0]
    assert sandbox.creates == 1


@pytest.mark.parametrize(
    ("person", "said"),
    [
        (Person("decline"), "The user was asked and declined"),
        (Person("accept", ticks=False), "The user was asked and declined"),
        (Person("cancel"), "The user closed the question without answering, which counts as no"),
    ],
)
async def test_after_a_no_nothing_is_submitted(
    settings: Settings, sandbox: Sandbox, data: Path, era: str, person: Person, said: str
) -> None:
    async with converse(settings, sandbox, era, person) as talk:
        assert f"{said}: nothing was submitted." in await talk.refusal("create_batch", source=request_file(data))
        assert (await talk.call("list_jobs"))["jobs"] == []
    assert sandbox.creates == 0
    assert not any(request.route.startswith("files.") for request in sandbox.requests)


async def test_a_client_that_cannot_ask_is_told_what_to_ask(
    settings: Settings, sandbox: Sandbox, data: Path, era: str
) -> None:
    async with converse(settings, sandbox, era) as talk:
        source = request_file(data)
        sentence = await talk.refusal("create_batch", source=source)
        assert "$" in sentence
        assert "confirm=true" in sentence
        assert sandbox.creates == 0
        created = await talk.call("create_batch", source=source, confirm=True)
    assert created["estimate"]["cost_usd_high"] > 0
    assert sandbox.creates == 1


async def test_an_order_that_changed_since_the_user_agreed_is_asked_about_again(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    async with converse(settings, sandbox) as talk:
        source = request_file(data, 3)
        assert (await talk.call("preview_batch", source=source))["ok"]
        request_file(data, 300)
        assert "has changed since" in await talk.refusal("create_batch", source=source, confirm=True)
        assert sandbox.creates == 0
        await talk.call("create_batch", source=source, confirm=True)
    assert sandbox.creates == 1


async def test_what_was_previewed_may_be_confirmed_at_once(settings: Settings, sandbox: Sandbox, data: Path) -> None:
    async with converse(settings, sandbox) as talk:
        source = request_file(data)
        await talk.call("preview_batch", source=source)
        await talk.call("create_batch", source=source, confirm=True)
    assert sandbox.creates == 1


async def test_an_order_below_the_threshold_is_not_asked_about(
    settings: Settings, sandbox: Sandbox, data: Path, era: str
) -> None:
    person = Person("decline")
    capped = write_lines(data / "cheap.jsonl", [line("k", "hi", generationConfig={"maxOutputTokens": 10})])
    async with converse(replace(settings, confirm_above_usd=1.0), sandbox, era, person) as talk:
        await talk.call("create_batch", source=capped)
    assert person.questions == []
    assert sandbox.creates == 1


async def test_the_same_order_given_again_is_not_asked_about_again(
    settings: Settings, sandbox: Sandbox, data: Path, era: str
) -> None:
    person = Person()
    async with converse(settings, sandbox, era, person) as talk:
        source = request_file(data)
        await talk.call("create_batch", source=source)
        assert (await talk.call("create_batch", source=source))["reused"]
        assert len(person.questions) == 1
        await talk.call("create_batch", source=source, resubmit=True)
    assert len(person.questions) == 2
    assert sandbox.creates == 2


async def test_the_hard_cap_is_not_lifted_by_agreement(
    settings: Settings, sandbox: Sandbox, data: Path, era: str
) -> None:
    person = Person()
    async with converse(replace(settings, max_cost_usd=0.00001), sandbox, era, person) as talk:
        refusal = await talk.refusal("create_batch", source=request_file(data), confirm=True)
        assert "GEMINI_BATCH_MAX_COST_USD" in refusal
        assert "GEMINI_BATCH_MAX_COST_USD" in await talk.refusal("create_batch", source=request_file(data))
    assert person.questions == []
    assert sandbox.creates == 0


async def test_a_retry_that_is_not_the_one_the_user_agreed_to_is_asked_about_again(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    async with converse(settings, sandbox) as talk:
        lines = [line("a", "[[sandbox:error:8]]"), line("b", "[[sandbox:max_tokens]]"), line("c", "fine")]
        source = write_lines(data / "rows.jsonl", lines)
        await talk.refusal("create_batch", source=source)
        batch = (await talk.call("create_batch", source=source, confirm=True))["batch_id"]
        sandbox.finish(newest(sandbox))
        assert "send 1 row of" in await talk.refusal("retry_failed", batch=batch)
        both = {"batch": batch, "include": ["failed", "truncated"]}
        sentence = await talk.refusal("retry_failed", **both, confirm=True)
        assert "has changed since" in sentence
        assert "2 rows" in sentence
        assert sandbox.creates == 1
        assert (await talk.call("retry_failed", **both, confirm=True))["request_count"] == 2
    assert sandbox.creates == 2


async def test_a_retry_is_asked_about_too(settings: Settings, sandbox: Sandbox, data: Path, era: str) -> None:
    person = Person()
    async with converse(settings, sandbox, era, person) as talk:
        source = request_file(data, mark="[[sandbox:error:13]]")
        created = await talk.call("create_batch", source=source)
        sandbox.finish(newest(sandbox))
        await talk.call("retry_failed", batch=created["batch_id"])
        assert "send 1 row of" in person.questions[1]
        person.action = "decline"
        sandbox.finish(newest(sandbox))
        assert "asked and declined" in await talk.refusal("retry_failed", batch=created["batch_id"], include=["failed"])
    assert sandbox.creates == 2


async def test_a_wrong_order_is_refused_before_anybody_is_asked(
    settings: Settings, sandbox: Sandbox, data: Path, era: str
) -> None:
    person = Person()
    async with converse(settings, sandbox, era, person) as talk:
        assert "no file" in await talk.refusal("create_batch", source="nowhere.csv", prompt="{{x}}")
        assert "no batch" in (await talk.refusal("retry_failed", batch="nothing")).lower()
    assert person.questions == []


async def test_the_question_names_the_order_and_holds_no_hidden_characters(
    settings: Settings, sandbox: Sandbox, data: Path, era: str
) -> None:
    person = Person()
    source = request_file(data, name="a\u202eb.jsonl")
    async with converse(settings, sandbox, era, person) as talk:
        await talk.call("create_batch", source=source)
    assert "\u202e" not in json.dumps(person.questions, ensure_ascii=False)
