"""Every failure of the SDK, of HTTP and of the transport → one of our errors, in our own words.

Gemini's message is quoted only after `safe_text`; links, keys and upload ids never get through. What an exception of
the transport says is never quoted, only what kind it is: such texts name addresses.
"""

import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx2

from gemini_batch_mcp.errors import (
    AccessDenied,
    BatchError,
    ConfigurationError,
    GeminiError,
    NotFound,
    OutcomeUnknown,
    QuotaExhausted,
    Rejected,
    Unavailable,
)
from gemini_batch_mcp.gemini.bodies import ReplyTooLarge
from gemini_batch_mcp.gemini.retry import is_transient_status
from gemini_batch_mcp.json_members import as_list, as_object, as_text
from gemini_batch_mcp.text import safe_text

#: These end a request before a byte of it was sent, so it cannot have had an effect.
_NOTHING_SENT: Final = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
)
#: How the flex tier turns a call away, beside 429 (flex guide, 2026-11).
_SHED: Final = 503
#: A wait beyond a week is no advice that anybody can follow.
_LONGEST_ADVICE_SECONDS: Final = 7 * 24 * 3600.0


def gemini_failure(
    error: Exception, what: str, *, key_origin: str, creates: bool = False, may_be_shed: bool = False
) -> BatchError:
    """Return our error for `error`, met while doing `what` ("read job batches/x").

    `creates` says that the call makes what costs, so that a lost reply leaves its outcome unknown; `may_be_shed` that a
    503 to it says that it was turned away. `key_origin` is the setting that the key came from.
    """
    from google.genai import errors  # loaded by now: only a call through the SDK can fail here

    if isinstance(error, errors.APIError):
        return _answered(error, what, key_origin, creates and not (may_be_shed and error.code == _SHED))
    if isinstance(error, ReplyTooLarge):
        if creates:
            return outcome_unknown(what, f"the reply has {error}")
        return Unavailable(
            f"Gemini's answer has {error} when asked to {what}, so the rest was not read.",
            "If GOOGLE_GEMINI_BASE_URL is set, check it; otherwise order fewer rows at once, or from a file.",
            status_code=200,  # so that it is not asked for again
        )
    if creates and not isinstance(error, _NOTHING_SENT):
        return outcome_unknown(what, f"the reply was lost or unreadable ({type(error).__name__})")
    if isinstance(error, httpx2.TransportError | TimeoutError):
        return _unreachable(error, what)
    return not_understood(what, type(error).__name__)


def not_understood(what: str, reason: str) -> Unavailable:
    """Return the error for a reply that is not what the API documents."""
    return Unavailable(
        f"Gemini's answer could not be understood ({reason}) when asked to {what}.",
        "Try again; if it keeps happening, the endpoint or the google-genai version may not be compatible.",
    )


def outcome_unknown(what: str, reason: str, status_code: int = 0) -> OutcomeUnknown:
    """Return the error for a create that may or may not have happened."""
    return OutcomeUnknown(
        f"It is unknown whether Gemini managed to {what}: {reason}.",
        "Look whether it happened before asking for it again.",
        status_code=status_code,
    )


def _unreachable(error: Exception, what: str) -> BatchError:
    if isinstance(error, httpx2.UnsupportedProtocol):
        return ConfigurationError(
            "GOOGLE_GEMINI_BASE_URL is not an http or https address.", "Correct GOOGLE_GEMINI_BASE_URL or unset it."
        )
    if isinstance(error, httpx2.ProxyError):
        return Unavailable(
            f"The proxy refused to let a request through to Gemini when asked to {what}.",
            "Correct HTTPS_PROXY, with its user and password if it wants them, or unset it.",
        )
    if _was_caused_by(error, ssl.SSLCertVerificationError):
        return Unavailable(
            f"The certificate of whoever answered for Gemini is not trusted here when asked to {what}.",
            "Where a proxy opens TLS connections, set SSL_CERT_FILE to the file with its certificate; a clock that is "
            "wrong makes certificates invalid, too.",
        )
    if _was_caused_by(error, socket.gaierror):
        return Unavailable(
            f"Gemini's address could not be looked up when asked to {what}.",
            "Check the network connection, and HTTPS_PROXY if this network needs a proxy; try again in a minute.",
        )
    if isinstance(error, httpx2.TimeoutException | TimeoutError):
        happened = "did not answer in time"
    elif isinstance(error, _NOTHING_SENT):
        happened = "could not be reached"
    else:
        happened = "closed the connection early"
    return Unavailable(
        f"Gemini {happened} ({type(error).__name__}) when asked to {what}.",
        "Check the network connection and try again in a minute.",
    )


def _was_caused_by(error: BaseException | None, kind: type[BaseException]) -> bool:
    """Return whether an exception of this kind lies at the bottom of what the transport raised."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        if isinstance(error, kind):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def _answered(error: Any, what: str, key_origin: str, creates: bool) -> GeminiError:
    """Map an `errors.APIError` by its status."""
    code = error.code if isinstance(error.code, int) else 0
    status = _status_object(error.details)
    text = status.get("message")
    message = safe_text(text) if isinstance(text, str) else ""
    quoted = f": {message.rstrip('.')}." if message else "."
    if code in (401, 403) or (code == 400 and _is_key_invalid(status, message)):
        return AccessDenied(
            f"Gemini refused to {what} with this key ({code}){quoted}",
            f"Check the key in {key_origin}, its project and its restrictions; "
            "files and jobs of another project are refused in the same way.",
            status_code=code,
        )
    if code == 404:
        return NotFound(
            f"Gemini found nothing when asked to {what} (404){quoted}",
            "It may have been deleted or have expired (uploaded files are kept for 48 hours), or belong to another "
            "key's project.",
            status_code=404,
        )
    if code == 429:
        return _quota(error, status, what, quoted)
    if creates and (is_transient_status(code) or not 300 <= code < 500):
        return outcome_unknown(what, f"Gemini answered {code or 'without a status'}{quoted.rstrip('.')}", code)
    if is_transient_status(code):
        return Unavailable(
            f"Gemini answered {code} when asked to {what}{quoted}",
            "This is an error on Google's side; try again in a minute.",
            status_code=code,
            retry_after_seconds=_retry_after_seconds(error, status),
        )
    if 400 <= code < 500:
        return Rejected(
            f"Gemini refused to {what} ({code}){quoted}",
            "Correct what the message names, then try again.",
            status_code=code,
        )
    return Unavailable(
        f"Gemini answered with the unexpected status {code} when asked to {what}.",
        "If GOOGLE_GEMINI_BASE_URL is set, check it; otherwise try again later.",
        status_code=code,
    )


def _quota(error: Any, status: Mapping[str, Any], what: str, quoted: str) -> QuotaExhausted:
    seconds = _retry_after_seconds(error, status)
    quota_id = _quota_id(status)
    named = f", quota {quota_id}" if quota_id else ""
    return QuotaExhausted(
        f"A Gemini quota is exhausted (429{named}) when asked to {what}{quoted}",
        f"Try again in {seconds:.0f} s."
        if seconds
        else "Wait until running jobs have ended, or submit fewer rows at once.",
        retry_after_seconds=seconds,
        quota_id=quota_id,
    )


def _status_object(details: object) -> Mapping[str, Any]:
    """Return the google.rpc.Status inside an error body, whatever the body looks like."""
    body = as_object(details)
    inner = body.get("error")
    return inner if isinstance(inner, Mapping) else body


def _details(status: Mapping[str, Any], kind: str) -> Iterator[Mapping[str, Any]]:
    """Yield the details of one google.rpc type, matched by the end of its type URL."""
    for detail in map(as_object, as_list(status.get("details"))):
        if str(detail.get("@type", "")).endswith(f"google.rpc.{kind}"):
            yield detail


def _is_key_invalid(status: Mapping[str, Any], message: str) -> bool:
    """True for the 400 with which Gemini answers a key it does not know."""
    reasons = [detail.get("reason") for detail in _details(status, "ErrorInfo")]
    return "API_KEY_INVALID" in reasons or "api key not valid" in message.lower()


def _quota_id(status: Mapping[str, Any]) -> str:
    for failure in _details(status, "QuotaFailure"):
        for violation in map(as_object, as_list(failure.get("violations"))):
            for name in ("quotaId", "quotaMetric", "subject"):
                if text := as_text(violation.get(name)):
                    return safe_text(text, 120)
    return ""


def _retry_after_seconds(error: Any, status: Mapping[str, Any]) -> float | None:
    """Return how long Gemini asks to wait: the longer of the Retry-After header and RetryInfo; None without either."""
    headers = getattr(error.response, "headers", None)
    advice = [_header_seconds(headers.get("retry-after", "") if headers is not None else "")]
    advice += [_duration_seconds(info.get("retryDelay")) for info in _details(status, "RetryInfo")]
    usable = [seconds for seconds in advice if seconds is not None and 0 <= seconds <= _LONGEST_ADVICE_SECONDS]
    return max(usable, default=None)


def _header_seconds(value: str) -> float | None:
    """Read Retry-After: seconds, or a date."""
    if re.fullmatch(r"\s*\d{1,9}(?:\.\d{1,9})?\s*", value):
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    # A date without a zone means UTC (RFC 9110).
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max((moment - datetime.now(UTC)).total_seconds(), 0.0)


def _duration_seconds(value: object) -> float | None:
    """Read a google.protobuf.Duration: "34s", "1.5s", or an object of seconds and nanos."""
    if isinstance(value, str) and (match := re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)s", value)):
        return float(match[1])
    if isinstance(value, Mapping):
        seconds = str(value.get("seconds", 0))
        return float(seconds) if re.fullmatch(r"\d{1,9}", seconds) else None
    return None
