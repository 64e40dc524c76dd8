"""Orders made at random, each after a pilot, through the tools: the bill lies where it was said to, drift is named.

`make simulations` runs all of them and prints the figures.
"""

import csv
import math
import os
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import Conversation, converse, newest
from support.extent import in_part, long, tries

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(3600), in_part]

#: Tokens of one answer, drawn at random; the scale differs from order to order.
Draw = Callable[[random.Random, float], float]
KINDS: Final[dict[str, Draw]] = {
    "labels": lambda rng, scale: rng.choice([2, 3, 3, 3, 4, 5]),
    "fields": lambda rng, scale: max(5.0, rng.gauss(scale, scale / 5)),
    "texts": lambda rng, scale: math.exp(rng.gauss(math.log(scale), 0.6)),
    "twofold": lambda rng, scale: rng.gauss(20, 4) if rng.random() < 0.8 else max(50.0, rng.gauss(400, 80)),
    "heavy": lambda rng, scale: math.exp(rng.gauss(math.log(scale), 1.2)),
}
ROWS: Final = 300
PILOTS: Final = (20, 50, 100)
SEED: Final = int(os.environ.get("SIMULATION_SEED", "20261129"))
#: The service writes so many characters for a token, and no answer is longer than so many tokens.
_TOKEN_CHARS: Final = 4
_MOST_TOKENS: Final = 8_000


@dataclass(frozen=True)
class World:
    """What rows are answered with: how long, thinking included, and how often not at all or not to the end."""

    kind: str
    scale: float
    thinking: float = 0.0
    truncated: float = 0.01
    failed: float = 0.01
    longer: float = 1.0

    def cell(self, rng: random.Random, number: int) -> str:
        """The text of a row, with what the service is to do of it."""
        tokens = KINDS[self.kind](rng, self.scale)
        if self.thinking:
            # The service's own thinking is short: this is billed alike.
            tokens += math.exp(rng.gauss(math.log(self.thinking), 0.8))
        word = f"chars:{_TOKEN_CHARS * min(_MOST_TOKENS, max(1, round(tokens * self.longer)))}"
        chance = rng.random()
        if chance < self.truncated:
            word = "cut_text"
        elif chance < self.truncated + self.failed:
            word = "error:13"
        return f"review {number} [[sandbox:{word}]]"


#: Each a drift that somebody would want to know of.
DRIFTS: Final[dict[str, Callable[[World], World]]] = {
    "answers twice as long": lambda world: replace(world, longer=2.0),
    "one in five truncated": lambda world: replace(world, truncated=0.2),
    "one in five failed": lambda world: replace(world, failed=0.2),
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Nobody is asked about money."""
    return replace(settings, confirm_above_usd=1e9)


@pytest.fixture
async def talk(settings: Settings, sandbox: Sandbox) -> AsyncIterator[Conversation]:
    """In one era: the same orders in the other one would only take as long again."""
    async with converse(settings, sandbox) as conversation:
        yield conversation


def a_world(rng: random.Random, number: int) -> World:
    thinking = rng.uniform(200, 1500) if number // len(KINDS) % 2 else 0.0
    return World(list(KINDS)[number % len(KINDS)], rng.uniform(30, 400), thinking)


@dataclass(frozen=True)
class Ended:
    """A whole order after its pilot: whether its bill lies in its likely range, and what is said of drift."""

    is_in_range: bool
    drift: str


async def ordered(
    talk: Conversation, sandbox: Sandbox, data: Path, rng: random.Random, tried: World, whole: World, pilot_rows: int
) -> Ended:
    """Order a pilot of one world and all rows of another by the same prompt, and let both end."""

    async def order(world: World, name: str, **more: Any) -> dict[str, Any]:
        if not (data / name).exists():
            with (data / name).open("w", newline="", encoding="utf-8") as file:
                rows = [(f"r{number}", world.cell(rng, number)) for number in range(ROWS)]
                csv.writer(file).writerows([("id", "text"), *rows])
        created = await talk.call("create_batch", source=name, key_column="id", prompt=prompt, **more)
        sandbox.finish(newest(sandbox))
        return await talk.call("get_results", batch=created["batch_id"])

    number = sandbox.creates
    prompt = f"Sum up ({number}): {{{{text}}}}"
    await order(tried, f"{number}.csv", sample_rows=pilot_rows)
    results = await order(whole, f"{number}.csv" if whole == tried else f"{number}-later.csv")
    asked = await talk.call("get_results", batch=results["batch_id"], view="order")
    low, _, high = asked["order"]["likely_usd"]
    drift = [warning for warning in results["warnings"] if warning.startswith("More than chance")]
    return Ended(low <= results["usage"]["cost_usd"] <= high, " ".join(drift))


@long
async def test_bills_lie_in_their_likely_range_and_drift_is_named_hardly_ever_without_one(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    """Of orders without drift at least 93 % in range, and at most 5 % alarmed."""
    rng, held, alarmed, tried = random.Random(SEED), Counter[str](), Counter[str](), Counter[str]()
    for number in range(tries(300, 2)):
        world = a_world(rng, number)
        ended = await ordered(talk, sandbox, data, rng, world, world, rng.choice(PILOTS))
        tried[world.kind] += 1
        held[world.kind] += ended.is_in_range
        alarmed[world.kind] += bool(ended.drift)
    shares = [one.total() / tried.total() for one in (held, alarmed)]
    told = [f"{kind} {held[kind]}/{tried[kind]}" for kind in tried]
    sys.stderr.write(
        f"\n{tried.total()} simulated orders without drift: bill in its likely range {shares[0]:.1%} "
        f"({', '.join(told)}), false alarms {shares[1]:.1%}\n"
    )
    assert shares[0] >= 0.93, (held, tried)
    assert shares[1] <= 0.05, alarmed


async def test_of_orders_that_drifted_drift_is_named(talk: Conversation, sandbox: Sandbox, data: Path) -> None:
    """In at least 90 %. What is missed are most pilots of 20 rows in which a row failed or was truncated by chance."""
    rng, named, drifted = random.Random(SEED + 1), Counter[tuple[str, int]](), Counter[tuple[str, int]]()
    for number in range(tries(180, 1)):
        drift, pilot_rows = list(DRIFTS)[number % len(DRIFTS)], PILOTS[number // len(DRIFTS) % len(PILOTS)]
        # Each kind of answers meets each drift and each size.
        world = a_world(rng, number // (len(DRIFTS) * len(PILOTS)))
        ended = await ordered(talk, sandbox, data, rng, world, DRIFTS[drift](world), pilot_rows)
        drifted[drift, pilot_rows] += 1
        named[drift, pilot_rows] += bool(ended.drift)
    told = [f"{drift}, {rows} rows {named[drift, rows]}/{drifted[drift, rows]}" for drift, rows in drifted]
    share = named.total() / drifted.total()
    sys.stderr.write(f"\n{drifted.total()} simulated orders that drifted: named {share:.1%} ({'; '.join(told)})\n")
    assert share >= 0.9, told
