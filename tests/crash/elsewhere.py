"""What is not where this process looks: a job in another key's project, a ledger that is not the one on the disk."""

from collections.abc import Iterator
from typing import Final

import msgspec

from crash import plans
from crash.driver import Life, Program
from crash.faults import Fault, ended, of, refused
from crash.ground import Ground, Plan
from crash.traps import Trap


def _with_another_key(life: Life) -> Life:
    return msgspec.structs.replace(life, env=life.env | {"GOOGLE_API_KEY": "test-key-do-not-show-2"})


def _foreign_key(when: str, program: Program, death: Trap | None = None) -> Fault:
    """The user orders and collects with another project's key what was begun with the right one."""

    def run(place: Ground) -> list[str]:
        problems = ended(place, place.life(death, program=program), code=-9 if death else 0)
        creates = place.service.creates
        for foreign in ("place", "watch"):
            problems += ended(place, _with_another_key(place.life(program=foreign)))
        if place.service.creates != creates:
            problems.append("another key paid for what stands already")
        if death is None:
            problems += ended(place, _with_another_key(place.life(program="place")), place.life(program="watch"))
        return problems

    return Fault(f"another project's key {when}", plans.SHARDS, run, service={"one_project_per_key": True})


def directory_replaced(step: str, plan: Plan = plans.SHARDS, nth: int = 1) -> Fault:
    """A copy takes the place of the state directory while a process is at work; the next process works on the copy."""

    def run(place: Ground) -> list[str]:
        life = place.life(Trap(step, nth, "replace"), tries=3)
        return refused(place, ("GEMINI_BATCH_HOME",), life)

    return Fault(f"directory replaced at {step}{of(plan)}", plan, run)


def ledger_emptied(program: Program, death: Trap | None = None, plan: Plan = plans.SHARDS) -> Fault:
    """The ledger loses everything between two processes; the batches' directories stay."""

    def run(place: Ground) -> list[str]:
        problems = ended(place, place.life(death, program=program), code=-9 if death else 0)
        for path in place.home.glob("ledger.sqlite3*"):
            path.unlink()
        return problems

    return Fault(f"ledger lost after {f'a kill at {death.step}' if death else program}{of(plan)}", plan, run)


def _faults() -> Iterator[Fault]:
    yield _foreign_key("after the order", "place")
    yield _foreign_key("when all is collected", "order")
    for step in ("create:before", "create:after", "ledger.add_attempt:after"):
        yield _foreign_key(f"after a kill at {step}", "order", Trap(step))
    for step in (
        "upload_finalize:after",
        "create:before",
        "create:after",
        "download:before",
        "ledger.add_attempt:after",
    ):
        yield directory_replaced(step)
    for program in ("place", "order"):
        yield ledger_emptied(program)
    for step in ("create:before", "create:after", "download:after", "ledger.add_attempt:after"):
        yield ledger_emptied("order", Trap(step))


ELSEWHERE: Final = tuple(_faults())
#: What a run of a part leaves out of it.
ELSEWHERE_MORE: Final = frozenset(
    {
        "another project's key when all is collected",
        "another project's key after a kill at ledger.add_attempt:after",
        "another project's key after a kill at create:before",
        "another project's key after a kill at create:after",
        "directory replaced at upload_finalize:after",
        "directory replaced at create:before",
        "directory replaced at create:after",
        "directory replaced at download:before",
        "directory replaced at ledger.add_attempt:after",
        "ledger lost after place",
        "ledger lost after a kill at create:before",
        "ledger lost after a kill at create:after",
        "ledger lost after a kill at download:after",
        "ledger lost after a kill at ledger.add_attempt:after",
    }
)
