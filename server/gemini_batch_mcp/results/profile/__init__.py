"""What a table's answers hold: the values of their fields, how numbers spread, what they vary with, what retries do."""
