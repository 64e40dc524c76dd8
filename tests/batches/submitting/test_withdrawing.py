"""A call that its client cancels: what it has not sent by then is never sent, what it has is finished and found."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from gemini_batch_mcp.batches import app as app_module
from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import Conversation, converse, created, desk_of, newest, request_file, sharded, spoken, until
from support.extent import few

pytestmark = pytest.mark.anyio

MOMENTS: Final = 20
#: Steps that a submission takes by itself, behind the call that waits for it.
_OF_SUBMISSION: Final = ("ledger.move_job", "ledger.plan", "ledger.update_batch", "ledger.update_job")
_CANCELLED_BEFORE: Final = "was cancelled by its client at"


@dataclass
class Effects:
    """The effects of a server, in order; `cancel` is called at one of them, by its number or its name."""

    at: int | str = ""
    cancel: Callable[[], None] = lambda: None
    seen: list[str] = field(default_factory=list[str])
    withdrawn: threading.Event = field(default_factory=threading.Event)
    has_cancelled: bool = False
    #: Something had been reserved when the call was cancelled, so that it is going to be withdrawn.
    was_reserved: bool = False

    def __call__(self, step: str) -> None:
        self.seen.append(step)
        if step == "ledger.withdraw:after":
            self.withdrawn.set()
        if not self.has_cancelled and self.at in (len(self.seen) - 1, step):
            self.has_cancelled = True
            self.was_reserved = not {"ledger.reserve:after", "ledger.add_attempt:after"}.isdisjoint(self.seen)
            if not step.startswith("ledger."):
                self.cancel()
                return
            anyio.from_thread.run_sync(self.cancel)
        if self.was_reserved and step.startswith(_OF_SUBMISSION):
            # Not before the cancel has arrived: what happens later happens after it.
            self.withdrawn.wait(10)


@pytest.fixture
def effects(monkeypatch: pytest.MonkeyPatch) -> Effects:
    """The effects of every server that is opened from now on."""
    effects = Effects()
    monkeypatch.setattr(app_module, "open_app", partial(app_module.open_app, hook=effects))
    return effects


async def cancelled(talk: Conversation, effects: Effects, at: int | str, tool: str, **arguments: object) -> bool:
    """Make a call that its client cancels at an effect; False when it had been answered by then."""
    with anyio.CancelScope() as scope:
        effects.at, effects.cancel, effects.has_cancelled = at, scope.cancel, False
        effects.withdrawn.clear()
        effects.seen.clear()
        await talk.raw(tool, **arguments)
    effects.at = ""
    return scope.cancelled_caught


async def settled(effects: Effects) -> None:
    """Wait until nothing goes on any more: no task that could run, no thread, and no effect meanwhile."""
    threads = anyio.to_thread.current_default_thread_limiter()
    quiet = 0
    while quiet < 3:
        before = len(effects.seen)
        await anyio.wait_all_tasks_blocked()
        await until(lambda: not threads.borrowed_tokens)
        quiet = quiet + 1 if len(effects.seen) == before else 0


async def again(talk: Conversation, tool: str, **arguments: object) -> dict[str, object]:
    """Make the call that was cancelled once more, and again when it is just being taken back."""
    result = await talk.raw(tool, **arguments)
    if result.is_error:
        assert "Make the same call again." in spoken(result)
        return await talk.call(tool, **arguments)
    return dict(result.structured_content or {})


@few(4, more=8)
@pytest.mark.both_eras
@pytest.mark.parametrize("moment", range(MOMENTS))
async def test_a_call_cancelled_at_any_moment_sends_nothing_more_and_the_next_one_finds_or_sends_it(
    settings: Settings, sandbox: Sandbox, data: Path, era: str, effects: Effects, moment: int
) -> None:
    async with converse(settings, sandbox, era) as talk:
        await talk.call("create_batch", source=request_file(data, name="undisturbed.jsonl"))
        undisturbed = list(effects.seen)
        last_before = undisturbed.index("create:before") - 2
        at = moment * len(undisturbed) // MOMENTS
        source = request_file(data, 4)

        was_cancelled = await cancelled(talk, effects, at, "create_batch", source=source)

        was_reserved = "ledger.reserve:after" in effects.seen
        if moment % 2:
            await settled(effects)
            if at <= last_before:
                assert was_cancelled
                assert sandbox.creates == 1
                assert len((await talk.call("list_jobs"))["jobs"]) == 1
        sent = sandbox.creates - 1
        order = await again(talk, "create_batch", source=source)
        assert sandbox.creates == 2
        if moment % 2:
            assert order["reused"] is (sent == 1)
            assert any(_CANCELLED_BEFORE in str(note) for note in order["warnings"]) is (was_reserved and not sent)  # type: ignore[attr-defined]
        sandbox.finish(newest(sandbox))
        summary = (await talk.call("get_results", batch=order["batch_id"]))["summary"]
    assert (summary["succeeded"], summary["missing"]) == (4, 0)


async def test_of_an_order_of_several_jobs_those_that_had_not_left_wait_for_the_same_call(
    settings: Settings, sandbox: Sandbox, data: Path, era: str, effects: Effects
) -> None:
    settings, source = sharded(settings, data)
    async with converse(settings, sandbox, era) as talk:
        assert await cancelled(talk, effects, "create:before", "create_batch", source=source)
        await settled(effects)
        assert sandbox.creates == 1
        (job,) = (await talk.call("list_jobs"))["jobs"]
        status = await talk.call("check_status", batch=job["batch_id"])
        assert "2 of 3 jobs were not sent: the call was cancelled by its client." in status["advice"]
    async with desk_of(settings, sandbox) as desk:
        await desk.collect()
        await desk.collect()
    assert sandbox.creates == 1
    async with converse(settings, sandbox, era) as talk:
        order = await talk.call("create_batch", source=source)
        assert order["batch_id"] == job["batch_id"]
        assert "when 1 of 3 jobs had been sent; this call sends the others." in order["warnings"][0]
        assert sandbox.creates == 3
        for name in created(sandbox):
            sandbox.finish(name)
        assert (await talk.call("get_results", batch=order["batch_id"]))["summary"]["succeeded"] == 30


@pytest.mark.both_eras
@pytest.mark.parametrize("at", ["ledger.add_attempt:after", "upload_start:before", "ledger.move_job:before"])
async def test_a_cancelled_retry_sends_nothing_and_can_be_made_again(
    settings: Settings, sandbox: Sandbox, data: Path, era: str, effects: Effects, at: str
) -> None:
    async with converse(settings, sandbox, era) as talk:
        source = request_file(data, mark="[[sandbox:error:13]]")
        batch = (await talk.call("create_batch", source=source))["batch_id"]
        sandbox.finish(newest(sandbox))
        await talk.call("get_results", batch=batch)

        assert await cancelled(talk, effects, at, "retry_failed", batch=batch)
        await settled(effects)

        assert sandbox.creates == 1
        assert (await talk.call("check_status", batch=batch))["done"]
        retry = await talk.call("retry_failed", batch=batch)
        assert _CANCELLED_BEFORE in retry["warnings"][0]
        assert not retry["reused"]
        assert sandbox.creates == 2


async def test_an_order_that_two_calls_want_goes_on_when_one_of_them_is_cancelled(
    settings: Settings, sandbox: Sandbox, data: Path, era: str, effects: Effects
) -> None:
    source = request_file(data)
    orders: list[dict[str, object]] = []
    async with converse(settings, sandbox, era) as talk, anyio.create_task_group() as calls:

        async def place() -> None:
            orders.append(await talk.call("create_batch", source=source))

        def join_and_cancel() -> None:
            calls.start_soon(place)
            calls.start_soon(cancel_once_joined)

        async def cancel_once_joined() -> None:
            await until(lambda: "ledger.join:after" in effects.seen)
            first.cancel()

        sandbox.delay_next("files.start", 0.5)
        with anyio.CancelScope() as first:
            effects.at, effects.cancel = "upload_start:before", join_and_cancel
            await talk.raw("create_batch", source=source)
        assert first.cancelled_caught
    assert sandbox.creates == 1
    assert orders[0]["state"] == "JOB_STATE_PENDING"


async def test_a_call_that_comes_to_the_end_of_its_own_time_is_not_a_cancelled_one(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    async with desk_of(settings, sandbox) as desk:
        order = Order(source=request_file(data))
        await desk.quote(order)
        placement = await desk.place_order(order, wait_seconds=0)
        await until(lambda: sandbox.creates == 1)
        await until(lambda: not desk.app.work.is_running(f"submit {placement.status.batch.id}"))
        assert (await desk.status(placement.status.batch.id)).batch.jobs[0].name
