"""Whatever the user has becomes checked request lines with a price."""
