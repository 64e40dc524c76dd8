"""Calls to Gemini in general: connecting late, announcing each effect, mapping each failure, repeating reads."""

import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
import httpx2

from gemini_batch_mcp.domain import Account, JsonObject
from gemini_batch_mcp.errors import BatchError, ConfigurationError
from gemini_batch_mcp.gemini.developer._client import Connection, connect, home_of, key_and_origin, load_sdk
from gemini_batch_mcp.gemini.failures import gemini_failure, not_understood
from gemini_batch_mcp.gemini.http import Exchange, Hook, exchange
from gemini_batch_mcp.gemini.retry import RetryPolicy, Timeouts, repeat
from gemini_batch_mcp.processes import load_in_background
from gemini_batch_mcp.settings import Settings
from gemini_batch_mcp.threads import in_thread

T = TypeVar("T")


class Session:
    """One connection to Gemini, made at the first call and shared by all."""

    def __init__(
        self,
        settings: Settings,
        *,
        transport: httpx2.AsyncBaseTransport | None,
        hook: Hook,
        policy: RetryPolicy,
        timeouts: Timeouts,
    ) -> None:
        self._settings = settings
        self.secrets = settings.secrets
        self._transport = transport
        self._lock = anyio.Lock()
        self._connection: Connection | None = None
        self.hook = hook
        self.policy = policy
        self.timeouts = timeouts

    async def connection(self) -> Connection:
        """Return the connection, made at the first call.

        Raises:
            ConfigurationError: there is no key, or a setting cannot be used.
        """
        self._key_origin()
        async with self._lock:
            if self._connection is None:
                # In a thread, because importing the SDK takes most of a second and others are being served.
                self._connection = await in_thread(self._connect)
            return self._connection

    def check_key(self) -> None:
        """Raise ConfigurationError when there is no key, or none that can be one."""
        self._key_origin()

    def account(self, salt: str) -> Account:
        """Return whose calls these are: the salt and HMAC-SHA256 of endpoint and key, which give neither away."""
        try:
            key, origin = key_and_origin(self._settings, has_transport=self._transport is not None)
            endpoint = str(home_of(self._settings.base_url)).rstrip("/")
        except ConfigurationError:
            # Nothing can be asked of Gemini, and each call says why.
            return Account()
        if self._settings.sandbox:
            # One service for whatever key happens to be set.
            key, origin = "", "the sandbox"
        digest = hmac.new(salt.encode(), f"{endpoint}\0{key}".encode(), "sha256").hexdigest()
        return Account(f"{salt}:{digest}", origin)

    async def aclose(self) -> None:
        """Close the connection and the transport that was given."""
        if self._connection is not None:
            await self._connection.http.aclose()
        elif self._transport is not None:
            await self._transport.aclose()

    def warm_up(self) -> None:
        """Import the SDK in the background, so that the first call does not wait for it."""
        load_in_background("google-genai import", load_sdk)

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
                raise gemini_failure(
                    error,
                    what,
                    key_origin=self._key_origin(),
                    creates=creates or answers_row,
                    may_be_shed=answers_row,
                ) from None
        self.hook(f"{step}:after")

    async def read(self, step: str, path: str, what: str, understand: Callable[[JsonObject], T | None]) -> T:
        """GET `path` and return what `understand` makes of its JSON object, repeated as the policy says.

        `understand` answers None for an object that is no such reply; that too is repeated, as a fault on the way.
        """
        connection = await self.connection()

        async def call(attempt: int) -> T:
            raw = await connection.read(path)
            value = understand(raw) if isinstance(raw, dict) else None
            if value is None:
                raise not_understood(what, "unexpected JSON")
            return value

        return await self.repeatable(step, what, call)

    async def repeatable(self, step: str, what: str, call: Callable[[int], Awaitable[T]]) -> T:
        """Run a call that may be repeated, within the policy's attempts and total time."""

        async def once(attempt: int) -> T:
            async with self.effect(step, what):
                return await call(attempt)

        try:
            with anyio.fail_after(self.policy.total_seconds):
                return await repeat(once, self.policy)
        except TimeoutError as error:
            raise gemini_failure(error, what, key_origin=self._key_origin()) from None

    async def deletion(self, step: str, what: str, delete: Callable[[], Awaitable[object]]) -> None:
        """Run a delete, repeated if need be. Not to find it at a later attempt means that an earlier one worked."""

        async def call(attempt: int) -> None:
            try:
                await delete()
            except Exception as error:
                if attempt == 1 or getattr(error, "code", 0) != 404:
                    raise

        await self.repeatable(step, what, call)

    def _key_origin(self) -> str:
        return key_and_origin(self._settings, has_transport=self._transport is not None)[1]

    def _connect(self) -> Connection:
        return connect(
            self._settings, transport=self._transport, policy=self.policy, timeouts=self.timeouts, hook=self.hook
        )


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
