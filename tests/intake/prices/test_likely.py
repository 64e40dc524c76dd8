"""What is likely holds: over orders made at random, of five kinds of answers, with thinking and without."""

import math
import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from statistics import fmean, pstdev

import pytest

from gemini_batch_mcp.intake.prices.estimate import Counting, estimate, limits_of
from gemini_batch_mcp.intake.prices.likely import Evidence, student_quantile, total_range
from gemini_batch_mcp.intake.prices.price_list import load_prices
from support.extent import in_part, tries
from support.requests import FLASH, ask, surveyed

PRICES = load_prices()
TODAY = date(2026, 11, 22)
#: What one answer takes, drawn at random; the scale differs from order to order.
Draw = Callable[[random.Random, float], float]
KINDS: dict[str, Draw] = {
    "labels": lambda rng, scale: rng.choice([2, 3, 3, 3, 4, 5]),
    "fields": lambda rng, scale: max(5.0, rng.gauss(scale, scale / 5)),
    "texts": lambda rng, scale: math.exp(rng.gauss(math.log(scale), 0.6)),
    "twofold": lambda rng, scale: rng.gauss(20, 4) if rng.random() < 0.8 else max(50.0, rng.gauss(400, 80)),
    "heavy": lambda rng, scale: math.exp(rng.gauss(math.log(scale), 1.2)),
}


def answer(rng: random.Random, kind: str, scale: float, thinking: float) -> int:
    thoughts = math.exp(rng.gauss(math.log(thinking), 0.8)) if thinking else 0.0
    return min(65_536, max(1, round(KINDS[kind](rng, scale) + thoughts)))


@in_part
def test_the_bill_of_an_order_lies_in_its_likely_range() -> None:
    """Of orders without drift at least 93 %; a range that only held for one kind would not pass."""
    rng, held, tried = random.Random(1), Counter[str](), Counter[str]()
    # A known input, so that the answers alone decide; 300 orders in a complete run.
    survey = surveyed(ask("x" * 400), model=FLASH, limits=limits_of(PRICES, FLASH, TODAY)).survey()
    for number in range(tries(300, 100)):
        kind, thinks = list(KINDS)[number % 5], number // 5 % 2 == 1
        scale, thinking = rng.uniform(30, 400), rng.uniform(200, 1500) if thinks else 0.0
        rows, pilot = rng.choice([300, 2_000]), rng.choice([20, 50, 200])
        evidence = Evidence(
            ("pilot",), pilot, tuple((100, answer(rng, kind, scale, thinking)) for _ in range(pilot)), longest=65_536
        )
        whole = replace(survey, rows=rows, text_bytes=survey.text_bytes * rows, most=replace(survey.most, rows=rows))
        whole = replace(whole, most=replace(whole.most, output_tokens=65_536 * rows))
        found = estimate(
            whole,
            Counting({1: 100}),
            model=FLASH,
            task="generate",
            prices=PRICES,
            today=TODAY,
            evidence=evidence,
        )
        price = PRICES.price(FLASH, TODAY)
        assert price is not None
        assert found.likely is not None
        written = sum(answer(rng, kind, scale, thinking) for _ in range(rows))
        bill = price.input_usd({"text": 100.0 * rows}) + price.output_usd(written)
        # What is likely lies within its range, and that below what no bill passes.
        assert found.likely.low_usd <= found.likely.usd <= found.likely.high_usd <= (found.cost_usd_high or 0)
        name = f"{kind}, thinking" if thinks else kind
        tried[name] += 1
        held[name] += found.likely.low_usd <= bill <= found.likely.high_usd
    share = held.total() / tried.total()
    sys.stderr.write(f"\n{tried.total()} orders without drift: bill in its likely range {share:.1%}\n")
    assert share >= 0.93, dict(held)
    # No kind is paid for by the others.
    assert min(held[name] / tried[name] for name in tried) >= 0.75, dict(held)


@in_part
def test_a_bootstrap_of_the_same_answers_holds_less_often() -> None:
    """Why the range is none: of a few long answers that make up much of the bill, many a pilot has not one."""
    rng, held, tried = random.Random(4), Counter[str](), tries(300, 20)
    for number in range(tried):
        kind, scale = list(KINDS)[number % 5], rng.uniform(30, 400)
        rows, pilot = 300, rng.choice([20, 50])
        values = [float(answer(rng, kind, scale, 0.0)) for _ in range(pilot)]
        bill = sum(answer(rng, kind, scale, 0.0) for _ in range(rows))
        sums = sorted(bootstrapped(rng, values, rows) for _ in range(400))
        _, low, high = total_range(values, rows, least_spread=1.0)
        held["range"] += low <= bill <= high
        held["bootstrap"] += sums[10] <= bill <= sums[-11]
    shares = {name: f"{held[name] / tried:.1%}" for name in ("range", "bootstrap")}
    sys.stderr.write(
        f"\n{tried} orders: bill in its likely range {shares['range']}, in a bootstrap's {shares['bootstrap']}\n"
    )
    assert held["bootstrap"] <= held["range"], shares
    assert held["range"] / tried >= 0.93, shares


def bootstrapped(rng: random.Random, values: list[float], rows: int) -> float:
    """A sum over all rows, if rows and answers are drawn from the values once more."""
    drawn = rng.choices(values, k=len(values))
    return rows * fmean(drawn) + rng.gauss(0, 1) * math.sqrt(rows) * pstdev(drawn)


def test_a_range_is_narrow_where_answers_are_alike_and_never_nothing() -> None:
    assert total_range([5.0] * 50, 0) == (0.0, 0.0, 0.0)
    middle, low, high = total_range([5.0] * 50, 1000, least_spread=1.0)
    assert middle == 5000
    assert 0.01 < (high - low) / middle < 0.05
    few, many = (total_range([3.0, 4.0, 5.0, 4.0] * count, 10_000) for count in (3, 300))
    assert many[2] - many[1] < (few[2] - few[1]) / 8
    # Zeros, as of blocked rows, are answers as well.
    assert total_range([0.0, 0.0, 10.0, 12.0, 9.0, 11.0, 8.0, 13.0], 100)[1] >= 0


@pytest.mark.parametrize(
    ("share", "freedom", "reference"),
    # From SciPy 1.17, scipy.stats.t.ppf.
    [
        (0.95, 4, 2.1318467863266495),
        (0.975, 7, 2.364624251592784),
        (0.975, 19, 2.0930240544083087),
        (0.975, 1999, 1.9611514201705613),
        (0.995, 7, 3.4994832973504924),
    ],
)
def test_the_quantiles_are_those_of_students_t(share: float, freedom: int, reference: float) -> None:
    assert student_quantile(share, freedom) == pytest.approx(reference, rel=5e-4)
