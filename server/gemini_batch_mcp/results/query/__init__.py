"""SQL over a result table: judged, locked in, and run in a process of its own."""
