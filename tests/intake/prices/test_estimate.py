"""What a batch will take: few calls however long the file is, a range that holds, and the caps over it."""

from dataclasses import replace
from datetime import date
from typing import Any

import anyio
import pytest

from gemini_batch_mcp.domain import JsonObject, Task
from gemini_batch_mcp.errors import AccessDenied, Rejected, Unavailable
from gemini_batch_mcp.intake.prices import estimate as module
from gemini_batch_mcp.intake.prices.estimate import (
    Counting,
    CountTokens,
    Estimate,
    count,
    estimate,
    limits_of,
    over_cap,
)
from gemini_batch_mcp.intake.prices.price_list import load_prices
from support.requests import FLASH, ask, surveyed, with_part

pytestmark = pytest.mark.anyio

TODAY = date(2026, 11, 22)
PRICES = load_prices()


class Counter:
    """Counts a request as its text's length in words, like a Gemini that is asked; notes the calls."""

    def __init__(self, *failures: Exception) -> None:
        self.calls: list[JsonObject] = []
        self._failures = list(failures)

    async def __call__(self, request: JsonObject) -> int:
        self.calls.append(request)
        await anyio.lowlevel.checkpoint()
        if self._failures:
            raise self._failures.pop()
        return len(request["contents"][0]["parts"][0]["text"].split())


async def estimated(
    *requests: JsonObject,
    model: str = FLASH,
    task: Task = "generate",
    count_tokens: CountTokens | None = None,
    today: date = TODAY,
) -> Estimate:
    surveyor = surveyed(*requests, model=model, task=task, limits=limits_of(PRICES, model, today))
    counting = Counting()
    if count_tokens is not None:
        counting = await count(surveyor.requests(), count_tokens)
    return estimate(surveyor.survey(), counting, model=model, task=task, prices=PRICES, today=today)


def weight(*requests: JsonObject) -> float:
    """The most tokens that texts of requests can have: their bytes but for the frame, by the rule."""
    return surveyed(*requests).survey().most.text


# The estimate


async def test_a_small_batch_is_counted_by_gemini_line_for_line() -> None:
    counter = Counter()
    found = await estimated(
        ask("one two three", maxOutputTokens=100), ask("four five", maxOutputTokens=50), count_tokens=counter
    )
    assert found == Estimate(
        input_tokens=5,
        output_tokens_max=150,
        cost_usd_low=round(5 * 0.25e-6, 6),
        cost_usd_high=0.000227,
        priced_on="2026-11-28",
        basis=(
            "Input: countTokens on 2 of 2 lines, all lines, ±0 %. Output: at most maxOutputTokens where set, thinking "
            "included; the low figure counts no output. Batch prices of 2026-11-28."
        ),
        warnings=(),
        is_counted=True,
    )
    assert len(counter.calls) == 2


async def test_a_large_batch_takes_twenty_calls_and_is_scaled_by_length() -> None:
    orders = [ask("word " * (1 + number % 7), maxOutputTokens=10) for number in range(20_000)]
    counter = Counter()
    found = await estimated(*orders, count_tokens=counter)

    assert len(counter.calls) == 20
    assert found.input_tokens == pytest.approx(20_000 * 4, rel=0.25)
    assert found.output_tokens_max == 200_000
    assert found.cost_usd_low is not None
    assert found.cost_usd_high is not None
    assert found.cost_usd_low < 80_000 * 0.25e-6 < found.cost_usd_high - 200_000 * 1.5e-6
    assert "countTokens on 20 of 20,000 lines, scaled by length, ±" in found.basis
    assert found == await estimated(*orders, count_tokens=Counter())


async def test_lines_without_a_cap_are_bounded_by_the_models_own_limit() -> None:
    found = await estimated(ask(), ask(maxOutputTokens=10), ask(), count_tokens=Counter())
    assert found.output_tokens_max == 2 * 65_536 + 10
    assert "at most maxOutputTokens where set, else 65,536 tokens a line" in found.basis
    assert found.warnings == (
        "2 lines set no maxOutputTokens: the high figure assumes 65,536 tokens for each. Setting it narrows the range.",
    )
    one = await estimated(ask(), model="gemini-3-pro-image")
    assert one.output_tokens_max == 32_768
    assert "Output: at most 32,768 tokens a line" in one.basis
    assert any(said.startswith("1 line sets no maxOutputTokens") for said in one.warnings)


async def test_several_candidates_are_several_answers_and_a_cap_over_the_limit_is_the_limit() -> None:
    found = await estimated(ask(maxOutputTokens=100, candidateCount=4), ask(maxOutputTokens=100))
    assert found.output_tokens_max == 500
    found = await estimated({**ask(), "generation_config": {"max_output_tokens": 999_999, "candidate_count": 2}})
    assert found.output_tokens_max == 2 * 65_536


async def test_an_embedding_batch_costs_its_input_only() -> None:
    texts = [{"content": {"parts": [{"text": "x" * 4000}]}}] * 3
    found = await estimated(*texts, model="gemini-embedding-001", task="embed")
    assert found.input_tokens == 3000
    assert found.output_tokens_max == 0
    assert found.cost_usd_high == pytest.approx(3 * 2000 * 0.075e-6, abs=2e-6)
    assert "Output" not in found.basis
    assert all("maxOutputTokens" not in said for said in found.warnings)


async def test_media_are_priced_by_their_kind_and_scaled_by_lines() -> None:
    image = {"content": {"parts": [{"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]}}
    found = await estimated(*[image] * 1000, model="gemini-embedding-2", task="embed")
    assert found.input_tokens == 1_120_000
    assert found.cost_usd_low == pytest.approx(1.12 * 0.225 * 0.75)
    assert "scaled by length" in found.basis


async def test_sound_without_a_price_of_its_own_and_files_that_are_only_named_are_said() -> None:
    sound = with_part({"fileData": {"fileUri": "files/x", "mimeType": "audio/mpeg"}}, **ask_config())
    found = await estimated(ask(maxOutputTokens=1), sound, sound)
    assert any("Audio is priced like text" in said for said in found.warnings)
    assert found.unbounded[0].startswith("2 lines (first: 2) name files that can't be inspected here")
    assert found.unbounded[0] in found.warnings


def ask_config() -> dict[str, Any]:
    return {"generationConfig": {"maxOutputTokens": 10}}


async def test_a_row_over_200_000_tokens_is_priced_at_the_higher_tier() -> None:
    short, long = ask("x" * 40_000, maxOutputTokens=1000), ask("x" * 1_200_000, maxOutputTokens=1000)
    below = await estimated(short, short, model="gemini-3.1-pro-preview")
    above = await estimated(short, long, model="gemini-3.1-pro-preview")
    assert below.cost_usd_low == pytest.approx(20_000 * 1.0e-6 * 0.75)
    assert below.cost_usd_high == pytest.approx(weight(short, short) * 1.0e-6 + 2000 * 6.0e-6, abs=1e-6)
    assert above.cost_usd_low == pytest.approx((10_000 * 1.0e-6 + 300_000 * 2.0e-6) * 0.75)
    # The line that may be long is priced as one, and no other.
    high = weight(short) * 1.0e-6 + 1000 * 6.0e-6 + weight(long) * 2.0e-6 + 1000 * 9.0e-6
    assert above.cost_usd_high == pytest.approx(high, abs=1e-6)


async def test_a_price_that_changes_within_the_jobs_life_widens_the_range() -> None:
    asked = ask("x" * 4_000_000, maxOutputTokens=100_000)
    before = await estimated(asked, model="gemini-4-argon", today=date(2026, 11, 28))
    eve = await estimated(asked, model="gemini-4-argon", today=date(2026, 11, 30))
    after = await estimated(asked, model="gemini-4-argon", today=date(2026, 12, 1))
    assert before.cost_usd_low == eve.cost_usd_low == 0.75
    assert after.cost_usd_low == 1.5
    assert eve.cost_usd_high == after.cost_usd_high == pytest.approx(2 * before.cost_usd_high)  # type: ignore[operator]  # it is known
    assert any("may still be running then" in said for said in eve.warnings)


async def test_an_unknown_model_has_tokens_but_no_cost() -> None:
    found = await estimated(ask("x" * 400), model="gemini-9")
    assert found.input_tokens == 100
    assert (found.cost_usd_low, found.cost_usd_high) == (None, None)
    assert any(said.startswith("The price table of 2026-11-28 has no price for gemini-9") for said in found.warnings)


async def test_without_gemini_the_offline_rule_holds_and_says_so() -> None:
    found = await estimated(ask("x" * 400, maxOutputTokens=10))
    assert found.input_tokens == 100
    assert found.basis.startswith(
        "Input: the offline rule (4 characters a token) on 1 of 1 line, all lines, ±25 %. "
        "The high figure bounds each line by its own bytes and files."
    )
    assert found.cost_usd_high == pytest.approx(weight(ask("x" * 400)) * 0.25e-6 + 10 * 1.5e-6, abs=2e-5)


async def test_the_first_failure_ends_the_asking() -> None:
    counter = Counter(*[Unavailable("No connection.")] * 100)
    found = await estimated(*[ask("x" * 400, maxOutputTokens=10)] * 30, count_tokens=counter)
    assert len(counter.calls) <= 5
    assert found.input_tokens == pytest.approx(3000, rel=0.01)
    assert any(said.endswith("No connection.") for said in found.warnings)
    denied = await estimated(ask(), count_tokens=Counter(AccessDenied("The key was refused.")))
    assert any(said.endswith("The key was refused.") for said in denied.warnings)


async def test_lines_that_gemini_cannot_count_are_brought_to_the_level_of_the_others() -> None:
    counter = Counter(Rejected("Gemini refused the request."))
    found = await estimated(*[ask("word " * 8, maxOutputTokens=10)] * 3, count_tokens=counter)
    assert len(counter.calls) == 3
    assert found.input_tokens == 24
    assert "countTokens on 2 and the offline rule (4 characters a token) on 1 of 3 lines" in found.basis


async def test_a_gemini_that_keeps_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_COUNTING_SECONDS", 0.05)

    async def silent(request: JsonObject) -> int:
        await anyio.sleep_forever()
        raise AssertionError

    found = await estimated(ask("x" * 400), count_tokens=silent)
    assert found.input_tokens == 100
    assert any("did not answer within 0 s" in said for said in found.warnings)


async def test_five_calls_at_most_are_under_way_at_a_time() -> None:
    current = most = 0

    async def count(request: JsonObject) -> int:
        nonlocal current, most
        current += 1
        most = max(most, current)
        await anyio.lowlevel.checkpoint()
        current -= 1
        return 7

    assert (await estimated(*[ask()] * 20, count_tokens=count)).input_tokens == 140
    assert most == 5


async def test_counts_for_lines_that_the_rule_sees_nothing_in_are_text() -> None:
    async def count(request: JsonObject) -> int:
        return 1000

    found = await estimated(ask("", **ask_config()["generationConfig"]), count_tokens=count)
    assert found.input_tokens == 1000
    assert found.cost_usd_low == 0.00025


async def test_a_schema_that_gemini_does_not_count_is_part_of_the_high_figure_only() -> None:
    schema = {"type": "OBJECT", "properties": {f"field_{number}": {"type": "STRING"} for number in range(50)}}
    plain, shaped = ask("Hello.", maxOutputTokens=10), ask("Hello.", maxOutputTokens=10, responseSchema=schema)
    for counter in (None, Counter()):
        without, found = await estimated(plain, count_tokens=counter), await estimated(shaped, count_tokens=counter)
        assert (found.input_tokens, found.cost_usd_low) == (without.input_tokens, without.cost_usd_low)
        assert found.cost_usd_high is not None
        assert without.cost_usd_high is not None
        assert found.cost_usd_high > without.cost_usd_high + 500 * 0.25e-6


async def test_lines_that_nobody_looked_at_are_bounded_by_their_own_bytes() -> None:
    """Twenty lines of words are counted; between others stand digits, of which each may be a token."""
    words, digits = ask("word " * 20, maxOutputTokens=1), ask("7" * 4000, maxOutputTokens=1)
    found = await estimated(*[words] * 300, *[digits] * 3, *[words] * 300, count_tokens=Counter())
    assert found.cost_usd_high is not None
    assert found.cost_usd_high >= (600 * 20 + 3 * 4000) * 0.25e-6 + 603 * 1.5e-6


async def test_a_count_that_passes_the_bound_of_its_line_raises_the_bounds_of_all() -> None:
    async def noise(request: JsonObject) -> int:
        return 4000

    found = await estimated(*[ask("x" * 4000, maxOutputTokens=1)] * 100, count_tokens=noise)
    assert found.input_tokens == pytest.approx(400_000, rel=0.01)
    assert found.cost_usd_high == pytest.approx(400_000 * 0.25e-6 + 100 * 1.5e-6, rel=0.01)


# The caps


def costing(high: float | None) -> Estimate:
    return Estimate(1, 1, None if high is None else 0.0, high, "2026-11-22", "")


def test_a_batch_over_the_cap_is_refused_with_both_figures() -> None:
    assert over_cap(costing(99), None) is None
    assert over_cap(costing(5), 5.0) is None
    assert over_cap(costing(1234.5), 5.0) == (
        "GEMINI_BATCH_MAX_COST_USD allows $5.00 a batch, and this one may cost up to $1,234.50."
    )
    assert over_cap(costing(0.0001), 0.0) == (
        "GEMINI_BATCH_MAX_COST_USD allows $0.00 a batch, and this one may cost up to $0.0001."
    )


def test_what_has_no_bound_is_over_every_cap_with_the_reason() -> None:
    open_ended = replace(costing(0.01), unbounded=("Line 7 uses googleSearch, which costs extra.",))
    assert over_cap(open_ended, None) is None
    assert over_cap(open_ended, 5.0) == (
        "GEMINI_BATCH_MAX_COST_USD allows $5.00 a batch, and the cost of this one has no upper bound. "
        "Line 7 uses googleSearch, which costs extra."
    )


def test_a_cost_that_is_not_known_is_over_every_cap() -> None:
    assert over_cap(costing(None), None) is None
    assert over_cap(costing(None), 1e9) == (
        "GEMINI_BATCH_MAX_COST_USD allows $1,000,000,000.00 a batch, and this model's price is unknown."
    )
