"""Rows that no file holds as they are: given in the call, or chosen by a condition."""
