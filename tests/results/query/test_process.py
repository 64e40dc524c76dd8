"""The life of the processes that queries run in: started, shared, replaced, retired, closed."""

import io
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from gemini_batch_mcp.errors import NotReady, StorageError, UsageError
from gemini_batch_mcp.results.query._limits import TOO_LARGE, MemoryFence, forbid_writing, used_bytes
from gemini_batch_mcp.results.query._process import Cause, ProcessEnded, ProcessPool, QueryProcess
from gemini_batch_mcp.results.query._worker import Query, serve
from gemini_batch_mcp.results.query.queries import QueryEngine
from support.answers import table_at

pytestmark = pytest.mark.usefixtures("fresh_query_processes")

ENDLESS = "SELECT count(*) FROM range(1000000000000)"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return table_at(tmp_path_factory.mktemp("process") / "results.parquet")


def _query(table: Path, sql: str = "SELECT count(*) FROM results", **limits: float) -> dict[str, object]:
    return asdict(Query({"results": str(table)}, sql, 100, 20.0, 512 << 20, 2000, 17_000)) | limits


def _started() -> QueryProcess:
    process = QueryProcess()
    process.await_start()
    return process


def _eventually(is_so: Callable[[], bool]) -> None:
    """Wait for something that another thread does."""
    waiting = threading.Event()
    for _ in range(1000):
        if is_so():
            return
        waiting.wait(0.01)
    raise AssertionError("it did not happen within 10 seconds")


def test_a_process_answers_query_after_query(table: Path) -> None:
    process = _started()
    try:
        for _ in range(3):
            assert process.ask(_query(table), 20.0)["rows"] == [[1000]]
    finally:
        process.close()


def test_a_process_knows_no_environment_and_no_directory_of_ours(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "test-key-do-not-show")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/test-key-libraries")
    process = _started()
    try:
        proc = Path(f"/proc/{process.pid}")
        if not proc.is_dir():
            pytest.skip("this system does not show a process's environment")
        assert b"test-key" not in (proc / "environ").read_bytes()
        assert (proc / "cwd").resolve() == Path("/")
    finally:
        process.close()


def test_a_process_that_does_not_answer_in_time_is_killed(table: Path) -> None:
    """The query's own limit is far away, so that nothing interrupts it."""
    process = _started()
    with pytest.raises(ProcessEnded) as ended:
        process.ask(_query(table, ENDLESS, time_limit_seconds=60.0), 0.3)
    assert ended.value.cause is Cause.LATE
    process.close()


def test_a_process_that_ended_says_so_when_it_is_asked(table: Path) -> None:
    process = _started()
    process.close()
    with pytest.raises(ProcessEnded) as ended:
        process.ask(_query(table), 20.0)
    assert ended.value.cause is Cause.UNKNOWN


def test_closing_ends_a_process_at_work(table: Path) -> None:
    process = _started()
    causes: list[Cause] = []

    def ask() -> None:
        try:
            process.ask(_query(table, ENDLESS), 60.0)
        except ProcessEnded as ended:
            causes.append(ended.cause)

    thread = threading.Thread(target=ask)
    thread.start()
    process.close()
    thread.join(10)
    assert causes == [Cause.UNKNOWN]


def test_a_process_that_cannot_start_is_a_storage_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    with pytest.raises(StorageError, match="could not be started"):
        QueryProcess()


def test_a_process_that_ends_at_its_start_is_a_storage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(StorageError, match="could not be started"):
        QueryProcess().await_start()


def test_a_waiting_process_that_was_ended_from_outside_is_replaced(table: Path) -> None:
    pool = ProcessPool(max_processes=1, idle_seconds=60.0)
    try:
        pool.prepare()
        (process,) = pool.idle
        os.kill(process.pid, signal.SIGKILL)
        assert pool.ask(_query(table), 20.0)["rows"] == [[1000]]
        assert process not in pool.idle
    finally:
        pool.close()


@pytest.mark.parametrize(("status", "said"), [(TOO_LARGE, "memory that it may use"), (1, "The engine ended during")])
def test_a_process_that_ends_in_the_middle_of_a_query_is_reported(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, said: str
) -> None:
    """A program stands in for the process, as no known query brings the real one down."""
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho '{{}}'\nread query\nexit {status}\n", encoding="utf-8")
    program.chmod(0o700)
    with QueryEngine() as engine:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", str(program))
            with pytest.raises(UsageError, match=said):
                engine.query_table(table, "SELECT 1")
        assert engine.query_table(table, "SELECT 1").rows == ((1,),)


def test_unused_processes_are_ended(table: Path) -> None:
    pool = ProcessPool(max_processes=1, idle_seconds=0.05)
    try:
        pool.prepare()
        _eventually(lambda: not pool.idle)
        assert pool.ask(_query(table), 20.0)["rows"] == [[1000]]
    finally:
        pool.close()


def test_a_closed_engine_refuses(table: Path) -> None:
    engine = QueryEngine()
    engine.prepare()
    engine.close()
    engine.close()
    with pytest.raises(StorageError, match="closed"):
        engine.query_table(table, "SELECT 1")
    with pytest.raises(StorageError, match="closed"):
        engine.prepare()


def test_closing_the_engine_ends_the_queries_at_work(table: Path) -> None:
    engine = QueryEngine()
    engine.prepare()
    problems: list[Exception] = []

    def ask() -> None:
        try:
            engine.query_table(table, ENDLESS)
        except (StorageError, UsageError) as problem:
            problems.append(problem)

    thread = threading.Thread(target=ask)
    thread.start()
    engine.close()
    thread.join(30)
    assert [type(problem) for problem in problems] == [StorageError]


def test_closing_the_engine_ends_a_process_that_is_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program stands in for the process: it tells that it runs, and never that it can be asked."""
    program, fifo = tmp_path / "program", tmp_path / "runs"
    os.mkfifo(fifo)
    program.write_text(f"#!/bin/sh\necho >'{fifo}'\nexec sleep 100\n", encoding="utf-8")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    engine = QueryEngine()
    problems: list[str] = []

    def prepare() -> None:
        try:
            engine.prepare()
        except StorageError as problem:
            problems.append(str(problem))

    thread = threading.Thread(target=prepare)
    thread.start()
    fifo.read_bytes()
    engine.close()
    thread.join(30)
    assert problems == ["The query engine is closed. Restart the server."]


def test_a_query_waits_for_a_free_process_and_not_for_ever(table: Path) -> None:
    with QueryEngine(max_processes=1) as engine:
        has_place, may_leave = threading.Event(), threading.Event()

        class Slow(type(table)):  # type: ignore[misc]  # a path of this system
            def resolve(self, strict: bool = False) -> Path:
                has_place.set()
                may_leave.wait()
                return Path(super().resolve(strict=strict))

        thread = threading.Thread(target=engine.query_table, args=(Slow(table), "SELECT 1"))
        thread.start()
        has_place.wait()
        try:
            with pytest.raises(NotReady, match="still running"):
                engine.query_table(table, "SELECT 1", time_limit_seconds=0.2)
        finally:
            may_leave.set()
            thread.join()
        assert engine.query_table(table, "SELECT 1").rows == ((1,),)


def test_the_worker_answers_line_by_line_and_ends_when_it_has_grown(table: Path) -> None:
    class Fence(MemoryFence):
        def set(self, memory_limit_bytes: int) -> None:
            """Leave this process as it is."""

        def has_grown(self) -> bool:
            return len(answers.getvalue().splitlines()) == 3

    answers = io.BytesIO()
    missing = table.with_name("missing.parquet")
    queries = [_query(table), _query(table, "DROP VIEW results"), _query(missing), _query(table)]
    serve([json.dumps(query).encode() for query in queries], answers, Fence())
    ready, first, refused, failed = map(json.loads, answers.getvalue().splitlines())
    assert ready == {}
    assert first == {"columns": ["count_star()"], "rows": [[1000]], "truncated": False, "is_last": False}
    assert "refused" in refused["usage_error"][0]
    assert "could not be read" in failed["storage_error"][0]
    assert failed["is_last"]


def test_the_worker_ends_with_its_queries(table: Path) -> None:
    class Fence(MemoryFence):
        def set(self, memory_limit_bytes: int) -> None:
            """Leave this process as it is."""

    answers = io.BytesIO()
    serve([], answers, Fence())
    assert answers.getvalue() == b"{}\n"


def test_the_fence_lets_a_process_grow_only_by_its_limit() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    fence = MemoryFence()
    try:
        fence.set(64 << 20)
        with pytest.raises(MemoryError):
            bytearray(1 << 30)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert not fence.has_grown()
    assert used_bytes() > 10 << 20


def test_where_address_space_is_not_limited_the_largest_size_so_far_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gemini_batch_mcp.results.query._limits._LIMITS_ADDRESS_SPACE", False)
    assert 10 << 20 < used_bytes() < 1 << 40


def test_no_file_of_a_process_may_grow_once_writing_is_forbidden(tmp_path: Path) -> None:
    kinds = (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE)
    before = [resource.getrlimit(kind) for kind in kinds]
    path = tmp_path / "file"
    try:
        forbid_writing()
        with pytest.raises(OSError, match="large"):
            path.write_bytes(b"x")
    finally:
        for kind, limits in zip(kinds, before, strict=True):
            resource.setrlimit(kind, limits)
    path.write_bytes(b"x")


def test_where_address_space_is_not_limited_a_large_process_ends_itself() -> None:
    """As on macOS; the system below is Linux with that switched off."""
    code = (
        "import sys; sys.path[:] = sys.argv[1:]\n"
        "from gemini_batch_mcp.results.query import _limits\n"
        "_limits._LIMITS_ADDRESS_SPACE = False\n"
        "fence = _limits.MemoryFence()\n"
        "import threading\n"
        "fence.set(-(1 << 50))\n"
        "threading.Event().wait(50)\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code, *sys.path], timeout=60)
    assert done.returncode == TOO_LARGE
