"""The life of a batch, from an order to its answers."""
