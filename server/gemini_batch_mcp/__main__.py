"""`python -m gemini_batch_mcp` is the command `gemini-batch-mcp`."""

from gemini_batch_mcp.cli.main import main

main()
