"""From answer files to the result table: slices, staging, classification, merge, counts."""
