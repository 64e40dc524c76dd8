"""Lost replies, cut bodies, refusals, full and locked disks, clocks and races: nothing paid twice, nothing lost."""

from collections.abc import Iterator

import pytest

from crash.fault_list import FAULTS, PART, REUSING
from crash.faults import Fault, suffered, why_no_small_disk
from crash.ground import Bench
from crash.matrix import Baselines
from crash.report import Tally, missing_and_stale, table, write_section
from support.extent import IS_FULL, in_part, long, some

pytestmark = [pytest.mark.timeout(300), in_part]


@pytest.fixture(scope="module")
def tallies() -> Iterator[dict[str, Tally]]:
    """What the faults came to; a complete run writes it down."""
    found: dict[str, Tally] = {}
    yield found
    if IS_FULL and found.keys() == {fault.name for fault in FAULTS}:
        write_section("faults", table("fault", found))


@pytest.fixture(scope="module")
def small_disk_refusal() -> str:
    return why_no_small_disk()


@pytest.mark.parametrize("fault", some(FAULTS if IS_FULL else PART, 2), ids=lambda fault: fault.name)
def test_a_disturbance_costs_nothing_and_loses_nothing(
    benches: list[Bench],
    baselines: Baselines,
    tallies: dict[str, Tally],
    small_disk_refusal: str,
    fault: Fault,
) -> None:
    if fault.has_small_disk and small_disk_refusal:
        pytest.skip(small_disk_refusal)
    baseline = baselines[fault.plan]
    verdicts = [suffered(benches[0], baseline, fault) for _ in range(fault.tries if IS_FULL else 1)]
    for verdict in verdicts:
        tallies.setdefault(fault.name, Tally()).add(
            survived=not verdict.problems,
            creates=(verdict.creates, len(baseline.ending.creates)),
            rows=(verdict.rows, baseline.ending.rows),
        )
    assert [verdict.problems for verdict in verdicts if verdict.problems] == []


@pytest.mark.parametrize("fault", REUSING if IS_FULL else REUSING[:1], ids=lambda fault: fault.name)
@long
def test_rows_that_are_taken_over_survive_a_disturbance(
    benches: list[Bench], baselines: Baselines, small_disk_refusal: str, fault: Fault
) -> None:
    if fault.has_small_disk and small_disk_refusal:
        pytest.skip(small_disk_refusal)
    for _ in range(fault.tries if IS_FULL else 1):
        assert suffered(benches[0], baselines[fault.plan], fault).problems == ()


@pytest.mark.skipif(IS_FULL, reason="this run writes the table at its end")
def test_the_table_names_every_fault() -> None:
    names = [fault.name for fault in FAULTS]
    missing, stale = missing_and_stale("faults", names)
    assert not missing and not stale, f"Run make matrix. Not in tests/README.md: {missing}; only there: {stale}."
    assert len(set(names)) == len(names)
