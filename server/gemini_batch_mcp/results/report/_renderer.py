"""A process of its own that draws charts: Vega-Lite specifications as a JSON list in, SVG texts as one out.

Apart from the server, because the engine inside vl-convert keeps 90 MB and ends the whole process on characters that it
does not expect. It reads standard input to its end and writes standard output once.
"""

import json
import sys
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


if __name__ == "__main__":
    sys.stdout.write(draw(sys.stdin.read()))
