"""Which encoding a text has: its names, what languages look like, and how sure a reading is."""
