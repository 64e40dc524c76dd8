"""Loading what stays as long as the process does, and keeping the garbage collector away from it.

The collector looks now and then at every object there is, and the process does nothing else meanwhile: 0.12 s once all
libraries of a server are loaded, in the middle of a call. It never finds anything among what was loaded.
"""

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


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
