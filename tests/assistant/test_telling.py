"""Progress on the wire: what a call is doing, in numbers that only rise, for whoever asked to be told."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.client import Client
from mcp.client.context import ClientRequestContext
from mcp_types import ElicitRequestParams, ElicitResult

from gemini_batch_mcp.assistant import telling
from gemini_batch_mcp.assistant.server import build_server
from gemini_batch_mcp.assistant.telling import Rising
from gemini_batch_mcp.batches.gauge import Doing, Progress
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import Conversation, Person, converse, created, request_file, sharded
from support.extent import IS_FULL, in_part, tries

pytestmark = [pytest.mark.anyio, pytest.mark.both_eras]


@dataclass
class Told:
    """What a client was told, and when."""

    talk: Conversation
    on: Callable[[str], None] = lambda message: None
    may_be_two: bool = False
    numbers: list[float] = field(default_factory=list[float])
    messages: list[str] = field(default_factory=list[str])
    times: list[float] = field(default_factory=list[float])

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        assert total is None or progress <= total
        assert message
        self.numbers.append(progress)
        self.messages.append(message)
        self.times.append(anyio.current_time())
        self.on(message)

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        result = await self.talk.client.call_tool(tool, arguments, progress_callback=self)
        assert not result.is_error, result.content
        rises = self.numbers == sorted(set(self.numbers))
        # In the newer era a question is answered by a second request, which has numbers of its own.
        assert rises or self.may_be_two, self.numbers
        return dict(result.structured_content or {})


async def test_every_stage_of_a_batch_is_told_with_its_counts(
    settings: Settings, sandbox: Sandbox, data: Path, era: str
) -> None:
    settings, source = sharded(settings, data)
    size = f"{Path(source).stat().st_size:,}"
    async with converse(settings, sandbox, era) as talk:
        ordered = Told(talk)
        batch = (await ordered.call("create_batch", source=source))["batch_id"]
        assert "Checking: 30 lines" in ordered.messages
        assert f"Uploading: {size} of {size} bytes (job 3 of 3)" in ordered.messages

        def let_end(message: str) -> None:
            if "0 of 30 rows (JOB_STATE_PENDING)" in message:
                for name in created(sandbox):
                    sandbox.finish(name)

        waited = Told(talk, let_end)
        assert (await waited.call("check_status", batch=batch, wait_seconds=40))["done"]
        assert waited.messages[0] == "Waiting for Gemini: 0 of 30 rows (JOB_STATE_PENDING)"
        assert waited.messages[-1] == "Ended at Gemini: 30 of 30 rows (JOB_STATE_SUCCEEDED)"

        collected = Told(talk)
        await collected.call("get_results", batch=batch)
        downloads = [message for message in collected.messages if message.startswith("Downloading answers: ")]
        assert len({message.partition("(")[2] for message in downloads}) == 3
        assert all("bytes (batches/" in message for message in downloads)
        assert collected.messages[-1] == "Collecting: 30 of 30 rows"


async def test_whoever_did_not_ask_is_told_nothing(settings: Settings, sandbox: Sandbox, data: Path, era: str) -> None:
    heard: list[object] = []

    async def hear(message: object) -> None:
        heard.append(message)

    server = build_server(settings, transport=sandbox.transport)
    async with Client(server, mode=era, message_handler=hear) as client:
        assert not (await client.call_tool("create_batch", {"source": request_file(data)})).is_error
    assert not [message for message in heard if "rogress" in type(message).__name__]


class Reader(Person):
    """A user who reads until their host has shown that it is their turn."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = anyio.Event()

    async def __call__(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        with anyio.fail_after(30):
            await self.turn.wait()
        return await super().__call__(context, params)


async def test_an_open_question_is_told(settings: Settings, sandbox: Sandbox, data: Path, era: str) -> None:
    reader = Reader()

    def see(message: str) -> None:
        if message == "Waiting for the user's answer":
            reader.turn.set()

    async with converse(replace(settings, confirm_above_usd=0.0), sandbox, era, reader) as talk:
        await Told(talk, see, may_be_two=era != "legacy").call("create_batch", source=request_file(data))
    assert len(reader.questions) == 1
    assert sandbox.creates == 1


@in_part
async def test_a_call_in_which_nothing_happens_is_heard_of_every_ten_seconds(
    settings: Settings, sandbox: Sandbox, data: Path, era: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a run of a part, what is heard every five seconds is heard every half of a second."""
    if not IS_FULL:
        monkeypatch.setattr(telling, "_SILENT_SECONDS", 0.5)
    async with converse(replace(settings, poll_seconds=5.0), sandbox, era) as talk:
        batch = (await talk.call("create_batch", source=request_file(data)))["batch_id"]
        told, began = Told(talk), anyio.current_time()
        await told.call("check_status", batch=batch, wait_seconds=tries(21, 3))
        ends = [*told.times, anyio.current_time()]
    assert len(told.times) >= 2
    assert max(later - sooner for sooner, later in zip([began, *ends], ends, strict=False)) <= 10.0


READINGS = st.builds(
    Progress,
    st.sampled_from(Doing),
    st.integers(0, 2**40),
    st.none() | st.integers(0, 2**40),
    part=st.integers(1, 3),
)


@given(st.lists(READINGS | st.none(), min_size=1))
def test_the_numbers_rise_whatever_the_stages_do(readings: list[Progress | None]) -> None:
    numbers, last, reading = Rising(), -math.inf, Progress(Doing.STARTING)
    for following in readings:
        # None: the same once more.
        reading = following or reading
        progress, total = numbers.next(reading)
        assert last < progress < last + 2 + reading.done or last == -math.inf
        assert total is None or progress <= total
        last = progress
