"""Answers as a table: built once from what Gemini sent, then read by page, by key, by SQL, or whole."""
