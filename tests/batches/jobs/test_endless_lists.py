"""Gemini's list of jobs that leads in a circle, or never ends: every call ends, and so do the cursors."""

from contextlib import suppress
from itertools import count
from pathlib import Path

import httpx2
import pytest

from gemini_batch_mcp.batches.desk import Desk
from gemini_batch_mcp.batches.opening import lazy_desk
from gemini_batch_mcp.domain import JobFilter, Order
from gemini_batch_mcp.errors import BatchError, UnknownBatch
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import request_file
from support.extent import IS_FULL, in_part

pytestmark = pytest.mark.anyio

#: How many pages the circle has; 0 for pages that are new for ever.
CIRCLES = (1, 3, 17, 0)
JOBS_A_PAGE = 3


class Endless(httpx2.AsyncBaseTransport):
    """A Gemini on the sandbox whose list of jobs goes on for ever."""

    def __init__(self, sandbox: Sandbox, circle: int) -> None:
        self._inner = sandbox.transport()
        self._circle = circle
        self.pages = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method != "GET" or not request.url.path.endswith("/batches"):
            return await self._inner.handle_async_request(request)
        self.pages += 1
        page = int(request.url.params.get("pageToken", "0"))
        jobs = [
            {"name": f"batches/p{page}j{number}", "metadata": {"displayName": "x", "state": "BATCH_STATE_RUNNING"}}
            for number in range(JOBS_A_PAGE)
        ]
        following = page % self._circle + 1 if self._circle else page + 1
        return httpx2.Response(200, json={"operations": jobs, "nextPageToken": str(following)})

    async def aclose(self) -> None:
        await self._inner.aclose()


async def cursors_until_the_end(desk: Desk, limit: int, search: str) -> tuple[int, str]:
    cursor = ""
    for calls in count(1):
        listed = await desk.list_jobs(JobFilter(search=search), limit=limit, cursor=cursor)
        if not (cursor := listed.next_cursor):
            return calls, listed.note
    raise AssertionError


@in_part
@pytest.mark.parametrize("circle", CIRCLES if IS_FULL else CIRCLES[:-1])
async def test_the_cursors_of_a_list_that_goes_in_circles_end(
    settings: Settings, sandbox: Sandbox, circle: int
) -> None:
    service = Endless(sandbox, circle)
    async with lazy_desk(settings, lambda: service) as lazy:
        desk = await lazy.get()
        limit = 2 if circle else 1000
        calls, note = await cursors_until_the_end(desk, limit, "" if circle else "nothing like it")

    assert "does not end" in note
    if circle:
        # Each page is read again for every call that stops in it.
        assert calls <= JOBS_A_PAGE * (3 * circle + 2)
    else:
        assert (service.pages, calls) == (2_000, 100)


@pytest.mark.parametrize("circle", CIRCLES)
async def test_a_name_that_is_in_no_page_is_looked_for_in_each_page_once(
    settings: Settings, sandbox: Sandbox, circle: int
) -> None:
    service = Endless(sandbox, circle)
    async with lazy_desk(settings, lambda: service) as lazy:
        with pytest.raises(UnknownBatch):
            await (await lazy.get()).status("nobody")

    assert service.pages == {1: 2, 3: 4, 17: 18, 0: 20}[circle]


async def test_a_list_in_a_circle_proves_no_absence_and_costs_a_lost_create_no_thousand_requests(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    """The reply to the create is lost; whether the job exists, such a list cannot say: nothing is created again."""
    sandbox.cut_next("batches.create")
    service = Endless(sandbox, 1)
    async with lazy_desk(settings, lambda: service) as lazy:
        desk = await lazy.get()
        for _ in range(2):
            with suppress(BatchError):
                await desk.place_order(Order(source=request_file(data)))
    assert sandbox.creates == 1
    assert service.pages < 50
