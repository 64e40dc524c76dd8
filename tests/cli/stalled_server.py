"""The command line, in a process one of whose threads comes to a stop where it puts a table into place."""

import os
import sys
import threading
from pathlib import Path
from typing import Any


def _stall(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "os.rename" and "results-" in Path(os.fsdecode(arguments[1])).name:
        Path(os.environ["GEMINI_TEST_STALL"]).touch()
        threading.Event().wait()


if __name__ == "__main__":
    sys.addaudithook(_stall)
    from gemini_batch_mcp.cli.main import main

    main()
