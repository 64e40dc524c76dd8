"""What is loaded stays, and no later round of the garbage collector looks at it."""

import gc
from collections.abc import Iterator

import pytest

from gemini_batch_mcp.processes import loading


@pytest.fixture(autouse=True)
def _all_collected_afterwards() -> Iterator[None]:
    yield
    gc.unfreeze()
    assert gc.isenabled()


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_loaded_is_left_out_of_later_rounds_whether_or_not_loading_fails(fails: bool) -> None:
    left_out = gc.get_freeze_count()
    kept: list[object] = []
    try:
        with loading():
            assert not gc.isenabled()
            kept += ([] for _ in range(1000))
            assert not fails
    except AssertionError:
        assert fails
    assert gc.isenabled()
    assert gc.get_freeze_count() >= left_out + 1000
