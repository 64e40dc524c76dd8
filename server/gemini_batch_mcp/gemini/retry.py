"""How long to wait and how often to try: retries of calls that may safely be repeated, and time-outs."""

import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import anyio
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

from gemini_batch_mcp.errors import QuotaExhausted, Unavailable

T = TypeVar("T")
_log = logging.getLogger(__name__)

#: HTTP statuses below 500 that say "again later".
_TRANSIENT_CLIENT_STATUSES: Final = frozenset({408, 429})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Retries of what may be repeated: reads, cancel, delete, upload chunks, downloads. Never a create.

    The pause doubles from `initial_delay_seconds` up to `max_delay_seconds`, each with up to a quarter of jitter.
    Gemini's own advice (Retry-After, RetryInfo) is followed when it is not longer than `max_delay_seconds`; a longer
    one ends the retries, and the error carries it. One read, its retries included, ends after `total_seconds`: a
    tool call may take 50 s at most.
    """

    attempts: int = 4
    initial_delay_seconds: float = 0.5
    max_delay_seconds: float = 8.0
    total_seconds: float = 40.0

    def pause_seconds(self, attempt: int) -> float:
        """Return the pause after attempt number `attempt`, which counts from 1."""
        pause = min(self.initial_delay_seconds * 2.0 ** (attempt - 1), self.max_delay_seconds)
        return pause * random.uniform(1.0, 1.25)  # noqa: S311 - jitter, not a secret


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Time-outs in seconds, set on every request (the SDK's default is none at all).

    `reply_seconds` is the longest silence in a reply; `create_seconds` the same for a create, during which Gemini
    parses the whole request file; `call_seconds` for the answer to one row, which the flex tier gives within minutes;
    `transfer_seconds` for one chunk of an upload or download. `processing_seconds`
    is how long an uploaded file may stay in PROCESSING. A download that brings next to nothing for `stall_seconds` has
    broken off, however often it still says something.
    """

    connect_seconds: float = 10.0
    reply_seconds: float = 30.0
    create_seconds: float = 300.0
    call_seconds: float = 1200.0
    transfer_seconds: float = 120.0
    processing_seconds: float = 120.0
    stall_seconds: float = 300.0


def is_transient_status(status_code: int) -> bool:
    """True for statuses that a later attempt may not meet again: 408, 429 and 5xx."""
    return status_code >= 500 or status_code in _TRANSIENT_CLIENT_STATUSES


async def repeat(call: Callable[[int], Awaitable[T]], policy: RetryPolicy, *, attempts: int = 0) -> T:
    """Run `call(attempt)` until it succeeds, fails for good, or the attempts are used up; `attempt` counts from 1.

    Raises:
        BatchError: the failure of the last attempt, unchanged.
    """

    def wait(state: RetryCallState) -> float:
        return max(policy.pause_seconds(state.attempt_number), _advised_seconds(_failure(state)) or 0.0)

    def note(state: RetryCallState) -> None:
        _log.info("Attempt %d: %s Trying again.", state.attempt_number, _failure(state))

    retrying = AsyncRetrying(
        stop=stop_after_attempt(attempts or policy.attempts),
        wait=wait,
        retry=retry_if_exception(lambda error: _may_repeat(error, policy)),
        before_sleep=note,
        sleep=anyio.sleep,
        reraise=True,
    )
    async for attempt in retrying:
        with attempt:
            result = await call(attempt.retry_state.attempt_number)
    return result


def _failure(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _advised_seconds(error: BaseException | None) -> float | None:
    return error.retry_after_seconds if isinstance(error, Unavailable | QuotaExhausted) else None


def _may_repeat(error: BaseException, policy: RetryPolicy) -> bool:
    if not isinstance(error, Unavailable | QuotaExhausted):
        return False
    if error.status_code and not is_transient_status(error.status_code):
        return False
    return (_advised_seconds(error) or 0.0) <= policy.max_delay_seconds
