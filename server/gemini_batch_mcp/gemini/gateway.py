"""The one interface to Google that other rooms know, and which of the two APIs stands behind it."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

import httpx2

from gemini_batch_mcp.domain import Account, Job, JsonObject, Model, Task, UploadedFile
from gemini_batch_mcp.gemini.downloads import Follower
from gemini_batch_mcp.gemini.http import Hook
from gemini_batch_mcp.gemini.retry import RetryPolicy
from gemini_batch_mcp.gemini.service import Finding, Service
from gemini_batch_mcp.gemini.transfers import Download, Progress, Readable
from gemini_batch_mcp.gemini.warehouse import Warehouse
from gemini_batch_mcp.gemini.wire import JobPage
from gemini_batch_mcp.settings import Settings, Tier

__all__ = ["Gateway", "Hook", "RetryPolicy", "open_gateway"]


class Gateway(Protocol):
    """Calls to one of Google's APIs for batches. What each does, and raises, stands at `developer.gateway.Gateway`.

    Where the two differ, `service` says it. Names of jobs and files are the API's own: `batches/…` and `files/…`, or
    `projects/…/batchPredictionJobs/…` and `gs://…`.
    """

    @property
    def service(self) -> Service:
        """What the API takes and keeps."""

    @property
    def warehouse(self) -> Warehouse | None:
        """Tables that lie at Google, where this API can be given them; else None."""

    async def aclose(self) -> None:
        """Close the connection."""

    async def check_access(self) -> None:
        """Raise ConfigurationError when something is missing, before anybody is asked for money."""

    async def findings(self) -> tuple[Finding, ...]:
        """Look at what only this API needs. Raises GeminiError."""

    def clock_ahead_seconds(self) -> float | None:
        """Return how far this machine's clock is ahead of Google's; None before a reply has said its time."""

    def warm_up(self) -> None:
        """Load the clients in the background."""

    def account(self, salt: str) -> Account:
        """Return whose calls these are."""

    def job_name(self, text: str) -> str | None:
        """Return the name of a job for what people give for it; None for other text."""

    async def upload(
        self,
        source: Path | Readable,
        *,
        size_bytes: int,
        display_name: str,
        owner: str = "",
        mime_type: str = "jsonl",
        sha256: str | Callable[[], str] = "",
        wait_until_ready: bool = True,
        on_progress: Progress | None = None,
        before_finalize: Callable[[], Awaitable[None]] | None = None,
    ) -> UploadedFile:
        """Bring a file there, whole. `owner` is the batch that it belongs to."""

    async def create_from_file(self, *, model: str, file_name: str, display_name: str, task: Task) -> Job:
        """Create a job from an uploaded file, in exactly one attempt."""

    async def create_inline(self, *, model: str, requests: Sequence[JsonObject], display_name: str, task: Task) -> Job:
        """Create a job from lines within the call, in exactly one attempt."""

    async def get_job(self, name: str) -> Job:
        """Read a job."""

    async def list_jobs(self, *, page_size: int, page_token: str = "", tag: str = "") -> JobPage:
        """Read one page of jobs; with `tag`, of those that carry it, where the API can tell, and else of all."""

    async def cancel_job(self, name: str) -> None:
        """Ask for a job to be cancelled."""

    async def delete_job(self, name: str) -> None:
        """Delete a job."""

    async def get_file(self, name: str) -> UploadedFile:
        """Describe a file."""

    async def delete_file(self, name: str) -> None:
        """Delete a file."""

    async def pin(self, name: str) -> str:
        """Return a file's name that means what it is now, whatever comes to be there later."""

    async def list_files(self, prefix: str) -> tuple[str, ...]:
        """Return the names of files that begin so, where files can be listed by name."""

    async def read_file(self, name: str, start: int, size_bytes: int) -> bytes:
        """Return bytes of a file, where files can be read back; of the version that the name states."""

    async def download(
        self,
        file_name: str,
        destination: Path,
        *,
        on_progress: Progress | None = None,
        follower: Follower | None = None,
    ) -> Download:
        """Bring answers to one file, whole."""

    async def list_models(self) -> tuple[Model, ...]:
        """Read all models that are offered."""

    async def count_tokens(self, *, model: str, requests: Sequence[JsonObject], task: Task) -> int:
        """Return the input tokens of requests together."""

    async def call(self, *, model: str, request: JsonObject, task: Task, tier: Tier) -> JsonObject:
        """Have one request answered now, in exactly one attempt."""


def open_gateway(
    settings: Settings,
    *,
    transport: httpx2.AsyncBaseTransport | None = None,
    hook: Hook | None = None,
    retry: RetryPolicy | None = None,
) -> Gateway:
    """Return the gateway that the settings ask for, at once; nothing is loaded or connected yet.

    `transport` carries the requests instead of the network: the embedded service, which stands for the Developer API.
    """
    # Only what is used is imported: the other one needs an extra.
    if settings.cloud is not None and transport is None:
        from gemini_batch_mcp.gemini.vertex.gateway import CloudGateway

        return CloudGateway.open(settings, settings.cloud, hook=hook, retry=retry)
    from gemini_batch_mcp.gemini.developer.gateway import Gateway as DeveloperGateway

    return DeveloperGateway.open(settings, transport=transport, hook=hook, retry=retry)
