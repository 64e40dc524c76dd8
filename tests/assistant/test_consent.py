"""Who agrees: what a client of each era gets, whether it can ask its user or not, and what the user says."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from time_machine import travel

from gemini_batch_mcp.batches.ledger.entries import NewBatch, Stage
from gemini_batch_mcp.batches.ledger.ledger import QuoteUsed
from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.gemini.developer.gateway import Gateway
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from gemini_batch_mcp.text import dollars
from support.conversation import (
    Conversation,
    Person,
    Run,
    converse,
    desk_of,
    line,
    newest,
    request_file,
    spoken,
    write_lines,
)
from support.extent import few

pytestmark = pytest.mark.anyio


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Everything that costs anything is asked about."""
    return replace(settings, confirm_above_usd=0.0)


def table(data: Path, rows: int = 3) -> dict[str, Any]:
    """An order of rows of a table, which everything that an order is made of may change."""
    lines = ["id,text", *(f"{number},row {number}" for number in range(rows))]
    (data / "rows.csv").write_text("".join(f"{entry}\n" for entry in lines), encoding="utf-8")
    return {"source": "rows.csv", "prompt": "Mood of {{text}}?", "key_column": "id"}


@dataclass(frozen=True)
class Scene:
    """A client, and what its user has."""

    talk: Conversation
    data: Path
    sandbox: Sandbox

    async def said(self, tool: str = "create_batch", **arguments: Any) -> str:
        return spoken(await self.talk.raw(tool, **arguments))

    async def uploaded(self) -> str:
        """A file that some other program has left at Gemini."""
        path = Path(request_file(self.data))
        gateway = Gateway.open(self.talk.settings, transport=self.sandbox.transport())
        try:
            return (await gateway.upload(path, size_bytes=path.stat().st_size, display_name="theirs")).name
        finally:
            await gateway.aclose()


async def first_call(scene: Scene) -> str:
    return await scene.said(**table(scene.data))


async def first_call_with_confirm(scene: Scene) -> str:
    return await scene.said(**table(scene.data), confirm=True)


async def preview_then_confirm(scene: Scene) -> str:
    await scene.said("preview_batch", **table(scene.data))
    return await scene.said(**table(scene.data), confirm=True)


async def call_then_confirm(scene: Scene) -> str:
    await scene.said(**table(scene.data))
    return await scene.said(**table(scene.data), confirm=True)


async def preview_of_other_rows(scene: Scene) -> str:
    await scene.said("preview_batch", **table(scene.data))
    return await scene.said(**table(scene.data, rows=30), confirm=True)


async def preview_of_another_prompt(scene: Scene) -> str:
    await scene.said("preview_batch", **table(scene.data))
    return await scene.said(**table(scene.data) | {"prompt": "Write a book about {{text}}."}, confirm=True)


async def preview_of_another_model(scene: Scene) -> str:
    await scene.said("preview_batch", **table(scene.data))
    return await scene.said(**table(scene.data), model="gemini-3.1-pro-preview", confirm=True)


async def preview_of_another_schema(scene: Scene) -> str:
    await scene.said("preview_batch", **table(scene.data))
    schema = {"type": "object", "properties": {"mood": {"type": "string"}}, "required": ["mood"]}
    return await scene.said(**table(scene.data), response_schema=schema, confirm=True)


async def preview_of_yesterday(scene: Scene) -> str:
    with travel(datetime.now(UTC) - timedelta(hours=25), tick=True):
        await scene.said("preview_batch", **table(scene.data))
    return await scene.said(**table(scene.data), confirm=True)


async def paid_then_again(scene: Scene) -> str:
    await call_then_confirm(scene)
    return await scene.said(**table(scene.data), resubmit=True, confirm=True)


async def paid_then_asked_again(scene: Scene) -> str:
    await call_then_confirm(scene)
    await scene.said(**table(scene.data), resubmit=True)
    return await scene.said(**table(scene.data), resubmit=True, confirm=True)


async def uploaded_with_confirm(scene: Scene) -> str:
    return await scene.said(source=await scene.uploaded(), confirm=True)


async def uploaded_then_confirm(scene: Scene) -> str:
    source = await scene.uploaded()
    await scene.said(source=source)
    return await scene.said(source=source, confirm=True)


@dataclass(frozen=True)
class Outcome:
    """What becomes of a situation, client by client.

    `yes` and `no` are creates and questions where the client can ask, and its user says so; `told` is what the last
    call says where it cannot ask.
    """

    situation: Callable[[Scene], Awaitable[str]]
    yes: tuple[int, int]
    no: tuple[int, int]
    told: str

    @property
    def creates(self) -> int:
        """How many batches there are at Gemini where the client cannot ask."""
        before = self.situation in (paid_then_again, paid_then_asked_again)
        return before + (self.told == SUBMITTED)


SUBMITTED: Final = " ordered: "
TABLE: Final = (
    Outcome(first_call, (1, 1), (0, 1), "gemini-batch-mcp asks: submit 3 requests of rows.csv to"),
    Outcome(first_call_with_confirm, (1, 1), (0, 1), "the cost has not been shown to anyone"),
    Outcome(preview_then_confirm, (1, 1), (0, 1), SUBMITTED),
    # The second call of a user who said yes is the same order.
    Outcome(call_then_confirm, (1, 1), (0, 2), SUBMITTED),
    Outcome(preview_of_other_rows, (1, 1), (0, 1), "has changed since an order of the same source was priced"),
    Outcome(preview_of_another_prompt, (1, 1), (0, 1), "has changed since an order of the same source was priced"),
    Outcome(preview_of_another_model, (1, 1), (0, 1), "has changed since an order of the same source was priced"),
    Outcome(preview_of_another_schema, (1, 1), (0, 1), "has changed since an order of the same source was priced"),
    Outcome(preview_of_yesterday, (1, 1), (0, 1), "more than 24 hours ago"),
    Outcome(paid_then_again, (2, 2), (0, 3), "The figure shown was used for rows-"),
    Outcome(paid_then_asked_again, (3, 3), (0, 4), SUBMITTED),
    Outcome(uploaded_with_confirm, (1, 1), (0, 1), "the cost has not been shown to anyone"),
    Outcome(uploaded_then_confirm, (1, 1), (0, 2), SUBMITTED),
)


@few(10)
@pytest.mark.both_eras
@pytest.mark.parametrize("outcome", TABLE, ids=[outcome.situation.__name__ for outcome in TABLE])
@pytest.mark.parametrize("client", ["yes", "no", "cannot ask"])
async def test_who_agrees_is_the_user_of_a_client_that_can_ask_and_else_who_was_shown_the_figure(
    settings: Settings, sandbox: Sandbox, data: Path, era: str, client: str, outcome: Outcome
) -> None:
    person = {"yes": Person(), "no": Person("decline"), "cannot ask": None}[client]
    async with converse(settings, sandbox, era, person) as talk:
        last = await outcome.situation(Scene(talk, data, sandbox))
    if person is not None:
        assert (sandbox.creates, len(person.questions)) == (outcome.yes if client == "yes" else outcome.no)
        return
    assert outcome.told in last
    assert sandbox.creates == outcome.creates
    assert ("Nothing was submitted. Show the user this" in last) is (outcome.told != SUBMITTED)


DECLINED: Final = re.compile(r"The user was asked about this at \d\d:\d\d, and declined\.")


@pytest.mark.both_eras
@pytest.mark.parametrize("no", [Person("decline"), Person("accept", ticks=False)], ids=["decline", "not ticked"])
async def test_a_no_holds_in_every_other_client_until_the_order_is_quoted_anew(
    settings: Settings, sandbox: Sandbox, data: Path, era: str, no: Person
) -> None:
    order = table(data)
    async with converse(settings, sandbox, era) as talk:
        await talk.call("preview_batch", **order)
    async with converse(settings, sandbox, era, no) as talk:
        assert "The user was asked and declined" in await talk.refusal("create_batch", **order, confirm=True)
    for other in ("legacy", "auto"):
        async with converse(settings, sandbox, other) as talk:
            for _ in range(2):
                refusal = await talk.refusal("create_batch", **order, confirm=True)
                assert DECLINED.search(refusal)
                assert "does not override that" in refusal
    assert sandbox.creates == 0
    async with converse(settings, sandbox, era) as talk:
        assert DECLINED.search(await talk.refusal("create_batch", **order))
        await talk.call("create_batch", **order, confirm=True)
    assert sandbox.creates == 1


async def test_a_preview_quotes_a_declined_order_anew(
    settings: Settings, sandbox: Sandbox, data: Path, era: str
) -> None:
    async with converse(settings, sandbox, era, Person("decline")) as talk:
        await talk.refusal("create_batch", **table(data))
    async with converse(settings, sandbox, era) as talk:
        await talk.call("preview_batch", **table(data))
        await talk.call("create_batch", **table(data), confirm=True)
    assert sandbox.creates == 1


async def test_a_question_closed_without_an_answer_voids_what_was_shown_before(
    settings: Settings, sandbox: Sandbox, data: Path, era: str
) -> None:
    async with converse(settings, sandbox, era, Person("cancel")) as talk:
        await talk.call("preview_batch", **table(data))
        assert "closed the question" in await talk.refusal("create_batch", **table(data))
    async with converse(settings, sandbox, era) as talk:
        refusal = await talk.refusal("create_batch", **table(data), confirm=True)
    assert "has not been shown to anyone" in refusal
    assert sandbox.creates == 0


@pytest.mark.both_eras
@pytest.mark.parametrize("client", ["yes", "no", "cannot ask"])
async def test_a_retry_is_agreed_to_as_an_order_is(
    settings: Settings, sandbox: Sandbox, data: Path, era: str, client: str
) -> None:
    source = request_file(data, mark="[[sandbox:error:13]]")
    async with converse(replace(settings, confirm_above_usd=None), sandbox, era) as talk:
        batch = (await talk.call("create_batch", source=source))["batch_id"]
        sandbox.finish(newest(sandbox))
        await talk.call("get_results", batch=batch)
    person = {"yes": Person(), "no": Person("decline"), "cannot ask": None}[client]
    async with converse(settings, sandbox, era, person) as talk:
        first = spoken(await talk.raw("retry_failed", batch=batch, confirm=True))
        assert (" ordered: " in first) is (client == "yes")
        if person is not None:
            assert person.questions[0].startswith(f"gemini-batch-mcp asks: resend 1 row of {batch} to gemini-")
            assert (sandbox.creates, len(person.questions)) == ((2, 1) if client == "yes" else (1, 1))
        if client == "cannot ask":
            assert "has not been shown to anyone" in first
            await talk.call("retry_failed", batch=batch, confirm=True)
            sandbox.finish(newest(sandbox))
            await talk.call("get_results", batch=batch)
            # The very same row to the very same model: it is paid a third time.
            assert "Show the user this" in await talk.refusal("retry_failed", batch=batch, confirm=True)
            assert sandbox.creates == 2
    if client == "no":
        async with converse(settings, sandbox, era) as talk:
            assert DECLINED.search(await talk.refusal("retry_failed", batch=batch, confirm=True))


async def test_the_question_is_in_a_persons_words(settings: Settings, sandbox: Sandbox, data: Path, era: str) -> None:
    person = Person()
    async with converse(replace(settings, confirm_above_usd=0.01), sandbox, era, person) as talk:
        figure = (await talk.call("create_batch", **table(data)))["estimate"]
    low, high = (dollars(figure[f"cost_usd_{end}"]) for end in ("low", "high"))
    assert re.sub(r"[0-9a-f]{8}", "…", person.questions[0]) == (
        "gemini-batch-mcp asks: submit 3 requests of rows.csv to gemini-3-flash-preview? This may cost up to "
        f"{high} if every answer reached its length limit, and {low} for the input alone, at the prices of "
        f"{figure['priced_on']}. The server asks because it may be more than $0.0100. (Order ….)"
    )
    assert person.forms[0] == {
        "type": "object",
        "properties": {
            "submit": {
                "type": "boolean",
                "title": "Submit",
                "description": "Yes, submit it at up to the cost shown.",
            }
        },
        "required": ["submit"],
    }


@pytest.mark.both_eras
async def test_what_is_wrong_is_told_first_and_in_the_same_words_to_every_client(
    settings: Settings, sandbox: Sandbox, data: Path, era: str
) -> None:
    wrong_rows = table(data) | {"prompt": "Mood of {{nowhere}}?"}
    wrong_lines = write_lines(data / "wrong.jsonl", [line("a"), line("a")])
    without_key = replace(settings, api_key=None)
    told: list[list[str]] = []
    for person in (Person(), None):
        refusals = []
        async with converse(settings, sandbox, era, person) as talk:
            refusals.append(await talk.refusal("create_batch", source="nowhere.csv", prompt="{{x}}"))
            refusals.append(await talk.refusal("create_batch", **wrong_rows))
            refusals.append(await talk.refusal("create_batch", source=wrong_lines))
            refusals.append(await talk.refusal("create_batch", source="files/abc"))
            refusals.append(await talk.refusal("retry_failed", batch="nothing"))
        async with converse(replace(settings, max_cost_usd=0.00001), sandbox, era, person) as talk:
            refusals.append(await talk.refusal("create_batch", **table(data)))
        async with converse(without_key, None, era, person) as talk:
            refusals.append(await talk.refusal("create_batch", **table(data)))
        if person is not None:
            assert person.questions == []
        told.append(refusals)
    assert told[0] == told[1]
    assert not any("Error executing tool" in refusal for refusal in told[0])
    assert "There is no Gemini API key." in told[0][-1]


async def test_two_calls_at_once_are_not_both_paid_on_one_figure(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    async with desk_of(settings, sandbox) as desk:
        order = Order(source=request_file(data))
        quote = await desk.quote(order)
        first = await desk.place_order(order, agreed_to=quote)
        ledger = desk.app.ledger
        ledger.quotes.record(quote.fingerprint, quote.source, quote.figure)
        batch = first.status.batch
        assert batch.order is not None
        new = NewBatch(
            batch.order_sha256, "twice", batch.model, batch.task, batch.delivery, batch.source, order=batch.order
        )
        ledger.reserve(new, always=True, on_quote=True)
        for job in ledger.unsettled_ids():
            if job != batch.id:
                ledger.update_job(ledger.batch(job).jobs[0].id, stage=Stage.COLLECTED)  # type: ignore[union-attr]
        with pytest.raises(QuoteUsed, match="Another order was just submitted"):
            ledger.reserve(new, always=True, on_quote=True)
        assert len(ledger.batches_named("twice")) == 1


def test_a_command_without_a_terminal_is_refused_with_the_figure_unless_it_says_yes(run: Run, data: Path) -> None:
    asking = {"GEMINI_BATCH_CONFIRM_ABOVE_USD": "0"}
    source = request_file(data)
    refused = run("create-batch", source, env=asking)
    assert refused.returncode == 1
    assert "This may cost up to $" in " ".join(refused.stderr.split())
    assert "Add --yes to agree" in " ".join(refused.stderr.split())
    assert "confirm=true" not in refused.stderr
    assert run("create-batch", source, "--yes", env=asking).returncode == 0
