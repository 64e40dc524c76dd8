"""An order's response schema: whether an answer fits it, and the columns that it fills."""
