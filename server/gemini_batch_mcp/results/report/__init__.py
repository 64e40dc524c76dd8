"""One self-contained HTML page about a batch: facts, charts, rows."""
