"""A process that calls rows one by one, killed at each of its steps: no row is called again unless it was said lost."""

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from crash import plans
from crash.driver import Program
from crash.faults import small_disk, why_no_small_disk
from crash.ground import Bench, Ground
from crash.matrix import Case, Verdict, ground, in_parallel
from crash.traps import Trap
from gemini_batch_mcp.sandbox.app import Sandbox
from support.extent import WANTED, in_part, long

pytestmark = [pytest.mark.timeout(3600 if WANTED else 300), in_part]

_KILLED: Final = -9
WAYS: Final[tuple[Program, ...]] = ("order", "collect", "server")
#: The deaths of a run of a part: promised, called and not written down, ended.
PART: Final = (Trap("ledger.reserve:after"), Trap("call:after", 2), Trap("ledger.record_collected:before"))

#: What may befall one call on its way, by what it is called: before it had an effect, after it, or within its reply. By
#: 429 and 503 the flex tier turns calls away: of these it is taken that nothing was answered.
DISTURBANCES: Final[dict[str, Callable[[Sandbox, int], object]]] = {
    "429 before it was answered": lambda s, n: s.fail_next("generateContent", status=429, retry_after=0.02, skip=n),
    "503 before it was answered": lambda s, n: s.fail_next("generateContent", status=503, skip=n),
    "500 after it was answered": lambda s, n: s.fail_next("generateContent", status=500, when="after", skip=n),
    "504 after it was answered": lambda s, n: s.fail_next("generateContent", status=504, when="after", skip=n),
    "cut before it arrived": lambda s, n: s.cut_next("generateContent", when="before", skip=n),
    "reply lost": lambda s, n: s.cut_next("generateContent", when="after", skip=n),
    "reply cut in its body": lambda s, n: s.cut_next("generateContent", when="after", at_byte=40, skip=n),
    "reply short but well-formed": lambda s, n: s.shorten_next("generateContent", at_byte=40, skip=n),
    "reply a page of a portal": lambda s, n: s.page_next("generateContent", skip=n),
    "two after each other lost": lambda s, n: s.cut_next("generateContent", when="after", times=2, skip=n),
}
#: Steps of the calls at which a clock jumps, or the disk fills up.
CALL_STEPS: Final = ("call:before", "call:after", "ledger.update_job:before", "ledger.update_job:after")

Saved = dict[str, tuple[str, str]]


def _saved(place: Ground, path: str) -> Saved:
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    assert len(rows) == len(place.plan.rows)
    return {row["key"]: (row["status"], row["text"]) for row in rows}


def _calls(place: Ground) -> Counter[str]:
    keys = {row["text"]: row["key"] for row in place.plan.rows}
    texts = (record.request["contents"][0]["parts"][0]["text"] for record in place.service.call_records)
    return Counter(keys[text] for text in texts)


def _said_lost(place: Ground) -> Counter[str]:
    """How often each row was said to have lost its reply, in the journals of all attempts."""
    lost: Counter[str] = Counter()
    by_job = re.compile(r"calls-(\d+)")
    journals = sorted(place.home.glob("batches/*/calls-*.jsonl"), key=lambda path: int(by_job.findall(path.name)[0]))
    for attempt, journal in enumerate(journals, 1):
        keys = journal.with_name("keys.jsonl" if attempt == 1 else f"keys-{attempt}.jsonl")
        names = [json.loads(line) for line in keys.read_text(encoding="utf-8").splitlines()]
        for line in map(json.loads, journal.read_text(encoding="utf-8").splitlines()):
            lost[names[line["row"]]] += "lost" in line
    return lost


def _left(place: Ground) -> list[Path]:
    return [path for path in place.home.rglob("*") if path.is_file() and ".part" in path.name]


def _problems(place: Ground, life_saved: Saved, wanted: Saved) -> list[str]:
    calls, lost = _calls(place), _said_lost(place)
    problems = [
        f"{key} was called {count} times, and said to be lost {lost[key]} times"
        for key, count in calls.items()
        if count > 1 + lost[key]
    ]
    if life_saved != wanted:
        problems.append(f"rows are others: {set(life_saved.items()) ^ set(wanted.items())}")
    if _left(place):
        # What the product removes only when it is old enough must be gone once it is.
        place.age()
        place.live(place.life())
    left = _left(place)
    return problems + [f"left behind: {left}"] * bool(left)


@pytest.fixture(scope="module")
def undisturbed(benches: list[Bench]) -> tuple[list[str], Saved]:
    """The steps of a process that nothing befalls, and what it saves."""
    with ground(benches[0], plans.NOW) as place:
        life = place.life()
        assert place.live(life) == [0], place.last_words(life)
        saved = _saved(place, place.outcome(life).saved)
        assert not _problems(place, saved, saved)
        assert _calls(place).keys() == saved.keys()
        assert _said_lost(place) == Counter({"guest-77": 1})
        return place.trace(life), saved


@long
def test_a_process_killed_while_rows_are_called_calls_none_twice_that_was_not_said_lost(
    benches: list[Bench], undisturbed: tuple[list[str], Saved]
) -> None:
    steps, wanted = undisturbed
    seen = Counter(steps)
    points = [Trap(step, nth) for step, count in seen.items() for nth in range(1, count + 1)] if WANTED else list(PART)

    def run(bench: Bench, numbered: tuple[int, Trap]) -> Verdict:
        number, point = numbered
        case = Case(point, then=WAYS[number % len(WAYS)])
        with ground(bench, plans.NOW) as place:
            codes = place.live(place.life(point))
            life = place.life(program=case.then)
            if (ended := place.live(life)) != [0]:
                return Verdict(case.name, 0, 0, (f"ended with {ended}: {place.last_words(life)}",))
            saved = _saved(place, place.outcome(life).saved)
            return Verdict(
                case.name, 0, len(saved), tuple(_problems(place, saved, wanted)), was_tried=codes == [_KILLED]
            )

    verdicts = in_parallel(benches, run, list(enumerate(points)))
    failed = [f"{verdict.name}: {'; '.join(verdict.problems)}" for verdict in verdicts if verdict.problems]
    assert not failed, "\n".join([f"{len(failed)} of {len(verdicts)} cases:", *failed])
    assert sum(verdict.was_tried for verdict in verdicts) >= 0.9 * len(verdicts)


@dataclass(frozen=True)
class Disturbance:
    """What befalls a process that is not killed: at the service, or by a trap of its own."""

    name: str
    at_service: Callable[[Sandbox], object] | None = None
    trap: Trap | None = None


def _befall(befall: Callable[[Sandbox, int], object], n: int, service: Sandbox) -> object:
    return befall(service, n)


def _disturbances() -> list[Disturbance]:
    calls = len(plans.NOW.rows)
    at_service = [
        Disturbance(f"call {n + 1}: {name}", partial(_befall, befall, n))
        for name, befall in DISTURBANCES.items()
        for n in range(calls)
    ]
    clocks = [
        Disturbance(f"clock set back a day at {step} #{nth}", trap=Trap(step, nth, deed="back"))
        for step in CALL_STEPS
        for nth in range(1, calls + 1)
    ]
    if not WANTED:
        return [at_service[calls * kind + kind % calls] for kind in (5,)]
    return [*at_service, *clocks]


@long
def test_a_process_disturbed_while_rows_are_called_calls_none_twice_that_was_not_said_lost(
    benches: list[Bench], undisturbed: tuple[list[str], Saved]
) -> None:
    wanted = undisturbed[1]

    def run(bench: Bench, disturbed: Disturbance) -> Verdict:
        with ground(bench, plans.NOW) as place:
            if disturbed.at_service is not None:
                disturbed.at_service(place.service)
            codes = place.live(place.life(disturbed.trap))
            waiting = len(place.service.faults.waiting)
            place.service.faults.clear()
            life = place.life()
            if (ended := place.live(life)) != [0]:
                return Verdict(disturbed.name, 0, 0, (f"ended with {ended}: {place.last_words(life)}",))
            saved = _saved(place, place.outcome(life).saved)
            problems = [*_problems(place, saved, wanted), *(["it never happened"] if waiting else [])]
            problems += [f"the disturbed process ended with {codes}"] if codes != [0] else []
            return Verdict(disturbed.name, 0, len(saved), tuple(problems))

    verdicts = in_parallel(benches, run, _disturbances())
    failed = [f"{verdict.name}: {'; '.join(verdict.problems)}" for verdict in verdicts if verdict.problems]
    assert not failed, "\n".join([f"{len(failed)} of {len(verdicts)} cases:", *failed])


@pytest.mark.skipif(not WANTED, reason="fills a small disk; all of it in make matrix")
def test_a_disk_that_fills_up_while_rows_are_called_loses_none_of_them_unsaid(
    benches: list[Bench], undisturbed: tuple[list[str], Saved]
) -> None:
    if refusal := why_no_small_disk():
        pytest.skip(refusal)
    failed = []
    for step in CALL_STEPS:
        for nth in range(1, len(plans.NOW.rows) + 1, 3):
            with small_disk() as disk, ground(benches[0], plans.NOW, disk) as place:
                place.live(place.life(Trap(step, nth, deed="fill"), tries=3))
                place.filler.unlink(missing_ok=True)
                life = place.life()
                assert place.live(life) == [0], place.last_words(life)
                problems = _problems(place, _saved(place, place.outcome(life).saved), undisturbed[1])
                failed += [f"{step} #{nth}: {problem}" for problem in problems]
    assert not failed, "\n".join(failed)


@long
def test_several_processes_that_are_given_one_order_call_each_row_once(
    benches: list[Bench], undisturbed: tuple[list[str], Saved]
) -> None:
    with ground(benches[0], plans.NOW) as place:
        start = place.directory / "start"
        start.touch()
        lives = [place.life(starts_with=str(start)) for _ in range(3)]
        assert place.live(*lives) == [0] * len(lives), [place.last_words(life) for life in lives]
        for life in lives:
            assert not _problems(place, _saved(place, place.outcome(life).saved), undisturbed[1])
