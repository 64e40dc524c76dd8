"""Pauses between two looks or two tries: how they grow, where that ends, and that several servers do not keep step."""

import random
from typing import Final

#: Growth of the pause from one look to the next, and its ceiling in seconds (our choice).
GROWTH: Final = 1.5
MAX_PAUSE_SECONDS: Final = 300.0


def next_pause(pause_seconds: float) -> float:
    """Return how long to wait before the look after the next one."""
    return min(pause_seconds * GROWTH, MAX_PAUSE_SECONDS)


def jittered(seconds: float, low: float = 0.9, high: float = 1.1) -> float:
    """Return a pause that is a little shorter or longer: servers that started together do not ask together."""
    return seconds * random.uniform(low, high)  # noqa: S311 - no secret depends on it
