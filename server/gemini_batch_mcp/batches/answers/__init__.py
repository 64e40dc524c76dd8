"""What came back: fetched once, collected into the table, read, asked, saved, reported."""
