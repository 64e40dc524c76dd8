"""A process killed at its steps on Google Cloud, and what goes wrong there: nothing is paid twice, nothing is lost."""

import re
from typing import Any, Final

import pytest

from crash import plans
from crash.faults import Fault, at_service, suffered
from crash.ground import Bench, Plan
from crash.matrix import Baselines, Case, Verdict, in_parallel, killed
from crash.traps import Trap
from gemini_batch_mcp.sandbox.app import Sandbox
from support.extent import IS_FULL, WANTED, in_part, long

pytestmark = [pytest.mark.timeout(3600 if WANTED else 300), in_part]

#: Steps on the way to Google Cloud and back, and the promises of the ledger around them.
ALL: Final = re.compile(
    r"(upload|create|get|list|download|get_file|read_file):.*|ledger\.(reserve|plan|move_job|record).*"
)
#: A create that may be there.
PART: Final = ("create:after",)

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
#: Steps over a table: each statement that makes one, and the create between.
ALL_REMOTE: Final = re.compile(r"(bq_\w+|create|get|list):.*|ledger\.(reserve|plan|move_job|record|add_attempt).*")
PART_REMOTE: Final = ("bq_write:after",)
#: A point takes 2.8 CPU seconds, and there are 170: ten minutes on two cores, and an hour where others work as well.
#: So each part of them is a test with a limit of its own.
REMOTE_PARTS: Final = 6
REMOTE_PART_SECONDS: Final = 1200


def _lose_every_other(service: Sandbox) -> None:
    for _ in range(8):
        service.cut_next("queries.insert", when="after", skip=1)


REMOTE_FAULTS: Final[tuple[Fault, ...]] = (
    at_service("reply to a statement lost", lambda s: s.cut_next("queries.insert", when="after", skip=4), plans.REMOTE),
    at_service(
        "replies to all statements lost once",
        _lose_every_other,
        plans.REMOTE,
    ),
    at_service("503 to statements", lambda s: s.fail_next("queries.insert", status=503, times=3), plans.REMOTE),
    at_service("503 to looks at tables", lambda s: s.fail_next("tables.get", status=503, times=3), plans.REMOTE),
    at_service("reply to a label lost", lambda s: s.cut_next("tables.patch", when="after"), plans.REMOTE),
    at_service("rows cut in their middle", lambda s: s.cut_next("queries.results", at_byte=300), plans.REMOTE),
    at_service("reply to a create lost", lambda s: s.cut_next("jobs.create", when="after"), plans.REMOTE),
    at_service("503 before a create took effect", lambda s: s.fail_next("jobs.create", status=503), plans.REMOTE),
)


def _parts() -> list[Any]:
    """Return each plan with the part of its points that one test kills at: first point, and every how many-th."""
    if not IS_FULL:
        return [pytest.param(plan, 0, 1, id=plan.name) for plan in (plans.CLOUD, plans.REMOTE)]
    whole = [pytest.param(plan, 0, 1, id=plan.name) for plan in (plans.CLOUD, plans.OBJECT)]
    return whole + [
        pytest.param(
            *(plans.REMOTE, part, REMOTE_PARTS),
            id=f"{plans.REMOTE.name}, part {part + 1} of {REMOTE_PARTS}",
            marks=pytest.mark.timeout(REMOTE_PART_SECONDS),
        )
        for part in range(REMOTE_PARTS)
    ]


@pytest.mark.parametrize(("plan", "first", "every"), _parts())
@long
def test_a_process_killed_on_the_way_to_the_cloud_and_back_costs_nothing_and_loses_nothing(
    benches: list[Bench], baselines: Baselines, plan: Plan, first: int, every: int
) -> None:
    baseline = baselines[plan]
    points = [point for point in baseline.points(first_only=not IS_FULL) if _is_wanted(plan, point)][first::every]
    assert points, [point.step for point in baseline.points(first_only=True)]

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
@long
def test_a_disturbance_in_the_cloud_costs_nothing_and_loses_nothing(
    benches: list[Bench], baselines: Baselines, fault: Fault
) -> None:
    verdict = suffered(benches[0], baselines[plans.CLOUD], fault)
    assert verdict.problems == ()


@pytest.mark.skipif(not IS_FULL, reason="a complete run only")
@pytest.mark.parametrize("fault", REMOTE_FAULTS, ids=lambda fault: fault.name)
def test_a_disturbance_of_bigquery_costs_nothing_and_loses_nothing(
    benches: list[Bench], baselines: Baselines, fault: Fault
) -> None:
    verdict = suffered(benches[0], baselines[plans.REMOTE], fault)
    assert verdict.problems == ()


def _is_wanted(plan: Plan, point: Trap) -> bool:
    whole, part = (ALL_REMOTE, PART_REMOTE) if plan is plans.REMOTE else (ALL, PART)
    return bool(whole.fullmatch(point.step)) if IS_FULL else point.step in part
