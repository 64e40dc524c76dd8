"""Access to Google Cloud: what has to be set, the credentials of the machine, and the clients that use them."""

import importlib
import ssl
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import httpx2

from gemini_batch_mcp.errors import AccessDenied, BatchError, ConfigurationError, NotFound, Unavailable
from gemini_batch_mcp.gemini.failures import gemini_failure
from gemini_batch_mcp.gemini.http import GeminiHttpClient, Hook
from gemini_batch_mcp.gemini.retry import RetryPolicy, Timeouts
from gemini_batch_mcp.gemini.vertex import _bigquery as bigquery
from gemini_batch_mcp.gemini.vertex._failures import credentials_refused
from gemini_batch_mcp.gemini.vertex._storage import Storage, is_installed
from gemini_batch_mcp.settings import Cloud, Settings
from gemini_batch_mcp.text import plain_text

if TYPE_CHECKING:
    from google import genai

#: The API version of batches on Google Cloud; the SDK's own, stated so that no variable changes it.
API_VERSION: Final = "v1beta1"
_SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)
#: Locations that stand for several regions have hosts of another form.
_MULTI_REGIONS: Final = frozenset({"us", "eu"})
_HOW_TO_SET: Final = "in the env part of this server's entry in your MCP client's configuration, and restart the server"


@dataclass(frozen=True, slots=True)
class Connection:
    """The clients of one process: of Vertex AI, with the HTTP client under it, and of Cloud Storage.

    `credentials` are there for the client that most processes never need.
    """

    sdk: "genai.Client"
    http: GeminiHttpClient
    storage: Storage
    credentials: Any


@dataclass(frozen=True, slots=True)
class CloudAccess:
    """Calls with the credentials of this machine (Application Default Credentials)."""

    settings: Settings
    cloud: Cloud
    policy: RetryPolicy
    timeouts: Timeouts
    hook: Hook

    def check(self) -> None:
        """Raise ConfigurationError for what is not set or not installed. Credentials are looked for by `connect`."""
        if not self.cloud.project:
            raise ConfigurationError(
                "GOOGLE_CLOUD_PROJECT is not set; batches on Google Cloud (GOOGLE_GENAI_USE_ENTERPRISE) belong to a "
                "project.",
                f"Set GOOGLE_CLOUD_PROJECT to the project's id {_HOW_TO_SET}. With a Gemini API key instead, unset "
                "GOOGLE_GENAI_USE_ENTERPRISE.",
            )
        if not self.cloud.bucket:
            raise ConfigurationError(
                "GEMINI_BATCH_BUCKET is not set; requests and answers of batches on Google Cloud lie in a bucket of "
                "yours.",
                f"Make one with `gcloud storage buckets create gs://NAME --project={self.cloud.project}`, set "
                f"GEMINI_BATCH_BUCKET to its name {_HOW_TO_SET}.",
            )
        if not is_installed():
            raise ConfigurationError(
                "google-cloud-storage is not installed; batches on Google Cloud need it.",
                "Install this server with its extra: pip install 'gemini-batch-mcp[vertex]'.",
            )

    def identity(self) -> tuple[str, str]:
        """Return endpoint, project and location; whoever may use the project sees all of its jobs there."""
        self.check()
        endpoint = str(home_of(self.cloud)).rstrip("/")
        return f"{endpoint}\0{self.cloud.project}\0{self.cloud.location}", "GOOGLE_CLOUD_PROJECT"

    def connect(self) -> Connection:
        """Find the credentials and build the clients.

        Raises:
            ConfigurationError: there are no credentials, or a setting or the installation cannot be used.
        """
        self.load()
        from google import genai
        from google.cloud import storage
        from google.genai import types

        credentials = credentials_of(self.cloud)
        home = home_of(self.cloud)
        http = GeminiHttpClient(
            home,
            transport=None,
            policy=self.policy,
            timeouts=self.timeouts,
            hook=self.hook,
            secrets=self.settings.secrets,
        )
        # Nothing uses the SDK's own clients; see `developer._client`.
        nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        options = types.HttpOptions(
            base_url=str(home),
            api_version=API_VERSION,
            httpx_async_client=http,
            client_args={"verify": nobody},
            async_client_args={"ssl": nobody},
            retry_options=types.HttpRetryOptions(attempts=1),
        )
        sdk = genai.Client(
            vertexai=True,
            project=self.cloud.project,
            location=self.cloud.location,
            credentials=credentials,
            http_options=options,
        )
        client_options = {"api_endpoint": self.cloud.storage_url} if self.cloud.storage_url else None
        client = storage.Client(project=self.cloud.project, credentials=credentials, client_options=client_options)
        return Connection(sdk, http, Storage(client, self.policy, self.timeouts), credentials)

    def bigquery(self, connection: Connection) -> bigquery.BigQuery:
        """Load and build the client of BigQuery.

        Raises:
            ConfigurationError: it is not installed, or cannot be loaded.
        """
        if not bigquery.is_installed():
            raise bigquery.not_installed()
        try:
            from google.cloud.bigquery import Client
        except ImportError as error:
            raise ConfigurationError(
                f"google.cloud.bigquery cannot be loaded ({type(error).__name__}).",
                "Reinstall this server with its extra vertex.",
            ) from error
        options = {"api_endpoint": self.cloud.warehouse_url} if self.cloud.warehouse_url else None
        client = Client(project=self.cloud.project, credentials=connection.credentials, client_options=options)
        return bigquery.BigQuery(client, self.policy, self.timeouts)

    def load(self) -> None:
        """Import the clients, which takes seconds. Safe to call from any thread, any number of times.

        Raises:
            ConfigurationError: one cannot be loaded.
        """
        quieten()
        for name in ("google.genai", "google.genai.errors", "google.genai.types", "google.cloud.storage"):
            try:
                importlib.import_module(name)
            except ImportError as error:
                raise ConfigurationError(
                    f"{name} cannot be loaded ({type(error).__name__}).", "Reinstall this server with its extra vertex."
                ) from error

    def failure(self, error: Exception, what: str, *, creates: bool = False, may_be_shed: bool = False) -> BatchError:
        """Return our error for one that was met at Vertex AI; see `failures.gemini_failure`."""
        from google.auth.exceptions import GoogleAuthError, TransportError

        if isinstance(error, TransportError):
            # On the way to a token: nothing has been asked of Vertex AI yet.
            return Unavailable(
                f"The service that gives out Google Cloud tokens could not be reached when asked to {what}.",
                "Check the network connection and try again in a minute.",
            )
        if isinstance(error, GoogleAuthError):
            return credentials_refused(error)
        failure = gemini_failure(error, what, key_origin="", creates=creates, may_be_shed=may_be_shed)
        if isinstance(failure, AccessDenied):
            failure.message = failure.message.replace(" with this key", "")
            failure.next_step = (
                f"The credentials need roles/aiplatform.user in project {plain_text(self.cloud.project, 100)}, and the "
                "Vertex AI API has to be enabled there."
            )
        elif isinstance(failure, NotFound):
            failure.next_step = (
                f"It may have been deleted, or belong to another project or location than {self._place()}; not every "
                "model is offered in every location."
            )
        return failure

    def _place(self) -> str:
        return f"{plain_text(self.cloud.project, 100)}, {plain_text(self.cloud.location, 60)}"


def quieten() -> None:
    """Keep what libraries of Google say of things that are as they are meant out of the log."""
    # Said once a process by the library, of credentials that the user has chosen.
    warnings.filterwarnings("ignore", message="Your application has authenticated using end user credentials")
    # The file is the one that the user has named, for this.
    warnings.filterwarnings("ignore", message="The load_credentials_from_file method is deprecated")
    # A Python that nears its end works until then; libraries of Google say at each start that it does.
    warnings.filterwarnings(
        "ignore", message=r"You are using a (non-supported )?Python version", category=FutureWarning
    )


def credentials_of(cloud: Cloud) -> Any:
    """Return the credentials of this machine, or of the file that is set.

    Raises:
        ConfigurationError: there are none.
    """
    from google.auth.exceptions import DefaultCredentialsError

    auth: Any = importlib.import_module("google.auth")  # whose functions state no types

    try:
        if cloud.credentials_path:
            found, _ = auth.load_credentials_from_file(cloud.credentials_path, scopes=_SCOPES)
        else:
            found, _ = auth.default(scopes=_SCOPES)
    except (DefaultCredentialsError, OSError, ValueError) as error:
        if cloud.credentials_path:
            raise ConfigurationError(
                f"The file that GOOGLE_APPLICATION_CREDENTIALS names cannot be used ({type(error).__name__}).",
                "Correct the path, or unset it and run `gcloud auth application-default login`.",
            ) from None
        raise ConfigurationError(
            "There are no Google Cloud credentials on this machine (Application Default Credentials).",
            "Run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to the file of a "
            "service account's key.",
        ) from None
    return found


def home_of(cloud: Cloud) -> httpx2.URL:
    """Return the address of Vertex AI, Google's for the location unless another is configured.

    Raises:
        ConfigurationError: it is no address, or the location is none.
    """
    if cloud.base_url:
        text, name = cloud.base_url, "GOOGLE_VERTEX_BASE_URL"
    elif cloud.location == "global":
        text, name = "https://aiplatform.googleapis.com/", ""
    elif cloud.location in _MULTI_REGIONS:
        text, name = f"https://aiplatform.{cloud.location}.rep.googleapis.com/", "GOOGLE_CLOUD_LOCATION"
    else:
        text, name = f"https://{cloud.location}-aiplatform.googleapis.com/", "GOOGLE_CLOUD_LOCATION"
    try:
        home = httpx2.URL(text)
    except httpx2.InvalidURL:
        home = httpx2.URL("")
    if home.scheme not in ("http", "https") or not home.host or "/" in cloud.location:
        what = "an http or https address" if cloud.base_url else "a location such as global or us-central1"
        raise ConfigurationError(f"{name} is not {what}.", f"Correct {name} or unset it.")
    return home
