"""Who may come in over HTTP: by the whole name of the host and of the page that asks, and by a token."""

import hmac
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Asgi = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

#: Names by which this machine reaches itself.
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
#: To listen on all addresses of a machine; nobody asks for a server by these.
_EVERY_ADDRESS: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104
#: Asked for by supervisors, which know no token; it says nothing but that the server is there.
_OPEN_PATHS: Final = frozenset({"/health"})


@dataclass(frozen=True, slots=True)
class Visitors:
    """Whom a server on a port listens to. `hosts` are names in lower case, without a port.

    A page in a browser can make the browser ask this server under a name of the page's choosing: neither a foreign
    Host nor a foreign Origin gets in, whatever it begins or ends with.
    """

    hosts: frozenset[str] = LOOPBACK
    token: str = field(default="", repr=False)

    @classmethod
    def of(cls, host: str, allowed: Iterable[str], token: str) -> "Visitors":
        """Return who may come in where a server listens on `host`, and is known as `allowed` to a proxy before it."""
        wanted = {name.strip().lower().strip("[]") for name in (*allowed, host)}
        return cls(LOOPBACK | (wanted - _EVERY_ADDRESS), token)

    def let_in(self, application: Asgi) -> Asgi:
        """Return an application that answers those who may come in, and tells the others why they may not."""

        async def guarded(scope: Message, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await application(scope, receive, send)
                return
            refused = self._refusal(scope)
            if refused is None:
                await application(scope, receive, send)
                return
            status, sentence, headers = refused
            plain = (b"content-type", b"text/plain; charset=utf-8")
            await send({"type": "http.response.start", "status": status, "headers": [plain, *headers]})
            await send({"type": "http.response.body", "body": sentence.encode()})

        return guarded

    def _refusal(self, scope: Message) -> tuple[int, str, list[tuple[bytes, bytes]]] | None:
        hosts, origins = _header(scope, b"host"), _header(scope, b"origin")
        if len(hosts) != 1 or _name(hosts[0]) not in self.hosts:
            return (
                421,
                "This server does not answer to that host name. For the name of a proxy, start it with --allowed-host.",
                [],
            )
        if any(_origin(origin) not in self.hosts for origin in origins):
            return 403, "Requests from other sites' pages are refused.", []
        if self.token and scope["path"] not in _OPEN_PATHS and not self._knows_token(_header(scope, b"authorization")):
            challenge = (b"www-authenticate", b'Bearer realm="gemini-batch-mcp"')
            return 401, "Send the token of GEMINI_BATCH_HTTP_TOKEN as the header Authorization: Bearer …", [challenge]
        return None

    def _knows_token(self, given: list[str]) -> bool:
        if len(given) != 1:
            return False
        scheme, _, token = given[0].partition(" ")
        # Compared as bytes, and in a time that does not depend on where they differ.
        is_right = hmac.compare_digest(token.strip().encode("utf-8", "surrogateescape"), self.token.encode())
        return is_right and scheme.lower() == "bearer"


def _header(scope: Message, wanted: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == wanted]


def _origin(origin: str) -> str:
    scheme, _, rest = origin.partition("://")
    return _name(rest) if scheme.lower() in ("http", "https") else ""


def _name(host: str) -> str:
    """Return the name in `name:port`, empty where it is anything else."""
    try:
        parts = urlsplit(f"//{host}")
        port, name = parts.port, parts.hostname or ""
    except ValueError:
        return ""
    written = f"[{name}]" if ":" in name else name
    exact = {written, f"{written}:{port}", f"{written}:"}
    return name if host.lower() in exact else ""
