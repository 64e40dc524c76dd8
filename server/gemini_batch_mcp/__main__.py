"""`python -m gemini_batch_mcp` is the command `gemini-batch-mcp`. An older Python can read this file, and no other."""

import sys

if tuple(sys.version_info) < (3, 11):
    sys.exit(
        f"gemini-batch-mcp needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}. "
        "Install it with a newer one: uv tool install --python 3.13 gemini-batch-mcp"
    )

from gemini_batch_mcp.cli.main import main

main()
