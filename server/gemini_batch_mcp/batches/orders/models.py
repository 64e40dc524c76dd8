"""Is this a model that takes batches? By the dated table first, then by Gemini's own list, before anything is sent."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.orders.pricing import read_prices
from gemini_batch_mcp.domain import Model, Order, Task
from gemini_batch_mcp.errors import BatchError, Unavailable, UsageError
from gemini_batch_mcp.intake.prices.price_list import PriceTable

#: The batch call of each task, as `supportedGenerationMethods` names it in the live list of models.
_BATCH_METHOD: Final[Mapping[Task, str]] = {"generate": "batchGenerateContent", "embed": "asyncBatchEmbedContent"}
_MODEL_NAME = re.compile(r"(?:models/|tunedModels/)?[a-zA-Z0-9][a-zA-Z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model that takes batches. Prices are USD per 1M tokens in a batch today, None where none is known.

    `enqueued_tokens` are the input tokens that may wait at tiers 1, 2 and 3; `notes` are sentences with dates.
    """

    name: str
    task: Task
    is_default: bool
    input_usd: float | None
    output_usd: float | None
    output_token_limit: int | None
    enqueued_tokens: tuple[int, int, int]
    thinking_levels: tuple[str, ...]
    ends_on: date | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelList:
    """All models that take batches, as far as is known. `asked_gemini`: the names are those of Gemini's own list."""

    priced_on: date
    asked_gemini: bool
    models: tuple[ModelFacts, ...]


async def list_models(app: App) -> ModelList:
    """Return the models that take batches: those that Gemini lists for this key, or else those of the price table.

    Raises:
        ConfigurationError: the user's price table cannot be used.
    """
    prices, today = await read_prices(app), datetime.now(UTC).date()
    try:
        listed = {entry.name.removeprefix("models/"): entry for entry in await app.gateway.list_models()}
    except BatchError:
        listed = {}
    tasks: dict[str, Task] = {}
    for task in _BATCH_METHOD:
        tasks |= dict.fromkeys((name for name, entry in listed.items() if _names_method(entry, task)), task)
    if not tasks:
        tasks = {name: entry.task for name, entry in prices.models.items() if not entry.listed_only}
    facts = [
        _facts(app, prices, name, task, today) for name, task in tasks.items() if not prices.retirement(name, today)
    ]
    facts.sort(key=lambda facts: (not facts.is_default, facts.task, facts.name))
    return ModelList(prices.priced_on, bool(listed), tuple(facts))


def _facts(app: App, prices: PriceTable, name: str, task: Task, today: date) -> ModelFacts:
    entry, price = prices.models.get(name), prices.price(name, today)
    return ModelFacts(
        name=name,
        task=task,
        is_default=name == app.settings.model.removeprefix("models/"),
        input_usd=price.rates.input if price is not None else None,
        output_usd=price.rates.output if price is not None and task == "generate" else None,
        output_token_limit=price.output_token_limit if price is not None and task == "generate" else None,
        enqueued_tokens=(
            prices.enqueued_tokens(name, 1),
            prices.enqueued_tokens(name, 2),
            prices.enqueued_tokens(name, 3),
        ),
        thinking_levels=prices.thinking_levels(name),
        ends_on=entry.shutdown.on if entry is not None and entry.shutdown is not None else None,
        notes=prices.advice(name, today),
    )


async def check_model(app: App, prices: PriceTable, model: str, task: Task, *, ask: bool) -> None:
    """Refuse a model that has been shut down, that Gemini does not list, or that does not take this kind of batch.

    A model that the table prices for the task is not asked about unless `ask` or the table leaves it to Gemini's list:
    a create takes no more calls than it must. A list that cannot be had is no reason to refuse either.

    Raises:
        UsageError: the model's name is malformed, or names no model that fits; names the nearest right ones.
    """
    if not _MODEL_NAME.fullmatch(model):
        raise UsageError(f"{model[:80]!r} is not a model name.", "Give a name such as gemini-3-flash-preview.")
    today = datetime.now(UTC).date()
    prices.check(model, today)
    price = prices.price(model, today)
    is_known = price is not None and price.task == task and not prices.is_listed_only(model)
    if model.startswith("tunedModels/") or (is_known and not ask):
        return
    try:
        listed = await app.gateway.list_models()
    except Unavailable:
        return
    by_name = {entry.name.removeprefix("models/"): entry for entry in listed}
    name = model.removeprefix("models/")
    if not by_name:
        return
    usable = sorted(known for known, entry in by_name.items() if _takes_batches(entry, task))
    if name not in by_name:
        raise UsageError(_absence(prices, name), _fitting(app, name, usable))
    if not _takes_batches(by_name[name], task):
        kind = "embedding batches (task='embed')" if task == "embed" else "batches of task='generate'"
        raise UsageError(f"{name} does not support {kind}.", _fitting(app, "", usable))


def _absence(prices: PriceTable, name: str) -> str:
    """Say why a model is not in Gemini's list: the key where the model is known to exist, else its name."""
    if name in prices.models:
        return f"The model {name} exists, but Gemini does not offer it to this key."
    return f"Gemini has no model {name!r}."


def _fitting(app: App, name: str, usable: Sequence[str]) -> str:
    """Name the models that fit, nearest names first, the default one among them where it fits."""
    near = difflib.get_close_matches(name, usable, n=3, cutoff=0.5) or list(usable[:5])
    default = app.settings.model.removeprefix("models/")
    shown = [entry for entry in near if entry != default]
    shown += [f"{default} (the default)"] if default in usable else []
    meant = (
        f"Did you mean {near[0]}? " if name and near and near[0] in difflib.get_close_matches(name, usable, 1) else ""
    )
    return f"{meant}Models that fit: {', '.join(shown) or 'none is listed'}."


def check_thinking(prices: PriceTable, order: Order) -> None:
    """Refuse a thinking level that the order's model is known not to have: every row of it would fail.

    Raises:
        UsageError: names the levels that the model takes.
    """
    levels = prices.thinking_levels(order.model)
    config = order.generation_config
    thinking = config.get("thinkingConfig") or config.get("thinking_config")
    if not levels or not isinstance(thinking, Mapping):
        return
    level = thinking.get("thinkingLevel") or thinking.get("thinking_level")
    if isinstance(level, str) and level.upper() not in (*levels, "THINKING_LEVEL_UNSPECIFIED"):
        raise UsageError(
            f"{order.model} has no thinking level {level[:40]!r}.",
            f"Write one of {', '.join(levels)} in thinkingLevel.",
        )


def _takes_batches(model: Model, task: Task) -> bool:
    # A list without any methods says nothing; the create will tell.
    return not model.batch_methods or _BATCH_METHOD[task] in model.batch_methods


def _names_method(model: Model, task: Task) -> bool:
    return _BATCH_METHOD[task] in model.batch_methods
