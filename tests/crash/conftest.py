"""What all cases of the matrices share: benches to live on, and undisturbed runs to compare with."""

from collections.abc import Iterator

import pytest

from crash import plans
from crash.ground import Bench
from crash.matrix import Baseline, in_parallel, several_benches, undisturbed


@pytest.fixture(scope="session")
def benches() -> Iterator[list[Bench]]:
    with several_benches() as found:
        yield found


@pytest.fixture(scope="session")
def baselines(benches: list[Bench]) -> dict[str, Baseline]:
    """Undisturbed runs of every scenario, by its name."""
    found = in_parallel(benches, undisturbed, plans.ALL)
    return {plan.name: baseline for plan, baseline in zip(plans.ALL, found, strict=True)}
