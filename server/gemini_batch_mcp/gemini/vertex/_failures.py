"""What the clients of Google Cloud's services raise, as our errors: the same for each but for names and roles.

What a client's exception says is never quoted but for the service's own message, made safe to show: such texts name
addresses, of uploads too.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from gemini_batch_mcp.errors import AccessDenied, BatchError, ConfigurationError, NotFound, Rejected, Unavailable
from gemini_batch_mcp.gemini.retry import is_transient_status
from gemini_batch_mcp.json_members import as_list, as_object, as_text
from gemini_batch_mcp.text import safe_text


@dataclass(frozen=True, slots=True)
class Service:
    """A service by its name, with what to do where it refuses (`roles`) or finds nothing (`names`).

    `passing` are the reasons of failures that pass by themselves, `limits` those with which a 403 is no refusal.
    """

    name: str
    roles: str
    names: str
    passing: frozenset[str] = frozenset()
    limits: frozenset[str] = frozenset()

    @contextmanager
    def errors(self, what: str, is_ours: Callable[[BaseException], bool] = lambda error: False) -> Iterator[None]:
        """Turn what the client raises into one of our errors. Our own, and those that `is_ours` accepts, stay."""
        try:
            yield
        except Exception as error:
            if isinstance(error, BatchError) or is_ours(error):
                raise
            # Without the cause: its text, and a traceback that shows it, names addresses.
            raise self._failure(error, what) from None

    def _failure(self, error: Exception, what: str) -> BatchError:
        from google.api_core.exceptions import GoogleAPICallError, RetryError
        from google.auth.exceptions import GoogleAuthError, TransportError
        from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

        if isinstance(error, RetryError) and isinstance(error.cause, Exception):
            error = error.cause
        if isinstance(error, InvalidResponse | GoogleAPICallError):
            code = getattr(error.response, "status_code", 0) or getattr(error, "code", 0) or 0
            return self._answered(int(code), error, what)
        if isinstance(error, GoogleAuthError) and not isinstance(error, TransportError):
            return credentials_refused(error)
        if isinstance(error, DataCorruption):
            return Unavailable(f"What was sent arrived damaged when {self.name} was asked to {what}.", "Try again.")
        # What breaks off while bytes are read comes from below the client's own HTTP library.
        if isinstance(error, TransportError | OSError) or type(error).__module__.startswith("urllib3."):
            return Unavailable(
                f"{self.name} could not be reached ({type(error).__name__}) when asked to {what}.",
                "Check the network connection and try again in a minute.",
            )
        return Unavailable(
            f"{self.name}'s answer could not be understood ({type(error).__name__}) when asked to {what}.", "Try again."
        )

    def _answered(self, code: int, error: Any, what: str) -> BatchError:
        first = as_object(next(iter(as_list(list(getattr(error, "errors", None) or []))), {}))
        reason, message = as_text(first.get("reason")), _message(error)
        quoted = f": {message}." if message else "."
        if code in (401, 403) and reason not in self.limits:
            return AccessDenied(f"{self.name} refused to {what} ({code}){quoted}", self.roles, status_code=code)
        if code == 404:
            return NotFound(
                f"{self.name} found nothing when asked to {what} (404){quoted}", self.names, status_code=404
            )
        if is_transient_status(code) or not 400 <= code < 500 or reason in self.passing:
            return Unavailable(
                f"{self.name} answered {code} when asked to {what}{quoted}", "Try again in a minute.", status_code=code
            )
        return Rejected(f"{self.name} refused to {what} ({code}){quoted}", "Correct what it names.", status_code=code)


STORAGE: Final = Service(
    "Cloud Storage",
    roles="The credentials need roles/storage.objectAdmin on the bucket that GEMINI_BATCH_BUCKET names.",
    names="Check the name, and GEMINI_BATCH_BUCKET.",
)
#: The same for buckets that a user names, whatever API their batches use.
BUCKETS: Final = Service(
    "Cloud Storage",
    roles="The credentials need roles/storage.objectViewer on the bucket; to save there, roles/storage.objectUser.",
    names="Check the name of the bucket.",
)
#: `passing`: BigQuery's page on error messages, read 2026-11.
BIGQUERY: Final = Service(
    "BigQuery",
    roles=(
        "The credentials need roles/bigquery.jobUser on the project that GOOGLE_CLOUD_PROJECT names, and "
        "roles/bigquery.dataEditor on the dataset."
    ),
    names="Check the names of project, dataset and table.",
    passing=frozenset({"backendError", "internalError", "rateLimitExceeded", "jobBackendError", "jobInternalError"}),
    limits=frozenset({"rateLimitExceeded", "quotaExceeded"}),
)


def _message(error: Any) -> str:
    """Return the service's own words, without the method and the address that the client puts before them."""
    try:
        said = as_text(as_object(as_object(error.response.json()).get("error")).get("message"))
    except Exception:
        said = ""
    return re.sub(r"\s+", " ", safe_text(said)).strip().rstrip(".")


def credentials_refused(error: Exception) -> ConfigurationError:
    """Return the error for credentials that are there and are not taken."""
    return ConfigurationError(
        f"The Google Cloud credentials of this machine are not accepted any more ({type(error).__name__}).",
        "Run `gcloud auth application-default login`, or correct GOOGLE_APPLICATION_CREDENTIALS.",
    )
