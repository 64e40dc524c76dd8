"""What an order is before anything leaves: its identity, its prepared lines, its price, and the user's consent."""
