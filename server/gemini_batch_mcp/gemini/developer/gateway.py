"""The Gemini Developer API as the other rooms see it: our values in, our values and our errors out."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlencode

import httpx2

from gemini_batch_mcp.domain import Account, Job, JsonObject, Model, Task, UploadedFile
from gemini_batch_mcp.errors import NotFound, UsageError
from gemini_batch_mcp.gemini import wire
from gemini_batch_mcp.gemini.developer import _uploads as uploads
from gemini_batch_mcp.gemini.developer._client import Connection, KeyAccess
from gemini_batch_mcp.gemini.developer._space import space
from gemini_batch_mcp.gemini.developer._uploads import Sha256
from gemini_batch_mcp.gemini.downloads import Follower, receive
from gemini_batch_mcp.gemini.failures import not_understood, outcome_unknown
from gemini_batch_mcp.gemini.http import Exchange, Hook, quiet_transport_logs
from gemini_batch_mcp.gemini.retry import RetryPolicy, Timeouts
from gemini_batch_mcp.gemini.service import Finding, Service
from gemini_batch_mcp.gemini.session import Session, raw_reply
from gemini_batch_mcp.gemini.transfers import Download, Incoming, Progress, Readable, unseen_progress
from gemini_batch_mcp.gemini.warehouse import Warehouse
from gemini_batch_mcp.gemini.wire import JobPage
from gemini_batch_mcp.settings import MAX_FILE_BYTES, Settings, Tier
from gemini_batch_mcp.text import plain_text

__all__ = ["Download", "Follower", "Gateway", "Hook", "JobPage", "RetryPolicy", "Timeouts"]

T = TypeVar("T")

#: Members of a request that the call sets itself, in both spellings.
_SET_BY_CALL: Final = frozenset({"model", "serviceTier", "service_tier"})
#: The largest page Gemini serves; it cuts larger wishes down by itself.
_LARGEST_PAGE: Final = 1000
#: The same for files (the guide's own figure), and more of them than a person looks through.
_LARGEST_FILE_PAGE: Final = 100
_MOST_FILE_PAGES: Final = 50
#: Far above the number of models there are.
_MOST_MODEL_PAGES: Final = 50


#: A request file has up to 2 GB, a job lives up to 48 hours (batch guide, read 2026-09).
SERVICE: Final = Service(
    name="the Gemini API",
    file_bytes=MAX_FILE_BYTES,
    job_rows=0,
    job_life=timedelta(hours=48),
    has_quota=True,
    is_cloud=False,
)


class Gateway:
    """The Developer API. Reads are repeated (`RetryPolicy`), a create never is.

    Every method raises `ConfigurationError` when there is no key, and a `GeminiError` when Gemini refuses or fails;
    each says more below. Names may be given in every form that `wire.job_name` and `wire.file_name` read; other
    text is a `UsageError`.

    `hook` is a seam for fault tests: it is called, in the task of the call, with `<step>:before` and, if the effect
    succeeded, `<step>:after` around every effect on the network. The steps: `create`, `upload` and within it
    `upload_start`, `upload_chunk`, `upload_finalize`, then `get`, `list`, `cancel`, `delete_job`, `get_file`,
    `delete_file`, `download`, `models`, `files`, `count_tokens`, `call`. What it raises ends the call.
    """

    service = SERVICE
    #: There are no tables at this API.
    warehouse: Warehouse | None = None

    def __init__(self, session: Session[Connection]) -> None:
        self._session = session

    @classmethod
    def open(
        cls,
        settings: Settings,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
        hook: Hook | None = None,
        retry: RetryPolicy | None = None,
        timeouts: Timeouts | None = None,
    ) -> Self:
        """Return a gateway at once; the SDK is loaded and the connection made by the first call.

        `transport` carries the requests instead of the network (the sandbox in this process); no key is needed then.
        Quiets the loggers of the HTTP client for the whole process, see `quiet_transport_logs`.
        """
        quiet_transport_logs()
        hook, policy, timeouts = hook or _no_hook, retry or RetryPolicy(), timeouts or Timeouts()
        access = KeyAccess(settings, transport, policy, timeouts, hook)
        secrets = settings.secrets
        return cls(Session(access, secrets, transport=transport, hook=hook, policy=policy, timeouts=timeouts))

    async def aclose(self) -> None:
        """Close the connection, and the transport if one was given."""
        await self._session.aclose()

    async def check_access(self) -> None:
        """Look whether there is a key, before anybody is asked for money.

        Raises:
            ConfigurationError: there is none, or it cannot be one.
        """
        self._session.check()

    async def findings(self) -> tuple[Finding, ...]:
        """Look at the space that is left for uploads."""
        return (space(await self.stored_files()),)

    def warm_up(self) -> None:
        """Load the SDK in a daemon thread; call it once, after the start."""
        self._session.warm_up()

    def account(self, salt: str) -> Account:
        """Return whose calls these are; the same key and endpoint have the same fingerprint under one salt."""
        return self._session.account(salt)

    def job_name(self, text: str) -> str | None:
        """Return a job's name for it, its bare id, a result file's name or a link; None for other text."""
        return wire.job_name(text)

    async def upload(
        self,
        source: Path | Readable,
        *,
        size_bytes: int,
        display_name: str,
        owner: str = "",
        mime_type: str = "jsonl",
        sha256: Sha256 = "",
        wait_until_ready: bool = True,
        on_progress: Progress | None = None,
        before_finalize: Callable[[], Awaitable[None]] | None = None,
    ) -> UploadedFile:
        """Upload `size_bytes` bytes of `source` and return the file, whole and ready for use.

        Without `wait_until_ready` it may still be in state PROCESSING, as Gemini has video and sound for a while.

        A path is sent again from the start up to three times, another source once; within either, a cut connection
        costs a part of one chunk. `source.read` is called on the event loop with up to 8 MiB at a time, and once more
        at the end before the last bytes leave: what it raises passes through unchanged, and nothing is finalized.
        `sha256` (lowercase hex, or a function that is asked after the last byte was read) is compared with Gemini's.
        Should Gemini refuse the MIME type `jsonl`, `application/jsonl` is tried once.
        `on_progress(done_bytes, total_bytes)` is called with each chunk, and falls back when it is sent again.
        `before_finalize` is awaited when all but the last bytes have arrived: there is no file before it returns.

        Raises:
            StorageError: the source cannot be read, or has not `size_bytes` bytes.
            Unavailable: the network failed, or the file arrived damaged (it is deleted then).
            Rejected: Gemini refused the file.
        """
        return await uploads.upload(
            self._session,
            source,
            size_bytes=size_bytes,
            display_name=display_name,
            mime_type=mime_type,
            sha256=sha256,
            wait_until_ready=wait_until_ready,
            on_progress=on_progress or unseen_progress,
            before_finalize=before_finalize,
        )

    async def create_from_file(self, *, model: str, file_name: str, display_name: str, task: Task) -> Job:
        """Create a job from an uploaded file, in exactly one attempt.

        Raises:
            OutcomeUnknown: the reply was lost or was a server error; the job may or may not exist.
            Unavailable: nothing was sent, because there was no connection.
            QuotaExhausted, Rejected, AccessDenied, NotFound: Gemini refused; there is no job.
        """
        source = {"file_name": _checked_file(file_name)}
        return await self._create(model, task, display_name, source, {})

    async def create_inline(self, *, model: str, requests: Sequence[JsonObject], display_name: str, task: Task) -> Job:
        """Create a job from `{"key", "request"}` lines within the call, in exactly one attempt.

        Each request goes out as it is, with the model's name added where it has none; its key travels as
        `metadata.key`. Under 20 MB in all. Raises as `create_from_file` does.
        """
        name = _checked_model(model)
        items = [{"request": {"model": name, **line["request"]}, "metadata": {"key": line["key"]}} for line in requests]
        # The SDK's typed requests drop members they do not know, and its embeddings carry no keys. So it is given
        # a stand-in, and `extra_body`, which replaces lists whole, puts the real requests in its place.
        stand_in = {"contents": ["stand-in"]}
        source = {"inlined_requests": stand_in if task == "embed" else [stand_in]}
        return await self._create(model, task, display_name, source, {"requests": {"requests": items}})

    async def get_job(self, name: str) -> Job:
        """Read a job with its counts, its error and where its answers are.

        Raises:
            NotFound: there is no such job (any more).
        """
        name = _checked_job(name)

        def understand(raw: JsonObject) -> Job | None:
            return wire.job_from_wire(raw, asked_name=name) if "metadata" in raw or "name" in raw else None

        return await self._read("get", name, f"describe {name}", understand)

    async def list_jobs(self, *, page_size: int, page_token: str = "", tag: str = "") -> JobPage:
        """Read one page of the jobs of the key's project; `page_size` is 1 to 1000. No list is by `tag` here."""
        query = {"pageSize": str(min(max(page_size, 1), _LARGEST_PAGE))}
        if page_token:
            query["pageToken"] = page_token
        return await self._read("list", f"batches?{urlencode(query)}", "list the jobs", wire.jobs_from_wire)

    async def cancel_job(self, name: str) -> None:
        """Ask Gemini to cancel a job, which takes effect some time later. Repeated if need be: it is idempotent."""
        name = _checked_job(name)
        connection = await self._session.connection()
        await self._session.repeatable(
            "cancel", f"cancel {name}", lambda attempt: connection.sdk.aio.batches.cancel(name=name)
        )

    async def delete_job(self, name: str) -> None:
        """Delete a job. Repeated if need be; a job that the first attempt deleted counts as deleted.

        Raises:
            NotFound: there was no such job in the first place.
        """
        name = _checked_job(name)
        connection = await self._session.connection()
        await self._session.deletion(
            "delete_job", f"delete {name}", lambda: connection.sdk.aio.batches.delete(name=name)
        )

    async def get_file(self, name: str) -> UploadedFile:
        """Read a file's metadata. Gemini answers 400 (`Rejected`) for result files, whose names are too long."""
        return await uploads.get_file(self._session, _checked_file(name))

    async def delete_file(self, name: str) -> None:
        """Delete an uploaded file. Result files cannot be deleted (400, `Rejected`). Raises as `delete_job` does."""
        await uploads.delete_file(self._session, _checked_file(name))

    async def pin(self, name: str) -> str:
        """Return the name: what was uploaded does not change."""
        return _checked_file(name)

    async def list_files(self, prefix: str) -> tuple[str, ...]:
        """Refuse: files of the Files API have no names of their own."""
        raise UsageError(f"{plain_text(prefix, 80)} cannot be listed at the Gemini API.", "Give a local file.")

    async def read_file(self, name: str, start: int, size_bytes: int) -> bytes:
        """Refuse: what was uploaded to the Files API cannot be read back."""
        raise UsageError(f"{plain_text(name, 80)} cannot be read back.", "Give the local file.")

    async def download(
        self,
        file_name: str,
        destination: Path,
        *,
        on_progress: Progress | None = None,
        follower: Follower | None = None,
    ) -> Download:
        """Download a file to `destination`, which appears when it is whole, on disk and of the stated length.

        A cut connection is continued where it broke off. What cannot be seen here is a body that is short and states
        that short length: compare the rows. `on_progress(done_bytes, total_bytes)` is called about once a MiB; the
        total is None when Gemini states none. `follower` is given the same bytes, in order, while they arrive. Until
        the end there is only `<destination>.part-<random>` in the same directory, and after a failure nothing.

        Raises:
            StorageError: the disk is full, or the directory cannot be written.
            NotFound: the file is gone.
        """
        name = _checked_file(file_name)

        async def bring(incoming: Incoming, _: Exchange) -> None:
            connection = await self._session.connection()
            await connection.sdk.aio.files.download(file=name, destination=incoming)

        return await receive(self._session, name, destination, on_progress or unseen_progress, follower, bring)

    async def list_models(self) -> tuple[Model, ...]:
        """Read all models that the key can see. A list whose tokens lead in a circle ends there."""
        models: list[Model] = []
        token, read = "", set[str]()
        # The last page names none, which is the token of the first.
        while token not in read and len(read) < _MOST_MODEL_PAGES:
            read.add(token)
            query = urlencode({"pageSize": _LARGEST_PAGE, **({"pageToken": token} if token else {})})
            page, token = await self._read("models", f"models?{query}", "list the models", wire.models_from_wire)
            models += page
        return tuple(models)

    async def stored_files(self) -> tuple[UploadedFile, ...]:
        """Read the files of the key's project, result files included; a list without an end is left after 5,000."""
        files: list[UploadedFile] = []
        token, read = "", set[str]()
        while token not in read and len(read) < _MOST_FILE_PAGES:
            read.add(token)
            query = urlencode({"pageSize": _LARGEST_FILE_PAGE, **({"pageToken": token} if token else {})})
            page, token = await self._read("files", f"files?{query}", "list the files", wire.files_from_wire)
            files += page
        return tuple(files)

    def clock_ahead_seconds(self) -> float | None:
        """Return how far this machine's clock is ahead of Gemini's; None before a reply has said its time."""
        made = self._session.made
        return made.http.clock_ahead_seconds if made is not None else None

    async def count_tokens(self, *, model: str, requests: Sequence[JsonObject], task: Task) -> int:
        """Return the input tokens of all of `requests` together, as Gemini counts them: one call, free of charge.

        Several requests are counted as the contents of one, see `wire.request_to_count`.

        Raises:
            Rejected: Gemini cannot count one of them.
            NotFound: there is no such model.
        """
        name = _checked_model(model)
        what = f"count tokens for {name}"
        # The typed call takes contents only. Gemini ignores them beside a `generateContentRequest` (API reference);
        # `extra_body` adds that, and replaces the stand-in by an empty list, which in proto JSON is an absent one.
        body = {"contents": [], "generateContentRequest": wire.request_to_count(name, requests, task)}
        config: Any = {"http_options": {"extra_body": body}}
        connection = await self._session.connection()

        async def call(attempt: int) -> int:
            reply = await connection.sdk.aio.models.count_tokens(model=name, contents="stand-in", config=config)
            if reply.total_tokens is None:
                raise not_understood(what, "no total")
            return reply.total_tokens

        return await self._session.repeatable("count_tokens", what, call)

    async def call(self, *, model: str, request: JsonObject, task: Task, tier: Tier) -> JsonObject:
        """Have one request answered now, in exactly one attempt, and return Gemini's reply as it is.

        It is what an output line of a batch has as `response`, but that an embedding stands in a list of one. The
        request goes out as it is, at that service tier; embeddings know no tiers.

        Raises:
            OutcomeUnknown: the reply was lost or was a server error: it may have been answered, and charged.
            QuotaExhausted, Unavailable: it was turned away (429, 503), or there was no connection: nothing is charged.
            Rejected, AccessDenied, NotFound: Gemini refused it.
        """
        name = _checked_model(model)
        what = "answer a row"
        own = {member: value for member, value in request.items() if member not in _SET_BY_CALL}
        connection = await self._session.connection()
        models = connection.sdk.aio.models
        async with self._session.effect("call", what, answers_row=True) as current:
            # Of the typed calls only the way is used; `extra_body` puts the real request in the place of the stand-in.
            config: Any
            if task == "embed":
                config = {"http_options": {"extra_body": {"requests": [{**own, "model": name}]}}}
                reply = await raw_reply(current, models.embed_content(model=name, contents="stand-in", config=config))
            else:
                config = {
                    "http_options": {"extra_body": {**own, "serviceTier": tier}},
                    "automatic_function_calling": {"disable": True},
                }
                reply = await raw_reply(
                    current, models.generate_content(model=name, contents="stand-in", config=config)
                )
            if not isinstance(reply, dict):
                raise outcome_unknown(what, "its reply isn't a JSON object")
        return reply

    async def _read(self, step: str, path: str, what: str, understand: Callable[[JsonObject], T | None]) -> T:
        return await self._session.read(step, lambda connection, _: connection.read(path), what, understand)

    async def _create(
        self, model: str, task: Task, display_name: str, source: dict[str, Any], input_config: dict[str, Any]
    ) -> Job:
        name = _checked_model(model)
        what = f"create the job {plain_text(display_name, 200)!r}"
        config: dict[str, Any] = {"display_name": display_name}
        if input_config:
            config["http_options"] = {"extra_body": {"batch": {"inputConfig": input_config}}}
        connection = await self._session.connection()
        batches = connection.sdk.aio.batches
        create: Callable[..., Any] = batches.create_embeddings if task == "embed" else batches.create
        async with self._session.effect("create", what, creates=True) as current:
            job = wire.job_from_wire(await raw_reply(current, create(model=name, src=source, config=config)))
            if not job.name:
                raise outcome_unknown(what, "its reply names no job")
        return job


def _checked_job(text: str) -> str:
    if name := wire.job_name(text):
        return name
    if text.startswith("projects/"):
        raise NotFound(
            f"{plain_text(text, 120)} is a job on Google Cloud, and this server uses the Gemini API.",
            "Set GOOGLE_GENAI_USE_ENTERPRISE=1 to see it.",
            status_code=404,
        )
    raise UsageError(
        f"{plain_text(text, 80)!r} is not a Gemini job name.", "A job name is batches/ followed by the job's id."
    )


def _checked_file(text: str) -> str:
    if name := wire.file_name(text):
        return name
    if text.startswith("gs://"):
        raise NotFound(
            f"{plain_text(text, 120)} lies in Cloud Storage, and this server uses the Gemini API.",
            "Set GOOGLE_GENAI_USE_ENTERPRISE=1 to use it.",
            status_code=404,
        )
    raise UsageError(
        f"{plain_text(text, 80)!r} is not a Gemini file name.", "A file name is files/ followed by the file's id."
    )


def _checked_model(text: str) -> str:
    if name := wire.model_name(text):
        return name
    raise UsageError(
        f"{plain_text(text, 80)!r} is not a Gemini model name.", "Give a model name such as gemini-3-flash-preview."
    )


def _no_hook(step: str) -> None:
    """Do nothing: there are no fault tests."""
