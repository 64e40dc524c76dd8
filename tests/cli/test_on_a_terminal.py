"""Commands on a terminal as a person has one: what is drawn there, asked, interrupted, and what cannot be shown."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.config import ByTime, SandboxConfig
from support.conversation import Run, process_env
from support.extent import long, some

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/dev/full, and the terminals of Linux")

#: For a machine that has other things to do.
SECONDS: Final = 60.0
INTERRUPT: Final = b"\x03"
END_OF_INPUT: Final = b"\x04"
COMMAND: Final = (sys.executable, "-m", "gemini_batch_mcp")
ORDER: Final = ("create-batch", "reviews.csv", "--prompt", "Mood {{text}}", "--key-column", "id")


def _heeding_ctrl_c() -> None:
    """Heed Ctrl-C as a person's command does: where the tests run in the background of a shell, it is ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _in_the_foreground() -> None:
    """Make the terminal this process's own, so that its keys reach it."""
    _heeding_ctrl_c()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """A window of some size in which one command runs."""

    def __init__(self, command: tuple[str, ...], directory: Path, env: Mapping[str, str], columns: int) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=directory,
            env=dict(env),
            start_new_session=True,
            preexec_fn=_in_the_foreground,
        )
        os.close(theirs)
        self.shown = ""

    def read(self, is_enough: Callable[[str], bool] = lambda shown: False) -> str:
        """Read until it is enough, or until nobody writes any more; returns all that was shown, without colours."""
        until = time.monotonic() + SECONDS
        while not is_enough(self.plain):
            assert time.monotonic() < until, self.shown
            if select.select([self._ours], [], [], 0.1)[0]:
                try:
                    self.shown += os.read(self._ours, 65_536).decode()
                except OSError:
                    break
        return self.plain

    @property
    def plain(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.shown).replace("\r\n", "\n")

    def press(self, key: bytes) -> None:
        os.write(self._ours, key)

    def end(self) -> int:
        """Return the exit code."""
        return self.process.wait(SECONDS)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


Open = Callable[..., contextlib.AbstractContextManager[Terminal]]


@pytest.fixture
def on_terminal(tmp_path: Path, data: Path, at_port: dict[str, str]) -> Open:
    (data / "reviews.csv").write_text("id,text\na,good\nb,bad\nc,so so\n", encoding="utf-8")

    @contextlib.contextmanager
    def opened(*arguments: str, columns: int = 100, **env: str) -> Iterator[Terminal]:
        home = str(tmp_path / "home")
        variables = process_env(GEMINI_BATCH_HOME=home, GEMINI_BATCH_POLL_SECONDS="0.2", TERM="xterm", **at_port)
        terminal = Terminal((*COMMAND, *arguments), data, variables | env, columns)
        try:
            yield terminal
        finally:
            terminal.close()

    return opened


@pytest.fixture
def batch(on_terminal: Open, run_at_port: Run) -> str:
    ordered = run_at_port(*ORDER)
    assert ordered.returncode == 0, ordered.stderr
    return ordered.stdout.strip()


def test_an_order_and_its_answers_take_few_lines_of_progress(on_terminal: Open) -> None:
    with on_terminal(*ORDER) as terminal:
        said = terminal.read()
        assert terminal.end() == 0, said
    assert re.search(r"Checking .* 3 lines", said)
    assert re.search(r"Uploading .* (\d+) bytes of \1 bytes", said)
    assert "requests ordered" in said
    assert "error" not in said and said.count("\n") < 8, said
    said = _shown(on_terminal, "get-results", said.split()[-1], lines=14)
    assert "3 expected, 3 returned, 3 succeeded" in said
    assert re.search(r"Collecting +━+ 3 of 3 rows +0:00:\d\d\n", said)


@long
def test_waiting_and_asking_take_few_lines_of_progress(on_terminal: Open, batch: str) -> None:
    assert "JOB_STATE_SUCCEEDED" in _shown(on_terminal, "check-status", batch, "--wait", lines=14)
    assert "found" in _shown(on_terminal, "query", batch, "SELECT count(*) AS found FROM results", lines=10)


def _shown(on_terminal: Open, *arguments: str, lines: int) -> str:
    """Return what a command shows on few lines. They are narrow: of what a bar says, its description gives way."""
    with on_terminal(*arguments, columns=80) as terminal:
        said = terminal.read()
        assert terminal.end() == 0
    assert "error" not in said and "bug" not in said, said
    assert said.count("\n") < lines, said
    return said


@pytest.mark.parametrize("question", some(["delete", "cost"], 1))
def test_a_question_ends_at_once_with_ctrl_c_and_ctrl_d_is_a_no(
    on_terminal: Open, batch: str, run_at_port: Run, question: str
) -> None:
    asked: dict[str, tuple[tuple[str, ...], str]] = {
        "delete": (("delete", batch), "Nothing was deleted."),
        "cost": ((*ORDER, "--limit-rows", "2"), "Nothing was submitted."),
    }
    arguments, otherwise = asked[question]
    for key in (INTERRUPT, END_OF_INPUT):
        with on_terminal(*arguments, GEMINI_BATCH_CONFIRM_ABOVE_USD="0") as terminal:
            terminal.read(lambda shown: "[y/N]: " in shown)
            terminal.press(key)
            said = terminal.read().partition("[y/N]: ")[2]
            code = terminal.end()
        if key == INTERRUPT:
            assert code == 128 + signal.SIGINT
            assert re.match(r"\^C\nInterrupted\.", said)
        else:
            assert (code, said.strip()) == (1, otherwise)
    listed = run_at_port("list-jobs").stdout
    assert batch in listed and listed.count("JOB_STATE") == 1


@long
def test_an_interrupted_command_says_so_and_an_order_how_it_continues(tmp_path: Path, on_terminal: Open) -> None:
    to_continue = "Interrupted. Run the same command again to continue; nothing is charged twice."
    with (
        Sandbox(tmp_path / "slow", SandboxConfig(pace=ByTime(600))) as service,
        service.listening() as base_url,
    ):
        service.delay_next("files.start", 20, times=1)
        with on_terminal(*ORDER, GOOGLE_GEMINI_BASE_URL=base_url) as terminal:
            terminal.read(lambda shown: any(request.route == "files.start" for request in service.requests))
            terminal.press(INTERRUPT)
            said = terminal.read()
            assert terminal.end() == 128 + signal.SIGINT
            assert said.endswith(f"\n{to_continue}\n"), said
            # A bar hides the cursor; the shell has it again.
            assert terminal.shown.rindex("\x1b[?25h") > terminal.shown.rindex("\x1b[?25l")

        with on_terminal(*ORDER, GOOGLE_GEMINI_BASE_URL=base_url) as terminal:
            batch = terminal.read().split()[-1]
            assert terminal.end() == 0
        assert service.creates == 1

        with on_terminal("check-status", batch, "--wait", GOOGLE_GEMINI_BASE_URL=base_url) as terminal:
            terminal.read(lambda shown: "Waiting for Gemini" in shown)
            terminal.press(INTERRUPT)
            said = terminal.read()
            assert terminal.end() == 128 + signal.SIGINT
            assert said.endswith("\nInterrupted.\n"), said


def test_a_server_on_a_port_says_that_it_was_interrupted(on_terminal: Open) -> None:
    with on_terminal("serve", "--transport", "http", "--port", "0") as terminal:
        terminal.read(lambda shown: "For your client" in shown)
        terminal.press(INTERRUPT)
        said = terminal.read()
        assert terminal.end() == 128 + signal.SIGINT
    assert said.endswith("\nInterrupted.\n"), said


def test_an_interrupt_without_signals_in_the_event_loop_ends_as_well() -> None:
    """Windows has none; the process must end although a thread of it still waits for an answer."""
    program = """
import asyncio, signal, sys, time
import anyio
from gemini_batch_mcp.cli import ending
from gemini_batch_mcp.threads import in_thread_left_behind

class Receiver:
    def __init__(self, *signals): pass
    def __enter__(self): raise NotImplementedError
    def __exit__(self, *error): pass

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a shell

async def work():
    asyncio.get_running_loop().call_later(0.2, signal.raise_signal, signal.SIGINT)
    await in_thread_left_behind(time.sleep, 600)

anyio.open_signal_receiver = Receiver
ending.run(work)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=process_env(), capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, "Interrupted.\n")


@pytest.mark.parametrize(
    ("arguments", "closed", "reason"),
    some(
        [
            (("--help",), ">/dev/full", "No space left on device"),
            (("list-jobs",), ">&-", "Bad file descriptor"),
            (("list-jobs",), ">/dev/full", "No space left on device"),
            (("spend", "--json"), "<&- >&-", "Bad file descriptor"),
        ],
        1,
    ),
)
def test_output_that_cannot_be_written_is_told_in_a_sentence(
    tmp_path: Path, data: Path, arguments: tuple[str, ...], closed: str, reason: str
) -> None:
    done = _in_shell(tmp_path, data, arguments, closed)
    assert (done.returncode, done.stderr) == (1, f"The output cannot be written: {reason}.\n")


@long
@pytest.mark.parametrize("closed", ["2>&-", "2>/dev/full"])
def test_a_command_does_its_work_where_its_notes_cannot_be_written(tmp_path: Path, data: Path, closed: str) -> None:
    (data / "reviews.csv").write_text("id,text\na,good\n", encoding="utf-8")
    done = _in_shell(tmp_path, data, ORDER, closed)
    assert done.returncode == 0
    assert re.fullmatch(r"reviews-[a-z0-9]{6}\n", done.stdout)


@long
def test_a_batch_whose_id_cannot_be_written_to_stdout_is_told_on_stderr(tmp_path: Path, data: Path) -> None:
    (data / "reviews.csv").write_text("id,text\na,good\n", encoding="utf-8")
    done = _in_shell(tmp_path, data, ORDER, ">/dev/full")
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert re.fullmatch(
        r"The output cannot be written: No space left on device\. The batch is reviews-[a-z0-9]{6}\.", said
    )


def _in_shell(
    tmp_path: Path, data: Path, arguments: tuple[str, ...], redirected: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in the sandbox with its output redirected."""
    return subprocess.run(
        ["/bin/sh", "-c", f'"$@" {redirected}', "sh", *COMMAND, "--sandbox", *arguments],
        env=process_env(GEMINI_BATCH_HOME=str(tmp_path / "home")),
        cwd=data,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@long
@pytest.mark.parametrize(("encoding", "shown"), [("latin-1", b"\xf6" rb"\u65e5"), ("ascii", rb"\xf6\u65e5")])
def test_what_an_encoding_does_not_have_is_written_out(
    tmp_path: Path, data: Path, batch: str, at_port: dict[str, str], encoding: str, shown: bytes
) -> None:
    env = process_env(GEMINI_BATCH_HOME=str(tmp_path / "home"), PYTHONIOENCODING=encoding, **at_port)
    command = [*COMMAND, "query", batch, "SELECT 'ö日' AS word"]
    done = subprocess.run(command, env=env, cwd=data, capture_output=True, timeout=SECONDS, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert shown in done.stdout


@long
def test_a_list_shows_ids_states_and_amounts_whole_however_narrow_it_is(
    on_terminal: Open, run_at_port: Run, batch: str
) -> None:
    named = "customer feedback of the spring campaign"
    other = run_at_port(*ORDER, "--limit-rows", "2", "-n", named).stdout.strip()
    for each in (batch, other):
        assert run_at_port("check-status", each, "--wait").returncode == 0
        assert run_at_port("get-results", each).returncode == 0
    # Costs stand in a pipe, where there is room.
    costs = re.findall(r"\$[0-9.]+", run_at_port("list-jobs").stdout)
    assert len(costs) == 2
    for columns in (80, 140):
        with on_terminal("list-jobs", columns=columns) as terminal:
            said = terminal.read()
            assert terminal.end() == 0
        assert "…" not in said
        assert ("┃" in said) == (columns > 100)
        for word in (batch, other, *costs):
            assert word in said, said
        assert said.count("JOB_STATE_SUCCEEDED") == 2
        if columns > 100:
            assert max(map(len, said.splitlines())) <= columns


def test_keys_that_no_row_has_are_named(run_at_port: Run, batch: str) -> None:
    assert run_at_port("check-status", batch, "--wait").returncode == 0
    shown = run_at_port("get-results", batch, "--key", "nope", "--key", "a")
    assert shown.returncode == 0
    assert "No row has the key 'nope'. Keys here are like 'a'." in shown.stderr
    saved = run_at_port("get-results", batch, "--key", "nope", "--key", "a", "-o", "k.csv")
    assert "No row has the key 'nope'." in saved.stderr
    assert "1 row" in saved.stdout
    assert "No row" not in run_at_port("get-results", batch, "--key", "a").stderr
