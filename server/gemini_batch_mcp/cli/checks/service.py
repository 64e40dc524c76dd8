"""Gemini as it is reached from here: the key, what stands in between, the model, the space, the clock."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib.metadata import version
from typing import Final
from urllib.parse import urlsplit

from gemini_batch_mcp.cli.checks.finding import Check
from gemini_batch_mcp.cli.hosts.known import System
from gemini_batch_mcp.domain import Model
from gemini_batch_mcp.errors import AccessDenied, BatchError, ConfigurationError, Unavailable
from gemini_batch_mcp.redaction import is_placeholder
from gemini_batch_mcp.settings import (
    API_VERSION,
    KEYS_PAGE,
    PROXIES,
    Settings,
)
from gemini_batch_mcp.text import plain_text

#: A clock that is off by more spoils what is said about ages and expiry; certificates fail at days.
_MAX_SKEW_SECONDS: Final = 120
_SET_CLOCK: Final[Mapping[System, str]] = {
    "linux": "sudo timedatectl set-ntp true",
    "macos": "sudo sntp -sS time.apple.com",
    "windows": "w32tm /resync",
}


def key(settings: Settings) -> Check:
    """Say which key is used, or why none can be."""
    if settings.sandbox:
        return Check("key", True, "not needed in the sandbox")
    if settings.cloud is not None:
        return Check("key", True, "not used: batches run on Google Cloud, with the credentials of this machine")
    if settings.api_key is None:
        return Check(
            "key", False, f"none; get one at {KEYS_PAGE} and set GEMINI_API_KEY, or try --sandbox, which needs none"
        )
    origin = settings.api_key.origin
    if is_placeholder(settings.api_key.value):
        shown = plain_text(settings.api_key.value, 60)
        return Check(
            "key",
            False,
            f"{origin} holds {shown}, which whoever started this did not fill in. Write the key itself in its place: "
            f"export {origin}=YOUR_KEY",
        )
    hidden = settings.api_key.hides
    besides = (
        f", which takes precedence; the other key, in {hidden}, is not used. To use it: unset {origin}"
        if hidden
        else ""
    )
    return Check("key", True, f"from {origin}{besides}")


def unknown_fields(settings: Settings) -> Check:
    """Say what becomes of what nobody here knows."""
    becomes = "refused" if settings.refuse_unknown else "sent to Gemini as it is, with a warning"
    finding = (
        f"a field of a request or a setting that neither this version nor google-genai {version('google-genai')} "
        f"knows is {becomes}"
    )
    return Check("new fields", True, finding)


def proxy(settings: Settings, env: Mapping[str, str]) -> tuple[str, ...]:
    """Return the variables by which requests go through a proxy, each with where that is; never a password."""
    if settings.sandbox:
        return ()
    scheme = urlsplit(settings.base_url).scheme or "https"
    said = []
    for name in (name for upper in PROXIES for name in (upper.lower(), upper)):
        value = env.get(name, "").strip()
        if not value or name.upper() not in (f"{scheme.upper()}_PROXY", "ALL_PROXY"):
            continue
        try:
            address = urlsplit(value if "://" in value else f"http://{value}")
            where = f"{address.hostname}:{address.port}" if address.port else f"{address.hostname}"
        except ValueError:
            where = "no address that can be read"
        said.append(f"{name} ({plain_text(where, 100)})")
    return tuple(said)


def unreached(name: str, error: BatchError, proxies: Sequence[str]) -> Check:
    """Say why Gemini could not be asked, and what stands in between."""
    finding = str(error)
    if proxies and not isinstance(error, AccessDenied) and isinstance(error, Unavailable | ConfigurationError):
        variable = proxies[0].partition(" ")[0]
        finding += (
            f" Requests go through the proxy of {', '.join(proxies)}. "
            f"To try without it: env -u {variable} gemini-batch-mcp doctor"
        )
    return Check(name, False, finding)


def reached(name: str, settings: Settings, models: Sequence[Model]) -> Check:
    """Say that Gemini answers, and with how many models."""
    return Check(name, True, f"{_where(settings)} answers; {len(models)} models, {len(_able(models))} support batches")


def _where(settings: Settings) -> str:
    if settings.sandbox:
        return "the embedded sandbox"
    if settings.cloud is not None:
        return f"{settings.cloud.base_url or 'Google'}, project {settings.cloud.project}, {settings.cloud.location},"
    return (settings.base_url or "Google") + f", API {API_VERSION}"


def model(settings: Settings, models: Sequence[Model]) -> Check:
    """Say whether the model for orders that name none supports batches, and which one like it does."""
    able = _able(models)
    if settings.model in able:
        return Check("model", True, settings.model)
    near = get_close_matches(settings.model, able, n=1, cutoff=0.0)
    mended = f": export GEMINI_BATCH_MODEL={near[0]}" if near else ""
    return Check(
        "model", False, f"{settings.model} is not one of the models that support batches; choose one that does{mended}"
    )


def _able(models: Sequence[Model]) -> list[str]:
    return [model.name.removeprefix("models/") for model in models if model.batch_methods]


def clock(ahead_seconds: float | None, system: System) -> list[Check]:
    """Say how far this machine's clock is off Google's; nothing where Google said no time."""
    if ahead_seconds is None:
        return []
    if abs(ahead_seconds) <= _MAX_SKEW_SECONDS:
        return [Check("clock", True, "agrees with Google's")]
    way = "ahead of" if ahead_seconds > 0 else "behind"
    return [
        Check(
            "clock",
            False,
            f"this machine's clock is {abs(ahead_seconds) / 60:,.0f} minutes {way} Google's, so that ages and expiry "
            f"are wrong here. Set it: {_SET_CLOCK[system]}",
        )
    ]
