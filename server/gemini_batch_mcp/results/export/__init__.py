"""A result table as a file for other programs: JSON lines, CSV, Parquet, vectors."""
