"""Tells of a failure when it happens, and ends what hangs after it: a run that is ended from outside has no summary."""

import faulthandler
from typing import Final

import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key

#: Of a failure's text: its end, where what went wrong is.
_SHOWN_LINES: Final = 60
#: How long what a failed test has opened may take to close.
_CLOSING_SECONDS: Final = 120


class Failures:
    """Prints each failed test in the middle of the dots; the summary at the end tells of all of them once more."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Print a failure's test, its duration and the end of its text."""
        terminal: pytest.TerminalReporter | None = self._config.pluginmanager.get_plugin("terminalreporter")
        if not report.failed or terminal is None:
            return
        terminal.write_line(f"\nFAILED {report.nodeid} ({report.when}, {report.duration:.1f} s)")
        for line in report.longreprtext.splitlines()[-_SHOWN_LINES:]:
            terminal.write_line(f"  {line}")

    @pytest.hookimpl(trylast=True)
    def pytest_exception_interact(self) -> None:
        """Set a limit to what comes after a failure: pytest-timeout and pytest's own limit have just lifted theirs.

        Both take each failure for one that somebody may want to look into. Past the limit all threads are printed, and
        the process ends: the run goes on in another.
        """
        faulthandler.dump_traceback_later(
            _CLOSING_SECONDS, exit=True, file=self._config.stash[fault_handler_stderr_fd_key]
        )
