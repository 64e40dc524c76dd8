"""The price table: exact figures on exact days, what is said about a model, and a file of the user's own over it."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.errors import ConfigurationError, UsageError
from gemini_batch_mcp.intake.prices.price_list import PriceTable, load_prices

TODAY = date(2026, 11, 22)


@pytest.fixture(scope="module")
def table() -> PriceTable:
    return load_prices()


def override(directory: Path, content: Any) -> Path:
    path = directory / "my-prices.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("model", "day", "input_usd", "output_usd", "billed_as"),
    [
        ("gemini-4-argon", date(2026, 11, 30), 1.0, 5.0, "gemini-4-argon"),
        ("gemini-4-argon", date(2026, 12, 1), 2.0, 10.0, "gemini-4-argon"),
        ("gemini-4-carbon", date(2026, 11, 30), 1.0, 5.0, "gemini-4-carbon"),
        ("gemini-4-carbon", date(2026, 12, 1), 2.0, 10.0, "gemini-4-carbon"),
        ("gemini-4-hydrogen", TODAY, 0.75, 3.75, "gemini-4-hydrogen"),
        ("gemini-4-neon", TODAY, 1.5, 7.5, "gemini-4-neon"),
        ("gemini-3.8-flash", date(2026, 12, 31), 0.375, 1.875, "gemini-3.8-flash"),
        ("gemini-3.8-flash", date(2027, 1, 1), 0.75, 3.75, "gemini-3.8-flash"),
        ("models/gemini-3.7-flash", date(2027, 1, 1), 0.75, 3.75, "gemini-3.7-flash"),
        ("gemini-3.6-flash", TODAY, 0.375, 1.875, "gemini-3.6-flash"),
        ("gemini-3.5-flash", TODAY, 0.75, 4.5, "gemini-3.5-flash"),
        ("gemini-3-flash-preview", TODAY, 0.25, 1.5, "gemini-3-flash-preview"),
        ("gemini-2.5-pro", date(2026, 11, 30), 0.625, 5.0, "gemini-2.5-pro"),
        ("gemini-2.5-pro", date(2026, 12, 1), 0.375, 1.875, "gemini-3.8-flash"),
        ("gemini-2.5-pro", date(2027, 1, 1), 0.75, 3.75, "gemini-3.8-flash"),
        ("gemini-2.5-flash", date(2026, 12, 1), 0.15, 1.25, "gemini-3.5-flash-lite"),
        ("gemini-embedding-001", TODAY, 0.075, 0.0, "gemini-embedding-001"),
    ],
)
def test_a_model_costs_on_a_day_what_was_announced_for_it(
    table: PriceTable, model: str, day: date, input_usd: float, output_usd: float, billed_as: str
) -> None:
    price = table.price(model, day)
    assert price is not None
    assert (price.rates.input, price.rates.output, price.billed_as) == (input_usd, output_usd, billed_as)


def test_a_prompt_over_200_000_tokens_costs_more_with_the_models_that_have_such_a_tier(table: PriceTable) -> None:
    pro, flash = table.price("gemini-3.1-pro-preview", TODAY), table.price("gemini-3-flash-preview", TODAY)
    assert pro is not None
    assert flash is not None
    assert not pro.is_long(200_000)
    assert pro.is_long(200_001)
    assert not flash.is_long(900_000)
    assert pro.input_usd({"text": 1_000_000}) == 1.0
    assert pro.input_usd({"text": 1_000_000}, long_prompt=True) == 2.0
    assert pro.output_usd(1_000_000, long_prompt=True) == 9.0
    assert flash.input_usd({"text": 1_000_000}, long_prompt=True) == 0.25


def test_media_have_prices_of_their_own_where_the_table_has_them(table: PriceTable) -> None:
    embedding, image = table.price("gemini-embedding-2", TODAY), table.price("gemini-3-pro-image", TODAY)
    assert embedding is not None
    assert image is not None
    million = {"text": 1e6, "image": 1e6, "audio": 1e6, "video": 1e6}
    assert embedding.input_usd(million) == pytest.approx(0.10 + 0.225 + 3.25 + 6.00)  # type: ignore[arg-type]  # keys are literals
    assert image.input_usd({"text": 1e6, "image": 1e6}) == 2.0
    assert image.output_usd(1e6) == 60.0


def test_every_model_of_the_sandbox_that_takes_batches_has_a_price(table: PriceTable) -> None:
    from gemini_batch_mcp.sandbox.models import DEFAULT_MODELS

    names = {model.name for model in DEFAULT_MODELS if model.name != "gemini-live-sandbox"}
    assert names == set(table.models)
    assert all(table.price(name, TODAY) for name in names)


def test_a_change_counts_from_two_days_before_it(table: PriceTable) -> None:
    def inputs(day: date) -> list[float]:
        return [price.rates.input for price in table.prices("gemini-4-argon", day)]

    assert inputs(date(2026, 11, 28)) == [1.0]
    assert inputs(date(2026, 11, 29)) == [1.0, 2.0]
    assert inputs(date(2026, 12, 1)) == [2.0]
    assert table.prices("gemini-9", TODAY) == ()


def test_a_coming_change_of_price_is_announced(table: PriceTable) -> None:
    (said,) = table.advice("gemini-3.8-flash", TODAY)
    assert said == (
        "gemini-3.8-flash changes its batch price on 2027-01-01, from $0.375 / $1.875 per 1M to $0.75 / $3.75 per 1M: "
        "batches until then cost less."
    )
    (said,) = table.advice("gemini-3.8-flash", date(2026, 12, 30))
    assert said.endswith("a batch created today may still be running then.")
    assert table.advice("gemini-3.8-flash", date(2027, 1, 1)) == ()
    assert table.advice("gemini-3.8-flash", date(2026, 11, 1)) == ()
    assert table.advice("gemini-3.8-flash", date(2026, 11, 2)) != ()


def test_a_price_that_falls_is_worth_waiting_for_and_one_after_the_end_is_not_told(tmp_path: Path) -> None:
    rates = [{"input": 9, "output": 90}, {"from": "2026-12-10", "input": 0.1, "output": 0.5}]
    mine = {
        "priced_on": "2026-11-22",
        "models": {
            "gemini-9": {"rates": rates},
            "gemini-8": {"rates": rates, "shutdown": {"on": "2026-12-05", "instead": "gemini-9"}},
        },
    }
    table = load_prices(override(tmp_path, mine))
    assert table.advice("gemini-9", TODAY) == (
        "gemini-9 changes its batch price on 2026-12-10, from $9.00 / $90.00 per 1M to $0.10 / $0.50 per 1M: "
        "batches from then on cost less.",
    )
    assert table.advice("gemini-8", TODAY) == ("gemini-8 ends on 2026-12-05: use gemini-9 then.",)


def test_a_coming_route_is_announced_with_its_rates(table: PriceTable) -> None:
    (said,) = table.advice("gemini-2.5-pro", TODAY)
    assert said == (
        "From 2026-12-01 requests for gemini-2.5-pro go to gemini-3.8-flash at its rates ($0.375 / $1.875 per 1M)."
    )
    (said,) = table.advice("gemini-2.5-pro", date(2026, 11, 29))
    assert "may still be running then" in said
    assert table.advice("gemini-2.5-pro", date(2026, 9, 1)) == ()


def test_a_rerouted_model_says_where_its_requests_go_and_what_that_costs_soon(table: PriceTable) -> None:
    route, change = table.advice("gemini-2.5-pro", date(2026, 12, 1))
    assert route == "Requests for gemini-2.5-pro go to gemini-3.8-flash since 2026-12-01, at its rates."
    assert change.startswith("gemini-3.8-flash changes its batch price on 2027-01-01")
    (said,) = table.advice("gemini-3.5-flash", TODAY)
    assert "gemini-3.6-flash, presumably at its rates" in said


@pytest.mark.parametrize(
    ("model", "instead"),
    [
        ("gemini-2.0-flash", "gemini-3.5-flash-lite"),
        ("models/gemini-2.0-flash-lite-001", "gemini-3.5-flash-lite"),
        ("gemini-3-pro-preview", "gemini-3.1-pro-preview"),
        ("imagen-4.0-generate-001", "gemini-3.1-flash-image"),
        ("text-embedding-004", "gemini-embedding-001"),
    ],
)
def test_a_retired_model_is_refused_with_what_to_use_instead(table: PriceTable, model: str, instead: str) -> None:
    with pytest.raises(UsageError, match=f"was shut down on 2026-.* Use {instead} instead"):
        table.check(model, TODAY)
    (said,) = table.advice(model, TODAY)
    assert instead in said
    assert table.price(model, TODAY) is None
    assert instead in table.models


def test_a_model_is_refused_from_the_day_of_its_end_and_its_end_is_announced(table: PriceTable) -> None:
    eve, end = date(2027, 5, 6), date(2027, 5, 7)
    table.check("gemini-3.1-flash-lite", eve)
    assert table.advice("gemini-3.1-flash-lite", eve) == (
        "gemini-3.1-flash-lite ends on 2027-05-07: use gemini-3.5-flash-lite then.",
    )
    assert table.advice("gemini-3.1-flash-lite", TODAY) == ()
    with pytest.raises(UsageError, match="2027-05-07"):
        table.check("gemini-3.1-flash-lite", end)


def test_an_unknown_model_has_no_price_and_says_where_to_give_one(table: PriceTable) -> None:
    assert table.price("gemini-9-ultra", TODAY) is None
    (said,) = table.advice("gemini-9-ultra\n\x1b[31m", TODAY)
    assert said == (
        "The price table of 2026-11-28 has no price for gemini-9-ultra. "
        "GEMINI_BATCH_PRICES can name a file that has one."
    )


def test_doubts_about_a_model_are_said(table: PriceTable) -> None:
    assert "2026-10-02 and 2027-03-15" in table.advice("gemini-2.5-flash-image", TODAY)[0]


def test_whether_a_model_takes_batches_is_left_to_geminis_list_where_nothing_documents_it(table: PriceTable) -> None:
    assert [name for name in table.models if table.is_listed_only(name)] == [
        "gemini-4-carbon",
        "gemini-4-hydrogen",
        "gemini-4-neon",
    ]
    assert "Gemini's own list of models decides" in table.advice("gemini-4-neon", TODAY)[0]
    assert table.thinking_levels("models/gemini-4-neon") == ("LOW", "MEDIUM", "HIGH", "XHIGH")
    assert table.thinking_levels("gemini-9") == ()


def test_waiting_tokens_are_limited_by_model_and_tier(table: PriceTable) -> None:
    assert [table.enqueued_tokens("gemini-3.1-pro-preview", tier) for tier in (1, 2, 3)] == [
        5_000_000,
        500_000_000,
        1_000_000_000,
    ]
    assert table.enqueued_tokens("models/gemini-embedding-2") == 500_000
    assert table.enqueued_tokens("gemini-3.8-flash") == table.enqueued_tokens("gemini-3.7-flash") == 3_000_000
    assert table.enqueued_tokens("gemini-9") == 3_000_000


def test_a_file_of_the_users_own_replaces_and_adds_entries(tmp_path: Path) -> None:
    mine = {
        "priced_on": "2027-02-01",
        "models": {
            "gemini-3-flash-preview": {"rates": [{"input": 0.2, "output": 1.0}]},
            "gemini-9": {"rates": [{"input": 9, "output": 90}]},
            "gemini-2.0-flash": {"rates": [{"input": 0.05, "output": 0.2}]},
        },
        "retired": {"gemini-2.5-*": {"on": "2027-01-15", "instead": "gemini-9"}},
        "default_enqueued_tokens": [1, 2, 3],
    }
    table = load_prices(override(tmp_path, mine))

    def input_usd(model: str) -> float | None:
        price = table.price(model, date(2027, 2, 1))
        return price.rates.input if price else None

    assert table.priced_on == date(2027, 2, 1)
    assert input_usd("gemini-3-flash-preview") == 0.2
    assert input_usd("gemini-9") == 9
    assert input_usd("gemini-2.0-flash") == 0.05
    assert input_usd("gemini-3.8-flash") == 0.75
    assert input_usd("gemini-2.5-flash-lite") is None
    assert table.enqueued_tokens("gemini-9", 3) == 3
    assert table.enqueued_tokens("gemini-2.5-pro") == 5_000_000


def test_a_file_with_nothing_but_its_date_changes_only_the_date(tmp_path: Path) -> None:
    table = load_prices(override(tmp_path, {"priced_on": "2026-12-24"}))
    assert table.priced_on == date(2026, 12, 24)
    assert table.models == load_prices().models
    assert table.default_enqueued_tokens == (3_000_000, 400_000_000, 1_000_000_000)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "truncated"),
        ("[]", "array"),
        ("not json", "malformed"),
        ("[" * 100_000, "cannot be used"),
        ({}, "priced_on"),
        ({"priced_on": "yesterday"}, "priced_on"),
        ({"priced_on": "2026-12-24", "modells": {}}, "modells"),
        ({"priced_on": "2026-12-24", "models": {"m": {"rates": []}}}, "rates"),
        ({"priced_on": "2026-12-24", "models": {"m": {"rates": [{"input": -1}]}}}, "input"),
        ({"priced_on": "2026-12-24", "models": {"m": {"rates": [{"input": "1"}]}}}, "input"),
        ('{"priced_on": "2026-12-24", "models": {"m": {"rates": [{"input": 1e999}]}}}', "input|range"),
        ({"priced_on": "2026-12-24", "models": {"a b": {"rates": [{"input": 1}]}}}, "key"),
        (
            {
                "priced_on": "2026-12-24",
                "models": {"m": {"rates": [{"input": 1, "from": "2027-01-01"}, {"input": 2, "from": "2026-01-01"}]}},
            },
            "the rates of m are not in date order",
        ),
        (
            {
                "priced_on": "2026-12-24",
                "models": {"m": {"rates": [{"input": 1}], "routed": {"to": "n", "from": "2026-01-01"}}},
            },
            "m is routed to n",
        ),
        (
            {
                "priced_on": "2026-12-24",
                "models": {"m": {"rates": [{"input": 1}], "routed": {"to": "m", "from": "2026-01-01"}}},
            },
            "m is routed to m",
        ),
        (" " * (1 << 20) + "{}", "larger than 1,048,576 bytes"),
    ],
)
def test_a_wrong_file_is_refused_with_its_setting_and_the_place(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"(?s)GEMINI_BATCH_PRICES names my-prices\.json.*({said})"):
        load_prices(override(tmp_path, content))


@pytest.mark.parametrize("name", ["absent.json", ""])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"GEMINI_BATCH_PRICES names .*(No such file|Is a directory)"):
        load_prices(tmp_path / name)
