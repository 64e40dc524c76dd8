"""A process killed at each of its steps: another one goes on, and nothing is paid twice, lost, torn or left behind."""

import random
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, get_args

import pytest

from crash import plans
from crash.driver import Program
from crash.ground import Bench, Plan
from crash.matrix import (
    Baseline,
    Baselines,
    Case,
    Verdict,
    in_parallel,
    in_turn,
    killed,
    killed_again_and_again,
)
from crash.report import Tally, missing_and_stale, table, write_section
from crash.traps import Trap
from support.extent import IS_FULL, IS_LONG, WANTED, in_part, long, tries

pytestmark = [pytest.mark.timeout(3600 if WANTED else 900), in_part]

#: How a batch is gone on with after a kill.
WAYS: Final[tuple[Program, ...]] = ("order", "collect", "server")
#: Scenarios beside the main one, which is killed whenever it reaches a step.
OTHER_PLANS: Final = (plans.READY, plans.QUEUED, plans.TABLE, plans.INLINE)
Lives = tuple[tuple[Program, Trap | None], ...]
Work = tuple[Plan, Baseline, Case]


@dataclass(frozen=True)
class Episode:
    """A process that dies after others have lived; `only_new`: at steps that no undisturbed scenario takes."""

    plan: Plan
    before: Lives
    dying: Program = "order"
    only_new: bool = True


EPISODES: Final = (
    # The server ended after the order was given, and cron collects.
    Episode(plans.SHARDS, (("place", None),), dying="watch", only_new=False),
    # A create may have left, and did or did not arrive.
    Episode(plans.SHARDS, (("order", Trap("create:before")),)),
    Episode(plans.SHARDS, (("order", Trap("create:after", 2)),)),
    Episode(plans.SHARDS, (("order", Trap("create:before", 3)),)),
    Episode(plans.READY, (("order", Trap("create:before")),)),
    # The upload takes several chunks.
    Episode(plans.LARGE, ()),
)
#: Steps that are reached in this share of the runs at least: background work may come in another order.
REACHED: Final = 0.9

#: The steps that a run of a part takes up.
FEWEST: Final = re.compile(r"create:before|download:after|file\.rename home/staged/\*/facts\.json")
#: Those of `make long`, of each kind some: an effect on the network once it is there, a promise of
#: the ledger, a file that takes its name, and a create that may be on its way.
PART: Final = re.compile(
    r"create:before|(create|download|ledger\.(reserve|add_attempt)):after"
    r"|file\.rename home/(batches/<batch>/results-\*|staged/\*/facts\.json)"
)
#: Where what was left out of an order is written, moved beside the batch, and where it must be by.
SKIPPING_ALL: Final = re.compile(
    r".*(skipped|facts\.json|ledger\.(reserve|plan|update_batch)|create:|record_collected).*"
)
#: Of these, that of a run of a part: moved and not yet in the ledger.
SKIPPING_PART: Final = re.compile(r"file\.rename home/batches/<batch>/skipped\.jsonl")
#: Where it is written, linked and agreed to which rows are not sent, and whose answers they get.
REUSING_ALL: Final = re.compile(
    r".*(rows\.jsonl|sent|first\.jsonl|alike|chosen|taken|sources|identities|facts\.json|ledger\.(reserve|plan|update_batch|move_job)|create:|"
    r"record_collected).*"
)
#: Of these, that of a run of a part: fixed and not yet reserved.
REUSING_PART: Final = re.compile(r"file\.rename home/batches/<batch>/taken\.jsonl")


@pytest.fixture(scope="module")
def further(benches: list[Bench], baselines: Baselines) -> list[Work]:
    """Deaths in the episodes, which a run of a part leaves out."""
    if not WANTED:
        return []
    usual = {step for plan in (plans.SHARDS, *OTHER_PLANS) for step in baselines[plan].steps}

    def find(place: Bench, begun: tuple[Episode, Baseline]) -> list[Work]:
        episode, baseline = begun
        lives = (*episode.before, (episode.dying, None))
        to_the_end = () if episode.dying == "order" else (("order", None),)
        lived = in_turn(place, episode.plan, *lives, *to_the_end)[len(episode.before)]
        return [
            (episode.plan, baseline, Case(point, dying=episode.dying, before=episode.before))
            for point in lived.points()
            if not episode.only_new or point.step not in usual
        ]

    episodes = [(episode, baselines[episode.plan]) for episode in EPISODES]
    return [work for found in in_parallel(benches, find, episodes) for work in found]


def test_a_process_killed_at_any_step_costs_nothing_and_loses_nothing(
    benches: list[Bench], baselines: Baselines, further: list[Work]
) -> None:
    work = [*_complete(baselines), *further] if WANTED else list(_representative(baselines))
    if WANTED and not IS_FULL:
        work = [(plan, baseline, case) for plan, baseline, case in work if WANTED in case.point.step]
    else:
        assert len({(plan.name, case.point) for plan, _, case in work}) >= (7 if IS_LONG else 3)

    def run(bench: Bench, item: Work) -> Verdict:
        plan, baseline, case = item
        return killed(bench, plan, baseline, case)

    verdicts = in_parallel(benches, run, work)
    if IS_FULL:
        write_section("kills", table("killed at", _tallies(work, verdicts)))
    failed = [f"{verdict.name}: {'; '.join(verdict.problems)}" for verdict in verdicts if verdict.problems]
    assert not failed, "\n".join([f"{len(failed)} of {len(verdicts)} cases:", *failed])
    assert sum(verdict.was_tried for verdict in verdicts) >= REACHED * len(verdicts)


@pytest.mark.parametrize(
    ("plan", "every", "some"),
    [(plans.SKIPPING, SKIPPING_ALL, SKIPPING_PART), (plans.REUSING, REUSING_ALL, REUSING_PART)],
    ids=["left out", "reused"],
)
@long
def test_rows_that_are_not_sent_survive_a_process_that_is_killed(
    benches: list[Bench], baselines: Baselines, plan: Plan, every: re.Pattern[str], some: re.Pattern[str]
) -> None:
    baseline = baselines[plan]
    wanted = every if WANTED else some
    points = [point for point in baseline.points(first_only=True) if IS_FULL or wanted.fullmatch(point.step)]
    assert points, [point.step for point in baseline.points(first_only=True)]

    def run(bench: Bench, point: Trap) -> Verdict:
        return killed(bench, plan, baseline, Case(point, then="order"))

    verdicts = in_parallel(benches, run, points)
    failed = [f"{verdict.name}: {'; '.join(verdict.problems)}" for verdict in verdicts if verdict.problems]
    assert not failed, "\n".join(failed)
    assert all(verdict.was_tried for verdict in verdicts)


@pytest.mark.parametrize("seed", range(tries(40, 1)))
@long
def test_processes_that_die_one_after_the_other_get_there_all_the_same(
    benches: list[Bench], baselines: Baselines, seed: int
) -> None:
    chance = random.Random(seed)
    baseline = baselines[plans.SHARDS]
    steps = [chance.randrange(1, len(baseline.steps)) for _ in range(chance.randrange(2, 7))]
    verdict = killed_again_and_again(benches[0], plans.SHARDS, baseline, steps)
    assert verdict.problems == (), verdict.name


def test_the_table_names_every_step_at_which_a_process_can_die(baselines: Baselines, further: list[Work]) -> None:
    names = {step for plan in (plans.SHARDS, *OTHER_PLANS[: None if WANTED else 0]) for step in baselines[plan].steps}
    names |= {case.point.step for _, _, case in further}
    missing, stale = missing_and_stale("kills", names)
    # A run of a part has not been through all that a process can die in.
    stale = stale if WANTED else []
    assert not missing and not stale, f"Run make matrix. Not in tests/README.md: {missing}; only there: {stale}."


def test_every_way_of_going_on_is_one_that_the_driver_knows() -> None:
    assert set(WAYS) <= set(get_args(Program))


def _representative(baselines: Baselines) -> Iterable[Work]:
    """Each kind of step that is in the part, once; the ways take turns."""
    baseline = baselines[plans.SHARDS]
    points = [
        point for point in baseline.points(first_only=True) if (PART if IS_LONG else FEWEST).fullmatch(point.step)
    ]
    for number, point in enumerate(points):
        yield plans.SHARDS, baseline, Case(point, then=WAYS[number % len(WAYS)])


def _complete(baselines: Baselines) -> Iterable[Work]:
    """The main scenario at every step each time it is reached; it in the other ways, and the others, at every kind."""
    main, *other_ways = WAYS
    baseline = baselines[plans.SHARDS]
    for point in baseline.points():
        yield plans.SHARDS, baseline, Case(point, then=main)
    for way in other_ways:
        for point in baseline.points(first_only=True):
            yield plans.SHARDS, baseline, Case(point, then=way)
    for plan in OTHER_PLANS:
        for point in baselines[plan].points(first_only=True):
            yield plan, baselines[plan], Case(point, then=main)


def _tallies(work: list[Work], verdicts: list[Verdict]) -> dict[str, Tally]:
    tallies: dict[str, Tally] = defaultdict(Tally)
    for (_, baseline, case), verdict in zip(work, verdicts, strict=True):
        if verdict.was_tried:
            tallies[case.point.step].add(
                survived=not verdict.problems,
                creates=(verdict.creates, len(baseline.ending.creates)),
                rows=(verdict.rows, baseline.ending.rows),
            )
    return tallies
