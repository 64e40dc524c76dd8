"""Cases of the matrices: an undisturbed one to compare with, and others that are killed and brought to an end."""

import dataclasses
import queue
import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from crash.driver import Program
from crash.ground import Bench, Ending, Ground, Plan, bench
from crash.traps import Trap
from support.extent import WANTED

T = TypeVar("T")
R = TypeVar("R")

#: As many as the smallest machine has cores; a run of a part has its cores busy with other tests.
_BENCHES: Final = 2 if WANTED else 1
_KILLED: Final = -9


@dataclass(frozen=True)
class Baseline:
    """An undisturbed case: every step it took, in order, and what it left."""

    steps: tuple[str, ...]
    ending: Ending

    def points(self, *, first_only: bool = False) -> list[Trap]:
        """Return every place at which a process can die, or of each kind the first one."""
        seen: Counter[str] = Counter()
        points = []
        for step in self.steps:
            seen[step] += 1
            if seen[step] == 1 or not first_only:
                points.append(Trap(step, seen[step]))
        return points


@dataclass(frozen=True)
class Case:
    """A process that dies at a point, and what goes on after it.

    `before` are processes that live first: their programs, and where they die, None for those that come to their end.
    """

    point: Trap
    then: Program = "order"
    dying: Program = "order"
    before: tuple[tuple[Program, Trap | None], ...] = ()

    @property
    def name(self) -> str:
        """The case in words."""
        before = "".join([f"{program} killed at {trap.step}, then " for program, trap in self.before if trap])
        return f"{before}{self.dying} killed at {self.point.step} #{self.point.nth}, then {self.then}"


@dataclass(frozen=True)
class Verdict:
    """How one case went. `creates` and `rows` are what the service and the saved file hold at the end.

    `was_tried` is False when the process came to its end without ever reaching the point.
    """

    name: str
    creates: int
    rows: int
    problems: tuple[str, ...]
    was_tried: bool = True


def undisturbed(bench: Bench, plan: Plan) -> Baseline:
    """Live a scenario from its beginning to its end, with no failure that a user is told of."""
    (baseline,) = in_turn(bench, plan, ("order", None))
    assert not baseline.ending.outcome.failures, baseline.ending.outcome.failures
    return baseline


class Baselines:
    """Undisturbed cases by their plans, each lived when it is first asked for."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._found: dict[str, Baseline] = {}

    def __getitem__(self, plan: Plan) -> Baseline:
        if plan.name not in self._found:
            self._found[plan.name] = undisturbed(self._bench, plan)
        return self._found[plan.name]


def in_turn(bench: Bench, plan: Plan, *lives: tuple[Program, Trap | None]) -> list[Baseline]:
    """Live these programs one after the other; the last one has to end in a saved file. Returns the steps of each."""
    with ground(bench, plan) as place:
        lived = [place.life(trap, program=program) for program, trap in lives]
        for life in lived:
            codes = place.live(life)
            assert codes == [_KILLED if life.trap else 0], f"{codes} at {life.trap}: {place.last_words(life)}"
        ending = place.ending(lived[-1])
        assert not ending.problems, ending.problems
        return [Baseline(tuple(place.trace(life)), ending) for life in lived]


def killed(bench: Bench, plan: Plan, baseline: Baseline, case: Case) -> Verdict:
    """Kill a process at a point, let another go on from there, and compare what is left in the end."""
    with ground(bench, plan) as place:
        problems = []
        for program, trap in case.before:
            life = place.life(trap, program=program)
            codes = place.live(life)
            if codes != [_KILLED if trap else 0]:
                problems.append(f"a process before ended with {codes}: {place.last_words(life)}")
        life = place.life(case.point, program=case.dying)
        codes = place.live(life)
        if codes not in ([_KILLED], [0]):
            problems.append(f"the process ended with {codes} instead of being killed: {place.last_words(life)}")
        verdict = brought_to_an_end(place, baseline, case.name, problems, case.then)
        return dataclasses.replace(verdict, was_tried=codes != [0])


def killed_again_and_again(bench: Bench, plan: Plan, baseline: Baseline, steps: Sequence[int]) -> Verdict:
    """Kill one process after the other, each after so many steps, then let one finish."""
    with ground(bench, plan) as place:
        problems = []
        for count in steps:
            life = place.life(Trap("", count))
            codes = place.live(life)
            if codes not in ([_KILLED], [0]):
                problems.append(f"a process that was to be killed ended with {codes}: {place.last_words(life)}")
        return brought_to_an_end(place, baseline, f"killed after {', '.join(map(str, steps))} steps", problems)


@contextmanager
def ground(bench: Bench, plan: Plan, state: Path | None = None) -> Generator[Ground]:
    """Give a fresh ground for one case."""
    with tempfile.TemporaryDirectory() as directory:
        place = Ground(bench, Path(directory), plan, state=state)
        try:
            yield place
        finally:
            place.close()


def brought_to_an_end(
    place: Ground, baseline: Baseline, name: str, problems: Sequence[str] = (), program: Program = "order"
) -> Verdict:
    """Let one more process finish the case, and compare what it leaves with an undisturbed case."""
    life = place.life(program=program)
    codes = place.live(life)
    if codes != [0]:
        words = f"the process that goes on ended with {codes}: {place.last_words(life)}"
        return Verdict(name, place.service.creates, 0, (*problems, words))
    ending = place.ending(life)
    left = ending.files - baseline.ending.files
    if left:
        # What the product removes only when it is old enough must be gone once it is.
        place.age()
        place.live(place.life(program=program))
        left = place.files() - baseline.ending.files
    return Verdict(
        name, len(ending.creates), ending.rows, (*problems, *differences(ending, baseline.ending), *_left(left))
    )


def differences(ending: Ending, wanted: Ending) -> list[str]:
    """Return in what an ending is not as it should be."""
    problems = list(ending.problems)
    if ending.creates != wanted.creates:
        problems.append(f"creates are {ending.creates} instead of {wanted.creates}")
    if ending.outcome.summary != wanted.outcome.summary:
        problems.append(f"the summary is {ending.outcome.summary} instead of {wanted.outcome.summary}")
    if ending.sha256 != wanted.sha256:
        problems.append("the saved file has other bytes")
    if missing := wanted.files - ending.files:
        problems.append(f"files are missing: {sorted(missing)}")
    return problems


def _left(files: Iterable[str]) -> list[str]:
    return [f"left behind: {', '.join(sorted(files))}"] if files else []


def in_parallel(benches: Sequence[Bench], case: Callable[[Bench, T], R], inputs: Sequence[T]) -> list[R]:
    """Run the cases, one at a time on each bench; returns their results in the order of the inputs."""
    waiting: queue.SimpleQueue[tuple[int, T]] = queue.SimpleQueue()
    for item in enumerate(inputs):
        waiting.put(item)
    results: dict[int, R] = {}

    def work(mine: Bench) -> None:
        with suppress(queue.Empty):
            while True:
                index, item = waiting.get_nowait()
                results[index] = case(mine, item)

    with ThreadPoolExecutor(len(benches)) as threads:
        list(threads.map(work, benches))
    return [results[index] for index in range(len(inputs))]


@contextmanager
def several_benches() -> Generator[list[Bench]]:
    """Set up the benches."""
    with ExitStack() as stack:
        yield [stack.enter_context(bench()) for _ in range(_BENCHES)]
