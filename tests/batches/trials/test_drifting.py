"""A whole run against its trial: named where it drifted, hardly ever where it did not; chances as SciPy has them."""

import math
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from gemini_batch_mcp.batches.trials._chance import (
    chi_square_tail,
    kolmogorov_tail,
    labels_alike,
    numbers_alike,
    share_risen,
    shares_alike,
)
from gemini_batch_mcp.batches.trials.drifting import differences
from gemini_batch_mcp.domain import ResultSummary
from gemini_batch_mcp.intake.prices.likely import Likely, total_range
from gemini_batch_mcp.results.store import AnswerSample
from support.extent import in_part, tries

#: USD for a token of output in these runs.
RATE = 1e-6


@dataclass(frozen=True)
class World:
    """What rows are answered with: how long, how often not at all, and what."""

    length: float = 150.0
    spread: float = 0.6
    thinking: float = 0.0
    truncated: float = 0.02
    failed: float = 0.02
    bad: float = 0.3
    score: float = 5.0
    summary: float = 60.0


#: Each a drift that somebody would want to know of.
DRIFTS: dict[str, Callable[[World], World]] = {
    "answers twice as long": lambda world: replace(world, length=world.length * 2, thinking=world.thinking * 2),
    "one in five truncated": lambda world: replace(world, truncated=0.2),
    "one in five failed": lambda world: replace(world, failed=0.2),
    "another label more often": lambda world: replace(world, bad=0.65),
    "higher numbers": lambda world: replace(world, score=world.score + 1.5),
    "longer texts": lambda world: replace(world, summary=world.summary * 2),
}


def run(rng: random.Random, world: World, rows: int) -> tuple[AnswerSample, ResultSummary]:
    truncated = sum(rng.random() < world.truncated for _ in range(rows))
    failed = sum(rng.random() < world.failed for _ in range(rows))
    ok = rows - truncated - failed
    written = tuple(
        round(
            math.exp(rng.gauss(math.log(world.length), world.spread))
            + (math.exp(rng.gauss(math.log(world.thinking), 0.8)) if world.thinking else 0)
        )
        for _ in range(ok)
    )
    fields: dict[str, tuple[str | int | float | bool | None, ...]] = {
        "mood": tuple("Bad " if rng.random() < world.bad else rng.choice(["good", "mixed"]) for _ in range(ok)),
        "score": tuple(rng.gauss(world.score, 2.0) for _ in range(ok)),
        "summary": tuple("x" * max(1, round(rng.gauss(world.summary, 20))) for _ in range(ok)),
        "is_long": tuple(rng.random() < 0.5 for _ in range(ok)),
    }
    return AnswerSample(written, fields), ResultSummary(
        expected=rows, returned=rows, succeeded=ok, truncated=truncated, failed=failed
    )


def told(rng: random.Random, world: World, drifted: World, pilot_rows: int = 50) -> list[str]:
    """What is said of a run of a drifted world, by a trial of the world that it was."""
    (trial, trial_rows), (whole, rows) = run(rng, world, pilot_rows), run(rng, drifted, 1_000)
    usd, low, high = (
        value * RATE for value in total_range([float(tokens) for tokens in trial.written], rows.succeeded)
    )
    likely = Likely(usd, low, high, len(trial.written), ("trial",))
    return differences(trial, whole, [trial_rows], rows, likely, sum(whole.written) * RATE)


def a_world(rng: random.Random, number: int) -> World:
    thinking = rng.uniform(200, 1500) if number % 2 else 0.0
    return World(length=rng.uniform(40, 400), spread=rng.choice([0.2, 0.6]), thinking=thinking)


@in_part
def test_a_run_like_its_trial_is_named_in_at_most_five_of_a_hundred() -> None:
    """Whatever share of its rows fail, or are truncated, and however small the trial was."""
    rng, tried, named = random.Random(1), tries(600, 60), 0
    for number in range(tried):
        truncated, failed = rng.choice([0.0, 0.02, 0.05, 0.15]), rng.choice([0.0, 0.02, 0.05, 0.15])
        world = replace(a_world(rng, number), truncated=truncated, failed=failed)
        named += bool(told(rng, world, world, rng.choice([20, 50, 100])))
    sys.stderr.write(f"\n{tried} runs like their trials: false alarms {named / tried:.1%}\n")
    assert named / tried <= 0.05


@in_part
@pytest.mark.parametrize("drift", DRIFTS)
def test_a_run_that_drifted_is_named_in_at_least_nine_of_ten(drift: str) -> None:
    rng, tried = random.Random(2), tries(100, 20)
    worlds = [a_world(rng, number) for number in range(tried)]
    named = sum(bool(told(rng, world, DRIFTS[drift](world))) for world in worlds)
    sys.stderr.write(f"\n{tried} runs that drifted, {drift}: named {named / tried:.1%}\n")
    assert named / tried >= 0.9


def test_what_differs_is_said_with_both_figures() -> None:
    rng = random.Random(3)
    phrases = " ".join(told(rng, World(), World(length=600, truncated=0.3, bad=0.9, score=9, summary=200)))
    assert "it cost $0." in phrases
    assert "was likely" in phrases
    assert "% truncated rows instead of " in phrases
    assert "output tokens an answer instead of" in phrases
    assert "mood is 'bad' in 9" in phrases
    assert "score is 9" in phrases
    assert "summary has 201 characters in the middle instead of" in phrases
    assert "is_long" not in phrases
    assert "failed" not in phrases


def test_chances_are_those_of_scipy() -> None:
    """SciPy 1.17: chi2.sf, kstwobign.sf, fisher_exact, hypergeom, chi2_contingency without correction, ks_2samp."""
    for (statistic, freedom), reference in {
        (3.84, 1): 0.05004352124870519,
        (0.5, 1): 0.47950012218695337,
        (9.21, 2): 0.01000170200470548,
        (12.3, 5): 0.03090046463546092,
        (40.0, 7): 1.258790387371308e-06,
        (55.0, 50): 0.29101030065964806,
    }.items():
        assert chi_square_tail(statistic, freedom) == pytest.approx(reference, rel=1e-9)
    for distance, reference in {
        0.5: 0.9639452436648751,
        0.8276: 0.49995841656354456,
        1.0: 0.26999967167735456,
        1.95: 0.00099591084288358,
    }.items():
        assert kolmogorov_tail(distance) == pytest.approx(reference, rel=1e-9)
    for one, other, reference in (
        ((3, 50), (120, 1000), 0.26098404359758903),
        ((0, 20), (9, 40), 0.022939049415897337),
        ((5, 50), (100, 1000), 1.0),
        ((0, 50), (0, 10), 1.0),
        ((7, 10), (1, 12), 0.006191950464396284),
    ):
        assert shares_alike(one, other) == pytest.approx(reference, rel=1e-6)
    for one, other, reference in (
        ((3, 50), (120, 1000), 0.09739957641453113),
        ((0, 20), (9, 40), 0.00924833393984172),
        ((7, 10), (1, 12), 0.9976076555023923),
    ):
        # hypergeom.cdf without half of hypergeom.pmf.
        assert share_risen(one, other) == pytest.approx(reference, rel=1e-6)
    labels = {"a": 30, "b": 15, "c": 8}, {"a": 320, "b": 350, "c": 330}
    # Together; twice, because each label is looked at by itself as well.
    assert labels_alike(*labels) == pytest.approx(2 * 0.0005975091595388747, rel=1e-9)
    # Labels that are too rare to be told from each other count as one.
    rare = {f"rare {number}": 1 for number in range(5)}
    assert labels_alike({"a": 45} | rare, {"a": 900, "other": 100}) > 0.1
    assert labels_alike({"a": 50}, {"b": 500}) < 1e-9
    one_sample, other_sample = [n / 40 for n in range(40)], [n / 300 + 0.3 for n in range(300)]
    assert numbers_alike(one_sample, other_sample) == pytest.approx(0.0008384181765417597, rel=0.2)
