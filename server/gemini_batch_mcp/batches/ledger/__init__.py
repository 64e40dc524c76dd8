"""What was ordered, what was sent, and how far it got: the database, its tables and its values."""
