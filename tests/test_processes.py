"""What is loaded stays, and no later round of the garbage collector looks at it; what hashes yields to who answers."""

import gc
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gemini_batch_mcp.intake.requests.shards import Shard, ShardReader
from gemini_batch_mcp.processes import loading
from gemini_batch_mcp.threads import yielding


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


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no niceness of their own")
def test_threads_that_hash_or_read_an_upload_yield_and_those_that_wait_for_them_do_not(tmp_path: Path) -> None:
    own = _niceness(threading.get_native_id())
    assert yielding(lambda: _niceness(threading.get_native_id())) == min(19, own + 10)
    lines = tmp_path / "lines.jsonl"
    lines.write_bytes(b"{}\n")
    with ShardReader(lines, Shard(1, 0, 1, 0, 3, "", 0)) as reader:
        reader.await_next()
        (reads,) = [thread for thread in threading.enumerate() if thread.name.startswith("shard-read")]
        assert reads.native_id is not None
        assert _niceness(reads.native_id) == min(19, own + 10)
    assert _niceness(threading.get_native_id()) == own


def _niceness(thread: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, thread)
