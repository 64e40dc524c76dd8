"""Rows that stay in BigQuery: SQL that writes requests, makes a table of answers, and reads it. Knows no client."""
