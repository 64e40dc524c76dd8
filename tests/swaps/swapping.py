"""Files and directories that are swapped for links while somebody is at them: at a chosen moment, or all the time."""

import ctypes
import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any, Final

#: Stands in every file outside of the roots, and nowhere else.
SECRET: Final = "outside-the-roots-7f3a"
#: As it is, and inside base64, where it begins at any of three places; what its neighbours share is cut off.
SECRET_FORMS: Final = (
    SECRET.encode(),
    *(b64encode(b"x" * shift + SECRET.encode())[4:-4] for shift in range(3)),
)
_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2


class Moments:
    """Does something at the n-th time that this process opens, lists, links, renames or removes what has a name.

    What the system is asked about files is told to audit hooks, except for looks that open nothing: those are all over
    at the next moment. A hook stays for as long as the process, so there is one for all tests.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._name = ""
        self._at = 0
        self._deed: Callable[[], object] | None = None
        #: How many moments there were.
        self.count = 0
        sys.addaudithook(self._see)

    @contextmanager
    def at(self, number: int, name: str, deed: Callable[[], object]) -> Iterator[None]:
        """Do it at moment `number`, from 1; 0 only counts."""
        with self._lock:
            self._name, self._at, self._deed, self.count = name, number, deed, 0
        try:
            yield
        finally:
            with self._lock:
                self._name = ""

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._name or not event.startswith(("open", "os.", "shutil.")):
            return
        with self._lock:
            if not self._name or not any(self._name in str(argument) for argument in arguments):
                return
            self.count += 1
            if self.count == self._at and self._deed is not None:
                # What the deed itself does is no moment.
                self._name, name = "", self._name
                self._deed()
                self._name = name


def exchange(one: Path, other: Path) -> None:
    """Let two places have each other's contents, in one step.

    Raises:
        OSError: the system or the disk cannot.
    """
    paths = (os.fsencode(one), os.fsencode(other))
    if ctypes.CDLL(None, use_errno=True).renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


#: Exchanges two places until it is told to end; prints how often.
_RACER: Final = """
import ctypes, os, random, select, sys, time
one, other = map(os.fsencode, sys.argv[1:])
swap = ctypes.CDLL(None).renameat2
count = 0
print("ready", flush=True)
while not (count % 64 == 0 and select.select([0], [], [], 0)[0]):
    swap(-100, one, -100, other, 2)
    count += 1
    time.sleep(random.random() * float(os.environ["PAUSE"]))
print(count)
"""


class Racer:
    """Another process that swaps two places all the time, with pauses of up to `pause_seconds`."""

    def __init__(self, one: Path, other: Path, pause_seconds: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _RACER, str(one), str(other)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PAUSE": str(pause_seconds)},
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def stop(self) -> int:
        """End it; return how often it has swapped."""
        said, _ = self._process.communicate("stop")
        return int(said)
