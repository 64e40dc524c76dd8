"""Two processes that change one batch take turns: no paid job is lost, and nothing stands for an order that is gone."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import filelock
import pytest
from mcp_types import CallToolResult

from gemini_batch_mcp.batches import ending
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import ByTime, SandboxConfig
from gemini_batch_mcp.settings import Settings
from support.conversation import Conversation, converse, line, spoken, until, write_lines

pytestmark = pytest.mark.anyio

_HELD_SECONDS = 1.0


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Sandbox]:
    """A Gemini whose jobs and cancels take effect by themselves."""
    with Sandbox(tmp_path / "quick", SandboxConfig(pace=ByTime(0.2))) as service:
        yield service


@dataclass
class Meanwhile:
    """Two conversations on one state directory, an ended batch, and what a call of the first one came to."""

    one: Conversation
    other: Conversation
    batch: str
    source: str
    answers: list[CallToolResult] = field(default_factory=list)


@asynccontextmanager
async def _two(settings: Settings, service: Sandbox, data: Path) -> AsyncIterator[Meanwhile]:
    source = write_lines(data / "rows.jsonl", [line("a"), line("b", "hello [[sandbox:error:13]]")])
    async with converse(settings, service) as one, converse(settings, service) as other:
        batch = (await one.call("create_batch", source=source))["batch_id"]
        await one.call("check_status", batch=batch, wait_seconds=10)
        await one.call("get_results", batch=batch)
        yield Meanwhile(one, other, batch, source)


@asynccontextmanager
async def _while_held(
    place: Meanwhile, service: Sandbox, route: str, tool: str, **arguments: Any
) -> AsyncIterator[None]:
    """Let the first one call a tool; the block runs while its request of a route is held back."""

    async def call() -> None:
        place.answers.append(await place.one.raw(tool, **arguments))

    before = sum(request.route == route for request in service.requests)
    service.delay_next(route, _HELD_SECONDS)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await until(lambda: sum(request.route == route for request in service.requests) > before)
        yield


async def test_the_same_order_beside_a_delete_is_a_batch_of_its_own(
    settings: Settings, quick: Sandbox, data: Path
) -> None:
    async with _two(settings, quick, data) as place:
        async with _while_held(place, quick, "batches.delete", "delete_batch", batch=place.batch, confirm=True):
            anew = await place.other.call("create_batch", source=place.source)
        assert anew["batch_id"] != place.batch
        assert not anew["reused"]
        assert place.answers[0].structured_content is not None
        assert place.answers[0].structured_content["deleted"]["local"]
        listed = await place.other.call("list_jobs")
    assert [job["batch_id"] for job in listed["jobs"]] == [anew["batch_id"]]
    assert quick.creates == 2


async def test_a_retry_beside_a_delete_creates_nothing_that_is_lost(
    settings: Settings, quick: Sandbox, data: Path
) -> None:
    async with _two(settings, quick, data) as place:
        async with _while_held(place, quick, "batches.delete", "delete_batch", batch=place.batch, confirm=True):
            refused = await place.other.raw("retry_failed", batch=place.batch)
        assert refused.is_error
        assert "was deleted in the meantime" in spoken(refused)
        assert not place.answers[0].is_error
        # The lock and the directory of what is gone are gone, too.
        assert not list((settings.home / "batches").iterdir())
        assert not list((settings.home / "locks").iterdir())
    assert quick.creates == 1


async def test_a_delete_beside_a_retry_takes_the_new_job_with_it(
    settings: Settings, quick: Sandbox, data: Path
) -> None:
    async with (
        _two(settings, quick, data) as place,
        _while_held(place, quick, "batches.create", "retry_failed", batch=place.batch),
    ):
        deletion = await place.other.call("delete_batch", batch=place.batch, confirm=True)
    assert deletion["deleted"]["local"]
    assert len(deletion["deleted"]["jobs"]) == quick.creates == 2
    assert all(quick.state.job(record.name) is None for record in quick.create_records)


async def test_a_cancel_stops_what_costs_while_somebody_else_is_at_the_batch(
    talk: Conversation, sandbox: Sandbox, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # For longer a delete only waits.
    monkeypatch.setattr(ending, "_LOCK_SECONDS", 0.2)
    created = await talk.call("create_batch", source=write_lines(data / "rows.jsonl", [line("a")]))
    with filelock.FileLock(talk.settings.home / "locks" / f"{created['batch_id']}.lock"):
        await talk.call("cancel_batch", batch=created["batch_id"])
        refusal = await talk.refusal("delete_batch", batch=created["batch_id"], confirm=True)
    assert [request.route for request in sandbox.requests].count("batches.cancel") == 1
    assert "is being submitted, collected or changed by another process" in refusal
