"""Rows that are answered now, one call each: what has left is written down before, what came back before it counts."""
