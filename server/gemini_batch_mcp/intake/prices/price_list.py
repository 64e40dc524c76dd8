"""What a model costs in a batch on a given day, where its requests go by then, and how much may wait at Gemini.

The figures are data: `prices.json` beside this file, dated, and a file of the user's own laid over it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct, field

from gemini_batch_mcp.domain import Task
from gemini_batch_mcp.errors import ConfigurationError, UsageError, system_reason
from gemini_batch_mcp.settings import Tier
from gemini_batch_mcp.text import plain_text

#: A job lives 48 hours at most (batch guide), so a change this near can still meet its last rows.
JOB_LIFE: Final = timedelta(days=2)
#: How far ahead a change is announced (our choice).
SOON: Final = timedelta(days=60)
#: The largest answer of the generating models of the table, thinking included (model pages: 65,536).
OUTPUT_TOKEN_LIMIT: Final = 65_536
#: A price list is a few kB; anything larger is another file.
_MAX_FILE_BYTES: Final = 1 << 20

Modality = Literal["text", "image", "audio", "video"]
#: How requests are called that are answered now; empty for those of a batch.
CallTier = Literal["", Tier]

_Usd = Annotated[float, Meta(ge=0, le=1_000_000)]
_Count = Annotated[int, Meta(ge=0)]
_ModelName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
_Level = Annotated[str, Meta(pattern=r"^[A-Z]{1,20}$")]
_Pattern = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,126}\*?$")]


class LongPrompt(Struct, frozen=True, forbid_unknown_fields=True):
    """USD per 1M tokens of a request whose prompt is longer than `over_tokens`."""

    over_tokens: _Count
    input: _Usd
    output: _Usd


class Rates(Struct, frozen=True, forbid_unknown_fields=True):
    """USD per 1M tokens from `since` on. What media cost where it is not said: as text."""

    input: _Usd
    output: _Usd = 0.0
    since: date = field(default=date.min, name="from")
    long_prompt: LongPrompt | None = None
    image_input: _Usd | None = None
    audio_input: _Usd | None = None
    video_input: _Usd | None = None
    image_output: _Usd | None = None


class Route(Struct, frozen=True, forbid_unknown_fields=True):
    """From `since` on another model answers; `at_its_rates` says whether its prices are known to hold then."""

    to: _ModelName
    since: date = field(name="from")
    at_its_rates: bool = True


class End(Struct, frozen=True, forbid_unknown_fields=True):
    """The day from which a model answers no more, and what to use instead."""

    on: date
    instead: _ModelName


class ModelEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """One model: its rates in the order of their dates, and input tokens that may wait at tiers 1, 2 and 3.

    `thinking_levels` are the values of `thinkingLevel` that it takes, empty where that is not known. `listed_only` is
    for a model of which only Gemini's own list says whether it takes batches.
    """

    rates: Annotated[tuple[Rates, ...], Meta(min_length=1)]
    task: Task = "generate"
    output_token_limit: _Count = OUTPUT_TOKEN_LIMIT
    routed: Route | None = None
    shutdown: End | None = None
    enqueued_tokens: tuple[_Count, _Count, _Count] | None = None
    thinking_levels: tuple[_Level, ...] = ()
    listed_only: bool = False
    note: Annotated[str, Meta(max_length=300)] = ""


class _PriceFile(Struct, frozen=True, forbid_unknown_fields=True):
    priced_on: date
    models: dict[_ModelName, ModelEntry] = field(default_factory=dict)
    retired: dict[_Pattern, End] = field(default_factory=dict)
    default_enqueued_tokens: tuple[_Count, _Count, _Count] | None = None
    #: Standard prices are so many times those of batches and of the flex tier, which are half of them (optimization
    #: and flex pages of ai.google.dev, read 2026-11-28).
    standard_over_batch: Annotated[float, Meta(gt=0, le=100)] | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """What `model` costs on one day. `billed_as` is the model whose rates hold; figures are USD per 1M tokens."""

    model: str
    billed_as: str
    task: Task
    rates: Rates
    output_token_limit: int

    def input_usd(self, tokens: Mapping[Modality, float], *, long_prompt: bool = False) -> float:
        """Return the cost of input tokens by modality; `long_prompt` asks for the higher tier, if there is one."""
        tier = self.rates.long_prompt if long_prompt else None
        text = tier.input if tier else self.rates.input
        rates: dict[Modality, float | None] = {
            "image": self.rates.image_input,
            "audio": self.rates.audio_input,
            "video": self.rates.video_input,
        }
        return sum(count * _known(rates.get(modality), text) for modality, count in tokens.items()) / 1_000_000

    def output_usd(self, tokens: float, *, long_prompt: bool = False) -> float:
        """Return the cost of so many output tokens, at the dearest kind of output that the model has."""
        tier = self.rates.long_prompt if long_prompt else None
        text = tier.output if tier else self.rates.output
        return tokens * max(text, self.rates.image_output or 0.0) / 1_000_000

    def is_long(self, prompt_tokens: float) -> bool:
        """True when a prompt of that length is billed at the higher tier."""
        return self.rates.long_prompt is not None and prompt_tokens > self.rates.long_prompt.over_tokens


@dataclass(frozen=True, slots=True)
class PriceTable:
    """All that is known about models, as of `priced_on`. Names are taken with or without `models/`."""

    priced_on: date
    models: Mapping[str, ModelEntry]
    retirements: Mapping[str, End]
    default_enqueued_tokens: tuple[int, int, int]
    standard_over_batch: float
    #: What the prices are for, and how many times that of a batch they are.
    tier: CallTier = ""
    times: float = 1.0

    def at(self, tier: CallTier) -> "PriceTable":
        """Return the same for calls at a service tier; empty for batches, whose price flex has."""
        return replace(self, tier=tier, times=self.standard_over_batch if tier == "standard" else 1.0)

    def price(self, model: str, on: date) -> Price | None:
        """Return what a model costs on a day; None when it is not known. Where it is routed decides, once it is."""
        name = _bare(model)
        entry = self.models.get(name)
        if entry is None or self.retirement(name, on):
            return None
        billed_as = name
        if entry.routed and entry.routed.at_its_rates and on >= entry.routed.since:
            billed_as = entry.routed.to
        billed = self.models[billed_as]
        rates = [rates for rates in billed.rates if rates.since <= on] or [billed.rates[0]]
        return Price(name, billed_as, billed.task, _times(rates[-1], self.times), billed.output_token_limit)

    def prices(self, model: str, on: date) -> tuple[Price, ...]:
        """Return every price that a job created on that day can meet in its 48 hours; none when it is not known."""
        days = (on + timedelta(days=day) for day in range(JOB_LIFE.days + 1))
        found = [price for day in days if (price := self.price(model, day))]
        return tuple(price for index, price in enumerate(found) if price not in found[:index])

    def retirement(self, model: str, on: date) -> End | None:
        """Return how a model ended, if it has by that day."""
        name = _bare(model)
        entry = self.models.get(name)
        ends = [entry.shutdown] if entry and entry.shutdown else []
        ends += [end for pattern, end in self.retirements.items() if _matches(pattern, name)]
        return next((end for end in ends if on >= end.on), None)

    def check(self, model: str, on: date) -> None:
        """Refuse a model that has ended.

        Raises:
            UsageError: names the day, and the model to use instead.
        """
        if end := self.retirement(model, on):
            raise UsageError(f"{_bare(model)} was shut down on {end.on}.", f"Use {end.instead} instead.")

    def advice(self, model: str, on: date) -> tuple[str, ...]:
        """Return what somebody who creates a batch on that day should know about the model, a sentence each."""
        name = _bare(model)
        if end := self.retirement(name, on):
            return (f"{name} was shut down on {end.on}: use {end.instead} instead.",)
        entry, now = self.models.get(name), self.price(name, on)
        if entry is None or now is None:
            return (
                f"The price table of {self.priced_on} has no price for {plain_text(name, 80)}. "
                "GEMINI_BATCH_PRICES can name a file that has one.",
            )
        said = [*self._routing(name, entry, on), *self._changes(now, on)]
        if entry.shutdown and entry.shutdown.on - on <= SOON:
            said.append(f"{name} ends on {entry.shutdown.on}: use {entry.shutdown.instead} then.")
        if entry.note:
            said.append(f"{name}: {entry.note}")
        return tuple(said)

    def is_listed_only(self, model: str) -> bool:
        """True for a model that the table prices without knowing whether it takes batches."""
        entry = self.models.get(_bare(model))
        return entry is not None and entry.listed_only

    def thinking_levels(self, model: str) -> tuple[str, ...]:
        """Return the values of `thinkingLevel` that a model takes, the least first; empty where that is not known."""
        entry = self.models.get(_bare(model))
        return entry.thinking_levels if entry else ()

    def enqueued_tokens(self, model: str, tier: Literal[1, 2, 3] = 1) -> int:
        """Return how many input tokens of all active jobs of a model may wait at Gemini, for a project of that tier.

        From the rate-limits page of 2026-08-18; a model without a row there gets the one of gemini-3.7-flash.
        """
        entry = self.models.get(_bare(model))
        return ((entry.enqueued_tokens if entry else None) or self.default_enqueued_tokens)[tier - 1]

    def _routing(self, name: str, entry: ModelEntry, on: date) -> list[str]:
        route = entry.routed
        if route is None or route.since - on > SOON:
            return []
        if on < route.since:
            then = self.price(name, route.since)
            rates = f" ({_rates(then)})" if then else ""
            still = "; a batch created today may still be running then" if route.since - on <= JOB_LIFE else ""
            return [f"From {route.since} requests for {name} go to {route.to} at its rates{rates}{still}."]
        if route.at_its_rates:
            return [f"Requests for {name} go to {route.to} since {route.since}, at its rates."]
        return [
            f"Requests for {name} go to {route.to}, presumably at its rates; this estimate keeps the listed ones of "
            f"{name}. Name {route.to} to be sure."
        ]

    def _changes(self, now: Price, on: date) -> list[str]:
        said = []
        for rates in self.models[now.billed_as].rates:
            then = self.price(now.model, rates.since)
            if not timedelta(0) < rates.since - on <= SOON or then is None or then.billed_as != now.billed_as:
                continue
            if rates.since - on <= JOB_LIFE:
                effect = "a batch created today may still be running then"
            elif rates.input < now.rates.input:
                effect = "batches from then on cost less"
            else:
                effect = "batches until then cost less"
            said.append(
                f"{now.billed_as} changes its batch price on {rates.since}, from {_rates(now)} to {_rates(then)}: "
                f"{effect}."
            )
        return said


def load_prices(override: Path | None = None) -> PriceTable:
    """Read the price table, with the entries of `override` in place of those of the same name.

    The file has the form of `prices.json`; all but `priced_on` may be left out. A model that it prices counts as
    alive, whatever the table says, unless the file itself retires it.

    Raises:
        ConfigurationError: the file cannot be read or is wrong; names GEMINI_BATCH_PRICES and the place.
    """
    ours = _decode(files("gemini_batch_mcp").joinpath("intake", "prices", "prices.json").read_bytes())
    if override is None:
        return _table(ours)
    try:
        theirs = _decode(_read(override))
        retired = {
            pattern: end
            for pattern, end in ours.retired.items()
            if not any(_matches(pattern, name) for name in theirs.models)
        }
        return _table(
            _PriceFile(
                priced_on=theirs.priced_on,
                models=ours.models | theirs.models,
                retired=retired | theirs.retired,
                default_enqueued_tokens=theirs.default_enqueued_tokens or ours.default_enqueued_tokens,
                standard_over_batch=theirs.standard_over_batch or ours.standard_over_batch,
            )
        )
    except OSError as error:
        reason = system_reason(error)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        reason = plain_text(str(error), 200)
    raise ConfigurationError(
        f"GEMINI_BATCH_PRICES names {override.name}, which cannot be used: {reason}.",
        "Correct the file (the form is that of prices.json in the package) or unset GEMINI_BATCH_PRICES.",
    )


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_MAX_FILE_BYTES + 1)
    if len(data) > _MAX_FILE_BYTES:
        raise ValueError(f"it is larger than {_MAX_FILE_BYTES:,} bytes")
    return data


def _decode(data: bytes) -> _PriceFile:
    return msgspec.json.decode(data, type=_PriceFile)


def _table(file: _PriceFile) -> PriceTable:
    """Build the table.

    Raises:
        ValueError: dates are out of order, or a route leads to a model that has no entry or is routed itself.
    """
    for name, entry in file.models.items():
        dates = [rates.since for rates in entry.rates]
        if dates != sorted(set(dates)):
            raise ValueError(f"the rates of {name} are not in date order")
        if entry.routed and (entry.routed.to not in file.models or entry.routed.to == name):
            raise ValueError(f"{name} is routed to {entry.routed.to}, which has no entry of its own")
    assert file.default_enqueued_tokens is not None  # prices.json states both
    assert file.standard_over_batch is not None
    return PriceTable(file.priced_on, file.models, file.retired, file.default_enqueued_tokens, file.standard_over_batch)


def _times(rates: Rates, times: float) -> Rates:
    """Return rates that are so many times as high."""
    if times == 1.0:
        return rates
    figures = ("input", "output", "image_input", "audio_input", "video_input", "image_output")
    higher = {name: figure * times for name in figures if (figure := getattr(rates, name)) is not None}
    long = rates.long_prompt
    if long is not None:
        long = LongPrompt(long.over_tokens, long.input * times, long.output * times)
    return msgspec.structs.replace(rates, long_prompt=long, **higher)


def _bare(model: str) -> str:
    return model.strip().removeprefix("models/")


def _matches(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _known(rate: float | None, otherwise: float) -> float:
    return otherwise if rate is None else rate


def _rates(price: Price) -> str:
    figures = [price.rates.input] if price.task == "embed" else [price.rates.input, price.rates.output]
    return "$" + " / $".join(re.sub(r"(\.\d\d\d*?)0+$", r"\1", f"{figure:.4f}") for figure in figures) + " per 1M"
