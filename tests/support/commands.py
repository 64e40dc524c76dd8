"""Command lines in processes of their own, forked off one that has loaded the product.

    python -m support.commands

reads one `Command` a line from standard input, forks a process for it that becomes `python -m gemini_batch_mcp` with
these arguments, and answers with its exit code. Forked, because to load Google's client, the database and the engine
takes a command two seconds, and to do what it is asked a tenth of one. Nothing but imports precedes the fork.
"""

import atexit
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from support.conversation import process_env
from support.loading import load_everything

_TESTS: Final = Path(__file__).parent.parent
_LIMIT_SECONDS: Final = 90


@dataclass(frozen=True)
class Command:
    """A command line. `output` is a directory, to which the process writes what it says: `stdout`, `stderr`."""

    arguments: tuple[str, ...]
    env: dict[str, str]
    directory: str
    output: str


class Commands:
    """Runs command lines, one after the other."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.commands"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=process_env(PYTHONPATH=str(_TESTS)),
        )

    def run(
        self, arguments: Sequence[str], env: Mapping[str, str], directory: Path
    ) -> subprocess.CompletedProcess[str]:
        """Run `python -m gemini_batch_mcp` in `directory` with this environment and no input, to its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.TemporaryDirectory() as output:
            command = Command(tuple(arguments), dict(env), str(directory), output)
            self._process.stdin.write(f"{json.dumps(asdict(command))}\n")
            self._process.stdin.flush()
            code = self._process.stdout.readline()
            assert code, "The process that commands are forked off is gone."
            said = [Path(output, name).read_text(encoding="utf-8") for name in ("stdout", "stderr")]
        return subprocess.CompletedProcess(command.arguments, int(code), *said)

    def close(self) -> None:
        """End the process that commands are forked off."""
        self._process.communicate()


def main() -> None:
    """Run the commands of standard input."""
    load_everything()
    gc.freeze()
    while line := sys.stdin.readline():
        command = Command(**json.loads(line))
        child = os.fork()
        if child == 0:
            os._exit(_become(command))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(f"{code}\n")
        sys.stdout.flush()
    # Libraries look at their end for what they have left behind.
    gc.unfreeze()


def _become(command: Command) -> int:
    signal.alarm(_LIMIT_SECONDS)
    files = [os.open(os.devnull, os.O_RDONLY)]
    files += [os.open(Path(command.output, name), os.O_WRONLY | os.O_CREAT, 0o600) for name in ("stdout", "stderr")]
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    os.environ.clear()
    os.environ.update(command.env)
    os.chdir(command.directory)
    sys.argv[1:] = command.arguments
    try:
        runpy.run_module("gemini_batch_mcp", run_name="__main__", alter_sys=True)
        return _ended(None)
    except SystemExit as end:
        return _ended(end.code)
    except BaseException:
        traceback.print_exc()
        return _ended(1)


def _ended(code: object) -> int:
    """Do what an interpreter does at its end, but for taking apart all that is loaded: 0.7 s of a command's 0.8.

    Threads are waited for, and what was registered for the end is called. Returns the exit code.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # as multiprocessing does at the end of what it forks
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if code is None or isinstance(code, int):
        return code or 0
    sys.stderr.write(f"{code}\n")
    sys.stderr.flush()
    return 1


if __name__ == "__main__":
    main()
