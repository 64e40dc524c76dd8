"""Files attached to rows: what they are, how large, and how they are sent."""
