"""Calls to Gemini in general: connecting late, announcing each effect, mapping each failure, repeating reads."""

import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Generic, Protocol, TypeVar

import anyio
import httpx2

from gemini_batch_mcp.domain import Account, JsonObject
from gemini_batch_mcp.errors import BatchError, ConfigurationError
from gemini_batch_mcp.gemini.failures import not_understood
from gemini_batch_mcp.gemini.http import Exchange, GeminiHttpClient, Hook, exchange
from gemini_batch_mcp.gemini.retry import RetryPolicy, Timeouts, repeat
from gemini_batch_mcp.processes import load_in_background
from gemini_batch_mcp.redaction import Secrets
from gemini_batch_mcp.threads import in_thread

T = TypeVar("T")


class Connected(Protocol):
    """The clients of one API; all share one HTTP client."""

    @property
    def http(self) -> GeminiHttpClient:
        """The HTTP client under them."""


C = TypeVar("C", bound=Connected)
C_co = TypeVar("C_co", bound=Connected, covariant=True)


class Access(Protocol[C_co]):
    """Who calls, and with which clients: what sets one of Google's APIs apart from another."""

    def check(self) -> None:
        """Raise ConfigurationError when something is missing that every call needs."""

    def identity(self) -> tuple[str, str]:
        """Return what tells apart whose calls these are, and the name of the setting that says so.

        Raises:
            ConfigurationError: nothing can be asked.
        """

    def connect(self) -> C_co:
        """Make the clients; blocks. Raises ConfigurationError."""

    def load(self) -> None:
        """Import what `connect` needs; blocks."""

    def failure(self, error: Exception, what: str, *, creates: bool = False, may_be_shed: bool = False) -> BatchError:
        """Return our error for one that was met; see `failures.gemini_failure`."""


class Session(Generic[C]):
    """One connection to Google, made at the first call and shared by all."""

    def __init__(
        self,
        access: Access[C],
        secrets: Secrets,
        *,
        transport: httpx2.AsyncBaseTransport | None,
        hook: Hook,
        policy: RetryPolicy,
        timeouts: Timeouts,
    ) -> None:
        self._access = access
        self.secrets = secrets
        self._transport = transport
        self._lock = anyio.Lock()
        self._connection: C | None = None
        self.hook = hook
        self.policy = policy
        self.timeouts = timeouts

    async def connection(self) -> C:
        """Return the connection, made at the first call.

        Raises:
            ConfigurationError: there are no credentials, or a setting cannot be used.
        """
        self._access.check()
        async with self._lock:
            if self._connection is None:
                # In a thread, because importing the SDK takes most of a second and others are being served.
                self._connection = await in_thread(self._access.connect)
            return self._connection

    def check(self) -> None:
        """Raise ConfigurationError when there are no credentials, or none that can be used."""
        self._access.check()

    def account(self, salt: str) -> Account:
        """Return whose calls these are: the salt, and an HMAC-SHA256 that does not give away what tells them apart."""
        try:
            identity, origin = self._access.identity()
        except ConfigurationError:
            # Nothing can be asked of Gemini, and each call says why.
            return Account()
        digest = hmac.new(salt.encode(), identity.encode(), "sha256").hexdigest()
        return Account(f"{salt}:{digest}", origin)

    @property
    def made(self) -> C | None:
        """The connection, None before the first call."""
        return self._connection

    async def aclose(self) -> None:
        """Close the connection and the transport that was given."""
        if self._connection is not None:
            await self._connection.http.aclose()
        elif self._transport is not None:
            await self._transport.aclose()

    def warm_up(self) -> None:
        """Import the SDK in the background, so that the first call does not wait for it."""
        load_in_background("google-genai import", self._access.load)

    @asynccontextmanager
    async def effect(
        self,
        step: str,
        what: str,
        *,
        creates: bool = False,
        answers_row: bool = False,
        is_ours: Callable[[Exception], bool] = lambda error: False,
    ) -> AsyncIterator[Exchange]:
        """Announce one effect as `<step>:before` and, when it succeeded, `<step>:after`; map what fails in between.

        Our own errors, and exceptions that `is_ours` accepts, pass through unchanged. `what` completes
        "Gemini was asked to …". `creates` and `answers_row` say that it costs: it is sent once.
        """
        self.hook(f"{step}:before")
        reply_seconds = self.timeouts.create_seconds if creates else self.timeouts.reply_seconds
        with exchange(self.timeouts.call_seconds if answers_row else reply_seconds) as current:
            current.is_single = answers_row
            try:
                yield current
            except Exception as error:
                if isinstance(error, BatchError) or is_ours(error):
                    raise
                # Without the cause: its text, and a traceback that shows it, names addresses.
                raise self._access.failure(
                    error, what, creates=creates or answers_row, may_be_shed=answers_row
                ) from None
        self.hook(f"{step}:after")

    async def read(
        self,
        step: str,
        ask: Callable[[C, Exchange], Awaitable[object]],
        what: str,
        understand: Callable[[JsonObject], T | None],
    ) -> T:
        """Return what `understand` makes of the JSON object that `ask` gets, repeated as the policy says.

        `understand` answers None for an object that is no such reply; that too is repeated, as a fault on the way.
        """
        connection = await self.connection()

        async def call(attempt: int, current: Exchange) -> T:
            raw = await ask(connection, current)
            value = understand(raw) if isinstance(raw, dict) else None
            if value is None:
                raise not_understood(what, "unexpected JSON")
            return value

        return await self._repeated(step, what, call)

    async def repeatable(self, step: str, what: str, call: Callable[[int], Awaitable[T]]) -> T:
        """Run a call that may be repeated, within the policy's attempts and total time."""
        return await self._repeated(step, what, lambda attempt, _: call(attempt))

    async def _repeated(self, step: str, what: str, call: Callable[[int, Exchange], Awaitable[T]]) -> T:
        async def once(attempt: int) -> T:
            async with self.effect(step, what) as current:
                return await call(attempt, current)

        try:
            with anyio.fail_after(self.policy.total_seconds):
                return await repeat(once, self.policy)
        except TimeoutError as error:
            raise self._access.failure(error, what) from None

    async def deletion(self, step: str, what: str, delete: Callable[[], Awaitable[object]]) -> None:
        """Run a delete, repeated if need be. Not to find it at a later attempt means that an earlier one worked."""

        async def call(attempt: int) -> None:
            try:
                await delete()
            except Exception as error:
                if attempt == 1 or getattr(error, "code", 0) != 404:
                    raise

        await self.repeatable(step, what, call)


async def raw_reply(current: Exchange, call: Awaitable[object]) -> object:
    """Await a call of the SDK and return the JSON that Gemini replied.

    A reply that the SDK cannot read into its own types still says that the effect happened: the reply decides.

    Raises:
        ValueError: the reply is no JSON.
    """
    try:
        await call
    except Exception:
        if current.reply is None:
            raise
    return json.loads(current.reply or b"")
