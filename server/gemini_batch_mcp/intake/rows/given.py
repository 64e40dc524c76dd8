"""Rows given in the call itself, as a table: `[{"product": "mug", "text": "…"}]` with a prompt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gemini_batch_mcp.domain import JsonObject
from gemini_batch_mcp.errors import Problem, RequestProblems, UsageError
from gemini_batch_mcp.intake.template import listed, places
from gemini_batch_mcp.intake.validator.corrections import kind, nearest

#: Members of an item that is a request by itself.
_ITEM: Final = frozenset({"key", "prompt", "request"})
_ASKS: Final = ("prompt", "request")
_KEY: Final = "key"
_MAX_REPORTED: Final = 20


@dataclass(frozen=True, slots=True)
class GivenRows:
    """Rows of an order that has no source: objects whose members are columns."""

    rows: tuple[JsonObject, ...]
    #: What the source is called, for people.
    name: str = "`requests`"

    @property
    def key_column(self) -> str:
        """The column `key` where it holds a key for each row, empty where it does not."""
        keys = [row.get(_KEY) for row in self.rows]
        is_key = all(isinstance(key, str | int) and not isinstance(key, bool) and key != "" for key in keys)
        return _KEY if is_key and len(set(map(str, keys))) == len(keys) else ""


def given_rows(requests: Sequence[Any], prompt: str, system_instruction: str = "") -> GivenRows | None:
    """Return the rows that `requests` holds for a prompt; None where its items are requests themselves.

    An item is a request when it has nothing but `key`, and `prompt` or `request`, and neither is a column that the
    prompt names.

    Raises:
        UsageError: both are in the list, requests stand beside a prompt, or rows without one.
        RequestProblems: items are no objects.
    """
    named = {*places(prompt), *places(system_instruction)}
    asking = [number for number, item in enumerate(requests, 1) if _asks(item, named)]
    if not prompt:
        if not asking and requests and all(map(_is_row, requests)):
            columns = tuple(dict.fromkeys(str(name) for item in requests for name in item))
            raise UsageError(
                f"`requests` holds rows with {listed(columns)}, and the order has no prompt.",
                'Give prompt="… {{column}} …", or items {"key":"…","prompt":"…"}.',
            )
        return None
    if len(asking) == len(requests):
        raise UsageError(
            "A list of requests does not go with prompt: each item asks for itself.",
            'Leave the prompt out, or give rows such as {"text":"…"} and name their columns in it.',
        )
    if asking:
        row = next(number for number in range(1, len(requests) + 1) if number not in asking)
        raise UsageError(
            f"`requests` mixes requests (item {asking[0]:,}) with plain rows (item {row:,}).",
            "Give rows for the prompt, or requests that ask for themselves, in one list.",
        )
    _refuse_others(requests)
    return GivenRows(tuple(requests))


def _asks(item: Any, named: set[str]) -> bool:
    if not isinstance(item, Mapping) or not item.keys() <= _ITEM:
        return False
    return any(name in item and name not in named for name in _ASKS)


def _is_row(item: Any) -> bool:
    """True for what is a row, and no request with a slip in the one name that asks."""
    columns = [str(name) for name in item if name != _KEY] if isinstance(item, Mapping) else []
    return bool(columns[1:] or (columns and not nearest(columns[0], _ASKS)))


def _refuse_others(requests: Sequence[Any]) -> None:
    others = [(number, item) for number, item in enumerate(requests, 1) if not isinstance(item, Mapping)]
    if others:
        problems = [
            Problem(number, "", f"The item is {kind(item)}, not an object.", 'Write rows such as {"text":"…"}.')
            for number, item in others[:_MAX_REPORTED]
        ]
        plural = "" if len(others) == 1 else "s"
        message = f"`requests` has {len(others):,} item{plural} that cannot be rows; nothing was submitted."
        raise RequestProblems(problems, len(others), message, "Correct them, then submit the order again.")
