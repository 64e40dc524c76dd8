"""The steps of one process, told one by one, and what is to happen at one of them: death, a full disk, another time."""

import os
import re
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from time_machine import travel

Deed = Literal["kill", "fill", "back", "replace"]

#: Effects on files that Python announces before they happen, and where the path stands among the arguments.
_FILE_EVENTS: Final = {
    "open": 0,
    "os.rename": 1,
    "os.link": 1,
    "os.remove": 0,
    "os.mkdir": 0,
    "os.rmdir": 0,
    "os.truncate": 0,
}
#: Where among the arguments the descriptor of the directory stands in which something gets a name.
_DIRECTORIES: Final = {"os.rename": 3, "os.link": 3}
_WRITING_FLAGS: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
#: What differs inside a path from run to run, or from job to job: ids, digests, random parts of temporary names.
_CHANCE: Final = (
    (re.compile(r"(?<=batches/)[^/]+"), "<batch>"),
    (re.compile(r"(?<=locks/)[^/]+(?=[.]lock)"), "<batch>"),
    (re.compile(r"(?<=answers-)\d+|(?<=calls-)\d+"), "<job>"),
    (re.compile(r"[0-9a-f]{32,64}"), "*"),
    (re.compile(r"(?<=/tmp)[a-z0-9_]{8}"), "*"),
    (re.compile(r"(?<=[.-])(?!jsonl|parquet)[a-z0-9_]{8,12}(?=$|[./])"), "*"),
)
#: Drafts and directories of work: their names, and what is in them, are nobody's business.
_HIDDEN: Final = re.compile(r"/\..*")
_FILLER_BLOCK: Final = b"\0" * 65_536
#: How far the clock is moved.
DAY_AND_MORE_SECONDS: Final = 26 * 3600.0


class Trap(msgspec.Struct, frozen=True):
    """What happens at the `nth` time (from 1) that `step` is reached; an empty `step` counts every step."""

    step: str
    nth: int = 1
    deed: Deed = "kill"


class Watch:
    """Writes down every step of this process, and springs the trap.

    Steps are what the product's own hook names (`create:before`, `ledger.plan:after`) and effects on files below
    `places` (`file.open home/ledger.sqlite3`), which are named before they happen.
    """

    def __init__(self, trace: Path, trap: Trap | None, places: dict[str, Path], filler: Path) -> None:
        self._trace = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._trap = trap
        self._places = {name: f"{place}/" for name, place in places.items()}
        self._filler = filler
        self._counts: Counter[str] = Counter()
        self._lock = threading.RLock()

    def __call__(self, step: str) -> None:
        """Note one step; the hook that the product is given."""
        with self._lock:
            self._counts[step] += 1
            os.write(self._trace, f"{step}\n".encode())
            trap = self._trap
            if trap is not None and trap.step in ("", step):
                count = self._counts[step] if trap.step else self._counts.total()
                if count == trap.nth:
                    self._spring(trap.deed)

    def listen_to_files(self) -> None:
        """Take effects on files as steps, from now on and to the end of the process."""
        sys.addaudithook(self._on_event)

    def _on_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        index = _FILE_EVENTS.get(event)
        if index is None or (event == "open" and not _is_writing(arguments)):
            return
        path = arguments[index]
        text = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
        if not isinstance(text, str):
            return
        directory = arguments[_DIRECTORIES[event]] if event in _DIRECTORIES else -1
        if directory >= 0:
            text = str(Path(f"/proc/self/fd/{directory}").readlink() / text)
        if _changes_nothing(event, text):
            return
        for name, place in self._places.items():
            if text.startswith(place):
                path = _HIDDEN.sub("/.*", plain(f"{name}/{text[len(place) :]}"))
                self(f"file.{event.removeprefix('os.')} {path}")

    def _spring(self, deed: Deed) -> None:
        if deed == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif deed == "fill":
            fill_disk(self._filler)
        elif deed == "replace":
            replace_directory(Path(self._places["home"]))
        else:
            move_clock(-DAY_AND_MORE_SECONDS)


def plain(path: str) -> str:
    """Return a path without what differs from run to run."""
    for pattern, stand_in in _CHANCE:
        path = pattern.sub(stand_in, path)
    return path


def fill_disk(filler: Path) -> None:
    """Write until the disk of `filler` takes no further byte."""
    with filler.open("ab", buffering=0) as file:
        block = _FILLER_BLOCK
        while block:
            try:
                file.write(block)
            except OSError:
                block = block[: len(block) // 2]


def replace_directory(directory: Path) -> None:
    """Put a copy in the place of a directory, as a restored backup or a synchronised folder does."""
    copy, gone = directory.with_name("copy"), directory.with_name("gone")
    shutil.copytree(directory, copy)
    directory.rename(gone)
    copy.rename(directory)
    shutil.rmtree(gone)


def move_clock(seconds: float) -> None:
    """Let this process live at another time from now on; its monotonic clock goes on as it was."""
    travel(datetime.fromtimestamp(time.time() + seconds, UTC), tick=True).start()


def _changes_nothing(event: str, path: str) -> bool:
    """True for what is done in case it is needed: making or locking what is there, removing what is not."""
    if event == "os.remove":
        return not os.path.lexists(path)
    return (event == "os.mkdir" or path.endswith("lock")) and os.path.lexists(path)


def _is_writing(arguments: tuple[Any, ...]) -> bool:
    _, mode, flags = arguments
    if isinstance(mode, str):
        return bool(set(mode) & set("wax+"))
    # A file without a name (O_TMPFILE), as the newest filelock makes one in a directory, is nobody's when it is left.
    return bool(flags & _WRITING_FLAGS) and not flags & os.O_DIRECTORY
