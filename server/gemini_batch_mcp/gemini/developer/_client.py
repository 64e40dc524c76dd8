"""Access to the Developer API: the key, and the SDK's client with our HTTP client under it, without its own retries."""

import importlib
import ssl
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import httpx2

from gemini_batch_mcp.errors import BatchError, ConfigurationError
from gemini_batch_mcp.gemini.failures import gemini_failure
from gemini_batch_mcp.gemini.http import GeminiHttpClient, Hook
from gemini_batch_mcp.gemini.retry import RetryPolicy, Timeouts
from gemini_batch_mcp.redaction import is_placeholder
from gemini_batch_mcp.settings import API_VERSION, KEYS_PAGE, Settings
from gemini_batch_mcp.text import plain_text

if TYPE_CHECKING:
    from google import genai

#: Google's endpoint. Stated, so that nothing but our settings can send requests elsewhere.
BASE_URL: Final = "https://generativelanguage.googleapis.com/"
#: Stands for a key where the service behind the given transport asks for none.
_SANDBOX_KEY: Final = "sandbox"


def load_sdk() -> None:
    """Import google.genai, which takes most of a second. Safe to call from any thread, any number of times."""
    for name in ("google.genai", "google.genai.errors", "google.genai.types"):
        importlib.import_module(name)


@dataclass(frozen=True, slots=True)
class Connection:
    """The SDK's client and the HTTP client under it."""

    sdk: "genai.Client"
    http: GeminiHttpClient

    async def read(self, path: str) -> object:
        """GET `path` (below the API version, with its query) and return the JSON as it came.

        The SDK's typed reads drop row counts and errors. Its public way to the raw reply is an `Operation` of one's
        own, whose name goes into the path as it is and whose `from_api_response` gets the untouched JSON.
        """
        from google.genai import types

        class RawReply(types.Operation):
            def __init__(self, name: str, content: object = None) -> None:
                self.name = name
                self.content = content

            @classmethod
            def from_api_response(cls, api_response: Any, is_vertex_ai: bool = False) -> Self:
                return cls(path, api_response)

        reply = await self.sdk.aio.operations.get(RawReply(path))
        return reply.content


@dataclass(frozen=True, slots=True)
class KeyAccess:
    """Calls with an API key."""

    settings: Settings
    transport: httpx2.AsyncBaseTransport | None
    policy: RetryPolicy
    timeouts: Timeouts
    hook: Hook

    def check(self) -> None:
        """Raise ConfigurationError when there is no key, or none that can be one."""
        self._key_and_origin()

    def identity(self) -> tuple[str, str]:
        """Return endpoint and key, and the setting that the key came from. Raises ConfigurationError."""
        key, origin = self._key_and_origin()
        endpoint = str(home_of(self.settings.base_url)).rstrip("/")
        if self.settings.sandbox:
            # One service for whatever key happens to be set.
            key, origin = "", "the sandbox"
        return f"{endpoint}\0{key}", origin

    def connect(self) -> Connection:
        """Build the clients; see `connect`."""
        return connect(
            self.settings, transport=self.transport, policy=self.policy, timeouts=self.timeouts, hook=self.hook
        )

    def load(self) -> None:
        """Import the SDK."""
        load_sdk()

    def failure(self, error: Exception, what: str, *, creates: bool = False, may_be_shed: bool = False) -> BatchError:
        """Return our error for one that was met."""
        _, origin = self._key_and_origin()
        return gemini_failure(error, what, key_origin=origin, creates=creates, may_be_shed=may_be_shed)

    def _key_and_origin(self) -> tuple[str, str]:
        return key_and_origin(self.settings, has_transport=self.transport is not None)


def key_and_origin(settings: Settings, *, has_transport: bool) -> tuple[str, str]:
    """Return the key and the name of the setting it came from.

    Raises:
        ConfigurationError: there is no key, or it cannot be one.
    """
    # Hosts put in what nobody filled in as it stands: the sandbox needs no key, so that is none.
    if has_transport and (settings.api_key is None or is_placeholder(settings.api_key.value)):
        return _SANDBOX_KEY, "the sandbox"
    if settings.api_key is None:
        raise ConfigurationError(
            "There is no Gemini API key.",
            f"Create one at {KEYS_PAGE}, set it as GEMINI_API_KEY (or GOOGLE_API_KEY) in the env part of this server's "
            "entry in your MCP client's configuration, and restart the server. To try things out without a key, start "
            "it with --sandbox: an embedded service that costs nothing, and in which no model answers.",
        )
    key, origin = settings.api_key.value, settings.api_key.origin
    if is_placeholder(key):
        raise ConfigurationError(
            f"{origin} holds {plain_text(key, 60)}, which your MCP client did not fill in.",
            f"Write the key itself into the env part of this server's entry, or start the client where {origin} is "
            "set, and restart the server.",
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError(
            f"{origin} contains characters that never occur in a Gemini API key.",
            f"Copy the key again and set {origin}.",
        )
    return key, origin


def connect(
    settings: Settings,
    *,
    transport: httpx2.AsyncBaseTransport | None,
    policy: RetryPolicy,
    timeouts: Timeouts,
    hook: Hook,
) -> Connection:
    """Build the clients. Blocks for the import of the SDK: call it off the event loop.

    Raises:
        ConfigurationError: the key, GOOGLE_GEMINI_BASE_URL, the proxy settings or the installation cannot be used.
    """
    key, _ = key_and_origin(settings, has_transport=transport is not None)
    home = home_of(settings.base_url)
    try:
        load_sdk()
    except ImportError as error:
        raise ConfigurationError(
            f"The Gemini client google-genai cannot be loaded ({type(error).__name__}).", "Reinstall this server."
        ) from error
    from google import genai
    from google.genai import types

    # create_embeddings() says at every call that it is experimental; the pinned wire shape is tested here.
    warnings.filterwarnings("ignore", message=r"batches\.create_embeddings\(\) is experimental")
    try:
        http = GeminiHttpClient(
            home, transport=transport, policy=policy, timeouts=timeouts, hook=hook, secrets=settings.secrets
        )
        # The SDK also sets up a client that blocks and a websocket, and reads all certificates of the system for each
        # of them, 0.04 s a time. Nothing here uses them, and with this context, which trusts nobody, nothing could.
        nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        options = types.HttpOptions(
            base_url=str(home),
            api_version=API_VERSION,
            httpx_async_client=http,
            client_args={"verify": nobody},
            async_client_args={"ssl": nobody},
            # The SDK's retries re-send creates and do not heed Retry-After; ours are in retry.py.
            retry_options=types.HttpRetryOptions(attempts=1),
        )
        return Connection(genai.Client(api_key=key, vertexai=False, http_options=options), http)
    except Exception as error:
        # A malformed proxy variable or certificate file: their texts may hold credentials.
        raise ConfigurationError(
            f"The connection to Gemini could not be set up ({type(error).__name__}).",
            "Check the proxy and certificate variables (HTTPS_PROXY, SSL_CERT_FILE) of the environment.",
        ) from None


def home_of(base_url: str) -> httpx2.URL:
    """Return the endpoint's address, Google's unless another is configured.

    Raises:
        ConfigurationError: it is no address.
    """
    try:
        home = httpx2.URL(base_url or BASE_URL)
    except httpx2.InvalidURL:
        home = httpx2.URL("")
    if home.scheme not in ("http", "https") or not home.host:
        raise ConfigurationError(
            "GOOGLE_GEMINI_BASE_URL is not an http or https address.", "Correct GOOGLE_GEMINI_BASE_URL or unset it."
        )
    return home
