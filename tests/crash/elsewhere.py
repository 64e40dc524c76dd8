"""What is not where this process looks: a job in another key's project."""

from collections.abc import Iterator
from typing import Final

import msgspec

from crash import plans
from crash.driver import Life, Program
from crash.faults import Fault, ended
from crash.ground import Ground
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


def _faults() -> Iterator[Fault]:
    yield _foreign_key("after the order", "place")
    yield _foreign_key("when all is collected", "order")
    for step in ("create:before", "create:after", "ledger.add_attempt:after"):
        yield _foreign_key(f"after a kill at {step}", "order", Trap(step))


ELSEWHERE: Final = tuple(_faults())
#: What a run of a part leaves out of it.
ELSEWHERE_MORE: Final = frozenset(
    {"another project's key when all is collected", "another project's key after a kill at create:before"}
)
