"""This process and those that it starts: loaded once, with nothing of our environment, after those who answer calls.

The garbage collector looks now and then at every object there is, and the process does nothing else meanwhile: 0.12 s
once all libraries of a server are loaded, in the middle of a call. It never finds anything among what was loaded.
"""

import gc
import os
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_CODE: Final = "import sys; sys.path[:] = sys.argv[2:]; __import__(sys.argv[1], fromlist=['main']).main()"
#: Of a processor that others want as well, about a quarter (our choice).
_YIELDING: Final = 5
#: Beside one that answers, about a tenth (our choice): a thread that only reads and hashes has little to do.
_YIELDING_THREAD: Final = 10


@contextmanager
def loading() -> Iterator[None]:
    """Load without the collector, which would look at the same objects again and again; they are left out from then on.

    For the beginning of a process: what else is there at the end of the block is never collected, either.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def load_in_background(name: str, load: Callable[[], object]) -> None:
    """Load in a daemon thread of that name what a call would otherwise wait for; it is left out from then on.

    A failure is left to that call, which tells somebody who reads it.
    """

    def quietly() -> None:
        with suppress(Exception):
            load()
        gc.freeze()

    threading.Thread(target=quietly, name=name, daemon=True).start()


def yield_to_others() -> None:
    """Have this process, one that computes for long, yield the processor to those that answer calls."""
    # Windows has no such number.
    if hasattr(os, "nice"):
        os.nice(_YIELDING)


def yield_thread_to_others() -> None:
    """Have this thread, one that reads or hashes for long and nothing else, yield the processor to those that answer.

    Only Linux has threads of different niceness, and none takes its own back.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        # Where a sandbox forbids it, the work is done all the same.
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _YIELDING_THREAD)


def start(module: str) -> subprocess.Popen[bytes]:
    """Start `main` of a module of ours in a process of its own, with a pipe at either end; what it says is dropped.

    No key and no setting reaches it. Ctrl-C in a terminal is for this process, which then ends that one.

    Raises:
        OSError: the system refuses.
    """
    # Modules come from where ours came from; neither PYTHON… variables nor the user's site directory count.
    places = [str(Path(place).absolute()) for place in (*sys.path, str(Path(__file__).parents[1]))]
    return subprocess.Popen(  # noqa: S603 - no shell, and no argument comes from outside
        [sys.executable, "-I", "-S", "-c", _CODE, module, *places],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(sys.executable).anchor,
        env=_environment(),
        process_group=0,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )


def _environment() -> dict[str, str]:
    """Return what an interpreter needs to start: its own library, and on Windows the system's place.

    Both are known without our environment.
    """
    if sys.platform == "win32":
        # Loaded where it is needed: importing it takes longer than all else here.
        import ctypes

        place = ctypes.create_unicode_buffer(260)
        ctypes.windll.kernel32.GetWindowsDirectoryW(place, len(place))
        return {"SYSTEMROOT": place.value}
    directory, library = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME")
    if not directory or not library or not Path(directory, library).is_file():
        return {}
    return {"LD_LIBRARY_PATH": directory, "DYLD_LIBRARY_PATH": directory}
