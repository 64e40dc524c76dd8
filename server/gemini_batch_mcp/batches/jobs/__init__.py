"""A batch's jobs as Gemini and the ledger know them: found, tracked, locked, listed."""
