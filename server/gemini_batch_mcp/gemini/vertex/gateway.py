"""Batches on Google Cloud as the other rooms see them: our values in, our values and our errors out."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any, Final, Self

from gemini_batch_mcp.domain import Account, Job, JsonObject, Model, Task, UploadedFile
from gemini_batch_mcp.errors import NotFound, Rejected, Unavailable, UsageError
from gemini_batch_mcp.gemini import wire
from gemini_batch_mcp.gemini.downloads import Follower, receive
from gemini_batch_mcp.gemini.failures import not_understood, outcome_unknown
from gemini_batch_mcp.gemini.http import Exchange, Hook, quiet_transport_logs
from gemini_batch_mcp.gemini.retry import RetryPolicy, Timeouts, repeat
from gemini_batch_mcp.gemini.service import Finding, Service
from gemini_batch_mcp.gemini.session import Session, raw_reply
from gemini_batch_mcp.gemini.transfers import Download, Incoming, Progress, Readable, reading_errors, unseen_progress
from gemini_batch_mcp.gemini.vertex import _wire as vertex
from gemini_batch_mcp.gemini.vertex._access import CloudAccess, Connection
from gemini_batch_mcp.gemini.vertex._storage import PIECE_BYTES, StoredObject, extended
from gemini_batch_mcp.gemini.vertex._warehouse import CloudWarehouse
from gemini_batch_mcp.gemini.warehouse import Warehouse
from gemini_batch_mcp.gemini.wire import JobPage
from gemini_batch_mcp.settings import Cloud, Settings, Tier
from gemini_batch_mcp.text import plain_text
from gemini_batch_mcp.threads import in_thread

#: Limits of one job (Agent Platform pages on batches, read 2026-08): 1 GB and 200,000 requests in Cloud Storage; up to
#: 72 hours in the queue, then 24 hours at work.
SERVICE: Final = Service(
    name="Google Cloud",
    file_bytes=1000**3,
    job_rows=200_000,
    job_life=timedelta(hours=96),
    has_quota=False,
    is_cloud=True,
)
#: Where everything of ours lies in the bucket.
_FOLDER: Final = "gemini-batch"
_LARGEST_PAGE: Final = 100
#: Far above the number of models there are.
_MOST_MODEL_PAGES: Final = 50
_PATH_ATTEMPTS: Final = 3
_READY: Final = "ACTIVE"


class CloudGateway:
    """Vertex AI with Cloud Storage. Reads are repeated (`RetryPolicy`), a create never is.

    It is what `gemini.gateway.Gateway` describes. Files and result files are objects, `gs://bucket/…`; the answers of
    a job are the objects below a directory.
    """

    service = SERVICE

    def __init__(self, session: Session[Connection], cloud: Cloud, warehouse: Warehouse) -> None:
        self._session = session
        self._cloud = cloud
        self.warehouse: Warehouse = warehouse

    @classmethod
    def open(
        cls,
        settings: Settings,
        cloud: Cloud,
        *,
        hook: Hook | None = None,
        retry: RetryPolicy | None = None,
        timeouts: Timeouts | None = None,
    ) -> Self:
        """Return a gateway at once; the clients are loaded and the credentials looked for by the first call."""
        quiet_transport_logs()
        hook, policy, timeouts = hook or _no_hook, retry or RetryPolicy(), timeouts or Timeouts()
        access = CloudAccess(settings, cloud, policy, timeouts, hook)
        session = Session(access, settings.secrets, transport=None, hook=hook, policy=policy, timeouts=timeouts)
        return cls(session, cloud, CloudWarehouse(session, access))

    async def aclose(self) -> None:
        """Close the connection."""
        await self._session.aclose()

    async def check_access(self) -> None:
        """Look whether all is there that a call needs, the credentials included; Google is not asked."""
        await self._session.connection()

    async def findings(self) -> tuple[Finding, ...]:
        """Look at the bucket."""
        async with self._session.effect("get_bucket", f"describe gs://{self._cloud.bucket}"):
            storage = (await self._session.connection()).storage
            text = await in_thread(storage.examine, self._cloud.bucket)
        return (Finding("bucket", True, text),)

    def clock_ahead_seconds(self) -> float | None:
        """Return how far this machine's clock is ahead of Google's; None before a reply has said its time."""
        made = self._session.made
        return made.http.clock_ahead_seconds if made is not None else None

    def warm_up(self) -> None:
        """Load the clients in a daemon thread; call it once, after the start."""
        self._session.warm_up()

    def account(self, salt: str) -> Account:
        """Return whose calls these are: one project in one location has one fingerprint under one salt."""
        return self._session.account(salt)

    def job_name(self, text: str) -> str | None:
        """Return a job's whole name for it, a link to it, or its number; None for other text."""
        return vertex.job_name(text, self._cloud.project, self._cloud.location)

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
        """Put `size_bytes` bytes of `source` into the bucket, once by content, and return the object.

        An object of that name and content is taken for it: it is what an earlier try has left. `source.read` is called
        in a thread. There is no early upload to the bucket, whose names come of the content.
        """
        assert before_finalize is None
        digest = sha256 if isinstance(sha256, str) else sha256()
        name = self._object_name(owner, display_name, digest)
        is_lines = mime_type == "jsonl"

        async def once(_: int) -> UploadedFile:
            async with self._session.effect("upload", f"accept the upload of {plain_text(display_name, 100)!r}"):
                storage = (await self._session.connection()).storage

                def put() -> StoredObject:
                    if not isinstance(source, Path):
                        return send(source)
                    with reading_errors(source), source.open("rb", buffering=0) as file:
                        return send(file)

                def send(readable: Readable) -> StoredObject:
                    return storage.put(
                        readable,
                        name,
                        size_bytes=size_bytes,
                        mime_type="application/jsonl" if is_lines else mime_type,
                        sha256=digest,
                        report=on_progress or unseen_progress,
                    )

                stored = await in_thread(put)
            if on_progress is not None:
                on_progress(size_bytes, size_bytes)
            return _uploaded(stored)

        attempts = min(_PATH_ATTEMPTS, self._session.policy.attempts) if isinstance(source, Path) else 1
        return await repeat(once, self._session.policy, attempts=attempts)

    async def create_from_file(self, *, model: str, file_name: str, display_name: str, task: Task) -> Job:
        """Create a job from an object or a table, in exactly one attempt; our tag goes along as a label.

        The answers to a table go into one beside it, whose name follows from its own.

        Raises:
            OutcomeUnknown: the reply was lost or was a server error; the job may or may not exist.
            Unavailable: nothing was sent, because there was no connection.
            QuotaExhausted, Rejected, AccessDenied, NotFound: Vertex AI refused; there is no job.
        """
        name = _checked_model(model)
        _require_generate(task)
        # What was checked and agreed to is what is sent; Vertex AI knows names only.
        if file_name.startswith("bq://"):
            source, dest = file_name, vertex.answers_table(file_name)
        else:
            source = (await self._find(file_name)).uri if "#" in file_name else _checked_object(file_name)
            dest = f"gs://{self._cloud.bucket}/{_FOLDER}/{vertex.folder_of(display_name)}"
        what = f"create the job {plain_text(display_name, 200)!r}"
        labels = {vertex.TAG_LABEL: vertex.label_of(tag)} if (tag := vertex.tag_of(display_name)) else {}
        config: Any = {
            "display_name": vertex.shortened(display_name),
            "dest": dest,
            "http_options": {"extra_body": {"labels": labels}},
        }
        batches = (await self._session.connection()).sdk.aio.batches
        async with self._session.effect("create", what, creates=True) as current:
            raw = await raw_reply(current, batches.create(model=name, src=source, config=config))
            job = vertex.job_from_vertex(raw)
            if not job.name:
                raise outcome_unknown(what, "its reply names no job")
        return job

    async def create_inline(self, *, model: str, requests: Sequence[JsonObject], display_name: str, task: Task) -> Job:
        """Refuse: there are no inline batches on Google Cloud."""
        raise UsageError("Batches on Google Cloud take no requests inside the call.", "Use delivery='file'.")

    async def get_job(self, name: str) -> Job:
        """Read a job with its counts, its error and where its answers are.

        Raises:
            NotFound: there is no such job (any more).
        """
        name = self._checked_job(name)

        def understand(raw: JsonObject) -> Job | None:
            return vertex.job_from_vertex(raw, asked_name=name) if "state" in raw or "name" in raw else None

        return await self._session.read(
            "get",
            lambda connection, current: raw_reply(current, connection.sdk.aio.batches.get(name=name)),
            f"describe {name}",
            understand,
        )

    async def list_jobs(self, *, page_size: int, page_token: str = "", tag: str = "") -> JobPage:
        """Read one page of the project's jobs in this location; with `tag`, of those that carry it as our label."""
        config: Any = {"page_size": min(max(page_size, 1), _LARGEST_PAGE)}
        if page_token:
            config["page_token"] = page_token
        if tag:
            config["filter"] = f'labels.{vertex.TAG_LABEL}="{vertex.label_of(tag)}"'
        return await self._session.read(
            "list",
            lambda connection, current: raw_reply(current, connection.sdk.aio.batches.list(config=config)),
            "list the jobs",
            vertex.jobs_from_vertex,
        )

    async def cancel_job(self, name: str) -> None:
        """Ask for a job to be cancelled, which takes effect some time later. Repeated if need be: it is idempotent."""
        name = self._checked_job(name)
        batches = (await self._session.connection()).sdk.aio.batches
        await self._session.repeatable("cancel", f"cancel {name}", lambda attempt: batches.cancel(name=name))

    async def delete_job(self, name: str) -> None:
        """Delete a job. Repeated if need be; a job that the first attempt deleted counts as deleted.

        Raises:
            NotFound: there was no such job in the first place.
        """
        name = self._checked_job(name)
        batches = (await self._session.connection()).sdk.aio.batches
        await self._session.deletion("delete_job", f"delete {name}", lambda: batches.delete(name=name))

    async def get_file(self, name: str) -> UploadedFile:
        """Describe an object, or a table.

        Raises:
            NotFound: there is none.
        """
        if name.startswith("bq://"):
            table = await self.warehouse.describe(name)
            if table is None:
                raise NotFound(f"There is no {name}.", "Check its name.", status_code=404)
            return UploadedFile(name=name, size_bytes=table.size_bytes, state=_READY, uri=name)
        return _uploaded(await self._find(name))

    async def delete_file(self, name: str) -> None:
        """Delete an object, or a table. Raises as `delete_job` does."""
        if name.startswith("bq://"):
            await self.warehouse.delete(name)
            return
        uri = _checked_object(name)
        async with self._session.effect("delete_file", f"delete {uri}"):
            storage = (await self._session.connection()).storage
            await in_thread(storage.delete, uri)

    async def pin(self, name: str) -> str:
        """Return an object's name with its generation behind it, `gs://bucket/name#generation`."""
        found = await self._find(name)
        return f"{found.uri}#{found.generation}"

    async def list_files(self, prefix: str) -> tuple[str, ...]:
        """Return the names of the objects that begin so."""
        uri = _checked_object(f"{prefix}x").removesuffix("x")
        async with self._session.effect("list_files", f"list {uri}"):
            storage = (await self._session.connection()).storage
            return await in_thread(storage.names, uri)

    async def read_file(self, name: str, start: int, size_bytes: int) -> bytes:
        """Return bytes of an object.

        Raises:
            NotFound: it is gone, or is another one than `#generation` in its name says.
        """
        uri, _, generation = name.partition("#")
        bucket, object_name = vertex.split_uri(_checked_object(uri)) or ("", "")
        part = StoredObject(bucket, object_name, int(generation or 0), 0, 0)
        async with self._session.effect("read_file", f"send {uri}"):
            storage = (await self._session.connection()).storage
            return await in_thread(storage.read, part, start, size_bytes)

    async def download(
        self,
        file_name: str,
        destination: Path,
        *,
        on_progress: Progress | None = None,
        follower: Follower | None = None,
    ) -> Download:
        """Bring the answers below a directory to one file, which appears when all of them are there and whole.

        The objects come one after the other, by their names, in pieces of which each is asked for until it is whole;
        the checksum of every object is compared with what Cloud Storage states. See `Gateway.download`.

        Raises:
            NotFound: there are no answers, or not all parts of them.
            Rejected: they are in BigQuery.
        """
        if file_name.startswith("bq://"):
            raise Rejected(
                f"The answers are in the BigQuery table {plain_text(file_name, 200)}, which is not brought here.",
                "Query it in BigQuery, or export it to JSON lines.",
            )
        report = on_progress or unseen_progress

        async def bring(incoming: Incoming, current: Exchange) -> None:
            storage = (await self._session.connection()).storage
            parts = await in_thread(storage.answers, file_name)
            current.total_bytes = sum(part.size_bytes for part in parts)
            for part in parts:
                sum_of_part, last = 0, b"\n"
                for start in range(0, part.size_bytes, PIECE_BYTES):
                    size_bytes = min(PIECE_BYTES, part.size_bytes - start)
                    piece = await in_thread(storage.read, part, start, size_bytes)
                    sum_of_part = extended(sum_of_part, piece)
                    incoming.write(piece)
                    last = piece[-1:]
                if sum_of_part != part.crc32c:
                    raise Unavailable(f"{part.uri} arrived damaged.", "Try again in a minute.")
                if last != b"\n":
                    incoming.write(b"\n")

        return await receive(self._session, file_name, destination, report, follower, bring)

    async def list_models(self) -> tuple[Model, ...]:
        """Read all models of Google's that are offered. Whether one takes batches is in no list: see `_wire`."""
        models: list[Model] = []
        token, read = "", set[str]()
        while token not in read and len(read) < _MOST_MODEL_PAGES:
            read.add(token)
            config: Any = {"query_base": True, "page_size": _LARGEST_PAGE, **({"page_token": token} if token else {})}
            page, token = await self._session.read(
                "models",
                lambda connection, current, config=config: raw_reply(  # type: ignore[misc]  # binds the loop's value
                    current, connection.sdk.aio.models.list(config=config)
                ),
                "list the models",
                vertex.models_from_vertex,
            )
            models += page
        return tuple(models)

    async def count_tokens(self, *, model: str, requests: Sequence[JsonObject], task: Task) -> int:
        """Return the input tokens of all of `requests` together, as Vertex AI counts them: one call, free of charge."""
        name = _checked_model(model)
        _require_generate(task)
        what = f"count tokens for {name}"
        # The typed call takes its own types only; `extra_body` puts the real contents in the place of the stand-in.
        body = vertex.request_to_count(wire.request_to_count(name, requests, task))
        config: Any = {"http_options": {"extra_body": body}}
        connection = await self._session.connection()

        async def call(attempt: int) -> int:
            reply = await connection.sdk.aio.models.count_tokens(model=name, contents="stand-in", config=config)
            if reply.total_tokens is None:
                raise not_understood(what, "no total")
            return reply.total_tokens

        return await self._session.repeatable("count_tokens", what, call)

    async def call(self, *, model: str, request: JsonObject, task: Task, tier: Tier) -> JsonObject:
        """Refuse: rows are answered now through the Gemini API only."""
        raise UsageError("delivery='now' is not available on Google Cloud.", "Use delivery='file'.")

    async def _find(self, name: str) -> StoredObject:
        """Describe an object, of the generation that stands behind its name, if one does."""
        uri, _, generation = name.partition("#")
        uri = _checked_object(uri)
        async with self._session.effect("get_file", f"describe {uri}"):
            storage = (await self._session.connection()).storage
            found = await in_thread(storage.find, uri)
            if found is None:
                raise NotFound(f"There is no {uri}.", "Check its name.", status_code=404)
            if generation and generation != str(found.generation):
                raise NotFound(
                    f"{uri} has changed since it was looked at.", "Preview the order again.", status_code=404
                )
        return found

    def _object_name(self, owner: str, display_name: str, sha256: str) -> str:
        """Return where an upload goes: to the folder of its batch, under a name that its content is part of."""
        path = PurePosixPath(display_name)
        stem, ending = vertex.object_part(path.stem), vertex.object_part(path.suffix) if path.suffix else ""
        marked = f"{stem}-{sha256[:32]}" if sha256 else stem
        folder = vertex.object_part(owner) if owner else "files"
        return f"gs://{self._cloud.bucket}/{_FOLDER}/{folder}/{marked}{'.' if ending else ''}{ending}"

    def _checked_job(self, text: str) -> str:
        if name := self.job_name(text):
            return name
        if wire.job_name(text):
            raise NotFound(
                f"{plain_text(text, 80)} is a job of the Gemini API, and this server runs batches on Google Cloud.",
                "Unset GOOGLE_GENAI_USE_ENTERPRISE to see it.",
                status_code=404,
            )
        raise UsageError(
            f"{plain_text(text, 80)!r} is not the name of a job.",
            "On Google Cloud it is projects/…/locations/…/batchPredictionJobs/… or its number.",
        )


def _checked_object(text: str) -> str:
    if vertex.split_uri(text) is not None:
        return text
    raise NotFound(
        f"{plain_text(text, 80)!r} isn't an object in Cloud Storage.",
        "On Google Cloud files are gs://bucket/name; files/… belong to the Gemini API.",
        status_code=404,
    )


def _checked_model(text: str) -> str:
    name = wire.model_name(text)
    if name is not None and name.startswith("models/"):
        return name.removeprefix("models/")
    raise UsageError(f"{plain_text(text, 80)!r} is not a model of Google's.", "Give a name such as gemini-3.8-flash.")


def _require_generate(task: Task) -> None:
    if task != "generate":
        raise UsageError(
            "Batches of embeddings are not available on Google Cloud here.", "Use the Gemini API for them."
        )


def _uploaded(stored: StoredObject) -> UploadedFile:
    return UploadedFile(
        name=stored.uri,
        size_bytes=stored.size_bytes,
        sha256=stored.sha256,
        mime_type=stored.mime_type,
        state=_READY,
        uri=stored.uri,
    )


def _no_hook(step: str) -> None:
    """Do nothing: there are no fault tests."""
