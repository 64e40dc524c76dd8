"""Answers that earlier batches have got for the very requests of an order: found by identity, and taken over."""
