"""Every fault of the fault matrix."""

from collections.abc import Callable
from typing import Final

from crash import plans
from crash.elsewhere import ELSEWHERE, ELSEWHERE_MORE, directory_replaced, ledger_emptied
from crash.faults import (
    Fault,
    absent_behind_a_page,
    at_service,
    clock_back_after,
    clock_back_at,
    file_limit,
    full_disk,
    present_behind_a_page,
    race,
    read_only_after,
    read_only_from_the_start,
)
from crash.late import LATE, LATE_PART
from crash.traps import Trap
from gemini_batch_mcp.sandbox.app import Sandbox

#: Routes that a storm of refusals blows over, and after how many requests.
_STORMY: Final = ("files.start", "files.finalize", "batches.create", "batches.get", "files.download")


def _storm(service: Sandbox) -> None:
    for route in _STORMY:
        service.fail_next(route, status=429, retry_after=0.02, times=9)


def _cut_download(at_byte: int) -> Fault:
    def disturb(service: Sandbox) -> None:
        service.cut_next("files.download", when="after", at_byte=at_byte)

    return at_service(f"download cut at byte {at_byte:,}", disturb)


def _lost_twice(service: Sandbox) -> None:
    service.cut_next("batches.create", when="after", times=2)


def _refused_after_effect(status: int) -> Fault:
    return at_service(
        f"{status} after a create took effect", lambda s: s.fail_next("batches.create", status=status, when="after")
    )


def _second(name: str, disturb: Callable[[Sandbox], object]) -> Fault:
    """A fault that the second batch meets, for which rows are taken over: the first has answered them."""
    return at_service(f"{name}: {plans.REUSING.name}", disturb, plans.REUSING)


#: Where rows of the order are not sent. The first create is that of the batch that has answered them.
REUSING: Final[tuple[Fault, ...]] = (
    full_disk("file.rename home/batches/<batch>/taken.jsonl", plans.REUSING),
    full_disk("file.open home/staged/*/sent.jsonl", plans.REUSING),
    full_disk("file.rename home/batches/<batch>/alike.parquet", plans.REUSING),
    *(
        full_disk(step, plans.REUSING, nth=2)
        for step in ("ledger.reserve:before", "ledger.plan:before", "create:after", "download:after")
    ),
    *(file_limit(size, plans.REUSING) for size in (4_000, 20_000)),
    _second("reply to a create lost", lambda s: s.cut_next("batches.create", when="after", skip=1)),
    _second("reply to a finalize lost", lambda s: s.cut_next("files.finalize", when="after", skip=1)),
    _second("create cut before it arrived", lambda s: s.cut_next("batches.create", when="before", skip=1)),
    _second(
        "500 after a create took effect", lambda s: s.fail_next("batches.create", status=500, when="after", skip=1)
    ),
    _second("reply to a retry's create lost", lambda s: s.cut_next("batches.create", when="after", skip=2)),
    _second("download cut", lambda s: s.cut_next("files.download", when="after", at_byte=9_000, skip=1)),
    _second("download short but well-formed", lambda s: s.shorten_next("files.download", at_byte=9_000, skip=1)),
    _second("storm of 429 over every route", _storm),
    *(clock_back_at(step, plans.REUSING, nth=2) for step in ("ledger.reserve:after", "create:before", "create:after")),
    *(clock_back_after(step, plans.REUSING, nth=2) for step in ("ledger.reserve:after", "create:after")),
    *(directory_replaced(step, plans.REUSING, nth=2) for step in ("ledger.reserve:after", "create:before")),
    read_only_after("order", Trap("ledger.reserve:after", 2), plans.REUSING),
    *(
        ledger_emptied("order", death, plans.REUSING)
        for death in (None, *(Trap(step, 2) for step in ("create:before", "create:after", "download:after")))
    ),
    race(2, plans.REUSING),
    race(5, plans.REUSING),
)

FAULTS: Final[tuple[Fault, ...]] = (
    at_service("reply to a create lost", lambda s: s.cut_next("batches.create", when="after")),
    at_service("replies to two creates lost", _lost_twice),
    at_service("reply to a create cut in its body", lambda s: s.cut_next("batches.create", when="after", at_byte=40)),
    at_service("reply to a retry's create lost", lambda s: s.cut_next("batches.create", when="after", skip=2)),
    at_service("reply to an inline create lost", lambda s: s.cut_next("batches.create", when="after"), plans.INLINE),
    at_service("500 after a create took effect", lambda s: s.fail_next("batches.create", status=500, when="after")),
    *(_refused_after_effect(status) for status in (429, 400)),
    at_service("503 before a create took effect", lambda s: s.fail_next("batches.create", status=503)),
    at_service("create cut before it arrived", lambda s: s.cut_next("batches.create", when="before")),
    at_service("reply to the start of an upload lost", lambda s: s.cut_next("files.start", when="after")),
    at_service(
        "upload cut in the middle of a chunk", lambda s: s.cut_next("files.finalize", at_byte=5000, when="before")
    ),
    at_service(
        "upload cut in the middle of the first of two chunks",
        lambda s: s.cut_next("files.chunk", at_byte=3_000_000, when="before"),
        plans.LARGE,
    ),
    at_service("reply to a chunk lost", lambda s: s.cut_next("files.chunk", when="after"), plans.LARGE),
    at_service("reply to a finalize lost", lambda s: s.cut_next("files.finalize", when="after")),
    at_service("500 after a finalize took effect", lambda s: s.fail_next("files.finalize", status=500, when="after")),
    *(_cut_download(at_byte) for at_byte in (0, 1, 10_000)),
    at_service("download cut three times", lambda s: s.cut_next("files.download", when="after", at_byte=9000, times=3)),
    at_service("download short but well-formed", lambda s: s.shorten_next("files.download", at_byte=10_000)),
    at_service("storm of 429 over every route", _storm),
    at_service("storm of 503 over reads", lambda s: s.fail_next("batches.get", status=503, times=9)),
    absent_behind_a_page(),
    present_behind_a_page(),
    *(clock_back_at(step) for step in ("ledger.reserve:after", "create:before", "create:after", "download:before")),
    *(
        clock_back_after(step)
        for step in ("ledger.reserve:after", "create:after", "get:after", "ledger.add_attempt:after")
    ),
    *(
        full_disk(step)
        for step in (
            "ledger.reserve:before",
            "ledger.plan:before",
            "ledger.move_job:before",
            "ledger.update_job:before",
            "create:after",
            "download:before",
            "download:after",
            "file.rename home/batches/<batch>/results.json",
            "ledger.add_attempt:before",
        )
    ),
    *(file_limit(size) for size in (4_000, 20_000, 60_000)),
    read_only_from_the_start(),
    read_only_after("place"),
    read_only_after("place", Trap("ledger.reserve:after")),
    read_only_after("place", Trap("create:after")),
    race(2, plans.SHARDS),
    race(5, plans.SHARDS),
    race(5, plans.INLINE),
    race(5, plans.QUEUED),
    *LATE,
    *ELSEWHERE,
)

#: Faults of one kind at other places, which a run of a part leaves to the complete one.
_MORE_OF_A_KIND: Final = {
    *ELSEWHERE_MORE,
    *(
        f"clock set back a day at {step}"
        for step in ("ledger.reserve:after", "create:before", "create:after", "download:before")
    ),
    *(
        f"killed at {step}, then the clock set back a day"
        for step in ("ledger.reserve:after", "create:after", "get:after", "ledger.add_attempt:after")
    ),
    *(
        f"disk full from {step}"
        for step in (
            "ledger.plan:before",
            "ledger.move_job:before",
            "ledger.update_job:before",
            "create:after",
            "download:before",
            "download:after",
            "file.rename home/batches/<batch>/results.json",
            "ledger.add_attempt:before",
        )
    ),
    "no file larger than 4,000 bytes",
    "no file larger than 20,000 bytes",
    "no file larger than 60,000 bytes",
    "download cut at byte 0",
    "download cut at byte 1",
    "download cut at byte 10,000",
    "reply to a retry's create lost",
    "reply to an inline create lost",
    "replies to two creates lost",
    "create cut before it arrived",
    "killed after a create, and the page of the list that holds it fails",
    "reply to the start of an upload lost",
    "reply to a chunk lost",
    "reply to a finalize lost",
    "500 after a create took effect",
    "400 after a create took effect",
    "429 after a create took effect",
    "503 before a create took effect",
    "500 after a finalize took effect",
    "reply to a create cut in its body",
    "upload cut in the middle of the first of two chunks",
    "download cut three times",
    "storm of 429 over every route",
    "storm of 503 over reads",
    "state directory read-only from the start",
    "5 processes race on one order: jobs that wait for each other's quota",
    "state directory read-only after a kill at create:after",
    "2 processes race on one order: two jobs from one file",
    "5 processes race on one order: one job within the call",
    "state directory read-only after a kill at ledger.reserve:after",
}
PART: Final = tuple(
    fault for fault in FAULTS if fault.name not in _MORE_OF_A_KIND and (fault not in LATE or fault.name in LATE_PART)
)
