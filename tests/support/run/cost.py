"""What a run costs and covers.

CPU seconds and no times by the clock: they are nearly the same beside other work. `make test` may take 650 of them, so
that it ends within six minutes on two cores.
"""

import os
import resource
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from gemini_batch_mcp import processes
from support.servers import used_seconds

_COSTLIEST: Final = 10
#: How coverage hands its configuration on to processes that are started.
_VARIABLE: Final = "COVERAGE_PROCESS_CONFIG"
#: The one that ends by itself, which is when coverage is written down. Those that run SQL and check lines are killed.
_MEASURED: Final = "gemini_batch_mcp.intake.workbooks._worker"


class Cost:
    """Adds up what tests and workers use. Each has one of its own; that of the run itself hears of all."""

    def __init__(self) -> None:
        self._seen_seconds = 0.0
        self._workers_seconds = 0.0
        self._is_alone = True
        self._by_file: defaultdict[str, float] = defaultdict(float)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Any:
        """Note with the last report of a test what this process has used since the test before."""
        report = yield
        if report.when == "teardown":
            now_seconds = _used_seconds()
            report.cpu_seconds, self._seen_seconds = now_seconds - self._seen_seconds, now_seconds
        elif not self._seen_seconds:
            # What was before the first test is no test's.
            self._seen_seconds = _used_seconds()
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add a test's seconds to its file's."""
        self._by_file[report.nodeid.partition("::")[0]] += getattr(report, "cpu_seconds", 0.0)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Tell the run what this worker has used."""
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["cpu_seconds"] = _used_seconds()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Add a worker's seconds."""
        self._is_alone = False
        self._workers_seconds += getattr(node, "workeroutput", {}).get("cpu_seconds", 0.0)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print both."""
        if self._is_alone:
            return
        own = resource.getrusage(resource.RUSAGE_SELF)
        total_seconds = self._workers_seconds + own.ru_utime + own.ru_stime
        files = sorted(self._by_file.items(), key=lambda file: file[1], reverse=True)[:_COSTLIEST]
        costliest = [f"{seconds:.0f} {path}" for path, seconds in files]
        terminalreporter.write_line(f"{total_seconds:.0f} CPU seconds; of these: {', '.join(costliest)}")


def _used_seconds() -> float:
    """Return what this process has used, those that it started and waited for, and those that still run."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    total = sum(usage.ru_utime + usage.ru_stime for usage in spent)
    for children in Path("/proc/self/task").glob("*/children"):
        # A thread may have ended; and only Linux tells.
        with suppress(OSError):
            total += sum(used_seconds(int(child)) for child in children.read_text(encoding="ascii").split())
    return total


def measure_workers() -> None:
    """Measure in a run with coverage what readers of spreadsheets run; else change nothing."""
    if (configuration := os.environ.get(_VARIABLE)) is None:
        return
    begun = (
        f"import os, sys; sys.path[:] = sys.argv[2:]; os.environ[{_VARIABLE!r}] = {configuration!r}\n"
        f"if sys.argv[1] == {_MEASURED!r}:\n    import coverage; coverage.process_startup()\n"
    )
    processes._CODE = begun + processes._CODE  # type: ignore[misc] # what the product starts is not told of tests
