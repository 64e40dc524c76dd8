"""What all cases of the matrices share: benches to live on, and undisturbed runs to compare with."""

from collections.abc import Iterator

import pytest

from crash.ground import Bench
from crash.matrix import Baselines, several_benches


@pytest.fixture(scope="session")
def benches() -> Iterator[list[Bench]]:
    with several_benches() as found:
        yield found


@pytest.fixture(scope="session")
def baselines(benches: list[Bench]) -> Baselines:
    """Undisturbed runs of the scenarios, by their plans."""
    return Baselines(benches[0])
