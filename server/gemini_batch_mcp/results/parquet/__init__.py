"""Parquet parts put one behind the other without unpacking them."""
