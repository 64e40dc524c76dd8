"""Answers that are late or come short: an output after the end, bodies that end early, pages in their place.

Each through tools, through `gemini-batch-mcp collect`, through a server left to itself, and through two processes.
"""

from collections.abc import Callable, Iterator
from typing import Final

from crash import plans
from crash.driver import Program
from crash.faults import Fault, ended, refused
from crash.ground import Ground, Plan
from gemini_batch_mcp.sandbox.app import Sandbox

_HOUR: Final = 3600.0
_WAYS: Final[dict[str, tuple[Program, ...]]] = {
    "tools": ("order",),
    "collect": ("collect",),
    "a server": ("server",),
    "two processes": ("order", "server"),
}
#: What the scenario's rows become at first.
_JOBS: Final = 2


def _late_output(name: str, plan: Plan, waits: tuple[float, ...], programs: tuple[Program, ...], way: str) -> Fault:
    """An output that is shown so long after the end: `waits` are what passes between two visits of the user.

    The rows that failed are sent again in a second attempt, which is as late as the first one; the user, who would send
    them a third time after a day, does not come again before they are there.
    """
    lag_seconds = sum(waits)

    def visit(place: Ground, words: str) -> list[str]:
        return refused(place, (words,), *(place.life(program=program, tries=3) for program in programs))

    def run(place: Ground) -> list[str]:
        problems, passed_seconds = [], 0.0
        for seconds in waits:
            problems += visit(place, "not there yet" if passed_seconds < 24 * _HOUR else "still not there")
            place.pass_seconds(seconds)
            passed_seconds += seconds
        problems += visit(place, "not there yet")
        place.pass_seconds(lag_seconds)
        return problems

    return Fault(f"{name}, through {way}", plan, run, service={"output_lag_seconds": lag_seconds})


def _late_body(name: str, disturb: Callable[[Sandbox], object], programs: tuple[Program, ...], way: str) -> Fault:
    def run(place: Ground) -> list[str]:
        disturb(place.service)
        problems = ended(place, *(place.life(program=program) for program in programs))
        if waiting := place.service.faults.waiting:
            problems.append(f"never happened: {[fault.route for fault in waiting]}")
        place.service.faults.clear()
        return problems

    return Fault(f"{name}, through {way}", plans.SHARDS, run)


def _faults() -> Iterator[Fault]:
    for way, programs in _WAYS.items():
        yield _late_output("output 6 s after the end", plans.SHARDS, (6.0,), programs, way)
        yield _late_output("output 10 min after the end", plans.SHARDS, (600.0,), programs, way)
        yield _late_output("output 25 h after the end", plans.SHARDS, (24.5 * _HOUR, 0.5 * _HOUR), programs, way)
        yield _late_output("inlined answers 10 min after the end", plans.INLINE, (600.0,), programs, way)
        for name, disturb in _BODIES.items():
            yield _late_body(name, disturb, programs, way)


_BODIES: Final[dict[str, Callable[[Sandbox], object]]] = {
    "download short in good form, at a line": lambda s: s.shorten_next("files.download", at_line=40),
    "download short in good form, inside a line": lambda s: s.shorten_next(
        "files.download", at_line=40, at_byte=30, times=2 * _JOBS
    ),
    "download short in good form, inside the first line": lambda s: s.shorten_next(
        "files.download", at_byte=30, times=2 * _JOBS
    ),
    "a page in place of the answers": lambda s: s.page_next("files.download", times=2 * _JOBS),
    "an empty body": lambda s: s.shorten_next("files.download", times=2 * _JOBS),
    "result file not there right after the end": lambda s: s.fail_next("files.download", status=404, times=2 * _JOBS),
}
LATE: Final = tuple(_faults())
#: What a run of a part tries of it: what is late, and what comes short.
LATE_PART: Final = frozenset(
    {
        "inlined answers 10 min after the end, through collect",
        "download short in good form, inside a line, through two processes",
    }
)
