"""A process killed at its steps on Google Cloud, and what goes wrong there: nothing is paid twice, nothing is lost."""

import re
from typing import Final

import pytest

from crash import plans
from crash.faults import Fault, at_service, suffered
from crash.ground import Bench, Plan
from crash.matrix import Baselines, Case, Verdict, in_parallel, killed
from crash.traps import Trap
from support.extent import IS_FULL, WANTED, in_part

pytestmark = [pytest.mark.timeout(3600 if WANTED else 300), in_part]

#: Steps on the way to Google Cloud and back, and the promises of the ledger around them.
ALL: Final = re.compile(
    r"(upload|create|get|list|download|get_file|read_file):.*|ledger\.(reserve|plan|move_job|record).*"
)
#: Between an upload and its create, and a create that may be there.
PART: Final = ("upload:after", "create:after")

FAULTS: Final[tuple[Fault, ...]] = (
    at_service("reply to a create lost", lambda s: s.cut_next("jobs.create", when="after"), plans.CLOUD),
    at_service(
        "500 after a create took effect", lambda s: s.fail_next("jobs.create", status=500, when="after"), plans.CLOUD
    ),
    at_service(
        "429 after a create took effect", lambda s: s.fail_next("jobs.create", status=429, when="after"), plans.CLOUD
    ),
    at_service("503 before a create took effect", lambda s: s.fail_next("jobs.create", status=503), plans.CLOUD),
    at_service("create cut before it arrived", lambda s: s.cut_next("jobs.create", when="before"), plans.CLOUD),
    at_service("reply to an upload lost", lambda s: s.cut_next("objects.insert", when="after"), plans.CLOUD),
    at_service(
        "upload cut in its middle", lambda s: s.cut_next("objects.insert", when="before", at_byte=5000), plans.CLOUD
    ),
    at_service("503 to an upload", lambda s: s.fail_next("objects.insert", status=503, times=2), plans.CLOUD),
    at_service(
        "answers cut in their middle", lambda s: s.cut_next("objects.media", when="after", at_byte=900), plans.CLOUD
    ),
    at_service("answers short but well-formed", lambda s: s.shorten_next("objects.media", at_byte=900), plans.CLOUD),
    at_service("503 to a list of answers", lambda s: s.fail_next("objects.list", status=503, times=2), plans.CLOUD),
    at_service("answers shown before they are there", lambda s: s.fail_next("objects.media", status=404), plans.CLOUD),
    at_service("storm of 503 over reads", lambda s: s.fail_next("jobs.get", status=503, times=9), plans.CLOUD),
)
FEW: Final = ("answers short but well-formed",)


@pytest.mark.parametrize("plan", [plans.CLOUD, plans.OBJECT] if IS_FULL else [plans.CLOUD], ids=lambda plan: plan.name)
def test_a_process_killed_on_the_way_to_the_cloud_and_back_costs_nothing_and_loses_nothing(
    benches: list[Bench], baselines: Baselines, plan: Plan
) -> None:
    baseline = baselines[plan]
    points = [point for point in baseline.points(first_only=not IS_FULL) if _is_wanted(point)]
    assert len(points) >= len(PART), [point.step for point in baseline.points(first_only=True)]

    def run(bench: Bench, point: Trap) -> Verdict:
        return killed(bench, plan, baseline, Case(point, then="order"))

    verdicts = in_parallel(benches, run, points)
    print(f"{plan.name}: killed {len(verdicts)} times")  # noqa: T201 - a complete run is read
    failed = [f"{verdict.name}: {'; '.join(verdict.problems)}" for verdict in verdicts if verdict.problems]
    assert not failed, "\n".join(failed)
    assert all(verdict.was_tried for verdict in verdicts)


@pytest.mark.parametrize(
    "fault", [fault for fault in FAULTS if IS_FULL or fault.name in FEW], ids=lambda fault: fault.name
)
def test_a_disturbance_in_the_cloud_costs_nothing_and_loses_nothing(
    benches: list[Bench], baselines: Baselines, fault: Fault
) -> None:
    verdict = suffered(benches[0], baselines[plans.CLOUD], fault)
    assert verdict.problems == ()


def _is_wanted(point: Trap) -> bool:
    return bool(ALL.fullmatch(point.step)) if IS_FULL else point.step in PART
