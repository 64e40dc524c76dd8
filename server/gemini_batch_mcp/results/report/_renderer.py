"""A process of its own that draws charts: Vega-Lite specifications as a JSON list in, SVG texts as one out.

Apart from the server, because the engine inside vl-convert keeps 90 MB and ends the whole process on characters that it
does not expect. It reads a line of standard input and writes standard output once. When its input ends before, so does
it: whoever asked is gone.
"""

import json
import os
import sys
import threading
from typing import Final

import vl_convert

#: Named, so that a newer vl-convert draws the same pictures.
VEGA_LITE_VERSION: Final = "6.4"


def draw(specifications: str) -> str:
    """Return the charts of a JSON list as a JSON list. Nothing is ever loaded: no address is allowed."""
    return json.dumps(
        [
            vl_convert.vegalite_to_svg(specification, vl_version=VEGA_LITE_VERSION, allowed_base_urls=[])
            for specification in json.loads(specifications)
        ]
    )


def _end_with_the_input() -> None:
    while sys.stdin.readline():
        pass
    os._exit(1)


if __name__ == "__main__":
    asked = sys.stdin.readline()
    threading.Thread(target=_end_with_the_input, daemon=True).start()
    answer = draw(asked)
    # At once, and past the thread that reads: at the end of an interpreter the two would wait for each other.
    sys.stdout.write(answer)
    sys.stdout.flush()
    os._exit(0)
