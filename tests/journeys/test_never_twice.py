"""Whatever is done in whatever order, with whatever faults: one create for each reservation, no row ever lost."""

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gemini_batch_mcp.batches.desk import Desk
from gemini_batch_mcp.batches.opening import lazy_desk
from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.errors import BatchError
from gemini_batch_mcp.results.store import ResultTable
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import OnCommand, SandboxConfig
from gemini_batch_mcp.settings import Secret, Settings
from support.conversation import line, write_lines
from support.extent import in_part, tries

ORDERS = 3
ROWS = 6
_TAG = re.compile(r"\[[^\[\]]+\]$")


class Life(RuleBasedStateMachine):
    """Every step is a process of its own on one state directory; the service outlives them all."""

    @initialize(shard_rows=st.sampled_from([ROWS, 2]))
    def open(self, shard_rows: int) -> None:
        self._temporary = tempfile.TemporaryDirectory()
        place = Path(self._temporary.name)
        self.sandbox = Sandbox(place / "service", SandboxConfig(pace=OnCommand(), quota_retry_seconds=0))
        rows = [[line(f"k{row}", f"order {order} row {row} {_mark(row)}") for row in range(ROWS)] for order in range(3)]
        self.sources = [write_lines(place / f"o{order}.jsonl", rows[order]) for order in range(ORDERS)]
        self.settings = Settings(
            home=place / "home",
            files=place / "home" / "files",
            roots=(place,),
            working_directory=place,
            api_key=Secret("test", "GEMINI_API_KEY"),
            poll_seconds=0.001,
            reconcile_seconds=0.0,
            max_file_bytes=shard_rows * (max(map(len, rows[0])) + 1),
        )
        #: Keys with a good answer, by batch, as last seen.
        self.good: dict[str, frozenset[str]] = {}

    def teardown(self) -> None:
        if hasattr(self, "sandbox"):
            self.sandbox.close()
            self._temporary.cleanup()

    def _as_a_process(self, work: Callable[[Desk], Coroutine[Any, Any, None]]) -> None:
        async def run() -> None:
            async with lazy_desk(self.settings, self.sandbox.transport) as lazy:
                # What is refused is refused; the invariants tell whether that was all.
                with suppress(BatchError):
                    await work(await lazy.get())

        anyio.run(run)

    @rule(order=st.integers(0, ORDERS - 1))
    def place(self, order: int) -> None:
        async def work(desk: Desk) -> None:
            await desk.place_order(Order(source=self.sources[order]))

        self._as_a_process(work)

    @rule(order=st.integers(0, ORDERS - 1))
    def place_in_two_processes(self, order: int) -> None:
        async def place(desk: Desk) -> None:
            with suppress(BatchError):
                await desk.place_order(Order(source=self.sources[order]))

        async def run() -> None:
            async with (
                lazy_desk(self.settings, self.sandbox.transport) as one,
                lazy_desk(self.settings, self.sandbox.transport) as other,
                anyio.create_task_group() as group,
            ):
                group.start_soon(place, await one.get())
                group.start_soon(place, await other.get())

        anyio.run(run)

    @rule(pick=st.integers(0, 9))
    def retry(self, pick: int) -> None:
        async def work(desk: Desk) -> None:
            if batches := desk.app.ledger.batch_ids():
                await desk.retry(batches[pick % len(batches)], ())

        self._as_a_process(work)

    @rule(pick=st.integers(0, 9))
    def cancel(self, pick: int) -> None:
        async def work(desk: Desk) -> None:
            if batches := desk.app.ledger.batch_ids():
                await desk.cancel(batches[pick % len(batches)])

        self._as_a_process(work)

    @rule()
    def go_on(self) -> None:
        async def work(desk: Desk) -> None:
            await desk.collect()

        self._as_a_process(work)

    @rule(pick=st.integers(0, 9), state=st.sampled_from(["SUCCEEDED", "SUCCEEDED", "FAILED", "EXPIRED", "CANCELLED"]))
    def end_a_job(self, pick: int, state: str) -> None:
        running = [job.name for job in self.sandbox.state.unfinished_jobs()]
        if running:
            self.sandbox.finish(running[pick % len(running)], state)

    @rule(
        route=st.sampled_from(["batches.create", "files.start", "files.finalize", "batches.list", "files.download"]),
        when=st.sampled_from(["before", "after"]),
    )
    def cut_the_next(self, route: str, when: Any) -> None:
        self.sandbox.cut_next(route, when=when)

    @rule(status=st.sampled_from([400, 404, 429, 500, 503]), when=st.sampled_from(["before", "after"]))
    def fail_the_next_create(self, status: int, when: Any) -> None:
        self.sandbox.fail_next("batches.create", status=status, when=when)

    @invariant()
    def every_reservation_has_at_most_one_create(self) -> None:
        if hasattr(self, "sandbox"):
            tags = Counter(_TAG.search(record.display_name)[0] for record in self.sandbox.create_records)  # type: ignore[index]  # each of our creates carries its tag
            assert not {tag: times for tag, times in tags.items() if times > 1}

    @invariant()
    def no_good_answer_is_ever_lost(self) -> None:
        if not hasattr(self, "sandbox"):
            return

        for table in sorted((self.settings.home / "batches").glob("*/results.json")):
            # Read past the server: asking it would use up the faults that the next step is to meet.
            rows = ResultTable.open(table).page(view="rows", limit=200).rows
            assert len({row.key for row in rows}) == len(rows)
            good = frozenset(row.key for row in rows if row.status == "ok")
            assert self.good.get(table.parent.name, frozenset()) <= good
            self.good[table.parent.name] = good
        assert all((self.settings.home / "batches" / batch / "results.json").is_file() for batch in self.good)


def _mark(row: int) -> str:
    return "[[sandbox:error:13]]" if row == 1 else ""


TestLife = in_part(Life.TestCase)
TestLife.settings = settings(max_examples=tries(60, 3), stateful_step_count=14, suppress_health_check=list(HealthCheck))
