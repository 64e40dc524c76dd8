"""The sandbox: an embedded Gemini Batch service that speaks the wire protocol and never pretends to be a model.

Of Google Cloud it speaks batch prediction jobs, Cloud Storage and BigQuery; see `cloud/routes.py`.

Any client works with it, in process (`Sandbox.transport()`) or on a port (`serve`): resumable uploads, files,
batches (generate and embed, file and inline), generateContent, batchEmbedContents, models,
countTokens. Every API version in the path is accepted and
recorded. A request that meets no route gets a 404 and stays in `Sandbox.unknown_requests`.

What it does not imitate:

- Models. Answers follow from a hash of the request, fit its schema (`pattern` excepted) and say `[sandbox]`; token
  counts are estimates. Rules of single models are not checked, files and caches named in requests are not looked up.
- Anything beside these: streams, embedContent of a single request, caches, `files:register`, webhooks (a
  webhookConfig is kept and shown, nothing is sent), the OpenAI-compatible paths. All of it is a 404.
- Projects, tiers, prices and TLS. Every accepted key sees every file and job, unless `one_project_per_key`.
- HTTP ranges (ignored, the whole body is sent), compression, `filter` on lists, updates of anything but displayName
  and priority.

What is assumed, because Google's documents leave it open or contradict each other:

- Lists show the newest first. Uploaded files are ACTIVE at once. Result files never expire by themselves; get and
  delete of them answer 400, download works. Uploads cannot be downloaded (403). Names that are gone answer 404.
- A chunk counts only as a whole. A wrong offset is a 400 that leaves the session active, a wrong size at finalize a
  400 that ends it. A query after the end says `final`, without the file. Full storage is a 429.
- A create is refused when its body reaches the inline limit. A file is refused for blank lines, CR, a BOM and unknown
  members anywhere; equal keys and lines without a key are accepted. Columns in messages are near the fault, not exact.
- Enqueued tokens are a quarter of the input's bytes; they and the place among the active jobs are held until the job
  ends or is deleted.
- A job has its output from the moment it ends, and its result file can be downloaded at once, unless
  `output_lag_seconds` or `file_lag_seconds` say that they come later.
- A call is answered like a row of a batch, and charged once it is, whatever becomes of the reply. A row that a batch
  would leave out is a 504 then. Which tiers a model has is not checked.
- While a job runs its counts grow evenly; failed rows are counted by their configured share. At the end they are exact.
- FAILED (error code 3) counts all rows as failed. EXPIRED (4) and CANCELLED (1) have no answers, unless
  `keeps_cancelled_rows`. Cancelling an ended job changes nothing. A deleted job is gone at once, its result file stays.
- An update answers with the operation. Embedding operations look like the others, with EmbedContentBatch as type.

Wire samples, which the comments here name by number, are the files of `tests/support/wire-samples`.

On a port nothing but the key check stands between a caller and the files, and `/sandbox/…` (see `api/control.py`) asks
for none: bind it to the local host.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gemini_batch_mcp.sandbox.api.batches import Batches
from gemini_batch_mcp.sandbox.api.calls import CallRecord, Calls
from gemini_batch_mcp.sandbox.api.catalog import Catalog
from gemini_batch_mcp.sandbox.api.control import Control
from gemini_batch_mcp.sandbox.api.faults import Fault, FaultQueue, When
from gemini_batch_mcp.sandbox.api.files import Files, is_session_request, upload_route
from gemini_batch_mcp.sandbox.api.guard import Guard, Handler, RecordedRequest, RequestLog
from gemini_batch_mcp.sandbox.api.projects import Projects
from gemini_batch_mcp.sandbox.api.uploads import Uploads
from gemini_batch_mcp.sandbox.cloud.routes import CloudSide
from gemini_batch_mcp.sandbox.config import SandboxConfig
from gemini_batch_mcp.sandbox.lifecycle.creates import Creates
from gemini_batch_mcp.sandbox.lifecycle.jobs import Jobs
from gemini_batch_mcp.sandbox.lifecycle.references import References
from gemini_batch_mcp.sandbox.state import CreateRecord, JobRecord, State
from gemini_batch_mcp.sandbox.transport import InProcessTransport
from gemini_batch_mcp.sandbox.wire import not_found

#: What a network says to whoever has not signed in to it.
PORTAL_PAGE: Final = "<!doctype html>\n<html><head><title>Sign in</title></head>\n<body>Welcome.</body></html>\n"


class Sandbox:
    """One service over one directory. `app` is the ASGI application."""

    def __init__(self, directory: Path, config: SandboxConfig | None = None) -> None:
        self.config = config or SandboxConfig()
        self.log = RequestLog()
        self.faults = FaultQueue()
        self.state = State(directory)
        self.cloud = CloudSide(self.state, self.config)
        self.jobs = Jobs(self.state, self.config, self.cloud.deliver)
        self.app = self._build_app()

    def close(self) -> None:
        """Let go of the directory."""
        self.jobs.close()
        self.cloud.close()
        self.state.close()

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def transport(self) -> InProcessTransport:
        """Return an httpx2 transport that reaches the service without a port; its own faults come out as they are."""
        return InProcessTransport(self.app.router)

    @contextmanager
    def listening(self, host: str = "127.0.0.1", port: int = 0) -> Generator[str]:
        """Serve on a port from a thread while the block runs; gives the base URL."""
        from gemini_batch_mcp.sandbox import service  # see `serve`

        with service.listening(self.app, host, port) as base_url:
            yield base_url

    @property
    def requests(self) -> tuple[RecordedRequest, ...]:
        """Every request, in order of arrival."""
        return tuple(self.log.requests)

    @property
    def unknown_requests(self) -> tuple[RecordedRequest, ...]:
        """The requests that met no route: a test should assert that there are none."""
        return tuple(self.log.unknown)

    @property
    def creates(self) -> int:
        """How many creates took effect, in the directory's whole life."""
        return len(self.state.creates())

    @property
    def create_records(self) -> list[CreateRecord]:
        """The creates that took effect, newest first."""
        return self.state.creates()

    @property
    def call_records(self) -> tuple[CallRecord, ...]:
        """The requests that were answered one by one and would be charged, in order, in the life of this object."""
        return tuple(self.calls.records)

    def fail_next(
        self,
        route: str,
        *,
        status: int,
        body: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
        when: When = "before",
        times: int = 1,
        skip: int = 0,
    ) -> None:
        """Refuse the next requests of a route, before or after their effect."""
        sent = dict(headers or {})
        if retry_after is not None:
            sent["retry-after"] = f"{retry_after:g}"
        self.faults.add(Fault(route, status=status, body=body, headers=sent, when=when, times=times, skip=skip))

    def delay_next(self, route: str, seconds: float, *, times: int = 1, skip: int = 0) -> None:
        """Hold the next requests of a route back before they are worked on."""
        self.faults.add(Fault(route, delay_seconds=seconds, times=times, skip=skip))

    def cut_next(
        self, route: str, when: When = "after", *, at_byte: int | None = None, times: int = 1, skip: int = 0
    ) -> None:
        """Close the connection of the next requests of a route.

        `before`: without effect, after `at_byte` bytes of the request's body (None: the whole request). `after`: the
        effect has happened and `at_byte` bytes of the reply's body went out (None: no reply at all).
        """
        self.faults.add(Fault(route, cut=True, when=when, at_byte=at_byte, times=times, skip=skip))

    def shorten_next(
        self, route: str, *, at_byte: int = 0, at_line: int | None = None, times: int = 1, skip: int = 0
    ) -> None:
        """Answer the next requests with a body that ends early although HTTP says that it is whole.

        It ends behind `at_byte` bytes; with `at_line`, behind so many lines and `at_byte` bytes of the next one.
        """
        self.faults.add(
            Fault(route, short_body=True, when="after", at_byte=at_byte, at_line=at_line, times=times, skip=skip)
        )

    def page_next(self, route: str, page: str = PORTAL_PAGE, *, times: int = 1, skip: int = 0) -> None:
        """Answer the next requests with an HTML page and status 200, as a captive portal does."""
        self.faults.add(Fault(route, page=page, when="after", times=times, skip=skip))

    def omit_next(self, route: str, *names: str, times: int = 1, skip: int = 0) -> None:
        """Leave members of these names out of the next JSON replies: `output` and `response`, or `batchStats`."""
        self.faults.add(Fault(route, without=names, when="after", times=times, skip=skip))

    def advance(self, name: str) -> JobRecord:
        """Move a job one step: pending, running (half of the rows), its end."""
        return self.jobs.advance(name)

    def finish(
        self,
        name: str,
        state: str = "SUCCEEDED",
        error: Mapping[str, Any] | None = None,
        answered_rows: int | None = None,
    ) -> JobRecord:
        """End a job now; see `Jobs.finish`."""
        return self.jobs.finish(name, state, error, answered_rows)

    def set_state(self, name: str, state: str) -> JobRecord:
        """Give a job any state that does not end it."""
        return self.jobs.set_state(name, state)

    def expire_file(self, name: str) -> None:
        """Let a file vanish as if its time were over."""
        if self.state.file(name) is None:
            raise not_found()
        self.state.remove_file(name)

    def forget_job(self, name: str) -> None:
        """Let a job vanish."""
        self.jobs.delete(name)

    def _build_app(self) -> Starlette:
        config, state = self.config, self.state
        files = Files(state, self.jobs, Uploads(state, config), config)
        batches = Batches(state, self.jobs, Creates(state, self.jobs, config), config)
        references = References(state.file, config)
        catalog = Catalog(config, references)
        self.calls = Calls(config, references)
        projects = Projects() if config.one_project_per_key else None

        def route(method: str, path: str, name: str, handler: Handler) -> Route:
            return Route(path, Guard(name, handler, self.log, self.faults, config, projects), methods=[method])

        upload = Guard(
            upload_route,
            files.upload,
            self.log,
            self.faults,
            config,
            projects,
            needs_key=lambda s: not is_session_request(s),
        )
        routes = [
            *Control(state, self.jobs, self.log, self.faults).routes(),
            Route("/upload/{version}/files", upload, methods=["POST", "PUT"]),
            route("GET", "/download/{version}/files/{id}:download", "files.download", files.download),
            route("GET", "/{version}/files/{id}:download", "files.download", files.download),
            route("GET", "/{version}/files", "files.list", files.list),
            route("GET", "/{version}/files/{id}", "files.get", files.get),
            route("DELETE", "/{version}/files/{id}", "files.delete", files.delete),
            route("POST", "/{version}/models/{id}:batchGenerateContent", "batches.create", batches.create_generate),
            route("POST", "/{version}/models/{id}:asyncBatchEmbedContent", "batches.create", batches.create_embed),
            route("POST", "/{version}/models/{id}:countTokens", "countTokens", catalog.count_tokens),
            route("POST", "/{version}/models/{id}:generateContent", "generateContent", self.calls.generate),
            route("POST", "/{version}/models/{id}:batchEmbedContents", "embedContent", self.calls.embed),
            route("GET", "/{version}/models", "models.list", catalog.list),
            route("GET", "/{version}/models/{id}", "models.get", catalog.get),
            route("GET", "/{version}/batches", "batches.list", batches.list),
            route("POST", "/{version}/batches/{id}:cancel", "batches.cancel", batches.cancel),
            route("PATCH", "/{version}/batches/{id}:updateGenerateContentBatch", "batches.update", batches.update),
            route("PATCH", "/{version}/batches/{id}:updateEmbedContentBatch", "batches.update", batches.update),
            route("GET", "/{version}/batches/{id}", "batches.get", batches.get),
            route("DELETE", "/{version}/batches/{id}", "batches.delete", batches.delete),
        ]
        routes += self.cloud.routes(
            self.jobs,
            lambda name, handler: Guard(name, handler, self.log, self.faults, config, needs_key=lambda _: False),
        )
        unknown = Guard("", _no_route, self.log, self.faults, config, needs_key=lambda _: False)
        routes.append(Route("/{path:path}", unknown))
        return Starlette(routes=routes)


def serve(
    sandbox: Sandbox, host: str = "127.0.0.1", port: int = 0, on_ready: Callable[[str], None] | None = None
) -> None:
    """Serve on a port until the process is interrupted. Port 0 picks one; `on_ready` is called with the base URL."""
    # Imported here: uvicorn takes longer to load than the rest, and in process nobody needs it.
    from gemini_batch_mcp.sandbox import service

    service.run(sandbox.app, host, port, on_ready or (lambda url: None))


async def _no_route(_: Request) -> Response:
    raise not_found()
