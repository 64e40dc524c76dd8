"""Answers to single requests: they follow from the request alone and say that no model made them."""
