"""The image's health check: asks a server over HTTP whether it is there. One on stdio is as healthy as its process.

It runs in the container, where the server is process 1, and says with its exit code how it went.
"""

import itertools
import sys
import urllib.request
from pathlib import Path
from typing import Final

#: What `gemini-batch-mcp serve` listens on unless `--port` says otherwise.
_PORT: Final = "8765"


def address(arguments: list[str]) -> str:
    """Return where a server with this command line answers, "" for one that is not on HTTP."""
    given = [part for argument in arguments for part in argument.split("=", 1)]
    values = dict(itertools.pairwise(given))
    if values.get("--transport") != "http":
        return ""
    return f"http://127.0.0.1:{values.get('--port', _PORT)}/health"


def main() -> None:
    """Exit with 0 for a server that answers, or that cannot be asked because it is on stdio."""
    command = Path("/proc/1/cmdline").read_bytes().decode(errors="replace")
    where = address(command.split("\0"))
    if where:
        try:
            with urllib.request.urlopen(where, timeout=4) as answer:  # noqa: S310 - the scheme stands above
                answer.read()
        except OSError as error:
            sys.exit(f"{where}: {error}")


if __name__ == "__main__":
    main()
